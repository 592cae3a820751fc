//! What the node has to do for each service port, whatever carries it out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;

use crate::views::{EndpointSlice, HEADLESS_LABEL, PROXY_NAME_LABEL, Service, ServicePort};

/// How long a client stays with its endpoint if the service does not say (API default).
const AFFINITY_SECONDS_DEFAULT: u32 = 10_800;

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "they say it themselves")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// The protocol of this name in the API; the API's default is TCP.
    pub fn parse(name: &str) -> Option<Protocol> {
        match name {
            "TCP" | "" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            _ => None,
        }
    }

    /// The name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortKey {
    /// Namespace of the service.
    pub namespace: String,
    /// Name of the service.
    pub service: String,
    /// Protocol of the port.
    pub protocol: Protocol,
    /// Number of the port.
    pub port: u16,
}

impl fmt::Display for PortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}/{}/{}",
            self.namespace,
            self.service,
            self.protocol.name(),
            self.port
        )
    }
}

/// Where a connection can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Address of the pod.
    pub ip: Ipv4Addr,
    /// Port of the pod.
    pub port: u16,
    /// Whether it is on this node.
    pub local: bool,
}

/// What becomes of a packet for which there is no endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nowhere {
    /// Its sender is told.
    Reject,
    /// It is dropped: there are endpoints elsewhere, and only the node is the wrong one.
    Drop,
}

/// Where packets of one kind (from inside, from outside) go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To one of these; there is at least one.
    Endpoints(Vec<Endpoint>),
    /// Nowhere.
    Nowhere(Nowhere),
}

impl Target {
    /// The endpoints, or none.
    pub fn endpoints(&self) -> &[Endpoint] {
        match self {
            Target::Endpoints(e) => e,
            Target::Nowhere(_) => &[],
        }
    }
}

/// What the node does for one port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortPlan {
    /// The cluster addresses; there is one in a single-stack cluster.
    pub cluster_ips: Vec<Ipv4Addr>,
    /// Addresses outside of the cluster whose packets the node takes if they come by: `externalIPs`.
    pub external_ips: Vec<Ipv4Addr>,
    /// Addresses of load balancers.
    pub balancer_ips: Vec<Ipv4Addr>,
    /// Who may use the balancer addresses; empty for all.
    pub source_ranges: Vec<Ipv4Net>,
    /// The port on the node's own addresses.
    pub node_port: Option<u16>,
    /// Seconds that a client stays with its endpoint; `None` for no affinity.
    pub affinity_seconds: Option<u32>,
    /// Where packets to the cluster address go (`internalTrafficPolicy`).
    pub internal: Target,
    /// Where packets to the external addresses and the node port go (`externalTrafficPolicy`).
    pub external: Target,
    /// Whether `external` is limited to this node, so that the client's address can stay.
    pub external_local: bool,
    /// Where pods of this node, and the node itself, go for an external address: policies on the way in are not for them.
    pub inside: Target,
}

/// Everything that the node does for services.
pub type Plan = BTreeMap<PortKey, Arc<PortPlan>>;

/// How one plan becomes another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Ports that are new or changed.
    pub set: Vec<(PortKey, Arc<PortPlan>)>,
    /// Ports that are gone.
    pub removed: Vec<PortKey>,
}

impl Changes {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.removed.is_empty()
    }

    /// Carries the changes out on a plan.
    pub fn apply(&self, plan: &mut Plan) {
        for key in &self.removed {
            plan.remove(key);
        }
        plan.extend(self.set.iter().cloned());
    }
}

/// How `old` becomes `new`; both may be parts of a plan, such as the ports of a single service.
pub fn diff(old: &Plan, new: &Plan) -> Changes {
    let set = new
        .iter()
        .filter(|(k, v)| old.get(k) != Some(v))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    let removed = old
        .keys()
        .filter(|k| !new.contains_key(k))
        .cloned()
        .collect();
    Changes { set, removed }
}

/// The part of the plan that is one service's.
pub fn service(service: &Service, slices: &[Arc<EndpointSlice>], node_name: &str) -> Plan {
    let spec = &service.spec;
    let labels = &service.metadata.labels;
    let not_ours = labels.contains_key(PROXY_NAME_LABEL) || spec.type_ == "ExternalName";
    let all_ips = if spec.cluster_ips.is_empty() {
        std::slice::from_ref(&spec.cluster_ip)
    } else {
        &spec.cluster_ips
    };
    let cluster_ips: Vec<Ipv4Addr> = all_ips.iter().filter_map(|ip| ip.parse().ok()).collect();
    if not_ours || cluster_ips.is_empty() {
        return Plan::new();
    }
    let mut plan = Plan::new();
    for port in &spec.ports {
        let Some(protocol) = Protocol::parse(&port.protocol) else {
            continue;
        };
        let key = PortKey {
            namespace: service.metadata.namespace.clone(),
            service: service.metadata.name.clone(),
            protocol,
            port: port.port,
        };
        let candidates = candidates(slices, port, protocol, node_name);
        plan.insert(
            key,
            Arc::new(port_plan(service, port, &cluster_ips, &candidates)),
        );
    }
    plan
}

/// An endpoint as the slices give it, before policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    endpoint: Endpoint,
    ready: bool,
    /// Not ready for new work, but still able to do it: the last resort.
    finishing: bool,
}

fn candidates(
    slices: &[Arc<EndpointSlice>],
    port: &ServicePort,
    protocol: Protocol,
    node_name: &str,
) -> Vec<Candidate> {
    // An endpoint can be in two slices while it moves from one to the other; the ready one counts.
    let mut found: BTreeMap<(Ipv4Addr, u16), Candidate> = BTreeMap::new();
    let ours = slices
        .iter()
        .filter(|s| s.address_type == "IPv4" && !s.metadata.labels.contains_key(HEADLESS_LABEL));
    for slice in ours {
        let numbers = slice.ports.iter().filter(|p| {
            p.name.as_deref().unwrap_or_default() == port.name
                && Protocol::parse(p.protocol.as_deref().unwrap_or_default()) == Some(protocol)
        });
        for number in numbers.filter_map(|p| p.port) {
            for e in &slice.endpoints {
                let Some(ip) = e.addresses.first().and_then(|a| a.parse().ok()) else {
                    continue;
                };
                let ready = e.conditions.ready.unwrap_or(true);
                let serving = e.conditions.serving.unwrap_or(ready);
                let endpoint = Endpoint {
                    ip,
                    port: number,
                    local: e.node_name.as_deref() == Some(node_name),
                };
                let finishing = !ready && serving && e.conditions.terminating == Some(true);
                let c = Candidate {
                    endpoint,
                    ready,
                    finishing,
                };
                let seen = found.entry((ip, number)).or_insert(c);
                if !seen.ready && (c.ready || c.finishing) {
                    *seen = c;
                }
            }
        }
    }
    found.into_values().collect()
}

/// The ready ones among the candidates, or if none is ready those that can still finish work.
fn usable(candidates: &[Candidate], only_local: bool) -> Vec<Endpoint> {
    let pick = |choose: fn(&Candidate) -> bool| -> Vec<Endpoint> {
        candidates
            .iter()
            .filter(|c| choose(c) && (!only_local || c.endpoint.local))
            .map(|c| c.endpoint)
            .collect()
    };
    let ready = pick(|c| c.ready);
    if ready.is_empty() {
        pick(|c| c.finishing)
    } else {
        ready
    }
}

fn port_plan(
    service: &Service,
    port: &ServicePort,
    cluster_ips: &[Ipv4Addr],
    candidates: &[Candidate],
) -> PortPlan {
    let spec = &service.spec;
    let everywhere = usable(candidates, false);
    let here = usable(candidates, true);
    let target = |local: bool| match (local, &here, &everywhere) {
        (true, here, _) if !here.is_empty() => Target::Endpoints(here.clone()),
        (false, _, all) if !all.is_empty() => Target::Endpoints(all.clone()),
        (true, _, all) if !all.is_empty() => Target::Nowhere(Nowhere::Drop),
        _ => Target::Nowhere(Nowhere::Reject),
    };
    let affinity = || {
        let config = spec
            .session_affinity_config
            .as_ref()
            .and_then(|c| c.client_ip.as_ref());
        config
            .and_then(|c| c.timeout_seconds)
            .unwrap_or(AFFINITY_SECONDS_DEFAULT)
    };
    let exposed = matches!(spec.type_.as_str(), "NodePort" | "LoadBalancer");
    let balancer = (spec.type_ == "LoadBalancer").then_some(&service.status.load_balancer.ingress);
    let by_vip = balancer
        .into_iter()
        .flatten()
        .filter(|i| i.ip_mode.as_deref() != Some("Proxy"));
    let external_local = spec.external_traffic_policy == "Local";
    PortPlan {
        cluster_ips: cluster_ips.to_vec(),
        external_ips: addresses(spec.external_ips.iter().map(String::as_str)),
        balancer_ips: addresses(by_vip.map(|i| i.ip.as_str())),
        source_ranges: spec
            .load_balancer_source_ranges
            .iter()
            .filter_map(|r| r.trim().parse().ok())
            .collect(),
        node_port: (exposed && port.node_port > 0).then_some(port.node_port),
        affinity_seconds: (spec.session_affinity == "ClientIP").then(affinity),
        internal: target(spec.internal_traffic_policy.as_deref() == Some("Local")),
        external: target(external_local),
        external_local,
        inside: target(false),
    }
}

fn addresses<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<Ipv4Addr> {
    texts
        .filter_map(|t| t.parse().ok())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

#[cfg(test)]
mod tests;
