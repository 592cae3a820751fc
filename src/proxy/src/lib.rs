//! Services to packet filter rules: the node's service proxy.
//!
//! Entry point: [`Proxy::start`]. It follows Services and EndpointSlices, [`plan`]s what the node does for each service port,
//! and gives the difference to a [`Backend`], of which [`nftables::Nftables`] is the one so far.
//!
//! Invariants:
//! - A packet to the service CIDR that matches no service is refused on this node and never sent on, from before the first
//!   service is programmed until after the last is gone. The rule for that is in place when [`Proxy::start`] returns.
//! - Fail static: what is programmed stays when this process ends, and a new one takes it over without a gap.
//!   Only [`cleanup`] removes it.
//! - The work of a change is that of the services it touches, not of all that there are.
//! - The plan is a pure function of views; it knows no packet filter. A backend knows no API.

pub mod backend;
pub mod metrics;
pub mod nftables;
pub mod plan;
pub mod proxy;
mod stale;
pub mod views;
pub mod vip;

pub use backend::{Backend, BackendError};
pub use plan::{Changes, Endpoint, Plan, PortKey, PortPlan, Protocol};
pub use proxy::{Proxy, ProxyConfig, ProxyError, cleanup};
pub use vip::LocalVip;
