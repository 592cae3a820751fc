//! Strategic merge patch: a merge patch that merges lists by the keys that the schema names, with directives.
//!
//! `$patch: replace | delete | merge` in a map or in an item of a list, `$retainKeys`, `$deleteFromPrimitiveList/<list>` and
//! `$setElementOrder/<list>`. The order of a merged list is that of the directive, then that of the patch, then the live one.

mod lists;

use serde_json::{Map, Value};

use crate::node::Schema;
use crate::patch::{DEPTH_MAX, PatchError, depth, go_value, json_type, parse};
use crate::shape::Shape;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList";
const SET_ORDER: &str = "$setElementOrder";

type Object = Map<String, Value>;

/// Reads a strategic merge patch from a request's body.
pub fn parse_patch(body: &[u8]) -> Result<Value, PatchError> {
    match parse(body).map_err(PatchError::Malformed)? {
        Value::Null => Ok(Value::Object(Map::new())),
        patch @ Value::Object(_) => Ok(patch),
        other => Err(PatchError::Malformed(format!(
            "json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            json_type(&other)
        ))),
    }
}

/// Applies `patch` to an object whose schema is `schema`. After an error the object is not usable.
///
/// What the object is stays as it was: a patch cannot change `apiVersion` and `kind`, and is not refused for trying.
pub fn apply(schema: &Schema, target: &mut Value, patch: Value) -> Result<(), PatchError> {
    let Value::Object(patch) = patch else {
        return Err(PatchError::Malformed("Invalid JSON document".into()));
    };
    if patch.values().any(|v| depth(v) > DEPTH_MAX) {
        return Err(PatchError::Malformed(
            "the patch is nested too deeply".into(),
        ));
    }
    let original = std::mem::take(
        target
            .as_object_mut()
            .ok_or_else(|| strategic("Invalid JSON document"))?,
    );
    let identity = ["apiVersion", "kind"].map(|name| (name, original.get(name).cloned()));
    let mut merged = merge_map(Some(Shape::root(schema)), original, patch)?;
    for (name, value) in identity {
        if let Some(value) = value {
            merged.insert(name.into(), value);
        }
    }
    *target = Value::Object(merged);
    Ok(())
}

fn strategic(text: impl Into<String>) -> PatchError {
    PatchError::Strategic(text.into())
}

fn malformed(text: &str) -> PatchError {
    PatchError::Malformed(text.into())
}

fn bad_directive(directive: &Value, map: &Object) -> PatchError {
    strategic(format!(
        "unknown patch type: {} in map: {}",
        go_value(directive),
        go_map(map)
    ))
}

fn no_merge_key(map: &Object, key: &str) -> PatchError {
    strategic(format!(
        "map: {} does not contain declared merge key: {key}",
        go_map(map)
    ))
}

fn bad_type(expected: &str, actual: &Value) -> PatchError {
    strategic(format!(
        "expected a {expected}, but received a {}",
        json_type(actual)
    ))
}

fn go_map(map: &Object) -> String {
    go_value(&Value::Object(map.clone()))
}

/// Merges `patch` into `original` by the directives that stand in it.
fn merge_map(
    shape: Option<Shape<'_>>,
    mut original: Object,
    mut patch: Object,
) -> Result<Object, PatchError> {
    if let Some(directive) = patch.get(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => {
                patch.remove(DIRECTIVE);
                Ok(patch)
            }
            Some("delete") => Ok(Map::new()),
            _ => Err(bad_directive(directive, &patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    set_orders(shape, &mut original, &mut patch)?;

    for (key, value) in patch {
        let list_to_delete_from = match key.strip_prefix(DELETE_FROM_LIST) {
            Some(rest) => Some(
                rest.strip_prefix('/')
                    .ok_or_else(|| malformed("invalid patch format of primitive list"))?,
            ),
            None => None,
        };
        let name = list_to_delete_from.unwrap_or(&key);
        if value.is_null() {
            original.remove(name);
            continue;
        }
        let Some(current) = original.get_mut(name) else {
            if list_to_delete_from.is_none() {
                take_over(&mut original, key, value);
            }
            continue;
        };
        let shape = shape.and_then(|s| s.member(name));
        match (std::mem::take(current), value) {
            (Value::Object(_), new @ Value::Object(_)) if shape.is_some_and(Shape::replaces) => {
                *current = new;
            }
            (Value::Object(old), Value::Object(new)) => {
                *current = Value::Object(merge_map(shape, old, new)?);
            }
            (Value::Array(old), Value::Array(new)) => {
                *current = Value::Array(lists::merge(
                    shape,
                    old,
                    new,
                    list_to_delete_from.is_some(),
                )?);
            }
            (old, _) if list_to_delete_from.is_some() => *current = old,
            (_, new) => take_over(&mut original, key, new),
        }
    }
    Ok(original)
}

/// Puts a value of a patch in place as it is, without what only has a meaning in a patch.
fn take_over(original: &mut Object, key: String, mut value: Value) {
    discard_nulls(&mut value);
    match without_directives(value) {
        Some(value) => original.insert(key, value),
        None => original.remove(&key),
    };
}

fn discard_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(discard_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(discard_nulls),
        _ => {}
    }
}

/// The value as it is meant where there is nothing to merge it with; none if the patch says that it shall not be.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.get(DIRECTIVE).is_some_and(|d| d == "delete") => None,
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(k, _)| !is_directive(k));
            Some(Value::Object(
                kept.filter_map(|(k, v)| Some((k, without_directives(v)?)))
                    .collect(),
            ))
        }
        Value::Array(items) => {
            // An item that only says `$patch: replace` speaks of the list.
            let items = items.into_iter().filter(|i| {
                i.as_object()
                    .is_none_or(|m| m.len() != 1 || !m.contains_key(DIRECTIVE))
            });
            Some(Value::Array(items.filter_map(without_directives).collect()))
        }
        scalar => Some(scalar),
    }
}

fn is_directive(key: &str) -> bool {
    key == DIRECTIVE
        || key == RETAIN_KEYS
        || [DELETE_FROM_LIST, SET_ORDER].iter().any(|p| {
            key.strip_prefix(p)
                .is_some_and(|rest| rest.starts_with('/'))
        })
}

/// `$retainKeys`: what is not in the list goes away, and the patch must not set it.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let Some(directive) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let bad = || malformed("invalid patch format of retainKeys");
    let retained = directive.as_array().ok_or_else(bad)?;
    let is_retained = |key: &str| retained.iter().any(|r| r == key);
    for (key, value) in patch.iter() {
        let about_a_list = key.starts_with(DELETE_FROM_LIST) || key.starts_with(SET_ORDER);
        if !value.is_null() && !about_a_list && !is_retained(key) {
            return Err(bad());
        }
    }
    original.retain(|key, _| is_retained(key));
    Ok(())
}

/// `$setElementOrder/<list>`: merges the list that it is about and puts the result into that order.
fn set_orders(
    shape: Option<Shape<'_>>,
    original: &mut Object,
    patch: &mut Object,
) -> Result<(), PatchError> {
    let directives: Vec<String> = patch
        .keys()
        .filter(|k| k.starts_with(SET_ORDER))
        .cloned()
        .collect();
    for directive in directives {
        let order = patch.remove(&directive).unwrap_or_default();
        let Value::Array(order) = order else {
            return Err(bad_type("list", &order));
        };
        let name = directive
            .strip_prefix(SET_ORDER)
            .and_then(|n| n.strip_prefix('/'));
        let name = name.ok_or_else(|| malformed("invalid patch format of setElementOrder list"))?;
        let shape = shape.and_then(|s| s.member(name));
        // A patch that is null removes the list; that is done with the other members.
        if patch.get(name).is_some_and(Value::is_null) {
            continue;
        }
        let old = take_list(original, name)?;
        let new = take_list(patch, name)?;
        if old.is_some() || new.is_some() {
            let merged = lists::merge_in_order(shape, old.unwrap_or_default(), new, &order)?;
            original.insert(name.to_owned(), Value::Array(merged));
        }
    }
    Ok(())
}

fn take_list(map: &mut Object, name: &str) -> Result<Option<Vec<Value>>, PatchError> {
    match map.remove(name) {
        Some(Value::Array(items)) => Ok(Some(items)),
        Some(other) => Err(bad_type("list", &other)),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests;
