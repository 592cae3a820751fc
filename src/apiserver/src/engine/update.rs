//! Updates: of the object, of its status and of its other parts (upstream's `Store.Update` and `GuaranteedUpdate`).

use kontiki_api::field::{Error, Path};
use kontiki_api::{ApiError, object};
use serde_json::Value;

use super::{
    CONFLICT_RETRIES_MAX, Call, Engine, MODIFIED, Target, Written, create, metadata,
    stated_revision,
};
use crate::schemas;
use crate::stored;
use crate::strategy::keep_all_but_status;

/// Which part of an object a write may touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// All but the status.
    Object,
    /// The status.
    Status,
    /// A namespace's spec.finalizers.
    Finalize,
    /// A pod's ephemeral containers.
    EphemeralContainers,
    /// The resources of a pod's containers.
    Resize,
    /// The conditions of a certificate signing request.
    Approval,
}

impl Part {
    /// The part that a subresource of the path names.
    pub(crate) fn of(subresource: &str) -> Option<Part> {
        Some(match subresource {
            "" => Part::Object,
            "status" => Part::Status,
            "finalize" => Part::Finalize,
            "ephemeralcontainers" => Part::EphemeralContainers,
            "resize" => Part::Resize,
            "approval" => Part::Approval,
            _ => return None,
        })
    }

    /// The name of the subresource; empty for the object itself.
    pub(crate) fn subresource(self) -> &'static str {
        match self {
            Part::Object => "",
            Part::Status => "status",
            Part::Finalize => "finalize",
            Part::EphemeralContainers => "ephemeralcontainers",
            Part::Resize => "resize",
            Part::Approval => "approval",
        }
    }
}

/// How a new state came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intent {
    /// The client sent the whole object.
    Replace,
    /// It was made from the current one.
    Patch,
    /// It was made from the current one, and its managed fields are right already.
    Apply,
}

/// What an update comes to.
enum Plan {
    Unchanged,
    Put(Value),
    /// The last finalizer of a deleted object is gone.
    Remove(Value),
}

impl Engine {
    /// Replaces an object or one of its parts. `new` is decoded, checked and defaulted.
    pub(crate) async fn update(
        &self,
        t: Target<'_>,
        part: Part,
        new: Value,
        call: &Call<'_>,
    ) -> Result<Written, ApiError> {
        check_name(&new, t)?;
        if t.kind.allow_create_on_update() && part == Part::Object {
            match self.current(t).await {
                Err(e) if e.is_not_found() => {
                    let mut new = new;
                    metadata::of(&mut new).remove("resourceVersion");
                    return self.create(t.kind, t.namespace, new, call).await;
                }
                other => drop(other?),
            }
        }
        let mut make = |_: &Value| Ok(new.clone());
        self.modify(t, part, call, Intent::Replace, &mut make).await
    }

    /// Makes a new state from the current one and stores it, again and again while others are faster.
    pub(super) async fn modify(
        &self,
        t: Target<'_>,
        part: Part,
        call: &Call<'_>,
        intent: Intent,
        make: &mut (dyn FnMut(&Value) -> Result<Value, ApiError> + Send),
    ) -> Result<Written, ApiError> {
        let _turn = self.turn(t.kind).await;
        for _ in 0..CONFLICT_RETRIES_MAX {
            let entry = self.current(t).await?;
            let old = entry.decode();
            let new = make(&old)?;
            let plan = self.plan(t, part, call, intent, &old, new)?;
            let written = |object| Written {
                object,
                created: false,
            };
            let place = (t.namespace, t.name);
            match plan {
                Plan::Unchanged => return Ok(written(entry.bytes().clone())),
                Plan::Put(v) if call.options.dry_run => {
                    return Ok(written(shown(v, entry.revision)));
                }
                Plan::Put(v) => {
                    if let Some(object) = self
                        .put(&t.kind.cache, place, stored::encode(&v), entry.revision)
                        .await?
                    {
                        return Ok(written(object));
                    }
                }
                Plan::Remove(v) => {
                    if call.options.dry_run
                        || self.remove(&t.kind.cache, place, entry.revision).await?
                    {
                        return Ok(written(shown(v, entry.revision)));
                    }
                }
            }
            self.catch_up().await?;
        }
        Err(ApiError::conflict(t.kind.resource, t.name, MODIFIED))
    }

    fn plan(
        &self,
        t: Target<'_>,
        part: Part,
        call: &Call<'_>,
        intent: Intent,
        old: &Value,
        mut new: Value,
    ) -> Result<Plan, ApiError> {
        let kind = t.kind;
        let now = object::time_text(self.now());
        let cx = self.context(t.namespace, call, &now);
        check_name(&new, t)?;
        create::match_namespace(&mut new, kind, t.namespace)?;
        if intent == Intent::Replace {
            check_uid(&new, old, t)?;
        }
        check_revision(&new, old, t)?;
        if intent != Intent::Apply {
            schemas::track(
                kind,
                Some(old),
                &mut new,
                &call.options.field_manager,
                part.subresource(),
                &now,
            );
        }
        metadata::carry_over(&mut new, old);
        match part {
            Part::Object => kind.strategy.prepare_for_update(&cx, &mut new, old),
            Part::Status => kind.strategy.prepare_for_status_update(&cx, &mut new, old),
            Part::Finalize => keep_status(&mut new, old),
            Part::EphemeralContainers => {
                keep_all_but(&mut new, old, &[&["spec", "ephemeralContainers"]]);
            }
            Part::Resize => keep_all_but(
                &mut new,
                old,
                &[&["spec", "containers"], &["spec", "initContainers"]],
            ),
            Part::Approval => {
                keep_all_but_status(&mut new, old);
                let conditions = object::get(&new, &["status", "conditions"]).cloned();
                *object::map_mut(&mut new, &["status"]) = object::get(old, &["status"])
                    .and_then(Value::as_object)
                    .cloned()
                    .unwrap_or_default();
                if let Some(c) = conditions {
                    object::map_mut(&mut new, &["status"]).insert("conditions".into(), c);
                }
            }
        }
        if part != Part::Status {
            metadata::count_generation(&mut new, old, kind);
        }
        let mut errors = metadata::validate_update(&new, old, kind);
        errors.extend(match part {
            Part::Status | Part::Approval => kind.strategy.validate_status_update(&cx, &new, old),
            Part::Finalize => Vec::new(),
            _ => kind.strategy.validate_update(&cx, &new, old),
        });
        if !errors.is_empty() {
            return Err(ApiError::invalid(
                kind.storage.group,
                kind.resource.kind,
                t.name,
                &errors,
            ));
        }
        call.warn(kind.strategy.warnings(&new, Some(old)));
        // The revision is not compared, and not stored.
        let revision = object::text(old, &["metadata", "resourceVersion"]);
        metadata::of(&mut new).insert("resourceVersion".into(), revision.into());
        schemas::settle(old, &mut new);
        if is_gone(&new) {
            return Ok(Plan::Remove(new));
        }
        Ok(if new == *old {
            Plan::Unchanged
        } else {
            Plan::Put(new)
        })
    }
}

/// Whether nothing holds a deleted object any more.
pub(super) fn is_gone(v: &Value) -> bool {
    let held = |path: &[&str]| !object::list(v, path).is_empty();
    object::get(v, &["metadata", "deletionTimestamp"]).is_some()
        && object::int(v, &["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0) == 0
        && !held(&["metadata", "finalizers"])
        && !(object::text(v, &["kind"]) == "Namespace" && held(&["spec", "finalizers"]))
}

pub(super) fn without_revision(v: &Value) -> Value {
    let mut v = v.clone();
    metadata::of(&mut v).remove("resourceVersion");
    v
}

/// The served form of an object that was not stored.
pub(super) fn shown(mut v: Value, revision: u64) -> bytes::Bytes {
    metadata::of(&mut v).insert("resourceVersion".into(), revision.to_string().into());
    serde_json::to_vec(&v)
        .expect("a value is written to memory")
        .into()
}

/// Puts the status back to what it was.
fn keep_status(new: &mut Value, old: &Value) {
    if let (Some(map), Some(status)) = (new.as_object_mut(), old.get("status")) {
        map.insert("status".into(), status.clone());
    }
}

/// Puts everything but these members (and the managed fields) back to what it was.
fn keep_all_but(new: &mut Value, old: &Value, members: &[&[&str]]) {
    let mut out = old.clone();
    let mut keep = |path: &[&str]| {
        let (last, parents) = path.split_last().expect("a path has a name");
        match object::get(new, path).cloned() {
            Some(v) => drop(object::map_mut(&mut out, parents).insert((*last).into(), v)),
            None => drop(object::map_mut(&mut out, parents).remove(*last)),
        }
    };
    members.iter().for_each(|m| keep(m));
    keep(&["metadata", "managedFields"]);
    *new = out;
}

fn check_name(v: &Value, t: Target<'_>) -> Result<(), ApiError> {
    let name = object::name(v);
    if name.is_empty() {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            t.name
        )));
    }
    if name != t.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            t.name
        )));
    }
    Ok(())
}

fn check_uid(new: &Value, old: &Value, t: Target<'_>) -> Result<(), ApiError> {
    let (wanted, have) = (object::uid(new), object::uid(old));
    if wanted.is_empty() || wanted == have {
        return Ok(());
    }
    let key = format!(
        "{}{}",
        t.kind.cache.prefix(),
        crate::keys::place(t.namespace, t.name)
    );
    let revision = object::text(old, &["metadata", "resourceVersion"]);
    Err(ApiError::conflict(
        t.kind.resource,
        t.name,
        format!(
            "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: {revision}, AdditionalErrorMsg: \
             Precondition failed: UID in precondition: {wanted}, UID in object meta: {have}"
        ),
    ))
}

fn check_revision(new: &Value, old: &Value, t: Target<'_>) -> Result<(), ApiError> {
    let stated = stated_revision(new)?;
    if stated == 0 {
        if t.kind.allow_unconditional_update() {
            return Ok(());
        }
        let path = Path::new("metadata").child("resourceVersion");
        let mut e = Error::invalid(&path, 0, "must be specified for an update");
        e.value = Some("0x0".into());
        // Upstream gives the resource here where the kind belongs.
        return Err(ApiError::invalid(
            t.kind.resource.group,
            t.kind.resource.plural,
            t.name,
            &[e],
        ));
    }
    if stated == stated_revision(old)? {
        return Ok(());
    }
    Err(ApiError::conflict(t.kind.resource, t.name, MODIFIED))
}
