//! Among nodes, rather one whose CPU and memory are used alike.

use super::SCORE_MAX;
use crate::cluster::NodeInfo;
use crate::node::Node;
use crate::pod::Pod;

/// How alike the used shares of CPU and memory would be; the more, the better. Nothing for a pod without requests.
pub fn score(pod: &Pod, node: &Node, info: &NodeInfo) -> i64 {
    let want = &pod.spec.request;
    if want.milli_cpu == 0 && want.memory_bytes == 0 {
        return 0;
    }
    #[allow(clippy::cast_precision_loss, reason = "shares do not need all digits")]
    let share = |used: i64, all: i64| {
        if all == 0 {
            1.0
        } else {
            (used as f64 / all as f64).min(1.0)
        }
    };
    let cpu = share(
        info.requested.milli_cpu + want.milli_cpu,
        node.allocatable.milli_cpu,
    );
    let memory = share(
        info.requested.memory_bytes + want.memory_bytes,
        node.allocatable.memory_bytes,
    );
    // For two values the standard deviation is half of their difference.
    let deviation = (cpu - memory).abs() / 2.0;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "between 0 and 100"
    )]
    let score = ((1.0 - deviation) * SCORE_MAX as f64) as i64;
    score
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{empty, node, pod};
    use super::*;

    #[test]
    fn lopsided_use_scores_less() {
        let (n, info) = empty(node("n", &json!({}), &json!({})));
        let asks = |cpu: &str, memory: &str| {
            pod(
                "p",
                &json!({}),
                &json!({"containers": [{"resources": {"requests": {"cpu": cpu, "memory": memory}}}]}),
            )
        };
        assert_eq!(score(&asks("2", "4Gi"), &n, &info), 100);
        assert_eq!(score(&asks("4", "0"), &n, &info), 50);
        assert_eq!(score(&asks("0", "0"), &n, &info), 0);
    }
}
