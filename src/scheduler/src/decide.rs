//! Where a pod goes: the pure decision over nodes and the pods on them.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::{Cluster, NodeInfo};
use crate::node::Node;
use crate::plugins::{Counts, Plugin, Rejection};
use crate::pod::Pod;

/// With fewer nodes than this, all of them are scored.
const SCORED_NODES_MIN: usize = 100;
/// Share of the nodes that is scored in a small cluster; it falls with the number of nodes.
const SCORED_PERCENT_MAX: usize = 50;
/// The share falls by one for so many nodes.
const NODES_PER_PERCENT: usize = 125;
/// Least share of the nodes that is scored.
const SCORED_PERCENT_MIN: usize = 5;

/// Why a pod can go nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// Which node said what.
    pub rejections: BTreeMap<String, Rejection>,
}

impl Unfit {
    /// The plugins that rejected nodes.
    pub fn plugins(&self) -> BTreeSet<Plugin> {
        self.rejections.values().map(|r| r.plugin).collect()
    }

    /// The text of the event and the condition. `preemption` is what became of the try to make room, or empty.
    pub fn message(&self, preemption: &str) -> String {
        if self.rejections.is_empty() {
            return "no nodes available to schedule pods".into();
        }
        let reasons = self
            .rejections
            .values()
            .flat_map(|r| r.reasons.iter().map(String::as_str));
        let mut text = tally(self.rejections.len(), reasons);
        if !preemption.is_empty() {
            text.push_str(" preemption: ");
            text.push_str(preemption);
        }
        text
    }
}

/// `0/3 nodes are available: 1 this, 2 that.`
pub fn tally<'a>(nodes: usize, reasons: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for r in reasons {
        *counts.entry(r).or_default() += 1;
    }
    let mut parts: Vec<String> = counts
        .into_iter()
        .map(|(reason, n)| format!("{n} {reason}"))
        .collect();
    parts.sort();
    format!("0/{nodes} nodes are available: {}.", parts.join(", "))
}

/// The node that the pod goes to. `turn` decides between equals, and where a search that is cut short begins.
///
/// # Errors
/// What each node has against the pod.
pub fn decide(pod: &Pod, cluster: &Cluster, turn: usize) -> Result<String, Unfit> {
    let counts = Counts::new(pod, cluster);
    let all: Vec<(&Node, &NodeInfo)> = cluster.nodes().collect();
    let enough = nodes_to_score(all.len());
    let mut rejections = BTreeMap::new();
    let mut fit = Vec::new();
    for i in 0..all.len() {
        let (node, info) = all[(turn + i) % all.len()];
        match counts.filter(pod, node, info) {
            Ok(()) => fit.push((node, info)),
            Err(r) => {
                rejections.insert(node.metadata.name.clone(), r);
            }
        }
        if fit.len() >= enough {
            break;
        }
    }
    match fit[..] {
        [] => Err(Unfit { rejections }),
        [(only, _)] => Ok(only.metadata.name.clone()),
        _ => {
            let scores = counts.score(pod, &fit);
            let most = scores.iter().max();
            let best: Vec<_> = fit
                .iter()
                .zip(&scores)
                .filter(|(_, s)| Some(*s) == most)
                .collect();
            let ((node, _), _) = best[turn % best.len()];
            Ok(node.metadata.name.clone())
        }
    }
}

fn nodes_to_score(nodes: usize) -> usize {
    if nodes < SCORED_NODES_MIN {
        return nodes;
    }
    let percent = SCORED_PERCENT_MAX
        .saturating_sub(nodes / NODES_PER_PERCENT)
        .max(SCORED_PERCENT_MIN);
    (nodes * percent / 100).max(SCORED_NODES_MIN)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{cluster, node, pod};

    fn asks(name: &str, cpu: &str) -> Pod {
        pod(
            name,
            &json!({}),
            &json!({"containers": [{"resources": {"requests": {"cpu": cpu}}}]}),
        )
    }

    #[test]
    fn the_message_counts_reasons_as_upstream() {
        let tainted = json!({"taints": [{"key": "k", "effect": "NoSchedule"}]});
        let nodes = [("a", &tainted), ("b", &tainted), ("c", &json!({}))];
        let nodes = nodes.map(|(n, spec)| node(n, &json!({}), spec));
        let e = decide(&asks("p", "100"), &cluster(nodes.into(), vec![]), 7).expect_err("too big");
        assert_eq!(
            e.message(""),
            "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s)."
        );
        assert!(e.message("x").ends_with("taint(s). preemption: x"));
        assert_eq!(
            e.plugins(),
            [Plugin::TaintToleration, Plugin::NodeResourcesFit].into()
        );
        let e = decide(&asks("p", "1"), &Cluster::default(), 0).expect_err("no nodes");
        assert_eq!(e.message(""), "no nodes available to schedule pods");
    }

    #[test]
    fn the_emptier_node_wins_and_equals_take_turns() {
        let nodes = || {
            ["a", "b", "c"]
                .map(|n| node(n, &json!({}), &json!({})))
                .into()
        };
        let c = cluster(nodes(), vec![(asks("x", "2"), "a"), (asks("y", "1"), "b")]);
        for turn in 0..5 {
            assert_eq!(decide(&asks("p", "1"), &c, turn), Ok("c".into()));
        }
        let c = cluster(nodes(), vec![]);
        let seen: BTreeSet<_> = (0..9)
            .filter_map(|turn| decide(&asks("p", "1"), &c, turn).ok())
            .collect();
        assert_eq!(seen.len(), 3);
    }

    #[test]
    fn big_clusters_are_not_scored_whole() {
        assert_eq!(
            [99, 100, 1000, 5000, 10_000].map(nodes_to_score),
            [99, 100, 420, 500, 500]
        );
    }
}
