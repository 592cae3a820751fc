//! The chains, sets and elements of one service port.

use std::collections::BTreeMap;

use super::base::MARK_CHAIN;
use super::{NftablesConfig, address_key};
use crate::plan::{Endpoint, Nowhere, PortKey, PortPlan, Target};
use crate::vip::LocalVip;

/// A map or set whose elements come from the services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holder {
    /// Service addresses, to the chain that serves them.
    ServiceIps,
    /// Node ports, to the chain that serves them.
    NodePorts,
    /// Service addresses that lead nowhere.
    RefusedIps,
    /// Node ports that lead nowhere.
    RefusedNodePorts,
    /// Endpoints of this node, each paired with itself.
    Hairpin,
}

impl Holder {
    pub(super) const ALL: [Holder; 5] = [
        Holder::ServiceIps,
        Holder::NodePorts,
        Holder::RefusedIps,
        Holder::RefusedNodePorts,
        Holder::Hairpin,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Holder::ServiceIps => "service-ips",
            Holder::NodePorts => "node-ports",
            Holder::RefusedIps => "refused-ips",
            Holder::RefusedNodePorts => "refused-node-ports",
            Holder::Hairpin => "hairpin",
        }
    }

    pub(super) fn kind(self) -> &'static str {
        if self == Holder::Hairpin {
            "set"
        } else {
            "map"
        }
    }

    pub(super) fn declaration(self) -> &'static str {
        match self {
            Holder::ServiceIps | Holder::RefusedIps => {
                "type ipv4_addr . inet_proto . inet_service : verdict;"
            }
            Holder::NodePorts | Holder::RefusedNodePorts => {
                "type inet_proto . inet_service : verdict;"
            }
            Holder::Hairpin => "type ipv4_addr . ipv4_addr;",
        }
    }
}

/// A place in a map or set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Element {
    pub(super) holder: Holder,
    pub(super) key: String,
}

/// What one service port has in the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rendered {
    /// Chains with their rules.
    pub(super) chains: BTreeMap<String, Vec<String>>,
    /// Sets with their declarations.
    pub(super) sets: BTreeMap<String, String>,
    /// Elements with their values; those of sets have none.
    pub(super) elements: BTreeMap<Element, String>,
}

impl Rendered {
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.chains
            .keys()
            .chain(self.sets.keys())
            .map(String::as_str)
    }

    fn element(&mut self, holder: Holder, key: String, value: impl Into<String>) {
        self.elements.insert(Element { holder, key }, value.into());
    }
}

/// The key of a local service address.
pub(super) fn vip_key(vip: &LocalVip) -> String {
    address_key(vip.ip, vip.protocol.name(), vip.port)
}

/// What a service port has in the table.
pub(super) fn port(config: &NftablesConfig, key: &PortKey, plan: &PortPlan) -> Rendered {
    let mut out = Rendered::default();
    let protocol = key.protocol.name();
    internal(config, key, plan, &mut out);
    external(config, key, plan, &mut out);
    // The node answers on these itself, whatever the service says.
    for vip in &config.local_vips {
        for holder in [Holder::ServiceIps, Holder::RefusedIps] {
            out.elements.remove(&Element {
                holder,
                key: vip_key(vip),
            });
        }
    }
    let all = [&plan.internal, &plan.external, &plan.inside];
    for e in all.iter().flat_map(|t| t.endpoints()).filter(|e| e.local) {
        out.element(Holder::Hairpin, format!("{0} . {0}", e.ip), "");
    }
    debug_assert!(
        out.elements
            .keys()
            .all(|e| e.holder == Holder::Hairpin || e.key.contains(protocol))
    );
    out
}

/// The cluster addresses.
fn internal(config: &NftablesConfig, key: &PortKey, plan: &PortPlan, out: &mut Rendered) {
    let (holder, value) = match &plan.internal {
        Target::Endpoints(endpoints) => {
            let name = format!("svc-{key}");
            let mut rules = Vec::new();
            if config.masquerade_all {
                rules.push(format!("jump {MARK_CHAIN}"));
            } else if let Some(pods) = config.cluster_cidr {
                rules.push(format!("ip saddr != {pods} jump {MARK_CHAIN}"));
            }
            rules.extend(balance(key, plan, endpoints, out));
            out.chains.insert(name.clone(), rules);
            (Holder::ServiceIps, format!("goto {name}"))
        }
        Target::Nowhere(n) => (Holder::RefusedIps, refusal(*n).to_owned()),
    };
    for ip in &plan.cluster_ips {
        out.element(
            holder,
            address_key(*ip, key.protocol.name(), key.port),
            value.clone(),
        );
    }
}

/// External addresses, balancer addresses and the node port.
fn external(config: &NftablesConfig, key: &PortKey, plan: &PortPlan, out: &mut Rendered) {
    if plan.external_ips.is_empty() && plan.balancer_ips.is_empty() && plan.node_port.is_none() {
        return;
    }
    let protocol = key.protocol.name();
    let mut ways = Vec::new();
    if let Target::Endpoints(endpoints) = &plan.inside {
        let name = format!("ext-{key}");
        let rules = external_rules(config, key, plan, endpoints, out);
        out.chains.insert(name.clone(), rules);
        ways.push((
            Holder::ServiceIps,
            Holder::NodePorts,
            format!("goto {name}"),
        ));
    }
    if let Target::Nowhere(n) = plan.external {
        // Packets that the chain did serve have another address by the time that this is looked at.
        ways.push((
            Holder::RefusedIps,
            Holder::RefusedNodePorts,
            refusal(n).to_owned(),
        ));
    }
    for (ips, ports, value) in ways {
        for ip in &plan.external_ips {
            out.element(ips, address_key(*ip, protocol, key.port), value.clone());
        }
        for ip in &plan.balancer_ips {
            let value = if ips == Holder::ServiceIps {
                limited(key, plan, &value, out)
            } else {
                value.clone()
            };
            out.element(ips, address_key(*ip, protocol, key.port), value);
        }
        if let Some(number) = plan.node_port {
            out.element(ports, format!("{protocol} . {number}"), value);
        }
    }
}

fn external_rules(
    config: &NftablesConfig,
    key: &PortKey,
    plan: &PortPlan,
    inside: &[Endpoint],
    out: &mut Rendered,
) -> Vec<String> {
    let all = format!("all-{key}");
    let rules = balance(key, plan, inside, out);
    out.chains.insert(all.clone(), rules);
    if !plan.external_local {
        return vec![format!("jump {MARK_CHAIN}"), format!("goto {all}")];
    }
    let mut rules = Vec::new();
    if let Some(pods) = config.cluster_cidr {
        rules.push(format!("ip saddr {pods} goto {all}"));
    }
    rules.push(format!("fib saddr type local jump {MARK_CHAIN}"));
    rules.push(format!("fib saddr type local goto {all}"));
    rules.extend(balance(key, plan, plan.external.endpoints(), out));
    rules
}

/// The way to a balancer address: past the list of those who may use it, if there is one.
fn limited(key: &PortKey, plan: &PortPlan, onward: &str, out: &mut Rendered) -> String {
    if plan.source_ranges.is_empty() {
        return onward.to_owned();
    }
    let name = format!("who-{key}");
    // Each range has its rule: as elements of one set, ranges that overlap would be refused.
    let mut rules: Vec<String> = plan
        .source_ranges
        .iter()
        .map(|r| format!("ip saddr {r} {onward}"))
        .collect();
    rules.push("drop".into());
    out.chains.insert(name.clone(), rules);
    format!("goto {name}")
}

fn refusal(n: Nowhere) -> &'static str {
    match n {
        Nowhere::Reject => "goto refuse",
        Nowhere::Drop => "drop",
    }
}

/// The rules that pick one of the endpoints. Affinity needs a chain and a set for each.
fn balance(
    key: &PortKey,
    plan: &PortPlan,
    endpoints: &[Endpoint],
    out: &mut Rendered,
) -> Vec<String> {
    let protocol = key.protocol.name();
    match (endpoints, plan.affinity_seconds) {
        ([], _) => Vec::new(),
        (_, Some(seconds)) => sticky(key, endpoints, seconds, out),
        ([e], None) => vec![format!(
            "meta l4proto {protocol} dnat to {}:{}",
            e.ip, e.port
        )],
        (several, None) => {
            let list: Vec<String> = several
                .iter()
                .enumerate()
                .map(|(i, e)| format!("{i} : {} . {}", e.ip, e.port))
                .collect();
            let (n, list) = (several.len(), list.join(", "));
            vec![format!(
                "meta l4proto {protocol} dnat to numgen random mod {n} map {{ {list} }}"
            )]
        }
    }
}

fn sticky(key: &PortKey, endpoints: &[Endpoint], seconds: u32, out: &mut Rendered) -> Vec<String> {
    let protocol = key.protocol.name();
    let mut rules = Vec::new();
    let mut list = Vec::new();
    for (i, e) in endpoints.iter().enumerate() {
        let chain = format!("ep-{key}/{}/{}", e.ip, e.port);
        // The time is in the name because a set cannot be given another one.
        let set = format!("aff-{seconds}-{key}/{}/{}", e.ip, e.port);
        out.sets.insert(
            set.clone(),
            format!("{{ type ipv4_addr; flags dynamic,timeout; timeout {seconds}s; }}"),
        );
        let dnat = format!("meta l4proto {protocol} dnat to {}:{}", e.ip, e.port);
        out.chains.insert(
            chain.clone(),
            vec![format!("update @{set} {{ ip saddr }}"), dnat],
        );
        rules.push(format!("ip saddr @{set} goto {chain}"));
        list.push(format!("{i} : goto {chain}"));
    }
    rules.push(format!(
        "numgen random mod {} vmap {{ {} }}",
        list.len(),
        list.join(", ")
    ));
    rules
}
