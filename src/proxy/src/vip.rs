//! Where service addresses live on the node: a bridge without ports.
//!
//! A route leads the whole service range there. So the node's own connections have a route and a source address, to be sent on
//! to an endpoint by the packet filter, and should a packet ever slip past the filter, it ends in a bridge that leads nowhere.
//! A bridge because every kernel that runs pods has it; the addresses are not made the node's own (a `local` route would be
//! shorter), because a node answers ARP requests for its own addresses on every link.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use kontiki_host::{LinkError, Links, Route, RouteKind};

use crate::plan::Protocol;

/// The bridge.
pub const SERVICE_LINK: &str = "kontiki-svc";

/// A service address and port on which the node itself answers, such as that of the cluster's DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalVip {
    /// The address.
    pub ip: Ipv4Addr,
    /// The protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

fn service_route(service_cidr: Ipv4Net, node_ip: Ipv4Addr) -> Route {
    Route {
        destination: service_cidr,
        kind: RouteKind::Unicast,
        link: SERVICE_LINK.to_owned(),
        gateway: None,
        source: Some(node_ip),
    }
}

/// Makes the bridge with its route, and with the addresses that the node itself answers on and no others.
pub(crate) async fn ensure(
    links: &dyn Links,
    service_cidr: Ipv4Net,
    node_ip: Ipv4Addr,
    vips: &[LocalVip],
) -> Result<(), LinkError> {
    links.ensure_bridge(SERVICE_LINK).await?;
    links
        .ensure_route(&service_route(service_cidr, node_ip))
        .await?;
    let wanted: Vec<IpNet> = vips
        .iter()
        .map(|v| IpNet::from(std::net::IpAddr::V4(v.ip)))
        .collect();
    for address in &wanted {
        links.ensure_address(SERVICE_LINK, *address).await?;
    }
    for (link, address) in links.addresses().await? {
        if link == SERVICE_LINK && address.addr().is_ipv4() && !wanted.contains(&address) {
            links.remove_address(SERVICE_LINK, address).await?;
        }
    }
    Ok(())
}

/// Removes the bridge, its route and its addresses.
pub(crate) async fn remove(links: &dyn Links) -> Result<(), LinkError> {
    links.remove_link(SERVICE_LINK).await
}

#[cfg(test)]
mod tests {
    use kontiki_host::Network;

    use super::*;

    #[tokio::test]
    async fn only_the_addresses_that_are_asked_for_stay() {
        let (host, parts) = Network::fake();
        let vip = |ip: &str| LocalVip {
            ip: ip.parse().expect("valid"),
            protocol: Protocol::Udp,
            port: 53,
        };
        let cidr: Ipv4Net = "10.96.0.0/12".parse().expect("valid");
        let node = "192.0.2.1".parse().expect("valid");
        ensure(&*host.links, cidr, node, &[vip("10.96.0.10")])
            .await
            .expect("works");
        ensure(&*host.links, cidr, node, &[vip("10.96.0.11")])
            .await
            .expect("works again");
        let addresses = parts.links.addresses().await.expect("works");
        assert_eq!(
            addresses,
            [(
                SERVICE_LINK.to_owned(),
                "10.96.0.11/32".parse().expect("valid")
            )]
        );
        assert_eq!(
            parts.links.routes().await.expect("works"),
            [service_route(cidr, node)]
        );
        remove(&*host.links).await.expect("works");
        assert!(parts.links.routes().await.expect("works").is_empty());
    }
}
