//! [`Pod`].

use jiff::Timestamp;
use kontiki_api::ObjectMeta;
use kontiki_api::meta::null_is_default;
use kontiki_api::taints::Toleration;
use serde::Deserialize;

/// The annotation that says which pod of a set had better go first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// A pod, as the loops see it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "PodText")]
pub struct Pod {
    /// Its metadata, without annotations.
    pub metadata: ObjectMeta,
    /// Its node, or empty.
    pub node_name: String,
    /// The taints that it bears.
    pub tolerations: Vec<Toleration>,
    /// Its host name in its subdomain, or empty.
    pub hostname: String,
    /// Its subdomain, or empty.
    pub subdomain: String,
    /// The ports of its containers that have names.
    pub ports: Vec<PodPort>,
    /// Its phase.
    pub phase: String,
    /// Its addresses, the first of each family.
    pub ips: Vec<String>,
    /// Whether it is ready.
    pub ready: bool,
    /// Since when it is (not) ready.
    pub ready_since: Option<Timestamp>,
    /// How often its containers were restarted, the most of them.
    pub restarts: i64,
    /// The lower, the earlier it goes when a set shrinks.
    pub deletion_cost: i32,
}

/// A named port of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are the API's")]
pub struct PodPort {
    pub name: String,
    pub container_port: i32,
    pub protocol: String,
}

impl Pod {
    /// Whether all of its containers have ended for good.
    pub fn is_terminated(&self) -> bool {
        matches!(self.phase.as_str(), "Succeeded" | "Failed")
    }

    /// Whether it counts for its set: neither over nor being deleted.
    pub fn is_active(&self) -> bool {
        !self.is_terminated() && !self.metadata.is_deleting()
    }

    /// Whether it has been ready for so long.
    pub fn is_available(&self, min_ready_seconds: i64, now: Timestamp) -> bool {
        let long_enough =
            |since: Timestamp| since.as_second() + min_ready_seconds <= now.as_second();
        self.ready && (min_ready_seconds == 0 || self.ready_since.is_some_and(long_enough))
    }
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
    hostname: String,
    subdomain: String,
    #[serde(deserialize_with = "null_is_default")]
    tolerations: Vec<Toleration>,
    #[serde(deserialize_with = "null_is_default")]
    containers: Vec<ContainerText>,
    #[serde(deserialize_with = "null_is_default")]
    init_containers: Vec<ContainerText>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerText {
    restart_policy: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    ports: Vec<PodPort>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StatusText {
    phase: String,
    #[serde(rename = "podIP")]
    pod_ip: String,
    #[serde(rename = "podIPs", deserialize_with = "null_is_default")]
    pod_ips: Vec<Ip>,
    #[serde(deserialize_with = "null_is_default")]
    conditions: Vec<ConditionText>,
    #[serde(deserialize_with = "null_is_default")]
    container_statuses: Vec<ContainerStatusText>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Ip {
    ip: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ConditionText {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    last_transition_time: Option<Timestamp>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerStatusText {
    restart_count: i64,
}

impl From<PodText> for Pod {
    fn from(t: PodText) -> Pod {
        let (mut metadata, spec, status) = (t.metadata, t.spec, t.status);
        let deletion_cost = metadata
            .annotations
            .get(DELETION_COST)
            .and_then(|c| c.parse().ok())
            .unwrap_or(0);
        // What is not read is not kept.
        metadata.annotations.clear();
        let mut ips: Vec<String> = status.pod_ips.into_iter().map(|i| i.ip).collect();
        if ips.is_empty() && !status.pod_ip.is_empty() {
            ips.push(status.pod_ip);
        }
        let sidecars = spec
            .init_containers
            .into_iter()
            .filter(|c| c.restart_policy.as_deref() == Some("Always"));
        let ports = spec
            .containers
            .into_iter()
            .chain(sidecars)
            .flat_map(|c| c.ports);
        let ready = status.conditions.iter().find(|c| c.kind == "Ready");
        Pod {
            node_name: spec.node_name,
            tolerations: spec.tolerations,
            hostname: spec.hostname,
            subdomain: spec.subdomain,
            ports: ports.filter(|p| !p.name.is_empty()).collect(),
            phase: status.phase,
            ready: ready.is_some_and(|c| c.status == "True"),
            ready_since: ready.and_then(|c| c.last_transition_time),
            restarts: status
                .container_statuses
                .iter()
                .map(|c| c.restart_count)
                .max()
                .unwrap_or(0),
            ips,
            deletion_cost,
            metadata,
        }
    }
}
