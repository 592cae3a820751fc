//! The Kubernetes API over the store: authentication, the REST engine, the watch cache.
//!
//! Entry point: [`ApiServer::start`]. A request goes connection ([`server`], TLS) → who asks ([`authn`]) → may he
//! ([`authz`]) → what is asked ([`request`]) → [`engine`] → store, and back through [`negotiate`] and [`respond`].
//!
//! Invariants: an object is encoded once, when it is written; whoever reads or watches it gets those bytes. There are no
//! handlers per kind: what a kind adds is its [`strategy::Strategy`]. Objects never pass through typed structs, which
//! would drop fields that they do not know. This crate knows nothing of containers, networks or the machine.

mod authn;
mod authz;
mod body;
mod bootstrap;
mod cache;
mod config;
mod convert;
mod discovery;
mod engine;
mod handlers;
mod health;
mod in_process;
mod keys;
pub mod kinds;
mod metrics;
mod negotiate;
mod openapi;
mod options;
mod registry;
mod request;
mod respond;
mod reviews;
mod router;
mod schemas;
mod server;
mod start;
mod stored;
pub mod strategy;
mod streams;
mod table;
mod tls;
mod token;
mod traits;
mod user;
mod version;

pub use config::{Config, KubeletAccess};
pub use start::{ApiServer, Running, StartError};
