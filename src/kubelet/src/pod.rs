//! The pod as the kubelet reads it: a view of the fields that it acts on.

use std::collections::BTreeMap;

use kontiki_api::ObjectMeta;
use kontiki_api::meta::null_is_default;
use kontiki_reconcile::View;
use serde::{Deserialize, Serialize};

pub mod resources;
pub mod volume;

pub use resources::{Qos, Resources};
pub use volume::{Volume, VolumeMount};

/// A pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct Pod {
    pub metadata: ObjectMeta,
    pub spec: PodSpec,
    pub status: PodStatus,
}

impl View for Pod {
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
}

/// `core/v1` PodSpec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct PodSpec {
    #[serde(deserialize_with = "null_is_default")]
    pub volumes: Vec<Volume>,
    #[serde(deserialize_with = "null_is_default")]
    pub init_containers: Vec<Container>,
    #[serde(deserialize_with = "null_is_default")]
    pub containers: Vec<Container>,
    pub restart_policy: RestartPolicy,
    pub termination_grace_period_seconds: Option<i64>,
    pub active_deadline_seconds: Option<i64>,
    pub dns_policy: Option<String>,
    pub dns_config: Option<DnsConfig>,
    pub service_account_name: Option<String>,
    pub node_name: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub node_selector: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_is_default", rename = "hostNetwork")]
    pub host_network: bool,
    #[serde(deserialize_with = "null_is_default", rename = "hostPID")]
    pub host_pid: bool,
    #[serde(deserialize_with = "null_is_default", rename = "hostIPC")]
    pub host_ipc: bool,
    #[serde(deserialize_with = "null_is_default")]
    pub share_process_namespace: bool,
    pub security_context: Option<PodSecurityContext>,
    #[serde(deserialize_with = "null_is_default")]
    pub image_pull_secrets: Vec<LocalReference>,
    pub hostname: Option<String>,
    pub subdomain: Option<String>,
    #[serde(rename = "setHostnameAsFQDN")]
    pub set_hostname_as_fqdn: Option<bool>,
    #[serde(deserialize_with = "null_is_default")]
    pub host_aliases: Vec<HostAlias>,
    pub enable_service_links: Option<bool>,
    #[serde(deserialize_with = "null_is_default")]
    pub readiness_gates: Vec<ReadinessGate>,
    pub runtime_class_name: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub overhead: BTreeMap<String, String>,
}

/// What happens when a container ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "the values are core/v1's")]
pub enum RestartPolicy {
    #[default]
    Always,
    OnFailure,
    Never,
}

/// A name in the pod's namespace.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct LocalReference {
    pub name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct ReadinessGate {
    pub condition_type: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct HostAlias {
    pub ip: String,
    #[serde(deserialize_with = "null_is_default")]
    pub hostnames: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct DnsConfig {
    #[serde(deserialize_with = "null_is_default")]
    pub nameservers: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub searches: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub options: Vec<DnsOption>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct DnsOption {
    pub name: String,
    pub value: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct PodSecurityContext {
    pub run_as_user: Option<i64>,
    pub run_as_group: Option<i64>,
    pub run_as_non_root: Option<bool>,
    #[serde(deserialize_with = "null_is_default")]
    pub supplemental_groups: Vec<i64>,
    pub fs_group: Option<i64>,
    pub fs_group_change_policy: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub sysctls: Vec<Sysctl>,
    pub seccomp_profile: Option<SecurityProfile>,
    pub app_armor_profile: Option<SecurityProfile>,
    pub se_linux_options: Option<SeLinuxOptions>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct SecurityContext {
    pub capabilities: Option<Capabilities>,
    pub privileged: Option<bool>,
    pub run_as_user: Option<i64>,
    pub run_as_group: Option<i64>,
    pub run_as_non_root: Option<bool>,
    pub read_only_root_filesystem: Option<bool>,
    pub allow_privilege_escalation: Option<bool>,
    pub proc_mount: Option<String>,
    pub seccomp_profile: Option<SecurityProfile>,
    pub app_armor_profile: Option<SecurityProfile>,
    pub se_linux_options: Option<SeLinuxOptions>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct Sysctl {
    pub name: String,
    pub value: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct SecurityProfile {
    #[serde(rename = "type")]
    pub kind: String,
    pub localhost_profile: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct SeLinuxOptions {
    pub user: String,
    pub role: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub level: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct Capabilities {
    #[serde(deserialize_with = "null_is_default")]
    pub add: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub drop: Vec<String>,
}

/// `core/v1` Container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct Container {
    pub name: String,
    pub image: String,
    #[serde(deserialize_with = "null_is_default")]
    pub command: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub args: Vec<String>,
    pub working_dir: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub ports: Vec<ContainerPort>,
    #[serde(deserialize_with = "null_is_default")]
    pub env_from: Vec<EnvFrom>,
    #[serde(deserialize_with = "null_is_default")]
    pub env: Vec<EnvVar>,
    #[serde(deserialize_with = "null_is_default")]
    pub resources: Resources,
    pub restart_policy: Option<RestartPolicy>,
    #[serde(deserialize_with = "null_is_default")]
    pub volume_mounts: Vec<VolumeMount>,
    pub liveness_probe: Option<Probe>,
    pub readiness_probe: Option<Probe>,
    pub startup_probe: Option<Probe>,
    pub lifecycle: Option<Lifecycle>,
    pub termination_message_path: Option<String>,
    pub termination_message_policy: Option<String>,
    pub image_pull_policy: Option<String>,
    pub security_context: Option<SecurityContext>,
    #[serde(deserialize_with = "null_is_default")]
    pub stdin: bool,
    #[serde(deserialize_with = "null_is_default")]
    pub stdin_once: bool,
    #[serde(deserialize_with = "null_is_default")]
    pub tty: bool,
}

impl Container {
    /// Whether this init container is a sidecar: it goes on running beside the main containers.
    pub fn is_sidecar(&self) -> bool {
        self.restart_policy == Some(RestartPolicy::Always)
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct ContainerPort {
    pub name: Option<String>,
    pub container_port: u16,
    pub host_port: Option<u16>,
    #[serde(rename = "hostIP")]
    pub host_ip: Option<String>,
    pub protocol: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct EnvFrom {
    pub prefix: Option<String>,
    pub config_map_ref: Option<OptionalReference>,
    pub secret_ref: Option<OptionalReference>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct OptionalReference {
    pub name: String,
    pub optional: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct EnvVar {
    pub name: String,
    pub value: Option<String>,
    pub value_from: Option<EnvVarSource>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct EnvVarSource {
    pub field_ref: Option<FieldRef>,
    pub resource_field_ref: Option<ResourceFieldRef>,
    pub config_map_key_ref: Option<KeyRef>,
    pub secret_key_ref: Option<KeyRef>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct FieldRef {
    pub field_path: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct ResourceFieldRef {
    pub container_name: Option<String>,
    pub resource: String,
    pub divisor: Option<Amount>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct KeyRef {
    pub name: String,
    pub key: String,
    pub optional: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct Probe {
    pub exec: Option<ExecAction>,
    pub http_get: Option<HttpGetAction>,
    pub tcp_socket: Option<TcpSocketAction>,
    pub grpc: Option<GrpcAction>,
    pub initial_delay_seconds: Option<u32>,
    pub timeout_seconds: Option<u32>,
    pub period_seconds: Option<u32>,
    pub success_threshold: Option<u32>,
    pub failure_threshold: Option<u32>,
    pub termination_grace_period_seconds: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct Lifecycle {
    pub post_start: Option<Handler>,
    pub pre_stop: Option<Handler>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct Handler {
    pub exec: Option<ExecAction>,
    pub http_get: Option<HttpGetAction>,
    pub tcp_socket: Option<TcpSocketAction>,
    pub sleep: Option<SleepAction>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct SleepAction {
    pub seconds: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct ExecAction {
    #[serde(deserialize_with = "null_is_default")]
    pub command: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct HttpGetAction {
    pub path: Option<String>,
    pub port: PortRef,
    pub host: Option<String>,
    pub scheme: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub http_headers: Vec<HttpHeader>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct HttpHeader {
    pub name: String,
    pub value: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct TcpSocketAction {
    pub port: PortRef,
    pub host: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct GrpcAction {
    pub port: u16,
    pub service: Option<String>,
}

/// A port by number or by the name that a container gives it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
#[allow(missing_docs, reason = "the names say it")]
pub enum PortRef {
    Number(u16),
    Name(String),
}

impl Default for PortRef {
    fn default() -> Self {
        PortRef::Number(0)
    }
}

impl PortRef {
    /// The port's number in this container, if the name is one of its ports.
    pub fn resolve(&self, container: &Container) -> Option<u16> {
        match self {
            PortRef::Number(n) => Some(*n),
            PortRef::Name(name) => {
                let named = container
                    .ports
                    .iter()
                    .find(|p| p.name.as_deref() == Some(name));
                named
                    .map(|p| p.container_port)
                    .or_else(|| name.parse().ok())
            }
        }
    }
}

/// A quantity written as text or as a number.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Amount {
    Text(String),
    Integer(i64),
    Float(f64),
}

impl Amount {
    /// The quantity; what cannot be read counts as zero, for the API server lets only quantities through.
    pub fn quantity(&self) -> kontiki_api::Quantity {
        let text = match self {
            Amount::Text(t) => t.clone(),
            Amount::Integer(i) => i.to_string(),
            Amount::Float(f) => f.to_string(),
        };
        text.parse().unwrap_or(kontiki_api::Quantity::ZERO)
    }
}

/// What the kubelet reads of a pod's status: what it has to keep.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct PodStatus {
    pub phase: Option<String>,
    pub reason: Option<String>,
    pub message: Option<String>,
    pub start_time: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub conditions: Vec<Condition>,
    #[serde(deserialize_with = "null_is_default")]
    pub container_statuses: Vec<ContainerStatusView>,
    #[serde(deserialize_with = "null_is_default")]
    pub init_container_statuses: Vec<ContainerStatusView>,
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
}

/// A container's status as last written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct ContainerStatusView {
    pub name: String,
    pub restart_count: u32,
    pub ready: bool,
    pub started: Option<bool>,
    #[serde(rename = "containerID")]
    pub container_id: Option<String>,
    pub state: serde_json::Value,
    pub last_state: serde_json::Value,
}

/// A condition of a pod or node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_heartbeat_time: Option<String>,
    pub last_probe_time: Option<String>,
    pub last_transition_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Pod {
    /// `namespace/name`, for logs.
    pub fn key(&self) -> String {
        self.metadata.key()
    }

    /// All containers in the order in which they start.
    pub fn all_containers(&self) -> impl Iterator<Item = &Container> {
        self.spec
            .init_containers
            .iter()
            .chain(&self.spec.containers)
    }

    /// The container of this name, and whether it is an init container.
    pub fn container(&self, name: &str) -> Option<(&Container, bool)> {
        let init = self
            .spec
            .init_containers
            .iter()
            .find(|c| c.name == name)
            .map(|c| (c, true));
        init.or_else(|| {
            self.spec
                .containers
                .iter()
                .find(|c| c.name == name)
                .map(|c| (c, false))
        })
    }

    /// Whether the pod has come to its end: nothing in it will run again.
    pub fn is_terminal(&self) -> bool {
        matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed"))
    }

    /// The host name in the pod: given, or the pod's name, cut to what a host name may have.
    pub fn hostname(&self) -> String {
        let name = self
            .spec
            .hostname
            .as_deref()
            .filter(|h| !h.is_empty())
            .unwrap_or(&self.metadata.name);
        name.chars()
            .take(63)
            .collect::<String>()
            .trim_end_matches(['-', '.'])
            .to_owned()
    }

    /// Seconds that the pod gets to end: those of the deletion, or its own.
    pub fn grace_seconds(&self) -> i64 {
        let of_deletion = self
            .metadata
            .deletion_timestamp
            .as_ref()
            .and(self.metadata.deletion_grace_period_seconds);
        of_deletion
            .or(self.spec.termination_grace_period_seconds)
            .unwrap_or(30)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_read_with_nulls_and_ports_of_both_kinds() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "a", "uid": "u"},
            "spec": {"volumes": null, "hostNetwork": true, "restartPolicy": "Never", "containers": [{
                "name": "c", "image": "i", "env": null,
                "ports": [{"name": "http", "containerPort": 8080}],
                "livenessProbe": {"httpGet": {"port": "http"}, "periodSeconds": 1},
                "readinessProbe": {"tcpSocket": {"port": 81}},
            }]},
            "status": {"phase": "Failed"},
        }))
        .expect("a pod");
        let c = &pod.spec.containers[0];
        let port = |p: &Option<Probe>| {
            let p = p.as_ref().expect("a probe");
            p.http_get
                .as_ref()
                .map(|h| &h.port)
                .or(p.tcp_socket.as_ref().map(|t| &t.port))
                .and_then(|p| p.resolve(c))
        };
        assert_eq!(
            (port(&c.liveness_probe), port(&c.readiness_probe)),
            (Some(8080), Some(81))
        );
        assert!(pod.spec.host_network && pod.is_terminal());
        assert_eq!(PortRef::Name("nope".into()).resolve(c), None);
    }

    #[test]
    fn the_host_name_is_cut_to_a_valid_one() {
        let mut pod = Pod::default();
        pod.metadata.name = format!("{}-{}", "x".repeat(62), "y");
        assert_eq!(pod.hostname(), "x".repeat(62));
    }
}
