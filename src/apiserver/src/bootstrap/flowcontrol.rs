//! The default priority levels and flow schemas (API priority and fairness).

use serde_json::{Value, json};

use super::Made;

pub(super) const GROUP: &str = "flowcontrol.apiserver.k8s.io";
/// Says that the object's spec follows the server's defaults.
const AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// How many queues there are, and how many of them a flow may use.
type Queues = Option<(u32, u32)>;

/// Name, shares, percentage that may be lent, and queues with their hand size (none: rejected at once) of a limited level.
const LEVELS: [(&str, u32, u32, Queues); 7] = [
    ("catch-all", 5, 0, None),
    ("global-default", 20, 50, Some((128, 6))),
    ("leader-election", 10, 0, Some((16, 4))),
    ("node-high", 40, 25, Some((64, 6))),
    ("system", 30, 33, Some((64, 6))),
    ("workload-high", 40, 50, Some((128, 6))),
    ("workload-low", 100, 90, Some((128, 6))),
];
/// How many requests wait in one queue.
const QUEUE_LENGTH: u32 = 50;

/// What a flow schema matches.
#[derive(Clone, Copy)]
enum Matches {
    Everything,
    Probes,
    Leases,
    Nodes,
}

/// Name, precedence, level, what tells its flows apart, subjects and what it matches.
type Schema = (
    &'static str,
    u32,
    &'static str,
    &'static str,
    &'static [&'static str],
    Matches,
);

const EVERYBODY: &[&str] = &["group system:unauthenticated", "group system:authenticated"];
const SCHEMAS: [Schema; 11] = [
    (
        "exempt",
        1,
        "exempt",
        "",
        &["group system:masters"],
        Matches::Everything,
    ),
    ("probes", 2, "exempt", "", EVERYBODY, Matches::Probes),
    (
        "system-leader-election",
        100,
        "leader-election",
        "ByUser",
        &[
            "user system:kube-controller-manager",
            "user system:kube-scheduler",
            "account kube-system",
        ],
        Matches::Leases,
    ),
    (
        "system-node-high",
        400,
        "node-high",
        "ByUser",
        &["group system:nodes"],
        Matches::Nodes,
    ),
    (
        "system-nodes",
        500,
        "system",
        "ByUser",
        &["group system:nodes"],
        Matches::Everything,
    ),
    (
        "kube-controller-manager",
        800,
        "workload-high",
        "ByNamespace",
        &["user system:kube-controller-manager"],
        Matches::Everything,
    ),
    (
        "kube-scheduler",
        800,
        "workload-high",
        "ByNamespace",
        &["user system:kube-scheduler"],
        Matches::Everything,
    ),
    (
        "kube-system-service-accounts",
        900,
        "workload-high",
        "ByNamespace",
        &["account kube-system"],
        Matches::Everything,
    ),
    (
        "service-accounts",
        9000,
        "workload-low",
        "ByUser",
        &["group system:serviceaccounts"],
        Matches::Everything,
    ),
    (
        "global-default",
        9900,
        "global-default",
        "ByUser",
        EVERYBODY,
        Matches::Everything,
    ),
    (
        "catch-all",
        10000,
        "catch-all",
        "ByUser",
        EVERYBODY,
        Matches::Everything,
    ),
];

/// All priority levels and flow schemas.
pub(super) fn objects() -> Vec<Made> {
    let exempt =
        json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    let mut made = vec![object("prioritylevelconfigurations", "exempt", exempt)];
    made.extend(LEVELS.iter().map(|(name, shares, lendable, queues)| {
        let response = match queues {
            None => json!({"type": "Reject"}),
            Some((queues, hand)) => json!({
                "type": "Queue",
                "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": QUEUE_LENGTH},
            }),
        };
        let limited = json!({"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response});
        object("prioritylevelconfigurations", name, json!({"type": "Limited", "limited": limited}))
    }));
    made.extend(SCHEMAS.iter().map(schema));
    made
}

fn object(plural: &'static str, name: &str, spec: Value) -> Made {
    let mut object = json!({"metadata": {"name": name, "annotations": {AUTOUPDATE: "true"}}});
    object["spec"] = spec;
    Made {
        group: GROUP,
        plural,
        namespace: "",
        object,
    }
}

fn schema((name, precedence, level, by, subjects, matches): &Schema) -> Made {
    let mut rule = match matches {
        Matches::Everything => json!({
            "resourceRules": [resources("*", &["*"], &["*"], true)],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        }),
        Matches::Probes => json!({
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}],
        }),
        Matches::Leases => json!({
            "resourceRules": [resources("coordination.k8s.io", &["leases"], &["get", "create", "update"], false)],
        }),
        Matches::Nodes => json!({"resourceRules": [
            resources("", &["nodes", "nodes/status"], &["*"], true),
            resources("coordination.k8s.io", &["leases"], &["*"], false),
        ]}),
    };
    rule["subjects"] = subjects.iter().map(|s| subject(s)).collect();
    let mut spec = json!({
        "priorityLevelConfiguration": {"name": level},
        "matchingPrecedence": precedence,
        "rules": [rule],
    });
    if !by.is_empty() {
        spec["distinguisherMethod"] = json!({"type": by});
    }
    object("flowschemas", name, spec)
}

fn resources(group: &str, resources: &[&str], verbs: &[&str], cluster: bool) -> Value {
    let mut rule =
        json!({"apiGroups": [group], "resources": resources, "verbs": verbs, "namespaces": ["*"]});
    if cluster {
        rule["clusterScope"] = true.into();
    }
    rule
}

fn subject(text: &str) -> Value {
    match text.split_once(' ') {
        Some(("group", name)) => json!({"kind": "Group", "group": {"name": name}}),
        Some(("user", name)) => json!({"kind": "User", "user": {"name": name}}),
        Some(("account", namespace)) => {
            json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": namespace, "name": "*"}})
        }
        _ => panic!("{text} is no subject"),
    }
}

#[cfg(test)]
mod tests {
    use kontiki_api::object::{name, text};

    use super::*;

    #[test]
    fn every_flow_schema_leads_to_a_level() {
        let all = objects();
        let levels: Vec<&str> = all
            .iter()
            .filter(|m| m.plural == "prioritylevelconfigurations")
            .map(|m| name(&m.object))
            .collect();
        assert_eq!(levels.len(), 8);
        for m in all.iter().filter(|m| m.plural == "flowschemas") {
            let level = text(&m.object, &["spec", "priorityLevelConfiguration", "name"]);
            assert!(levels.contains(&level), "{level}");
        }
    }
}
