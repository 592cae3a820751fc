//! `hostPath`: a path of the machine, checked (or made) by its type.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::{Context, Plugin, VolumeError, file_error};
use crate::pod::Volume;

/// The plugin.
#[derive(Debug)]
pub struct HostPath;

#[async_trait]
impl Plugin for HostPath {
    fn dir_name(&self) -> &'static str {
        "kubernetes.io~host-path"
    }

    fn handles(&self, volume: &Volume) -> bool {
        volume.host_path.is_some()
    }

    async fn set_up(&self, _: &Context<'_>, volume: &Volume) -> Result<PathBuf, VolumeError> {
        let source = volume.host_path.clone().unwrap_or_default();
        let path = PathBuf::from(&source.path);
        check(&path, source.kind.as_deref().unwrap_or_default())?;
        Ok(path)
    }
}

fn check(path: &Path, kind: &str) -> Result<(), VolumeError> {
    let found = fs::metadata(path).ok().map(|m| m.file_type());
    let refuse = |what: &str| {
        Err(VolumeError::Refused(format!(
            "hostPath type check failed: {} is not a {what}",
            path.display()
        )))
    };
    match kind {
        "DirectoryOrCreate" if found.is_none() => {
            fs::create_dir_all(path).map_err(file_error("make", path))?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))
                .map_err(file_error("change the mode of", path))
        }
        "FileOrCreate" if found.is_none() => {
            fs::write(path, []).map_err(file_error("make", path))?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o644))
                .map_err(file_error("change the mode of", path))
        }
        "Directory" | "DirectoryOrCreate" if !found.is_some_and(|t| t.is_dir()) => {
            refuse("directory")
        }
        "File" | "FileOrCreate" if !found.is_some_and(|t| t.is_file()) => refuse("file"),
        "Socket" if !found.is_some_and(|t| t.is_socket()) => refuse("socket file"),
        "CharDevice" if !found.is_some_and(|t| t.is_char_device()) => refuse("character device"),
        "BlockDevice" if !found.is_some_and(|t| t.is_block_device()) => refuse("block device"),
        // Without a type the runtime makes a missing directory, as Docker did; done here, its mode is known.
        "" if found.is_none() => fs::create_dir_all(path).map_err(file_error("make", path)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_checked_or_made() {
        let dir = tempfile::tempdir().expect("a directory");
        let d = dir.path();
        check(&d.join("a/b"), "DirectoryOrCreate").expect("made");
        check(&d.join("f"), "FileOrCreate").expect("made");
        check(&d.join("f"), "File").expect("is one");
        check(Path::new("/dev/null"), "CharDevice").expect("is one");
        assert!(check(&d.join("f"), "Directory").is_err());
        assert!(check(&d.join("no"), "Directory").is_err());
        assert!(check(&d.join("a"), "Socket").is_err());
    }
}
