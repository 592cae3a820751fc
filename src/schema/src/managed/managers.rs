//! The list `metadata.managedFields`: who owns which fields.

use serde_json::{Map, Value};

use super::fields::FieldSet;

/// Most entries of operation Update that an object keeps; the oldest ones beyond that become one.
pub const UPDATE_MANAGERS_MAX: usize = 10;

/// The manager into which the oldest updates go.
const ANCIENT: &str = "ancient-changes";

/// How fields came to their owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// By server-side apply.
    Apply,
    /// By any other write.
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// One entry. The order of its fields is that of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manager {
    pub(super) operation: Operation,
    /// RFC 3339 in UTC, to the second; empty if it is not known.
    pub(super) time: String,
    pub(super) name: String,
    pub(super) api_version: String,
    pub(super) subresource: String,
    pub(super) fields: FieldSet,
}

impl Manager {
    /// Whether both are the same manager, doing the same: those who apply are told apart without the version.
    pub(super) fn is(&self, other: &Manager) -> bool {
        self.operation == other.operation
            && self.name == other.name
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// How a conflict names it.
    pub(super) fn described(&self) -> String {
        let mut text = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            text += &format!(" with subresource {:?}", self.subresource);
        }
        if self.operation == Operation::Update {
            text += &format!(" using {}", self.api_version);
        }
        text
    }

    fn order(&self) -> impl Ord + '_ {
        (
            self.operation,
            &self.time,
            &self.name,
            &self.api_version,
            &self.subresource,
        )
    }

    fn decode(entry: Value) -> Option<Manager> {
        let Value::Object(mut entry) = entry else {
            return None;
        };
        let mut text = |name: &str| match entry.remove(name) {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        let (time, name) = (text("time"), text("manager"));
        let (api_version, subresource) = (text("apiVersion"), text("subresource"));
        let operation = match entry.get("operation")?.as_str()? {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        let fields = entry
            .remove("fieldsV1")
            .unwrap_or_else(|| Value::Object(Map::new()));
        Some(Manager {
            operation,
            time,
            name,
            api_version,
            subresource,
            fields: FieldSet::from_value(fields).ok()?,
        })
    }

    fn encode(self) -> Value {
        let mut entry = Map::new();
        entry.insert("apiVersion".into(), self.api_version.into());
        entry.insert("fieldsType".into(), "FieldsV1".into());
        entry.insert("fieldsV1".into(), self.fields.into_value());
        entry.insert("manager".into(), self.name.into());
        entry.insert("operation".into(), self.operation.as_str().into());
        if !self.subresource.is_empty() {
            entry.insert("subresource".into(), self.subresource.into());
        }
        if !self.time.is_empty() {
            entry.insert("time".into(), self.time.into());
        }
        Value::Object(entry)
    }
}

/// Reads the list of an object; none if there is something in it that is not understood.
pub(super) fn decode(list: Option<Value>) -> Option<Vec<Manager>> {
    let Some(Value::Array(entries)) = list else {
        return Some(Vec::new());
    };
    let managers: Option<Vec<Manager>> = entries.into_iter().map(Manager::decode).collect();
    managers.map(|mut m| {
        m.retain(|m| !m.fields.is_empty());
        m
    })
}

/// Writes the list into an object, or takes it out if there is nothing to write.
pub(super) fn encode(object: &mut Value, mut managers: Vec<Manager>) {
    managers.retain(|m| !m.fields.is_empty());
    managers.sort_by(|a, b| a.order().cmp(&b.order()));
    let list: Vec<Value> = managers.into_iter().map(Manager::encode).collect();
    set(
        object,
        if list.is_empty() {
            None
        } else {
            Some(Value::Array(list))
        },
    );
}

/// Takes the list out of an object.
pub(super) fn take(object: &mut Value) -> Option<Value> {
    object
        .get_mut("metadata")?
        .as_object_mut()?
        .remove("managedFields")
}

/// Puts a list into an object that has metadata.
pub(super) fn set(object: &mut Value, list: Option<Value>) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    match list {
        Some(list) => metadata.insert("managedFields".into(), list),
        None => metadata.remove("managedFields"),
    };
}

/// Adds fields to a manager's, now.
pub(super) fn add(managers: &mut Vec<Manager>, changed: Manager) {
    match managers.iter_mut().find(|m| m.is(&changed)) {
        Some(manager) => {
            manager.fields.unite(changed.fields);
            manager.time = changed.time;
        }
        None => managers.push(changed),
    }
}

/// Makes one entry for each version of the oldest updates beyond [`UPDATE_MANAGERS_MAX`].
pub(super) fn cap(managers: &mut Vec<Manager>) {
    let mut updates: Vec<usize> = (0..managers.len())
        .filter(|i| managers[*i].operation == Operation::Update)
        .collect();
    let mut count = updates.len();
    if count <= UPDATE_MANAGERS_MAX {
        return;
    }
    updates.sort_by(|a, b| managers[*a].order().cmp(&managers[*b].order()));
    // The first one of a version stays as it is, until a second one joins it.
    let mut buckets: Vec<Vec<usize>> = Vec::new();
    for i in updates {
        if count <= UPDATE_MANAGERS_MAX {
            break;
        }
        match buckets
            .iter_mut()
            .find(|b| managers[b[0]].api_version == managers[i].api_version)
        {
            Some(bucket) => {
                bucket.push(i);
                count -= 1;
            }
            None => buckets.push(vec![i]),
        }
    }
    for bucket in buckets.iter().filter(|b| b.len() > 1) {
        let mut merged = Manager {
            name: ANCIENT.into(),
            subresource: String::new(),
            ..managers[bucket[0]].clone()
        };
        for i in &bucket[1..] {
            merged
                .fields
                .unite(std::mem::take(&mut managers[*i].fields));
            merged.time.clone_from(&managers[*i].time);
        }
        managers[bucket[0]] = merged;
    }
    managers.retain(|m| !m.fields.is_empty());
}
