//! Links over rtnetlink.

use std::net::{IpAddr, Ipv4Addr};

use async_trait::async_trait;
use futures::TryStreamExt;
use ipnet::{IpNet, Ipv4Net};
use kontiki_base::Tasks;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteScope, RouteType,
};
use rtnetlink::{Error, Handle, LinkBridge, LinkUnspec, RouteMessageBuilder};

use super::{Link, LinkError, Links, Route, RouteKind};

/// The kernel's table of its own addresses (`RT_TABLE_LOCAL`).
const TABLE_LOCAL: u32 = 255;
const EEXIST: i32 = 17;
const ENODEV: i32 = 19;
const ESRCH: i32 = 3;
const EADDRNOTAVAIL: i32 = 99;

/// The links of the network namespace in which it was opened.
#[derive(Clone, Debug)]
pub struct RtLinks {
    handle: Handle,
}

impl RtLinks {
    /// Opens a netlink socket. A task of the group serves it: when the group ends, so does what can be done here.
    ///
    /// # Errors
    /// The kernel gives no netlink socket.
    pub fn open(tasks: &Tasks) -> Result<RtLinks, LinkError> {
        let (connection, handle, _messages) =
            rtnetlink::new_connection().map_err(LinkError::Socket)?;
        let token = tasks.token().clone();
        tasks.spawn("rtnetlink", async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = connection => {}
            }
        });
        Ok(RtLinks { handle })
    }

    async fn message(&self, name: &str) -> Result<Option<LinkMessage>, LinkError> {
        let mut found = std::pin::pin!(
            self.handle
                .link()
                .get()
                .match_name(name.to_owned())
                .execute()
        );
        match found.try_next().await {
            Ok(message) => Ok(message),
            Err(e) if code(&e) == Some(ENODEV) => Ok(None),
            Err(e) => Err(failed("look up link", name)(e)),
        }
    }

    async fn index(&self, name: &str) -> Result<u32, LinkError> {
        let link = self
            .message(name)
            .await?
            .ok_or_else(|| LinkError::NoLink(name.to_owned()))?;
        Ok(link.header.index)
    }

    async fn names(&self) -> Result<Vec<(u32, String)>, LinkError> {
        let all: Vec<LinkMessage> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(failed("list", "links"))?;
        Ok(all.iter().map(|m| (m.header.index, name_of(m))).collect())
    }

    async fn route_message(&self, r: &Route) -> Result<RouteMessage, LinkError> {
        let mut b = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(r.destination.network(), r.destination.prefix_len())
            .output_interface(self.index(&r.link).await?);
        b = match (r.kind, r.gateway) {
            (RouteKind::Local, _) => b
                .kind(RouteType::Local)
                .scope(RouteScope::Host)
                .table_id(TABLE_LOCAL),
            (RouteKind::Unicast, None) => b.scope(RouteScope::Link),
            (RouteKind::Unicast, Some(gateway)) => b.gateway(gateway),
        };
        if let Some(source) = r.source {
            b = b.pref_source(source);
        }
        Ok(b.build())
    }
}

/// The errno of a kernel's refusal.
fn code(e: &Error) -> Option<i32> {
    match e {
        Error::NetlinkError(m) => m.code.map(|c| -c.get()),
        _ => None,
    }
}

fn failed(action: &'static str, what: impl Into<String>) -> impl FnOnce(Error) -> LinkError {
    let what = what.into();
    move |source| LinkError::Kernel {
        action,
        what,
        source,
    }
}

/// Success, or a refusal with one of these codes, which say that there was nothing to do.
fn unless(result: Result<(), Error>, fine: &[i32]) -> Result<(), Error> {
    match result {
        Err(e) if code(&e).is_some_and(|c| fine.contains(&c)) => Ok(()),
        other => other,
    }
}

fn name_of(m: &LinkMessage) -> String {
    let name = m.attributes.iter().find_map(|a| match a {
        LinkAttribute::IfName(n) => Some(n.clone()),
        _ => None,
    });
    name.unwrap_or_default()
}

fn is_bridge(m: &LinkMessage) -> bool {
    m.attributes.iter().any(|a| match a {
        LinkAttribute::LinkInfo(info) => info
            .iter()
            .any(|i| matches!(i, LinkInfo::Kind(InfoKind::Bridge))),
        _ => false,
    })
}

fn route_of(m: &RouteMessage, names: &[(u32, String)]) -> Option<Route> {
    let (mut destination, mut link, mut gateway, mut source) =
        (Ipv4Addr::UNSPECIFIED, None, None, None);
    for a in &m.attributes {
        match a {
            RouteAttribute::Destination(RouteAddress::Inet(d)) => destination = *d,
            RouteAttribute::Oif(i) => {
                link = names
                    .iter()
                    .find(|(n, _)| n == i)
                    .map(|(_, name)| name.clone());
            }
            RouteAttribute::Gateway(RouteAddress::Inet(g)) => gateway = Some(*g),
            RouteAttribute::PrefSource(RouteAddress::Inet(s)) => source = Some(*s),
            _ => {}
        }
    }
    let destination = Ipv4Net::new(destination, m.header.destination_prefix_length).ok()?;
    Some(Route {
        destination,
        kind: RouteKind::Unicast,
        link: link?,
        gateway,
        source,
    })
}

#[async_trait]
impl Links for RtLinks {
    async fn link(&self, name: &str) -> Result<Option<Link>, LinkError> {
        let message = self.message(name).await?;
        Ok(message.map(|m| Link {
            name: name_of(&m),
            index: m.header.index,
            up: m.header.flags.contains(LinkFlags::Up),
        }))
    }

    async fn ensure_bridge(&self, name: &str) -> Result<(), LinkError> {
        if self.message(name).await?.is_none() {
            let made = self
                .handle
                .link()
                .add(LinkBridge::new(name).build())
                .execute()
                .await;
            unless(made, &[EEXIST]).map_err(failed("make bridge", name))?;
        }
        let link = self
            .message(name)
            .await?
            .ok_or_else(|| LinkError::NoLink(name.to_owned()))?;
        if !is_bridge(&link) {
            return Err(LinkError::NotABridge(name.to_owned()));
        }
        if !link.header.flags.contains(LinkFlags::Up) {
            let up = LinkUnspec::new_with_index(link.header.index).up().build();
            self.handle
                .link()
                .set(up)
                .execute()
                .await
                .map_err(failed("switch on link", name))?;
        }
        Ok(())
    }

    async fn remove_link(&self, name: &str) -> Result<(), LinkError> {
        let Some(link) = self.message(name).await? else {
            return Ok(());
        };
        let result = self.handle.link().del(link.header.index).execute().await;
        unless(result, &[ENODEV]).map_err(failed("remove link", name))
    }

    async fn addresses(&self) -> Result<Vec<(String, IpNet)>, LinkError> {
        let names = self.names().await?;
        let all: Vec<_> = self
            .handle
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(failed("list", "addresses"))?;
        let address_of = |m: &rtnetlink::packet_route::address::AddressMessage| {
            // On a point-to-point link `Address` is the peer's and `Local` the link's own.
            let own = m.attributes.iter().find_map(|a| match a {
                AddressAttribute::Local(ip) => Some(*ip),
                _ => None,
            });
            let ip = own.or_else(|| {
                m.attributes.iter().find_map(|a| match a {
                    AddressAttribute::Address(ip) => Some(*ip),
                    _ => None,
                })
            })?;
            let name = names
                .iter()
                .find(|(i, _)| *i == m.header.index)
                .map(|(_, n)| n.clone())?;
            Some((name, IpNet::new(ip, m.header.prefix_len).ok()?))
        };
        Ok(all.iter().filter_map(address_of).collect())
    }

    async fn ensure_address(&self, link: &str, address: IpNet) -> Result<(), LinkError> {
        let index = self.index(link).await?;
        let result = self
            .handle
            .address()
            .add(index, address.addr(), address.prefix_len())
            .execute()
            .await;
        unless(result, &[EEXIST]).map_err(failed("add address", format!("{address} to {link}")))
    }

    async fn remove_address(&self, link: &str, address: IpNet) -> Result<(), LinkError> {
        let index = self.index(link).await?;
        let IpAddr::V4(ip) = address.addr() else {
            return Ok(());
        };
        let message = rtnetlink::AddressMessageBuilder::<Ipv4Addr>::new()
            .index(index)
            .address(ip, address.prefix_len())
            .build();
        let result = self.handle.address().del(message).execute().await;
        unless(result, &[EADDRNOTAVAIL])
            .map_err(failed("remove address", format!("{address} from {link}")))
    }

    async fn routes(&self) -> Result<Vec<Route>, LinkError> {
        let names = self.names().await?;
        let filter = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let all: Vec<RouteMessage> = self
            .handle
            .route()
            .get(filter)
            .execute()
            .try_collect()
            .await
            .map_err(failed("list", "routes"))?;
        let main = all
            .iter()
            .filter(|m| m.header.table == RouteHeader::RT_TABLE_MAIN);
        Ok(main.filter_map(|m| route_of(m, &names)).collect())
    }

    async fn ensure_route(&self, route: &Route) -> Result<(), LinkError> {
        let message = self.route_message(route).await?;
        let result = self.handle.route().add(message).replace().execute().await;
        result.map_err(failed(
            "set route",
            format!("to {} by {}", route.destination, route.link),
        ))
    }

    async fn remove_route(&self, route: &Route) -> Result<(), LinkError> {
        let message = self.route_message(route).await?;
        let result = self.handle.route().del(message).execute().await;
        unless(result, &[ESRCH]).map_err(failed(
            "remove route",
            format!("to {} by {}", route.destination, route.link),
        ))
    }
}
