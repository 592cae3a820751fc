//! What a kubelet is started with.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The settings of one node's kubelet.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name of the Node object.
    pub node_name: String,
    /// The node's address.
    pub node_ip: IpAddr,
    /// Labels that the node registers with, beside those that every node has.
    pub node_labels: Vec<(String, String)>,
    /// Annotations that the node registers with.
    pub node_annotations: Vec<(String, String)>,
    /// Taints that the node registers with: key, value, effect.
    pub node_taints: Vec<(String, String, String)>,
    /// Where pods' volumes and other files are kept.
    pub root_dir: PathBuf,
    /// Where the logs of containers are.
    pub pod_logs_dir: PathBuf,
    /// The runtime's socket.
    pub cri_socket: PathBuf,
    /// The addresses of the cluster's DNS service.
    pub cluster_dns: Vec<IpAddr>,
    /// The cluster's domain.
    pub cluster_domain: String,
    /// The resolver configuration of the machine.
    pub resolv_conf: PathBuf,
    /// The control group that the pods' groups are made in; empty for the root.
    pub cgroup_root: String,
    /// The most pods.
    pub pods_max: u32,
    /// CPU kept from pods, in thousandths of a core.
    pub reserved_cpu_millis: i64,
    /// Memory kept from pods.
    pub reserved_memory_bytes: i64,
    /// Where the node's API is served; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The TLS of the node's API. It must ask for client certificates of the cluster's CA.
    pub tls: Arc<rustls::ServerConfig>,
    /// The version that the node reports.
    pub version: String,
    /// The size at which a container's log is begun anew.
    pub log_bytes_max: u64,
    /// How many files of a container's log are kept.
    pub log_files_max: usize,
    /// How often the lease is renewed.
    pub lease_renew_interval: Duration,
}

impl Config {
    /// The defaults for a node of this name and address.
    pub fn new(
        node_name: impl Into<String>,
        node_ip: IpAddr,
        tls: Arc<rustls::ServerConfig>,
    ) -> Config {
        Config {
            node_name: node_name.into(),
            node_ip,
            node_labels: Vec::new(),
            node_annotations: Vec::new(),
            node_taints: Vec::new(),
            root_dir: PathBuf::from("/var/lib/kontiki/kubelet"),
            pod_logs_dir: PathBuf::from("/var/log/pods"),
            cri_socket: PathBuf::from("/run/kontiki/containerd.sock"),
            cluster_dns: vec![IpAddr::from([10, 96, 0, 10])],
            cluster_domain: "cluster.local".to_owned(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            cgroup_root: String::new(),
            pods_max: 110,
            reserved_cpu_millis: 0,
            reserved_memory_bytes: 100 << 20,
            listen: SocketAddr::from(([0, 0, 0, 0], 10250)),
            tls,
            version: concat!("v1.36.0+kontiki", env!("CARGO_PKG_VERSION")).to_owned(),
            log_bytes_max: 10 << 20,
            log_files_max: 5,
            lease_renew_interval: Duration::from_secs(10),
        }
    }
}
