//! Volumes of pods: each kind is a plugin that makes a directory (or names a path) on the machine.
//!
//! Entry points: [`Volumes::set_up`], [`Volumes::refresh`], [`Volumes::mounts`], [`Volumes::tear_down`].

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use kontiki_host::mounts::{MountError, Mounts};
use kontiki_reconcile::CallError;

use crate::cri::v1 as cri;
use crate::downward::Facts;
use crate::env::expand;
use crate::materials::Materials;
use crate::pod::{Container, Pod, Volume, VolumeMount};

pub mod atomic;
pub mod empty_dir;
pub mod host_path;
pub mod projected;
pub mod subpath;
pub mod token;

/// A volume that cannot be made or mounted.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// A file or directory could not be made.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A mount could not be made.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// An object that the volume shows is missing.
    #[error("{0}")]
    Missing(String),
    /// The token for the volume could not be had.
    #[error("failed to fetch token")]
    Token(#[source] CallError),
    /// The pod asks for something that cannot be.
    #[error("{0}")]
    Refused(String),
}

pub(crate) fn file_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> VolumeError {
    let path = path.to_owned();
    move |source| VolumeError::File { what, path, source }
}

/// What plugins work with.
pub struct Context<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The volume's own directory; whether it is made is the plugin's choice.
    pub dir: PathBuf,
    /// Config maps and secrets that the pod refers to.
    pub materials: &'a Materials,
    /// What is known beside the object.
    pub facts: &'a Facts,
    /// The machine's mounts.
    pub mounts: &'a dyn Mounts,
    /// Where service-account tokens come from.
    pub tokens: &'a token::Tokens,
}

/// One kind of volume.
#[async_trait]
pub trait Plugin: Send + Sync + 'static {
    /// The plugin's directory name, as `kubernetes.io~empty-dir`.
    fn dir_name(&self) -> &'static str;

    /// Whether the volume is of this kind.
    fn handles(&self, volume: &Volume) -> bool;

    /// Makes the volume; returns the path that containers mount. Called again, it changes nothing that is there.
    async fn set_up(&self, c: &Context<'_>, volume: &Volume) -> Result<PathBuf, VolumeError>;

    /// Brings the contents up to date, for kinds that show objects of the API.
    async fn refresh(&self, _: &Context<'_>, _: &Volume) -> Result<(), VolumeError> {
        Ok(())
    }
}

/// All volumes of the node.
pub struct Volumes {
    root: PathBuf,
    plugins: Vec<Box<dyn Plugin>>,
    mounts: Arc<dyn Mounts>,
    tokens: token::Tokens,
}

/// The path of a volume on the machine, by its name.
pub type Paths = std::collections::HashMap<String, PathBuf>;

impl Volumes {
    /// Volumes below the directory of all pods, with the plugins that are built in.
    pub fn new(root: PathBuf, mounts: Arc<dyn Mounts>, tokens: token::Tokens) -> Volumes {
        let plugins: Vec<Box<dyn Plugin>> = vec![
            Box::new(empty_dir::EmptyDir),
            Box::new(host_path::HostPath),
            Box::new(projected::Projected),
        ];
        Volumes {
            root,
            plugins,
            mounts,
            tokens,
        }
    }

    /// The directory of a pod.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root.join(uid)
    }

    /// The uids of the pods that have files here.
    pub fn uids(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        entries
            .filter_map(|e| e.file_name().into_string().ok())
            .collect()
    }

    fn context<'a>(
        &'a self,
        pod: &'a Pod,
        plugin: &dyn Plugin,
        volume: &Volume,
        materials: &'a Materials,
        facts: &'a Facts,
    ) -> Context<'a> {
        let dir = self
            .pod_dir(&pod.metadata.uid)
            .join("volumes")
            .join(plugin.dir_name())
            .join(&volume.name);
        Context {
            pod,
            dir,
            materials,
            facts,
            mounts: &*self.mounts,
            tokens: &self.tokens,
        }
    }

    fn plugin(&self, volume: &Volume) -> Result<&dyn Plugin, VolumeError> {
        self.plugins
            .iter()
            .find(|p| p.handles(volume))
            .map(|p| &**p)
            .ok_or_else(|| {
                let kinds: Vec<&str> = volume.other.keys().map(String::as_str).collect();
                VolumeError::Refused(format!(
                    "volume {:?} is of a kind that this node cannot mount: {}",
                    volume.name,
                    kinds.join(", ")
                ))
            })
    }

    /// Makes all volumes of a pod, or finds them made.
    ///
    /// # Errors
    /// The first volume that cannot be made.
    pub async fn set_up(
        &self,
        pod: &Pod,
        materials: &Materials,
        facts: &Facts,
    ) -> Result<Paths, VolumeError> {
        let mut paths = Paths::new();
        let fs_group = pod.spec.security_context.as_ref().and_then(|s| s.fs_group);
        for v in &pod.spec.volumes {
            let plugin = self.plugin(v)?;
            let c = self.context(pod, plugin, v, materials, facts);
            let existed = c.dir.exists();
            let path = plugin.set_up(&c, v).await?;
            if let Some(group) = fs_group.filter(|_| v.host_path.is_none() && !existed) {
                own_by_group(&path, group)?;
            }
            paths.insert(v.name.clone(), path);
        }
        Ok(paths)
    }

    /// Brings the volumes that show objects of the API up to date.
    ///
    /// # Errors
    /// The first volume that cannot be brought up to date; it keeps what it had.
    pub async fn refresh(
        &self,
        pod: &Pod,
        materials: &Materials,
        facts: &Facts,
    ) -> Result<(), VolumeError> {
        for v in &pod.spec.volumes {
            let plugin = self.plugin(v)?;
            plugin
                .refresh(&self.context(pod, plugin, v, materials, facts), v)
                .await?;
        }
        Ok(())
    }

    /// The mounts of a container in the runtime's terms. `env` gives the values for `subPathExpr`.
    ///
    /// # Errors
    /// A volume is not there, or a sub-path leads out of it.
    pub fn mounts(
        &self,
        pod: &Pod,
        container: &Container,
        paths: &Paths,
        env: &[(String, String)],
    ) -> Result<Vec<cri::Mount>, VolumeError> {
        let mut out = Vec::new();
        for (index, m) in container.volume_mounts.iter().enumerate() {
            let base = paths.get(&m.name).ok_or_else(|| {
                VolumeError::Missing(format!("volume {:?} is not mounted", m.name))
            })?;
            let sub = sub_path(m, env)?;
            let host_path = match &sub {
                None => base.clone(),
                Some(sub) => {
                    let target = self
                        .pod_dir(&pod.metadata.uid)
                        .join("volume-subpaths")
                        .join(&m.name)
                        .join(&container.name)
                        .join(index.to_string());
                    subpath::bind(base, sub, &target, !m.read_only, &*self.mounts)?
                }
            };
            let volume = pod.spec.volumes.iter().find(|v| v.name == m.name);
            let readonly = m.read_only || volume.is_some_and(shows_objects);
            out.push(cri::Mount {
                container_path: absolute(&m.mount_path),
                host_path: host_path.to_string_lossy().into_owned(),
                readonly,
                selinux_relabel: false,
                propagation: propagation(m).into(),
            });
        }
        Ok(out)
    }

    /// Removes a pod's volumes, and all other files of it with `whole`.
    ///
    /// # Errors
    /// Something cannot be unmounted or removed.
    pub fn tear_down(&self, uid: &str, whole: bool) -> Result<(), VolumeError> {
        let dir = self.pod_dir(uid);
        for mount in self.mounts.below(&dir)? {
            self.mounts.unmount(&mount)?;
        }
        let doomed = if whole {
            vec![dir]
        } else {
            vec![dir.join("volumes"), dir.join("volume-subpaths")]
        };
        for d in doomed {
            match fs::remove_dir_all(&d) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(file_error("remove", &d)(e));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Volumes whose contents come from the API cannot be written to.
fn shows_objects(v: &Volume) -> bool {
    v.config_map.is_some()
        || v.secret.is_some()
        || v.downward_api.is_some()
        || v.projected.is_some()
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    }
}

fn sub_path(m: &VolumeMount, env: &[(String, String)]) -> Result<Option<String>, VolumeError> {
    if let Some(e) = m.sub_path_expr.as_deref().filter(|e| !e.is_empty()) {
        let missing = std::cell::Cell::new(false);
        let text = expand(e, |n| {
            let value = env.iter().find(|(k, _)| k == n).map(|(_, v)| v.clone());
            missing.set(missing.get() || value.is_none());
            value
        });
        if missing.get() {
            return Err(VolumeError::Refused(format!(
                "failed to expand subPathExpr {e:?}"
            )));
        }
        return Ok(Some(text));
    }
    Ok(m.sub_path.clone().filter(|s| !s.is_empty()))
}

fn propagation(m: &VolumeMount) -> cri::MountPropagation {
    match m.mount_propagation.as_deref() {
        Some("HostToContainer") => cri::MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => cri::MountPropagation::PropagationBidirectional,
        _ => cri::MountPropagation::PropagationPrivate,
    }
}

/// Gives a volume to the pod's group, so that its processes can write there.
fn own_by_group(dir: &Path, group: i64) -> Result<(), VolumeError> {
    let gid = u32::try_from(group)
        .map_err(|_| VolumeError::Refused(format!("fsGroup {group} is out of range")))?;
    let meta = fs::symlink_metadata(dir).map_err(file_error("look at", dir))?;
    std::os::unix::fs::lchown(dir, None, Some(gid))
        .map_err(file_error("change the group of", dir))?;
    if meta.is_symlink() {
        return Ok(());
    }
    // The group may do what the owner may; what is made in a directory belongs to the group too.
    let mode = meta.permissions().mode();
    let wanted = if meta.is_dir() {
        mode | 0o2070
    } else {
        mode | ((mode & 0o600) >> 3)
    };
    fs::set_permissions(dir, fs::Permissions::from_mode(wanted))
        .map_err(file_error("change the mode of", dir))?;
    if meta.is_dir() {
        for e in fs::read_dir(dir)
            .map_err(file_error("read", dir))?
            .flatten()
        {
            own_by_group(&e.path(), group)?;
        }
    }
    Ok(())
}
