//! A pod goes only where what it asks for is free; among those nodes, rather where much is (least allocated).

use super::{Plugin, Rejection, SCORE_MAX};
use crate::cluster::NodeInfo;
use crate::node::Node;
use crate::pod::Pod;

/// Rejects a node that lacks a resource; all that it lacks are named.
pub fn filter(pod: &Pod, node: &Node, info: &NodeInfo) -> Result<(), Rejection> {
    let (want, used, all) = (&pod.spec.request, &info.requested, &node.allocatable);
    let mut reasons = Vec::new();
    let mut helped_by_preemption = true;
    if i64::try_from(info.pods.len()).unwrap_or(i64::MAX) + 1 > node.pods_max {
        reasons.push("Too many pods".to_owned());
    }
    let mut check = |name: &str, want: i64, used: i64, all: i64| {
        if want > 0 && want > all - used {
            reasons.push(format!("Insufficient {name}"));
            helped_by_preemption &= want <= all;
        }
    };
    check("cpu", want.milli_cpu, used.milli_cpu, all.milli_cpu);
    check(
        "memory",
        want.memory_bytes,
        used.memory_bytes,
        all.memory_bytes,
    );
    check(
        "ephemeral-storage",
        want.ephemeral_bytes,
        used.ephemeral_bytes,
        all.ephemeral_bytes,
    );
    for (name, n) in &want.extended {
        let of = |r: &std::collections::BTreeMap<String, i64>| r.get(name).copied().unwrap_or(0);
        check(name, *n, of(&used.extended), of(&all.extended));
    }
    if reasons.is_empty() {
        return Ok(());
    }
    Err(Rejection {
        plugin: Plugin::NodeResourcesFit,
        reasons,
        helped_by_preemption,
    })
}

/// The free share of CPU and memory if the pod were here; the more, the better.
pub fn score(pod: &Pod, node: &Node, info: &NodeInfo) -> i64 {
    let free = |all: i64, used: i64| {
        if all == 0 || used > all {
            0
        } else {
            (all - used) * SCORE_MAX / all
        }
    };
    let cpu = free(
        node.allocatable.milli_cpu,
        info.score_milli_cpu + pod.spec.score_milli_cpu,
    );
    let memory = free(
        node.allocatable.memory_bytes,
        info.score_memory_bytes + pod.spec.score_memory_bytes,
    );
    i64::midpoint(cpu, memory)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use serde_json::json;

    use super::super::testing::{empty, node, pod};
    use super::*;

    fn asks(cpu: &str, memory: &str) -> Pod {
        pod(
            "p",
            &json!({}),
            &json!({"containers": [{"resources": {"requests": {"cpu": cpu, "memory": memory}}}]}),
        )
    }

    #[test]
    fn everything_that_lacks_is_named() {
        let (n, mut info) = empty(node("n", &json!({}), &json!({})));
        info.add(Arc::new(asks("3", "6Gi")));
        assert!(
            filter(&asks("1", "2Gi"), &n, &info).is_ok(),
            "it fits exactly"
        );
        let r = filter(&asks("1001m", "3Gi"), &n, &info).expect_err("too much");
        assert_eq!(r.reasons, ["Insufficient cpu", "Insufficient memory"]);
        assert!(r.helped_by_preemption);
        assert!(
            !filter(&asks("5", "1"), &n, &info)
                .expect_err("too much")
                .helped_by_preemption
        );
        let gpu = pod(
            "p",
            &json!({}),
            &json!({"containers": [{"resources": {"requests": {"x.io/gpu": "1"}}}]}),
        );
        assert_eq!(
            filter(&gpu, &n, &info).expect_err("none").reasons,
            ["Insufficient x.io/gpu"]
        );
        let full = Node {
            pods_max: 1,
            ..n.clone()
        };
        assert_eq!(
            filter(&asks("0", "0"), &full, &info)
                .expect_err("full")
                .reasons,
            ["Too many pods"]
        );
    }

    #[test]
    fn an_emptier_node_is_better() {
        let (n, mut info) = empty(node("n", &json!({}), &json!({})));
        let p = asks("1", "2Gi");
        assert_eq!(score(&p, &n, &info), 75);
        info.add(Arc::new(asks("1", "2Gi")));
        assert_eq!(score(&p, &n, &info), 50);
        assert_eq!(score(&asks("9", "2Gi"), &n, &info), 25);
    }

    proptest! {
        /// Pods placed one by one where they fit never take more than the node has.
        #[test]
        fn a_node_is_never_overcommitted(pods in prop::collection::vec((0_i64..3000, 0_i64..4096), 0..150)) {
            let (n, mut info) = empty(node("n", &json!({}), &json!({})));
            for (milli, mebi) in pods {
                let p = asks(&format!("{milli}m"), &format!("{mebi}Mi"));
                let fits = filter(&p, &n, &info).is_ok();
                let room = info.requested.milli_cpu + milli <= 4000
                    && info.requested.memory_bytes + (mebi << 20) <= 8 << 30
                    && info.pods.len() < 110;
                prop_assert!(fits || !room, "it is only turned away for lack of room");
                if fits {
                    info.add(Arc::new(p));
                }
                prop_assert!(info.requested.milli_cpu <= n.allocatable.milli_cpu);
                prop_assert!(info.requested.memory_bytes <= n.allocatable.memory_bytes);
            }
        }
    }
}
