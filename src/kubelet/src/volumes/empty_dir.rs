//! `emptyDir`: a directory, or a tmpfs, that lives as long as the pod.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use async_trait::async_trait;

use super::{Context, Plugin, VolumeError, file_error};
use crate::pod::{Amount, Volume};

/// The plugin.
#[derive(Debug)]
pub struct EmptyDir;

#[async_trait]
impl Plugin for EmptyDir {
    fn dir_name(&self) -> &'static str {
        "kubernetes.io~empty-dir"
    }

    fn handles(&self, volume: &Volume) -> bool {
        // A volume without any source is an emptyDir too.
        volume.empty_dir.is_some()
            || (volume.host_path.is_none()
                && volume.config_map.is_none()
                && volume.secret.is_none()
                && volume.downward_api.is_none()
                && volume.projected.is_none()
                && volume.other.is_empty())
    }

    async fn set_up(&self, c: &Context<'_>, volume: &Volume) -> Result<PathBuf, VolumeError> {
        let existed = c.dir.is_dir();
        fs::create_dir_all(&c.dir).map_err(file_error("make", &c.dir))?;
        let source = volume.empty_dir.clone().unwrap_or_default();
        if source.medium.as_deref() == Some("Memory") && !c.mounts.below(&c.dir)?.contains(&c.dir) {
            let size = source
                .size_limit
                .as_ref()
                .map(Amount::quantity)
                .map(kontiki_api::Quantity::units);
            c.mounts.tmpfs(
                &c.dir,
                size.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0),
            )?;
        }
        if !existed {
            fs::set_permissions(&c.dir, fs::Permissions::from_mode(0o777))
                .map_err(file_error("change the mode of", &c.dir))?;
        }
        Ok(c.dir.clone())
    }
}
