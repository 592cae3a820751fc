//! The remote API source: HTTPS to the masters.
//!
//! Entry point: [`Remote`], which implements [`kontiki_reconcile::Api`] and stays with the master that answered last; when that one
//! cannot be reached it goes on at the next.
//!
//! Invariants: the server's certificate is checked against the cluster's CA, always. An error says whether the call may have
//! been carried out ([`kontiki_reconcile::CallError::Unavailable`]). This crate knows no objects: bodies are bytes.

pub mod credentials;
pub mod paths;
pub mod remote;
mod watch;

pub use credentials::{Credentials, CredentialsError};
pub use remote::{Answer, Remote};
