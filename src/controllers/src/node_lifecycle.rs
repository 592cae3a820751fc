//! Node lifecycle: a node that says nothing becomes Unknown, conditions become taints, and pods leave nodes whose
//! `NoExecute` taints they do not (or no longer) tolerate.
//!
//! Follows kube-controller-manager's node-lifecycle-controller and taint-eviction-controller.

mod evict;
mod plan;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use kontiki_api::catalogue::known;
use kontiki_api::object;
use kontiki_base::Clock;
use kontiki_reconcile::{
    Cache, CallError, Client, Event, ObjectRef, Outcome, PatchKind, Queue, Reconcile, Recorder,
    Selection, run,
};
use parking_lot::Mutex;
use serde_json::json;

use crate::context::{Context, precondition};
use crate::views::{Lease, Node, Pod};

pub use evict::{Eviction, evictions};
pub use plan::{Patches, plan};

/// The namespace of the leases that nodes renew.
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// How long a node may say nothing (kube-controller-manager's `--node-monitor-grace-period`, its older default).
pub const GRACE_PERIOD: Duration = Duration::from_secs(40);
/// How often a node that is well is looked at (`--node-monitor-period`).
const MONITOR_INTERVAL: Duration = Duration::from_secs(5);
const WORKERS: usize = 2;
/// The index of pods by node.
const BY_NODE: &str = "node";

struct NodeLifecycle {
    nodes: Cache<Node>,
    leases: Cache<Lease>,
    pods: Cache<Pod>,
    client: Client,
    recorder: Recorder,
    clock: Arc<dyn Clock>,
    /// What each node said last, and when we heard it by our own clock: the clocks of nodes are not trusted.
    heard: Mutex<HashMap<String, Heard>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Heard {
    said: String,
    at: Timestamp,
}

/// Starts the loop.
pub fn start(context: &Context) {
    let (nodes, pods) = (
        context.cache::<Node>(known::nodes()),
        context.cache::<Pod>(known::pods()),
    );
    let leases = context.selected::<Lease>(
        known::leases(),
        Selection {
            namespace: LEASE_NAMESPACE.into(),
            ..Selection::default()
        },
    );
    pods.add_index(BY_NODE, |p| vec![p.node_name.clone()]);
    let queue: Queue<String> = Queue::default();
    let q = queue.clone();
    nodes.on_event(move |e| q.add(e.object().metadata.name.clone()));
    let q = queue.clone();
    pods.on_event(move |e| {
        let pod = e.object();
        // Only a pod that comes to a node can have to leave it at once.
        if !matches!(e, Event::Deleted(_)) && !pod.node_name.is_empty() && pod.is_active() {
            q.add(pod.node_name.clone());
        }
    });
    let what = NodeLifecycle {
        nodes,
        leases,
        pods,
        client: context.client("node-lifecycle-controller"),
        recorder: context.recorder("node-controller"),
        clock: context.clock.clone(),
        heard: Mutex::default(),
    };
    run(&context.tasks, &queue, WORKERS, Arc::new(what));
}

impl NodeLifecycle {
    /// How long ago the node said something, by our clock.
    fn silence(&self, node: &Node, now: Timestamp) -> Duration {
        let name = &node.metadata.name;
        let lease = self
            .leases
            .get(LEASE_NAMESPACE, name)
            .and_then(|l| l.spec.renew_time.clone());
        let beat = node
            .condition("Ready")
            .and_then(|c| c.last_heartbeat_time.clone());
        let said = format!("{} {}", lease.unwrap_or_default(), beat.unwrap_or_default());
        let mut heard = self.heard.lock();
        let last = heard.entry(name.clone()).or_insert_with(|| Heard {
            said: String::new(),
            at: now,
        });
        if last.said != said {
            *last = Heard { said, at: now };
        }
        Duration::try_from(now.duration_since(last.at)).unwrap_or_default()
    }

    async fn write(&self, node: &Node, patches: &Patches) -> Result<(), CallError> {
        let name = &node.metadata.name;
        if let Some(conditions) = &patches.conditions {
            let about = ObjectRef::new(known::nodes(), &node.metadata);
            let message = format!("Node {name} status is now: NodeNotReady");
            self.recorder.normal(about, "NodeNotReady", &message);
            let patch = json!({"metadata": precondition(&node.metadata), "status": {"conditions": conditions}});
            self.client
                .patch(
                    known::nodes(),
                    ("", name),
                    "status",
                    PatchKind::Merge,
                    &patch,
                )
                .await?;
            // The write has changed the revision: the taints follow with the event that it causes.
            return Ok(());
        }
        if let Some(taints) = &patches.taints {
            let patch =
                json!({"metadata": precondition(&node.metadata), "spec": {"taints": taints}});
            self.client
                .patch(known::nodes(), ("", name), "", PatchKind::Merge, &patch)
                .await?;
        }
        Ok(())
    }

    /// Takes `Ready` from the pods of a node that is not ready, so that Services leave them out.
    async fn mark_pods(&self, pods: &[Arc<Pod>], now: &str) -> Result<(), CallError> {
        for pod in pods.iter().filter(|p| p.ready) {
            let m = &pod.metadata;
            let patch = json!({"metadata": {"uid": m.uid}, "status": {"conditions": [
                {"type": "Ready", "status": "False", "reason": "NodeNotReady", "lastTransitionTime": now},
            ]}});
            let written = self
                .client
                .patch(
                    known::pods(),
                    (&m.namespace, &m.name),
                    "status",
                    PatchKind::Strategic,
                    &patch,
                )
                .await;
            ignore_gone(written.map(drop))?;
        }
        Ok(())
    }
}

fn ignore_gone(result: Result<(), CallError>) -> Result<(), CallError> {
    match result {
        Err(e) if e.is_not_found() => Ok(()),
        other => other,
    }
}

#[async_trait]
impl Reconcile<String> for NodeLifecycle {
    fn name(&self) -> &'static str {
        "node-lifecycle"
    }

    async fn reconcile(&self, name: &String) -> Result<Outcome, CallError> {
        tokio::join!(
            self.nodes.synced(),
            self.leases.synced(),
            self.pods.synced()
        );
        let Some(node) = self.nodes.get("", name) else {
            self.heard.lock().remove(name);
            return Ok(Outcome::Done);
        };
        let now = self.clock.now();
        let now_text = object::time_text(now);
        let silence = self.silence(&node, now);
        ignore_gone(
            self.write(&node, &plan(&node, silence, GRACE_PERIOD, &now_text))
                .await,
        )?;

        let pods = self.pods.by_index(BY_NODE, name);
        let ready = node.condition("Ready").is_some_and(|c| c.status == "True");
        if !ready && node.condition("Ready").is_some() {
            self.mark_pods(&pods, &now_text).await?;
        }
        let (due, next) = evictions(&node.spec.taints, &pods, now);
        for pod in due {
            let about = ObjectRef::new(known::pods(), &pod.metadata);
            let message = format!("Marking for deletion Pod {}", pod.metadata.key());
            self.recorder
                .normal(about, "TaintManagerEviction", &message);
            evict::delete(&self.client, &pod).await?;
        }
        Ok(Outcome::After(
            next.map_or(MONITOR_INTERVAL, |n| n.min(MONITOR_INTERVAL)),
        ))
    }
}
