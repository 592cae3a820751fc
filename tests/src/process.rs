//! Child processes and what `/proc` says of them.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Runs a program to its end and returns its standard output.
///
/// # Errors
/// It cannot be started, or fails; the message has what it wrote to standard error.
pub fn run(program: &str, args: &[&str]) -> Result<String> {
    let out = output(program, args)?;
    if !out.status.success() {
        bail!(
            "{program} {}: {}: {}",
            args.join(" "),
            out.status,
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Runs a program to its end.
///
/// # Errors
/// It cannot be started.
pub fn output(program: &str, args: &[&str]) -> Result<Output> {
    Command::new(program)
        .args(args)
        .output()
        .with_context(|| format!("cannot run {program}"))
}

/// CPU time that a process has used.
///
/// # Errors
/// There is no such process.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .context("/proc/PID/stat has a name")?
        .1
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    // USER_HZ is 100 on every architecture that Linux runs on today.
    Ok(Duration::from_millis(ticks * 10))
}

/// CPU time that a process has used, in the scheduler's nanoseconds, summed over its threads.
///
/// # Errors
/// There is no such process.
pub fn cpu_time_exact(pid: u32) -> Result<Duration> {
    let mut total = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the listing and the reading.
        if let Ok(s) = std::fs::read_to_string(task?.path().join("schedstat")) {
            total += s
                .split_whitespace()
                .next()
                .and_then(|n| n.parse::<u64>().ok())
                .unwrap_or(0);
        }
    }
    Ok(Duration::from_nanos(total))
}

/// Resident memory of a process in KiB.
///
/// # Errors
/// There is no such process.
pub fn rss_kib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find(|l| l.starts_with("VmRSS:"))
        .context("a running process has VmRSS")?;
    line.split_whitespace()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .context("VmRSS is a number")
}

/// Whether a process is there.
pub fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| {
        s.rsplit_once(") ")
            .is_some_and(|(_, rest)| !rest.starts_with('Z'))
    })
}

/// Sends a signal to a process that the test started.
///
/// # Errors
/// There is no such process.
pub fn signal(pid: u32, signal: rustix::process::Signal) -> Result<()> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .context("a process id")?;
    Ok(rustix::process::kill_process(pid, signal)?)
}

/// The program under test: `KONTIKI_BIN`, else the debug build beside the test binary, which `cargo nextest run --workspace` makes
/// for the program's own tests.
///
/// # Errors
/// It is not there; the message says how to build it.
pub fn kontiki() -> Result<std::path::PathBuf> {
    let path = match std::env::var_os("KONTIKI_BIN") {
        Some(p) => p.into(),
        None => std::env::current_exe()?
            .ancestors()
            .map(|d| d.join("kontiki"))
            .find(|p| p.is_file())
            .unwrap_or_else(|| Path::new("target/debug/kontiki").to_owned()),
    };
    if !path.is_file() {
        bail!(
            "{} is not there; build it with `cargo build -p kontiki`, or set KONTIKI_BIN",
            path.display()
        );
    }
    Ok(path)
}
