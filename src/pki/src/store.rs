//! [`Pki`]: the keys and certificates of a master, in kubeadm's layout.

use std::path::{Path, PathBuf};

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};

use crate::ca::{Ca, Identity, Profile, not_after_seconds};
use crate::{Error, files};

/// An issued certificate is replaced at start when it has less than this left.
const RENEW_BEFORE_SECONDS: i64 = 90 * 24 * 3600;

/// The files of a master under `<config>/pki`.
#[derive(Debug)]
pub struct Pki {
    dir: PathBuf,
    ca: Ca,
    service_account_key_pem: String,
}

impl Pki {
    /// Loads the CA and the service-account key from `dir` (`ca.crt`, `ca.key`, `sa.key`), making what is not there.
    ///
    /// # Errors
    /// A file is there and not usable, or a half of a pair is missing: nothing is replaced.
    pub fn load_or_create(dir: &Path) -> Result<Pki, Error> {
        let (cert_path, key_path) = (dir.join("ca.crt"), dir.join("ca.key"));
        let malformed = |path: &Path, e: Error| Error::Malformed {
            path: path.display().to_string(),
            why: e.to_string(),
        };
        let half = |present: &Path, missing: &Path| Error::HalfPair {
            present: present.display().to_string(),
            missing: missing.display().to_string(),
        };
        let ca = match (files::read(&cert_path)?, files::read(&key_path)?) {
            (Some(cert), Some(key)) => {
                Ca::from_pem(&cert, &key).map_err(|e| malformed(&cert_path, e))?
            }
            (Some(_), None) => return Err(half(&cert_path, &key_path)),
            (None, Some(_)) => return Err(half(&key_path, &cert_path)),
            (None, None) => {
                let ca = Ca::create("kubernetes")?;
                files::write(&key_path, ca.key_pem(), true)?;
                files::write(&cert_path, ca.cert_pem(), false)?;
                ca
            }
        };
        let sa_path = dir.join("sa.key");
        let service_account_key_pem = match files::read(&sa_path)? {
            Some(pem) => {
                KeyPair::from_pem(&pem).map_err(|e| {
                    malformed(
                        &sa_path,
                        Error::Parse {
                            what: "private key",
                            why: e.to_string(),
                        },
                    )
                })?;
                pem
            }
            None => {
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|source| {
                    Error::Issue {
                        subject: "service accounts".into(),
                        source,
                    }
                })?;
                files::write(&sa_path, &key.serialize_pem(), true)?;
                key.serialize_pem()
            }
        };
        Ok(Pki {
            dir: dir.to_owned(),
            ca,
            service_account_key_pem,
        })
    }

    /// The CA.
    pub fn ca(&self) -> &Ca {
        &self.ca
    }

    /// The key that signs service-account tokens: ECDSA P-256, PKCS #8 PEM.
    pub fn service_account_key_pem(&self) -> &str {
        &self.service_account_key_pem
    }

    /// The identity in `<name>.crt` and `<name>.key`, issued anew if it is missing, about to end, of another CA, or
    /// made for other names than the profile's.
    ///
    /// # Errors
    /// The files cannot be read or written.
    pub fn identity(&self, name: &str, profile: &Profile) -> Result<Identity, Error> {
        let (cert_path, key_path, made_for_path) = (
            self.dir.join(format!("{name}.crt")),
            self.dir.join(format!("{name}.key")),
            self.dir.join(format!("{name}.profile")),
        );
        let made_for = format!("{profile:?} by {}\n", self.ca.pin()?);
        if let (Some(cert_pem), Some(key_pem), Some(was)) = (
            files::read(&cert_path)?,
            files::read(&key_path)?,
            files::read(&made_for_path)?,
        ) {
            let left = not_after_seconds(&cert_pem).map(|t| t - jiff::Timestamp::now().as_second());
            if was == made_for && left.is_ok_and(|s| s > RENEW_BEFORE_SECONDS) {
                return Ok(Identity { cert_pem, key_pem });
            }
        }
        let identity = self.ca.issue(profile)?;
        files::write(&key_path, &identity.key_pem, true)?;
        files::write(&cert_path, &identity.cert_pem, false)?;
        files::write(&made_for_path, &made_for, false)?;
        Ok(identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_is_loaded_and_a_new_name_reissues() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = Pki::load_or_create(dir.path()).expect("made");
        let profile = Profile::server("x", &["a".into()], &[]);
        let id = first.identity("apiserver", &profile).expect("issued");
        let again = Pki::load_or_create(dir.path()).expect("loaded");
        assert_eq!(first.ca().cert_pem(), again.ca().cert_pem());
        assert_eq!(
            first.service_account_key_pem(),
            again.service_account_key_pem()
        );
        assert_eq!(
            again
                .identity("apiserver", &profile)
                .expect("kept")
                .cert_pem,
            id.cert_pem
        );
        let more = Profile::server("x", &["a".into(), "b".into()], &[]);
        assert_ne!(
            again.identity("apiserver", &more).expect("new").cert_pem,
            id.cert_pem
        );
    }

    #[test]
    fn half_a_pair_and_garbage_are_refused_and_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        Pki::load_or_create(dir.path()).expect("made");
        let key = dir.path().join("ca.key");
        std::fs::rename(&key, dir.path().join("elsewhere")).expect("moved");
        let e = Pki::load_or_create(dir.path()).expect_err("half a pair");
        assert!(e.to_string().contains("restore it from a backup"), "{e}");
        std::fs::write(&key, "garbage").expect("written");
        let e = Pki::load_or_create(dir.path()).expect_err("garbage");
        assert!(e.to_string().contains("not usable"), "{e}");
        assert_eq!(
            std::fs::read_to_string(&key).expect("still there"),
            "garbage"
        );
    }
}
