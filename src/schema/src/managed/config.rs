//! What is wrong with a configuration before it is applied.

use std::collections::BTreeSet;

use serde_json::Value;

use super::fields::printed;
use super::items::{is_atomic_list, step};
use super::{ApplyError, WriteContext};
use crate::node::Type;
use crate::shape::Shape;

/// Checks what cannot be applied, or not as what it is.
pub(super) fn check(
    shape: Shape<'_>,
    config: &Value,
    ctx: &WriteContext<'_>,
) -> Result<(), ApplyError> {
    let text = |pointer: &str| {
        config
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let api_version = text("/apiVersion");
    if api_version != ctx.api_version {
        return Err(ApplyError::BadRequest(format!(
            "Incorrect version specified in apply patch. Specified patch version: {api_version}, expected: {}",
            ctx.api_version
        )));
    }
    if config
        .pointer("/metadata/managedFields")
        .is_some_and(|m| !m.is_null())
    {
        return Err(ApplyError::BadRequest(
            "metadata.managedFields must be nil".into(),
        ));
    }
    let mut errors = Vec::new();
    check_value(Some(shape), config, "", &mut errors);
    let reason = match errors.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        many => format!("errors:\n  {}", many.join("\n  ")),
    };
    let (namespace, name, kind) = (
        text("/metadata/namespace"),
        text("/metadata/name"),
        text("/kind"),
    );
    Err(ApplyError::NotTyped {
        object: format!("{namespace}/{name}; {api_version}, Kind={kind}"),
        reason,
    })
}

fn check_value(shape: Option<Shape<'_>>, value: &Value, path: &str, errors: &mut Vec<String>) {
    let Some(shape) = shape else { return };
    let expected = match (shape.ty(), value) {
        (_, Value::Null) => None,
        (Type::Struct | Type::Map, Value::Object(_)) | (Type::Array, Value::Array(_)) => None,
        (Type::Struct | Type::Map, _) => Some("map"),
        (Type::Array, _) => Some("list"),
        (Type::String | Type::Bytes | Type::Time | Type::MicroTime, v) if !v.is_string() => {
            Some("string")
        }
        (Type::Int32 | Type::Int64 | Type::Number, v) if !v.is_number() => {
            Some("numeric (int or float)")
        }
        (Type::Boolean, v) if !v.is_boolean() => Some("boolean"),
        _ => None,
    };
    if let Some(expected) = expected {
        errors.push(format!("{path}: expected {expected}, got {}", got(value)));
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let path = format!("{path}.{name}");
                match shape.member(name) {
                    Some(member) => check_value(Some(member), value, &path, errors),
                    None if shape.ty() == Type::Struct && !shape.keeps_unknown() => {
                        errors.push(format!("{path}: field not declared in schema"));
                    }
                    None => {}
                }
            }
        }
        Value::Array(items) => check_items(shape, items, path, errors),
        _ => {}
    }
}

fn check_items(list: Shape<'_>, items: &[Value], path: &str, errors: &mut Vec<String>) {
    let atomic = is_atomic_list(Some(list));
    let mut seen = BTreeSet::new();
    for (i, item) in items.iter().enumerate() {
        if atomic {
            check_value(list.items(), item, &format!("{path}[{i}]"), errors);
            continue;
        }
        match step(list, item) {
            Err(reason) => errors.push(format!("{path}: element {i}: {reason}")),
            Ok(step) => {
                check_value(
                    list.items(),
                    item,
                    &format!("{path}{}", printed(&step)),
                    errors,
                );
                if !seen.insert(step.clone()) {
                    errors.push(format!(
                        "{path}: duplicate entries for key {}",
                        printed(&step)
                    ));
                }
            }
        }
    }
}

/// A value in the words of structured-merge-diff.
fn got(value: &Value) -> String {
    match value {
        Value::Array(_) => "list".into(),
        Value::Object(_) => "map".into(),
        other => format!("&value.valueUnstructured{{Value:{other}}}"),
    }
}
