//! IPAddresses.

use std::net::IpAddr;

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::object::{get, name, text};
use serde_json::Value;

use super::checks::{Errors, invalid_shown, same};
use super::columns::{NAME, age, string};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of ipaddresses.
pub(super) struct IpAddress;

/// Upstream declares no column for the age that it shows.
static COLUMNS: [Column; 2] = [
    NAME,
    string(
        "ParentRef",
        "ParentRef references the resource that an IPAddress is attached to. An IPAddress must reference a parent object.",
    ),
];

impl Strategy for IpAddress {
    fn validate_name(&self, name: &str, _prefix: bool) -> Vec<String> {
        match name.parse::<IpAddr>() {
            Ok(ip) if ip.to_string() == name => Vec::new(),
            Ok(ip) => vec![format!("must be in canonical form ({:?})", ip.to_string())],
            Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".into()],
        }
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let at = Path::new("spec").child("parentRef");
        let Some(parent) = get(object, &["spec", "parentRef"]) else {
            return vec![Error::required(&at, "")];
        };
        for key in ["resource", "name"] {
            if text(parent, &[key]).is_empty() {
                errors.push(Error::required(&at.child(key), ""));
            }
        }
        errors
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(cx, new);
        let of = |v| get(v, &["spec", "parentRef"]);
        if !same(of(new), of(old)) {
            let part = |key: &str| Value::from(text(new, &["spec", "parentRef", key]));
            let shown = format!(
                "{{\"Group\":{},\"Resource\":{},\"Namespace\":{},\"Name\":{}}}",
                part("group"),
                part("resource"),
                part("namespace"),
                part("name")
            );
            errors.push(invalid_shown(
                &Path::new("spec").child("parentRef"),
                shown,
                "field is immutable",
            ));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let part = |key: &str| text(object, &["spec", "parentRef", key]);
        let mut parent = part("resource").to_owned();
        if !part("group").is_empty() {
            parent = format!("{parent}.{}", part("group"));
        }
        if !part("namespace").is_empty() {
            parent = format!("{parent}/{}", part("namespace"));
        }
        vec![
            name(object).into(),
            format!("{parent}/{}", part("name")).into(),
            age(object, now),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{cx, fields};
    use super::*;

    #[test]
    fn an_address_is_its_name_and_has_a_parent() {
        assert!(IpAddress.validate_name("10.0.0.1", false).is_empty());
        assert_eq!(IpAddress.validate_name("2001:DB8::1", false).len(), 1);
        assert_eq!(IpAddress.validate_name("x", false).len(), 1);
        assert_eq!(
            fields(&IpAddress.validate(&cx(), &json!({"spec": {}}))),
            ["spec.parentRef"]
        );
        let of = |n: &str| json!({"spec": {"parentRef": {"resource": "services", "name": n}}});
        assert_eq!(
            fields(&IpAddress.validate_update(&cx(), &of("a"), &of("b"))),
            ["spec.parentRef"]
        );
    }

    #[test]
    fn a_row_shows_the_parent() {
        let o = json!({"spec": {"parentRef": {"group": "example.com", "resource": "things", "namespace": "n", "name": "s"}}});
        assert_eq!(
            IpAddress.row(&o, Timestamp::UNIX_EPOCH)[1],
            "things.example.com/n/s"
        );
    }
}
