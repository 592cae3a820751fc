//! Namespaces that are going away: everything in them is deleted first.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use kontiki_api::catalogue::{self, known};
use kontiki_api::{Resource, object};
use kontiki_base::Backoff;
use kontiki_reconcile::{
    Cache, CallError, Client, DeleteOptions, ListParams, Outcome, PatchKind, Preconditions, Queue,
    Reconcile, run,
};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::conditions;
use crate::context::{Context, precondition};
use crate::views::{Condition, Meta, Namespace, Pod};

const WORKERS: usize = 2;
/// The finalizer that is ours to take away.
const FINALIZER: &str = "kubernetes";
/// How soon content that is still there is looked at again; it doubles with each look.
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(100);
/// How soon it is looked at again at the latest.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(15);

struct Namespaces {
    namespaces: Cache<Namespace>,
    client: Client,
    context: Context,
    /// For each namespace that waits for its content, when it is looked at next.
    waits: Mutex<HashMap<String, Backoff>>,
}

/// Starts the loop.
pub fn start(context: &Context) {
    let namespaces = context.cache::<Namespace>(known::namespaces());
    let queue: Queue<String> = Queue::default();
    let q = queue.clone();
    namespaces.on_event(move |e| {
        if e.object().metadata.is_deleting() {
            q.add(e.object().metadata.name.clone());
        }
    });
    let what = Namespaces {
        namespaces,
        client: context.client("namespace-controller"),
        context: context.clone(),
        waits: Mutex::default(),
    };
    run(&context.tasks, &queue, WORKERS, Arc::new(what));
}

/// The resources whose objects go with their namespace, pods last among equals so that their owners go first.
fn content() -> impl Iterator<Item = &'static Resource> {
    let deletable = |r: &&Resource| r.namespaced && r.has_verb("delete") && r.has_verb("list");
    // One version of each resource is enough: the stored object is the same.
    let first = |r: &&'static Resource| {
        catalogue::all()
            .iter()
            .find(|o| (o.group, o.plural) == (r.group, r.plural))
            .is_some_and(|o| std::ptr::eq(o, *r))
    };
    catalogue::all().iter().filter(deletable).filter(first)
}

/// What is left in a namespace after everything was asked to go.
#[derive(Debug, Default)]
pub struct Remains {
    /// What could not be deleted, and why.
    pub failures: Vec<String>,
    /// Resource (as in `pods.`) and number of what is still there.
    pub counts: Vec<(String, usize)>,
    /// Finalizer and number of objects that it holds.
    pub finalizers: Vec<(String, usize)>,
}

/// The conditions of a namespace that is going away.
pub fn plan(old: &[Condition], remains: &Remains, now: Timestamp) -> Vec<Condition> {
    let mut out = old.to_vec();
    let list = |of: &[(String, usize)], word: &str| {
        let parts = of
            .iter()
            .map(|(what, n)| format!("{what} {word} {n} resource instances"));
        parts.collect::<Vec<_>>().join(", ")
    };
    let failed = !remains.failures.is_empty();
    let (resources, finalizers) = (
        list(&remains.counts, "has"),
        list(&remains.finalizers, "in"),
    );
    let rows = [
        (
            "NamespaceDeletionDiscoveryFailure",
            false,
            "ResourcesDiscovered",
            "",
            String::new(),
            "All resources successfully discovered",
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            "ParsedGroupVersions",
            "",
            String::new(),
            "All legacy kube types successfully parsed",
        ),
        (
            "NamespaceDeletionContentFailure",
            failed,
            "ContentDeleted",
            "ContentDeletionFailed",
            format!(
                "Failed to delete all resource types, {} remaining: {}",
                remains.failures.len(),
                remains.failures.join(", ")
            ),
            "All content successfully deleted, may be waiting on finalization",
        ),
        (
            "NamespaceContentRemaining",
            !remains.counts.is_empty(),
            "ContentRemoved",
            "SomeResourcesRemain",
            format!("Some resources are remaining: {resources}"),
            "All content successfully removed",
        ),
        (
            "NamespaceFinalizersRemaining",
            !remains.finalizers.is_empty(),
            "ContentHasNoFinalizers",
            "SomeFinalizersRemain",
            format!("Some content in the namespace has finalizers remaining: {finalizers}"),
            "All content-preserving finalizers finished",
        ),
    ];
    for (kind, bad, good_reason, bad_reason, bad_text, good_text) in rows {
        let (status, reason, message) = if bad {
            ("True", bad_reason, bad_text)
        } else {
            ("False", good_reason, good_text.into())
        };
        let same = conditions::find(&out, kind)
            .is_some_and(|c| c.status == status && c.message == message);
        if !same {
            let since = conditions::find(&out, kind)
                .filter(|c| c.status == status)
                .and_then(|c| c.last_transition_time.clone());
            conditions::remove(&mut out, kind);
            out.push(Condition {
                kind: kind.into(),
                status: status.into(),
                reason: reason.into(),
                message,
                last_transition_time: since.or_else(|| Some(object::time_text(now))),
                last_update_time: None,
            });
        }
    }
    out
}

#[async_trait]
impl Reconcile<String> for Namespaces {
    fn name(&self) -> &'static str {
        "namespace"
    }

    async fn reconcile(&self, key: &String) -> Result<Outcome, CallError> {
        let Some(ns) = self
            .namespaces
            .get("", key)
            .filter(|n| n.metadata.is_deleting())
        else {
            self.waits.lock().remove(key);
            return Ok(Outcome::Done);
        };
        if !ns.spec.finalizers.iter().any(|f| f == FINALIZER) {
            return Ok(Outcome::Done);
        }
        let remains = self.empty(key).await;
        let conditions = plan(&ns.status.conditions, &remains, self.context.clock.now());
        let mut current = ns.metadata.clone();
        if conditions != ns.status.conditions {
            let patch =
                json!({"metadata": precondition(&current), "status": {"conditions": conditions}});
            match self
                .client
                .patch(
                    known::namespaces(),
                    ("", key),
                    "status",
                    PatchKind::Merge,
                    &patch,
                )
                .await
            {
                Ok(answer) => {
                    object::text(&answer, &["metadata", "resourceVersion"])
                        .clone_into(&mut current.resource_version);
                    self.namespaces.written(&answer);
                }
                Err(e) if e.is_not_found() => return Ok(Outcome::Done),
                Err(e) => return Err(e),
            }
        }
        if !remains.failures.is_empty() || !remains.counts.is_empty() {
            let mut waits = self.waits.lock();
            let fresh = || Backoff::new(LOOK_AGAIN_MIN, LOOK_AGAIN_MAX);
            let wait = waits.entry(key.clone()).or_insert_with(fresh);
            return Ok(Outcome::After(wait.next_delay()));
        }
        self.waits.lock().remove(key);
        let finalizers: Vec<&String> = ns
            .spec
            .finalizers
            .iter()
            .filter(|f| *f != FINALIZER)
            .collect();
        let body = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": key, "uid": current.uid, "resourceVersion": current.resource_version},
            "spec": {"finalizers": finalizers},
        });
        match self
            .client
            .update(known::namespaces(), ("", key), "finalize", &body)
            .await
        {
            Ok(_) => Ok(Outcome::Done),
            Err(e) if e.is_not_found() => Ok(Outcome::Done),
            Err(e) => Err(e),
        }
    }
}

impl Namespaces {
    /// Asks everything in a namespace to go, and tells what is still there.
    async fn empty(&self, namespace: &str) -> Remains {
        let mut remains = Remains::default();
        let mut finalizers = std::collections::BTreeMap::<String, usize>::new();
        for r in content() {
            let params = ListParams {
                namespace: namespace.to_owned(),
                ..ListParams::default()
            };
            let items: Vec<Value> = match self.client.list(r, params).await {
                Ok(items) => items,
                // A resource of the catalogue that this server does not serve has no content.
                Err(e) if e.is_not_found() => continue,
                Err(e) => {
                    remains
                        .failures
                        .push(format!("{}: {e}", r.group_resource()));
                    continue;
                }
            };
            let mut left = 0;
            for item in &items {
                let gone = self.delete(r, namespace, item, &mut remains.failures).await;
                if gone {
                    continue;
                }
                left += 1;
                for f in object::list(item, &["metadata", "finalizers"])
                    .iter()
                    .filter_map(Value::as_str)
                {
                    *finalizers.entry(f.to_owned()).or_default() += 1;
                }
            }
            if left > 0 {
                remains
                    .counts
                    .push((format!("{}.{}", r.plural, r.group), left));
            }
        }
        remains.finalizers = finalizers.into_iter().collect();
        remains
    }

    /// Asks one object to go. Tells whether it is gone at once.
    async fn delete(
        &self,
        r: &'static Resource,
        namespace: &str,
        item: &Value,
        failures: &mut Vec<String>,
    ) -> bool {
        let (name, uid) = (object::name(item), object::uid(item));
        let graceful = r.plural == "pods"
            && serde_json::from_value::<Pod>(item.clone()).is_ok_and(|p| !p.node_name.is_empty());
        let held = !object::list(item, &["metadata", "finalizers"]).is_empty();
        if serde_json::from_value::<Meta>(item.clone()).is_ok_and(|m| m.metadata.is_deleting()) {
            return false;
        }
        let preconditions = Some(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        });
        let options = DeleteOptions {
            preconditions,
            propagation_policy: Some("Background"),
            ..DeleteOptions::default()
        };
        match self.client.delete(r, namespace, name, &options).await {
            Ok(()) => !graceful && !held,
            Err(e) if e.is_not_found() => true,
            // Another object has taken the name: the next look finds it.
            Err(e) if e.is_conflict() => false,
            Err(e) => {
                failures.push(format!("{}: {e}", r.group_resource()));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_namespaced_is_content_once() {
        let names: Vec<_> = content().map(Resource::group_resource).collect();
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(names.len(), distinct.len());
        assert!(
            names.iter().any(|n| n == "deployments.apps") && !names.iter().any(|n| n == "nodes")
        );
    }

    #[test]
    fn conditions_say_what_is_left() {
        let now = Timestamp::from_second(100).expect("in range");
        let remains = Remains {
            counts: vec![("pods.".into(), 2)],
            finalizers: vec![("x/y".into(), 1)],
            ..Remains::default()
        };
        let c = plan(&[], &remains, now);
        let message =
            |k: &str| conditions::find(&c, k).map(|c| (c.status.as_str(), c.message.as_str()));
        assert_eq!(
            message("NamespaceContentRemaining"),
            Some((
                "True",
                "Some resources are remaining: pods. has 2 resource instances"
            ))
        );
        let want =
            "Some content in the namespace has finalizers remaining: x/y in 1 resource instances";
        assert_eq!(
            message("NamespaceFinalizersRemaining"),
            Some(("True", want))
        );
        assert_eq!(
            message("NamespaceDeletionContentFailure").map(|c| c.0),
            Some("False")
        );
        let later = plan(&c, &remains, Timestamp::from_second(200).expect("in range"));
        assert_eq!(later, c, "nothing changed");
    }
}
