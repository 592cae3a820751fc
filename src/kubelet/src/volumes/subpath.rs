//! Sub-paths of volumes: resolved so that no link leads out of the volume, and held by a bind mount, so that none can later.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use kontiki_host::mounts::Mounts;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use super::{VolumeError, file_error};

/// Binds `sub` of the volume at `base` to `target` and returns the path that containers mount.
///
/// # Errors
/// The path leads out of the volume, or cannot be made or mounted.
pub fn bind(
    base: &Path,
    sub: &str,
    target: &Path,
    make: bool,
    mounts: &dyn Mounts,
) -> Result<PathBuf, VolumeError> {
    let sub = sub.trim_matches('/');
    if sub.is_empty() || sub.split('/').any(|p| p == "..") {
        return Err(VolumeError::Refused(format!(
            "subPath {sub:?} leads out of the volume"
        )));
    }
    if mounts.below(target)?.iter().any(|m| m == target) {
        // From before a restart of the container: mounted anew, for the volume's files may have been replaced.
        mounts.unmount(target)?;
    }
    let root = open(CWD, base).map_err(file_error("open", base))?;
    let path = base.join(sub);
    let fd = match open_below(&root, sub) {
        Err(rustix::io::Errno::NOENT) if make => {
            make_below(root, sub).map_err(|e| file_error("make", &path)(e.into()))?
        }
        other => other.map_err(|e| file_error("open", &path)(e.into()))?,
    };
    let kind = rustix::fs::fstat(&fd).map_err(|e| file_error("look at", &path)(e.into()))?;
    let is_dir = rustix::fs::FileType::from_raw_mode(kind.st_mode).is_dir();
    let holder = if is_dir {
        target
    } else {
        target.parent().unwrap_or(target)
    };
    fs::create_dir_all(holder).map_err(file_error("make", holder))?;
    if !is_dir && !target.exists() {
        fs::write(target, []).map_err(file_error("make", target))?;
    }
    // By the open file, not by its name: the name may by now lead elsewhere.
    mounts.bind(
        Path::new(&format!("/proc/self/fd/{}", fd.as_raw_fd())),
        target,
    )?;
    Ok(target.to_owned())
}

fn open(at: impl rustix::fd::AsFd, path: &Path) -> Result<OwnedFd, std::io::Error> {
    Ok(rustix::fs::openat(
        at,
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

fn open_below(root: &OwnedFd, sub: &str) -> Result<OwnedFd, rustix::io::Errno> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(
        root,
        sub,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        how,
    )
}

/// Makes the directories of a sub-path one by one, each below the one before.
fn make_below(root: OwnedFd, sub: &str) -> Result<OwnedFd, rustix::io::Errno> {
    let mut at = root;
    for part in sub.split('/').filter(|p| !p.is_empty() && *p != ".") {
        at = match open_below(&at, part) {
            Err(rustix::io::Errno::NOENT) => {
                rustix::fs::mkdirat(&at, part, Mode::from_raw_mode(0o750))?;
                open_below(&at, part)?
            }
            other => other?,
        };
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use kontiki_host::mounts::FakeMounts;

    use super::*;

    #[test]
    fn sub_paths_are_made_and_links_do_not_lead_out() {
        let dir = tempfile::tempdir().expect("a directory");
        let (base, target) = (dir.path().join("vol"), dir.path().join("sub/0"));
        fs::create_dir_all(&base).expect("made");
        std::os::unix::fs::symlink("/etc", base.join("evil")).expect("linked");
        std::os::unix::fs::symlink("a", base.join("fine")).expect("linked");
        let mounts = FakeMounts::default();
        bind(&base, "a/b", &target, true, &mounts).expect("bound");
        assert!(base.join("a/b").is_dir());
        bind(&base, "fine/b", &target, false, &mounts).expect("bound");
        assert_eq!(
            mounts.below(&target).expect("listed").len(),
            1,
            "bound once, not twice"
        );
        for bad in ["evil/passwd", "evil", "../x", "a/../../x"] {
            assert!(
                bind(&base, bad, &dir.path().join("sub/1"), true, &mounts).is_err(),
                "{bad}"
            );
        }
    }
}
