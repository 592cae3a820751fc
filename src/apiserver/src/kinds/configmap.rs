//! ConfigMaps.

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::object::truth;
use serde_json::{Map, Value};

use super::checks::{Errors, complain, config_key, same};
use super::columns::{AGE, NAME, named_row, string};
use crate::strategy::{Column, Context, Strategy};

/// The most bytes of all values of a config map or a secret.
pub(super) const DATA_BYTES_MAX: usize = 1024 * 1024;

/// The strategy of configmaps.
pub(super) struct ConfigMap;

static COLUMNS: [Column; 3] = [
    NAME,
    string(
        "Data",
        "Data contains the configuration data. Each key must consist of alphanumeric characters, '-', '_' or '.'. Values with non-UTF-8 byte sequences must use the BinaryData field. The keys stored in Data must not overlap with the keys in the BinaryData field, this is enforced during validation process.",
    ),
    AGE,
];

impl Strategy for ConfigMap {
    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let (data, binary) = (map(object, "data"), map(object, "binaryData"));
        let mut bytes = 0;
        for (key, value) in data.into_iter().flatten() {
            complain(
                &mut errors,
                &Path::new("data").key(key),
                key,
                config_key(key),
            );
            if binary.is_some_and(|b| b.contains_key(key)) {
                let why = "duplicate of key present in binaryData";
                errors.push(Error::invalid(
                    &Path::new("data").key(key),
                    key.as_str(),
                    why,
                ));
            }
            bytes += value.as_str().map_or(0, str::len);
        }
        for (key, value) in binary.into_iter().flatten() {
            complain(
                &mut errors,
                &Path::new("binaryData").key(key),
                key,
                config_key(key),
            );
            bytes += decoded_bytes(value);
        }
        if bytes > DATA_BYTES_MAX {
            errors.push(Error::too_long(&Path::root(), DATA_BYTES_MAX));
        }
        errors
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, old: &Value) -> Errors {
        let mut errors = Errors::new();
        if truth(old, &["immutable"]) {
            let why = "field is immutable when `immutable` is set";
            for key in ["immutable", "data", "binaryData"] {
                if !same(new.get(key), old.get(key)) {
                    errors.push(Error::forbidden(&Path::new(key), why));
                }
            }
        }
        errors.extend(self.validate(cx, new));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let count = |key| map(object, key).map_or(0, Map::len);
        named_row(object, now, [(count("data") + count("binaryData")).into()])
    }
}

fn map<'a>(object: &'a Value, key: &str) -> Option<&'a Map<String, Value>> {
    object.get(key).and_then(Value::as_object)
}

/// How many bytes a base64 text stands for.
pub(super) fn decoded_bytes(value: &Value) -> usize {
    let text = value.as_str().unwrap_or_default();
    (text.len() / 4 * 3).saturating_sub(text.bytes().rev().take_while(|c| *c == b'=').count())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{cx, fields};
    use super::*;

    #[test]
    fn keys_are_checked_and_stand_once() {
        let o = json!({"data": {"a b": "1", "c": "1"}, "binaryData": {"c": "AAE="}});
        assert_eq!(
            fields(&ConfigMap.validate(&cx(), &o)),
            ["data[a b]", "data[c]"]
        );
    }

    #[test]
    fn too_much_data_is_refused() {
        let o = json!({"data": {"a": "x".repeat(DATA_BYTES_MAX)}, "binaryData": {"b": "AAE="}});
        assert_eq!(ConfigMap.validate(&cx(), &o).len(), 1);
    }

    #[test]
    fn an_immutable_one_stays() {
        let old = json!({"immutable": true, "data": {"a": "1"}});
        let new = json!({"data": {"a": "2"}});
        assert_eq!(
            fields(&ConfigMap.validate_update(&cx(), &new, &old)),
            ["immutable", "data"]
        );
        assert!(ConfigMap.validate_update(&cx(), &old, &old).is_empty());
    }
}
