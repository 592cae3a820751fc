//! A cordoned node takes only pods that tolerate it.

use kontiki_api::taints::{NO_SCHEDULE, Taint, UNSCHEDULABLE, tolerated};

use super::{Plugin, Rejection};
use crate::node::Node;
use crate::pod::Pod;

/// Rejects a cordoned node.
pub fn filter(pod: &Pod, node: &Node) -> Result<(), Rejection> {
    let taint = Taint {
        key: UNSCHEDULABLE.into(),
        effect: NO_SCHEDULE.into(),
        ..Taint::default()
    };
    if !node.unschedulable || tolerated(&pod.spec.tolerations, &taint) {
        return Ok(());
    }
    Err(Rejection::lasting(
        Plugin::NodeUnschedulable,
        "node(s) were unschedulable",
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{node, pod};
    use super::*;

    #[test]
    fn a_cordoned_node_takes_only_those_that_tolerate_it() {
        let n = node("n", &json!({}), &json!({"unschedulable": true}));
        assert!(filter(&pod("p", &json!({}), &json!({})), &n).is_err());
        let bold = json!({"tolerations": [{"key": UNSCHEDULABLE, "operator": "Exists"}]});
        assert!(filter(&pod("p", &json!({}), &bold), &n).is_ok());
    }
}
