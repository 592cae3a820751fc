//! `kontiki down`: ends the node of a run directory and removes what it made on the machine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use kontiki_host::mounts::{KernelMounts, Mounts};

use crate::config::Config;
use crate::worker;

/// How long the process may take to end by itself.
const STOP_DEADLINE: Duration = Duration::from_secs(15);
const STOP_RETRY: Duration = Duration::from_millis(50);

/// The file with the process id of the node that runs under this configuration.
pub(crate) fn pid_file(config: &Config) -> PathBuf {
    config.run_dir.join("kontiki.pid")
}

/// Stops the process, the pods and containerd, and removes links, rules, mounts and cgroups; with `purge` the state too.
/// What is not there is as good as removed, so that it can be run again after a failure.
///
/// # Errors
/// The process does not end, or something is left; the message says what.
pub(crate) async fn down(config: &Config, purge: bool) -> Result<()> {
    stop_process(config).await?;
    worker::tear_down(config, purge).await?;
    let mut left = Vec::new();
    for dir in [&config.data_dir, &config.run_dir] {
        for mount in KernelMounts
            .below(dir)
            .unwrap_or_default()
            .into_iter()
            .rev()
        {
            if let Err(e) = KernelMounts.unmount(&mount) {
                left.push(kontiki_base::chain(&e));
            }
        }
    }
    let mut doomed = vec![config.run_dir.clone()];
    if purge {
        doomed.extend([config.data_dir.clone(), config.config_dir.clone()]);
    }
    for dir in doomed {
        remove(&dir, &mut left);
    }
    if !left.is_empty() {
        bail!("something is left: {}", left.join("; "));
    }
    Ok(())
}

fn remove(dir: &Path, left: &mut Vec<String>) {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            left.push(format!("{}: {e}", dir.display()));
        }
        _ => {}
    }
}

async fn stop_process(config: &Config) -> Result<()> {
    let Ok(file) = std::fs::File::options()
        .read(true)
        .write(true)
        .open(pid_file(config))
    else {
        return Ok(());
    };
    let lock = || rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive);
    if lock().is_ok() {
        // Nobody holds the file: the process is gone, and its number may be somebody else's by now.
        return Ok(());
    }
    let text = std::fs::read_to_string(pid_file(config))?;
    let pid = text
        .trim()
        .parse()
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    let Some(pid) = pid else {
        bail!("{} does not hold a process id", pid_file(config).display())
    };
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::KILL] {
        // It may end between the look and the signal.
        let _ = rustix::process::kill_process(pid, signal);
        let deadline = tokio::time::Instant::now() + STOP_DEADLINE;
        while tokio::time::Instant::now() < deadline {
            if lock().is_ok() {
                return Ok(());
            }
            tokio::time::sleep(STOP_RETRY).await;
        }
    }
    bail!("process {} does not end", pid.as_raw_nonzero())
}
