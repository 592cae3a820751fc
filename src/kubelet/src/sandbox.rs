//! What the runtime is told of a pod: the configuration of its sandbox.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::config::Config;
use crate::cri::v1 as cri;
use crate::dns;
use crate::pod::{Container, Pod, resources};
use crate::security;

/// Labels by which sandboxes and containers are found again; other tools read them too.
pub const POD_NAME_LABEL: &str = "io.kubernetes.pod.name";
/// See [`POD_NAME_LABEL`].
pub const POD_NAMESPACE_LABEL: &str = "io.kubernetes.pod.namespace";
/// See [`POD_NAME_LABEL`].
pub const POD_UID_LABEL: &str = "io.kubernetes.pod.uid";
/// See [`POD_NAME_LABEL`].
pub const CONTAINER_NAME_LABEL: &str = "io.kubernetes.container.name";

/// The directory of a pod's logs.
pub fn log_dir(config: &Config, namespace: &str, name: &str, uid: &str) -> PathBuf {
    config
        .pod_logs_dir
        .join(format!("{namespace}_{name}_{uid}"))
}

/// The labels that say whose a sandbox or container is.
pub fn owner_labels(pod: &Pod) -> HashMap<String, String> {
    let m = &pod.metadata;
    [
        (POD_NAME_LABEL, &m.name),
        (POD_NAMESPACE_LABEL, &m.namespace),
        (POD_UID_LABEL, &m.uid),
    ]
    .map(|(k, v)| (k.to_owned(), v.clone()))
    .into()
}

/// The configuration of a pod's sandbox.
pub fn config(pod: &Pod, attempt: u32, c: &Config, resolv_conf: &str) -> cri::PodSandboxConfig {
    let m = &pod.metadata;
    let mut labels = owner_labels(pod);
    for (k, v) in &m.labels {
        labels.entry(k.clone()).or_insert_with(|| v.clone());
    }
    let resolver = dns::Resolver {
        cluster_dns: &c.cluster_dns,
        cluster_domain: &c.cluster_domain,
        resolv_conf,
    };
    let sysctls = pod.spec.security_context.iter().flat_map(|s| &s.sysctls);
    let metadata = cri::PodSandboxMetadata {
        name: m.name.clone(),
        uid: m.uid.clone(),
        namespace: m.namespace.clone(),
        attempt,
    };
    cri::PodSandboxConfig {
        metadata: Some(metadata),
        hostname: hostname(pod, &c.cluster_domain),
        log_directory: log_dir(c, &m.namespace, &m.name, &m.uid)
            .to_string_lossy()
            .into_owned(),
        dns_config: Some(dns::config(pod, &resolver)),
        port_mappings: port_mappings(pod),
        labels,
        annotations: m.annotations.clone().into_iter().collect(),
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: resources::pod_cgroup(&c.cgroup_root, pod),
            security_context: Some(security::sandbox(pod, &c.root_dir.join("seccomp"))),
            // The API writes some names with slashes, as sysctl(8) does.
            sysctls: sysctls
                .map(|s| (s.name.replace('/', "."), s.value.clone()))
                .collect(),
            overhead: None,
            resources: None,
        }),
    }
}

/// A sandbox in the machine's network must not have a host name of its own.
fn hostname(pod: &Pod, cluster_domain: &str) -> String {
    if pod.spec.host_network {
        return String::new();
    }
    let host = pod.hostname();
    match dns::pod_domain(pod, cluster_domain) {
        Some(domain) if pod.spec.set_hostname_as_fqdn == Some(true) => format!("{host}.{domain}"),
        _ => host,
    }
}

fn port_mappings(pod: &Pod) -> Vec<cri::PortMapping> {
    if pod.spec.host_network {
        return Vec::new();
    }
    let ports = pod.all_containers().flat_map(|c: &Container| &c.ports);
    ports
        .filter_map(|p| {
            let host_port = p.host_port.filter(|h| *h != 0)?;
            let protocol = match p.protocol.as_deref() {
                Some("UDP") => cri::Protocol::Udp,
                Some("SCTP") => cri::Protocol::Sctp,
                _ => cri::Protocol::Tcp,
            };
            Some(cri::PortMapping {
                protocol: protocol.into(),
                container_port: p.container_port.into(),
                host_port: host_port.into(),
                host_ip: p.host_ip.clone().unwrap_or_default(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing;

    #[test]
    fn a_sandbox_has_the_labels_that_others_look_for() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"app": "x", "io.kubernetes.pod.uid": "forged"}},
            "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}]}]},
        }))
        .expect("a pod");
        let s = config(&pod, 3, &testing::config(), "");
        assert_eq!(s.labels["app"], "x");
        assert_eq!(s.labels[POD_UID_LABEL], "u");
        assert_eq!((s.port_mappings.len(), s.hostname.as_str()), (1, "p"));
        assert_eq!(s.metadata.map(|m| m.attempt), Some(3));
        let linux = s.linux.expect("there");
        assert_eq!(linux.cgroup_parent, "/kubepods/besteffort/podu");
    }

    #[test]
    fn a_sandbox_in_the_machines_network_has_no_host_name_and_maps_no_ports() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p"},
            "spec": {"hostNetwork": true, "containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]},
        }))
        .expect("a pod");
        let s = config(&pod, 0, &testing::config(), "");
        assert_eq!((s.hostname.as_str(), s.port_mappings.len()), ("", 0));
    }
}
