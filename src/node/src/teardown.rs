//! Removes all that a node's containerd has made: containers, shims, mounts, directories.

use std::fs;
use std::path::Path;
use std::time::Duration;

use kontiki_host::mounts::{KernelMounts, Mounts};
use rustix::process::{Pid, Signal};

use crate::config::ContainerdConfig;
use crate::containerd;

const DIE_WAIT_MAX: Duration = Duration::from_secs(10);
const DIE_RETRY: Duration = Duration::from_millis(20);

/// A process as far as the teardown looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    /// The arguments, joined by spaces.
    command: String,
}

/// Stops our containerd and everything that runs in it, and removes its mounts and directories (the images too, unless
/// `keep_images`). Nothing that belongs to another containerd is touched. Can be called when nothing is there.
pub async fn remove_all(config: &ContainerdConfig, keep_images: bool) {
    if config.external {
        return;
    }
    containerd::stop(config).await;
    let deadline = tokio::time::Instant::now() + DIE_WAIT_MAX;
    loop {
        let doomed = doomed(&processes(), &config.socket);
        if doomed.is_empty() || tokio::time::Instant::now() > deadline {
            break;
        }
        for pid in doomed.into_iter().filter_map(Pid::from_raw) {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        tokio::time::sleep(DIE_RETRY).await;
    }
    for dir in [&config.state, &config.root] {
        for mount in KernelMounts.below(dir).unwrap_or_default() {
            if let Err(e) = KernelMounts.unmount(&mount) {
                tracing::warn!(error = kontiki_base::chain(&e), "a mount was left behind");
            }
        }
    }
    remove(&config.state);
    for file in [
        config.socket.clone(),
        config.socket.with_extension("sock.ttrpc"),
        config.pid_file(),
        config.config.clone(),
    ] {
        // A file that is not there is as good.
        let _ = fs::remove_file(file);
    }
    if !keep_images {
        remove(&config.root);
    }
}

fn remove(dir: &Path) {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(directory = %dir.display(), error = %e, "a directory was left behind");
        }
        _ => {}
    }
}

/// The shims that serve this socket, and all processes below them.
fn doomed(all: &[Process], socket: &Path) -> Vec<i32> {
    let address = format!("-address {}", socket.display());
    let is_shim = |p: &Process| {
        p.command.contains("containerd-shim")
            && p.command
                .split_once(&address)
                .is_some_and(|(_, rest)| rest.is_empty() || rest.starts_with(' '))
    };
    let mut found: Vec<i32> = all.iter().filter(|p| is_shim(p)).map(|p| p.pid).collect();
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(all.iter().filter(|p| p.parent == parent).map(|p| p.pid));
        next += 1;
    }
    // Containers before their shims, or their orphans would be looked for in vain.
    found.reverse();
    found
}

fn processes() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|e| process(e.file_name().to_str()?.parse().ok()?))
        .collect()
}

fn process(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may itself hold spaces and parentheses.
    let mut rest = stat.rsplit_once(')')?.1.split_whitespace();
    let (state, parent) = (rest.next()?, rest.next()?.parse().ok()?);
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command)
        .replace('\0', " ")
        .trim_end()
        .to_owned();
    (state != "Z").then_some(Process {
        pid,
        parent,
        command,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_shims_and_what_is_below_them_are_doomed() {
        let p = |pid, parent, command: &str| Process {
            pid,
            parent,
            command: command.into(),
        };
        let all = [
            p(
                10,
                1,
                "/usr/bin/containerd-shim-runc-v2 -namespace k8s.io -id a -address /run/x.sock",
            ),
            p(11, 10, "/pause"),
            p(12, 11, "sh"),
            p(
                20,
                1,
                "/usr/bin/containerd-shim-runc-v2 -namespace k8s.io -id b -address /run/x.sock.other",
            ),
            p(21, 20, "/pause"),
            p(30, 1, "vi containerd-shim-notes"),
        ];
        assert_eq!(doomed(&all, Path::new("/run/x.sock")), [12, 11, 10]);
    }
}
