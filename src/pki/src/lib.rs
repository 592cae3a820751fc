//! The cluster's public key infrastructure: its CA, the certificates that it issues, kubeconfigs, the service-account key.
//!
//! Entry points: [`Ca`] (load or create, issue), [`Identity`] (a certificate with its key), [`Pki`] (the files of a master).
//!
//! Invariants: keys are written with mode 0600, aside and renamed, so that a crash leaves the old file or the new one.
//! A file that is there is never replaced by a new CA: what cannot be read is an error that names the file.

pub mod ca;
pub mod files;
pub mod kubeconfig;
pub mod peer;
pub mod store;
pub mod tls;

pub use ca::{Ca, Identity, Profile};
pub use peer::Subject;
pub use store::Pki;

/// What can go wrong with keys and certificates.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error(
        "{path} is not usable: {why}; restore it from a backup, or move it away to have a new one made"
    )]
    Malformed {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// One half of a pair is missing.
    #[error(
        "{present} is there, but {missing} is not; restore it from a backup, or move both away to have new ones made"
    )]
    HalfPair {
        /// The file that is there.
        present: String,
        /// The file that is not.
        missing: String,
    },
    /// A certificate could not be made.
    #[error("cannot issue a certificate for {subject}")]
    Issue {
        /// Its common name.
        subject: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// PEM or DER that is not a certificate or key.
    #[error("not a usable {what}: {why}")]
    Parse {
        /// What it should be.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// TLS could not be configured.
    #[error("cannot configure TLS")]
    Tls(#[source] rustls::Error),
}
