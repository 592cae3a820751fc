//! What the runtime is told of a container.

use std::collections::HashMap;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::cri::v1 as cri;
use crate::env::expand;
use crate::pod::{Container, Pod, resources};
use crate::sandbox::{CONTAINER_NAME_LABEL, owner_labels};
use crate::security::{self, SecurityError};

/// Annotation: the hash of what, when changed, asks for a new container.
pub const HASH_ANNOTATION: &str = "io.kubernetes.container.hash";
/// Annotation: where the container leaves its last words.
pub const MESSAGE_PATH_ANNOTATION: &str = "io.kubernetes.container.terminationMessagePath";
/// Annotation: whether the log stands in for last words.
pub const MESSAGE_POLICY_ANNOTATION: &str = "io.kubernetes.container.terminationMessagePolicy";
/// Annotation: how often the container has been started again.
pub const RESTARTS_ANNOTATION: &str = "io.kubernetes.container.restartCount";
/// Annotation: seconds that the pod gets to end, for when the pod object is gone.
pub const GRACE_ANNOTATION: &str = "io.kubernetes.pod.terminationGracePeriod";

/// What was worked out for a container before it is described.
#[derive(Debug, Default)]
pub struct Prepared {
    /// Its variables.
    pub env: Vec<(String, String)>,
    /// Its mounts.
    pub mounts: Vec<cri::Mount>,
    /// Its image.
    pub image: cri::Image,
    /// All memory of the node.
    pub node_memory_bytes: i64,
}

/// The hash of what of a running container can change so that it has to be made anew: its image.
pub fn hash(c: &Container) -> String {
    let digest = Sha256::digest(format!("{}\0{}", c.name, c.image));
    digest[..4].iter().map(|b| format!("{b:02x}")).collect()
}

/// The path of a container's log below the pod's log directory.
pub fn log_path(name: &str, attempt: u32) -> String {
    format!("{name}/{attempt}.log")
}

/// The configuration of a container.
///
/// # Errors
/// The security context forbids it.
pub fn config(
    pod: &Pod,
    c: &Container,
    attempt: u32,
    prepared: Prepared,
    config: &Config,
) -> Result<cri::ContainerConfig, SecurityError> {
    let value = |n: &str| {
        prepared
            .env
            .iter()
            .find(|(k, _)| k == n)
            .map(|(_, v)| v.clone())
    };
    let expanded = |words: &[String]| words.iter().map(|w| expand(w, value)).collect::<Vec<_>>();
    let mut labels = owner_labels(pod);
    labels.insert(CONTAINER_NAME_LABEL.into(), c.name.clone());
    let annotations = HashMap::from([
        (HASH_ANNOTATION.to_owned(), hash(c)),
        (
            MESSAGE_PATH_ANNOTATION.to_owned(),
            message_path(c).to_owned(),
        ),
        (
            MESSAGE_POLICY_ANNOTATION.to_owned(),
            c.termination_message_policy
                .clone()
                .unwrap_or_else(|| "File".into()),
        ),
        (RESTARTS_ANNOTATION.to_owned(), attempt.to_string()),
        (GRACE_ANNOTATION.to_owned(), pod.grace_seconds().to_string()),
    ]);
    let security_context =
        security::container(pod, c, &prepared.image, &config.root_dir.join("seccomp"))?;
    Ok(cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata {
            name: c.name.clone(),
            attempt,
        }),
        image: Some(cri::ImageSpec {
            image: prepared.image.id.clone(),
            user_specified_image: c.image.clone(),
            ..cri::ImageSpec::default()
        }),
        command: expanded(&c.command),
        args: expanded(&c.args),
        working_dir: c.working_dir.clone().unwrap_or_default(),
        envs: prepared
            .env
            .iter()
            .map(|(k, v)| cri::KeyValue {
                key: k.clone(),
                value: v.clone(),
            })
            .collect(),
        mounts: prepared.mounts,
        labels,
        annotations,
        log_path: log_path(&c.name, attempt),
        stdin: c.stdin,
        stdin_once: c.stdin_once,
        tty: c.tty,
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(resources::container_resources(
                pod,
                c,
                prepared.node_memory_bytes,
            )),
            security_context: Some(security_context),
        }),
    })
}

/// Where the container leaves its last words.
pub fn message_path(c: &Container) -> &str {
    c.termination_message_path
        .as_deref()
        .filter(|p| !p.is_empty())
        .unwrap_or("/dev/termination-log")
}

/// A mount of one of the kubelet's own files.
pub fn file_mount(container_path: &str, host_path: &Path) -> cri::Mount {
    cri::Mount {
        container_path: container_path.to_owned(),
        host_path: host_path.to_string_lossy().into_owned(),
        ..cri::Mount::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing;

    #[test]
    fn commands_see_the_variables_and_the_image_alone_changes_the_hash() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"containers": [{"name": "c", "image": "i:1", "command": ["run"], "args": ["--x=$(X)", "$$(X)"]}]},
        }))
        .expect("a pod");
        let c = &pod.spec.containers[0];
        let prepared = Prepared {
            env: vec![("X".into(), "7".into())],
            ..Prepared::default()
        };
        let made = config(&pod, c, 2, prepared, &testing::config()).expect("allowed");
        assert_eq!(made.args, ["--x=7", "$(X)"]);
        assert_eq!(
            (
                made.log_path.as_str(),
                made.annotations[RESTARTS_ANNOTATION].as_str()
            ),
            ("c/2.log", "2")
        );
        let mut other = c.clone();
        other.args.clear();
        assert_eq!(hash(c), hash(&other));
        other.image = "i:2".into();
        assert_ne!(hash(c), hash(&other));
    }
}
