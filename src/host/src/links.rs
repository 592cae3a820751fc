//! Links, addresses and routes.

use std::net::Ipv4Addr;

use async_trait::async_trait;
use ipnet::{IpNet, Ipv4Net};

mod fake;
mod rt;

pub use fake::FakeLinks;
pub use rt::RtLinks;

/// A network link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its number in the kernel.
    pub index: u32,
    /// Whether it is switched on (it may have no carrier all the same).
    pub up: bool,
}

/// What the kernel does with packets that take a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// Sends them out of the link.
    Unicast,
    /// Takes them as its own.
    Local,
}

/// An IPv4 route of the main table (a local one: of the local table).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where it leads; `0.0.0.0/0` is the default route.
    pub destination: Ipv4Net,
    /// What is done with the packets.
    pub kind: RouteKind,
    /// Name of the link.
    pub link: String,
    /// The next hop, if there is one.
    pub gateway: Option<Ipv4Addr>,
    /// The source address that the node's own packets get.
    pub source: Option<Ipv4Addr>,
}

/// A step that failed, and what it was done to.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// There is no netlink socket.
    #[error("cannot open a netlink socket")]
    Socket(#[source] std::io::Error),
    /// There is no such link.
    #[error("there is no link {0}")]
    NoLink(String),
    /// The link is there but is of another kind.
    #[error("the link {0} exists and is not a bridge; remove it, or configure another name")]
    NotABridge(String),
    /// The kernel refused.
    #[error("cannot {action} {what}")]
    Kernel {
        /// What was tried, as in `add address`.
        action: &'static str,
        /// To what.
        what: String,
        /// The kernel's answer.
        #[source]
        source: rtnetlink::Error,
    },
}

/// The machine's links, addresses and routes. `ensure` and `remove` do nothing if there is nothing to do.
#[async_trait]
pub trait Links: Send + Sync + 'static {
    /// The link of this name.
    async fn link(&self, name: &str) -> Result<Option<Link>, LinkError>;

    /// Makes a bridge of this name, switched on.
    async fn ensure_bridge(&self, name: &str) -> Result<(), LinkError>;

    /// Removes a link, and with it its addresses and routes.
    async fn remove_link(&self, name: &str) -> Result<(), LinkError>;

    /// All addresses, each with the name of its link.
    async fn addresses(&self) -> Result<Vec<(String, IpNet)>, LinkError>;

    /// Gives a link an address.
    async fn ensure_address(&self, link: &str, address: IpNet) -> Result<(), LinkError>;

    /// Takes an address from a link.
    async fn remove_address(&self, link: &str, address: IpNet) -> Result<(), LinkError>;

    /// The IPv4 routes of the main table.
    async fn routes(&self) -> Result<Vec<Route>, LinkError>;

    /// Sets a route; one to the same destination is replaced.
    async fn ensure_route(&self, route: &Route) -> Result<(), LinkError>;

    /// Removes a route.
    async fn remove_route(&self, route: &Route) -> Result<(), LinkError>;
}
