//! What a node's silence and conditions make of its conditions and taints.

use std::time::Duration;

use kontiki_api::taints::{NO_EXECUTE, NO_SCHEDULE, NOT_READY, Taint, UNREACHABLE, UNSCHEDULABLE};

use crate::views::{Node, NodeCondition};

/// The conditions that become Unknown with a node's silence.
const CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
/// Conditions that, when true, keep new pods away, and the taints that they do it with.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    (
        "NetworkUnavailable",
        "node.kubernetes.io/network-unavailable",
    ),
];

/// What is to be written of a node; `None` is nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Patches {
    /// All conditions.
    pub conditions: Option<Vec<NodeCondition>>,
    /// All taints.
    pub taints: Option<Vec<Taint>>,
}

/// What is to be written of a node that has said nothing for so long. `now` is RFC 3339 text.
pub fn plan(node: &Node, silence: Duration, grace: Duration, now: &str) -> Patches {
    let conditions = (silence > grace).then(|| unknown(node, now)).flatten();
    let taints = wanted_taints(node, now);
    Patches {
        conditions,
        taints: (taints != node.spec.taints).then_some(taints),
    }
}

/// The conditions with those of a silent node made Unknown, if that changes anything.
fn unknown(node: &Node, now: &str) -> Option<Vec<NodeCondition>> {
    let mut conditions = node.status.conditions.clone();
    let mut changed = false;
    for kind in CONDITIONS {
        let (reason, message) = ("NodeStatusUnknown", "Kubelet stopped posting node status.");
        match conditions.iter_mut().find(|c| c.kind == kind) {
            Some(c) if c.status == "Unknown" => {}
            Some(c) => {
                c.status = "Unknown".into();
                c.reason = reason.into();
                c.message = message.into();
                c.last_transition_time = Some(now.to_owned());
                changed = true;
            }
            None => {
                conditions.push(NodeCondition {
                    kind: kind.into(),
                    status: "Unknown".into(),
                    reason: "NodeStatusNeverUpdated".into(),
                    message: "Kubelet never posted node status.".into(),
                    last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                    last_transition_time: Some(now.to_owned()),
                    ..NodeCondition::default()
                });
                changed = true;
            }
        }
    }
    changed.then_some(conditions)
}

/// The taints that the node's conditions ask for, beside those that others gave it.
fn wanted_taints(node: &Node, now: &str) -> Vec<Taint> {
    let ready = node.condition("Ready").map(|c| c.status.as_str());
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    match ready {
        Some("True") => {}
        Some("Unknown") => wanted.extend([(UNREACHABLE, NO_SCHEDULE), (UNREACHABLE, NO_EXECUTE)]),
        Some(_) => wanted.extend([(NOT_READY, NO_SCHEDULE), (NOT_READY, NO_EXECUTE)]),
        // A node that has only just been made has said nothing yet.
        None => wanted.push((NOT_READY, NO_SCHEDULE)),
    }
    let pressed = |kind: &str| node.condition(kind).is_some_and(|c| c.status == "True");
    wanted.extend(
        PRESSURES
            .iter()
            .filter(|(c, _)| pressed(c))
            .map(|(_, key)| (*key, NO_SCHEDULE)),
    );
    if node.spec.unschedulable {
        wanted.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    let is_ours = |t: &Taint| {
        [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&t.key.as_str())
            || PRESSURES.iter().any(|(_, key)| *key == t.key)
    };
    let mut taints: Vec<Taint> = node
        .spec
        .taints
        .iter()
        .filter(|t| !is_ours(t) || wanted.contains(&(t.key.as_str(), t.effect.as_str())))
        .cloned()
        .collect();
    for (key, effect) in wanted {
        if !taints.iter().any(|t| t.key == key && t.effect == effect) {
            taints.push(Taint {
                key: key.into(),
                effect: effect.into(),
                time_added: Some(now.to_owned()),
                ..Taint::default()
            });
        }
    }
    taints
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";
    const GRACE: Duration = Duration::from_secs(40);

    fn node(ready: Option<&str>, taints: &[(&str, &str)]) -> Node {
        let mut n = Node::default();
        n.status
            .conditions
            .extend(ready.map(|status| NodeCondition {
                kind: "Ready".into(),
                status: status.into(),
                ..NodeCondition::default()
            }));
        n.spec.taints = taints
            .iter()
            .map(|(key, effect)| Taint {
                key: (*key).into(),
                effect: (*effect).into(),
                ..Taint::default()
            })
            .collect();
        n
    }

    fn keys(p: &Patches) -> Vec<(String, String)> {
        p.taints
            .iter()
            .flatten()
            .map(|t| (t.key.clone(), t.effect.clone()))
            .collect()
    }

    #[test]
    fn a_ready_node_loses_our_taints_and_keeps_those_of_others() {
        let n = node(
            Some("True"),
            &[(NOT_READY, NO_SCHEDULE), ("mine", NO_EXECUTE)],
        );
        let p = plan(&n, Duration::ZERO, GRACE, NOW);
        assert_eq!(p.conditions, None);
        assert_eq!(keys(&p), [("mine".to_owned(), NO_EXECUTE.to_owned())]);
        let n = node(Some("True"), &[("mine", NO_EXECUTE)]);
        assert_eq!(
            plan(&n, Duration::ZERO, GRACE, NOW),
            Patches::default(),
            "nothing to write"
        );
    }

    #[test]
    fn a_silent_node_becomes_unknown_once() {
        let n = node(Some("True"), &[]);
        let p = plan(&n, Duration::from_secs(41), GRACE, NOW);
        let conditions = p.conditions.expect("a change");
        assert_eq!(conditions.len(), 4);
        assert!(
            conditions
                .iter()
                .all(|c| c.status == "Unknown" && c.last_transition_time.as_deref() == Some(NOW))
        );
        let mut again = n;
        again.status.conditions = conditions;
        assert_eq!(
            plan(&again, Duration::from_secs(99), GRACE, NOW).conditions,
            None
        );
    }

    #[test]
    fn conditions_become_taints() {
        let p = plan(
            &node(Some("Unknown"), &[(NOT_READY, NO_EXECUTE)]),
            Duration::ZERO,
            GRACE,
            NOW,
        );
        assert_eq!(
            keys(&p).iter().map(|k| k.0.as_str()).collect::<Vec<_>>(),
            [UNREACHABLE, UNREACHABLE]
        );
        let mut n = node(Some("False"), &[]);
        n.spec.unschedulable = true;
        n.status.conditions.push(NodeCondition {
            kind: "DiskPressure".into(),
            status: "True".into(),
            ..NodeCondition::default()
        });
        let found = keys(&plan(&n, Duration::ZERO, GRACE, NOW));
        let found: Vec<&str> = found.iter().map(|k| k.0.as_str()).collect();
        assert_eq!(
            found,
            [
                NOT_READY,
                NOT_READY,
                "node.kubernetes.io/disk-pressure",
                UNSCHEDULABLE
            ]
        );
    }
}
