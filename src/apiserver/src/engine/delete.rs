//! Deletion: grace, finalizers, propagation (upstream's `rest.BeforeDelete` and `Store.Delete`).

use kontiki_api::{ApiError, Resource, object};
use serde_json::{Value, json};

use super::admission::IMMORTAL_NAMESPACES;
use super::list::Match;
use super::update::{shown, without_revision};
use super::{CONFLICT_RETRIES_MAX, Call, Engine, List, ListOptions, MODIFIED, Target, metadata};
use crate::cache::Entry;
use crate::options::{DeleteOptions, Propagation};
use crate::registry::Kind;
use crate::stored;

/// The finalizer that keeps an object until its dependents were let go.
const ORPHAN: &str = "orphan";
/// The finalizer that keeps an object until its dependents are gone.
const FOREGROUND: &str = "foregroundDeletion";

/// What deleting a job without a propagation policy means.
const ORPHANED_PODS_WARNING: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning";

/// What the names of the system's priority classes begin with.
const SYSTEM_CLASS_PREFIX: &str = "system-";

/// What became of a deletion.
pub(crate) struct Deleted {
    /// The object in its last state, or the `Status` of success.
    pub(crate) answer: bytes::Bytes,
    /// Whether the answer is the object.
    pub(crate) is_object: bool,
    /// Whether the object is gone, and not only on its way.
    pub(crate) gone: bool,
}

/// What a deletion comes to.
#[derive(Debug, PartialEq)]
enum Plan {
    /// The object stays as it is: it is being deleted already.
    Leave,
    /// The object is marked, and stays until somebody lets it go.
    Mark(Value),
    /// The object goes; this is its last state.
    Remove(Value),
}

impl Engine {
    /// Deletes an object, or starts to.
    pub(crate) async fn delete(
        &self,
        t: Target<'_>,
        options: &DeleteOptions,
        call: &Call<'_>,
    ) -> Result<Deleted, ApiError> {
        let r = t.kind.resource;
        if r.plural == "namespaces" && IMMORTAL_NAMESPACES.contains(&t.name) {
            return Err(ApiError::forbidden(
                r,
                t.name,
                "this namespace may not be deleted",
            ));
        }
        if r.plural == "priorityclasses" && t.name.starts_with(SYSTEM_CLASS_PREFIX) {
            return Err(ApiError::forbidden(
                r,
                t.name,
                "this is a system priority class and cannot be deleted",
            ));
        }
        warn_of_orphans(t.kind, options, call);
        for _ in 0..CONFLICT_RETRIES_MAX {
            let entry = self.current(t).await?;
            if let Some(done) = self.delete_entry(t.kind, &entry, options, call).await? {
                return Ok(done);
            }
            self.catch_up().await?;
        }
        Err(ApiError::conflict(r, t.name, MODIFIED))
    }

    /// Deletes an object in this very state; `None` if it changed meanwhile.
    async fn delete_entry(
        &self,
        kind: &Kind,
        entry: &Entry,
        options: &DeleteOptions,
        call: &Call<'_>,
    ) -> Result<Option<Deleted>, ApiError> {
        let old = entry.decode();
        check_preconditions(kind.resource, &old, options)?;
        let now = self.now();
        let place = (&*entry.namespace, &*entry.name);
        let dry = options.dry_run || call.options.dry_run;
        let on_its_way = |answer| {
            Some(Deleted {
                answer,
                is_object: true,
                gone: false,
            })
        };
        match plan(kind, &old, options, now) {
            Plan::Leave => Ok(on_its_way(entry.bytes().clone())),
            Plan::Mark(v) if dry => Ok(on_its_way(shown(v, entry.revision))),
            Plan::Mark(v) => Ok(self
                .put(&kind.cache, place, stored::encode(&v), entry.revision)
                .await?
                .and_then(on_its_way)),
            Plan::Remove(v) => {
                if !dry {
                    let mut revision = entry.revision;
                    if is_marked_now(&v, &old) {
                        // Watchers see that it is being deleted before they see that it is gone.
                        let marked = self
                            .put_at(&kind.cache, place, stored::encode(&v), revision)
                            .await?;
                        let Some(at) = marked else { return Ok(None) };
                        revision = at;
                    }
                    if !self.remove(&kind.cache, place, revision).await? {
                        return Ok(None);
                    }
                }
                let is_object = kind.traits.returns_deleted;
                let answer = if is_object {
                    shown(v, entry.revision)
                } else {
                    success(kind.resource, &old)
                };
                Ok(Some(Deleted {
                    answer,
                    is_object,
                    gone: true,
                }))
            }
        }
    }

    /// Deletes what matches; the answer is what was there before, in key order.
    pub(crate) async fn delete_collection(
        &self,
        kind: &Kind,
        namespace: &str,
        mut what: ListOptions,
        options: &DeleteOptions,
        call: &Call<'_>,
    ) -> Result<List, ApiError> {
        // Upstream lists page by page whatever limit was asked for, and a page of a stated revision is exact.
        what.limit = 0;
        if what.matching == Match::Unset && what.revision.is_some_and(|r| r > 0) {
            what.matching = Match::Exact;
        }
        warn_of_orphans(kind, options, call);
        let all = self.list(kind, namespace, &what).await?;
        for entry in &all.entries {
            self.delete_one_of_many(kind, entry, options, call).await?;
        }
        Ok(all)
    }

    async fn delete_one_of_many(
        &self,
        kind: &Kind,
        entry: &std::sync::Arc<Entry>,
        options: &DeleteOptions,
        call: &Call<'_>,
    ) -> Result<(), ApiError> {
        let mut entry = entry.clone();
        for _ in 0..CONFLICT_RETRIES_MAX {
            if self
                .delete_entry(kind, &entry, options, call)
                .await?
                .is_some()
            {
                return Ok(());
            }
            self.catch_up().await?;
            match kind.cache.get(&entry.namespace, &entry.name) {
                Some(e) => entry = e,
                None => return Ok(()),
            }
        }
        Err(ApiError::conflict(kind.resource, &entry.name, MODIFIED))
    }
}

/// Warns who deletes a job without a word about its pods: the oldest of defaults keeps them.
fn warn_of_orphans(kind: &Kind, options: &DeleteOptions, call: &Call<'_>) {
    let silent = options.propagation.is_none() && options.orphan_dependents.is_none();
    if silent && kind.traits.orphans_by_default && kind.resource.plural == "jobs" {
        call.warn(vec![ORPHANED_PODS_WARNING.into()]);
    }
}

/// The `Status` of a deletion.
fn success(r: &Resource, old: &Value) -> bytes::Bytes {
    let mut details = json!({"name": object::name(old), "kind": r.plural, "uid": object::uid(old)});
    if !r.group.is_empty() {
        details["group"] = r.group.into();
    }
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
    status.to_string().into()
}

fn check_preconditions(r: &Resource, old: &Value, options: &DeleteOptions) -> Result<(), ApiError> {
    // Upstream names the kind here, not the resource.
    let conflict = |why: String| {
        let shown = if r.group.is_empty() {
            r.kind.to_owned()
        } else {
            format!("{}.{}", r.kind, r.group)
        };
        let mut e = ApiError::conflict(r, object::name(old), &why);
        e.0.message = format!(
            "Operation cannot be fulfilled on {shown} {:?}: {why}",
            object::name(old)
        );
        e.0.kind = if r.plural == "namespaces" {
            r.plural
        } else {
            r.kind
        }
        .into();
        Err(e)
    };
    let (uid, revision) = (
        object::uid(old),
        object::text(old, &["metadata", "resourceVersion"]),
    );
    match (&options.uid, &options.resource_version) {
        (Some(wanted), _) if wanted != uid => conflict(format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
        )),
        (_, Some(wanted)) if wanted != revision => conflict(format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({revision}). The object might have been modified"
        )),
        _ => Ok(()),
    }
}

fn plan(kind: &Kind, old: &Value, options: &DeleteOptions, now: jiff::Timestamp) -> Plan {
    let mut v = without_revision(old);
    if kind.resource.plural == "namespaces" && kind.resource.group.is_empty() {
        return super::namespaces::plan_deletion(v, options, now).map_or(
            Plan::Leave,
            |(v, gone)| {
                if gone { Plan::Remove(v) } else { Plan::Mark(v) }
            },
        );
    }
    let deleting = object::get(old, &["metadata", "deletionTimestamp"]).is_some();
    let grace = kind
        .strategy
        .deletion_grace_seconds(old, options.grace_period_seconds);
    if let (true, Some(grace)) = (deleting, grace) {
        // A deletion that is under way can only be shortened.
        let current = object::int(old, &["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0);
        if options
            .grace_period_seconds
            .is_none_or(|asked| asked >= current || grace >= current)
            && current > 0
        {
            return Plan::Leave;
        }
    }
    let finalizers = if kind.traits.no_garbage_collection {
        finalizers(old, &DeleteOptions::default(), false)
    } else {
        finalizers(old, options, kind.traits.orphans_by_default)
    };
    let held = !finalizers.is_empty();
    let meta = metadata::of(&mut v);
    if held {
        meta.insert("finalizers".into(), json!(finalizers));
    } else {
        meta.remove("finalizers");
    }
    let graceful = grace.unwrap_or(0);
    if grace.is_some() || held {
        mark(&mut v, graceful, now, deleting);
    }
    if graceful > 0 || held {
        return if without_revision(old) == v {
            Plan::Leave
        } else {
            Plan::Mark(v)
        };
    }
    Plan::Remove(v)
}

/// Marks an object as being deleted.
pub(super) fn mark(v: &mut Value, grace_seconds: i64, now: jiff::Timestamp, again: bool) {
    let meta = metadata::of(v);
    let due = now + jiff::SignedDuration::from_secs(grace_seconds);
    if !again
        || meta
            .get("deletionGracePeriodSeconds")
            .and_then(Value::as_i64)
            .is_some_and(|g| g > grace_seconds)
    {
        meta.insert("deletionTimestamp".into(), object::time_text(due).into());
        if let Some(g) = meta
            .get("generation")
            .and_then(Value::as_i64)
            .filter(|g| *g > 0 && !again)
        {
            meta.insert("generation".into(), (g + 1).into());
        }
    }
    meta.insert("deletionGracePeriodSeconds".into(), grace_seconds.into());
}

/// Whether this deletion has changed what the object says of its deletion.
fn is_marked_now(new: &Value, old: &Value) -> bool {
    let marks = |v: &Value| {
        ["deletionTimestamp", "deletionGracePeriodSeconds"]
            .map(|k| object::get(v, &["metadata", k]).cloned())
    };
    marks(new) != marks(old)
}

/// The finalizers that remain, and those that the propagation asks for.
fn finalizers(old: &Value, options: &DeleteOptions, orphans: bool) -> Vec<String> {
    let present: Vec<&str> = object::list(old, &["metadata", "finalizers"])
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let asked = match (options.propagation, options.orphan_dependents) {
        (Some(p), _) => Some(p),
        (None, Some(true)) => Some(Propagation::Orphan),
        (None, Some(false)) => Some(Propagation::Background),
        (None, None) if orphans && !present.contains(&FOREGROUND) => Some(Propagation::Orphan),
        (None, None) => None,
    };
    let mut out: Vec<String> = present
        .iter()
        .filter(|f| asked.is_none() || (**f != ORPHAN && **f != FOREGROUND))
        .map(|f| (*f).to_owned())
        .collect();
    match asked {
        Some(Propagation::Orphan) => out.push(ORPHAN.into()),
        Some(Propagation::Foreground) => out.push(FOREGROUND.into()),
        Some(Propagation::Background) | None => {}
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn propagation_adds_and_replaces_finalizers() {
        let old = json!({"metadata": {"finalizers": ["a/b", "orphan"]}});
        let with = |p| {
            finalizers(
                &old,
                &DeleteOptions {
                    propagation: p,
                    ..DeleteOptions::default()
                },
                false,
            )
        };
        assert_eq!(with(None), ["a/b", "orphan"]);
        assert_eq!(
            with(Some(Propagation::Foreground)),
            ["a/b", "foregroundDeletion"]
        );
        assert_eq!(with(Some(Propagation::Background)), ["a/b"]);
    }

    #[test]
    fn a_mark_counts_the_generation_once() {
        let mut v = json!({"metadata": {"generation": 1}});
        let now = jiff::Timestamp::from_second(0).expect("epoch");
        mark(&mut v, 30, now, false);
        assert_eq!(
            v["metadata"],
            json!({"generation": 2, "deletionTimestamp": "1970-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30})
        );
        mark(&mut v, 5, now, true);
        assert_eq!(
            v["metadata"],
            json!({"generation": 2, "deletionTimestamp": "1970-01-01T00:00:05Z", "deletionGracePeriodSeconds": 5})
        );
    }
}
