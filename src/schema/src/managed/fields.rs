//! Sets of field paths, and their JSON form `fieldsV1`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::shape::Shape;

/// A set of paths into an object, as a tree.
///
/// The steps are kept in the words of `fieldsV1`: `f:name` for a member, `k:{…}` for the item of a list with these keys,
/// `v:…` for that value of a set, `i:…` for an index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// Whether the path that ends here is in the set.
    pub(super) member: bool,
    /// The paths that go on from here; none of them is an empty set.
    pub(super) children: BTreeMap<String, FieldSet>,
}

/// A `fieldsV1` that is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldsError {
    /// A set is written as an object of objects.
    #[error("a set of fields must be an object")]
    NotAnObject,
    /// A step is of no known kind.
    #[error("unknown path element type: {0}")]
    UnknownStep(String),
}

impl FieldSet {
    /// The set of these paths, each a list of member names.
    pub fn of_members(paths: &[&[&str]]) -> Self {
        let mut set = Self::default();
        for path in paths {
            let at = path.iter().fold(&mut set, |at, name| {
                at.children.entry(member_step(name)).or_default()
            });
            at.member = true;
        }
        set
    }

    /// Whether there is no path in it.
    pub fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    /// Reads a `fieldsV1`.
    pub fn from_value(value: Value) -> Result<Self, FieldsError> {
        let Value::Object(map) = value else {
            return Err(FieldsError::NotAnObject);
        };
        let mut set = Self::default();
        for (step, value) in map {
            if step == "." {
                set.member = true;
                continue;
            }
            if !["f:", "k:", "v:", "i:"]
                .iter()
                .any(|kind| step.starts_with(kind))
            {
                return Err(FieldsError::UnknownStep(step));
            }
            let mut child = Self::from_value(value)?;
            child.member |= child.children.is_empty();
            set.children.insert(step, child);
        }
        Ok(set)
    }

    /// Writes a `fieldsV1`.
    pub fn into_value(self) -> Value {
        let mut map = Map::new();
        if self.member && !self.children.is_empty() {
            map.insert(".".into(), Value::Object(Map::new()));
        }
        map.extend(
            self.children
                .into_iter()
                .map(|(step, child)| (step, child.into_value())),
        );
        Value::Object(map)
    }

    /// Puts a set below this one, if it is not empty.
    pub(super) fn attach(&mut self, step: String, child: FieldSet) {
        if !child.is_empty() {
            self.children.insert(step, child);
        }
    }

    /// Adds the paths of another set.
    pub(super) fn unite(&mut self, other: FieldSet) {
        self.member |= other.member;
        if self.children.is_empty() {
            self.children = other.children;
            return;
        }
        for (step, child) in other.children {
            self.children.entry(step).or_default().unite(child);
        }
    }

    /// Takes away the paths of another set, but not what lies below them.
    pub(super) fn subtract(&mut self, other: &FieldSet) {
        self.member &= !other.member;
        self.each_common(other, Self::subtract);
    }

    /// Takes away the paths of another set with all that lies below them.
    pub(super) fn subtract_trees(&mut self, other: &FieldSet) {
        if other.member {
            *self = Self::default();
        } else {
            self.each_common(other, Self::subtract_trees);
        }
    }

    fn each_common(&mut self, other: &FieldSet, change: fn(&mut FieldSet, &FieldSet)) {
        for (step, theirs) in &other.children {
            if let Some(ours) = self.children.get_mut(step) {
                change(ours, theirs);
                if ours.is_empty() {
                    self.children.remove(step);
                }
            }
        }
    }

    /// The paths that are in both.
    pub(super) fn intersection(&self, other: &FieldSet) -> FieldSet {
        let mut common = FieldSet {
            member: self.member && other.member,
            ..Self::default()
        };
        for (step, ours) in &self.children {
            if let Some(theirs) = other.children.get(step) {
                common.attach(step.clone(), ours.intersection(theirs));
            }
        }
        common
    }

    /// Whether every path of it is in the other one.
    pub(super) fn is_subset(&self, other: &FieldSet) -> bool {
        (!self.member || other.member)
            && self
                .children
                .iter()
                .all(|(step, ours)| other.children.get(step).is_some_and(|t| ours.is_subset(t)))
    }

    /// Adds the declared properties on the way to a path: who owns `spec.replicas` has to do with `spec`, too.
    pub(super) fn with_declared(mut self, shape: Option<Shape<'_>>) -> FieldSet {
        let children = std::mem::take(&mut self.children);
        for (step, child) in children {
            let (declared, below) = match step.strip_prefix("f:") {
                Some(name) => (
                    shape.and_then(|s| s.declared(name)).is_some(),
                    shape.and_then(|s| s.member(name)),
                ),
                None => (false, shape.and_then(Shape::items)),
            };
            let mut child = child.with_declared(below);
            child.member |= declared;
            self.children.insert(step, child);
        }
        self
    }

    /// Every path, as it is written in messages; the paths that end at a node come before those that go on from it.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_paths("", &mut paths);
        paths
    }

    fn collect_paths(&self, prefix: &str, paths: &mut Vec<String>) {
        let at = |step: &str| format!("{prefix}{}", printed(step));
        paths.extend(
            self.children
                .iter()
                .filter(|(_, c)| c.member)
                .map(|(step, _)| at(step)),
        );
        for (step, child) in self.children.iter().filter(|(_, c)| !c.children.is_empty()) {
            child.collect_paths(&at(step), paths);
        }
    }
}

/// The step to a member of an object. It is made for every member of every write, hence without formatting.
pub(super) fn member_step(name: &str) -> String {
    ["f:", name].concat()
}

/// A step as messages have it: `.name`, `[name="c"]`, `[="value"]`, `[0]`.
pub(super) fn printed(step: &str) -> String {
    let (kind, rest) = step.split_at(step.len().min(2));
    match kind {
        "f:" => format!(".{rest}"),
        "k:" => {
            let keys: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
            let mut text = String::from("[");
            for (i, (name, value)) in keys.iter().enumerate() {
                let comma = if i > 0 { "," } else { "" };
                let _ = write!(text, "{comma}{name}={value}");
            }
            text + "]"
        }
        "v:" => format!("[={rest}]"),
        _ => format!("[{rest}]"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn set(value: Value) -> FieldSet {
        FieldSet::from_value(value).unwrap()
    }

    #[test]
    fn the_json_form_is_read_and_written() {
        let value = json!({
            "f:metadata": {"f:labels": {".": {}, "f:a": {}}, "f:finalizers": {"v:\"x\"": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}}}, "f:replicas": {}},
        });
        let fields = set(value.clone());
        let paths = [
            ".metadata.labels",
            ".metadata.finalizers[=\"x\"]",
            ".metadata.labels.a",
            ".spec.replicas",
            ".spec.containers[name=\"c\"]",
            ".spec.containers[name=\"c\"].image",
        ];
        assert_eq!(fields.paths(), paths);
        assert_eq!(fields.into_value(), value);
        assert_eq!(
            FieldSet::from_value(json!([])),
            Err(FieldsError::NotAnObject)
        );
        assert_eq!(
            FieldSet::from_value(json!({"x": {}})),
            Err(FieldsError::UnknownStep("x".into()))
        );
    }

    #[test]
    fn differences() {
        let all = set(json!({"f:a": {".": {}, "f:b": {}, "f:c": {}}}));
        let mut some = all.clone();
        some.subtract(&set(json!({"f:a": {}})));
        assert_eq!(some, set(json!({"f:a": {"f:b": {}, "f:c": {}}})));
        let mut none = all.clone();
        none.subtract_trees(&set(json!({"f:a": {}})));
        assert!(none.is_empty());
        assert_eq!(
            FieldSet::of_members(&[&["a", "b"]]),
            set(json!({"f:a": {"f:b": {}}}))
        );
    }

    fn sets() -> impl Strategy<Value = FieldSet> {
        prop::collection::vec(prop::collection::vec("[a-c]", 1..4), 0..8).prop_map(|paths| {
            let mut set = FieldSet::default();
            for path in paths {
                path.iter()
                    .fold(&mut set, |at, n| {
                        at.children.entry(format!("f:{n}")).or_default()
                    })
                    .member = true;
            }
            set
        })
    }

    proptest! {
        #[test]
        fn sets_obey_the_laws_of_sets(a in sets(), b in sets()) {
            let mut union = a.clone();
            union.unite(b.clone());
            prop_assert!(a.is_subset(&union) && b.is_subset(&union));
            let mut only_a = a.clone();
            only_a.subtract(&b);
            prop_assert!(only_a.intersection(&b).is_empty());
            let mut again = only_a;
            again.unite(a.intersection(&b));
            prop_assert_eq!(&again, &a);
            prop_assert_eq!(FieldSet::from_value(a.clone().into_value()).unwrap(), a);
        }
    }
}
