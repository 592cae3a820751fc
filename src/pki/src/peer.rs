//! Who a client certificate speaks for.

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::Error;

/// The user and groups of a client certificate: its common name and organizations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The user.
    pub user: String,
    /// The groups.
    pub groups: Vec<String>,
}

impl Subject {
    /// Reads the subject of a certificate whose signature was verified before.
    ///
    /// # Errors
    /// The certificate cannot be parsed or has no common name.
    pub fn of_certificate(der: &CertificateDer<'_>) -> Result<Subject, Error> {
        let parse = |why: String| Error::Parse {
            what: "client certificate",
            why,
        };
        let (_, cert) = X509Certificate::from_der(der).map_err(|e| parse(e.to_string()))?;
        let subject = cert.subject();
        let user = subject
            .iter_common_name()
            .next()
            .and_then(|a| a.as_str().ok())
            .ok_or_else(|| parse("it has no common name".into()))?;
        let groups = subject
            .iter_organization()
            .filter_map(|a| a.as_str().ok().map(str::to_owned))
            .collect();
        Ok(Subject {
            user: user.to_owned(),
            groups,
        })
    }
}
