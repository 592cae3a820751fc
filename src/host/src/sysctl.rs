//! Kernel settings under `/proc/sys`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use parking_lot::Mutex;

/// A setting that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} the kernel setting {name}")]
pub struct SysctlError {
    /// `read` or `write`.
    pub action: &'static str,
    /// The setting, as in `net/ipv4/ip_forward`.
    pub name: String,
    /// What went wrong.
    #[source]
    pub source: std::io::Error,
}

impl SysctlError {
    /// Whether the kernel has no such setting (the part of it that would is not loaded).
    pub fn is_missing(&self) -> bool {
        self.source.kind() == std::io::ErrorKind::NotFound
    }
}

/// Reads and writes kernel settings; names are paths, as in `net/ipv4/ip_forward` (link names may contain dots).
pub trait Sysctls: Send + Sync + 'static {
    /// The value, without white space around it.
    ///
    /// # Errors
    /// There is no such setting, or it cannot be read.
    fn get(&self, name: &str) -> Result<String, SysctlError>;

    /// Sets the value, unless it is that already (the settings of a container may be read-only and right).
    ///
    /// # Errors
    /// There is no such setting, or it cannot be written.
    fn set(&self, name: &str, value: &str) -> Result<(), SysctlError>;
}

/// The settings of this machine.
#[derive(Clone, Debug)]
pub struct ProcSys {
    root: PathBuf,
}

impl Default for ProcSys {
    fn default() -> Self {
        ProcSys {
            root: "/proc/sys".into(),
        }
    }
}

impl Sysctls for ProcSys {
    fn get(&self, name: &str) -> Result<String, SysctlError> {
        std::fs::read_to_string(self.root.join(name))
            .map(|s| s.trim().to_owned())
            .map_err(|source| SysctlError {
                action: "read",
                name: name.to_owned(),
                source,
            })
    }

    fn set(&self, name: &str, value: &str) -> Result<(), SysctlError> {
        if self.get(name)? == value {
            return Ok(());
        }
        std::fs::write(self.root.join(name), value).map_err(|source| SysctlError {
            action: "write",
            name: name.to_owned(),
            source,
        })
    }
}

/// Settings that are only data; all of them exist and start empty.
#[derive(Debug, Default)]
pub struct FakeSysctls(Mutex<BTreeMap<String, String>>);

impl Sysctls for FakeSysctls {
    fn get(&self, name: &str) -> Result<String, SysctlError> {
        Ok(self.0.lock().get(name).cloned().unwrap_or_default())
    }

    fn set(&self, name: &str, value: &str) -> Result<(), SysctlError> {
        self.0.lock().insert(name.to_owned(), value.to_owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_value_is_not_written_again() {
        let dir = std::env::temp_dir().join(format!("kontiki-sysctl-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("net")).expect("a directory");
        std::fs::write(dir.join("net/x"), "1\n").expect("a file");
        let s = ProcSys { root: dir.clone() };
        s.set("net/x", "1").expect("nothing to do");
        assert_eq!(
            std::fs::read_to_string(dir.join("net/x")).expect("there"),
            "1\n"
        );
        s.set("net/x", "0").expect("writable");
        assert_eq!(s.get("net/x").expect("there"), "0");
        assert!(
            s.set("net/none", "0")
                .expect_err("no such setting")
                .is_missing()
        );
        std::fs::remove_dir_all(dir).expect("clean up");
    }
}
