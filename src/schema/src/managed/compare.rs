//! What differs between two versions of an object, as sets of fields.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::fields::{FieldSet, member_step};
use super::items::{is_atomic_list, is_atomic_map, step};
use crate::shape::Shape;

/// The differences between an old and a new value.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    /// Fields of the old value that the new one has not.
    pub(super) removed: FieldSet,
    /// Leaves that both have, with different values.
    pub(super) modified: FieldSet,
    /// Fields of the new value that the old one had not.
    pub(super) added: FieldSet,
}

impl Comparison {
    pub(super) fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }

    pub(super) fn subtract_trees(&mut self, ignored: &FieldSet) {
        for set in [&mut self.removed, &mut self.modified, &mut self.added] {
            set.subtract_trees(ignored);
        }
    }

    fn attach(&mut self, step: String, child: Comparison) {
        if !child.removed.is_empty() {
            self.removed.attach(step.clone(), child.removed);
        }
        if !child.modified.is_empty() {
            self.modified.attach(step.clone(), child.modified);
        }
        self.added.attach(step, child.added);
    }
}

/// Members of an object and of its metadata that are nobody's: the server writes them, or they say which object it is.
const NOT_OWNED: [&str; 2] = ["apiVersion", "kind"];
const NOT_OWNED_IN_METADATA: [&str; 9] = [
    "clusterName",
    "creationTimestamp",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Takes from a set what nobody can own.
pub(super) fn strip(set: &mut FieldSet) {
    for name in NOT_OWNED {
        set.children.remove(&member_step(name));
    }
    if let Some(metadata) = set.children.get_mut("f:metadata") {
        metadata.member = false;
        for name in NOT_OWNED_IN_METADATA {
            metadata.children.remove(&member_step(name));
        }
        if metadata.is_empty() {
            set.children.remove("f:metadata");
        }
    }
}

/// Compares two objects, but for what nobody can own.
pub(super) fn compare_objects(shape: Shape<'_>, old: &Value, new: &Value) -> Comparison {
    let mut found = Comparison::default();
    compare_members(
        Some(shape),
        as_map(Some(old)),
        as_map(Some(new)),
        &mut found,
        |name| NOT_OWNED.contains(&name) || name == "metadata",
    );
    let shape = shape.member("metadata");
    let mut metadata = Comparison::default();
    compare_members(
        shape,
        as_map(old.get("metadata")),
        as_map(new.get("metadata")),
        &mut metadata,
        |name| NOT_OWNED_IN_METADATA.contains(&name),
    );
    found.attach(member_step("metadata"), metadata);
    found
}

static NO_MEMBERS: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

fn as_map(value: Option<&Value>) -> &Map<String, Value> {
    value.and_then(Value::as_object).unwrap_or(&NO_MEMBERS)
}

fn compare(
    shape: Option<Shape<'_>>,
    old: Option<&Value>,
    new: Option<&Value>,
    found: &mut Comparison,
) {
    let (old, new) = match (old, new) {
        (Some(old), Some(new)) => (old, new),
        (None, Some(new)) => return everything(shape, new, &mut found.added),
        (Some(old), None) => return everything(shape, old, &mut found.removed),
        (None, None) => return,
    };
    match (old, new) {
        // An empty map or list is a leaf, which keeps it apart from null.
        (Value::Object(o), Value::Object(n))
            if !is_atomic_map(shape) && (!o.is_empty() || !n.is_empty()) =>
        {
            compare_members(shape, o, n, found, |_| false);
        }
        (Value::Object(m), Value::Null) | (Value::Null, Value::Object(m))
            if !is_atomic_map(shape) && !m.is_empty() =>
        {
            compare_members(shape, as_map(Some(old)), as_map(Some(new)), found, |_| {
                false
            });
        }
        (Value::Array(o), Value::Array(n))
            if !is_atomic_list(shape) && (!o.is_empty() || !n.is_empty()) =>
        {
            compare_items(shape, o, n, found);
        }
        (Value::Null, Value::Array(n)) if !is_atomic_list(shape) && !n.is_empty() => {
            compare_items(shape, &[], n, found);
        }
        (Value::Array(o), Value::Null) if !is_atomic_list(shape) && !o.is_empty() => {
            compare_items(shape, o, &[], found);
        }
        (old, new) => found.modified.member = old != new,
    }
}

/// All fields of a value that is only on one side.
fn everything(shape: Option<Shape<'_>>, value: &Value, set: &mut FieldSet) {
    set.member = true;
    match value {
        Value::Object(map) if !is_atomic_map(shape) => {
            for (name, value) in map {
                let child = set.children.entry(member_step(name)).or_default();
                everything(shape.and_then(|s| s.member(name)), value, child);
            }
        }
        Value::Array(items) if !is_atomic_list(shape) => {
            let mut found = Comparison::default();
            compare_items(shape, &[], items, &mut found);
            set.children = found.added.children;
        }
        _ => {}
    }
}

fn compare_members(
    shape: Option<Shape<'_>>,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    found: &mut Comparison,
    skipped: impl Fn(&str) -> bool,
) {
    let mut member = |name: &str, old: Option<&Value>, new: Option<&Value>| {
        if skipped(name) {
            return;
        }
        let mut child = Comparison::default();
        compare(shape.and_then(|s| s.member(name)), old, new, &mut child);
        if !child.is_empty() {
            found.attach(member_step(name), child);
        }
    };
    let (mut olds, mut news) = (old.iter().peekable(), new.iter().peekable());
    loop {
        match (olds.peek(), news.peek()) {
            (None, None) => return,
            (Some((o, _)), Some((n, _))) if o == n => {
                if let (Some((name, old)), Some((_, new))) = (olds.next(), news.next()) {
                    member(name, Some(old), Some(new));
                }
            }
            (Some((o, _)), n) if n.is_none_or(|(n, _)| o < n) => {
                olds.next()
                    .into_iter()
                    .for_each(|(name, old)| member(name, Some(old), None));
            }
            _ => news
                .next()
                .into_iter()
                .for_each(|(name, new)| member(name, None, Some(new))),
        }
    }
}

/// The items with one key; there is more than one only where a client made a mistake that is tolerated.
type Items<'a> = (Vec<&'a Value>, Vec<&'a Value>);

fn compare_items(shape: Option<Shape<'_>>, old: &[Value], new: &[Value], found: &mut Comparison) {
    let Some(list) = shape else { return };
    let mut items: BTreeMap<String, Items<'_>> = BTreeMap::new();
    // An item whose keys are missing is nobody's; validation of the object has its say about it.
    for item in old {
        if let Ok(step) = step(list, item) {
            items.entry(step).or_default().0.push(item);
        }
    }
    for item in new {
        if let Ok(step) = step(list, item) {
            items.entry(step).or_default().1.push(item);
        }
    }
    for (step, (old, new)) in items {
        let mut child = Comparison::default();
        let mut one =
            |old: Option<&Value>, new: Option<&Value>| compare(list.items(), old, new, &mut child);
        match (old.as_slice(), new.as_slice()) {
            ([] | [_], [] | [_]) => one(old.first().copied(), new.first().copied()),
            // Duplicates are owned as a whole, whatever is in them.
            ([_, _, ..], [_, _, ..]) => child.modified.member = old != new,
            ([_, _, ..], _) => {
                one(None, new.first().copied());
                child.removed.member = true;
            }
            (_, _) => {
                one(old.first().copied(), None);
                child.added.member = true;
            }
        }
        found.attach(step, child);
    }
}

/// The fields that a configuration names, which its applier then owns.
pub(super) fn fields_of(shape: Option<Shape<'_>>, value: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    match value {
        Value::Object(map) if !is_atomic_map(shape) => {
            for (name, value) in map {
                let mut child = fields_of(shape.and_then(|s| s.member(name)), value);
                let declared = shape.and_then(|s| s.declared(name)).is_some();
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                child.member |= empty || !declared;
                set.attach(member_step(name), child);
            }
        }
        Value::Array(items) if !is_atomic_list(shape) => {
            let Some(list) = shape else { return set };
            for item in items {
                let Ok(step) = step(list, item) else { continue };
                let child = match set.children.get(&step) {
                    // Of duplicates only the item itself is owned.
                    Some(_) => FieldSet::default(),
                    None => fields_of(list.items(), item),
                };
                set.children.insert(
                    step,
                    FieldSet {
                        member: true,
                        ..child
                    },
                );
            }
        }
        Value::Null if shape.is_some_and(Shape::is_composed) => {}
        _ => set.member = true,
    }
    set
}
