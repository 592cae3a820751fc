//! Replica sets: as many pods as they ask for, not more and not fewer.

mod plan;

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;
use kontiki_api::catalogue::known;
use kontiki_api::{ObjectMeta, OwnerReference, object};
use kontiki_reconcile::{
    Cache, CallError, Client, DeleteOptions, Event, ObjectRef, Outcome, PatchKind, Preconditions,
    Queue, Reconcile, Recorder, run,
};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::conditions;
use crate::context::{Context, Key, key_of, precondition};
use crate::views::{Condition, Pod, ReplicaSet};

pub use plan::{Command, Observed, Plan, plan};

const WORKERS: usize = 5;
/// Pods that one look at a set makes or deletes at most.
pub const BURST_PODS_MAX: usize = 500;
/// The index of pods by the uid of their controller.
const BY_CONTROLLER: &str = "controller";
/// The index of pods that have no controller, by namespace.
const ORPHANS: &str = "orphans";

/// The loop.
struct ReplicaSets {
    sets: Cache<ReplicaSet>,
    pods: Cache<Pod>,
    client: Client,
    recorder: Recorder,
    context: Context,
    /// Pods whose deletion was asked for, and which the cache does not yet show as such.
    leaving: Arc<Mutex<HashSet<String>>>,
}

/// Indexes pods by controller; orphans by namespace.
pub(crate) fn index_pods(pods: &Cache<Pod>) {
    pods.add_index(BY_CONTROLLER, |p| {
        p.metadata
            .controller()
            .map(|o| o.uid.clone())
            .into_iter()
            .collect()
    });
    pods.add_index(ORPHANS, |p| {
        let orphan = p.metadata.controller().is_none();
        orphan
            .then(|| p.metadata.namespace.clone())
            .into_iter()
            .collect()
    });
}

/// The pods of a controller.
pub(crate) fn pods_of(pods: &Cache<Pod>, controller_uid: &str) -> Vec<Arc<Pod>> {
    pods.by_index(BY_CONTROLLER, controller_uid)
}

/// Starts the loop.
pub fn start(context: &Context) {
    let (sets, pods) = (
        context.cache::<ReplicaSet>(known::replicasets()),
        context.cache::<Pod>(known::pods()),
    );
    index_pods(&pods);
    let queue: Queue<Key> = Queue::default();
    let q = queue.clone();
    sets.on_event(move |e| q.add(key_of(&e.object().metadata)));
    let leaving: Arc<Mutex<HashSet<String>>> = Arc::default();
    let (q, s, l) = (queue.clone(), sets.clone(), leaving.clone());
    pods.on_event(move |e| {
        let pod = e.object();
        if pod.metadata.is_deleting() || matches!(e, Event::Deleted(_)) {
            l.lock().remove(&pod.metadata.uid);
        }
        if let Event::Updated { old, .. } = e {
            wake(&q, &s, old, false);
        }
        wake(&q, &s, pod, !matches!(e, Event::Deleted(_)));
    });
    let what = ReplicaSets {
        sets,
        pods,
        client: context.client("replicaset-controller"),
        recorder: context.recorder("replicaset-controller"),
        context: context.clone(),
        leaving,
    };
    run(&context.tasks, &queue, WORKERS, Arc::new(what));
}

/// Wakes the set that a pod belongs to or, if it belongs to none, those that it matches.
fn wake(queue: &Queue<Key>, sets: &Cache<ReplicaSet>, pod: &Pod, match_orphans: bool) {
    match pod.metadata.controller() {
        Some(o) if o.kind == "ReplicaSet" => {
            queue.add((pod.metadata.namespace.clone(), o.name.clone()));
        }
        Some(_) => {}
        None if match_orphans && !pod.metadata.labels.is_empty() => {
            for set in sets.in_namespace(&pod.metadata.namespace) {
                if set.selector().matches(&pod.metadata.labels) {
                    queue.add(key_of(&set.metadata));
                }
            }
        }
        None => {}
    }
}

#[async_trait]
impl Reconcile<Key> for ReplicaSets {
    fn name(&self) -> &'static str {
        "replicaset"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, CallError> {
        tokio::join!(self.sets.synced(), self.pods.synced());
        let Some(set) = self.sets.get(&key.0, &key.1) else {
            return Ok(Outcome::Done);
        };
        let own = pods_of(&self.pods, &set.metadata.uid);
        let orphans = self.pods.by_index(ORPHANS, &key.0);
        let siblings = self.siblings(&set);
        let plan = {
            let leaving = self.leaving.lock();
            let (own, orphans) = (&own[..], &orphans[..]);
            let observed = Observed {
                own,
                orphans,
                siblings: &siblings,
                leaving: &leaving,
            };
            plan(&set, &observed, self.context.clock.now())
        };
        let mut failure = None;
        for command in plan.commands {
            if let Err(e) = self.execute(&set, command).await {
                failure = Some(e);
                break;
            }
        }
        self.write_status(&set, failure.as_ref()).await?;
        match (failure, plan.look_again) {
            (Some(e), _) if !is_namespace_gone(&e) => Err(e),
            (_, Some(delay)) => Ok(Outcome::After(delay)),
            _ => Ok(Outcome::Done),
        }
    }
}

impl ReplicaSets {
    /// Pods of the other sets of the same deployment: they count when pods are taken from crowded nodes first.
    fn siblings(&self, set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let Some(owner) = set.metadata.controller() else {
            return Vec::new();
        };
        let sets = self.sets.in_namespace(&set.metadata.namespace);
        let related = sets.iter().filter(|s| {
            s.metadata.uid != set.metadata.uid
                && s.metadata.controller().is_some_and(|o| o.uid == owner.uid)
        });
        related
            .flat_map(|s| pods_of(&self.pods, &s.metadata.uid))
            .collect()
    }

    async fn execute(&self, set: &ReplicaSet, command: Command) -> Result<(), CallError> {
        match command {
            Command::Adopt(pod) => {
                // The cache may be behind the deletion of the set.
                let fresh: ReplicaSet = self
                    .client
                    .get(
                        known::replicasets(),
                        &set.metadata.namespace,
                        &set.metadata.name,
                    )
                    .await?;
                if fresh.metadata.uid != set.metadata.uid || fresh.metadata.is_deleting() {
                    return Ok(());
                }
                let mut owners = pod.metadata.owner_references.clone();
                owners.push(owner_reference(&set.metadata));
                self.set_owners(&pod, &owners).await
            }
            Command::Release(pod) => {
                let mut owners = pod.metadata.owner_references.clone();
                owners.retain(|o| o.uid != set.metadata.uid);
                self.set_owners(&pod, &owners).await
            }
            Command::Create(n) => self.create(set, n).await,
            Command::Delete(pods) => {
                let results = join_all(pods.iter().map(|p| self.delete(set, p))).await;
                results.into_iter().collect()
            }
        }
    }

    async fn set_owners(&self, pod: &Pod, owners: &[OwnerReference]) -> Result<(), CallError> {
        let mut metadata = precondition(&pod.metadata);
        metadata["ownerReferences"] = json!(owners);
        let at = (pod.metadata.namespace.as_str(), pod.metadata.name.as_str());
        let patch = json!({ "metadata": metadata });
        match self
            .client
            .patch(known::pods(), at, "", PatchKind::Merge, &patch)
            .await
        {
            Ok(answer) => {
                self.pods.written(&answer);
                Ok(())
            }
            Err(e) if e.is_not_found() => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Makes pods in batches of 1, 2, 4, …, so that what fails for the first is not tried for all.
    async fn create(&self, set: &ReplicaSet, n: usize) -> Result<(), CallError> {
        let pod = pod_from_template(&set.metadata, set.template());
        let (mut left, mut batch) = (n, 1);
        while left > 0 {
            let now = batch.min(left);
            let results = join_all((0..now).map(|_| {
                self.client
                    .create(known::pods(), &set.metadata.namespace, &pod)
            }))
            .await;
            for result in results {
                let about = ObjectRef::new(known::replicasets(), &set.metadata);
                match result {
                    Ok(answer) => {
                        self.pods.written(&answer);
                        self.recorder.normal(
                            about,
                            "SuccessfulCreate",
                            format!("Created pod: {}", object::name(&answer)),
                        );
                    }
                    Err(e) => {
                        if !is_namespace_gone(&e) {
                            self.recorder.warning(
                                about,
                                "FailedCreate",
                                format!("Error creating: {e}"),
                            );
                        }
                        return Err(e);
                    }
                }
            }
            left -= now;
            batch *= 2;
        }
        Ok(())
    }

    async fn delete(&self, set: &ReplicaSet, pod: &Pod) -> Result<(), CallError> {
        let m = &pod.metadata;
        let about = ObjectRef::new(known::replicasets(), &set.metadata);
        let preconditions = Some(Preconditions {
            uid: Some(m.uid.clone()),
            resource_version: None,
        });
        let options = DeleteOptions {
            preconditions,
            ..DeleteOptions::default()
        };
        self.leaving.lock().insert(m.uid.clone());
        match self
            .client
            .delete(known::pods(), &m.namespace, &m.name, &options)
            .await
        {
            Ok(()) => {
                self.recorder.normal(
                    about,
                    "SuccessfulDelete",
                    format!("Deleted pod: {}", m.name),
                );
                // If the watch was faster, nothing would take the mark away any more.
                let shown = self.pods.get(&m.namespace, &m.name);
                if shown.is_none_or(|p| p.metadata.is_deleting() || p.metadata.uid != m.uid) {
                    self.leaving.lock().remove(&m.uid);
                }
                Ok(())
            }
            Err(e) if e.is_not_found() => Ok(()),
            Err(e) => {
                self.leaving.lock().remove(&m.uid);
                self.recorder
                    .warning(about, "FailedDelete", format!("Error deleting: {e}"));
                Err(e)
            }
        }
    }

    async fn write_status(
        &self,
        set: &ReplicaSet,
        failure: Option<&CallError>,
    ) -> Result<(), CallError> {
        let (own, now) = (
            pods_of(&self.pods, &set.metadata.uid),
            self.context.clock.now(),
        );
        let mut status = plan::status(set, &own, &self.leaving.lock(), now);
        match failure {
            Some(e) => {
                let reason = if status.replicas > set.replicas() {
                    "FailedDelete"
                } else {
                    "FailedCreate"
                };
                let failed = Condition {
                    kind: "ReplicaFailure".into(),
                    status: "True".into(),
                    reason: reason.into(),
                    message: e.to_string(),
                    last_transition_time: Some(object::time_text(now)),
                    last_update_time: None,
                };
                conditions::set(&mut status.conditions, failed);
            }
            None => conditions::remove(&mut status.conditions, "ReplicaFailure"),
        }
        if status == set.status {
            return Ok(());
        }
        let patch = json!({"metadata": precondition(&set.metadata), "status": status});
        let at = (set.metadata.namespace.as_str(), set.metadata.name.as_str());
        match self
            .client
            .patch(known::replicasets(), at, "status", PatchKind::Merge, &patch)
            .await
        {
            Ok(answer) => {
                self.sets.written(&answer);
                Ok(())
            }
            // The change that it lost to brings the key again.
            Err(e) if e.is_not_found() || e.is_conflict() => Ok(()),
            Err(e) => Err(e),
        }
    }
}

/// Whether an object could not be made because its namespace is going away.
pub(crate) fn is_namespace_gone(e: &CallError) -> bool {
    e.refusal().is_some_and(|e| {
        e.0.causes
            .iter()
            .any(|c| c.reason == "NamespaceTerminating")
    })
}

/// A reference to a replica set as managing owner.
fn owner_reference(m: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: known::replicasets().api_version(),
        kind: known::replicasets().kind.to_owned(),
        name: m.name.clone(),
        uid: m.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// A pod made after a template, owned by the set.
fn pod_from_template(owner: &ObjectMeta, mut template: Value) -> Value {
    let mut metadata = json!({
        "generateName": format!("{}-", owner.name), "namespace": owner.namespace,
        "ownerReferences": [owner_reference(owner)],
    });
    for field in ["labels", "annotations", "finalizers"] {
        let value = template["metadata"][field].take();
        if !value.is_null() {
            metadata[field] = value;
        }
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"].take()})
}
