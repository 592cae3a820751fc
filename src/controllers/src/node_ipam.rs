//! A range of pod addresses for each node, out of the cluster's.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use ipnet::IpNet;
use kontiki_api::catalogue::known;
use kontiki_reconcile::{
    Cache, CallError, Client, ObjectRef, Outcome, PatchKind, Queue, Reconcile, Recorder, run,
};
use serde_json::json;

use crate::context::{Context, precondition};
use crate::views::Node;

/// One at a time: no range is given out twice.
const WORKERS: usize = 1;

struct NodeIpam {
    nodes: Cache<Node>,
    client: Client,
    recorder: Recorder,
    cluster: IpNet,
    mask: u8,
}

/// Starts the loop, which gives out ranges of this mask out of the cluster's.
pub fn start(context: &Context, cluster: IpNet, mask: u8) {
    let nodes = context.cache::<Node>(known::nodes());
    let queue: Queue<String> = Queue::default();
    let q = queue.clone();
    nodes.on_event(move |e| q.add(e.object().metadata.name.clone()));
    let (client, recorder) = (
        context.client("node-ipam-controller"),
        context.recorder("cidrAllocator"),
    );
    run(
        &context.tasks,
        &queue,
        WORKERS,
        Arc::new(NodeIpam {
            nodes,
            client,
            recorder,
            cluster,
            mask,
        }),
    );
}

/// The cluster's range, if it is one that holds ranges of this mask.
pub fn range(cidr: &str, mask: u8) -> Option<IpNet> {
    let cluster: IpNet = cidr.parse().ok()?;
    plan(cluster.trunc(), mask, &[]).map(|_| cluster.trunc())
}

/// The first range of this mask that none of the taken ones overlaps; `None` if all are taken.
pub fn plan(cluster: IpNet, mask: u8, taken: &[IpNet]) -> Option<IpNet> {
    let size = u32::from(mask.checked_sub(cluster.prefix_len())?);
    let step = 1_u128.checked_shl(u32::from(cluster.max_prefix_len() - mask))?;
    let base = number(cluster.network());
    let first = |n: &IpNet| (number(n.network()).max(base) - base) / step;
    let last = |n: &IpNet| (number(n.broadcast()).max(base) - base) / step;
    let mut used = BTreeSet::new();
    for n in taken
        .iter()
        .filter(|n| n.contains(&cluster) || cluster.contains(*n))
    {
        used.extend(first(n)..=last(n).min((1_u128 << size) - 1));
    }
    let free = (0..1_u128 << size).find(|i| !used.contains(i))?;
    IpNet::new(address(base + free * step, cluster.network()), mask).ok()
}

fn number(a: IpAddr) -> u128 {
    match a {
        IpAddr::V4(a) => u128::from(a.to_bits()),
        IpAddr::V6(a) => a.to_bits(),
    }
}

fn address(n: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::from_bits(
            u32::try_from(n).unwrap_or(u32::MAX),
        )),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::from_bits(n)),
    }
}

#[async_trait]
impl Reconcile<String> for NodeIpam {
    fn name(&self) -> &'static str {
        "node-ipam"
    }

    async fn reconcile(&self, key: &String) -> Result<Outcome, CallError> {
        self.nodes.synced().await;
        let Some(node) = self
            .nodes
            .get("", key)
            .filter(|n| n.spec.pod_cidr.is_empty() && !n.metadata.is_deleting())
        else {
            return Ok(Outcome::Done);
        };
        let all = self.nodes.list();
        let taken = all
            .iter()
            .flat_map(|n| n.spec.pod_cidrs.iter().chain([&n.spec.pod_cidr]));
        let taken: Vec<IpNet> = taken.filter_map(|c| c.parse().ok()).collect();
        let Some(range) = plan(self.cluster, self.mask, &taken) else {
            let about = ObjectRef::new(known::nodes(), &node.metadata);
            let text = format!("Node {key} status is now: CIDRNotAvailable");
            self.recorder.normal(about, "CIDRNotAvailable", text);
            tracing::warn!(node = key, cluster_cidr = %self.cluster, "there is no range of pod addresses left");
            return Ok(Outcome::After(std::time::Duration::from_secs(30)));
        };
        let spec = json!({"podCIDR": range.to_string(), "podCIDRs": [range.to_string()]});
        let patch = json!({"metadata": precondition(&node.metadata), "spec": spec});
        match self
            .client
            .patch(known::nodes(), ("", key), "", PatchKind::Merge, &patch)
            .await
        {
            Ok(answer) => {
                self.nodes.written(&answer);
                Ok(Outcome::Done)
            }
            Err(e) if e.is_not_found() => Ok(Outcome::Done),
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(s: &str) -> IpNet {
        s.parse().expect("a range")
    }

    #[test]
    fn the_first_free_range_is_given_out() {
        let cluster = net("10.244.0.0/16");
        assert_eq!(plan(cluster, 24, &[]), Some(net("10.244.0.0/24")));
        assert_eq!(
            plan(cluster, 24, &[net("10.244.0.0/24"), net("10.244.2.0/24")]),
            Some(net("10.244.1.0/24"))
        );
        assert_eq!(
            plan(cluster, 24, &[net("10.244.0.0/23"), net("192.168.0.0/24")]),
            Some(net("10.244.2.0/24"))
        );
        assert_eq!(plan(net("10.0.0.0/24"), 24, &[net("10.0.0.128/25")]), None);
        assert_eq!(
            plan(net("fd00::/56"), 64, &[net("fd00::/64")]),
            Some(net("fd00:0:0:1::/64"))
        );
        assert_eq!(
            plan(cluster, 8, &[]),
            None,
            "a range wider than the cluster's"
        );
    }

    #[test]
    fn a_cluster_range_that_holds_no_range_of_a_node_is_refused() {
        assert_eq!(range("10.244.7.7/16", 24), Some(net("10.244.0.0/16")));
        assert_eq!(
            (range("10.244.0.0/25", 24), range("pods", 24)),
            (None, None)
        );
    }

    proptest! {
        /// Ranges that are given out one after the other never overlap, and all are given out.
        #[test]
        fn no_range_is_given_out_twice(prefix in 16_u8..24, nodes in 1_usize..80) {
            let cluster = net(&format!("10.0.0.0/{prefix}"));
            let mut taken: Vec<IpNet> = Vec::new();
            for _ in 0..nodes {
                match plan(cluster, 24, &taken) {
                    Some(n) => {
                        prop_assert!(cluster.contains(&n) && taken.iter().all(|t| *t != n));
                        taken.push(n);
                    }
                    None => prop_assert_eq!(taken.len(), 1 << (24 - prefix)),
                }
            }
        }
    }
}
