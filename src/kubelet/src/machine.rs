//! What the machine is and has, as the Node object tells it.

use std::path::Path;

use crate::config::Config;

/// The machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Processors.
    pub cpus: u32,
    /// Bytes of memory.
    pub memory_bytes: i64,
    /// Bytes of the file system with the pods' files.
    pub disk_bytes: i64,
    /// Its architecture as Go names it.
    pub architecture: &'static str,
    /// The version of its kernel.
    pub kernel: String,
    /// The name of its distribution.
    pub os_image: String,
    /// Its machine id.
    pub machine_id: String,
    /// Its firmware's id.
    pub system_uuid: String,
    /// The id of this boot.
    pub boot_id: String,
}

fn line(path: &str) -> String {
    std::fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

impl Machine {
    /// Looks at this machine.
    pub fn detect(root_dir: &Path) -> Machine {
        let existing = root_dir
            .ancestors()
            .find(|p| p.exists())
            .unwrap_or(Path::new("/"));
        let disk =
            rustix::fs::statvfs(existing).map_or(0, |s| s.f_blocks.saturating_mul(s.f_frsize));
        let release = line("/etc/os-release");
        let pretty = release
            .lines()
            .find_map(|l| l.strip_prefix("PRETTY_NAME="))
            .unwrap_or("Linux");
        Machine {
            cpus: std::thread::available_parallelism()
                .map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
            memory_bytes: memory_bytes(&line("/proc/meminfo")),
            disk_bytes: i64::try_from(disk).unwrap_or(i64::MAX),
            architecture: architecture(),
            kernel: line("/proc/sys/kernel/osrelease"),
            os_image: pretty.trim_matches('"').to_owned(),
            machine_id: line("/etc/machine-id"),
            system_uuid: line("/sys/class/dmi/id/product_uuid"),
            boot_id: line("/proc/sys/kernel/random/boot_id"),
        }
    }

    /// The CPU that pods may use, in thousandths of a core.
    pub fn allocatable_cpu_millis(&self, c: &Config) -> i64 {
        (i64::from(self.cpus) * 1000 - c.reserved_cpu_millis).max(0)
    }

    /// The memory that pods may use.
    pub fn allocatable_memory_bytes(&self, c: &Config) -> i64 {
        (self.memory_bytes - c.reserved_memory_bytes).max(0)
    }
}

fn memory_bytes(meminfo: &str) -> i64 {
    let total = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    let kib: Option<i64> = total
        .and_then(|t| t.split_whitespace().next())
        .and_then(|n| n.parse().ok());
    kib.unwrap_or(0) * 1024
}

/// This machine's architecture as Go names it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_something() {
        let m = Machine::detect(Path::new("/nonexistent/x"));
        assert!(
            m.cpus > 0 && m.memory_bytes > 1 << 20 && m.disk_bytes > 0,
            "{m:?}"
        );
        assert_eq!(memory_bytes("MemFree: 1 kB\nMemTotal:       2 kB\n"), 2048);
    }
}
