//! Which UDP flows a change makes stale.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use kontiki_host::UdpFlow;

use crate::plan::{Changes, Plan, PortKey, PortPlan, Protocol, Target};

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

/// Of the flows that were found on the machine, those that no port of the plan would send on like this any more, although they
/// are to an address or port of it or to a service address. They were left by a proxy that ended before the change.
pub(crate) fn leftovers(
    found: BTreeSet<UdpFlow>,
    plan: &Plan,
    service_cidr: Ipv4Net,
) -> Vec<UdpFlow> {
    let mut served: BTreeMap<(Option<Ipv4Addr>, u16), BTreeSet<Ipv4Addr>> = BTreeMap::new();
    for (key, port) in plan.iter().filter(|(k, _)| k.protocol == Protocol::Udp) {
        for front in fronts(key, port) {
            served
                .entry(front)
                .or_default()
                .extend(endpoints(Some(port)));
        }
    }
    let is_left = |f: &UdpFlow| {
        let node_port = (None, f.port);
        match served
            .get(&(f.address, f.port))
            .or_else(|| served.get(&node_port))
        {
            Some(endpoints) => f.endpoint.is_some_and(|e| !endpoints.contains(&e)),
            None => f.address.is_some_and(|a| service_cidr.contains(&a)),
        }
    };
    found.into_iter().filter(is_left).collect()
}

fn endpoints(plan: Option<&PortPlan>) -> BTreeSet<Ipv4Addr> {
    let targets = plan
        .into_iter()
        .flat_map(|p| [&p.internal, &p.external, &p.inside]);
    targets.flat_map(Target::endpoints).map(|e| e.ip).collect()
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::plan::{Endpoint, Nowhere};

    fn key(protocol: Protocol) -> PortKey {
        PortKey {
            namespace: "default".into(),
            service: "s".into(),
            protocol,
            port: 53,
        }
    }

    fn with(ips: &[[u8; 4]]) -> Arc<PortPlan> {
        let endpoints: Vec<Endpoint> = ips
            .iter()
            .map(|ip| Endpoint {
                ip: (*ip).into(),
                port: 53,
                local: true,
            })
            .collect();
        let target = if ips.is_empty() {
            Target::Nowhere(Nowhere::Reject)
        } else {
            Target::Endpoints(endpoints)
        };
        Arc::new(PortPlan {
            cluster_ips: vec![[10, 96, 0, 9].into()],
            external_ips: Vec::new(),
            balancer_ips: Vec::new(),
            source_ranges: Vec::new(),
            node_port: Some(30053),
            affinity_seconds: None,
            internal: target.clone(),
            external: target.clone(),
            external_local: false,
            inside: target,
        })
    }

    fn change(protocol: Protocol, old: &[[u8; 4]], new: &[[u8; 4]]) -> Vec<UdpFlow> {
        let before = Plan::from([(key(protocol), with(old))]);
        flows(
            &before,
            &Changes {
                set: vec![(key(protocol), with(new))],
                removed: Vec::new(),
            },
        )
    }

    fn flow(address: Option<[u8; 4]>, port: u16, endpoint: Option<[u8; 4]>) -> UdpFlow {
        UdpFlow {
            address: address.map(Into::into),
            port,
            endpoint: endpoint.map(Into::into),
        }
    }

    #[test]
    fn flows_to_endpoints_that_are_gone_are_stale() {
        const VIP: Option<[u8; 4]> = Some([10, 96, 0, 9]);
        let gone = Some([10, 0, 0, 1]);
        let found = change(
            Protocol::Udp,
            &[[10, 0, 0, 1], [10, 0, 0, 2]],
            &[[10, 0, 0, 2], [10, 0, 0, 3]],
        );
        assert_eq!(found, [flow(None, 30053, gone), flow(VIP, 53, gone)]);
        assert_eq!(change(Protocol::Tcp, &[[10, 0, 0, 1]], &[]), []);
        let begun = change(Protocol::Udp, &[], &[[10, 0, 0, 1]]);
        assert_eq!(begun, [flow(None, 30053, None), flow(VIP, 53, None)]);
    }

    #[test]
    fn all_flows_of_a_removed_port_are_stale() {
        let before = Plan::from([(key(Protocol::Udp), with(&[[10, 0, 0, 1]]))]);
        let changes = Changes {
            set: Vec::new(),
            removed: vec![key(Protocol::Udp)],
        };
        assert_eq!(flows(&before, &changes).len(), 2);
    }

    #[test]
    fn flows_that_an_earlier_proxy_left_are_found() {
        let plan = Plan::from([(key(Protocol::Udp), with(&[[10, 0, 0, 1]]))]);
        let vip = Some([10, 96, 0, 9]);
        let good = [
            flow(vip, 53, Some([10, 0, 0, 1])),
            flow(Some([192, 0, 2, 1]), 30053, Some([10, 0, 0, 1])),
            flow(Some([203, 0, 113, 1]), 53, Some([10, 0, 0, 9])),
        ];
        let left = [
            flow(vip, 53, Some([10, 0, 0, 2])),
            flow(Some([10, 96, 0, 77]), 53, Some([10, 0, 0, 1])),
            flow(Some([192, 0, 2, 1]), 30053, Some([10, 0, 0, 2])),
        ];
        let found = good.into_iter().chain(left.clone()).collect();
        let cidr = "10.96.0.0/12".parse().expect("valid");
        assert_eq!(leftovers(found, &plan, cidr), left);
    }
}
