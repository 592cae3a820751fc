//! Node IPAM: each node gets a range of pod addresses of its own (`spec.podCIDR`) out of the cluster's.
//!
//! A range that a node has is never changed: the API forbids it, and the pods that use it would be cut off.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use async_trait::async_trait;
use kontiki_api::catalogue::known;
use kontiki_reconcile::{
    Cache, CallError, Client, Event, ObjectRef, Outcome, PatchKind, Queue, Reconcile, Recorder, run,
};
use parking_lot::Mutex;
use serde_json::json;

use crate::Config;
use crate::context::{Context, precondition};
use crate::views::Node;

/// The length of a node's prefix (kube-controller-manager's `--node-cidr-mask-size`).
pub const NODE_PREFIX_LENGTH: u8 = 24;
/// Ranges are given out one after the other: two at a time might be the same.
const WORKERS: usize = 1;

/// The range that nodes' ranges come out of: an IPv4 prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterRange {
    network: u32,
    prefix_length: u8,
}

impl ClusterRange {
    /// Reads `10.244.0.0/16`.
    ///
    /// Returns `None` if the text is no IPv4 prefix, or one that holds no node's range.
    pub fn parse(text: &str) -> Option<ClusterRange> {
        let (address, length) = text.split_once('/')?;
        let (address, prefix_length): (Ipv4Addr, u8) =
            (address.parse().ok()?, length.parse().ok()?);
        if prefix_length > NODE_PREFIX_LENGTH {
            return None;
        }
        let mask = u32::MAX
            .checked_shl(32 - u32::from(prefix_length))
            .unwrap_or(0);
        Some(ClusterRange {
            network: u32::from(address) & mask,
            prefix_length,
        })
    }

    /// The first range that nobody has.
    pub fn allocate(self, used: &BTreeSet<String>) -> Option<String> {
        let count = 1_u32 << (NODE_PREFIX_LENGTH - self.prefix_length).min(31);
        (0..count)
            .map(|i| {
                let address = Ipv4Addr::from(self.network + (i << (32 - NODE_PREFIX_LENGTH)));
                format!("{address}/{NODE_PREFIX_LENGTH}")
            })
            .find(|range| !used.contains(range))
    }
}

struct NodeIpam {
    nodes: Cache<Node>,
    range: ClusterRange,
    client: Client,
    recorder: Recorder,
    /// What was given out, by the node's uid, for as long as the cache may not show it.
    given: Mutex<BTreeMap<String, String>>,
}

/// Starts the loop. A cluster range that cannot be used is reported and the loop left out.
pub fn start(context: &Context, config: &Config) {
    let Some(range) = ClusterRange::parse(&config.cluster_cidr) else {
        tracing::error!(
            cidr = config.cluster_cidr,
            "the cluster's pod range holds no /{NODE_PREFIX_LENGTH}; nodes get no range"
        );
        return;
    };
    let nodes = context.cache::<Node>(known::nodes());
    let queue: Queue<String> = Queue::default();
    let q = queue.clone();
    nodes.on_event(move |e| {
        if !matches!(e, Event::Deleted(_)) && e.object().spec.pod_cidr.is_empty() {
            q.add(e.object().metadata.name.clone());
        }
    });
    let what = NodeIpam {
        nodes,
        range,
        client: context.client("node-ipam-controller"),
        recorder: context.recorder("node-ipam-controller"),
        given: Mutex::default(),
    };
    run(&context.tasks, &queue, WORKERS, Arc::new(what));
}

impl NodeIpam {
    /// The range for a node: what it was given before, or the first that is free.
    fn choose(&self, node: &Node) -> Option<String> {
        let nodes = self.nodes.list();
        let mut given = self.given.lock();
        given.retain(|uid, _| {
            nodes
                .iter()
                .any(|n| n.metadata.uid == *uid && n.spec.pod_cidr.is_empty())
        });
        if let Some(range) = given.get(&node.metadata.uid) {
            return Some(range.clone());
        }
        let used = nodes
            .iter()
            .map(|n| n.spec.pod_cidr.clone())
            .chain(given.values().cloned())
            .collect();
        let range = self.range.allocate(&used)?;
        given.insert(node.metadata.uid.clone(), range.clone());
        Some(range)
    }
}

#[async_trait]
impl Reconcile<String> for NodeIpam {
    fn name(&self) -> &'static str {
        "node-ipam"
    }

    async fn reconcile(&self, name: &String) -> Result<Outcome, CallError> {
        self.nodes.synced().await;
        let Some(node) = self
            .nodes
            .get("", name)
            .filter(|n| n.spec.pod_cidr.is_empty())
        else {
            return Ok(Outcome::Done);
        };
        let Some(range) = self.choose(&node) else {
            let about = ObjectRef::new(known::nodes(), &node.metadata);
            self.recorder.warning(
                about,
                "CIDRNotAvailable",
                "No range of pod addresses is left for the node",
            );
            return Ok(Outcome::Done);
        };
        let patch = json!({
            "metadata": precondition(&node.metadata),
            "spec": {"podCIDR": range, "podCIDRs": [range]},
        });
        match self
            .client
            .patch(known::nodes(), ("", name), "", PatchKind::Merge, &patch)
            .await
        {
            Err(e) if e.is_not_found() => Ok(Outcome::Done),
            Err(e) => Err(e),
            Ok(_) => {
                tracing::info!(
                    node = name,
                    range,
                    "the node got its range of pod addresses"
                );
                Ok(Outcome::Done)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_given_in_order_and_never_twice() {
        let cluster = ClusterRange::parse("10.244.7.9/22").expect("a prefix");
        let mut used = BTreeSet::new();
        while let Some(range) = cluster.allocate(&used) {
            assert!(used.insert(range));
        }
        let all: Vec<&str> = used.iter().map(String::as_str).collect();
        assert_eq!(
            all,
            [
                "10.244.4.0/24",
                "10.244.5.0/24",
                "10.244.6.0/24",
                "10.244.7.0/24"
            ]
        );
        used.remove("10.244.5.0/24");
        assert_eq!(cluster.allocate(&used).as_deref(), Some("10.244.5.0/24"));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in [
            "",
            "10.244.0.0",
            "10.244.0.0/25",
            "fd00::/48",
            "x/16",
            "10.244.0.0/33",
        ] {
            assert_eq!(ClusterRange::parse(text), None, "{text}");
        }
    }
}
