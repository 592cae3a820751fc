//! Lists of a strategic merge patch: merged by key or as sets of scalars, and put in order.

use serde_json::Value;

use super::{
    DIRECTIVE, bad_directive, bad_type, discard_nulls, merge_map, no_merge_key, strategic,
    without_directives,
};
use crate::patch::{PatchError, go_value};
use crate::shape::Shape;

/// Merges or replaces a list by its strategy; with `deletes` the patch names scalars that shall go.
pub(super) fn merge(
    shape: Option<Shape<'_>>,
    original: Vec<Value>,
    patch: Vec<Value>,
    deletes: bool,
) -> Result<Vec<Value>, PatchError> {
    if deletes {
        return Ok(original
            .into_iter()
            .filter(|v| !patch.contains(v))
            .collect());
    }
    if !shape.is_some_and(Shape::merges) {
        return Ok(replacement(patch));
    }
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    let key = key_of(shape, &original, &patch)?;
    let combined = combine(shape, original, patch, key.as_deref())?;
    arrange(
        combined.merged,
        &combined.order,
        &combined.live,
        key.as_deref(),
    )
}

/// A list whose strategy is to be replaced takes the patch as it is written.
fn replacement(mut patch: Vec<Value>) -> Vec<Value> {
    patch.iter_mut().for_each(discard_nulls);
    match without_directives(Value::Array(patch)) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

/// Merges a list and orders it by a `$setElementOrder` directive, which must agree with the order in the patch.
pub(super) fn merge_in_order(
    shape: Option<Shape<'_>>,
    original: Vec<Value>,
    patch: Option<Vec<Value>>,
    order: &[Value],
) -> Result<Vec<Value>, PatchError> {
    let items = patch.as_deref().unwrap_or_default();
    let key = if order.iter().any(Value::is_object) {
        key_of(shape, order, items)?
    } else {
        None
    };
    validate_order(items, order, key.as_deref())?;
    let live = original.clone();
    let merged = match patch {
        Some(patch) => merge(shape, original, patch, false)?,
        None => original,
    };
    arrange(merged, order, &live, key.as_deref())
}

/// The merge key of a list of objects, none for a list of scalars.
fn key_of(
    shape: Option<Shape<'_>>,
    a: &[Value],
    b: &[Value],
) -> Result<Option<String>, PatchError> {
    let mut objects = 0;
    for item in a.iter().chain(b) {
        match item {
            Value::Object(_) => objects += 1,
            Value::Array(_) => return Err(strategic("lists of lists are not supported")),
            _ => {}
        }
    }
    if objects == 0 {
        return Ok(None);
    }
    if objects != a.len() + b.len() {
        return Err(strategic("list element types are not identical"));
    }
    let key = shape.and_then(Shape::merge_key).map(str::to_owned);
    key.map(Some)
        .ok_or_else(|| strategic("cannot merge lists without merge key"))
}

/// A merged list on its way into order.
struct Combined {
    /// All items, in no special order.
    merged: Vec<Value>,
    /// The live items that took part.
    live: Vec<Value>,
    /// The items of the patch, which give the order.
    order: Vec<Value>,
}

fn combine(
    shape: Option<Shape<'_>>,
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: Option<&str>,
) -> Result<Combined, PatchError> {
    let Some(key) = key else {
        let mut merged: Vec<Value> = Vec::with_capacity(original.len() + patch.len());
        for item in original.iter().chain(&patch) {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        return Ok(Combined {
            merged,
            live: original,
            order: patch,
        });
    };
    let mut items = Vec::with_capacity(patch.len());
    let mut replace = false;
    for item in patch {
        let Value::Object(map) = &item else {
            return Err(bad_type("map", &item));
        };
        match map.get(DIRECTIVE).map(|d| (d, d.as_str())) {
            None => items.push(item),
            Some((_, Some("delete"))) => {
                let value = map.get(key).ok_or_else(|| no_merge_key(map, key))?;
                original.retain(|o| o.get(key) != Some(value));
            }
            Some((_, Some("replace"))) => replace = true,
            Some((_, Some("merge"))) => {
                return Err(strategic(
                    "merging lists cannot yet be specified in the patch",
                ));
            }
            Some((directive, _)) => return Err(bad_directive(directive, map)),
        }
    }
    if replace {
        return Ok(Combined {
            merged: items.clone(),
            live: items,
            order: Vec::new(),
        });
    }
    let live = original.clone();
    let order = items.clone();
    let item_shape = shape.and_then(Shape::items);
    for item in items {
        let Value::Object(map) = item else {
            return Err(bad_type("map", &item));
        };
        let value = map.get(key).ok_or_else(|| no_merge_key(&map, key))?;
        match original.iter_mut().find(|o| o.get(key) == Some(value)) {
            Some(Value::Object(found)) => {
                *found = merge_map(item_shape, std::mem::take(found), map)?;
            }
            _ => {
                let mut added = Value::Object(map);
                discard_nulls(&mut added);
                original.extend(without_directives(added));
            }
        }
    }
    Ok(Combined {
        merged: original,
        live,
        order,
    })
}

/// The place of an item in a list, by key or by value.
fn position(list: &[Value], item: &Value, key: Option<&str>) -> Option<usize> {
    match key {
        Some(key) => list.iter().position(|v| v.get(key) == item.get(key)),
        None => list.iter().position(|v| v == item),
    }
}

/// Puts what `order` names into that order, and each other item before the first one that follows it in `live`.
fn arrange(
    merged: Vec<Value>,
    order: &[Value],
    live: &[Value],
    key: Option<&str>,
) -> Result<Vec<Value>, PatchError> {
    if let Some(key) = key {
        for item in merged.iter().chain(order) {
            let map = item.as_object().ok_or_else(|| bad_type("map", item))?;
            if !map.contains_key(key) {
                return Err(no_merge_key(map, key));
            }
        }
    }
    let (mut ordered, mut others): (Vec<Value>, Vec<Value>) = merged
        .into_iter()
        .partition(|item| position(order, item, key).is_some());
    ordered.sort_by_key(|item| position(order, item, key));
    others.sort_by_key(|item| position(live, item, key));

    let mut arranged = Vec::with_capacity(ordered.len() + others.len());
    let (mut ordered, mut others) = (
        ordered.into_iter().peekable(),
        others.into_iter().peekable(),
    );
    while let (Some(first), Some(other)) = (ordered.peek(), others.peek()) {
        let other_is_before = match (position(live, other, key), position(live, first, key)) {
            (Some(other), Some(first)) => other < first,
            _ => false,
        };
        arranged.extend(if other_is_before {
            others.next()
        } else {
            ordered.next()
        });
    }
    arranged.extend(ordered);
    arranged.extend(others);
    Ok(arranged)
}

/// The items of the patch must stand in the order list, in the same order.
fn validate_order(patch: &[Value], order: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut wanted = order.iter();
    for item in patch.iter().filter(|i| i.get(DIRECTIVE).is_none()) {
        if let (Some(key), Some(map)) = (key, item.as_object())
            && !map.contains_key(key)
        {
            return Err(no_merge_key(map, key));
        }
        if !wanted.any(|w| position(std::slice::from_ref(w), item, key).is_some()) {
            let text = |list: &[Value]| go_value(&Value::Array(list.to_vec()));
            return Err(strategic(format!(
                "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                text(patch),
                text(order)
            )));
        }
    }
    Ok(())
}
