//! Kubeconfig files: read here, rendered by `kontiki_pki::kubeconfig`.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kontiki_pki::Identity;
use serde::Deserialize;

use crate::SetupError;

/// What the current context of a kubeconfig says.
#[derive(Clone)]
pub struct Kubeconfig {
    /// The server, as in `https://10.0.0.1:6443`.
    pub server: String,
    /// The CA of the server, as PEM.
    pub ca_pem: String,
    /// Our certificate and key, if it has them.
    pub identity: Option<Identity>,
    /// Our token, if it has one.
    pub token: Option<String>,
}

impl std::fmt::Debug for Kubeconfig {
    /// Key and token are not shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kubeconfig")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Text {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority_data: Option<String>,
    certificate_authority: Option<String>,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    client_certificate_data: Option<String>,
    client_certificate: Option<String>,
    client_key_data: Option<String>,
    client_key: Option<String>,
    token: Option<String>,
}

impl Kubeconfig {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or lacks what is needed.
    pub fn read(path: &Path) -> Result<Kubeconfig, SetupError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| SetupError::Read {
            path: shown.clone(),
            source,
        })?;
        Kubeconfig::parse(&text, path).map_err(|why| SetupError::Kubeconfig { path: shown, why })
    }

    /// Reads the text of a file; other files that it names are looked for beside `path`.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str, path: &Path) -> Result<Kubeconfig, String> {
        let t: Text = serde_yaml_ng::from_str(text).map_err(|e| e.to_string())?;
        let context = t
            .contexts
            .iter()
            .find(|c| c.name == t.current_context)
            .ok_or_else(|| format!("there is no context {:?}", t.current_context))?;
        let (cluster, user) = (&context.context.cluster, &context.context.user);
        let c = t
            .clusters
            .iter()
            .find(|c| c.name == *cluster)
            .ok_or_else(|| format!("there is no cluster {cluster:?}"))?;
        let u = t
            .users
            .iter()
            .find(|u| u.name == *user)
            .ok_or_else(|| format!("there is no user {user:?}"))?;
        let pem = |what: &str,
                   data: &Option<String>,
                   file: &Option<String>|
         -> Result<Option<String>, String> {
            if let Some(data) = data {
                let bytes = STANDARD
                    .decode(data.trim())
                    .map_err(|e| format!("{what}-data: {e}"))?;
                return String::from_utf8(bytes)
                    .map(Some)
                    .map_err(|e| format!("{what}-data: {e}"));
            }
            let Some(file) = file else {
                return Ok(None);
            };
            let at = path.parent().unwrap_or(Path::new("")).join(file);
            std::fs::read_to_string(&at)
                .map(Some)
                .map_err(|e| format!("{what} {}: {e}", at.display()))
        };
        let ca = pem(
            "certificate-authority",
            &c.cluster.certificate_authority_data,
            &c.cluster.certificate_authority,
        )?;
        let cert = pem(
            "client-certificate",
            &u.user.client_certificate_data,
            &u.user.client_certificate,
        )?;
        let key = pem("client-key", &u.user.client_key_data, &u.user.client_key)?;
        let identity = match (cert, key) {
            (Some(cert_pem), Some(key_pem)) => Some(Identity { cert_pem, key_pem }),
            (None, None) => None,
            _ => return Err(format!("user {user:?} has only one of certificate and key")),
        };
        Ok(Kubeconfig {
            server: c.cluster.server.clone(),
            ca_pem: ca
                .ok_or_else(|| format!("cluster {cluster:?} has no certificate-authority-data"))?,
            identity,
            token: u.user.token.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_render_is_read_again() {
        let id = Identity {
            cert_pem: "CERT".into(),
            key_pem: "KEY".into(),
        };
        let text = kontiki_pki::kubeconfig::render("kontiki", "https://h:6443", "CA", "admin", &id);
        let k = Kubeconfig::parse(&text, Path::new("/nowhere/k")).expect("a kubeconfig");
        let read = k.identity.expect("an identity");
        assert_eq!(
            (k.server.as_str(), k.ca_pem.as_str()),
            ("https://h:6443", "CA")
        );
        assert_eq!(
            (read.cert_pem.as_str(), read.key_pem.as_str()),
            ("CERT", "KEY")
        );
    }

    #[test]
    fn yaml_with_files_beside_it_is_read() {
        let dir = std::env::temp_dir().join(format!("kontiki-kubeconfig-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        std::fs::write(dir.join("ca.crt"), "CA").expect("a file");
        let text = "current-context: c\ncontexts:\n- {name: c, context: {cluster: k, user: u}}\n\
                    clusters:\n- {name: k, cluster: {server: 'https://h', certificate-authority: ca.crt}}\n\
                    users:\n- {name: u, user: {token: t}}\n";
        let k = Kubeconfig::parse(text, &dir.join("config"));
        std::fs::remove_dir_all(&dir).expect("it was there");
        let k = k.expect("a kubeconfig");
        assert_eq!((k.ca_pem.as_str(), k.token.as_deref()), ("CA", Some("t")));
    }

    #[test]
    fn what_is_missing_is_named() {
        let e = Kubeconfig::parse("current-context: x", Path::new("/c")).expect_err("no context");
        assert_eq!(e, "there is no context \"x\"");
    }
}
