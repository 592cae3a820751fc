//! Which UDP flows a change makes stale.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use kontiki_host::UdpFlow;

use crate::plan::{Changes, Plan, PortKey, PortPlan, Protocol};

/// The flows that lead to endpoints which a port no longer has, and (with no endpoint named) those that began while it had
/// none: the kernel would go on to treat either as it did before.
pub(crate) fn flows(before: &Plan, changes: &Changes) -> Vec<UdpFlow> {
    let mut out = Vec::new();
    let set = changes.set.iter().map(|(k, p)| (k, Some(&**p)));
    let removed = changes.removed.iter().map(|k| (k, None));
    for (key, new) in set
        .chain(removed)
        .filter(|(k, _)| k.protocol == Protocol::Udp)
    {
        port_flows(key, before.get(key).map(|p| &**p), new, &mut out);
    }
    out
}

fn endpoints(plan: Option<&PortPlan>) -> BTreeSet<Ipv4Addr> {
    let targets = plan
        .into_iter()
        .flat_map(|p| [&p.internal, &p.external, &p.inside]);
    targets.flat_map(|t| t.endpoints()).map(|e| e.ip).collect()
}

/// The addresses and ports that clients send to; no address stands for the node's own.
fn fronts(key: &PortKey, plan: &PortPlan) -> BTreeSet<(Option<Ipv4Addr>, u16)> {
    let ips = plan
        .cluster_ips
        .iter()
        .chain(&plan.external_ips)
        .chain(&plan.balancer_ips);
    ips.map(|ip| (Some(*ip), key.port))
        .chain(plan.node_port.map(|n| (None, n)))
        .collect()
}

fn port_flows(
    key: &PortKey,
    old: Option<&PortPlan>,
    new: Option<&PortPlan>,
    out: &mut Vec<UdpFlow>,
) {
    let (was, is) = (endpoints(old), endpoints(new));
    let (old_fronts, new_fronts) = (
        old.map(|p| fronts(key, p)).unwrap_or_default(),
        new.map(|p| fronts(key, p)).unwrap_or_default(),
    );
    for (address, port) in &old_fronts {
        let front_is_gone = !new_fronts.contains(&(*address, *port));
        for endpoint in was.iter().filter(|e| front_is_gone || !is.contains(e)) {
            out.push(UdpFlow {
                address: *address,
                port: *port,
                endpoint: Some(*endpoint),
            });
        }
    }
    if !is.is_empty() {
        let begun = new_fronts
            .iter()
            .filter(|f| was.is_empty() || !old_fronts.contains(f));
        out.extend(begun.map(|(address, port)| UdpFlow {
            address: *address,
            port: *port,
            endpoint: None,
        }));
    }
}
