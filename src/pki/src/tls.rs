//! rustls configurations out of PEM.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::{Error, Identity};

/// The certificates of a PEM text.
///
/// # Errors
/// It holds none, or something that is not PEM.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let parse = |why: String| Error::Parse {
        what: "certificate",
        why,
    };
    let certs: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| parse(e.to_string()))?;
    if certs.is_empty() {
        return Err(parse("there is no CERTIFICATE block".into()));
    }
    Ok(certs)
}

/// The private key of a PEM text.
///
/// # Errors
/// It holds none.
pub fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|e| Error::Parse {
        what: "private key",
        why: e.to_string(),
    })
}

fn roots(ca_pem: &str) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for c in certificates(ca_pem)? {
        roots.add(c).map_err(Error::Tls)?;
    }
    Ok(roots)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A server that asks for client certificates of this CA, and takes clients without one too (they are anonymous until
/// they show a token). A certificate of another CA fails the handshake.
///
/// # Errors
/// The PEM is not usable.
pub fn server(
    identity: &Identity,
    client_ca_pem: &str,
    alpn: &[&str],
) -> Result<ServerConfig, Error> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(client_ca_pem)?), provider())
            .allow_unauthenticated()
            .build()
            .map_err(|e| Error::Parse {
                what: "client CA",
                why: e.to_string(),
            })?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(Error::Tls)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            certificates(&identity.cert_pem)?,
            private_key(&identity.key_pem)?,
        )
        .map_err(Error::Tls)?;
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    Ok(config)
}

/// A client that trusts this CA and, with an identity, shows its certificate.
///
/// # Errors
/// The PEM is not usable.
pub fn client(
    ca_pem: &str,
    identity: Option<&Identity>,
    alpn: &[&str],
) -> Result<ClientConfig, Error> {
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots(ca_pem)?), provider())
            .build()
            .map_err(|e| Error::Parse {
                what: "CA",
                why: e.to_string(),
            })?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(Error::Tls)?
        .with_webpki_verifier(verifier);
    let mut config = match identity {
        Some(i) => builder
            .with_client_auth_cert(certificates(&i.cert_pem)?, private_key(&i.key_pem)?)
            .map_err(Error::Tls)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    Ok(config)
}
