//! Which item of a list is which.

use serde_json::Value;

use crate::shape::{ListType, Shape};

/// Whether a list is one value. What no schema describes is taken as it is written, lists as a whole.
pub(super) fn is_atomic_list(shape: Option<Shape<'_>>) -> bool {
    !shape.is_some_and(|s| matches!(s.list_type(), ListType::Set | ListType::Map))
}

/// Whether an object is one value.
pub(super) fn is_atomic_map(shape: Option<Shape<'_>>) -> bool {
    shape.is_some_and(Shape::is_atomic_map)
}

/// The step of a set of fields that leads to this item of a list of type set or map.
pub(super) fn step(list: Shape<'_>, item: &Value) -> Result<String, String> {
    if list.list_type() == ListType::Set {
        return match item {
            Value::Null => {
                Err("associative list without keys has an element that's an explicit null".into())
            }
            item => Ok(format!("v:{item}")),
        };
    }
    let Value::Object(map) = item else {
        let kind = if item.is_null() {
            "a null element"
        } else {
            "non-map elements"
        };
        return Err(format!("associative list with keys may not have {kind}"));
    };
    let mut step = String::with_capacity(32);
    step.push_str("k:{");
    let mut last = None;
    while let Some(key) = list
        .map_keys()
        .filter(|k| last.is_none_or(|l| *k > l))
        .min()
    {
        let default = || {
            list.items()
                .and_then(|i| i.declared(key))
                .and_then(Shape::default_value)
        };
        let value = map.get(key).or_else(default).ok_or_else(|| {
            format!("associative list with keys has an element that omits key field \"{key}\" (and doesn't have default value)")
        })?;
        if last.is_some() {
            step.push(',');
        }
        push_json(&mut step, &Value::from(key));
        step.push(':');
        push_json(&mut step, value);
        last = Some(key);
    }
    step.push('}');
    Ok(step)
}

fn push_json(text: &mut String, value: &Value) {
    match value {
        // Names seldom need an escape, and this is done for each item of each list of each write.
        Value::String(s) if s.bytes().all(|b| b >= b' ' && b != b'"' && b != b'\\') => {
            text.push('"');
            text.push_str(s);
            text.push('"');
        }
        other => text.push_str(&other.to_string()),
    }
}
