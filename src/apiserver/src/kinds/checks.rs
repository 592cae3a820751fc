//! Defaults and checks that several kinds share, with upstream's words.

use std::net::IpAddr;

use kontiki_api::field::{Error, ErrorKind, Path};
use kontiki_api::names;
use kontiki_api::object::{list, text};
use serde_json::{Map, Value};

/// What several checks collect into.
pub(super) type Errors = Vec<Error>;

/// The value of a member that is there and not null.
pub(super) fn member<'a>(v: &'a Value, key: &str) -> Option<&'a Value> {
    v.get(key).filter(|x| !x.is_null())
}

/// The member as an object to change, if it is one.
pub(super) fn map_of<'a>(v: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    v.get_mut(key).filter(|x| x.is_object())
}

/// The items of the list under a member, to change.
pub(super) fn items_mut<'a>(v: &'a mut Value, key: &str) -> &'a mut [Value] {
    v.get_mut(key)
        .and_then(Value::as_array_mut)
        .map_or(&mut [], Vec::as_mut_slice)
}

/// Puts `value` where nothing stands.
pub(super) fn default_value(v: &mut Value, key: &str, value: impl Into<Value>) {
    if let Some(m) = v.as_object_mut()
        && m.get(key).is_none_or(Value::is_null)
    {
        m.insert(key.into(), value.into());
    }
}

/// Puts `value` where nothing or an empty text stands.
pub(super) fn default_text(v: &mut Value, key: &str, value: &str) {
    if let Some(m) = v.as_object_mut()
        && m.get(key)
            .is_none_or(|x| x.is_null() || x.as_str() == Some(""))
    {
        m.insert(key.into(), value.into());
    }
}

/// Puts `value` where nothing or zero stands.
pub(super) fn default_int(v: &mut Value, key: &str, value: i64) {
    if let Some(m) = v.as_object_mut()
        && m.get(key)
            .is_none_or(|x| x.is_null() || x.as_i64() == Some(0))
    {
        m.insert(key.into(), value.into());
    }
}

/// Puts the member of `old` into `new`, or takes it away if `old` has none.
pub(super) fn keep(new: &mut Value, old: &Value, key: &str) {
    let Some(m) = new.as_object_mut() else { return };
    match old.get(key) {
        Some(v) => {
            m.insert(key.into(), v.clone());
        }
        None => {
            m.remove(key);
        }
    }
}

/// Takes a member away.
pub(super) fn clear(v: &mut Value, key: &str) {
    if let Some(m) = v.as_object_mut() {
        m.remove(key);
    }
}

/// Whether two members are the same, with nothing and null and empty being the same.
pub(super) fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    let empty = |v: &&Value| match v {
        Value::Null => true,
        Value::Array(x) => x.is_empty(),
        Value::Object(x) => x.is_empty(),
        Value::String(x) => x.is_empty(),
        _ => false,
    };
    a.filter(|v| !empty(v)) == b.filter(|v| !empty(v))
}

/// An unsupported value, with what is supported in upstream's order (`field::Error::not_supported` sorts).
pub(super) fn unsupported(path: &Path, value: impl Into<Value>, supported: &[&str]) -> Error {
    let list: Vec<String> = supported.iter().map(|x| format!("{x:?}")).collect();
    Error::new(
        ErrorKind::NotSupported,
        path,
        Some(&value.into()),
        format!("supported values: {}", list.join(", ")),
    )
}

/// An invalid value of a type whose internal form upstream prints.
pub(super) fn invalid_shown(path: &Path, shown: String, detail: impl Into<String>) -> Error {
    Error {
        kind: ErrorKind::Invalid,
        field: path.as_str().to_owned(),
        value: Some(shown),
        detail: detail.into(),
    }
}

/// Adds each complaint about `value` as an invalid value.
pub(super) fn complain(errors: &mut Errors, path: &Path, value: &str, complaints: Vec<String>) {
    errors.extend(
        complaints
            .into_iter()
            .map(|c| Error::invalid(path, value, c)),
    );
}

/// `v[key]` may not change.
pub(super) fn immutable(
    errors: &mut Errors,
    path: &Path,
    new: Option<&Value>,
    old: Option<&Value>,
) {
    if !same(new, old) {
        errors.push(Error::invalid(
            path,
            new.cloned().unwrap_or_default(),
            "field is immutable",
        ));
    }
}

/// The number under `key` may not be negative.
pub(super) fn non_negative(errors: &mut Errors, path: &Path, v: &Value, key: &str) {
    if let Some(n) = v.get(key).and_then(Value::as_i64)
        && n < 0
    {
        errors.push(Error::invalid(&path.child(key), n, NOT_NEGATIVE));
    }
}

/// The words for a number below zero.
pub(super) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
/// The words for a port out of range.
pub(super) const PORT_RANGE: &str = "must be between 1 and 65535, inclusive";

/// Whether this is a port number.
pub(super) fn is_port(n: i64) -> bool {
    (1..=65535).contains(&n)
}

/// What is wrong with the name of a port (an IANA service name).
pub(super) fn port_name(s: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let b = s.as_bytes();
    if b.len() > 15 {
        errors.push("must be no more than 15 characters".into());
    }
    if b.is_empty()
        || !b
            .iter()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == b'-')
    {
        errors.push("must contain only alphanumeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !b.iter().any(u8::is_ascii_lowercase) {
        errors.push("must contain at least one letter (a-z)".into());
    }
    if s.contains("--") {
        errors.push("must not contain consecutive hyphens".into());
    }
    if s.starts_with('-') || s.ends_with('-') {
        errors.push("must not begin or end with a hyphen".into());
    }
    errors
}

/// A text that should be an address.
pub(super) fn ip(errors: &mut Errors, path: &Path, value: &str) -> Option<IpAddr> {
    let parsed = value.parse().ok();
    if parsed.is_none() {
        errors.push(Error::invalid(
            path,
            value,
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ));
    }
    parsed
}

/// A text that should be an address block.
pub(super) fn cidr(errors: &mut Errors, path: &Path, value: &str) -> Option<ipnet::IpNet> {
    let parsed = value.parse().ok();
    if parsed.is_none() {
        errors.push(Error::invalid(
            path,
            value,
            "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        ));
    }
    parsed
}

/// Addresses that endpoints may not have.
pub(super) fn endpoint_ip(errors: &mut Errors, path: &Path, ip: IpAddr) {
    let shown = ip.to_string();
    let mut bad = |why: &str| errors.push(Error::invalid(path, shown.as_str(), why));
    let link_local_multicast = match ip {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    };
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if ip.is_unspecified() {
        bad("may not be unspecified (0.0.0.0 or ::)");
    } else if ip.is_loopback() {
        bad("may not be in the loopback range (127.0.0.0/8, ::1/128)");
    } else if link_local {
        bad("may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    } else if link_local_multicast {
        bad("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

/// What is wrong with a key of a config map or secret.
pub(super) fn config_key(key: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if key.len() > names::DNS_SUBDOMAIN_BYTES_MAX {
        errors.push(format!(
            "must be no more than {} characters",
            names::DNS_SUBDOMAIN_BYTES_MAX
        ));
    }
    if key.is_empty()
        || !key
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
    {
        errors.push(names::regex_error(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match key {
        "." => errors.push("must not be '.'".into()),
        ".." => errors.push("must not be '..'".into()),
        k if k.starts_with("..") => errors.push("must not start with '..'".into()),
        _ => {}
    }
    errors
}

/// A path within a volume: relative, and never upwards.
pub(super) fn local_path(errors: &mut Errors, path: &Path, value: &str) {
    if value.starts_with('/') {
        errors.push(Error::invalid(path, value, "must be a relative path"));
    }
    no_backsteps(errors, path, value);
}

/// A path may not go upwards.
pub(super) fn no_backsteps(errors: &mut Errors, path: &Path, value: &str) {
    if value.split('/').any(|part| part == "..") {
        errors.push(Error::invalid(path, value, "must not contain '..'"));
    }
}

/// The labels of a template or of a selector.
pub(super) fn labels(errors: &mut Errors, path: &Path, labels: Option<&Value>) {
    let Some(map) = labels.and_then(Value::as_object) else {
        return;
    };
    for (key, value) in map {
        complain(errors, path, key, names::qualified_name(key));
        let value = value.as_str().unwrap_or_default();
        complain(errors, path, value, names::label_value(value));
    }
}

/// The labels and annotations of an object within an object (a template).
pub(super) fn template_metadata(errors: &mut Errors, path: &Path, meta: Option<&Value>) {
    let Some(meta) = meta else { return };
    labels(errors, &path.child("labels"), meta.get("labels"));
    let Some(annotations) = meta.get("annotations").and_then(Value::as_object) else {
        return;
    };
    for key in annotations.keys() {
        complain(
            errors,
            &path.child("annotations"),
            key,
            names::qualified_name(&key.to_lowercase()),
        );
    }
}

/// A `LabelSelector`.
pub(super) fn label_selector(errors: &mut Errors, path: &Path, selector: &Value) {
    labels(
        errors,
        &path.child("matchLabels"),
        selector.get("matchLabels"),
    );
    for (i, e) in list(selector, &["matchExpressions"]).iter().enumerate() {
        let at = path.child("matchExpressions").index(i);
        let values = list(e, &["values"]);
        match text(e, &["operator"]) {
            "In" | "NotIn" if values.is_empty() => errors.push(Error::required(
                &at.child("values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(Error::forbidden(
                &at.child("values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.push(Error::invalid(
                &at.child("operator"),
                other,
                "not a valid selector operator",
            )),
        }
        let key = text(e, &["key"]);
        complain(errors, &at.child("key"), key, names::qualified_name(key));
        for (j, v) in values.iter().filter_map(Value::as_str).enumerate() {
            complain(
                errors,
                &at.child("values").index(j),
                v,
                names::label_value(v),
            );
        }
    }
}

/// Whether a `LabelSelector` says nothing, and so takes everything.
pub(super) fn selector_is_empty(selector: &Value) -> bool {
    selector
        .get("matchLabels")
        .and_then(Value::as_object)
        .is_none_or(Map::is_empty)
        && list(selector, &["matchExpressions"]).is_empty()
}

/// Adds a finalizer to an object that does not have it.
pub(super) fn add_finalizer(object: &mut Value, finalizer: &str) {
    let all = kontiki_api::object::map_mut(object, &["metadata"])
        .entry("finalizers")
        .or_insert_with(|| Value::Array(Vec::new()));
    if let Some(all) = all.as_array_mut()
        && !all.iter().any(|f| f == finalizer)
    {
        all.push(finalizer.into());
    }
}

/// Adds a label to an object.
pub(super) fn set_label(object: &mut Value, key: &str, value: &str) {
    kontiki_api::object::map_mut(object, &["metadata", "labels"]).insert(key.into(), value.into());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn port_names_are_iana_service_names() {
        assert!(port_name("http").is_empty());
        assert_eq!(port_name("a--b"), ["must not contain consecutive hyphens"]);
        assert_eq!(port_name("1"), ["must contain at least one letter (a-z)"]);
        assert_eq!(
            port_name("abcdefghijklmnop"),
            ["must be no more than 15 characters"]
        );
    }

    #[test]
    fn selectors_are_checked_by_operator() {
        let mut e = Errors::new();
        let s = json!({"matchExpressions": [{"key": "a", "operator": "Is"}, {"key": "a", "operator": "In"},
            {"key": "a", "operator": "Exists", "values": ["b"]}]});
        label_selector(&mut e, &Path::new("s"), &s);
        let fields: Vec<&str> = e.iter().map(|e| e.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "s.matchExpressions[0].operator",
                "s.matchExpressions[1].values",
                "s.matchExpressions[2].values"
            ]
        );
    }

    #[test]
    fn nothing_and_empty_are_the_same() {
        assert!(same(None, Some(&json!({}))));
        assert!(same(Some(&json!("")), Some(&Value::Null)));
        assert!(!same(Some(&json!(false)), None));
    }

    #[test]
    fn defaults_leave_what_stands() {
        let mut v = json!({"a": "", "b": 0, "c": null, "d": false});
        default_text(&mut v, "a", "x");
        default_int(&mut v, "b", 7);
        default_value(&mut v, "c", true);
        default_value(&mut v, "d", true);
        assert_eq!(v, json!({"a": "x", "b": 7, "c": true, "d": false}));
    }
}
