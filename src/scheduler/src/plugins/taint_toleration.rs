//! Taints keep pods away that do not tolerate them.

use kontiki_api::taints::{NO_EXECUTE, NO_SCHEDULE, PREFER_NO_SCHEDULE, tolerated};

use super::{Plugin, Rejection};
use crate::node::Node;
use crate::pod::Pod;

/// Rejects a node with a `NoSchedule` or `NoExecute` taint that the pod does not tolerate.
pub fn filter(pod: &Pod, node: &Node) -> Result<(), Rejection> {
    let keeps_away = |effect: &str| matches!(effect, NO_SCHEDULE | NO_EXECUTE);
    if node
        .taints
        .iter()
        .all(|t| !keeps_away(&t.effect) || tolerated(&pod.spec.tolerations, t))
    {
        return Ok(());
    }
    Err(Rejection::lasting(
        Plugin::TaintToleration,
        "node(s) had untolerated taint(s)",
    ))
}

/// How many `PreferNoSchedule` taints the pod does not tolerate; the fewer, the better.
pub fn score(pod: &Pod, node: &Node) -> i64 {
    let disliked = node
        .taints
        .iter()
        .filter(|t| t.effect == PREFER_NO_SCHEDULE && !tolerated(&pod.spec.tolerations, t));
    i64::try_from(disliked.count()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{node, pod};
    use super::*;

    #[test]
    fn taints_reject_or_count_by_their_effect() {
        let n = |effect: &str| {
            node(
                "n",
                &json!({}),
                &json!({"taints": [{"key": "k", "effect": effect}]}),
            )
        };
        let p = pod("p", &json!({}), &json!({}));
        assert!(filter(&p, &n(NO_SCHEDULE)).is_err() && filter(&p, &n(NO_EXECUTE)).is_err());
        assert!(filter(&p, &n(PREFER_NO_SCHEDULE)).is_ok());
        assert_eq!(
            (
                score(&p, &n(PREFER_NO_SCHEDULE)),
                score(&p, &n(NO_SCHEDULE))
            ),
            (1, 0)
        );
        let bold = pod(
            "p",
            &json!({}),
            &json!({"tolerations": [{"operator": "Exists"}]}),
        );
        assert!(filter(&bold, &n(NO_SCHEDULE)).is_ok());
    }
}
