//! What containerd is started with: our settings, what the machine asks for, and the configuration file made of both.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Where containerd keeps its things and what it uses.
#[derive(Clone, Debug)]
pub struct ContainerdConfig {
    /// Images, snapshots and metadata; has to last.
    pub root: PathBuf,
    /// Run-time state; may be lost with a reboot.
    pub state: PathBuf,
    /// The socket that serves CRI.
    pub socket: PathBuf,
    /// Where containerd's own log goes.
    pub log: PathBuf,
    /// The configuration file that is written at each start.
    pub config: PathBuf,
    /// The image of a sandbox's first process.
    pub sandbox_image: String,
    /// Where the pod network's configuration is.
    pub cni_conf_dir: PathBuf,
    /// Where the CNI plugins are.
    pub cni_bin_dir: PathBuf,
    /// The program.
    pub binary: PathBuf,
    /// The cgroup that containerd itself runs in; empty for that of its parent.
    pub cgroup_parent: String,
    /// Whether the socket belongs to a containerd that somebody else runs: then it is only waited for.
    pub external: bool,
}

impl ContainerdConfig {
    /// The default below a data directory and a directory for run-time state.
    pub fn below(data_dir: &Path, run_dir: &Path) -> ContainerdConfig {
        ContainerdConfig {
            root: data_dir.join("containerd"),
            state: run_dir.join("containerd"),
            socket: run_dir.join("containerd.sock"),
            log: data_dir.join("containerd.log"),
            config: data_dir.join("containerd.toml"),
            sandbox_image: crate::pause::IMAGE.to_owned(),
            cni_conf_dir: data_dir.join("cni/net.d"),
            cni_bin_dir: PathBuf::from("/usr/lib/cni"),
            binary: PathBuf::from("/usr/bin/containerd"),
            cgroup_parent: String::new(),
            external: false,
        }
    }

    /// The file that says which process is ours.
    pub fn pid_file(&self) -> PathBuf {
        self.state.with_extension("pid")
    }
}

/// What this machine cannot do, or can only do in another way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// AppArmor profiles cannot be loaded.
    pub without_apparmor: bool,
    /// The process must not lower the score by which the kernel picks what to kill when memory is short.
    pub oom_score_bound: bool,
    /// The image store lies on an overlay itself, and overlays cannot be stacked.
    pub root_is_overlay: bool,
}

const CAP_SYS_RESOURCE_BIT: u32 = 24;
const OVERLAYFS_MAGIC: u64 = 0x794c_7630;

impl Machine {
    /// Looks at this machine. `root` is containerd's root, which need not exist yet.
    pub fn detect(root: &Path) -> Machine {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let apparmor = Path::new("/sys/kernel/security/apparmor").is_dir()
            && Path::new("/sbin/apparmor_parser").exists();
        let existing = root
            .ancestors()
            .find(|p| p.exists())
            .unwrap_or(Path::new("/"));
        let root_is_overlay = rustix::fs::statfs(existing)
            .is_ok_and(|s| u64::try_from(s.f_type) == Ok(OVERLAYFS_MAGIC));
        Machine {
            without_apparmor: !apparmor,
            oom_score_bound: !has_sys_resource(&status),
            root_is_overlay,
        }
    }
}

fn has_sys_resource(status: &str) -> bool {
    let effective = status
        .lines()
        .find_map(|l| l.strip_prefix("CapEff:"))
        .map(str::trim);
    effective
        .and_then(|h| u64::from_str_radix(h, 16).ok())
        .is_some_and(|caps| caps >> CAP_SYS_RESOURCE_BIT & 1 == 1)
}

fn quoted(path: &Path) -> String {
    // TOML's basic strings escape as JSON's do.
    serde_json::Value::from(path.to_string_lossy()).to_string()
}

/// The text of containerd's configuration file.
pub fn containerd_toml(c: &ContainerdConfig, machine: Machine) -> String {
    let snapshotter = if machine.root_is_overlay {
        "native"
    } else {
        "overlayfs"
    };
    let mut t = String::from("# Written at each start: changes here are lost.\nversion = 2\n");
    let mut line = |text: String| writeln!(t, "{text}").expect("writing to a String does not fail");
    line(format!("root = {}", quoted(&c.root)));
    line(format!("state = {}", quoted(&c.state)));
    // Snapshotters that a node does not use each cost a probe at the start.
    line("disabled_plugins = [\"io.containerd.snapshotter.v1.aufs\", \"io.containerd.snapshotter.v1.btrfs\", \
          \"io.containerd.snapshotter.v1.devmapper\", \"io.containerd.snapshotter.v1.zfs\", \
          \"io.containerd.internal.v1.tracing\", \"io.containerd.tracing.processor.v1.otlp\"]"
        .into());
    line(format!("\n[grpc]\naddress = {}", quoted(&c.socket)));
    line(format!(
        "\n[ttrpc]\naddress = {}",
        quoted(&c.socket.with_extension("sock.ttrpc"))
    ));
    if !c.cgroup_parent.is_empty() {
        line(format!(
            "\n[cgroup]\npath = {}",
            quoted(&Path::new(&c.cgroup_parent).join("containerd"))
        ));
    }
    line("\n[plugins.\"io.containerd.grpc.v1.cri\"]".into());
    line(format!(
        "sandbox_image = {}",
        quoted(Path::new(&c.sandbox_image))
    ));
    line(format!("disable_apparmor = {}", machine.without_apparmor));
    line(format!(
        "restrict_oom_score_adj = {}",
        machine.oom_score_bound
    ));
    // Below our own state, so that all of them are found again when the node is removed.
    line("netns_mounts_under_state_dir = true".into());
    line("stream_server_address = \"127.0.0.1\"\nstream_server_port = \"0\"".into());
    line("\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]".into());
    line(format!("snapshotter = {}", quoted(Path::new(snapshotter))));
    line("default_runtime_name = \"runc\"".into());
    line("\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"".into());
    line("\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\nSystemdCgroup = false".into());
    line("\n[plugins.\"io.containerd.grpc.v1.cri\".cni]".into());
    line(format!(
        "bin_dir = {}\nconf_dir = {}",
        quoted(&c.cni_bin_dir),
        quoted(&c.cni_conf_dir)
    ));
    t
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_limits_show_in_the_configuration() {
        let c = ContainerdConfig::below(Path::new("/d"), Path::new("/r"));
        let plain = containerd_toml(&c, Machine::default());
        assert!(
            plain.contains("snapshotter = \"overlayfs\"")
                && plain.contains("disable_apparmor = false")
        );
        assert!(!plain.contains("[cgroup]"), "{plain}");
        let m = Machine {
            without_apparmor: true,
            oom_score_bound: true,
            root_is_overlay: true,
        };
        let bound = containerd_toml(
            &ContainerdConfig {
                cgroup_parent: "/k".into(),
                ..c
            },
            m,
        );
        for want in [
            "disable_apparmor = true",
            "restrict_oom_score_adj = true",
            "snapshotter = \"native\"",
            "path = \"/k/containerd\"",
        ] {
            assert!(bound.contains(want), "{want} in {bound}");
        }
    }

    #[test]
    fn the_capability_is_read_from_the_status_file() {
        assert!(has_sys_resource("Name:\tx\nCapEff:\t000001ffffffffff\n"));
        assert!(!has_sys_resource("CapEff:\t000001fffeffffff\n"));
        assert!(!has_sys_resource(""));
    }
}
