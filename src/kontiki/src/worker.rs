//! The worker's parts, put together: containerd, pod network, service proxy, cluster DNS, kubelet.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use ipnet::{IpNet, Ipv4Net};
use kontiki_base::{Metrics, Tasks};
use kontiki_client::Kubeconfig;
use kontiki_dns::{Dns, DnsConfig};
use kontiki_host::Network;
use kontiki_host::cgroups::KernelCgroups;
use kontiki_kubelet::Kubelet;
use kontiki_network::{NetworkConfig, PodNetwork};
use kontiki_node::{Containerd, ContainerdConfig};
use kontiki_pki::{Identity, tls};
use kontiki_proxy::{LocalVip, Protocol, Proxy, ProxyConfig};
use kontiki_reconcile::Api;

use crate::args::VERSION;
use crate::config::Config;
use crate::identities::Identities;

const DNS_PORT: u16 = 53;

/// The TLS of the kubelet's own server.
pub(crate) struct KubeletTls {
    identity: Identity,
    client_ca_pem: String,
}

impl KubeletTls {
    /// That of a master's own node.
    pub(crate) fn of_master(i: &Identities) -> KubeletTls {
        KubeletTls {
            identity: i.kubelet_server.clone(),
            client_ca_pem: i.pki.ca().cert_pem().to_owned(),
        }
    }

    /// From files; the CA is the kubeconfig's.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(crate) fn read(cert: &Path, key: &Path, kubeconfig: &Path) -> Result<KubeletTls> {
        let read = |p: &Path| {
            std::fs::read_to_string(p).with_context(|| format!("cannot read {}", p.display()))
        };
        let identity = Identity {
            cert_pem: read(cert)?,
            key_pem: read(key)?,
        };
        Ok(KubeletTls {
            identity,
            client_ca_pem: Kubeconfig::read(kubeconfig)?.ca_pem,
        })
    }
}

/// How containerd runs under this configuration.
pub(crate) fn containerd_config(config: &Config) -> ContainerdConfig {
    let mut c = ContainerdConfig::below(&config.data_dir, &config.run_dir);
    c.cni_bin_dir.clone_from(&config.cni_bin_dir);
    if let Some(binary) = &config.containerd {
        c.binary.clone_from(binary);
    }
    if let Some(socket) = &config.runtime_endpoint {
        c.socket.clone_from(socket);
        c.external = true;
    }
    c
}

fn v4(what: &str, net: IpNet) -> Result<Ipv4Net> {
    match net {
        IpNet::V4(n) => Ok(n),
        IpNet::V6(n) => bail!("{what} {n} is not an IPv4 range"),
    }
}

fn network_config(config: &Config) -> Result<NetworkConfig> {
    let runtime = containerd_config(config);
    Ok(NetworkConfig {
        cni_conf_dir: runtime.cni_conf_dir,
        cni_bin_dir: config.cni_bin_dir.clone(),
        ipam_dir: config.data_dir.join("cni/networks"),
        bridge: config.pod_bridge.clone(),
        cluster_cidr: v4("the pod range", config.cluster_cidr)?,
        service_cidr: v4("the Service range", config.service_cidr)?,
        ..NetworkConfig::new(&config.node_name)
    })
}

/// Starts the parts of a worker. When this returns packets to unknown Services are refused and the kubelet registers its node.
///
/// # Errors
/// A part cannot be started; the message says which one and why.
pub(crate) async fn start(
    config: &Config,
    api: &Arc<dyn Api>,
    tls: KubeletTls,
    metrics: &Metrics,
    tasks: &Tasks,
) -> Result<()> {
    let IpAddr::V4(node_ip) = config.node_ip else {
        bail!("--node-ip {} is not an IPv4 address", config.node_ip)
    };
    let IpAddr::V4(dns_ip) = config.cluster_dns else {
        bail!(
            "--cluster-dns {} is not an IPv4 address",
            config.cluster_dns
        )
    };
    let host = Network::system(tasks)?;

    // First what keeps packets to Services from leaving, and in the meantime containerd.
    let vip = |protocol| LocalVip {
        ip: dns_ip,
        protocol,
        port: DNS_PORT,
    };
    let proxy = ProxyConfig {
        service_cidr: v4("the Service range", config.service_cidr)?,
        cluster_cidr: Some(v4("the pod range", config.cluster_cidr)?),
        local_vips: vec![vip(Protocol::Udp), vip(Protocol::Tcp)],
        ..ProxyConfig::new(&config.node_name, node_ip)
    };
    let runtime = containerd_config(config);
    let (proxy, containerd) = tokio::join!(
        Proxy::start(proxy, api, &host, tasks, metrics),
        Containerd::start(runtime.clone(), tasks)
    );
    proxy.context("the service proxy does not start")?;
    containerd.context("the container runtime does not start")?;

    let _network = PodNetwork::start(network_config(config)?, api, &host, tasks);
    let dns = DnsConfig {
        domain: config.cluster_domain.clone(),
        resolv_conf: config.resolv_conf.clone(),
        ranges: vec![config.service_cidr, config.cluster_cidr],
        ..DnsConfig::new(vec![SocketAddr::new(config.cluster_dns, DNS_PORT)])
    };
    Dns::start(dns, api, tasks, metrics)
        .await
        .context("the cluster's DNS does not start")?;

    kontiki_node::images::ensure_pause(&runtime)
        .await
        .context("the pause image cannot be loaded")?;
    let archives = config.data_dir.join("images");
    kontiki_node::images::import_directory(&runtime, &archives).await;

    let server = tls::server(&tls.identity, &tls.client_ca_pem, &["h2", "http/1.1"])?;
    let kubelet = kontiki_kubelet::Config {
        root_dir: config.data_dir.join("kubelet"),
        pod_logs_dir: config.pod_logs_dir.clone(),
        cri_socket: runtime.socket,
        cluster_dns: vec![config.cluster_dns],
        cluster_domain: config.cluster_domain.clone(),
        resolv_conf: config.resolv_conf.clone(),
        cgroup_root: config.cgroup_root.trim_end_matches('/').to_owned(),
        pods_max: config.max_pods,
        listen: SocketAddr::new(config.bind_address, config.kubelet_port),
        version: VERSION.to_owned(),
        ..kontiki_kubelet::Config::new(&config.node_name, config.node_ip, Arc::new(server))
    };
    Kubelet::start(kubelet, api.clone(), metrics, tasks)
        .await
        .context("the kubelet does not start")?;
    Ok(())
}

/// Removes what the worker's parts made on this machine: pods, containerd, links, rules, cgroups.
///
/// # Errors
/// Something is left; the rest was tried all the same.
pub(crate) async fn tear_down(config: &Config, purge: bool) -> Result<()> {
    let runtime = containerd_config(config);
    let mut left = Vec::new();
    let mut note = |what: &str, result: Result<()>| {
        if let Err(e) = result {
            left.push(format!("{what}: {e:#}"));
        }
    };
    let tasks = Tasks::default();
    if runtime.root.exists() || runtime.external {
        // Only the runtime gives back the network of a pod: one that has died is started for it.
        let stopped = match Containerd::start(runtime.clone(), &tasks).await {
            Ok(_) => kontiki_kubelet::teardown::remove_pods(&runtime.socket)
                .await
                .map_err(anyhow::Error::from),
            Err(e) => Err(e.into()),
        };
        note("pods", stopped);
    }
    kontiki_node::teardown::remove_all(&runtime, !purge).await;
    let cgroups = KernelCgroups::default();
    let removed = kontiki_kubelet::teardown::remove_cgroups(&cgroups, &config.cgroup_root).await;
    note("the control groups of pods", removed.map_err(Into::into));
    // Kept until the tasks are stopped: its netlink task ends with it.
    let host = Network::system(&tasks);
    match &host {
        Ok(host) => {
            note(
                "the service proxy's rules",
                kontiki_proxy::cleanup(host).await.map_err(Into::into),
            );
            let network = network_config(config);
            match network {
                Ok(n) => note(
                    "the pod network",
                    kontiki_network::cleanup(&n, host).await.map_err(Into::into),
                ),
                Err(e) => note("the pod network", Err(e)),
            }
        }
        Err(e) => note("links", Err(anyhow::anyhow!("{e}"))),
    }
    tasks.stop().await;
    if purge {
        match std::fs::remove_dir_all(&config.pod_logs_dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                note("the logs of pods", Err(e.into()));
            }
            _ => {}
        }
    }
    if left.is_empty() {
        Ok(())
    } else {
        bail!("something is left: {}", left.join("; "))
    }
}
