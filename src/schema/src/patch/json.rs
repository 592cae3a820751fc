//! JSON patch (RFC 6902), with the liberties that kube-apiserver's library takes.
//!
//! Different from the document: `replace` adds a member that is absent, `copy` of an absent member writes null, an index
//! may be negative, a missing `value` is null, and numbers in `test` are compared as they are written.

use serde_json::{Map, Value};

use super::{
    DEPTH_MAX, JSON_PATCH_COPY_BYTES_MAX, JSON_PATCH_OPERATIONS_MAX, PatchError, depth, json_type,
    parse,
};

/// The members of an operation that mean something.
const MEMBERS: [&str; 4] = ["op", "from", "path", "value"];

/// A parsed patch.
#[derive(Debug)]
pub struct JsonPatch {
    operations: Vec<Map<String, Value>>,
    /// What to tell the client though the patch is taken: members of operations that are not known.
    pub warnings: Vec<String>,
}

/// Reads a JSON patch from a request's body.
pub fn parse_patch(body: &[u8]) -> Result<JsonPatch, PatchError> {
    let malformed = |e: String| PatchError::Malformed(format!("error decoding patch: {e}"));
    let items = match parse(body).map_err(malformed)? {
        Value::Null => Vec::new(),
        Value::Array(items) => items,
        other => {
            return Err(malformed(cannot_unmarshal(
                &other,
                "value of type []handlers.jsonPatchOp",
            )));
        }
    };
    let mut patch = JsonPatch {
        operations: Vec::with_capacity(items.len()),
        warnings: Vec::new(),
    };
    for (i, item) in items.into_iter().enumerate() {
        let Value::Object(operation) = item else {
            return Err(malformed(cannot_unmarshal(
                &item,
                "value of type handlers.jsonPatchOp",
            )));
        };
        for (name, value) in &operation {
            if !MEMBERS.contains(&name.as_str()) {
                patch
                    .warnings
                    .push(format!("json patch unknown field \"[{i}].{name}\""));
            } else if name != "value" && !value.is_string() && !value.is_null() {
                let field = format!("struct field jsonPatchOp.{name} of type string");
                return Err(malformed(cannot_unmarshal(value, &field)));
            }
        }
        patch.operations.push(operation);
    }
    if patch.operations.len() > JSON_PATCH_OPERATIONS_MAX {
        return Err(PatchError::TooManyOperations(patch.operations.len()));
    }
    Ok(patch)
}

fn cannot_unmarshal(value: &Value, into: &str) -> String {
    format!("json: cannot unmarshal {} into Go {into}", json_type(value))
}

/// Applies the operations in their order. After an error the document is not usable.
pub fn apply(document: &mut Value, patch: JsonPatch) -> Result<(), PatchError> {
    let mut copied_bytes = 0;
    for operation in patch.operations {
        apply_one(document, operation, &mut copied_bytes)?;
    }
    Ok(())
}

fn apply_one(
    document: &mut Value,
    mut op: Map<String, Value>,
    copied_bytes: &mut usize,
) -> Result<(), PatchError> {
    let kind = string(&op, "op").unwrap_or_default().to_owned();
    let path = string(&op, "path")
        .ok_or_else(|| {
            PatchError::DoesNotApply(format!(
                "{kind} operation failed to decode path: missing value"
            ))
        })?
        .to_owned();
    let value = op.remove("value").unwrap_or(Value::Null);
    let from = string(&op, "from");
    let from = || {
        from.ok_or_else(|| {
            PatchError::DoesNotApply(format!(
                "{kind} operation failed to decode from: missing value"
            ))
        })
    };
    match kind.as_str() {
        "add" => add(document, &path, value, "add"),
        "remove" => remove(document, &path).map(drop),
        "replace" => replace(document, &path, value),
        "move" => {
            let moved = remove(document, from()?)?;
            add(document, &path, moved, "move")
        }
        "copy" => {
            let copy = get(document, from()?, "copy")?
                .cloned()
                .unwrap_or(Value::Null);
            *copied_bytes += serde_json::to_vec(&copy).map_or(0, |b| b.len());
            if *copied_bytes > JSON_PATCH_COPY_BYTES_MAX {
                return Err(PatchError::DoesNotApply(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {copied_bytes}, \
                     exceeding the limit {JSON_PATCH_COPY_BYTES_MAX}"
                )));
            }
            add(document, &path, copy, "copy")
        }
        "test" => test(document, &path, &value),
        other => Err(PatchError::DoesNotApply(format!(
            "Unexpected kind: {other}"
        ))),
    }
}

fn string<'a>(op: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    op.get(name).and_then(Value::as_str)
}

/// The steps of a JSON pointer. What stands before the first slash is not looked at; without a slash there are none.
fn steps(path: &str) -> Option<Vec<String>> {
    let (_, rest) = path.split_once('/')?;
    Some(
        rest.split('/')
            .map(|s| s.replace("~1", "/").replace("~0", "~"))
            .collect(),
    )
}

fn missing(operation: &str, path: &str) -> PatchError {
    PatchError::DoesNotApply(format!(
        "{operation} operation does not apply: doc is missing path: \"{path}\": missing value"
    ))
}

/// The container that holds the last step of `path`, and that step.
fn parent<'a>(
    document: &'a mut Value,
    path: &str,
    operation: &str,
) -> Result<(&'a mut Value, String), PatchError> {
    let mut steps = steps(path).ok_or_else(|| missing(operation, path))?;
    if steps.len() > DEPTH_MAX {
        return Err(PatchError::DoesNotApply(format!(
            "{operation} operation does not apply: path is too deep"
        )));
    }
    let last = steps.pop().unwrap_or_default();
    let mut at = document;
    for step in &steps {
        at = match at {
            Value::Object(map) => map.get_mut(step),
            Value::Array(items) => index(step, items.len(), 0).and_then(|i| items.get_mut(i)),
            _ => None,
        }
        .ok_or_else(|| missing(operation, path))?;
    }
    match at {
        Value::Object(_) | Value::Array(_) => Ok((at, last)),
        _ => Err(missing(operation, path)),
    }
}

/// An index into a list; negative ones count from `len + from_end`.
fn index(step: &str, len: usize, from_end: usize) -> Option<usize> {
    let i: i64 = step.parse().ok()?;
    if i < 0 {
        (len + from_end).checked_sub(usize::try_from(i.unsigned_abs()).ok()?)
    } else {
        usize::try_from(i).ok()
    }
}

fn bad_index(operation: &str, path: &str, step: &str) -> PatchError {
    PatchError::DoesNotApply(format!(
        "{operation} operation does not apply: doc is missing path: {path}: Unable to access invalid index: {step}: invalid index referenced"
    ))
}

fn get<'a>(
    document: &'a mut Value,
    path: &str,
    operation: &str,
) -> Result<Option<&'a Value>, PatchError> {
    let (container, step) = parent(document, path, operation)?;
    match container {
        Value::Array(items) => {
            let i = index(&step, items.len(), 0).filter(|i| *i < items.len());
            i.map(|i| Some(&items[i]))
                .ok_or_else(|| bad_index(operation, path, &step))
        }
        container => Ok(container.get(&step)),
    }
}

fn add(document: &mut Value, path: &str, value: Value, operation: &str) -> Result<(), PatchError> {
    check_depth(path, &value, operation)?;
    let (container, step) = parent(document, path, operation)?;
    match container {
        Value::Array(items) if step == "-" => items.push(value),
        Value::Array(items) => {
            let i = index(&step, items.len(), 1).filter(|i| *i <= items.len());
            items.insert(i.ok_or_else(|| bad_index(operation, path, &step))?, value);
        }
        Value::Object(map) => {
            map.insert(step, value);
        }
        _ => return Err(missing(operation, path)),
    }
    Ok(())
}

fn check_depth(path: &str, value: &Value, operation: &str) -> Result<(), PatchError> {
    if steps(path).map_or(0, |s| s.len()) + depth(value) <= DEPTH_MAX {
        return Ok(());
    }
    Err(PatchError::DoesNotApply(format!(
        "{operation} operation does not apply: the document gets too deep"
    )))
}

fn remove(document: &mut Value, path: &str) -> Result<Value, PatchError> {
    let (container, step) = parent(document, path, "remove")?;
    match container {
        Value::Array(items) => {
            let i = index(&step, items.len(), 0).filter(|i| *i < items.len());
            Ok(items.remove(i.ok_or_else(|| bad_index("remove", path, &step))?))
        }
        Value::Object(map) => map.remove(&step).ok_or_else(|| {
            PatchError::DoesNotApply(format!(
                "error in remove for path: '{path}': Unable to remove nonexistent key: {step}: missing value"
            ))
        }),
        _ => Err(missing("remove", path)),
    }
}

fn replace(document: &mut Value, path: &str, value: Value) -> Result<(), PatchError> {
    check_depth(path, &value, "replace")?;
    if path.is_empty() {
        if !value.is_object() && !value.is_array() {
            return Err(PatchError::DoesNotApply(
                "replace operation value must be object or array".into(),
            ));
        }
        *document = value;
        return Ok(());
    }
    if let (Value::Array(items), step) = parent(document, path, "replace")? {
        let i = index(&step, items.len(), 0).filter(|i| *i < items.len());
        items[i.ok_or_else(|| bad_index("replace", path, &step))?] = value;
        return Ok(());
    }
    add(document, path, value, "replace")
}

fn test(document: &mut Value, path: &str, expected: &Value) -> Result<(), PatchError> {
    let found = if path.is_empty() {
        Some(&*document)
    } else {
        get(document, path, "test")?
    };
    if found.unwrap_or(&Value::Null) == expected {
        return Ok(());
    }
    Err(PatchError::DoesNotApply(format!(
        "testing value {path} failed: test failed"
    )))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(document: &Value, patch: &Value) -> Result<Value, PatchError> {
        let mut document = document.clone();
        apply(&mut document, parse_patch(patch.to_string().as_bytes())?)?;
        Ok(document)
    }

    #[test]
    fn operations() {
        let doc = json!({"data": {"a": "1"}, "list": ["x", "y"]});
        let one = |op: Value| patched(&doc, &json!([op]));
        let data = |op: Value| one(op).map(|d| d["data"].clone());
        let list = |op: Value| one(op).map(|d| d["list"].clone());
        assert_eq!(
            data(json!({"op": "add", "path": "/data/b", "value": "2"})),
            Ok(json!({"a": "1", "b": "2"}))
        );
        assert_eq!(
            data(json!({"op": "replace", "path": "/data/q", "value": "4"})),
            Ok(json!({"a": "1", "q": "4"}))
        );
        assert_eq!(
            data(json!({"op": "copy", "from": "/data/a", "path": "/data/c"})),
            Ok(json!({"a": "1", "c": "1"}))
        );
        assert_eq!(
            data(json!({"op": "move", "from": "/data/a", "path": "/data/c"})),
            Ok(json!({"c": "1"}))
        );
        assert_eq!(
            data(json!({"op": "add", "path": "/data/x~1y~0", "value": 1})),
            Ok(json!({"a": "1", "x/y~": 1}))
        );
        assert_eq!(
            data(json!({"op": "add", "path": "/data/n"})),
            Ok(json!({"a": "1", "n": null}))
        );
        assert_eq!(
            list(json!({"op": "add", "path": "/list/-", "value": "z"})),
            Ok(json!(["x", "y", "z"]))
        );
        assert_eq!(
            list(json!({"op": "add", "path": "/list/0", "value": "z"})),
            Ok(json!(["z", "x", "y"]))
        );
        assert_eq!(
            list(json!({"op": "add", "path": "/list/-1", "value": "z"})),
            Ok(json!(["x", "y", "z"]))
        );
        assert_eq!(
            list(json!({"op": "remove", "path": "/list/-1"})),
            Ok(json!(["x"]))
        );
        assert_eq!(
            list(json!({"op": "replace", "path": "/list/1", "value": "z"})),
            Ok(json!(["x", "z"]))
        );
        assert_eq!(
            one(json!({"op": "replace", "path": "", "value": {}})),
            Ok(json!({}))
        );
        assert_eq!(
            one(json!({"op": "test", "path": "/data/zz", "value": null})),
            Ok(doc.clone())
        );
    }

    #[test]
    fn what_does_not_fit_is_unprocessable() {
        let doc = json!({"data": {"a": "1"}, "list": ["x"]});
        for op in [
            json!({"op": "remove", "path": "/data/b"}),
            json!({"op": "move", "from": "/data/zz", "path": "/data/d"}),
            json!({"op": "test", "path": "/data/a", "value": "2"}),
            json!({"op": "test", "path": "/data/zz", "value": "1"}),
            json!({"op": "add", "path": "/nope/x/y", "value": 1}),
            json!({"op": "add", "path": "/list/9", "value": 1}),
            json!({"op": "remove", "path": "/list/x"}),
            json!({"op": "nope", "path": "/data/a"}),
            json!({"op": "add", "value": 1}),
            json!({"op": "add", "path": "data", "value": {}}),
            json!({"op": "replace", "path": "", "value": 3}),
        ] {
            let error = patched(&doc, &json!([op])).unwrap_err();
            assert_eq!(error.code(), 422, "{op}: {error}");
        }
    }

    #[test]
    fn bodies_that_are_no_patch() {
        let text = |b: &[u8]| parse_patch(b).unwrap_err().to_string();
        assert_eq!(
            text(br#"{"op":"add"}"#),
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"
        );
        assert_eq!(
            text(br#""x""#),
            "error decoding patch: json: cannot unmarshal string into Go value of type []handlers.jsonPatchOp"
        );
        assert_eq!(
            text(b"["),
            "error decoding patch: unexpected end of JSON input"
        );
        assert_eq!(
            text(br#"[{"op":1}]"#),
            "error decoding patch: json: cannot unmarshal number into Go struct field jsonPatchOp.op of type string"
        );
        assert!(parse_patch(b"null").unwrap().operations.is_empty());
    }

    #[test]
    fn unknown_members_are_warned_of() {
        let patch = parse_patch(br#"[{"op":"add","path":"/u","value":1,"extra":1}]"#).unwrap();
        assert_eq!(patch.warnings, [r#"json patch unknown field "[0].extra""#]);
    }

    #[test]
    fn limits_hold() {
        let test = json!({"op": "test", "path": "/a", "value": 1});
        let many = Value::from(vec![test; JSON_PATCH_OPERATIONS_MAX + 1]);
        let error = patched(&json!({"a": 1}), &many).unwrap_err();
        assert_eq!(
            error.to_string(),
            "The allowed maximum operations in a JSON patch is 10000, got 10001"
        );
        assert_eq!(error.code(), 413);

        let doubling = Value::from(vec![
            json!({"op": "copy", "from": "/a", "path": "/a/-"});
            40
        ]);
        assert!(
            patched(&json!({"a": ["xxxxxxxx"]}), &doubling)
                .unwrap_err()
                .to_string()
                .contains("copy")
        );

        let deep: Vec<Value> = (1..400)
            .map(|n| json!({"op": "add", "path": "/a".repeat(n), "value": {}}))
            .collect();
        assert!(
            patched(&json!({}), &Value::from(deep))
                .unwrap_err()
                .to_string()
                .contains("too deep")
        );
    }
}
