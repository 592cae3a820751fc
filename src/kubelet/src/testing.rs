//! A configuration for tests.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::config::Config;

/// A certificate store that lets nobody in: tests that speak to the node's API bring their own.
#[derive(Debug)]
struct NoCertificate;

impl rustls::server::ResolvesServerCert for NoCertificate {
    fn resolve(
        &self,
        _: rustls::server::ClientHello<'_>,
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }
}

/// A configuration with the defaults, for a node `node1`.
pub(crate) fn config() -> Config {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has TLS 1.3")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(NoCertificate));
    let mut c = Config::new("node1", IpAddr::from([127, 0, 0, 1]), Arc::new(tls));
    c.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    c
}
