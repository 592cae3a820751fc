//! The rules that say where a pod can go and where it had better go, one file each, named as upstream names them.
//!
//! A filter looks at one node; what it needs to know of the others is counted once per pod by its `Counts`.

pub mod inter_pod_affinity;
pub mod node_affinity;
pub mod node_name;
pub mod node_ports;
pub mod node_resources_balanced_allocation;
pub mod node_resources_fit;
pub mod node_unschedulable;
pub mod pod_topology_spread;
pub mod taint_toleration;

use crate::cluster::{Cluster, NodeInfo};
use crate::node::Node;
use crate::pod::Pod;

/// The best that a plugin can say of a node.
pub const SCORE_MAX: i64 = 100;

/// A plugin that can reject a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the plugins are upstream's")]
pub enum Plugin {
    NodeUnschedulable,
    NodeName,
    TaintToleration,
    NodeAffinity,
    NodePorts,
    NodeResourcesFit,
    PodTopologySpread,
    InterPodAffinity,
}

/// Why a pod cannot go to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Who says so.
    pub plugin: Plugin,
    /// Why, in upstream's words.
    pub reasons: Vec<String>,
    /// Whether it could if there were fewer pods on the node.
    pub helped_by_preemption: bool,
}

impl Rejection {
    /// A rejection that fewer pods on the node would lift.
    pub fn crowded(plugin: Plugin, reason: &str) -> Rejection {
        Rejection {
            plugin,
            reasons: vec![reason.to_owned()],
            helped_by_preemption: true,
        }
    }

    /// A rejection that has nothing to do with the pods on the node.
    pub fn lasting(plugin: Plugin, reason: &str) -> Rejection {
        Rejection {
            plugin,
            reasons: vec![reason.to_owned()],
            helped_by_preemption: false,
        }
    }
}

/// What the plugins have counted over all nodes for one pod.
#[derive(Debug)]
pub struct Counts {
    spread: pod_topology_spread::Counts,
    affinity: inter_pod_affinity::Counts,
}

impl Counts {
    /// Counts for this pod.
    pub fn new(pod: &Pod, cluster: &Cluster) -> Counts {
        Counts {
            spread: pod_topology_spread::Counts::new(pod, cluster),
            affinity: inter_pod_affinity::Counts::new(pod, cluster),
        }
    }

    /// Asks every filter, in upstream's order; the first that rejects has the word.
    pub fn filter(&self, pod: &Pod, node: &Node, info: &NodeInfo) -> Result<(), Rejection> {
        node_unschedulable::filter(pod, node)?;
        node_name::filter(pod, node)?;
        taint_toleration::filter(pod, node)?;
        node_affinity::filter(pod, node)?;
        node_ports::filter(pod, info)?;
        node_resources_fit::filter(pod, node, info)?;
        self.spread.filter(node)?;
        self.affinity.filter(pod, node)
    }

    /// Scores the nodes that passed: the weighted sum of what each plugin says, upstream's weights.
    pub fn score(&self, pod: &Pod, nodes: &[(&Node, &NodeInfo)]) -> Vec<i64> {
        let mut total = vec![0; nodes.len()];
        let mut add = |weight: i64, scores: Vec<i64>| {
            for (sum, s) in total.iter_mut().zip(scores) {
                *sum += weight * s;
            }
        };
        let each = |score: &dyn Fn(&Node, &NodeInfo) -> i64| -> Vec<i64> {
            nodes.iter().map(|(n, i)| score(n, i)).collect()
        };
        add(1, each(&|n, i| node_resources_fit::score(pod, n, i)));
        add(
            1,
            each(&|n, i| node_resources_balanced_allocation::score(pod, n, i)),
        );
        add(3, reversed(each(&|n, _| taint_toleration::score(pod, n))));
        add(2, scaled(each(&|n, _| node_affinity::score(pod, n))));
        add(2, self.spread.score(nodes));
        add(2, self.affinity.score(nodes));
        total
    }
}

/// Scales scores so that the best has [`SCORE_MAX`].
fn scaled(scores: Vec<i64>) -> Vec<i64> {
    let most = scores.iter().copied().max().unwrap_or(0);
    if most <= 0 {
        return scores;
    }
    scores.into_iter().map(|s| s * SCORE_MAX / most).collect()
}

/// Scales scores so that the least has [`SCORE_MAX`] if it is nothing, and the most has nothing.
fn reversed(scores: Vec<i64>) -> Vec<i64> {
    let most = scores.iter().copied().max().unwrap_or(0);
    if most == 0 {
        return vec![SCORE_MAX; scores.len()];
    }
    scores
        .into_iter()
        .map(|s| SCORE_MAX - s * SCORE_MAX / most)
        .collect()
}

#[cfg(test)]
pub(crate) mod testing {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::{Cluster, Node, NodeInfo, Pod};

    /// A pod of namespace `ns` with this name, these labels and this spec; its uid is its name.
    pub(crate) fn pod(name: &str, labels: &Value, spec: &Value) -> Pod {
        let metadata = json!({"namespace": "ns", "name": name, "uid": name, "labels": labels});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a pod")
    }

    /// A node with these labels and spec, of 4 CPUs, 8 GiB and 110 pods.
    pub(crate) fn node(name: &str, labels: &Value, spec: &Value) -> Node {
        let allocatable = json!({"cpu": "4", "memory": "8Gi", "pods": "110"});
        serde_json::from_value(json!({
            "metadata": {"name": name, "labels": labels}, "spec": spec, "status": {"allocatable": allocatable}
        }))
        .expect("a node")
    }

    /// A cluster of these nodes, with pods where they are said to be.
    pub(crate) fn cluster(nodes: Vec<Node>, pods: Vec<(Pod, &str)>) -> Cluster {
        let mut c = Cluster::default();
        for n in nodes {
            c.set_node(Arc::new(n));
        }
        for (p, n) in pods {
            c.place(Arc::new(p), n);
        }
        c
    }

    /// A node alone.
    pub(crate) fn empty(node: Node) -> (Node, NodeInfo) {
        let info = NodeInfo {
            node: Some(Arc::new(node.clone())),
            ..NodeInfo::default()
        };
        (node, info)
    }
}
