//! Mounts that the agent makes: tmpfs for volumes in memory, bind mounts for sub-paths.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::mount::{MountFlags, UnmountFlags};

/// A mount that could not be made, removed or listed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}", path.display())]
pub struct MountError {
    /// What was tried, as in `mount a tmpfs on`.
    pub what: &'static str,
    /// Where.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: std::io::Error,
}

/// The mounts of this mount namespace.
pub trait Mounts: Send + Sync + 'static {
    /// Mounts a tmpfs on an existing directory; without a size the kernel's own limit holds.
    ///
    /// # Errors
    /// The kernel refused.
    fn tmpfs(&self, target: &Path, size_bytes: Option<u64>) -> Result<(), MountError>;

    /// Shows `source` at `target` too, which exists and is of the same kind (file or directory).
    ///
    /// # Errors
    /// The kernel refused.
    fn bind(&self, source: &Path, target: &Path) -> Result<(), MountError>;

    /// Removes the mount; processes that use it keep it until they are done. Where nothing is mounted, nothing happens.
    ///
    /// # Errors
    /// The kernel refused.
    fn unmount(&self, target: &Path) -> Result<(), MountError>;

    /// The mount points at and below a directory, the deepest first.
    ///
    /// # Errors
    /// The list of mounts cannot be read.
    fn below(&self, dir: &Path) -> Result<Vec<PathBuf>, MountError>;
}

/// The kernel's mounts.
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelMounts;

impl Mounts for KernelMounts {
    fn tmpfs(&self, target: &Path, size_bytes: Option<u64>) -> Result<(), MountError> {
        let options =
            size_bytes.map_or_else(|| "mode=0777".to_owned(), |s| format!("mode=0777,size={s}"));
        let options = std::ffi::CString::new(options).expect("the options have no NUL");
        rustix::mount::mount(
            "tmpfs",
            target,
            "tmpfs",
            MountFlags::NOSUID | MountFlags::NODEV,
            options.as_c_str(),
        )
        .map_err(|e| failed("mount a tmpfs on", target, e.into()))
    }

    fn bind(&self, source: &Path, target: &Path) -> Result<(), MountError> {
        rustix::mount::mount_bind(source, target)
            .map_err(|e| failed("bind a mount on", target, e.into()))
    }

    fn unmount(&self, target: &Path) -> Result<(), MountError> {
        match rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // EINVAL is the kernel's word for "not a mount point".
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
            Err(e) => Err(failed("unmount", target, e.into())),
        }
    }

    fn below(&self, dir: &Path) -> Result<Vec<PathBuf>, MountError> {
        let path = Path::new("/proc/self/mountinfo");
        let text = fs::read(path).map_err(|e| failed("read", path, e))?;
        Ok(mount_points(&text, dir))
    }
}

fn failed(what: &'static str, path: &Path, source: std::io::Error) -> MountError {
    MountError {
        what,
        path: path.to_owned(),
        source,
    }
}

/// The mount points at and below `dir` in the text of a `mountinfo`, the deepest (and of equals the latest) first.
fn mount_points(mountinfo: &[u8], dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = mountinfo
        .split(|b| *b == b'\n')
        .filter_map(|line| line.split(|b| *b == b' ').nth(4))
        .map(|field| PathBuf::from(std::ffi::OsStr::from_bytes(&unescape(field))))
        .filter(|p| p.starts_with(dir))
        .collect();
    found.reverse();
    found.sort_by_key(|p| std::cmp::Reverse(p.components().count()));
    found
}

/// Undoes the octal escapes (`\040`) of `mountinfo`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .filter(|d| first == b'\\' && d.iter().all(|c| (b'0'..=b'7').contains(c)));
        if let Some(d) = octal {
            out.push((d[0] - b'0').wrapping_mul(64) + (d[1] - b'0') * 8 + (d[2] - b'0'));
            rest = &tail[3..];
        } else {
            out.push(first);
            rest = tail;
        }
    }
    out
}

/// Mounts that are only remembered, for tests.
#[derive(Debug, Default)]
pub struct FakeMounts {
    mounted: Mutex<Vec<PathBuf>>,
}

impl Mounts for FakeMounts {
    fn tmpfs(&self, target: &Path, _: Option<u64>) -> Result<(), MountError> {
        self.mounted.lock().push(target.to_owned());
        Ok(())
    }

    fn bind(&self, _: &Path, target: &Path) -> Result<(), MountError> {
        self.mounted.lock().push(target.to_owned());
        Ok(())
    }

    fn unmount(&self, target: &Path) -> Result<(), MountError> {
        let mut mounted = self.mounted.lock();
        if let Some(at) = mounted.iter().rposition(|m| m == target) {
            mounted.remove(at);
        }
        Ok(())
    }

    fn below(&self, dir: &Path) -> Result<Vec<PathBuf>, MountError> {
        Ok(self
            .mounted
            .lock()
            .iter()
            .rev()
            .filter(|m| m.starts_with(dir))
            .cloned()
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_below_a_directory_come_deepest_first() {
        let text = b"1 0 8:1 / / rw - ext4 /dev/vda rw\n\
            2 1 0:5 / /var/a rw - tmpfs tmpfs rw\n\
            3 2 0:6 / /var/a/with\\040space rw - tmpfs tmpfs rw\n\
            4 1 0:7 / /var/ab rw - tmpfs tmpfs rw\n";
        let want = [PathBuf::from("/var/a/with space"), PathBuf::from("/var/a")];
        assert_eq!(mount_points(text, Path::new("/var/a")), want);
    }

    #[test]
    fn a_directory_that_is_no_mount_point_is_unmounted_without_a_word() {
        let dir = tempfile::tempdir().expect("a directory");
        KernelMounts.unmount(dir.path()).expect("nothing to do");
        KernelMounts
            .unmount(&dir.path().join("gone"))
            .expect("nothing to do");
    }
}
