//! What the state of a node means: its conditions, its taints, and how long pods may stay.

use std::time::Duration;

use jiff::Timestamp;
use kontiki_api::object::time_text;
use kontiki_api::taints::{
    NO_EXECUTE, NO_SCHEDULE, NOT_READY, Taint, UNREACHABLE, UNSCHEDULABLE, tolerated,
};

use crate::views::{Node, NodeCondition, Pod};

/// A node that says nothing for so long is taken for unreachable.
pub const GRACE: Duration = Duration::from_secs(40);

/// Taints that follow conditions: type, status, key.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    (
        "MemoryPressure",
        "True",
        "node.kubernetes.io/memory-pressure",
    ),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    (
        "NetworkUnavailable",
        "True",
        "node.kubernetes.io/network-unavailable",
    ),
];
/// Conditions that a node which says nothing gets.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// The conditions of a node that has said nothing for longer than its grace; `None` if they say so already.
pub fn silent(node: &Node, now: Timestamp) -> Option<Vec<NodeCondition>> {
    let mut out = node.status.conditions.clone();
    let time = Some(time_text(now));
    for kind in REPORTED {
        match out.iter_mut().find(|c| c.kind == kind) {
            Some(c) if c.status == "Unknown" => {}
            Some(c) => {
                c.status = "Unknown".into();
                c.reason = "NodeStatusUnknown".into();
                c.message = "Kubelet stopped posting node status.".into();
                c.last_transition_time.clone_from(&time);
            }
            None => out.push(NodeCondition {
                kind: kind.into(),
                status: "Unknown".into(),
                reason: "NodeStatusNeverUpdated".into(),
                message: "Kubelet never posted node status.".into(),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: time.clone(),
                ..NodeCondition::default()
            }),
        }
    }
    (out != node.status.conditions).then_some(out)
}

/// The taints that a node should have; `None` if it has them. While `all_down`, nobody is driven away: it is more likely
/// that we are cut off than that every node is broken.
pub fn taints(node: &Node, all_down: bool, now: Timestamp) -> Option<Vec<Taint>> {
    let status = |kind: &str| node.condition(kind).map_or("", |c| c.status.as_str());
    let mut want: Vec<(&str, &str)> = Vec::new();
    for (kind, bad, key) in BY_CONDITION {
        if status(kind) == bad {
            want.push((key, NO_SCHEDULE));
            if kind == "Ready" && !all_down {
                want.push((key, NO_EXECUTE));
            }
        }
    }
    if node.condition("Ready").is_none() {
        // A node that has only just been made has said nothing yet.
        want.push((NOT_READY, NO_SCHEDULE));
    }
    if node.spec.unschedulable {
        want.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    let is_ours = |t: &Taint| {
        let by_condition =
            BY_CONDITION.iter().any(|(_, _, k)| *k == t.key) || t.key == UNSCHEDULABLE;
        by_condition
            && (t.effect == NO_SCHEDULE
                || (t.effect == NO_EXECUTE && [NOT_READY, UNREACHABLE].contains(&t.key.as_str())))
    };
    let mut out: Vec<Taint> = node
        .spec
        .taints
        .iter()
        .filter(|t| !is_ours(t) || want.contains(&(t.key.as_str(), t.effect.as_str())))
        .cloned()
        .collect();
    for (key, effect) in want {
        if !out.iter().any(|t| t.key == key && t.effect == effect) {
            let (key, effect) = (key.to_owned(), effect.to_owned());
            out.push(Taint {
                key,
                effect,
                value: String::new(),
                time_added: Some(time_text(now)),
            });
        }
    }
    (out != node.spec.taints).then_some(out)
}

/// What becomes of a pod on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stay {
    /// It stays.
    Forever,
    /// It may stay for so long yet.
    For(Duration),
    /// It goes now.
    No,
}

/// How long a pod may stay on a node with these taints.
pub fn stay(pod: &Pod, taints: &[Taint], now: Timestamp) -> Stay {
    let mut least: Option<i64> = None;
    for t in taints.iter().filter(|t| t.effect == NO_EXECUTE) {
        if !tolerated(&pod.tolerations, t) {
            return Stay::No;
        }
        let seconds = pod
            .tolerations
            .iter()
            .filter(|x| x.tolerates(t))
            .filter_map(|x| x.toleration_seconds)
            .min();
        let Some(seconds) = seconds else {
            continue;
        };
        let added = t
            .time_added
            .as_deref()
            .and_then(|a| a.parse::<Timestamp>().ok())
            .unwrap_or(now);
        let left = added.as_second() + seconds.max(0) - now.as_second();
        least = Some(least.map_or(left, |l| l.min(left)));
    }
    match least {
        None => Stay::Forever,
        Some(left) if left <= 0 => Stay::No,
        Some(left) => Stay::For(Duration::from_secs(u64::try_from(left).unwrap_or(0))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(ready: &str, spec: &Value) -> Node {
        let conditions = json!([{"type": "Ready", "status": ready, "extra": 1}]);
        serde_json::from_value(
            json!({"metadata": {"name": "n"}, "spec": spec, "status": {"conditions": conditions}}),
        )
        .expect("a node")
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn keys(t: &[Taint]) -> Vec<(&str, &str)> {
        t.iter()
            .map(|t| (t.key.as_str(), t.effect.as_str()))
            .collect()
    }

    #[test]
    fn a_silent_node_is_unknown_and_what_else_its_conditions_say_stays() {
        let c = silent(&node("True", &json!({})), at(5)).expect("changed");
        assert_eq!(
            (c[0].status.as_str(), &c[0].other["extra"]),
            ("Unknown", &json!(1))
        );
        assert_eq!(
            (c.len(), c[1].reason.as_str()),
            (4, "NodeStatusNeverUpdated")
        );
        let mut quiet = node("True", &json!({}));
        quiet.status.conditions = c;
        assert!(silent(&quiet, at(9)).is_none());
    }

    #[test]
    fn taints_follow_the_conditions_and_leave_those_of_others() {
        let theirs = json!({"key": "theirs", "effect": "NoExecute"});
        let n = node(
            "Unknown",
            &json!({"taints": [theirs], "unschedulable": true}),
        );
        let t = taints(&n, false, at(5)).expect("changed");
        let want = [
            ("theirs", NO_EXECUTE),
            (UNREACHABLE, NO_SCHEDULE),
            (UNREACHABLE, NO_EXECUTE),
            (UNSCHEDULABLE, NO_SCHEDULE),
        ];
        assert_eq!(keys(&t), want);
        let mut back = node("True", &json!({}));
        back.spec.taints = t;
        assert_eq!(
            keys(&taints(&back, false, at(6)).expect("changed")),
            [("theirs", NO_EXECUTE)]
        );
        assert!(taints(&node("True", &json!({})), false, at(6)).is_none());
        assert_eq!(
            keys(&taints(&node("False", &json!({})), true, at(6)).expect("changed")),
            [(NOT_READY, NO_SCHEDULE)]
        );
    }

    #[test]
    fn pods_stay_as_long_as_they_tolerate() {
        let taint = |key: &str, added: i64| Taint {
            key: key.into(),
            effect: NO_EXECUTE.into(),
            value: String::new(),
            time_added: Some(time_text(at(added))),
        };
        let pod = |tolerations: Value| Pod {
            tolerations: serde_json::from_value(tolerations).expect("tolerations"),
            ..Pod::default()
        };
        let taints = [taint("a", 100)];
        assert_eq!(stay(&pod(json!([])), &taints, at(100)), Stay::No);
        assert_eq!(stay(&pod(json!([])), &[], at(100)), Stay::Forever);
        let some = pod(json!([{"key": "a", "operator": "Exists", "tolerationSeconds": 30}]));
        assert_eq!(
            stay(&some, &taints, at(110)),
            Stay::For(Duration::from_secs(20))
        );
        assert_eq!(stay(&some, &taints, at(130)), Stay::No);
        assert_eq!(
            stay(&pod(json!([{"operator": "Exists"}])), &taints, at(999)),
            Stay::Forever
        );
    }
}
