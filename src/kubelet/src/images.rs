//! Images: when they are pulled, with which credentials, and how failures are told.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;

use crate::cri::v1 as cri;
use crate::pod::Container;

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the values are core/v1's")]
pub enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

impl PullPolicy {
    /// The policy of a container: its own, or by the tag of its image.
    pub fn of(c: &Container) -> PullPolicy {
        match c.image_pull_policy.as_deref() {
            Some("Always") => PullPolicy::Always,
            Some("Never") => PullPolicy::Never,
            Some("IfNotPresent") => PullPolicy::IfNotPresent,
            _ if is_latest(&c.image) => PullPolicy::Always,
            _ => PullPolicy::IfNotPresent,
        }
    }
}

/// Whether the image has the tag `latest`, said or implied.
fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

/// What is wrong with an image reference, if anything.
pub fn invalid(image: &str) -> Option<&'static str> {
    let name = image.split('@').next().unwrap_or(image);
    let last = name.rsplit('/').next().unwrap_or(name);
    let repository = name.strip_suffix(last).unwrap_or_default().to_owned()
        + last.split(':').next().unwrap_or(last);
    let (host, path) = repository.split_once('/').unwrap_or(("", &repository));
    let path = if host.contains(['.', ':']) || host == "localhost" {
        path
    } else {
        &repository
    };
    if path.is_empty() {
        return Some("invalid reference format");
    }
    if path.chars().any(|c| c.is_ascii_uppercase()) {
        return Some("invalid reference format: repository name must be lowercase");
    }
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/".contains(c);
    (!path.chars().all(fine)).then_some("invalid reference format")
}

/// The registry that an image comes from, and the repository in it.
fn registry_of(image: &str) -> (&str, &str) {
    let name = image.split('@').next().unwrap_or(image);
    match name.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
        _ => ("docker.io", name),
    }
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, DockerAuth>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct DockerAuth {
    username: String,
    password: String,
    auth: String,
    identitytoken: String,
    registrytoken: String,
}

/// The credentials for an image among pull secrets (the data of each); the longest match of registry and path wins.
pub fn credentials<'a>(
    image: &str,
    secrets: impl Iterator<Item = &'a crate::materials::Data>,
) -> Option<cri::AuthConfig> {
    let (registry, path) = registry_of(image);
    let full = format!("{registry}/{path}");
    let mut best: Option<(usize, cri::AuthConfig)> = None;
    for data in secrets {
        let parsed = if let Some(json) = data.get(".dockerconfigjson") {
            serde_json::from_slice::<DockerConfig>(json).map(|c| c.auths)
        } else if let Some(json) = data.get(".dockercfg") {
            serde_json::from_slice(json)
        } else {
            continue;
        };
        let Ok(auths) = parsed else { continue };
        for (server, a) in auths {
            let prefix = normalized(&server);
            let matches = full
                .strip_prefix(&prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':']));
            if matches && best.as_ref().is_none_or(|(n, _)| prefix.len() > *n) {
                best = Some((prefix.len(), auth_config(server, a)));
            }
        }
    }
    best.map(|(_, a)| a)
}

/// A server as it stands in credentials, in the form of an image's prefix.
fn normalized(server: &str) -> String {
    let s = server
        .trim_start_matches("https://")
        .trim_start_matches("http://")
        .trim_end_matches('/');
    let s = s
        .strip_suffix("/v1")
        .or_else(|| s.strip_suffix("/v2"))
        .unwrap_or(s);
    if s == "index.docker.io" {
        "docker.io".to_owned()
    } else {
        s.to_owned()
    }
}

fn auth_config(server_address: String, a: DockerAuth) -> cri::AuthConfig {
    let decoded = BASE64
        .decode(&a.auth)
        .ok()
        .and_then(|b| String::from_utf8(b).ok());
    let (user, password) = decoded
        .as_deref()
        .and_then(|d| d.split_once(':'))
        .unwrap_or_default();
    cri::AuthConfig {
        username: if a.username.is_empty() {
            user.to_owned()
        } else {
            a.username
        },
        password: if a.password.is_empty() {
            password.trim_end_matches('\0').to_owned()
        } else {
            a.password
        },
        auth: String::new(),
        server_address,
        identity_token: a.identitytoken,
        registry_token: a.registrytoken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_decides_where_the_policy_is_silent() {
        let policy = |image: &str| {
            PullPolicy::of(&Container {
                image: image.into(),
                ..Container::default()
            })
        };
        for image in ["nginx", "host:5000/nginx", "nginx:latest"] {
            assert_eq!(policy(image), PullPolicy::Always, "{image}");
        }
        for image in ["nginx:1.27", "host:5000/nginx:1", "nginx@sha256:00"] {
            assert_eq!(policy(image), PullPolicy::IfNotPresent, "{image}");
        }
    }

    #[test]
    fn bad_references_are_told() {
        assert_eq!(invalid("nginx:1"), None);
        assert_eq!(invalid("localhost:5000/a/b:X"), None);
        assert!(invalid("Nginx").is_some_and(|e| e.contains("lowercase")));
        assert!(invalid("a b").is_some());
    }

    #[test]
    fn the_longest_match_gives_the_credentials() {
        let json = format!(
            r#"{{"auths": {{"r.example": {{"username": "u", "password": "p"}},
                "https://r.example/team/": {{"auth": "{}"}},
                "https://index.docker.io/v1/": {{"username": "hub", "password": "h"}}}}}}"#,
            BASE64.encode("t:secret")
        );
        let data: crate::materials::Data =
            [(".dockerconfigjson".to_owned(), json.into_bytes())].into();
        let user =
            |image: &str| credentials(image, [&data].into_iter()).map(|a| (a.username, a.password));
        let pair = |u: &str, p: &str| Some((u.to_owned(), p.to_owned()));
        assert_eq!(user("r.example/app:1"), pair("u", "p"));
        assert_eq!(user("r.example/team/app"), pair("t", "secret"));
        assert_eq!(user("r.example/teamwork/app"), pair("u", "p"));
        assert_eq!(user("nginx"), pair("hub", "h"));
        assert_eq!(user("other.example/x"), None);
    }
}
