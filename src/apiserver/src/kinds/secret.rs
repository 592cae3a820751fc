//! Secrets.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::object::{map_mut, text, truth};
use serde_json::{Map, Value};

use super::checks::{Errors, complain, config_key, default_text, immutable, same};
use super::columns::{AGE, NAME, named_row, string};
use super::configmap::{DATA_BYTES_MAX, decoded_bytes};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of secrets.
pub(super) struct Secret;

static COLUMNS: [Column; 4] = [
    NAME,
    string(
        "Type",
        "Used to facilitate programmatic handling of secret data. More info: https://kubernetes.io/docs/concepts/configuration/secret/#secret-types",
    ),
    string(
        "Data",
        "Data contains the secret data. Each key must consist of alphanumeric characters, '-', '_' or '.'. The serialized form of the secret data is a base64 encoded string, representing the arbitrary (possibly non-string) data value here. Described in https://tools.ietf.org/html/rfc4648#section-4",
    ),
    AGE,
];

/// The annotation by which a token secret names its service account.
const SERVICE_ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";

impl Strategy for Secret {
    fn default(&self, object: &mut Value) {
        default_text(object, "type", "Opaque");
        // What is given as text is stored as data, and never answered as text.
        if let Some(Value::Object(strings)) =
            object.as_object_mut().and_then(|m| m.remove("stringData"))
        {
            let data = map_mut(object, &["data"]);
            for (key, value) in strings {
                data.insert(
                    key,
                    STANDARD.encode(value.as_str().unwrap_or_default()).into(),
                );
            }
        }
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let at = Path::new("data");
        let data = object.get("data").and_then(Value::as_object);
        let mut bytes = 0;
        for (key, value) in data.into_iter().flatten() {
            complain(&mut errors, &at.key(key), key, config_key(key));
            bytes += decoded_bytes(value);
        }
        if bytes > DATA_BYTES_MAX {
            errors.push(Error::too_long(&at, DATA_BYTES_MAX));
        }
        validate_type(&mut errors, object, data);
        errors
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, old: &Value) -> Errors {
        let mut errors = Errors::new();
        immutable(
            &mut errors,
            &Path::new("type"),
            new.get("type"),
            old.get("type"),
        );
        if truth(old, &["immutable"]) {
            let why = "field is immutable when `immutable` is set";
            for key in ["immutable", "data"] {
                if !same(new.get(key), old.get(key)) {
                    errors.push(Error::forbidden(&Path::new(key), why));
                }
            }
        }
        errors.extend(self.validate(cx, new));
        errors
    }

    fn field<'a>(&self, object: &'a Value, field: &str) -> Option<Cow<'a, str>> {
        (field == "type").then(|| text(object, &["type"]).into())
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["type"]
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let count = object
            .get("data")
            .and_then(Value::as_object)
            .map_or(0, Map::len);
        named_row(object, now, [text(object, &["type"]).into(), count.into()])
    }
}

/// What each type has to hold.
fn validate_type(errors: &mut Errors, object: &Value, data: Option<&Map<String, Value>>) {
    let at = Path::new("data");
    let has = |key: &str| data.is_some_and(|d| d.contains_key(key));
    let mut need = |keys: &[&str]| {
        errors.extend(
            keys.iter()
                .filter(|k| !has(k))
                .map(|k| Error::required(&at.key(k), "")),
        );
    };
    match text(object, &["type"]) {
        "kubernetes.io/tls" => need(&["tls.crt", "tls.key"]),
        "kubernetes.io/ssh-auth" => need(&["ssh-privatekey"]),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            need(&["username", "password"]);
        }
        "kubernetes.io/dockercfg" => docker(
            errors,
            &at.key(".dockercfg"),
            data.and_then(|d| d.get(".dockercfg")),
        ),
        "kubernetes.io/dockerconfigjson" => {
            docker(
                errors,
                &at.key(".dockerconfigjson"),
                data.and_then(|d| d.get(".dockerconfigjson")),
            );
        }
        "kubernetes.io/service-account-token"
            if text(object, &["metadata", "annotations", SERVICE_ACCOUNT_NAME]).is_empty() =>
        {
            let at = Path::new("metadata")
                .child("annotations")
                .key(SERVICE_ACCOUNT_NAME);
            errors.push(Error::required(&at, ""));
        }
        _ => {}
    }
}

/// Registry credentials have to be a JSON object.
fn docker(errors: &mut Errors, at: &Path, value: Option<&Value>) {
    let Some(value) = value else {
        return errors.push(Error::required(at, ""));
    };
    let bytes = STANDARD
        .decode(value.as_str().unwrap_or_default())
        .unwrap_or_default();
    if let Err(e) = serde_json::from_slice::<Map<String, Value>>(&bytes) {
        errors.push(Error::invalid(
            at,
            "<secret contents redacted>",
            e.to_string(),
        ));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{cx, fields, idempotent};
    use super::*;

    #[test]
    fn text_becomes_data() {
        let o = idempotent(
            &Secret,
            json!({"data": {"a": "AAE="}, "stringData": {"a": "y", "b": "x"}}),
        );
        assert_eq!(
            o,
            json!({"type": "Opaque", "data": {"a": "eQ==", "b": "eA=="}})
        );
    }

    #[test]
    fn types_have_their_keys() {
        let of = |t: &str, data: Value| {
            fields(&Secret.validate(
                &cx(),
                &json!({"type": format!("kubernetes.io/{t}"), "data": data}),
            ))
        };
        assert_eq!(of("tls", json!({"tls.crt": ""})), ["data[tls.key]"]);
        assert_eq!(
            of("basic-auth", json!({})),
            ["data[username]", "data[password]"]
        );
        assert!(of("basic-auth", json!({"username": ""})).is_empty());
        assert_eq!(
            of("dockerconfigjson", json!({})),
            ["data[.dockerconfigjson]"]
        );
        assert_eq!(
            of("dockercfg", json!({".dockercfg": "eA=="})),
            ["data[.dockercfg]"]
        );
        assert!(of("dockercfg", json!({".dockercfg": "e30="})).is_empty());
        assert_eq!(
            of("service-account-token", json!({})),
            ["metadata.annotations[kubernetes.io/service-account.name]"]
        );
    }

    #[test]
    fn the_type_stays() {
        let old = json!({"type": "Opaque"});
        assert_eq!(
            fields(&Secret.validate_update(&cx(), &json!({"type": "x"}), &old)),
            ["type"]
        );
    }
}
