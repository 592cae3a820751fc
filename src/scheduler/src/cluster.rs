//! [`Cluster`]: nodes with the pods on them, kept up to date change by change.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::node::Node;
use crate::pod::Pod;
use crate::resources::Resources;

/// A node and what is on it.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    /// The node; `None` while only pods on it are known.
    pub node: Option<Arc<Node>>,
    /// The pods on it, those assumed there included.
    pub pods: Vec<Arc<Pod>>,
    /// What they take.
    pub requested: Resources,
    /// What they count for in scores: CPU in thousandths.
    pub score_milli_cpu: i64,
    /// What they count for in scores: bytes of memory.
    pub score_memory_bytes: i64,
}

impl NodeInfo {
    /// Puts a pod on the node.
    pub fn add(&mut self, pod: Arc<Pod>) {
        self.requested.add(&pod.spec.request);
        self.score_milli_cpu += pod.spec.score_milli_cpu;
        self.score_memory_bytes += pod.spec.score_memory_bytes;
        self.pods.push(pod);
    }

    /// Takes a pod off the node.
    pub fn remove(&mut self, uid: &str) {
        if let Some(at) = self.pods.iter().position(|p| p.metadata.uid == uid) {
            let pod = self.pods.swap_remove(at);
            self.requested.subtract(&pod.spec.request);
            self.score_milli_cpu -= pod.spec.score_milli_cpu;
            self.score_memory_bytes -= pod.spec.score_memory_bytes;
        }
    }
}

/// Nodes and the pods on them.
#[derive(Debug, Default)]
pub struct Cluster {
    nodes: BTreeMap<String, NodeInfo>,
    /// Where each pod is, by uid.
    placed: HashMap<String, String>,
    /// Labels of the namespaces.
    namespaces: HashMap<String, BTreeMap<String, String>>,
    /// How many pods on nodes have required anti-affinity; while there are none, nobody needs to look for them.
    anti_affinity_pods: usize,
}

impl Cluster {
    /// The nodes that are there, by name.
    pub fn nodes(&self) -> impl Iterator<Item = (&Node, &NodeInfo)> {
        self.nodes
            .values()
            .filter_map(|i| Some((&**i.node.as_ref()?, i)))
    }

    /// The node of this name with what is on it.
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.nodes.get(name)
    }

    /// Takes in a node.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let info = self.nodes.entry(node.metadata.name.clone()).or_default();
        info.node = Some(node);
    }

    /// Forgets a node; pods on it stay known until they go.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(info) = self.nodes.get_mut(name) {
            info.node = None;
            if info.pods.is_empty() {
                self.nodes.remove(name);
            }
        }
    }

    /// Takes in a pod that is on a node (or assumed there) and not over.
    pub fn place(&mut self, pod: Arc<Pod>, node: &str) {
        self.displace(&pod.metadata.uid);
        self.anti_affinity_pods += usize::from(has_anti_affinity(&pod));
        self.placed
            .insert(pod.metadata.uid.clone(), node.to_owned());
        self.nodes.entry(node.to_owned()).or_default().add(pod);
    }

    /// Takes a pod off its node. Tells whether it was on one.
    pub fn displace(&mut self, uid: &str) -> bool {
        let Some(node) = self.placed.remove(uid) else {
            return false;
        };
        if let Some(info) = self.nodes.get_mut(&node) {
            let pod = info.pods.iter().find(|p| p.metadata.uid == uid);
            self.anti_affinity_pods -= usize::from(pod.is_some_and(|p| has_anti_affinity(p)));
            info.remove(uid);
            if info.pods.is_empty() && info.node.is_none() {
                self.nodes.remove(&node);
            }
        }
        true
    }

    /// Where the pod is.
    pub fn place_of(&self, uid: &str) -> Option<&str> {
        self.placed.get(uid).map(String::as_str)
    }

    /// Whether a pod on a node has required anti-affinity.
    pub fn has_anti_affinity(&self) -> bool {
        self.anti_affinity_pods > 0
    }

    /// Takes in the labels of a namespace, or that it is gone.
    pub fn set_namespace(&mut self, name: &str, labels: Option<BTreeMap<String, String>>) {
        match labels {
            Some(labels) => self.namespaces.insert(name.to_owned(), labels),
            None => self.namespaces.remove(name),
        };
    }

    /// The labels of a namespace.
    pub fn namespace_labels(&self, name: &str) -> Option<&BTreeMap<String, String>> {
        self.namespaces.get(name)
    }
}

fn has_anti_affinity(pod: &Pod) -> bool {
    !pod.spec.affinity.pod_anti_affinity.required.is_empty()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pod(uid: usize, milli_cpu: i64) -> Arc<Pod> {
        let mut p = Pod::default();
        p.metadata.uid = uid.to_string();
        p.spec.request.milli_cpu = milli_cpu;
        p.spec.score_milli_cpu = milli_cpu;
        Arc::new(p)
    }

    proptest! {
        /// However pods come, move and go, each node's sum is that of the pods that are on it.
        #[test]
        fn sums_follow_the_pods(steps in prop::collection::vec((0_usize..6, 0_usize..4, 0_i64..1000), 0..60)) {
            let mut cluster = Cluster::default();
            let mut want: HashMap<usize, (usize, i64)> = HashMap::new();
            for (uid, node, milli_cpu) in steps {
                if node == 3 {
                    prop_assert_eq!(cluster.displace(&uid.to_string()), want.remove(&uid).is_some());
                } else {
                    cluster.place(pod(uid, milli_cpu), &node.to_string());
                    want.insert(uid, (node, milli_cpu));
                }
                for node in 0..3 {
                    let sum: i64 = want.values().filter(|(n, _)| *n == node).map(|(_, m)| m).sum();
                    let have = cluster.node(&node.to_string()).map_or(0, |i| i.requested.milli_cpu);
                    prop_assert_eq!(have, sum);
                }
            }
        }
    }
}
