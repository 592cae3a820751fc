//! Nodes that say nothing any more: they are marked, and their pods go elsewhere.

mod plan;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kontiki_api::catalogue::known;
use kontiki_api::object;
use kontiki_reconcile::{
    Cache, CallError, Client, DeleteOptions, Event, ObjectRef, Outcome, PatchKind, Preconditions,
    Queue, Reconcile, Recorder, Selection, run,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::context::{Context, Key, key_of, precondition};
use crate::views::{Lease, Node, Pod};

pub use plan::{GRACE, Stay, silent, stay, taints};

const WORKERS: usize = 4;
/// How often a node is looked at.
const MONITOR_INTERVAL: Duration = Duration::from_secs(5);
/// Where nodes renew their leases.
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// The index of pods by node.
const BY_NODE: &str = "node";

/// The last sign of life of a node, and when we saw it. Its own clock does not count.
struct Sign {
    text: String,
    seen: Instant,
}

struct NodeLifecycle {
    nodes: Cache<Node>,
    leases: Cache<Lease>,
    pods: Cache<Pod>,
    client: Client,
    recorder: Recorder,
    context: Context,
    signs: Mutex<HashMap<String, Sign>>,
}

struct TaintEviction {
    nodes: Cache<Node>,
    pods: Cache<Pod>,
    client: Client,
    recorder: Recorder,
    context: Context,
}

/// Starts both loops: the one that marks nodes, and the one that drives pods from tainted nodes.
pub fn start(context: &Context) {
    let (nodes, pods) = (
        context.cache::<Node>(known::nodes()),
        context.cache::<Pod>(known::pods()),
    );
    let only = Selection {
        namespace: LEASE_NAMESPACE.into(),
        ..Selection::default()
    };
    let leases = context.selected::<Lease>(known::leases(), only);
    pods.add_index(BY_NODE, |p| {
        Some(p.node_name.clone())
            .filter(|n| !n.is_empty())
            .into_iter()
            .collect()
    });
    let queue: Queue<String> = Queue::default();
    let q = queue.clone();
    nodes.on_event(move |e| q.add(e.object().metadata.name.clone()));
    let lifecycle = NodeLifecycle {
        nodes: nodes.clone(),
        leases,
        pods: pods.clone(),
        client: context.client("node-lifecycle-controller"),
        recorder: context.recorder("node-controller"),
        context: context.clone(),
        signs: Mutex::default(),
    };
    run(&context.tasks, &queue, WORKERS, Arc::new(lifecycle));

    let evictions: Queue<Key> = Queue::default();
    let (q, p) = (evictions.clone(), pods.clone());
    nodes.on_event(move |e| {
        let changed = match e {
            Event::Updated { old, new } => old.spec.taints != new.spec.taints,
            Event::Added(n) => !n.spec.taints.is_empty(),
            Event::Deleted(_) => false,
        };
        if changed {
            for pod in p.by_index(BY_NODE, &e.object().metadata.name) {
                q.add(key_of(&pod.metadata));
            }
        }
    });
    let q = evictions.clone();
    pods.on_event(move |e| {
        let pod = e.object();
        let moved = match e {
            Event::Updated { old, new } => {
                old.node_name != new.node_name || old.tolerations != new.tolerations
            }
            Event::Added(_) => true,
            Event::Deleted(_) => false,
        };
        if moved && !pod.node_name.is_empty() {
            q.add(key_of(&pod.metadata));
        }
    });
    let eviction = TaintEviction {
        nodes,
        pods,
        client: context.client("taint-eviction-controller"),
        recorder: context.recorder("taint-eviction-controller"),
        context: context.clone(),
    };
    run(&context.tasks, &evictions, WORKERS, Arc::new(eviction));
}

#[async_trait]
impl Reconcile<String> for NodeLifecycle {
    fn name(&self) -> &'static str {
        "node-lifecycle"
    }

    async fn reconcile(&self, key: &String) -> Result<Outcome, CallError> {
        tokio::join!(
            self.nodes.synced(),
            self.leases.synced(),
            self.pods.synced()
        );
        let Some(mut node) = self.nodes.get("", key) else {
            self.signs.lock().remove(key);
            return Ok(Outcome::Done);
        };
        let now = self.context.clock.now();
        if self.silence(&node) > GRACE
            && let Some(conditions) = silent(&node, now)
        {
            let patch = json!({"metadata": precondition(&node.metadata), "status": {"conditions": conditions}});
            let answer = self
                .client
                .patch(
                    known::nodes(),
                    ("", key),
                    "status",
                    PatchKind::Merge,
                    &patch,
                )
                .await?;
            self.nodes.written(&answer);
            self.recorder.normal(
                ObjectRef::new(known::nodes(), &node.metadata),
                "NodeNotReady",
                format!("Node {key} status is now: NodeNotReady"),
            );
            tracing::warn!(
                node = key,
                silent_seconds = GRACE.as_secs(),
                "the node says nothing any more"
            );
            let Some(fresh) = self.nodes.get("", key) else {
                return Ok(Outcome::Done);
            };
            node = fresh;
        }
        let all_down = self.nodes.list().iter().all(|n| !is_ready(n));
        if let Some(taints) = taints(&node, all_down, now) {
            let patch =
                json!({"metadata": precondition(&node.metadata), "spec": {"taints": taints}});
            let answer = self
                .client
                .patch(known::nodes(), ("", key), "", PatchKind::Merge, &patch)
                .await?;
            self.nodes.written(&answer);
        }
        if !is_ready(&node) {
            self.mark_pods_not_ready(&node).await?;
        }
        Ok(Outcome::After(MONITOR_INTERVAL))
    }
}

fn is_ready(node: &Node) -> bool {
    node.condition("Ready").is_some_and(|c| c.status == "True")
}

impl NodeLifecycle {
    /// For how long a node has said nothing: neither through its lease nor through its status.
    fn silence(&self, node: &Node) -> Duration {
        let name = &node.metadata.name;
        let lease = self
            .leases
            .get(LEASE_NAMESPACE, name)
            .and_then(|l| l.spec.renew_time.clone());
        let heartbeat = node
            .condition("Ready")
            .and_then(|c| c.last_heartbeat_time.clone());
        let text = format!("{lease:?} {heartbeat:?}");
        let mut signs = self.signs.lock();
        let sign = signs.entry(name.clone()).or_insert_with(|| Sign {
            text: String::new(),
            seen: Instant::now(),
        });
        if sign.text != text {
            *sign = Sign {
                text,
                seen: Instant::now(),
            };
        }
        sign.seen.elapsed()
    }

    /// Pods of a node that is not ready are not ready: services must not lead to them.
    async fn mark_pods_not_ready(&self, node: &Node) -> Result<(), CallError> {
        for pod in self
            .pods
            .by_index(BY_NODE, &node.metadata.name)
            .iter()
            .filter(|p| p.ready)
        {
            let at = (pod.metadata.namespace.as_str(), pod.metadata.name.as_str());
            let fresh: Value = match self.client.get(known::pods(), at.0, at.1).await {
                Err(e) if e.is_not_found() => continue,
                other => other?,
            };
            let mut conditions = object::list(&fresh, &["status", "conditions"]).to_vec();
            let Some(c) = conditions
                .iter_mut()
                .find(|c| c["type"] == "Ready" && c["status"] == "True")
            else {
                continue;
            };
            c["status"] = "False".into();
            c["reason"] = "NodeNotReady".into();
            c["message"] = "Node is not ready".into();
            c["lastTransitionTime"] = object::time_text(self.context.clock.now()).into();
            let metadata = json!({"uid": object::uid(&fresh), "resourceVersion": fresh["metadata"]["resourceVersion"]});
            let patch = json!({"metadata": metadata, "status": {"conditions": conditions}});
            match self
                .client
                .patch(known::pods(), at, "status", PatchKind::Merge, &patch)
                .await
            {
                Ok(answer) => self.pods.written(&answer),
                Err(e) if e.is_not_found() => continue,
                Err(e) => return Err(e),
            }
            self.recorder.warning(
                ObjectRef::new(known::pods(), &pod.metadata),
                "NodeNotReady",
                "Node is not ready",
            );
        }
        Ok(())
    }
}

#[async_trait]
impl Reconcile<Key> for TaintEviction {
    fn name(&self) -> &'static str {
        "taint-eviction"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, CallError> {
        tokio::join!(self.nodes.synced(), self.pods.synced());
        let Some(pod) = self.pods.get(&key.0, &key.1).filter(|p| p.is_active()) else {
            return Ok(Outcome::Done);
        };
        let Some(node) = self.nodes.get("", &pod.node_name) else {
            return Ok(Outcome::Done);
        };
        match stay(&pod, &node.spec.taints, self.context.clock.now()) {
            Stay::Forever => Ok(Outcome::Done),
            Stay::For(time) => Ok(Outcome::After(time)),
            Stay::No => {
                let about = ObjectRef::new(known::pods(), &pod.metadata);
                self.recorder.normal(
                    about,
                    "TaintManagerEviction",
                    format!("Marking for deletion Pod {}/{}", key.0, key.1),
                );
                let preconditions = Some(Preconditions {
                    uid: Some(pod.metadata.uid.clone()),
                    resource_version: None,
                });
                let options = DeleteOptions {
                    preconditions,
                    ..DeleteOptions::default()
                };
                match self
                    .client
                    .delete(known::pods(), &key.0, &key.1, &options)
                    .await
                {
                    Err(e) if !e.is_not_found() => Err(e),
                    _ => Ok(Outcome::Done),
                }
            }
        }
    }
}
