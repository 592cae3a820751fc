//! TLS of the server: its own certificate, and what becomes of the clients' ones.
//!
//! As upstream, a handshake takes any client certificate whose key the client holds; whether it is one of ours is judged
//! afterwards, so that a foreign one gets a 401 with a `Status` and not a broken connection.

use std::sync::Arc;

use kontiki_pki::{Identity, Subject};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::user::User;

/// The client certificate of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// None was shown.
    None,
    /// One of ours.
    User(User),
    /// One that is not ours, or no longer valid.
    Foreign,
}

/// Accepts every certificate in the handshake; [`PeerCheck::peer`] judges it.
#[derive(Debug)]
struct Postponed(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Postponed {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Judges client certificates.
#[derive(Clone, Debug)]
pub(crate) struct PeerCheck(Arc<dyn ClientCertVerifier>);

impl PeerCheck {
    /// Whose certificate it is.
    pub(crate) fn peer(&self, chain: Option<&[CertificateDer<'_>]>) -> Peer {
        let Some((leaf, rest)) = chain.and_then(<[_]>::split_first) else {
            return Peer::None;
        };
        if let Err(e) = self.0.verify_client_cert(leaf, rest, UnixTime::now()) {
            tracing::debug!(error = %e, "a client certificate is not accepted");
            return Peer::Foreign;
        }
        match Subject::of_certificate(leaf) {
            Ok(s) => {
                let mut groups = s.groups;
                groups.push(crate::user::AUTHENTICATED.into());
                Peer::User(User {
                    name: s.user,
                    groups,
                    ..User::default()
                })
            }
            Err(e) => {
                tracing::debug!(error = %e, "a client certificate names no user");
                Peer::Foreign
            }
        }
    }
}

/// The TLS configuration of the server, and the judge of its clients.
///
/// # Errors
/// The PEM is not usable.
pub(crate) fn server(
    serving: &Identity,
    client_ca_pem: &str,
) -> Result<(ServerConfig, PeerCheck), kontiki_pki::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for c in kontiki_pki::tls::certificates(client_ca_pem)? {
        roots.add(c).map_err(kontiki_pki::Error::Tls)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|e| kontiki_pki::Error::Parse {
            what: "client CA",
            why: e.to_string(),
        })?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(kontiki_pki::Error::Tls)?
        .with_client_cert_verifier(Arc::new(Postponed(verifier.clone())))
        .with_single_cert(
            kontiki_pki::tls::certificates(&serving.cert_pem)?,
            kontiki_pki::tls::private_key(&serving.key_pem)?,
        )
        .map_err(kontiki_pki::Error::Tls)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((config, PeerCheck(verifier)))
}
