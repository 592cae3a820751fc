//! Control groups of pods: made with their limits, and removed with what is left in them. Both cgroup v1 and v2.
//!
//! Paths are those of the cgroupfs driver, as `/kubepods/burstable/pod<uid>`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

/// Where the kernel's hierarchies are mounted.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";
/// The hierarchies of v1 that limits are written to; the runtime makes its groups in the others by itself.
const LIMITED_V1: [&str; 3] = ["cpu", "memory", "pids"];
/// The controllers that groups of v2 hand down to their children.
const CONTROLLERS_V2: [&str; 5] = ["cpuset", "cpu", "io", "memory", "pids"];
const CPU_SHARES_MIN: u64 = 2;
const CPU_SHARES_MAX: u64 = 262_144;

/// A control group that could not be made, limited or removed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}", path.display())]
pub struct CgroupError {
    /// What was tried.
    pub what: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// The limits of a group; what is `None` is left as the kernel has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Relative weight in v1's unit, 2 to 262144.
    pub cpu_shares: Option<u64>,
    /// CPU time in each period.
    pub cpu_quota_us: Option<u64>,
    /// Length of the period; needed with a quota.
    pub cpu_period_us: u64,
    /// The most bytes of memory.
    pub memory_max_bytes: Option<u64>,
    /// The most processes and threads.
    pub pids_max: Option<u64>,
}

/// The control groups of the machine.
pub trait Cgroups: Send + Sync + 'static {
    /// Makes the group, if it is missing, and sets its limits.
    ///
    /// # Errors
    /// The kernel refused.
    fn apply(&self, path: &str, limits: &Limits) -> Result<(), CgroupError>;

    /// Removes the group and all below it. Processes left in it are killed; while they die, this is an error to try again.
    ///
    /// # Errors
    /// The kernel refused, mostly because the group is busy.
    fn remove(&self, path: &str) -> Result<(), CgroupError>;

    /// Removes the group if it holds no process and no other group; else leaves it as it is.
    fn remove_if_empty(&self, path: &str);

    /// The names of the groups directly below a path.
    fn children(&self, path: &str) -> Vec<String>;
}

/// The kernel's control groups.
#[derive(Clone, Debug)]
pub struct KernelCgroups {
    root: PathBuf,
    unified: bool,
}

impl Default for KernelCgroups {
    fn default() -> Self {
        KernelCgroups::at(Path::new(CGROUP_ROOT))
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    let path = path.to_owned();
    move |source| CgroupError { what, path, source }
}

impl KernelCgroups {
    /// The hierarchies that are mounted at this directory.
    pub fn at(root: &Path) -> KernelCgroups {
        KernelCgroups {
            root: root.to_owned(),
            unified: root.join("cgroup.controllers").exists(),
        }
    }

    /// Whether the machine has one hierarchy for all controllers (cgroup v2).
    pub fn is_unified(&self) -> bool {
        self.unified
    }

    /// The directories that stand for a group: one in v2, one for each hierarchy that has it in v1.
    fn directories(&self, path: &str) -> Vec<PathBuf> {
        let relative = path.trim_start_matches('/');
        if self.unified {
            return vec![self.root.join(relative)];
        }
        let Ok(entries) = fs::read_dir(&self.root) else {
            return Vec::new();
        };
        let mut dirs: Vec<PathBuf> = entries
            .flatten()
            // Names such as `cpu,cpuacct` are mounts, `cpu` is then a link to one: each is to be seen once.
            .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
            .map(|e| e.path().join(relative))
            .filter(|d| d.is_dir())
            .collect();
        dirs.sort();
        dirs
    }

    fn apply_v1(&self, path: &str, limits: &Limits) -> Result<(), CgroupError> {
        let relative = path.trim_start_matches('/');
        let dir = |c: &str| self.root.join(c).join(relative);
        for c in LIMITED_V1.iter().filter(|c| self.root.join(c).is_dir()) {
            fs::create_dir_all(dir(c)).map_err(failed("make the control group", &dir(c)))?;
        }
        for (controller, file, value) in files_v1(limits) {
            if self.root.join(controller).is_dir() {
                write(&dir(controller).join(file), &value)?;
            }
        }
        Ok(())
    }

    fn apply_v2(&self, path: &str, limits: &Limits) -> Result<(), CgroupError> {
        let mut at = self.root.clone();
        for part in path.split('/').filter(|p| !p.is_empty()) {
            hand_down(&at);
            at.push(part);
            if !at.is_dir() {
                fs::create_dir(&at).map_err(failed("make the control group", &at))?;
            }
        }
        hand_down(&at);
        for (file, value) in files_v2(limits) {
            let file = at.join(file);
            // A controller that the machine does not hand down has no file; its limit then holds at the containers alone.
            if file.exists() {
                write(&file, &value)?;
            }
        }
        Ok(())
    }
}

/// Lets the children of a group use its controllers, as far as it has them: asked one by one, for one refusal refuses all.
fn hand_down(dir: &Path) {
    let available = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    for c in CONTROLLERS_V2
        .iter()
        .filter(|c| available.split_whitespace().any(|a| a == **c))
    {
        let file = dir.join("cgroup.subtree_control");
        if let Err(e) = fs::write(&file, format!("+{c}")) {
            tracing::debug!(file = %file.display(), controller = c, error = %e, "a controller is not handed down");
        }
    }
}

fn write(file: &Path, value: &str) -> Result<(), CgroupError> {
    fs::write(file, value).map_err(failed("write", file))
}

fn files_v1(l: &Limits) -> Vec<(&'static str, &'static str, String)> {
    let mut out = Vec::new();
    if let Some(shares) = l.cpu_shares {
        out.push(("cpu", "cpu.shares", shares.to_string()));
    }
    if let Some(quota) = l.cpu_quota_us {
        out.push(("cpu", "cpu.cfs_period_us", l.cpu_period_us.to_string()));
        out.push(("cpu", "cpu.cfs_quota_us", quota.to_string()));
    }
    if let Some(bytes) = l.memory_max_bytes {
        out.push(("memory", "memory.limit_in_bytes", bytes.to_string()));
    }
    if let Some(pids) = l.pids_max {
        out.push(("pids", "pids.max", pids.to_string()));
    }
    out
}

fn files_v2(l: &Limits) -> Vec<(&'static str, String)> {
    let mut out = Vec::new();
    if let Some(shares) = l.cpu_shares {
        out.push(("cpu.weight", weight_of_shares(shares).to_string()));
    }
    if let Some(quota) = l.cpu_quota_us {
        out.push(("cpu.max", format!("{quota} {}", l.cpu_period_us)));
    }
    if let Some(bytes) = l.memory_max_bytes {
        out.push(("memory.max", bytes.to_string()));
    }
    if let Some(pids) = l.pids_max {
        out.push(("pids.max", pids.to_string()));
    }
    out
}

/// v2's weight (1 to 10000) for v1's shares (2 to 262144), by the straight line that OCI runtimes use.
pub fn weight_of_shares(shares: u64) -> u64 {
    let shares = shares.clamp(CPU_SHARES_MIN, CPU_SHARES_MAX);
    1 + (shares - CPU_SHARES_MIN) * 9_999 / (CPU_SHARES_MAX - CPU_SHARES_MIN)
}

impl Cgroups for KernelCgroups {
    fn apply(&self, path: &str, limits: &Limits) -> Result<(), CgroupError> {
        if self.unified {
            self.apply_v2(path, limits)
        } else {
            self.apply_v1(path, limits)
        }
    }

    fn remove(&self, path: &str) -> Result<(), CgroupError> {
        for dir in self.directories(path) {
            remove_tree(&dir)?;
        }
        Ok(())
    }

    fn remove_if_empty(&self, path: &str) {
        for dir in self.directories(path) {
            // The kernel refuses what is in use.
            let _ = fs::remove_dir(dir);
        }
    }

    fn children(&self, path: &str) -> Vec<String> {
        let mut names: Vec<String> = self
            .directories(path)
            .iter()
            .filter_map(|d| fs::read_dir(d).ok())
            .flat_map(|entries| {
                entries
                    .flatten()
                    .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
            })
            .filter_map(|e| e.file_name().into_string().ok())
            .collect();
        names.sort();
        names.dedup();
        names
    }
}

fn remove_tree(dir: &Path) -> Result<(), CgroupError> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Ok(());
    };
    for e in entries
        .flatten()
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
    {
        remove_tree(&e.path())?;
    }
    for pid in fs::read_to_string(dir.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
    {
        if let Some(pid) = pid.parse().ok().and_then(rustix::process::Pid::from_raw) {
            // It may have ended by itself since the list was read.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    match fs::remove_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(failed("remove the control group", dir)(e))
        }
        _ => Ok(()),
    }
}

/// Control groups that are only remembered, for tests.
#[derive(Debug, Default)]
pub struct FakeCgroups {
    groups: Mutex<BTreeMap<String, Limits>>,
}

impl FakeCgroups {
    /// The limits of a group, if it is there.
    pub fn limits(&self, path: &str) -> Option<Limits> {
        self.groups.lock().get(path).cloned()
    }
}

impl Cgroups for FakeCgroups {
    fn apply(&self, path: &str, limits: &Limits) -> Result<(), CgroupError> {
        self.groups.lock().insert(path.to_owned(), limits.clone());
        Ok(())
    }

    fn remove(&self, path: &str) -> Result<(), CgroupError> {
        self.groups
            .lock()
            .retain(|p, _| !Path::new(p).starts_with(path));
        Ok(())
    }

    fn remove_if_empty(&self, path: &str) {
        if self.children(path).is_empty() {
            self.groups.lock().remove(path);
        }
    }

    fn children(&self, path: &str) -> Vec<String> {
        let groups = self.groups.lock();
        let below = |p: &String| {
            Some(
                Path::new(p)
                    .strip_prefix(path)
                    .ok()?
                    .to_str()?
                    .split('/')
                    .next()?
                    .to_owned(),
            )
        };
        let mut names: Vec<String> = groups
            .keys()
            .filter_map(below)
            .filter(|n| !n.is_empty())
            .collect();
        names.dedup();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_weights_agree_at_the_ends() {
        assert_eq!(weight_of_shares(2), 1);
        assert_eq!(weight_of_shares(1024), 39);
        assert_eq!(weight_of_shares(262_144), 10_000);
        assert_eq!(weight_of_shares(0), 1);
    }

    #[test]
    fn v2_groups_are_made_with_their_limits_and_removed() {
        let root = tempfile::tempdir().expect("a directory");
        fs::write(root.path().join("cgroup.controllers"), "cpu memory").expect("written");
        let groups = KernelCgroups::at(root.path());
        assert!(groups.is_unified());
        let pod = root.path().join("kubepods/podx");
        fs::create_dir_all(&pod).expect("made");
        fs::write(pod.join("cpu.max"), "").expect("written");
        let limits = Limits {
            cpu_quota_us: Some(50_000),
            cpu_period_us: 100_000,
            ..Limits::default()
        };
        groups.apply("/kubepods/podx", &limits).expect("applied");
        assert_eq!(
            fs::read_to_string(pod.join("cpu.max")).expect("there"),
            "50000 100000"
        );
        assert_eq!(groups.children("/kubepods"), ["podx"]);
        // The files of a real group go with it; those of this directory do not.
        fs::remove_file(pod.join("cpu.max")).expect("removed");
        let _ = fs::remove_file(root.path().join("kubepods/cgroup.subtree_control"));
        groups.remove("/kubepods/podx").expect("removed");
        assert!(!pod.exists());
    }

    #[test]
    fn limits_of_v1_go_to_the_files_of_their_controllers() {
        let l = Limits {
            cpu_shares: Some(102),
            memory_max_bytes: Some(1 << 20),
            ..Limits::default()
        };
        let want = [
            ("cpu", "cpu.shares", "102".to_owned()),
            ("memory", "memory.limit_in_bytes", "1048576".to_owned()),
        ];
        assert_eq!(files_v1(&l), want);
    }

    #[test]
    fn a_real_group_is_made_limited_and_removed() {
        let groups = KernelCgroups::default();
        let path = format!("/kontiki-test-{}/podx", std::process::id());
        groups
            .apply(
                &path,
                &Limits {
                    pids_max: Some(100),
                    ..Limits::default()
                },
            )
            .expect("applied");
        let parent = path.rsplit_once('/').expect("has a parent").0;
        assert_eq!(groups.children(parent), ["podx"]);
        groups.remove(parent).expect("removed");
        assert!(groups.directories(parent).is_empty());
    }
}
