//! JSON merge patch (RFC 7386).

use serde_json::{Map, Value};

use super::{PatchError, json_type, parse};

/// Reads a merge patch from a request's body.
pub fn parse_patch(body: &[u8]) -> Result<Value, PatchError> {
    let malformed = |e: String| PatchError::Malformed(format!("error decoding patch: {e}"));
    match parse(body).map_err(malformed)? {
        Value::Null => Err(PatchError::Malformed("Invalid JSON Patch".into())),
        patch @ Value::Object(_) => Ok(patch),
        other => Err(malformed(format!(
            "json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            json_type(&other)
        ))),
    }
}

/// Applies `patch` to `target`: members that are null are removed, objects are merged, all else is replaced.
///
/// Nulls inside of a value that is new to the document are left out, in lists too, as kube-apiserver does.
pub fn apply(target: &mut Value, patch: Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => apply_map(target, patch),
        (target, mut patch) => {
            prune_nulls(&mut patch);
            *target = patch;
        }
    }
}

fn apply_map(target: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (key, value) in patch {
        if value.is_null() {
            target.remove(&key);
        } else {
            apply(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

fn prune_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(prune_nulls);
        }
        Value::Array(items) => {
            items.retain(|v| !v.is_null());
            items.iter_mut().for_each(prune_nulls);
        }
        _ => {}
    }
}

/// The merge patch that turns `from` into `to`. Values of `to` must not contain null, which a merge patch cannot write.
pub fn diff(from: &Value, to: &Value) -> Value {
    let (Value::Object(from), Value::Object(to)) = (from, to) else {
        return to.clone();
    };
    let mut patch = Map::new();
    for key in from.keys().filter(|k| !to.contains_key(*k)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in to {
        match from.get(key) {
            Some(old) if old == value => {}
            // A patch that is an object would be merged into the old object, so an old scalar or list is no obstacle.
            Some(old) => {
                patch.insert(key.clone(), diff(old, value));
            }
            None => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    Value::Object(patch)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// The examples of RFC 7386, appendix A, without those whose patch is no object and with the difference in nulls in lists.
    #[test]
    fn examples_of_the_document() {
        for (target, patch, expected) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": "b"}),
                json!({"b": "c"}),
                json!({"a": "b", "b": "c"}),
            ),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (
                json!({"a": "b", "b": "c"}),
                json!({"a": null}),
                json!({"b": "c"}),
            ),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (
                json!({"a": [{"b": "c"}]}),
                json!({"a": [1]}),
                json!({"a": [1]}),
            ),
            (
                json!({"e": null}),
                json!({"a": 1}),
                json!({"a": 1, "e": null}),
            ),
            (
                json!([1, 2]),
                json!({"a": "b", "c": null}),
                json!({"a": "b"}),
            ),
            (
                json!({}),
                json!({"a": {"bb": {"ccc": null}}}),
                json!({"a": {"bb": {}}}),
            ),
        ] {
            let mut got = target.clone();
            apply(&mut got, patch.clone());
            assert_eq!(got, expected, "{target} + {patch}");
        }
    }

    #[test]
    fn bodies_that_are_no_patch() {
        let text = |b: &[u8]| parse_patch(b).unwrap_err().to_string();
        assert_eq!(
            text(b"[]"),
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"
        );
        assert_eq!(
            text(b"5"),
            "error decoding patch: json: cannot unmarshal number into Go value of type map[string]interface {}"
        );
        assert_eq!(
            text(b"x"),
            "error decoding patch: invalid character 'x' looking for beginning of value"
        );
        assert_eq!(text(b"null"), "Invalid JSON Patch");
        assert_eq!(parse_patch(b"[]").unwrap_err().code(), 400);
    }

    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            (0..4i64).prop_map(Value::from),
            "[a-c]".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-d]", inner, 0..4)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn applying_the_difference_gives_the_target(from in document(), to in document()) {
            let mut got = from.clone();
            apply(&mut got, diff(&from, &to));
            prop_assert_eq!(got, to);
        }
    }
}
