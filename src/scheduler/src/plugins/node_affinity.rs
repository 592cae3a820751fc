//! Node selectors and node affinity.

use std::cmp::Ordering;

use kontiki_api::labels::Selector;

use super::{Plugin, Rejection};
use crate::node::Node;
use crate::pod::{NodeSelectorRequirement, NodeSelectorTerm, Pod};

/// Rejects a node that the pod's node selector or required node affinity does not match.
pub fn filter(pod: &Pod, node: &Node) -> Result<(), Rejection> {
    if matches(pod, node) {
        return Ok(());
    }
    Err(Rejection::lasting(
        Plugin::NodeAffinity,
        "node(s) didn't match Pod's node affinity/selector",
    ))
}

/// Whether the pod's node selector and required node affinity match the node.
pub fn matches(pod: &Pod, node: &Node) -> bool {
    let selected = pod.spec.node_selector.is_empty()
        || Selector::from_map(&pod.spec.node_selector).matches(&node.metadata.labels);
    let required = &pod.spec.affinity.node_affinity.required;
    selected
        && required
            .as_ref()
            .is_none_or(|r| r.node_selector_terms.iter().any(|t| term(t, node)))
}

/// The sum of the weights of the preferences that the node matches; the more, the better.
pub fn score(pod: &Pod, node: &Node) -> i64 {
    let preferred = &pod.spec.affinity.node_affinity.preferred;
    preferred
        .iter()
        .filter(|p| term(&p.preference, node))
        .map(|p| p.weight)
        .sum()
}

fn term(t: &NodeSelectorTerm, node: &Node) -> bool {
    let some = !t.match_expressions.is_empty() || !t.match_fields.is_empty();
    let label = |r: &NodeSelectorRequirement| {
        holds(r, node.metadata.labels.get(&r.key).map(String::as_str))
    };
    let field = |r: &NodeSelectorRequirement| {
        r.key == "metadata.name" && holds(r, Some(&node.metadata.name))
    };
    some && t.match_expressions.iter().all(label) && t.match_fields.iter().all(field)
}

fn holds(r: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let listed = value.is_some_and(|v| r.values.iter().any(|x| x == v));
    let compared = || {
        let bound = r.values.first()?.parse::<i64>().ok()?;
        Some(value?.parse::<i64>().ok()?.cmp(&bound))
    };
    match r.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared() == Some(Ordering::Greater),
        "Lt" => compared() == Some(Ordering::Less),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::{node, pod};
    use super::*;

    fn wants(terms: &Value) -> Pod {
        let required =
            json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
        pod(
            "p",
            &json!({}),
            &json!({"affinity": {"nodeAffinity": required}}),
        )
    }

    #[test]
    fn every_operator_compares_as_upstream() {
        let n = node("n1", &json!({"disk": "ssd", "cores": "8"}), &json!({}));
        for (key, operator, values, want) in [
            ("disk", "In", json!(["hdd", "ssd"]), true),
            ("disk", "NotIn", json!(["ssd"]), false),
            ("none", "NotIn", json!(["ssd"]), true),
            ("disk", "Exists", json!([]), true),
            ("disk", "DoesNotExist", json!([]), false),
            ("cores", "Gt", json!(["7"]), true),
            ("cores", "Lt", json!(["8"]), false),
            ("disk", "Gt", json!(["7"]), false),
        ] {
            let p = wants(
                &json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]),
            );
            assert_eq!(filter(&p, &n).is_ok(), want, "{key} {operator} {values}");
        }
        let by_name = |name: &str| {
            wants(
                &json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}]),
            )
        };
        assert!(filter(&by_name("n1"), &n).is_ok() && filter(&by_name("n2"), &n).is_err());
    }

    #[test]
    fn one_term_is_enough_and_an_empty_one_matches_nothing() {
        let n = node("n", &json!({"a": "b"}), &json!({}));
        let has = |key: &str| json!({"matchExpressions": [{"key": key, "operator": "Exists"}]});
        assert!(filter(&wants(&json!([has("x"), has("a")])), &n).is_ok());
        assert!(filter(&wants(&json!([{}])), &n).is_err());
        let picky = pod("p", &json!({}), &json!({"nodeSelector": {"a": "c"}}));
        assert!(filter(&picky, &n).is_err());
    }

    #[test]
    fn preferences_add_up() {
        let n = node("n", &json!({"a": "b"}), &json!({}));
        let has = |key: &str, weight: i64| json!({"weight": weight, "preference": {"matchExpressions": [{"key": key, "operator": "Exists"}]}});
        let preferred = json!({"preferredDuringSchedulingIgnoredDuringExecution": [has("a", 5), has("x", 9), has("a", 2)]});
        assert_eq!(
            score(
                &pod(
                    "p",
                    &json!({}),
                    &json!({"affinity": {"nodeAffinity": preferred}})
                ),
                &n
            ),
            7
        );
    }
}
