//! The APIServices of the groups that this server answers itself.

use serde_json::json;

use super::Made;
use crate::discovery::Discovery;

const GROUP: &str = "apiregistration.k8s.io";
/// Says that the object is made at the server's start and kept after it.
const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// How much the groups are preferred, as upstream has it.
const PRIORITIES: [(&str, u32); 20] = [
    ("", 18000),
    ("apps", 17800),
    ("events.k8s.io", 17750),
    ("authentication.k8s.io", 17700),
    ("authorization.k8s.io", 17600),
    ("autoscaling", 17500),
    ("batch", 17400),
    ("certificates.k8s.io", 17300),
    ("networking.k8s.io", 17200),
    ("policy", 17100),
    ("rbac.authorization.k8s.io", 17000),
    ("storage.k8s.io", 16800),
    ("apiextensions.k8s.io", 16700),
    ("admissionregistration.k8s.io", 16700),
    ("scheduling.k8s.io", 16600),
    ("coordination.k8s.io", 16500),
    ("node.k8s.io", 16300),
    ("discovery.k8s.io", 16200),
    ("flowcontrol.apiserver.k8s.io", 16100),
    ("resource.k8s.io", 15900),
];

/// One for each group and version but the group of the APIServices themselves.
pub(super) fn objects(discovery: &Discovery) -> Vec<Made> {
    let served = discovery.group_versions().filter(|(g, _)| *g != GROUP);
    served
        .map(|(group, version)| {
            let rank = PRIORITIES.iter().find(|(g, _)| *g == group);
            let mut spec = json!({
                "version": version,
                "groupPriorityMinimum": rank.map_or(1000, |(_, p)| *p),
                "versionPriority": version_priority(group, version),
            });
            if !group.is_empty() {
                spec["group"] = group.into();
            }
            Made {
                group: GROUP,
                plural: "apiservices",
                namespace: "",
                object: json!({
                    "metadata": {"name": format!("{version}.{group}"), "labels": {AUTOMANAGED: "onstart"}},
                    "spec": spec,
                }),
            }
        })
        .collect()
}

fn version_priority(group: &str, version: &str) -> u32 {
    match (group, version) {
        ("", _) => 1,
        ("autoscaling", "v2") => 30,
        _ => 15,
    }
}
