//! The configuration of a node: one struct, its defaults in one place, read from a file and then from flags.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use serde::Deserialize;

/// Everything that can be set. A flag goes before the file, the file before the default.
#[derive(Clone, Debug, Default, Deserialize, clap::Args)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Options {
    /// Where state is kept [default: /var/lib/kontiki]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where keys, certificates and kubeconfigs are kept [default: /etc/kontiki]
    #[arg(long, value_name = "DIR")]
    pub(crate) config_dir: Option<PathBuf>,
    /// Where sockets and process ids are kept [default: /run/kontiki]
    #[arg(long, value_name = "DIR")]
    pub(crate) run_dir: Option<PathBuf>,
    /// Where the logs of pods are kept [default: /var/log/pods]
    #[arg(long, value_name = "DIR")]
    pub(crate) pod_logs_dir: Option<PathBuf>,
    /// Address that the API server listens on [default: 0.0.0.0]
    #[arg(long, value_name = "IP")]
    pub(crate) bind_address: Option<IpAddr>,
    /// Port of the API server [default: 6443]
    #[arg(long, value_name = "PORT")]
    pub(crate) secure_port: Option<u16>,
    /// Address at which others reach this API server [default: the node's address]
    #[arg(long, value_name = "IP")]
    pub(crate) advertise_address: Option<IpAddr>,
    /// Further names and addresses for the API server's certificate
    #[arg(long, value_name = "NAME|IP", value_delimiter = ',')]
    pub(crate) tls_san: Option<Vec<String>>,
    /// Range that the addresses of Services come from [default: 10.96.0.0/12]
    #[arg(long, value_name = "CIDR")]
    pub(crate) service_cluster_ip_range: Option<IpNet>,
    /// Range that the addresses of pods come from [default: 10.244.0.0/16]
    #[arg(long, value_name = "CIDR")]
    pub(crate) cluster_cidr: Option<IpNet>,
    /// Ports that NodePort Services come from [default: 30000-32767]
    #[arg(long, value_name = "FIRST-LAST")]
    pub(crate) service_node_port_range: Option<String>,
    /// Address of the cluster's DNS [default: the tenth of the Service range]
    #[arg(long, value_name = "IP")]
    pub(crate) cluster_dns: Option<IpAddr>,
    /// Domain of the cluster [default: cluster.local]
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) cluster_domain: Option<String>,
    /// Controllers to run: '*' for all, NAME for one, -NAME for all but one, '' for none and no scheduler [default: *]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) controllers: Option<Vec<String>>,
    /// Name of this node [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) node_name: Option<String>,
    /// Address of this node [default: that of the default route, else the first that is not loopback]
    #[arg(long, value_name = "IP")]
    pub(crate) node_ip: Option<IpAddr>,
    /// Port of the kubelet [default: 10250]
    #[arg(long, value_name = "PORT")]
    pub(crate) kubelet_port: Option<u16>,
    /// How many pods this node takes [default: 110]
    #[arg(long, value_name = "N")]
    pub(crate) max_pods: Option<u32>,
    /// Socket of a containerd that runs already, instead of one of our own
    #[arg(long, value_name = "SOCKET")]
    pub(crate) container_runtime_endpoint: Option<PathBuf>,
    /// The containerd to start [default: found in PATH]
    #[arg(long, value_name = "FILE")]
    pub(crate) containerd: Option<PathBuf>,
    /// Where the CNI plugins are [default: /usr/lib/cni, else /opt/cni/bin]
    #[arg(long, value_name = "DIR")]
    pub(crate) cni_bin_dir: Option<PathBuf>,
    /// The bridge that pods are connected to [default: kontiki0]
    #[arg(long, value_name = "LINK")]
    pub(crate) pod_bridge: Option<String>,
    /// Parent of the cgroups of pods [default: /]
    #[arg(long, value_name = "CGROUP")]
    pub(crate) cgroup_root: Option<String>,
    /// resolv.conf with the servers that names outside of the cluster are asked from [default: /etc/resolv.conf]
    #[arg(long, value_name = "FILE")]
    pub(crate) resolv_conf: Option<PathBuf>,
    /// What is logged: error, warn, info, debug, trace, or per target as in info,kontiki_raft=debug [default: info,openraft=error]
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
    /// How it is logged: text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<String>,
}

macro_rules! layer {
    ($over:expr, $under:expr, $($field:ident)*) => {
        Options { $($field: $over.$field.or($under.$field),)* }
    };
}

impl Options {
    /// These options, and where they say nothing, the others.
    fn or(self, under: Options) -> Options {
        layer!(self, under,
            data_dir config_dir run_dir pod_logs_dir bind_address secure_port advertise_address tls_san
            service_cluster_ip_range cluster_cidr service_node_port_range cluster_dns cluster_domain controllers
            node_name node_ip kubelet_port max_pods container_runtime_endpoint containerd cni_bin_dir pod_bridge
            cgroup_root resolv_conf log_level log_format)
    }
}

/// What a node runs with: every option settled and checked.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the fields are documented as options")]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) config_dir: PathBuf,
    pub(crate) run_dir: PathBuf,
    pub(crate) pod_logs_dir: PathBuf,
    pub(crate) bind_address: IpAddr,
    pub(crate) secure_port: u16,
    pub(crate) advertise_address: IpAddr,
    pub(crate) tls_san: Vec<String>,
    pub(crate) service_cidr: IpNet,
    pub(crate) cluster_cidr: IpNet,
    pub(crate) node_port_range: (u16, u16),
    pub(crate) cluster_dns: IpAddr,
    pub(crate) cluster_domain: String,
    pub(crate) controllers: Vec<String>,
    pub(crate) node_name: String,
    pub(crate) node_ip: IpAddr,
    pub(crate) kubelet_port: u16,
    pub(crate) max_pods: u32,
    pub(crate) runtime_endpoint: Option<PathBuf>,
    pub(crate) containerd: Option<PathBuf>,
    pub(crate) cni_bin_dir: PathBuf,
    pub(crate) pod_bridge: String,
    pub(crate) cgroup_root: String,
    pub(crate) resolv_conf: PathBuf,
}

/// The file that is read if no other is named and it is there.
const DEFAULT_FILE: &str = "config.yaml";
const DEFAULT_CONFIG_DIR: &str = "/etc/kontiki";
/// The name of a link is at most this long (IFNAMSIZ less the closing zero).
const LINK_NAME_BYTES_MAX: usize = 15;

/// Reads the file, if there is one, under the flags.
///
/// # Errors
/// The file cannot be read, or holds what is not an option.
pub(crate) fn with_file(flags: Options, file: Option<&Path>) -> Result<Options> {
    let dir = flags
        .config_dir
        .clone()
        .unwrap_or_else(|| DEFAULT_CONFIG_DIR.into());
    let path = file.map_or_else(|| dir.join(DEFAULT_FILE), Path::to_owned);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && file.is_none() => return Ok(flags),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
    };
    Ok(flags
        .or(parse(&text)
            .with_context(|| format!("{} is not a valid configuration", path.display()))?))
}

fn parse(text: &str) -> Result<Options> {
    if text.trim().is_empty() {
        return Ok(Options::default());
    }
    serde_yaml_ng::from_str(text).map_err(|e| {
        let message = e.to_string();
        match suggestion(&message) {
            Some(s) => anyhow::anyhow!("{message}; did you mean `{s}`?"),
            None => anyhow::anyhow!(message),
        }
    })
}

/// The known field that is closest to the unknown one of serde's message.
fn suggestion(message: &str) -> Option<String> {
    let quoted: Vec<&str> = message
        .strip_prefix("unknown field ")
        .or(message.split_once("unknown field ").map(|p| p.1))?
        .split('`')
        .collect();
    let (unknown, known) = (quoted.get(1)?, quoted.iter().skip(3).step_by(2));
    let best = known.min_by_key(|k| distance(unknown, k))?;
    (distance(unknown, best) <= best.len() / 2).then(|| (*best).to_owned())
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let next = (diagonal + usize::from(ca != *cb))
                .min(row[j] + 1)
                .min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[b.len()]
}

impl Config {
    /// Settles every option. `host` gives the machine's name and address where no option says them.
    ///
    /// # Errors
    /// An option is not valid, or two do not go together; the message says which and why.
    pub(crate) fn settle(o: Options, host: &dyn HostFacts) -> Result<Config> {
        let service_cidr = o
            .service_cluster_ip_range
            .unwrap_or_else(|| net([10, 96, 0, 0], 12))
            .trunc();
        let cluster_cidr = o
            .cluster_cidr
            .unwrap_or_else(|| net([10, 244, 0, 0], 16))
            .trunc();
        if service_cidr.contains(&cluster_cidr) || cluster_cidr.contains(&service_cidr) {
            bail!(
                "--service-cluster-ip-range {service_cidr} and --cluster-cidr {cluster_cidr} overlap; choose ranges that do not"
            );
        }
        for (flag, cidr, longest) in [
            ("--service-cluster-ip-range", service_cidr, 28),
            ("--cluster-cidr", cluster_cidr, 24),
        ] {
            if !matches!(cidr, IpNet::V4(_)) {
                bail!("{flag} {cidr} is not an IPv4 range; IPv6 is not supported yet");
            }
            if cidr.prefix_len() > longest {
                bail!("{flag} {cidr} is too small; it takes a prefix of at most /{longest}");
            }
        }
        let cluster_dns = match o.cluster_dns {
            Some(ip) if !service_cidr.contains(&ip) => {
                bail!("--cluster-dns {ip} is not in the Service range {service_cidr}")
            }
            Some(ip) => ip,
            None => nth(service_cidr, 10),
        };
        let node_ip = match o.node_ip {
            Some(ip) => ip,
            None => host
                .address()
                .context("no address was found for this node; pass one with --node-ip")?,
        };
        if service_cidr.contains(&node_ip) || cluster_cidr.contains(&node_ip) {
            bail!(
                "the node's address {node_ip} is in the Service or pod range; choose other ranges, or another --node-ip"
            );
        }
        let node_name = o.node_name.map_or_else(|| host.name(), Ok)?.to_lowercase();
        if let Some(e) = kontiki_api::names::dns1123_subdomain(&node_name).first() {
            bail!("--node-name {node_name:?} is not valid: {e}");
        }
        let cluster_domain = o.cluster_domain.unwrap_or_else(|| "cluster.local".into());
        let cluster_domain = cluster_domain.trim_end_matches('.').to_owned();
        if let Some(e) = kontiki_api::names::dns1123_subdomain(&cluster_domain).first() {
            bail!("--cluster-domain {cluster_domain:?} is not valid: {e}");
        }
        let pod_bridge = o.pod_bridge.unwrap_or_else(|| "kontiki0".into());
        if pod_bridge.is_empty()
            || pod_bridge.len() > LINK_NAME_BYTES_MAX
            || pod_bridge.contains(['/', ' '])
        {
            bail!(
                "--pod-bridge {pod_bridge:?} is not the name of a link; it takes 1 to {LINK_NAME_BYTES_MAX} characters without / and space"
            );
        }
        let max_pods = o.max_pods.unwrap_or(110);
        if max_pods == 0 || max_pods > 250 {
            bail!(
                "--max-pods {max_pods} is not between 1 and 250, which is what a node's /24 of pod addresses holds"
            );
        }
        let config = Config {
            data_dir: o.data_dir.unwrap_or_else(|| "/var/lib/kontiki".into()),
            config_dir: o.config_dir.unwrap_or_else(|| DEFAULT_CONFIG_DIR.into()),
            run_dir: o.run_dir.unwrap_or_else(|| "/run/kontiki".into()),
            pod_logs_dir: o.pod_logs_dir.unwrap_or_else(|| "/var/log/pods".into()),
            bind_address: o.bind_address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            secure_port: o.secure_port.unwrap_or(6443),
            advertise_address: o.advertise_address.unwrap_or(node_ip),
            tls_san: o.tls_san.unwrap_or_default(),
            service_cidr,
            cluster_cidr,
            node_port_range: port_range(
                o.service_node_port_range
                    .as_deref()
                    .unwrap_or("30000-32767"),
            )?,
            cluster_dns,
            cluster_domain,
            controllers: o.controllers.unwrap_or_else(|| vec!["*".into()]),
            node_name,
            node_ip,
            kubelet_port: o.kubelet_port.unwrap_or(10250),
            max_pods,
            runtime_endpoint: o.container_runtime_endpoint,
            containerd: o.containerd,
            cni_bin_dir: o.cni_bin_dir.unwrap_or_else(|| host.cni_bin_dir()),
            pod_bridge,
            cgroup_root: o.cgroup_root.unwrap_or_else(|| "/".into()),
            resolv_conf: o.resolv_conf.unwrap_or_else(|| "/etc/resolv.conf".into()),
        };
        for (flag, dir) in [
            ("--data-dir", &config.data_dir),
            ("--config-dir", &config.config_dir),
            ("--run-dir", &config.run_dir),
            ("--pod-logs-dir", &config.pod_logs_dir),
        ] {
            if !dir.is_absolute() {
                bail!("{flag} {} is not an absolute path", dir.display());
            }
        }
        Ok(config)
    }

    /// The address of the API server in the Service range: its first.
    pub(crate) fn api_service_ip(&self) -> IpAddr {
        nth(self.service_cidr, 1)
    }
}

/// What is read from the machine where no option says it.
pub(crate) trait HostFacts {
    /// The host's name.
    ///
    /// # Errors
    /// It cannot be read.
    fn name(&self) -> Result<String>;
    /// The address of the default route, else the first that is not loopback.
    fn address(&self) -> Option<IpAddr>;
    /// Where the CNI plugins are.
    fn cni_bin_dir(&self) -> PathBuf;
}

fn net(octets: [u8; 4], prefix: u8) -> IpNet {
    IpNet::new(Ipv4Addr::from(octets).into(), prefix).expect("a valid prefix")
}

fn nth(cidr: IpNet, n: u32) -> IpAddr {
    match cidr.network() {
        IpAddr::V4(a) => Ipv4Addr::from(u32::from(a) + n).into(),
        IpAddr::V6(a) => std::net::Ipv6Addr::from(u128::from(a) + u128::from(n)).into(),
    }
}

fn port_range(text: &str) -> Result<(u16, u16)> {
    let bad = || {
        format!(
            "--service-node-port-range {text:?} is not a range of ports; write it as 30000-32767"
        )
    };
    let (first, last) = text.split_once('-').with_context(bad)?;
    let (first, last): (u16, u16) = (
        first.trim().parse().ok().with_context(bad)?,
        last.trim().parse().ok().with_context(bad)?,
    );
    if first == 0 || first > last {
        bail!(bad());
    }
    Ok((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake;

    impl HostFacts for Fake {
        fn name(&self) -> Result<String> {
            Ok("Raft-1".into())
        }

        fn address(&self) -> Option<IpAddr> {
            Some(Ipv4Addr::new(192, 0, 2, 1).into())
        }

        fn cni_bin_dir(&self) -> PathBuf {
            "/usr/lib/cni".into()
        }
    }

    fn settle(yaml: &str) -> Result<Config> {
        Config::settle(parse(yaml)?, &Fake)
    }

    #[test]
    fn defaults_are_kubeadms() {
        let c = settle("").expect("valid");
        assert_eq!(c.node_name, "raft-1");
        assert_eq!(c.cluster_dns.to_string(), "10.96.0.10");
        assert_eq!(c.api_service_ip().to_string(), "10.96.0.1");
    }

    #[test]
    fn what_is_wrong_is_refused_with_the_reason() {
        for (yaml, want) in [
            ("clusterCidr: 10.96.0.0/16", "overlap"),
            ("clusterDns: 192.0.2.7", "is not in the Service range"),
            (
                "serviceNodePortRange: 32767-30000",
                "write it as 30000-32767",
            ),
            ("nodeName: a_b", "--node-name"),
            ("nodeIp: 10.244.1.1", "choose other ranges"),
            ("dataDir: here", "not an absolute path"),
            ("maxPods: 0", "between 1 and 250"),
            ("podBridge: this-name-is-too-long", "--pod-bridge"),
            ("clusterCidr: nonsense", "invalid IP address syntax"),
            ("clusterCidr: fd00::/48", "IPv6 is not supported yet"),
            ("dataDirs: /x", "did you mean `dataDir`?"),
        ] {
            let e = settle(yaml).expect_err(yaml);
            assert!(format!("{e:#}").contains(want), "{yaml}: {e:#}");
        }
    }

    #[test]
    fn flags_go_before_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("c.yaml");
        std::fs::write(&file, "maxPods: 5\nsecurePort: 7443\n").expect("written");
        let flags = Options {
            max_pods: Some(9),
            ..Options::default()
        };
        let o = with_file(flags, Some(&file)).expect("valid");
        assert_eq!((o.max_pods, o.secure_port), (Some(9), Some(7443)));
        assert!(with_file(Options::default(), Some(Path::new("/nowhere/c.yaml"))).is_err());
    }
}
