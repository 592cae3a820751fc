//! Ownership of fields: `metadata.managedFields` and server-side apply.
//!
//! Every write goes through here once, after the body has been checked and defaulted and before the server adds what is
//! its own to write (status on create, allocated addresses): [`on_write`] for create, update and patch, [`apply`] for
//! apply. Both are functions of plain values, and follow structured-merge-diff and kube-apiserver's field manager.
//!
//! Fields are taken to mean the same in all versions of a kind: an owner that wrote in another version keeps its fields
//! by their names.

mod compare;
mod config;
mod fields;
mod items;
mod managers;
mod merge;

use serde_json::Value;

pub use fields::{FieldSet, FieldsError};
pub use managers::{Operation, UPDATE_MANAGERS_MAX};

use crate::node::Schema;
use crate::shape::Shape;
use compare::{Comparison, compare_objects, fields_of, strip};
use managers::Manager;
use merge::{drop_nulls, empty_object, merge, remove};

/// The annotation in which `kubectl apply` without server side keeps what it applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The manager of that command, which may take over what it had applied without server side.
const KUBECTL: &str = "kubectl";

/// Who owns what an object had before somebody first applied to it.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Who writes what, and when.
#[derive(Clone, Copy, Debug)]
pub struct WriteContext<'a> {
    /// The field manager: `?fieldManager=`, or the first part of the user agent.
    pub manager: &'a str,
    /// The version in which the object is written, as in `apps/v1`.
    pub api_version: &'a str,
    /// The subresource that is written to, or empty.
    pub subresource: &'a str,
    /// The time as RFC 3339 in UTC, to the second.
    pub now: &'a str,
    /// Fields that a write to here leaves as they are, like `status` of the object itself: they do not get an owner.
    pub ignored: Option<&'a FieldSet>,
}

impl WriteContext<'_> {
    fn as_manager(&self, operation: Operation, fields: FieldSet) -> Manager {
        let name = if self.manager.is_empty() {
            "unknown"
        } else {
            self.manager
        };
        Manager {
            operation,
            time: self.now.to_owned(),
            name: name.to_owned(),
            api_version: self.api_version.to_owned(),
            subresource: self.subresource.to_owned(),
            fields,
        }
    }
}

/// One field that somebody else owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The other manager, as the message names it.
    pub manager: String,
    /// The field, as in `.metadata.labels.diff`.
    pub field: String,
}

impl Conflict {
    /// The message of the cause, whose reason is `FieldManagerConflict`.
    pub fn message(&self) -> String {
        format!("conflict with {}", self.manager)
    }
}

/// Why a configuration could not be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// 409 with reason Conflict and a cause for each.
    #[error("{}", conflicts_message(.0))]
    Conflicts(Vec<Conflict>),
    /// 400: this must not be applied.
    #[error("{0}")]
    BadRequest(String),
    /// 500, as upstream has it: the configuration does not follow the schema.
    #[error("failed to create typed patch object ({object}): {reason}")]
    NotTyped {
        /// Namespace, name and kind.
        object: String,
        /// The field and what is wrong with it.
        reason: String,
    },
}

impl ApplyError {
    /// The HTTP status code that answers this error.
    pub fn code(&self) -> u16 {
        match self {
            Self::Conflicts(_) => 409,
            Self::BadRequest(_) => 400,
            Self::NotTyped { .. } => 500,
        }
    }
}

fn conflicts_message(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!(
            "Apply failed with 1 conflict: {}: {}",
            one.message(),
            one.field
        );
    }
    let mut names: Vec<&str> = conflicts.iter().map(|c| c.manager.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let mut lines = Vec::new();
    for name in names {
        lines.push(format!("conflicts with {name}:"));
        lines.extend(
            conflicts
                .iter()
                .filter(|c| c.manager == name)
                .map(|c| format!("- {}", c.field)),
        );
    }
    format!(
        "Apply failed with {} conflicts: {}",
        conflicts.len(),
        lines.join("\n")
    )
}

/// Brings `new`'s managed fields up to date for a create (`old` is none), an update or a patch.
///
/// What `new` says of managed fields is taken where upstream takes it: an empty list resets them, none or a list that is not
/// understood means those of `old`. An object that had no managed fields before stays without.
pub fn on_write(schema: &Schema, old: Option<&Value>, new: &mut Value, ctx: &WriteContext<'_>) {
    let shape = Shape::root(schema);
    let given = managers::take(new);
    let live = old.and_then(|o| o.get("metadata")?.get("managedFields"));
    let found = match old {
        Some(old) => differences(shape, old, new, ctx),
        None => differences(shape, &empty_object(shape), new, ctx),
    };
    if found.is_empty() && live.is_some() && given.as_ref() == live {
        managers::set(new, given);
        return;
    }
    let mut owners = owners_before(given, live, ctx.subresource);
    if owners.is_empty() && old.is_some_and(has_uid) {
        return;
    }
    if !found.is_empty() {
        let Comparison {
            removed,
            modified: mut changed,
            added,
        } = found;
        changed.unite(added);
        for owner in &mut owners {
            owner.fields.subtract(&changed);
            owner.fields.subtract(&removed);
        }
        owners.retain(|o| !o.fields.is_empty());
        if !changed.is_empty() {
            managers::add(&mut owners, ctx.as_manager(Operation::Update, changed));
        }
        managers::cap(&mut owners);
    }
    managers::encode(new, owners);
}

fn owners_before(given: Option<Value>, live: Option<&Value>, subresource: &str) -> Vec<Manager> {
    let live = || managers::decode(live.cloned()).unwrap_or_default();
    match given {
        // A subresource is no place to write managed fields.
        Some(Value::Array(list)) if subresource.is_empty() => {
            if is_reset(&list) {
                return Vec::new();
            }
            managers::decode(Some(Value::Array(list)))
                .filter(|m| !m.is_empty())
                .unwrap_or_else(live)
        }
        _ => live(),
    }
}

fn is_reset(list: &[Value]) -> bool {
    match list {
        [] => true,
        [one] => one.as_object().is_some_and(serde_json::Map::is_empty),
        _ => false,
    }
}

fn has_uid(object: &Value) -> bool {
    object
        .pointer("/metadata/uid")
        .and_then(Value::as_str)
        .is_some_and(|uid| !uid.is_empty())
}

fn differences(shape: Shape<'_>, old: &Value, new: &Value, ctx: &WriteContext<'_>) -> Comparison {
    let mut found = compare_objects(shape, old, new);
    if let Some(ignored) = ctx.ignored {
        found.subtract_trees(ignored);
    }
    found
}

/// If `new` differs from `old` by nothing but the times of its managed fields, gives it the times of `old`, so that the write
/// can be seen to be none. To be called when the object is ready to be stored.
pub fn keep_times_if_unchanged(old: &Value, new: &mut Value) {
    let Some(live) = old.pointer("/metadata/managedFields") else {
        return;
    };
    let Some(Value::Array(list)) = new.pointer("/metadata/managedFields") else {
        return;
    };
    let same_but_time = |a: &Value, b: &Value| match (a.as_object(), b.as_object()) {
        (Some(a), Some(b)) => {
            let known = |m: &'_ serde_json::Map<String, Value>| {
                m.len() - usize::from(m.contains_key("time"))
            };
            known(a) == known(b) && a.iter().all(|(k, v)| k == "time" || b.get(k) == Some(v))
        }
        _ => a == b,
    };
    let live_list = live.as_array().map(Vec::as_slice).unwrap_or_default();
    if list.len() != live_list.len()
        || !list.iter().zip(live_list).all(|(a, b)| same_but_time(a, b))
    {
        return;
    }
    if equal_but_managed_fields(old, new) {
        managers::set(new, Some(live.clone()));
    }
}

fn equal_but_managed_fields(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else {
        return false;
    };
    let metadata_equal = |a: &Value, b: &Value| match (a.as_object(), b.as_object()) {
        (Some(a), Some(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(k, v)| k == "managedFields" || b.get(k) == Some(v))
        }
        _ => a == b,
    };
    let equal = |k: &str, v: &Value| match b.get(k) {
        Some(other) if k == "metadata" => metadata_equal(v, other),
        other => other == Some(v),
    };
    a.len() == b.len() && a.iter().all(|(k, v)| equal(k, v))
}

/// Applies `config` to the live object, or to an empty one of the same name, and returns what comes of it with its managed
/// fields. It has to be defaulted like any object that came in.
pub fn apply(
    schema: &Schema,
    live: Option<&Value>,
    config: &Value,
    ctx: &WriteContext<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    let shape = Shape::root(schema);
    config::check(shape, config, ctx)?;
    let mut live = live.cloned().unwrap_or_else(|| empty_object(shape));
    let mut owners = managers::decode(managers::take(&mut live)).unwrap_or_default();
    if owners.is_empty() {
        // What was there before is owned by nobody else, so that it is not given away without a conflict.
        let found = differences(shape, &empty_object(shape), &live, ctx);
        let mut fields = found.modified;
        fields.unite(found.added);
        let before = WriteContext {
            manager: BEFORE_FIRST_APPLY,
            ..*ctx
        };
        owners.push(before.as_manager(Operation::Update, fields));
        owners.retain(|o| !o.fields.is_empty());
    }
    let mut object = match apply_as(shape, &live, config, &owners, ctx, force) {
        Err(ApplyError::Conflicts(conflicts)) if ctx.manager == KUBECTL => {
            let left = not_last_applied(shape, &live, conflicts);
            if !left.is_empty() {
                return Err(ApplyError::Conflicts(left));
            }
            apply_as(shape, &live, config, &owners, ctx, true)
        }
        result => result,
    }?;
    if ctx.manager == KUBECTL {
        keep_last_applied(&mut object, config);
    }
    Ok(object)
}

fn apply_as(
    shape: Shape<'_>,
    live: &Value,
    config: &Value,
    owners: &[Manager],
    ctx: &WriteContext<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    let mut fields = fields_of(Some(shape), config);
    if let Some(ignored) = ctx.ignored {
        fields.subtract_trees(ignored);
    }
    let mut applier = ctx.as_manager(Operation::Apply, fields);
    let before = owners.iter().find(|o| o.is(&applier));
    let mut others: Vec<Manager> = owners.iter().filter(|o| !o.is(&applier)).cloned().collect();

    let merged = merge(Some(shape), Some(live), config);
    let mut object = match before {
        // What nobody can own is still part of what is applied: without its name the metadata would go, too.
        Some(before) => prune(shape, merged, &before.fields, &applier, &others),
        None => merged,
    };
    strip(&mut applier.fields);

    let Comparison {
        removed,
        modified: mut changed,
        added,
    } = differences(shape, live, &object, ctx);
    changed.unite(added);
    if !force {
        let conflicts: Vec<Conflict> = others
            .iter()
            .flat_map(|o| conflicts_with(o, &changed))
            .collect();
        if !conflicts.is_empty() {
            return Err(ApplyError::Conflicts(conflicts));
        }
    }
    for other in &mut others {
        other.fields.subtract(&changed);
        other.fields.subtract(&removed);
    }

    drop_nulls(Some(shape), &mut object);
    if object == *live {
        // Nothing happened but, perhaps, to the ownership.
        applier.time = before.map(|b| b.time.clone()).unwrap_or_default();
    }
    others.push(applier);
    managers::encode(&mut object, others);
    Ok(object)
}

fn conflicts_with(owner: &Manager, changed: &FieldSet) -> Vec<Conflict> {
    let fields = owner.fields.intersection(changed).paths();
    fields
        .into_iter()
        .map(|field| Conflict {
            manager: owner.described(),
            field,
        })
        .collect()
}

/// Takes out of the merged object what the applier had applied before and does not apply now, unless somebody else owns it.
fn prune(
    shape: Shape<'_>,
    merged: Value,
    before: &FieldSet,
    applier: &Manager,
    others: &[Manager],
) -> Value {
    let shape = Some(shape);
    let mut owned = applier.fields.clone();
    others.iter().for_each(|o| owned.unite(o.fields.clone()));
    if before.is_subset(&owned) {
        return merged;
    }
    let before = before.clone().with_declared(shape);
    let owned = owned.with_declared(shape);
    let all = fields_of(shape, &merged).with_declared(shape);
    let left = |object: &Value| fields_of(shape, object).with_declared(shape);

    // Removing an item takes away all that is in it: first what is owned comes back, then what the applier never owned.
    let mut gone = all.clone();
    gone.subtract(&left(&remove(shape, &merged, &before)));
    gone.subtract(&owned);
    let pruned = remove(shape, &merged, &gone);
    let mut gone = all;
    gone.subtract(&left(&pruned));
    remove(shape, &merged, &gone.intersection(&before))
}

/// The conflicts about fields that `kubectl apply` without server side did not write.
fn not_last_applied(shape: Shape<'_>, live: &Value, conflicts: Vec<Conflict>) -> Vec<Conflict> {
    let annotation = live
        .pointer("/metadata/annotations")
        .and_then(|a| a.get(LAST_APPLIED));
    let applied: Option<Value> = annotation
        .and_then(Value::as_str)
        .and_then(|a| serde_json::from_str(a).ok());
    let Some(applied) = applied else {
        return conflicts;
    };
    let mut fields = fields_of(Some(shape), &applied);
    // A field that has been changed since is not what was applied.
    fields.subtract(&compare_objects(shape, &applied, live).modified);
    let allowed = fields.paths();
    conflicts
        .into_iter()
        .filter(|c| !allowed.contains(&c.field))
        .collect()
}

/// Keeps the annotation of `kubectl apply` without server side in step, if there is one.
fn keep_last_applied(object: &mut Value, config: &Value) {
    let annotation = object
        .pointer_mut("/metadata/annotations")
        .and_then(|a| a.get_mut(LAST_APPLIED));
    if let Some(annotation) = annotation {
        let mut applied = config.clone();
        if let Some(Value::Object(annotations)) = applied.pointer_mut("/metadata/annotations") {
            annotations.remove(LAST_APPLIED);
        }
        *annotation = Value::String(format!("{applied}\n"));
    }
}

#[cfg(test)]
mod tests;
