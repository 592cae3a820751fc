//! [`Strategy`]: what a kind adds to the generic engine — defaults, validation, what a write may touch, table columns.
//!
//! The engine calls the hooks in upstream's order (`rest.RESTCreateStrategy`, `rest.RESTUpdateStrategy`):
//! decode → [`Strategy::default`] → [`Strategy::prepare_for_create`] or [`Strategy::prepare_for_update`] → generic metadata
//! validation → [`Strategy::validate`] or [`Strategy::validate_update`] → store. Hooks are pure: allocation and look-ups of
//! other objects come in through [`Context`].

use kontiki_api::ApiError;
use kontiki_api::field::Error;
use serde_json::Value;

/// What a hook may know beside the object.
pub struct Context<'a> {
    /// The namespace of the request; empty for cluster-scoped kinds.
    pub namespace: &'a str,
    /// The user who asks.
    pub user: &'a str,
    /// Now, as RFC 3339 text with seconds.
    pub now: &'a str,
    /// Whether nothing is to be stored.
    pub dry_run: bool,
    /// The other objects of the cluster, as they are now.
    pub objects: &'a dyn Objects,
}

/// Reads of other objects for admission and allocation, from this master's own cache.
pub trait Objects: Send + Sync {
    /// The object, decoded; `None` if there is none.
    fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Value>;
    /// Calls back with every object of a resource (all namespaces).
    fn each(&self, group: &str, plural: &str, visit: &mut dyn FnMut(&Value));
    /// The node ports that services may have.
    fn node_ports(&self) -> std::ops::RangeInclusive<i64> {
        30000..=32767
    }
}

/// A column of a kind's table, as `kubectl get` prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// The header.
    pub name: &'static str,
    /// `string`, `integer`, `boolean`, `date`.
    pub kind: &'static str,
    /// `name` for the name column, else empty.
    pub format: &'static str,
    /// The description.
    pub description: &'static str,
    /// 0 for columns that are always shown, 1 for `-o wide`.
    pub priority: i32,
}

/// What a kind adds to the generic engine. Every hook has a default that adds nothing.
pub trait Strategy: Send + Sync + 'static {
    /// What is wrong with a name, in words; the default is a DNS-1123 subdomain. `prefix` is true for a generateName.
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        let shown = if prefix {
            name.trim_end_matches('-')
        } else {
            name
        };
        kontiki_api::names::dns1123_subdomain(shown)
    }

    /// Whether metadata.generation counts changes of the spec.
    fn has_generation(&self) -> bool {
        false
    }

    /// Whether a change of the metadata makes a new generation, as one of what is asked for does.
    fn metadata_counts(&self, _new: &Value, _old: &Value) -> bool {
        false
    }

    /// Whether a PUT of a name that does not exist creates the object.
    fn allow_create_on_update(&self) -> bool {
        false
    }

    /// Whether an update without a resourceVersion is taken.
    fn allow_unconditional_update(&self) -> bool {
        true
    }

    /// Fills in defaults (upstream's `SetDefaults_…`). Called on every decoded body and on the result of every patch.
    fn default(&self, _object: &mut Value) {}

    /// Clears and sets what a creator may not choose (the status, as a rule), allocates.
    fn prepare_for_create(&self, _cx: &Context<'_>, _object: &mut Value) {}

    /// Mutating and validating admission that looks at other objects; runs after `prepare_for_create` on creates.
    ///
    /// # Errors
    /// The refusal.
    fn admit_create(&self, _cx: &Context<'_>, _object: &mut Value) -> Result<(), ApiError> {
        Ok(())
    }

    /// What is wrong with a new object.
    fn validate(&self, _cx: &Context<'_>, _object: &Value) -> Vec<Error> {
        Vec::new()
    }

    /// Takes over from `old` what an update of the object itself (not of its status) may not touch.
    fn prepare_for_update(&self, _cx: &Context<'_>, _new: &mut Value, _old: &Value) {}

    /// What is wrong with an update; validates the new object as a whole too.
    fn validate_update(&self, cx: &Context<'_>, new: &Value, _old: &Value) -> Vec<Error> {
        self.validate(cx, new)
    }

    /// Takes over from `old` what an update of the status may not touch (all but the status, as a rule).
    fn prepare_for_status_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep_all_but_status(new, old);
    }

    /// What is wrong with an update of the status.
    fn validate_status_update(&self, _cx: &Context<'_>, _new: &Value, _old: &Value) -> Vec<Error> {
        Vec::new()
    }

    /// Warnings for a create or update, sent as `Warning` headers.
    fn warnings(&self, _new: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }

    /// The grace period of a deletion in seconds, if the kind is deleted gracefully; `requested` is the client's.
    /// `None` deletes at once. Pods and nothing else use it.
    fn deletion_grace_seconds(&self, _object: &Value, _requested: Option<i64>) -> Option<i64> {
        None
    }

    /// The value of a selectable field other than metadata.name and metadata.namespace.
    /// `None` means that the kind has no such field (the selector is refused).
    fn field<'a>(&self, _object: &'a Value, _field: &str) -> Option<std::borrow::Cow<'a, str>> {
        None
    }

    /// The fields, other than metadata.name and metadata.namespace, that field selectors may name.
    fn selectable_fields(&self) -> &'static [&'static str] {
        &[]
    }

    /// The table's columns.
    fn columns(&self) -> &'static [Column] {
        &DEFAULT_COLUMNS
    }

    /// What the row says of the object as a whole (`Completed`, say).
    fn row_conditions(&self, _object: &Value) -> Vec<Value> {
        Vec::new()
    }

    /// The cells of an object's row, one a column. `now` turns times into ages.
    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        default_row(object, now)
    }
}

/// Puts everything but `status` (and the metadata that the engine manages) back to what it was.
pub fn keep_all_but_status(new: &mut Value, old: &Value) {
    let status = new.get("status").cloned();
    let managed = new.pointer("/metadata/managedFields").cloned();
    let revision = new.pointer("/metadata/resourceVersion").cloned();
    *new = old.clone();
    let map = new
        .as_object_mut()
        .expect("a stored object is a JSON object");
    match status {
        Some(s) => map.insert("status".into(), s),
        None => map.remove("status"),
    };
    let meta = kontiki_api::object::map_mut(new, &["metadata"]);
    for (key, value) in [("managedFields", managed), ("resourceVersion", revision)] {
        match value {
            Some(v) => meta.insert(key.into(), v),
            None => meta.remove(key),
        };
    }
}

/// The columns of a kind without columns of its own: its name and when it was made.
pub static DEFAULT_COLUMNS: [Column; 2] = [
    Column {
        name: "Name",
        kind: "string",
        format: "name",
        description: NAME_DESCRIPTION,
        priority: 0,
    },
    Column {
        name: "Created At",
        kind: "date",
        format: "",
        description: CREATED_DESCRIPTION,
        priority: 0,
    },
];

/// The description of every name column (that of `metadata.name` in the OpenAPI document).
pub const NAME_DESCRIPTION: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";
/// The description of every age column (that of `metadata.creationTimestamp`).
pub const CREATED_DESCRIPTION: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

fn default_row(object: &Value, _now: jiff::Timestamp) -> Vec<Value> {
    let created = object
        .pointer("/metadata/creationTimestamp")
        .cloned()
        .unwrap_or_default();
    vec![kontiki_api::object::name(object).into(), created]
}
