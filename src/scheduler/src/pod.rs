//! [`Pod`]: what the scheduler reads of a pod, worked out once when it is read.

use std::collections::BTreeMap;

use kontiki_api::labels::{LabelSelector, Selector};
use kontiki_api::meta::null_is_default;
use kontiki_api::taints::Toleration;
use kontiki_api::{ObjectMeta, Quantity};
use kontiki_reconcile::View;
use serde::Deserialize;
use serde_json::Value;

use crate::resources::{
    ContainerRequest, MEMORY_BYTES_DEFAULT, MILLI_CPU_DEFAULT, ResourceList, Resources, pod_request,
};

/// A pod, as the scheduler sees it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "PodText")]
pub struct Pod {
    /// Its metadata, without annotations.
    pub metadata: ObjectMeta,
    /// What decides where it can go.
    pub spec: PodSpec,
    /// The node that it is bound to, or empty.
    pub node_name: String,
    /// Whether it is over (`Succeeded` or `Failed`).
    pub terminated: bool,
    /// Its conditions while it is not bound; dropped then.
    pub conditions: Vec<Value>,
    /// The node that room was made on for it, or empty.
    pub nominated_node_name: String,
}

/// What of a pod decides where it can go.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodSpec {
    /// Which scheduler is asked.
    pub scheduler_name: String,
    /// The higher, the earlier.
    pub priority: i32,
    /// Whether it may push others out.
    pub may_preempt: bool,
    /// While there are any, it is not scheduled.
    pub gates: Vec<String>,
    /// What it takes of a node.
    pub request: Resources,
    /// What it counts for in scores: containers without requests count too.
    pub score_milli_cpu: i64,
    /// As above, for memory.
    pub score_memory_bytes: i64,
    /// The node's ports that it wants.
    pub host_ports: Vec<HostPort>,
    /// Labels that the node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Wishes about nodes and other pods.
    pub affinity: Affinity,
    /// The taints that it bears.
    pub tolerations: Vec<Toleration>,
    /// How it is to be spread.
    pub spread: Vec<TopologySpreadConstraint>,
}

/// A port of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The address that is listened on; `0.0.0.0` for all.
    pub ip: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The port.
    pub port: u16,
}

impl HostPort {
    /// Whether both cannot be had on one node.
    pub fn conflicts(&self, other: &HostPort) -> bool {
        const ALL: &str = "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || self.ip == ALL || other.ip == ALL)
    }
}

/// `spec.affinity`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are the API's")]
pub struct Affinity {
    #[serde(deserialize_with = "null_is_default")]
    pub node_affinity: NodeAffinity,
    #[serde(deserialize_with = "null_is_default")]
    pub pod_affinity: PodAffinity,
    #[serde(deserialize_with = "null_is_default")]
    pub pod_anti_affinity: PodAffinity,
}

/// `spec.affinity.nodeAffinity`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NodeAffinity {
    /// The node must match one of these terms.
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub required: Option<NodeSelector>,
    /// The node had better match.
    #[serde(
        rename = "preferredDuringSchedulingIgnoredDuringExecution",
        deserialize_with = "null_is_default"
    )]
    pub preferred: Vec<PreferredNode>,
}

/// Terms of which one has to match.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSelector {
    /// The terms.
    #[serde(deserialize_with = "null_is_default")]
    pub node_selector_terms: Vec<NodeSelectorTerm>,
}

/// Expressions that all have to match; a term without any matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSelectorTerm {
    /// Over labels.
    #[serde(deserialize_with = "null_is_default")]
    pub match_expressions: Vec<NodeSelectorRequirement>,
    /// Over fields (`metadata.name`).
    #[serde(deserialize_with = "null_is_default")]
    pub match_fields: Vec<NodeSelectorRequirement>,
}

/// One expression.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are the API's")]
pub struct NodeSelectorRequirement {
    pub key: String,
    pub operator: String,
    #[serde(deserialize_with = "null_is_default")]
    pub values: Vec<String>,
}

/// A wish about the node, with its weight.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are the API's")]
pub struct PreferredNode {
    pub weight: i64,
    pub preference: NodeSelectorTerm,
}

/// `spec.affinity.podAffinity` or `podAntiAffinity`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PodAffinity {
    /// All of these have to hold.
    #[serde(
        rename = "requiredDuringSchedulingIgnoredDuringExecution",
        deserialize_with = "null_is_default"
    )]
    pub required: Vec<PodAffinityTerm>,
    /// These had better hold.
    #[serde(
        rename = "preferredDuringSchedulingIgnoredDuringExecution",
        deserialize_with = "null_is_default"
    )]
    pub preferred: Vec<PreferredPods>,
}

/// Pods in the same topology domain.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are the API's")]
pub struct PodAffinityTerm {
    #[serde(deserialize_with = "selector_or_nothing")]
    pub label_selector: Matches,
    #[serde(deserialize_with = "null_is_default")]
    pub namespaces: Vec<String>,
    #[serde(deserialize_with = "selector_or_nothing")]
    pub namespace_selector: Matches,
    pub topology_key: String,
    #[serde(deserialize_with = "null_is_default")]
    pub match_label_keys: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub mismatch_label_keys: Vec<String>,
}

/// A wish about other pods, with its weight.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are the API's")]
pub struct PreferredPods {
    pub weight: i64,
    pub pod_affinity_term: PodAffinityTerm,
}

/// `spec.topologySpreadConstraints[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are the API's")]
pub struct TopologySpreadConstraint {
    pub max_skew: i64,
    pub topology_key: String,
    pub when_unsatisfiable: String,
    #[serde(deserialize_with = "selector_or_nothing")]
    pub label_selector: Matches,
    pub min_domains: Option<i64>,
    pub node_affinity_policy: Option<String>,
    pub node_taints_policy: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub match_label_keys: Vec<String>,
}

/// A label selector; one that was not given matches nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Matches(pub Selector);

impl Default for Matches {
    fn default() -> Self {
        Matches(Selector::nothing())
    }
}

fn selector_or_nothing<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Matches, D::Error> {
    let given = Option::<LabelSelector>::deserialize(d)?;
    // A selector with an operator that is none is refused by the API; here it matches nothing.
    Ok(Matches(
        given
            .and_then(|s| s.to_selector().ok())
            .unwrap_or_else(Selector::nothing),
    ))
}

#[derive(Deserialize)]
struct PodText {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: SpecText,
    #[serde(default)]
    status: StatusText,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SpecText {
    node_name: String,
    scheduler_name: String,
    priority: Option<i32>,
    preemption_policy: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    scheduling_gates: Vec<Gate>,
    #[serde(deserialize_with = "null_is_default")]
    containers: Vec<ContainerText>,
    #[serde(deserialize_with = "null_is_default")]
    init_containers: Vec<ContainerText>,
    #[serde(deserialize_with = "null_is_default")]
    overhead: ResourceList,
    #[serde(deserialize_with = "null_is_default")]
    resources: ResourcesText,
    #[serde(deserialize_with = "null_is_default")]
    node_selector: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_is_default")]
    affinity: Affinity,
    #[serde(deserialize_with = "null_is_default")]
    tolerations: Vec<Toleration>,
    #[serde(deserialize_with = "null_is_default")]
    topology_spread_constraints: Vec<TopologySpreadConstraint>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Gate {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerText {
    #[serde(deserialize_with = "null_is_default")]
    resources: ResourcesText,
    #[serde(deserialize_with = "null_is_default")]
    ports: Vec<PortText>,
    restart_policy: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ResourcesText {
    #[serde(deserialize_with = "null_is_default")]
    requests: ResourceList,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PortText {
    host_port: u16,
    #[serde(rename = "hostIP")]
    host_ip: String,
    protocol: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StatusText {
    phase: String,
    #[serde(deserialize_with = "null_is_default")]
    conditions: Vec<Value>,
    nominated_node_name: String,
}

fn requests(
    containers: &[ContainerText],
    read: impl Fn(&ResourceList) -> Resources,
) -> Vec<ContainerRequest> {
    containers
        .iter()
        .map(|c| ContainerRequest {
            requests: read(&c.resources.requests),
            restartable: c.restart_policy.as_deref() == Some("Always"),
        })
        .collect()
}

fn request(s: &SpecText, read: impl Fn(&ResourceList) -> Resources) -> Resources {
    let (containers, init) = (
        requests(&s.containers, &read),
        requests(&s.init_containers, &read),
    );
    let overhead = Resources::read(&s.overhead);
    let mut total = pod_request(&containers, &init, &overhead);
    // Requests of the pod as a whole take the place of its containers' for the resources that they name.
    let whole = &s.resources.requests;
    let amount = |name: &str| whole.get(name).and_then(|q| q.parse::<Quantity>().ok());
    if let Some(q) = amount("cpu") {
        total.milli_cpu = q.millis() + overhead.milli_cpu;
    }
    if let Some(q) = amount("memory") {
        total.memory_bytes = q.units() + overhead.memory_bytes;
    }
    total
}

impl From<PodText> for Pod {
    fn from(t: PodText) -> Pod {
        let (mut metadata, s) = (t.metadata, t.spec);
        // What is not read is not kept.
        metadata.annotations.clear();
        metadata.finalizers.clear();
        let scored = request(&s, |list| {
            let mut r = Resources::read(list);
            r.milli_cpu = if list.contains_key("cpu") {
                r.milli_cpu
            } else {
                MILLI_CPU_DEFAULT
            };
            r.memory_bytes = if list.contains_key("memory") {
                r.memory_bytes
            } else {
                MEMORY_BYTES_DEFAULT
            };
            r
        });
        let all = |t: &str, or: &str| {
            if t.is_empty() {
                or.to_owned()
            } else {
                t.to_owned()
            }
        };
        let ports = s.containers.iter().chain(
            s.init_containers
                .iter()
                .filter(|c| c.restart_policy.is_some()),
        );
        let host_ports = ports
            .flat_map(|c| &c.ports)
            .filter(|p| p.host_port != 0)
            .map(|p| HostPort {
                ip: all(&p.host_ip, "0.0.0.0"),
                protocol: all(&p.protocol, "TCP"),
                port: p.host_port,
            })
            .collect();
        let spec = PodSpec {
            priority: s.priority.unwrap_or(0),
            may_preempt: s.preemption_policy.as_deref() != Some("Never"),
            gates: s.scheduling_gates.iter().map(|g| g.name.clone()).collect(),
            request: request(&s, Resources::read),
            score_milli_cpu: scored.milli_cpu,
            score_memory_bytes: scored.memory_bytes,
            host_ports,
            scheduler_name: s.scheduler_name,
            node_selector: s.node_selector,
            affinity: s.affinity,
            tolerations: s.tolerations,
            spread: s.topology_spread_constraints,
        };
        let bound = !s.node_name.is_empty();
        Pod {
            metadata,
            spec,
            node_name: s.node_name,
            terminated: matches!(t.status.phase.as_str(), "Succeeded" | "Failed"),
            conditions: if bound {
                Vec::new()
            } else {
                t.status.conditions
            },
            nominated_node_name: t.status.nominated_node_name,
        }
    }
}

impl View for Pod {
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_read_and_what_it_needs_worked_out() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "annotations": {"a": "b"}},
            "spec": {
                "schedulerName": "default-scheduler", "priority": 7, "preemptionPolicy": "Never",
                "containers": [
                    {"resources": {"requests": {"cpu": "250m", "memory": "64Mi"}}, "ports": [{"hostPort": 80}, {"containerPort": 9}]},
                    {"resources": {}}
                ],
                "initContainers": [{"restartPolicy": "Always", "resources": {"requests": {"cpu": "50m"}}}],
                "overhead": {"cpu": "10m"}, "schedulingGates": [{"name": "g"}], "affinity": null,
                "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]
            },
            "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled"}]}
        }))
        .expect("a pod");
        assert_eq!(pod.spec.request.milli_cpu, 310);
        assert_eq!(pod.spec.score_milli_cpu, 410);
        assert_eq!(
            pod.spec.score_memory_bytes,
            (64 << 20) + 2 * MEMORY_BYTES_DEFAULT
        );
        assert_eq!(
            pod.spec.host_ports,
            [HostPort {
                ip: "0.0.0.0".into(),
                protocol: "TCP".into(),
                port: 80
            }]
        );
        assert!(!pod.spec.may_preempt && pod.metadata.annotations.is_empty());
        assert!(
            !pod.spec.spread[0]
                .label_selector
                .0
                .matches(&pod.metadata.labels),
            "no selector matches nothing"
        );
    }

    #[test]
    fn requests_of_the_pod_as_a_whole_come_first() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p"},
            "spec": {"resources": {"requests": {"cpu": "2"}}, "containers": [{"resources": {"requests": {"cpu": "1", "memory": "1Mi"}}}]}
        }))
        .expect("a pod");
        assert_eq!(
            (pod.spec.request.milli_cpu, pod.spec.request.memory_bytes),
            (2000, 1 << 20)
        );
    }
}
