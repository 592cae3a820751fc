//! Security contexts of pods and containers in the runtime's terms.

use std::path::Path;

use crate::cri::v1 as cri;
use crate::pod::{Container, Pod, SeLinuxOptions, SecurityContext, SecurityProfile};

/// Why a container must not be created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecurityError {
    /// `runAsNonRoot`, but it would run as root.
    #[error(
        "container has runAsNonRoot and image will run as root (pod: \"{pod}\", container: {container})"
    )]
    Root {
        /// The pod.
        pod: String,
        /// The container.
        container: String,
    },
    /// `runAsNonRoot`, and the image names a user that may be root.
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (pod: \"{pod}\", container: {container})"
    )]
    UnknownUser {
        /// The user's name.
        user: String,
        /// The pod.
        pod: String,
        /// The container.
        container: String,
    },
}

fn mode(shared_with_node: bool, otherwise: cri::NamespaceMode) -> i32 {
    if shared_with_node {
        cri::NamespaceMode::Node.into()
    } else {
        otherwise.into()
    }
}

/// The namespaces of a pod's sandbox and containers. The process namespace has to be said for each container too.
pub fn namespaces(pod: &Pod) -> cri::NamespaceOption {
    let s = &pod.spec;
    let own = if s.share_process_namespace {
        cri::NamespaceMode::Pod
    } else {
        cri::NamespaceMode::Container
    };
    cri::NamespaceOption {
        network: mode(s.host_network, cri::NamespaceMode::Pod),
        ipc: mode(s.host_ipc, cri::NamespaceMode::Pod),
        pid: mode(s.host_pid, own),
        target_id: String::new(),
    }
}

fn profile(p: Option<&SecurityProfile>, seccomp_dir: &Path) -> Option<cri::SecurityProfile> {
    let p = p?;
    let (kind, localhost_ref) = match p.kind.as_str() {
        "RuntimeDefault" => (
            cri::security_profile::ProfileType::RuntimeDefault,
            String::new(),
        ),
        "Localhost" => {
            let file = seccomp_dir.join(p.localhost_profile.as_deref().unwrap_or_default());
            (
                cri::security_profile::ProfileType::Localhost,
                file.to_string_lossy().into_owned(),
            )
        }
        _ => (
            cri::security_profile::ProfileType::Unconfined,
            String::new(),
        ),
    };
    Some(cri::SecurityProfile {
        profile_type: kind.into(),
        localhost_ref,
    })
}

fn unconfined() -> cri::SecurityProfile {
    let profile_type = cri::security_profile::ProfileType::Unconfined.into();
    cri::SecurityProfile {
        profile_type,
        localhost_ref: String::new(),
    }
}

fn selinux(o: Option<&SeLinuxOptions>) -> Option<cri::SeLinuxOption> {
    o.map(|o| cri::SeLinuxOption {
        user: o.user.clone(),
        role: o.role.clone(),
        r#type: o.kind.clone(),
        level: o.level.clone(),
    })
}

fn int(value: Option<i64>) -> Option<cri::Int64Value> {
    value.map(|value| cri::Int64Value { value })
}

fn groups(pod: &Pod) -> Vec<i64> {
    let Some(s) = &pod.spec.security_context else {
        return Vec::new();
    };
    s.supplemental_groups
        .iter()
        .copied()
        .chain(s.fs_group)
        .collect()
}

/// The security context of a sandbox.
pub fn sandbox(pod: &Pod, seccomp_dir: &Path) -> cri::LinuxSandboxSecurityContext {
    let s = pod.spec.security_context.clone().unwrap_or_default();
    let privileged =
        |c: &Container| c.security_context.as_ref().and_then(|s| s.privileged) == Some(true);
    cri::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        selinux_options: selinux(s.se_linux_options.as_ref()),
        run_as_user: int(s.run_as_user),
        run_as_group: int(s.run_as_group.filter(|_| s.run_as_user.is_some())),
        readonly_rootfs: false,
        supplemental_groups: groups(pod),
        privileged: pod.all_containers().any(privileged),
        seccomp: Some(profile(s.seccomp_profile.as_ref(), seccomp_dir).unwrap_or(
            cri::SecurityProfile {
                profile_type: 0,
                localhost_ref: String::new(),
            },
        )),
    }
}

/// The security context of a container: its own fields over the pod's.
///
/// # Errors
/// It would run as root and must not.
pub fn container(
    pod: &Pod,
    c: &Container,
    image: &cri::Image,
    seccomp_dir: &Path,
) -> Result<cri::LinuxContainerSecurityContext, SecurityError> {
    let p = pod.spec.security_context.clone().unwrap_or_default();
    let own = c.security_context.clone().unwrap_or_default();
    let run_as_user = own.run_as_user.or(p.run_as_user);
    let run_as_group = own.run_as_group.or(p.run_as_group);
    if own.run_as_non_root.or(p.run_as_non_root) == Some(true) {
        check_not_root(pod, c, run_as_user, image)?;
    }
    // The runtime takes a group only together with a user: where the pod names none, the image's is named.
    let image_user = image.uid.as_ref().map_or(0, |u| u.value);
    let by_name = run_as_user.is_none() && !image.username.is_empty();
    let user = match (run_as_user, run_as_group) {
        (None, Some(_)) if !by_name => Some(image_user),
        (user, _) => user,
    };
    let seccomp = own.seccomp_profile.as_ref().or(p.seccomp_profile.as_ref());
    let apparmor = own
        .app_armor_profile
        .as_ref()
        .or(p.app_armor_profile.as_ref());
    Ok(cri::LinuxContainerSecurityContext {
        capabilities: own.capabilities.as_ref().map(|c| cri::Capability {
            add_capabilities: c.add.clone(),
            drop_capabilities: c.drop.clone(),
        }),
        privileged: own.privileged == Some(true),
        namespace_options: Some(namespaces(pod)),
        selinux_options: selinux(
            own.se_linux_options
                .as_ref()
                .or(p.se_linux_options.as_ref()),
        ),
        run_as_user: int(user),
        run_as_username: if by_name && run_as_group.is_some() {
            image.username.clone()
        } else {
            String::new()
        },
        run_as_group: int(run_as_group),
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: groups(pod),
        no_new_privs: forbids_new_privileges(&own),
        masked_paths: Vec::new(),
        readonly_paths: Vec::new(),
        seccomp: Some(profile(seccomp, seccomp_dir).unwrap_or_else(unconfined)),
        apparmor: apparmor.map(|a| cri::SecurityProfile {
            localhost_ref: a.localhost_profile.clone().unwrap_or_default(),
            ..profile(Some(a), Path::new("")).unwrap_or_else(unconfined)
        }),
    })
}

fn forbids_new_privileges(s: &SecurityContext) -> bool {
    s.allow_privilege_escalation == Some(false) && s.privileged != Some(true)
}

fn check_not_root(
    pod: &Pod,
    c: &Container,
    user: Option<i64>,
    image: &cri::Image,
) -> Result<(), SecurityError> {
    let root = || SecurityError::Root {
        pod: pod.key(),
        container: c.name.clone(),
    };
    match (user, &image.uid) {
        (Some(0), _) => Err(root()),
        (Some(_), _) => Ok(()),
        (None, _) if !image.username.is_empty() => {
            let user = image.username.clone();
            Err(SecurityError::UnknownUser {
                user,
                pod: pod.key(),
                container: c.name.clone(),
            })
        }
        (None, Some(uid)) if uid.value != 0 => Ok(()),
        (None, _) => Err(root()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[allow(
        clippy::needless_pass_by_value,
        reason = "a json! reads better at the calls"
    )]
    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec}))
            .expect("a pod")
    }

    fn of(
        spec: Value,
        image: &cri::Image,
    ) -> Result<cri::LinuxContainerSecurityContext, SecurityError> {
        let pod = pod(spec);
        container(&pod, &pod.spec.containers[0], image, Path::new("/s"))
    }

    #[test]
    fn a_containers_own_fields_win_over_the_pods() {
        let c = of(
            json!({
                "securityContext": {"runAsUser": 1000, "fsGroup": 7, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{"name": "c", "securityContext": {
                    "runAsUser": 5, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                    "readOnlyRootFilesystem": true}}],
            }),
            &cri::Image::default(),
        )
        .expect("fine");
        assert_eq!(c.run_as_user.map(|u| u.value), Some(5));
        assert_eq!(c.supplemental_groups, [7]);
        assert!(c.no_new_privs && c.readonly_rootfs);
        assert_eq!(c.seccomp.map(|s| s.profile_type), Some(0));
        assert_eq!(
            c.capabilities.map(|c| c.drop_capabilities),
            Some(vec!["ALL".to_owned()])
        );
    }

    #[test]
    fn root_is_refused_where_it_must_not_be() {
        let spec =
            json!({"securityContext": {"runAsNonRoot": true}, "containers": [{"name": "c"}]});
        let root = cri::Image {
            uid: int(Some(0)),
            ..cri::Image::default()
        };
        let user = cri::Image {
            uid: int(Some(7)),
            ..cri::Image::default()
        };
        let named = cri::Image {
            username: "www".into(),
            ..cri::Image::default()
        };
        assert!(matches!(
            of(spec.clone(), &root),
            Err(SecurityError::Root { .. })
        ));
        assert!(of(spec.clone(), &user).is_ok());
        assert!(matches!(
            of(spec, &named),
            Err(SecurityError::UnknownUser { .. })
        ));
    }

    #[test]
    fn namespaces_follow_the_pod() {
        use cri::NamespaceMode as M;
        let n = namespaces(&pod(json!({"hostNetwork": true})));
        assert_eq!((n.network, n.pid), (M::Node.into(), M::Container.into()));
        assert_eq!(
            namespaces(&pod(json!({"shareProcessNamespace": true}))).pid,
            i32::from(M::Pod)
        );
    }
}
