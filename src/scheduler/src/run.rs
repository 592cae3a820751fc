//! The executor: feeds queue and cluster from the caches, binds, and tells what happened.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant as Stopwatch;

use kontiki_api::catalogue::known;
use kontiki_api::{ObjectMeta, object};
use kontiki_base::{CancellationToken, Clock, Tasks, chain};
use kontiki_reconcile::{Cache, CallError, Client, Event, ObjectRef, PatchKind, Recorder, View};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::decide::{Unfit, decide, tally};
use crate::metrics::SchedulerMetrics;
use crate::node::Node;
use crate::pod::Pod;
use crate::queue::{Help, Queue};

/// Bindings that are under way at a time; at the limit deciding waits.
const BINDINGS_MAX: usize = 64;

/// A namespace, for the selectors of pod affinity.
#[derive(Debug, Deserialize)]
pub(crate) struct Namespace {
    metadata: ObjectMeta,
}

impl View for Namespace {
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
}

#[derive(Default)]
struct State {
    cluster: Cluster,
    queue: Queue,
    turn: usize,
}

pub(crate) struct Runner {
    scheduler_name: String,
    state: Mutex<State>,
    changed: Notify,
    client: Client,
    recorder: Recorder,
    metrics: SchedulerMetrics,
    clock: Arc<dyn Clock>,
    bindings: Arc<Semaphore>,
}

impl Runner {
    pub(crate) fn new(
        scheduler_name: String,
        client: Client,
        recorder: Recorder,
        metrics: SchedulerMetrics,
        clock: Arc<dyn Clock>,
    ) -> Arc<Runner> {
        Arc::new(Runner {
            scheduler_name,
            state: Mutex::default(),
            changed: Notify::new(),
            client,
            recorder,
            metrics,
            clock,
            bindings: Arc::new(Semaphore::new(BINDINGS_MAX)),
        })
    }

    /// Lets the caches feed the state.
    pub(crate) fn listen(
        self: &Arc<Self>,
        pods: &Cache<Pod>,
        nodes: &Cache<Node>,
        namespaces: &Cache<Namespace>,
    ) {
        let me = self.clone();
        pods.on_event(move |e| me.pod_changed(e));
        let me = self.clone();
        nodes.on_event(move |e| me.node_changed(e));
        let me = self.clone();
        namespaces.on_event(move |e| {
            let m = &e.object().metadata;
            let labels = (!matches!(e, Event::Deleted(_))).then(|| m.labels.clone());
            me.state.lock().cluster.set_namespace(&m.name, labels);
        });
    }

    fn pod_changed(&self, event: &Event<Pod>) {
        let (pod, now) = (event.object(), Instant::now());
        let uid = &pod.metadata.uid;
        let mut guard = self.state.lock();
        let s = &mut *guard;
        if let Event::Updated { old, .. } = event
            && old.metadata.uid != *uid
        {
            // The watch skipped over a deletion: another pod of the same name.
            s.queue.remove(&old.metadata.uid);
            s.cluster.displace(&old.metadata.uid);
        }
        let gone = matches!(event, Event::Deleted(_)) || pod.terminated;
        if gone {
            s.queue.remove(uid);
            if s.cluster.displace(uid) {
                s.queue.happened(Help::PodGone, now);
            }
        } else if !pod.node_name.is_empty() {
            s.queue.remove(uid);
            let relabelled = matches!(event, Event::Updated { old, .. } if old.metadata.labels != pod.metadata.labels);
            let is_new = s.cluster.place_of(uid) != Some(pod.node_name.as_str());
            s.cluster.place(pod.clone(), &pod.node_name);
            if is_new || relabelled {
                s.queue.happened(Help::PodPlaced, now);
            }
        } else if pod.spec.scheduler_name == self.scheduler_name && !pod.metadata.is_deleting() {
            if s.cluster.place_of(uid).is_some() {
                // Its binding is under way; the watch shows it as it was before.
            } else if pod.spec.gates.is_empty() {
                s.queue.set(pod.clone(), now);
            } else {
                s.queue.remove(uid);
            }
        } else {
            s.queue.remove(uid);
        }
        drop(guard);
        self.changed.notify_one();
    }

    fn node_changed(&self, event: &Event<Node>) {
        let (node, now) = (event.object(), Instant::now());
        let mut s = self.state.lock();
        let helps = match event {
            Event::Added(_) => true,
            Event::Updated { old, new } => new.differs(old),
            Event::Deleted(_) => {
                s.cluster.remove_node(&node.metadata.name);
                return;
            }
        };
        s.cluster.set_node(node.clone());
        if helps {
            s.queue.happened(Help::Node, now);
            drop(s);
            self.changed.notify_one();
        }
    }

    /// Decides on pod after pod, until the token is cancelled.
    pub(crate) async fn run(self: Arc<Self>, tasks: Tasks, token: CancellationToken) {
        loop {
            let (pod, due) = {
                let mut s = self.state.lock();
                let pod = s.queue.pop(Instant::now());
                self.metrics.pending(s.queue.lengths());
                (pod, s.queue.next_due())
            };
            let Some(pod) = pod else {
                let wait = async {
                    match due {
                        Some(due) => tokio::time::sleep_until(due).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = token.cancelled() => return,
                    () = self.changed.notified() => {}
                    () = wait => {}
                }
                continue;
            };
            let permit = tokio::select! {
                () = token.cancelled() => return,
                permit = self.bindings.clone().acquire_owned() => permit.expect("the semaphore is never closed"),
            };
            let started = Stopwatch::now();
            let decided = self.decide_and_assume(&pod);
            let me = self.clone();
            tasks.spawn_transient(format!("bind-{}", pod.metadata.name), async move {
                let _permit = permit;
                match decided {
                    Ok(node) => me.bind(&pod, &node, started).await,
                    Err(unfit) => me.give_up(&pod, &unfit, started).await,
                }
            });
        }
    }

    /// Decides, and counts the pod as being on its node from then on, so that the next decision sees it.
    fn decide_and_assume(&self, pod: &Arc<Pod>) -> Result<String, Unfit> {
        let mut s = self.state.lock();
        s.turn = s.turn.wrapping_add(1);
        let node = decide(pod, &s.cluster, s.turn)?;
        s.cluster.place(pod.clone(), &node);
        Ok(node)
    }

    async fn bind(&self, pod: &Pod, node: &str, started: Stopwatch) {
        let m = &pod.metadata;
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": m.name, "namespace": m.namespace, "uid": m.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let at = (m.namespace.as_str(), m.name.as_str());
        match self
            .client
            .create_subresource(known::pods(), at, "binding", &binding)
            .await
        {
            Ok(_) => {
                self.metrics.attempt("scheduled", started.elapsed());
                let text = format!("Successfully assigned {} to {node}", m.key());
                self.recorder.action(
                    ObjectRef::new(known::pods(), m),
                    true,
                    "Scheduled",
                    "Binding",
                    text,
                );
                tracing::debug!(pod = m.key(), node, "bound");
            }
            Err(e) => {
                self.metrics.attempt("error", started.elapsed());
                let mut s = self.state.lock();
                s.cluster.displace(&m.uid);
                if e.is_not_found() {
                    s.queue.remove(&m.uid);
                } else {
                    // If it was bound all the same, the watch says so and takes it out of the queue.
                    tracing::warn!(pod = m.key(), node, error = chain(&e), "binding failed");
                    s.queue.failed(&m.uid, BTreeSet::new(), Instant::now());
                }
                drop(s);
                self.changed.notify_one();
            }
        }
    }

    async fn give_up(&self, pod: &Pod, unfit: &Unfit, started: Stopwatch) {
        self.metrics.attempt("unschedulable", started.elapsed());
        let message = unfit.message(&preemption_text(pod, unfit, &self.state.lock().cluster));
        tracing::debug!(pod = pod.metadata.key(), message, "no node for the pod");
        let mut plugins = unfit.plugins();
        if plugins.is_empty() {
            // Without any node there is nobody to reject the pod; what it waits for is a node.
            plugins.insert(crate::plugins::Plugin::NodeName);
        }
        self.state
            .lock()
            .queue
            .failed(&pod.metadata.uid, plugins, Instant::now());
        self.changed.notify_one();
        let about = ObjectRef::new(known::pods(), &pod.metadata);
        self.recorder.action(
            about,
            false,
            "FailedScheduling",
            "Scheduling",
            message.clone(),
        );
        if let Err(e) = self.tell_unschedulable(pod, &message).await {
            // The pod changed in the meantime; its next try tells again.
            tracing::debug!(
                pod = pod.metadata.key(),
                error = chain(&e),
                "the condition was not written"
            );
        }
    }

    async fn tell_unschedulable(&self, pod: &Pod, message: &str) -> Result<(), CallError> {
        let now = object::time_text(self.clock.now());
        let Some(conditions) = with_condition(&pod.conditions, message, &now) else {
            return Ok(());
        };
        let m = &pod.metadata;
        let patch = json!({
            "metadata": {"uid": m.uid, "resourceVersion": m.resource_version},
            "status": {"conditions": conditions},
        });
        let at = (m.namespace.as_str(), m.name.as_str());
        self.client
            .patch(known::pods(), at, "status", PatchKind::Merge, &patch)
            .await
            .map(drop)
    }
}

/// What is said about making room: that there is nobody to push out. Where there are pods of lower priority nothing is said,
/// as nobody is pushed out here.
fn preemption_text(pod: &Pod, unfit: &Unfit, cluster: &Cluster) -> String {
    let lower = |node: &str| {
        let pods = cluster
            .node(node)
            .map(|i| i.pods.as_slice())
            .unwrap_or_default();
        pods.iter().any(|p| p.spec.priority < pod.spec.priority)
    };
    let mut crowded = unfit
        .rejections
        .iter()
        .filter(|(_, r)| r.helped_by_preemption);
    if unfit.rejections.is_empty() || !pod.spec.may_preempt || crowded.any(|(node, _)| lower(node))
    {
        return String::new();
    }
    let words = unfit.rejections.values().map(|r| {
        if r.helped_by_preemption {
            "No preemption victims found for incoming pod"
        } else {
            "Preemption is not helpful for scheduling"
        }
    });
    tally(unfit.rejections.len(), words)
}

/// The conditions with `PodScheduled` false for this reason; `None` if they say so already.
fn with_condition(conditions: &[Value], message: &str, now: &str) -> Option<Vec<Value>> {
    let old = conditions.iter().find(|c| c["type"] == "PodScheduled");
    let says = |c: &Value| {
        c["status"] == "False" && c["reason"] == "Unschedulable" && c["message"] == message
    };
    if old.is_some_and(says) {
        return None;
    }
    let since = old
        .filter(|c| c["status"] == "False")
        .map(|c| c["lastTransitionTime"].clone());
    let mut condition = json!({
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
        "lastProbeTime": null, "lastTransitionTime": since.unwrap_or_else(|| now.into()),
    });
    if let Some(generation) = old.and_then(|c| c.get("observedGeneration")) {
        condition["observedGeneration"] = generation.clone();
    }
    let others = conditions
        .iter()
        .filter(|c| c["type"] != "PodScheduled")
        .cloned();
    Some(others.chain([condition]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_condition_is_written_once_and_keeps_its_time() {
        let one = with_condition(&[json!({"type": "Ready", "status": "False"})], "no", "t1")
            .expect("new");
        assert_eq!(one.len(), 2);
        assert!(with_condition(&one, "no", "t2").is_none());
        let two = with_condition(&one, "other", "t2").expect("another message");
        assert_eq!(
            (&two[1]["message"], &two[1]["lastTransitionTime"]),
            (&json!("other"), &json!("t1"))
        );
    }
}
