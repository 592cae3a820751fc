//! The certificate authority and what it issues.

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use sha2::{Digest, Sha256};

use crate::Error;

/// Days that a CA is valid (kubeadm's default).
const CA_DAYS: i64 = 3650;
/// Days that an issued certificate is valid (kubeadm's default).
const CERTIFICATE_DAYS: i64 = 365;
/// Certificates start this long ago, for machines whose clocks differ.
const BACKDATE_SECONDS: i64 = 300;

/// A certificate authority: its certificate and its key.
pub struct Ca {
    cert_pem: String,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, as PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub cert_pem: String,
    /// The private key (PKCS #8).
    pub key_pem: String,
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ca").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Identity {
    /// The key is not shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("cert_pem", &self.cert_pem)
            .finish_non_exhaustive()
    }
}

/// What a certificate is issued for.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// The common name: the user of a client certificate.
    pub common_name: String,
    /// The organization: the group of a client certificate. One, as rcgen writes one attribute of each type.
    pub organization: Option<String>,
    /// DNS names of a server.
    pub dns_names: Vec<String>,
    /// Addresses of a server.
    pub addresses: Vec<IpAddr>,
    /// Whether it may authenticate a server.
    pub server: bool,
    /// Whether it may authenticate a client.
    pub client: bool,
}

impl Profile {
    /// A client certificate for this user and this group.
    pub fn client(user: &str, group: &str) -> Profile {
        let organization = Some(group.to_owned());
        Profile {
            common_name: user.to_owned(),
            organization,
            client: true,
            ..Profile::default()
        }
    }

    /// A server certificate for these names and addresses.
    pub fn server(common_name: &str, dns_names: &[String], addresses: &[IpAddr]) -> Profile {
        Profile {
            common_name: common_name.to_owned(),
            dns_names: dns_names.to_vec(),
            addresses: addresses.to_vec(),
            server: true,
            ..Profile::default()
        }
    }
}

impl Ca {
    /// Makes a new CA with this common name.
    ///
    /// # Errors
    /// The key or the certificate cannot be made.
    pub fn create(common_name: &str) -> Result<Ca, Error> {
        let issue = |source| Error::Issue {
            subject: common_name.to_owned(),
            source,
        };
        let key = KeyPair::generate().map_err(issue)?;
        let mut params = base(common_name, None, CA_DAYS);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let cert_pem = params.self_signed(&key).map_err(issue)?.pem();
        Ca::from_pem(&cert_pem, &key.serialize_pem())
    }

    /// Reads a CA from its PEM files.
    ///
    /// # Errors
    /// They are not a CA certificate and its key.
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Ca, Error> {
        let parse = |e: rcgen::Error| Error::Parse {
            what: "CA",
            why: e.to_string(),
        };
        let key = KeyPair::from_pem(key_pem).map_err(parse)?;
        let public = key.public_key_raw().to_vec();
        let issuer = Issuer::from_ca_cert_pem(cert_pem, key).map_err(parse)?;
        let fits = with_certificate(cert_pem, |c| {
            c.public_key().subject_public_key.data == public
        })?;
        if !fits {
            return Err(Error::Parse {
                what: "CA",
                why: "the key does not belong to the certificate".into(),
            });
        }
        Ok(Ca {
            cert_pem: cert_pem.to_owned(),
            key_pem: key_pem.to_owned(),
            issuer,
        })
    }

    /// The certificate.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The private key.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Issues a certificate, with a key made for it.
    ///
    /// # Errors
    /// A name is not valid, or signing failed.
    pub fn issue(&self, profile: &Profile) -> Result<Identity, Error> {
        let issue = |source| Error::Issue {
            subject: profile.common_name.clone(),
            source,
        };
        let key = KeyPair::generate().map_err(issue)?;
        let mut params = base(
            &profile.common_name,
            profile.organization.as_deref(),
            CERTIFICATE_DAYS,
        );
        for name in &profile.dns_names {
            params
                .subject_alt_names
                .push(SanType::DnsName(name.as_str().try_into().map_err(issue)?));
        }
        params
            .subject_alt_names
            .extend(profile.addresses.iter().map(|a| SanType::IpAddress(*a)));
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        if profile.server {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        if profile.client {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        params.use_authority_key_identifier_extension = true;
        let cert_pem = params.signed_by(&key, &self.issuer).map_err(issue)?.pem();
        Ok(Identity {
            cert_pem,
            key_pem: key.serialize_pem(),
        })
    }

    /// The pin of this CA as joining nodes are told it: `sha256:` and the hex SHA-256 of its DER public key info.
    ///
    /// # Errors
    /// The certificate cannot be parsed.
    pub fn pin(&self) -> Result<String, Error> {
        with_certificate(&self.cert_pem, |c| {
            let hash = Sha256::digest(c.public_key().raw);
            let hex: String = hash.iter().map(|b| format!("{b:02x}")).collect();
            format!("sha256:{hex}")
        })
    }
}

/// Seconds since the epoch at which a certificate ends.
///
/// # Errors
/// The certificate cannot be parsed.
pub fn not_after_seconds(cert_pem: &str) -> Result<i64, Error> {
    with_certificate(cert_pem, |c| c.validity().not_after.timestamp())
}

fn with_certificate<T>(
    pem: &str,
    f: impl FnOnce(&x509_parser::certificate::X509Certificate<'_>) -> T,
) -> Result<T, Error> {
    let parse = |why: String| Error::Parse {
        what: "certificate",
        why,
    };
    let (_, pem) =
        x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|e| parse(e.to_string()))?;
    let cert = pem.parse_x509().map_err(|e| parse(e.to_string()))?;
    Ok(f(&cert))
}

fn base(common_name: &str, organization: Option<&str>, days: i64) -> CertificateParams {
    let mut name = DistinguishedName::new();
    if let Some(o) = organization {
        name.push(DnType::OrganizationName, o);
    }
    name.push(DnType::CommonName, common_name);
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    let now = jiff::Timestamp::now().as_second();
    let at = |seconds: i64| {
        let t = std::time::UNIX_EPOCH
            + std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        t.into()
    };
    params.not_before = at(now - BACKDATE_SECONDS);
    params.not_after = at(now + days * 24 * 3600);
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_round_trips_and_keeps_its_pin() {
        let ca = Ca::create("kubernetes").expect("a new CA");
        let again = Ca::from_pem(ca.cert_pem(), ca.key_pem()).expect("reads back");
        assert_eq!(ca.pin().expect("pin"), again.pin().expect("pin"));
        assert!(ca.pin().expect("pin").starts_with("sha256:"));
    }

    #[test]
    fn a_foreign_key_is_refused() {
        let (a, b) = (Ca::create("a").expect("CA"), Ca::create("b").expect("CA"));
        let e = Ca::from_pem(a.cert_pem(), b.key_pem()).expect_err("not a pair");
        assert!(e.to_string().contains("does not belong"), "{e}");
    }

    #[test]
    fn the_subject_of_a_client_certificate_is_its_user_and_group() {
        let ca = Ca::create("kubernetes").expect("a new CA");
        let id = ca
            .issue(&Profile::client("me", "system:masters"))
            .expect("issued");
        let der = crate::tls::certificates(&id.cert_pem).expect("PEM");
        let s = crate::Subject::of_certificate(&der[0]).expect("a subject");
        assert_eq!(
            (s.user.as_str(), s.groups),
            ("me", vec!["system:masters".to_owned()])
        );
        assert!(
            not_after_seconds(&id.cert_pem).expect("a time") > jiff::Timestamp::now().as_second()
        );
    }
}
