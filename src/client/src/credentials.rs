//! Where the masters are and what is shown to them: read from a kubeconfig.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kontiki_pki::Identity;
use serde::Deserialize;

/// Masters, the CA that their certificates come from, and the client's own certificate.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// URLs of the masters, as in `https://192.0.2.10:6443`; tried in this order.
    pub servers: Vec<String>,
    /// The cluster's CA.
    pub ca_pem: String,
    /// The client's certificate and key.
    pub identity: Identity,
}

/// A kubeconfig that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not a kubeconfig.
    #[error("{path} is not a kubeconfig")]
    Parse {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: serde_yaml_ng::Error,
    },
    /// Something is missing or malformed in it.
    #[error("{path}: {what}")]
    Incomplete {
        /// The file.
        path: String,
        /// What.
        what: String,
    },
    /// Its certificates cannot be used.
    #[error("the credentials cannot be used")]
    Tls(#[from] kontiki_pki::Error),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    clusters: Vec<Named>,
    #[serde(default)]
    users: Vec<Named>,
    #[serde(default)]
    contexts: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    #[serde(default)]
    cluster: Cluster,
    #[serde(default)]
    user: User,
    #[serde(default)]
    context: Context,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Cluster {
    server: String,
    certificate_authority_data: String,
    certificate_authority: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    client_certificate_data: String,
    client_certificate: String,
    client_key_data: String,
    client_key: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Context {
    cluster: String,
    user: String,
}

impl Credentials {
    /// Reads the current context of a kubeconfig; certificates may be embedded or in files of their own.
    ///
    /// # Errors
    /// The file cannot be read, or lacks something; the message says what.
    pub fn from_kubeconfig(path: &Path) -> Result<Credentials, CredentialsError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| CredentialsError::Read {
            path: shown.clone(),
            source,
        })?;
        let config: Kubeconfig =
            serde_yaml_ng::from_str(&text).map_err(|source| CredentialsError::Parse {
                path: shown.clone(),
                source,
            })?;
        let incomplete = |what: String| CredentialsError::Incomplete {
            path: shown.clone(),
            what,
        };
        let named = |list: &[Named], kind: &str, name: &str| -> Result<usize, CredentialsError> {
            list.iter()
                .position(|n| n.name == name)
                .ok_or_else(|| incomplete(format!("there is no {kind} {name:?}")))
        };
        let context =
            &config.contexts[named(&config.contexts, "context", &config.current_context)?].context;
        let cluster =
            &config.clusters[named(&config.clusters, "cluster", &context.cluster)?].cluster;
        let user = &config.users[named(&config.users, "user", &context.user)?].user;
        let base = path.parent().unwrap_or(Path::new("."));
        let pem = |data: &str, file: &str, what: &str| -> Result<String, CredentialsError> {
            if !data.is_empty() {
                return STANDARD
                    .decode(data)
                    .ok()
                    .and_then(|b| String::from_utf8(b).ok())
                    .ok_or_else(|| incomplete(format!("{what}-data is not base64 of PEM")));
            }
            if file.is_empty() {
                return Err(incomplete(format!("{what} is missing")));
            }
            let file = base.join(file);
            std::fs::read_to_string(&file).map_err(|source| CredentialsError::Read {
                path: file.display().to_string(),
                source,
            })
        };
        if !cluster.server.starts_with("https://") {
            return Err(incomplete(format!(
                "server {:?} is not an https:// URL",
                cluster.server
            )));
        }
        Ok(Credentials {
            servers: vec![cluster.server.trim_end_matches('/').to_owned()],
            ca_pem: pem(
                &cluster.certificate_authority_data,
                &cluster.certificate_authority,
                "certificate-authority",
            )?,
            identity: Identity {
                cert_pem: pem(
                    &user.client_certificate_data,
                    &user.client_certificate,
                    "client-certificate",
                )?,
                key_pem: pem(&user.client_key_data, &user.client_key, "client-key")?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use kontiki_pki::{Ca, Profile, kubeconfig};

    use super::*;

    #[test]
    fn what_we_write_is_read_and_what_is_missing_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("config");
        let ca = Ca::create("kubernetes").expect("a CA");
        let id = ca
            .issue(&Profile::client("me", "system:masters"))
            .expect("issued");
        let text = kubeconfig::render("c", "https://192.0.2.1:6443", ca.cert_pem(), "me", &id);
        std::fs::write(&path, &text).expect("written");
        let c = Credentials::from_kubeconfig(&path).expect("valid");
        assert_eq!(
            (c.servers[0].as_str(), c.ca_pem.as_str()),
            ("https://192.0.2.1:6443", ca.cert_pem())
        );
        for (from, to, want) in [
            ("client-key-data", "nothing", "client-key is missing"),
            ("https://", "http://", "is not an https:// URL"),
            (
                "\"current-context\": \"me@c\"",
                "\"current-context\": \"x\"",
                "there is no context \"x\"",
            ),
        ] {
            assert!(text.contains(from), "{from}");
            std::fs::write(&path, text.replace(from, to)).expect("written");
            let e = Credentials::from_kubeconfig(&path).expect_err(want);
            assert!(e.to_string().contains(want), "{e}");
        }
    }
}
