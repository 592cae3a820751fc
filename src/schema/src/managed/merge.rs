//! Merging a configuration into an object, and taking fields out of one.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::fields::{FieldSet, member_step};
use super::items::{is_atomic_list, is_atomic_map, step};
use crate::shape::Shape;

/// The live value with what the configuration says; where both speak of a leaf, the configuration has its way.
pub(super) fn merge(shape: Option<Shape<'_>>, live: Option<&Value>, config: &Value) -> Value {
    match (live, config) {
        (Some(Value::Object(live)), Value::Object(config)) if !is_atomic_map(shape) => {
            merge_members(shape, live, config)
        }
        (_, Value::Object(config)) if !is_atomic_map(shape) => {
            merge_members(shape, &Map::new(), config)
        }
        (Some(Value::Object(live)), Value::Null) if !is_atomic_map(shape) && !live.is_empty() => {
            Value::Object(live.clone())
        }
        (live, Value::Array(config)) if !is_atomic_list(shape) => {
            let live = live
                .and_then(Value::as_array)
                .map(Vec::as_slice)
                .unwrap_or_default();
            merge_items(shape, live, config)
        }
        (Some(Value::Array(live)), Value::Null) if !is_atomic_list(shape) && !live.is_empty() => {
            Value::Array(live.clone())
        }
        (_, config) => config.clone(),
    }
}

fn merge_members(
    shape: Option<Shape<'_>>,
    live: &Map<String, Value>,
    config: &Map<String, Value>,
) -> Value {
    let mut merged = Map::new();
    for (name, value) in live {
        if !config.contains_key(name) {
            merged.insert(name.clone(), value.clone());
        }
    }
    for (name, value) in config {
        merged.insert(
            name.clone(),
            merge(shape.and_then(|s| s.member(name)), live.get(name), value),
        );
    }
    Value::Object(merged)
}

/// Merges two lists by the keys of their items. Items that both have come in the configuration's order; live items keep
/// their places between them, and new ones stand where the configuration has them.
fn merge_items(shape: Option<Shape<'_>>, live: &[Value], config: &[Value]) -> Value {
    let Some(list) = shape else {
        return Value::Array(config.to_vec());
    };
    let keyed = |items: &'_ [Value]| -> Vec<(String, usize)> {
        let steps = items
            .iter()
            .enumerate()
            .filter_map(|(i, item)| Some((step(list, item).ok()?, i)));
        steps.collect()
    };
    let (left, right) = (keyed(live), keyed(config));
    let in_right: BTreeMap<&str, usize> = right.iter().map(|(s, i)| (s.as_str(), *i)).collect();
    // Which of several live items with one key is meant, nobody knows: they are replaced.
    let mut in_left: BTreeMap<&str, Option<usize>> = BTreeMap::new();
    for (step, i) in &left {
        in_left
            .entry(step)
            .and_modify(|at| *at = None)
            .or_insert(Some(*i));
    }
    let mut shared = right
        .iter()
        .map(|(s, _)| s.as_str())
        .filter(|s| in_left.contains_key(s));
    let mut next_shared = shared.next();
    let mut done: BTreeSet<&str> = BTreeSet::new();
    let mut merged = Vec::with_capacity(left.len().max(right.len()));
    let both = |step: &str, i: usize| {
        let live = in_left.get(step).copied().flatten().map(|l| &live[l]);
        merge(list.items(), live, &config[i])
    };

    let (mut l, mut r) = (0, 0);
    while l < left.len() || r < right.len() {
        if let (Some((left_step, _)), Some((right_step, i))) = (left.get(l), right.get(r)) {
            if left_step == right_step {
                merged.push(both(right_step, *i));
                done.insert(right_step);
                next_shared = shared.next();
                (l, r) = (l + 1, r + 1);
                continue;
            }
            if in_right.contains_key(left_step.as_str())
                && next_shared.is_some_and(|n| n != left_step)
            {
                // It is in both, but another one is due before it.
                l += 1;
                continue;
            }
        }
        if let Some((left_step, i)) = left.get(l) {
            if !in_right.contains_key(left_step.as_str()) {
                merged.push(live[*i].clone());
                l += 1;
                continue;
            }
            if done.contains(left_step.as_str()) {
                l += 1;
            }
        }
        if let Some((right_step, i)) = right.get(r) {
            merged.push(both(right_step, *i));
            done.insert(right_step);
            r += 1;
            if next_shared == Some(right_step) {
                next_shared = shared.next();
            }
        }
    }
    Value::Array(merged)
}

/// The value without these fields. What loses all of its parts becomes null.
pub(super) fn remove(shape: Option<Shape<'_>>, value: &Value, fields: &FieldSet) -> Value {
    match value {
        Value::Object(map) if !map.is_empty() => {
            let mut kept = Map::new();
            for (name, value) in map {
                match fields.children.get(&member_step(name)) {
                    Some(child) if child.member => {}
                    Some(child) => {
                        kept.insert(
                            name.clone(),
                            remove(shape.and_then(|s| s.member(name)), value, child),
                        );
                    }
                    None => {
                        kept.insert(name.clone(), value.clone());
                    }
                }
            }
            if kept.is_empty() {
                Value::Null
            } else {
                Value::Object(kept)
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let Some(list) = shape.filter(|s| !is_atomic_list(Some(*s))) else {
                return Value::Null;
            };
            let mut kept = Vec::with_capacity(items.len());
            for item in items {
                match step(list, item).ok().and_then(|s| fields.children.get(&s)) {
                    Some(child) if child.member => {}
                    Some(child) => kept.push(remove(list.items(), item, child)),
                    None => kept.push(item.clone()),
                }
            }
            if kept.is_empty() {
                Value::Null
            } else {
                Value::Array(kept)
            }
        }
        other => other.clone(),
    }
}

/// Takes out the nulls that merging and removing have left where a member has gone.
pub(super) fn drop_nulls(shape: Option<Shape<'_>>, value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|name, value| {
                let shape = shape.and_then(|s| s.member(name));
                !value.is_null() || shape.is_some_and(Shape::is_nullable)
            });
            for (name, value) in map {
                drop_nulls(shape.and_then(|s| s.member(name)), value);
            }
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|i| drop_nulls(shape.and_then(Shape::items), i)),
        _ => {}
    }
}

/// An object of which nothing is said: what of it is always written, as it is written when it is empty.
pub(super) fn empty_object(shape: Shape<'_>) -> Value {
    let members = shape.always_there().map(|(name, shape, empty)| {
        let value = if empty.is_object() {
            empty_object(shape)
        } else {
            empty.clone()
        };
        (name.to_owned(), value)
    });
    Value::Object(members.collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::shape::tests::workload;

    fn list(names: &[&str]) -> Value {
        Value::from(
            names
                .iter()
                .map(|n| json!({ "name": n }))
                .collect::<Vec<_>>(),
        )
    }

    fn merged_names(live: &[&str], config: &[&str]) -> Vec<String> {
        let schema = workload();
        let object = |names: &[&str]| json!({"spec": {"containers": list(names)}});
        let merged = merge(
            Some(Shape::root(&schema)),
            Some(&object(live)),
            &object(config),
        );
        let items = merged["spec"]["containers"].as_array().unwrap().clone();
        items
            .iter()
            .map(|i| i["name"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn lists_are_merged_in_the_order_of_the_configuration() {
        assert_eq!(merged_names(&["a", "b"], &["c"]), ["a", "b", "c"]);
        assert_eq!(merged_names(&["a", "b", "c"], &["c", "a"]), ["b", "c", "a"]);
        assert_eq!(
            merged_names(&["a", "b", "c"], &["a", "x", "c"]),
            ["a", "b", "x", "c"]
        );
        assert_eq!(merged_names(&["x", "a"], &["a", "b"]), ["x", "a", "b"]);
        assert_eq!(merged_names(&[], &["b", "a"]), ["b", "a"]);
    }

    #[test]
    fn removing_all_parts_leaves_null() {
        let schema = workload();
        let shape = Some(Shape::root(&schema));
        let object = json!({"metadata": {"labels": {"a": "1"}, "finalizers": ["x", "y"]}, "data": {"k": "v"}});
        let fields = json!({"f:metadata": {"f:labels": {"f:a": {}}, "f:finalizers": {"v:\"x\"": {}}}, "f:data": {}});
        let mut got = remove(shape, &object, &FieldSet::from_value(fields).unwrap());
        assert_eq!(
            got,
            json!({"metadata": {"labels": null, "finalizers": ["y"]}})
        );
        drop_nulls(shape, &mut got);
        assert_eq!(got, json!({"metadata": {"finalizers": ["y"]}}));
    }

    #[test]
    fn an_empty_object_has_what_is_always_written() {
        let schema = workload();
        let empty = empty_object(Shape::root(&schema));
        assert_eq!(
            empty,
            json!({"metadata": {}, "spec": {"strategy": {}}, "status": {}})
        );
    }

    proptest! {
        /// Each name once, those of the configuration in its order, the others in theirs.
        #[test]
        fn merged_lists_keep_both_orders(
            live in prop::sample::subsequence(vec!["a", "b", "c", "d", "e"], 0..=5).prop_shuffle(),
            config in prop::sample::subsequence(vec!["a", "b", "c", "d", "e"], 0..=5).prop_shuffle(),
        ) {
            let merged = merged_names(&live, &config);
            let only = |wanted: &dyn Fn(&str) -> bool| merged.iter().map(String::as_str).filter(|n| wanted(n)).collect::<Vec<_>>();
            prop_assert_eq!(only(&|n| config.contains(&n)), config.clone());
            let rest: Vec<&str> = live.iter().copied().filter(|n| !config.contains(n)).collect();
            prop_assert_eq!(only(&|n| !config.contains(&n)), rest);
        }
    }
}
