//! The loop: waits for the node's range, then sets up kernel, packet filter and CNI configuration.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use kontiki_api::ObjectMeta;
use kontiki_api::catalogue::known;
use kontiki_base::{Backoff, Tasks, chain};
use kontiki_host::command::{CommandError, Program};
use kontiki_host::sysctl::SysctlError;
use kontiki_host::{LinkError, Network, NftError, Sysctls};
use kontiki_reconcile::{Api, Cache, Selection, View};
use serde::Deserialize;
use tokio::sync::watch;

use crate::cni::{self, CniError, CniNetwork};

const TABLE: &str = "ip kontiki-network";
const RETRY_DELAY_INITIAL: Duration = Duration::from_millis(500);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(30);
/// How often to look whether everything is still there.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);
const FORWARD: &str = "net/ipv4/ip_forward";
/// Without it, the answers of a pod to a pod of the same node would take the bridge past the packet filter, and reach the
/// client with the endpoint's address instead of the service's.
const BRIDGE_FILTER: &str = "net/bridge/bridge-nf-call-iptables";
const MODPROBE: Program = Program {
    name: "modprobe",
    package: "kmod",
};

/// How pods of this node are connected.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// The node's name.
    pub node_name: String,
    /// Where CNI configuration is read from.
    pub cni_conf_dir: PathBuf,
    /// Where the CNI plugins are.
    pub cni_bin_dir: PathBuf,
    /// Where the `host-local` plugin keeps the addresses that it gave out.
    pub ipam_dir: PathBuf,
    /// The bridge that pods are connected to.
    pub bridge: String,
    /// The range of pod addresses, of all nodes.
    pub cluster_cidr: Ipv4Net,
    /// The range of service addresses.
    pub service_cidr: Ipv4Net,
    /// The size of the largest packet on the pod network; `None` for the kernel's choice.
    pub mtu_bytes: Option<u32>,
}

impl NetworkConfig {
    /// The defaults for a node: Debian's paths and kubeadm's address ranges.
    pub fn new(node_name: impl Into<String>) -> NetworkConfig {
        NetworkConfig {
            node_name: node_name.into(),
            cni_conf_dir: "/etc/cni/net.d".into(),
            cni_bin_dir: "/usr/lib/cni".into(),
            ipam_dir: "/var/lib/cni/networks".into(),
            bridge: "kontiki0".into(),
            cluster_cidr: Ipv4Net::new_assert([10, 244, 0, 0].into(), 16),
            service_cidr: Ipv4Net::new_assert([10, 96, 0, 0].into(), 12),
            mtu_bytes: None,
        }
    }
}

/// Whether pods can be connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// They cannot, for this reason.
    NotReady(String),
    /// They can; they get addresses of this range.
    Ready(Ipv4Net),
}

/// The pod network could not be set up or removed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The node's range is not one.
    #[error("the node's pod range {0:?} is not an IPv4 range")]
    PodCidr(String),
    /// A kernel setting.
    #[error("the kernel does not forward for pods")]
    Sysctl(#[from] SysctlError),
    /// The kernel cannot filter what goes over a bridge.
    #[error("the kernel module br_netfilter is needed and cannot be loaded")]
    BridgeFilter(#[source] CommandError),
    /// The packet filter.
    #[error("the masquerade of pods cannot be programmed")]
    Nft(#[from] NftError),
    /// The CNI plugins and their configuration.
    #[error("the CNI configuration is not in place")]
    Cni(#[from] CniError),
    /// The bridge.
    #[error("the bridge of the pods cannot be set up or removed")]
    Link(#[from] LinkError),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Node {
    metadata: ObjectMeta,
    spec: NodeSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NodeSpec {
    #[serde(rename = "podCIDR")]
    pod_cidr: String,
}

impl View for Node {
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
}

/// The running pod network.
#[derive(Clone, Debug)]
pub struct PodNetwork {
    status: watch::Receiver<Status>,
}

impl PodNetwork {
    /// Starts to follow the node. Returns at once; [`PodNetwork::status`] says how far it is.
    pub fn start(
        config: NetworkConfig,
        api: &Arc<dyn Api>,
        host: &Network,
        tasks: &Tasks,
    ) -> PodNetwork {
        let nodes = Cache::<Node>::default();
        let (range, ranges) = watch::channel(String::new());
        nodes.on_event(move |e| drop(range.send_replace(e.object().spec.pod_cidr.clone())));
        let field_selector = format!("metadata.name={}", config.node_name);
        nodes.follow(
            tasks,
            api,
            known::nodes(),
            Selection {
                field_selector,
                ..Selection::default()
            },
        );
        let waiting = Status::NotReady("the node has no pod range yet".into());
        let (status, seen) = watch::channel(waiting);
        let (status, token, host) = (Arc::new(status), tasks.token().clone(), host.clone());
        tasks.spawn_restarting("pod-network", move || {
            let worker = Worker {
                config: config.clone(),
                host: host.clone(),
                status: status.clone(),
            };
            let (token, ranges) = (token.clone(), ranges.clone());
            async move {
                tokio::select! {
                    () = token.cancelled() => {}
                    () = worker.run(ranges) => {}
                }
            }
        });
        PodNetwork { status: seen }
    }

    /// Whether pods can be connected.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Follows the status.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }
}

struct Worker {
    config: NetworkConfig,
    host: Network,
    status: Arc<watch::Sender<Status>>,
}

impl Worker {
    async fn run(self, mut ranges: watch::Receiver<String>) {
        let mut backoff = Backoff::new(RETRY_DELAY_INITIAL, RETRY_DELAY_MAX);
        loop {
            let range = ranges.borrow_and_update().clone();
            let wait = if range.is_empty() {
                CHECK_INTERVAL
            } else {
                match self.set_up(&range).await {
                    Ok(pod_cidr) => {
                        backoff.reset();
                        self.tell(Status::Ready(pod_cidr));
                        CHECK_INTERVAL
                    }
                    Err(e) => {
                        self.tell(Status::NotReady(chain(&e)));
                        backoff.next_delay()
                    }
                }
            };
            // The sender lives in the cache's handler; an error here means that the group ends.
            let _ = tokio::time::timeout(wait, ranges.changed()).await;
        }
    }

    fn tell(&self, new: Status) {
        let changed = self.status.send_if_modified(|old| {
            let changed = *old != new;
            old.clone_from(&new);
            changed
        });
        if changed {
            match new {
                Status::Ready(range) => {
                    tracing::info!(%range, bridge = self.config.bridge, "the pod network is ready");
                }
                Status::NotReady(reason) => tracing::warn!(reason, "the pod network is not ready"),
            }
        }
    }

    async fn set_up(&self, range: &str) -> Result<Ipv4Net, NetworkError> {
        let c = &self.config;
        let pod_cidr: Ipv4Net = range
            .parse()
            .map_err(|_| NetworkError::PodCidr(range.to_owned()))?;
        cni::check_plugins(&c.cni_bin_dir)?;
        self.host.sysctls.set(FORWARD, "1")?;
        filter_bridges(&*self.host.sysctls).await?;
        self.host.links.ensure_bridge(&c.bridge).await?;
        // To the kernel, a packet from pod to pod by way of a service leaves by the link that it came by, for which it would tell
        // the sender of a shorter way: one that leads past the service.
        for link in ["all", &c.bridge] {
            self.host
                .sysctls
                .set(&format!("net/ipv4/conf/{link}/send_redirects"), "0")?;
        }
        if !self
            .host
            .nft
            .has_chain("ip", "kontiki-network", &range_chain(pod_cidr))
            .await?
        {
            self.host.nft.run(&masquerade(c, pod_cidr)).await?;
        }
        let network = CniNetwork {
            bridge: c.bridge.clone(),
            pod_cidr,
            mtu_bytes: c.mtu_bytes,
            ipam_dir: c.ipam_dir.clone(),
        };
        cni::write(&c.cni_conf_dir, &network)?;
        Ok(pod_cidr)
    }
}

/// Lets the packet filter see what passes over bridges, loading the kernel's module if it is one.
async fn filter_bridges(sysctls: &dyn Sysctls) -> Result<(), NetworkError> {
    match sysctls.set(BRIDGE_FILTER, "1") {
        Err(e) if e.is_missing() => {
            MODPROBE
                .run(&["br_netfilter"], b"")
                .await
                .map_err(NetworkError::BridgeFilter)?;
            Ok(sysctls.set(BRIDGE_FILTER, "1")?)
        }
        other => Ok(other?),
    }
}

/// A chain whose name says what range the table was made for.
fn range_chain(pod_cidr: Ipv4Net) -> String {
    format!("range-{}-{}", pod_cidr.network(), pod_cidr.prefix_len())
}

/// The commands that make our table: packets of pods to the world outside get the node's address.
fn masquerade(c: &NetworkConfig, pod_cidr: Ipv4Net) -> String {
    let hook = "type nat hook postrouting priority 100; policy accept;";
    let inside = format!("{{ {}, {}, 224.0.0.0/4 }}", c.cluster_cidr, c.service_cidr);
    let rule = format!(
        "ip saddr {pod_cidr} ip daddr != {inside} oifname != \"{}\" masquerade fully-random",
        c.bridge
    );
    let chain = range_chain(pod_cidr);
    // Adding first makes the deletion work whether or not there is a table.
    format!(
        "add table {TABLE}\ndelete table {TABLE}\nadd table {TABLE}\nadd chain {TABLE} {chain}\n\
         add chain {TABLE} postrouting {{ {hook} }}\nadd rule {TABLE} postrouting {rule}\n"
    )
}

/// Removes everything that the pod network made on this machine. Pods must be gone.
///
/// # Errors
/// The packet filter, the bridge or the files cannot be removed; all of them are tried.
pub async fn cleanup(config: &NetworkConfig, host: &Network) -> Result<(), NetworkError> {
    let files = cni::remove(&config.cni_conf_dir, &config.ipam_dir);
    let bridge = host.links.remove_link(&config.bridge).await;
    host.nft
        .run(&format!("add table {TABLE}\ndelete table {TABLE}\n"))
        .await?;
    bridge?;
    Ok(files?)
}
