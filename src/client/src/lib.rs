//! The API over HTTPS: how agents, and everything that is not in a master's process, read and write.
//!
//! Entry points: [`Remote`], which implements [`kontiki_reconcile::Api`] over HTTP/2, and [`Kubeconfig`], which tells
//! where the masters are and who we are.
//!
//! Invariants: a server is only talked to if its certificate is of the CA that we were given. A call is never sent twice
//! unless it is a read, or certainly did not arrive. Every wait has a named limit. This crate knows nothing of what the
//! objects mean.

mod answer;
pub mod kubeconfig;
mod remote;
mod request;

pub use kubeconfig::Kubeconfig;
pub use remote::{Answer, Config, Remote};

/// What can be wrong with the way to the masters.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// There is no master to talk to.
    #[error("no master is given; name at least one as https://HOST:PORT")]
    NoMasters,
    /// An address is not one.
    #[error("{master:?} is not the address of a master: {why}")]
    Master {
        /// What was given.
        master: String,
        /// What is wrong with it.
        why: String,
    },
    /// The CA or our certificate cannot be used.
    #[error("the credentials cannot be used")]
    Credentials(#[source] kontiki_pki::Error),
    /// A kubeconfig cannot be read.
    #[error("the kubeconfig {path} cannot be read")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A kubeconfig lacks something, or is not one.
    #[error("the kubeconfig {path} is not usable: {why}")]
    Kubeconfig {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
}
