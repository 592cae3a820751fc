//! Starts containerd, adopts the one that runs, and starts it again when it dies.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use kontiki_base::{Backoff, Tasks, chain};
use rustix::process::{Pid, Signal};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::config::{ContainerdConfig, Machine, containerd_toml};

const RESTART_DELAY_INITIAL: Duration = Duration::from_millis(200);
const RESTART_DELAY_MAX: Duration = Duration::from_secs(30);
/// How long a containerd has to run before its next death counts as a first one.
const STABLE_AFTER: Duration = Duration::from_secs(60);
const SOCKET_WAIT_MAX: Duration = Duration::from_secs(60);
const SOCKET_RETRY: Duration = Duration::from_millis(10);
/// How often it is looked whether an adopted process still runs: it is not our child, so no signal tells.
const ADOPTED_CHECK: Duration = Duration::from_secs(1);
/// A log larger than this is begun anew at the next start.
const LOG_BYTES_MAX: u64 = 16 << 20;
pub(crate) const STOP_WAIT_MAX: Duration = Duration::from_secs(10);

/// Containerd could not be started or reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program is missing.
    #[error("{} is missing; on Debian: apt-get install -y {package}", binary.display())]
    Missing {
        /// The program.
        binary: PathBuf,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A file or directory could not be made.
    #[error("cannot write {}", path.display())]
    Write {
        /// The path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A program could not be run.
    #[error("cannot run {program}")]
    Run {
        /// The program and what it was to do.
        program: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A program ended with an error.
    #[error("{program} failed: {message}")]
    Failed {
        /// The program and what it was to do.
        program: String,
        /// What it said.
        message: String,
    },
    /// The socket does not answer.
    #[error("containerd does not answer at {} after {} s; its log is {}", socket.display(), SOCKET_WAIT_MAX.as_secs(), log.display())]
    Silent {
        /// The socket.
        socket: PathBuf,
        /// The log to look at.
        log: PathBuf,
    },
}

/// A containerd whose socket answers.
#[derive(Clone, Debug)]
pub struct Containerd {
    config: ContainerdConfig,
}

enum Running {
    Ours(Child),
    Adopted(Pid),
}

impl Containerd {
    /// Makes sure that a containerd runs and will go on to, and returns when its socket answers. The end of the group
    /// ends the supervision and leaves containerd as it is.
    ///
    /// # Errors
    /// A program is missing, a path cannot be written, or the socket stays silent.
    pub async fn start(config: ContainerdConfig, tasks: &Tasks) -> Result<Containerd, Error> {
        if config.external {
            wait_for_socket(&config).await?;
            return Ok(Containerd { config });
        }
        check_programs(&config)?;
        for dir in [&config.root, &config.state, &config.cni_conf_dir] {
            make_dir(dir)?;
        }
        for file in [&config.socket, &config.log, &config.config] {
            make_dir(file.parent().unwrap_or(Path::new("/")))?;
        }
        let running = match adopt(&config) {
            Some(pid) => {
                tracing::info!(
                    pid = pid.as_raw_nonzero(),
                    "containerd runs already and is adopted"
                );
                Running::Adopted(pid)
            }
            None => Running::Ours(launch(&config)?),
        };
        let (supervised, token) = (config.clone(), tasks.token().clone());
        tasks.spawn("containerd", async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = supervise(&supervised, running) => {}
            }
        });
        wait_for_socket(&config).await?;
        Ok(Containerd { config })
    }

    /// What it was started with.
    pub fn config(&self) -> &ContainerdConfig {
        &self.config
    }
}

async fn supervise(config: &ContainerdConfig, mut running: Running) {
    let mut backoff = Backoff::new(RESTART_DELAY_INITIAL, RESTART_DELAY_MAX);
    loop {
        let since = Instant::now();
        match running {
            Running::Ours(mut child) => {
                let status = child.wait().await;
                tracing::warn!(?status, log = %config.log.display(), "containerd ended, starting it again");
            }
            Running::Adopted(pid) => {
                while is_ours(pid, config) {
                    tokio::time::sleep(ADOPTED_CHECK).await;
                }
                tracing::warn!(
                    pid = pid.as_raw_nonzero(),
                    "the adopted containerd ended, starting it again"
                );
            }
        }
        if since.elapsed() > STABLE_AFTER {
            backoff.reset();
        }
        running = loop {
            tokio::time::sleep(backoff.next_delay()).await;
            match launch(config) {
                Ok(child) => break Running::Ours(child),
                Err(e) => tracing::error!(
                    error = chain(&e),
                    "containerd cannot be started, trying again"
                ),
            }
        };
    }
}

fn check_programs(config: &ContainerdConfig) -> Result<(), Error> {
    let dir = config.binary.parent().unwrap_or(Path::new("/usr/bin"));
    let mut wanted = vec![(config.binary.clone(), "containerd")];
    wanted.extend(["ctr", "containerd-shim-runc-v2"].map(|p| (dir.join(p), "containerd")));
    for (binary, package) in wanted {
        if !binary.exists() {
            return Err(Error::Missing { binary, package });
        }
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs =
        std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/bin")]);
    if !dirs.any(|d| d.join("runc").exists()) {
        return Err(Error::Missing {
            binary: PathBuf::from("/usr/sbin/runc"),
            package: "runc",
        });
    }
    let bridge = config.cni_bin_dir.join("bridge");
    if !bridge.exists() {
        return Err(Error::Missing {
            binary: bridge,
            package: "containernetworking-plugins",
        });
    }
    Ok(())
}

fn make_dir(dir: &Path) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(|source| Error::Write {
        path: dir.to_owned(),
        source,
    })
}

fn launch(config: &ContainerdConfig) -> Result<Child, Error> {
    let text = containerd_toml(config, Machine::detect(&config.root));
    fs::write(&config.config, text).map_err(|source| Error::Write {
        path: config.config.clone(),
        source,
    })?;
    let large = fs::metadata(&config.log).is_ok_and(|m| m.len() > LOG_BYTES_MAX);
    let log = fs::OpenOptions::new()
        .create(true)
        .append(!large)
        .write(true)
        .truncate(large)
        .mode(0o640)
        .open(&config.log)
        .and_then(|f| Ok((f.try_clone()?, f)));
    let (out, err) = log.map_err(|source| Error::Write {
        path: config.log.clone(),
        source,
    })?;
    let child = Command::new(&config.binary)
        .arg("--config")
        .arg(&config.config)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        // A group of its own: what interrupts or ends this process does not reach containerd.
        .process_group(0)
        .kill_on_drop(false)
        .spawn()
        .map_err(|source| Error::Run {
            program: config.binary.display().to_string(),
            source,
        })?;
    let pid = child.id().unwrap_or_default();
    let path = config.pid_file();
    fs::write(&path, format!("{pid}\n")).map_err(|source| Error::Write { path, source })?;
    tracing::info!(pid, socket = %config.socket.display(), "containerd started");
    Ok(child)
}

/// The process that the pid file names, if it is a containerd with our configuration.
pub(crate) fn adopt(config: &ContainerdConfig) -> Option<Pid> {
    let text = fs::read_to_string(config.pid_file()).ok()?;
    let pid = Pid::from_raw(text.trim().parse().ok()?)?;
    is_ours(pid, config).then_some(pid)
}

/// Whether this process runs with our configuration file: process numbers are used again.
fn is_ours(pid: Pid, config: &ContainerdConfig) -> bool {
    let command = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    command
        .split(|b| *b == 0)
        .any(|arg| arg == config.config.as_os_str().as_encoded_bytes())
}

async fn wait_for_socket(config: &ContainerdConfig) -> Result<(), Error> {
    let deadline = Instant::now() + SOCKET_WAIT_MAX;
    while UnixStream::connect(&config.socket).await.is_err() {
        if Instant::now() > deadline {
            return Err(Error::Silent {
                socket: config.socket.clone(),
                log: config.log.clone(),
            });
        }
        tokio::time::sleep(SOCKET_RETRY).await;
    }
    Ok(())
}

/// Asks our containerd to end and waits until it has; the containers go on.
pub(crate) async fn stop(config: &ContainerdConfig) {
    let Some(pid) = adopt(config) else { return };
    let deadline = Instant::now() + STOP_WAIT_MAX;
    let mut signal = Signal::TERM;
    while is_ours(pid, config) {
        if Instant::now() > deadline {
            signal = Signal::KILL;
        }
        // It may have ended in the meantime.
        let _ = rustix::process::kill_process(pid, signal);
        tokio::time::sleep(SOCKET_RETRY).await;
    }
    // A file that is gone is as good.
    let _ = fs::remove_file(config.pid_file());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missing_program_is_named_with_its_package() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut c = ContainerdConfig::below(dir.path(), dir.path());
        c.binary = dir.path().join("containerd");
        let e = Containerd::start(c, &Tasks::default())
            .await
            .expect_err("nothing there");
        assert!(
            e.to_string().ends_with("apt-get install -y containerd"),
            "{e}"
        );
    }

    #[test]
    fn a_foreign_process_is_not_adopted() {
        let dir = tempfile::tempdir().expect("a directory");
        let c = ContainerdConfig::below(dir.path(), dir.path());
        fs::write(c.pid_file(), std::process::id().to_string()).expect("written");
        assert_eq!(adopt(&c), None);
    }
}
