//! Cluster DNS, answered on every node from the node's own watch.
//!
//! Entry point: [`Dns::start`]. The records are those of the Kubernetes DNS specification (schema version 1.1.0): services, their
//! ports and endpoints, pods by address, reverse look-ups. Other names are asked of the machine's own resolvers.
//!
//! Invariants:
//! - A name of the cluster's domain is never asked of anybody else, and until the caches hold the cluster it is answered with
//!   SERVFAIL, never with a wrong "there is none".
//! - No question makes the server panic, wait without end or grow: work in flight, connections and the cache have limits.
//! - The server never asks itself. It does not know how its addresses came to the node.

mod cache;
mod cluster;
mod forward;
mod message;
mod records;
mod resolv;
mod server;
mod views;

pub use cluster::Cluster;
pub use server::{Dns, DnsConfig, DnsError};
pub use views::{EndpointSlice, Namespace, Service};
