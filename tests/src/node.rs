//! [`Node`]: a `kontiki` process under a directory of its own, inside the calling thread's network namespace.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{host, process, wait};

/// A node that is not ready by then does not become it.
pub const START_DEADLINE: Duration = Duration::from_secs(90);

/// What a process is started as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The API server alone, without controllers.
    Server,
    /// Master and worker in one process.
    Up,
}

/// A running node. Dropping it removes everything that it made.
#[derive(Debug)]
pub struct Node {
    program: PathBuf,
    role: Role,
    dir: tempfile::TempDir,
    child: Child,
    /// From the start of the process until `/readyz` (a server) or the Ready condition (a node).
    pub ready_after: Duration,
}

impl Node {
    /// Starts a node on an empty disk and waits until it is ready.
    ///
    /// # Errors
    /// It does not become ready; the message has the end of its log.
    pub fn start(program: &Path, role: Role) -> Result<Node> {
        let dir = tempfile::Builder::new().prefix("kontiki-test-").tempdir()?;
        let start = Instant::now();
        let child = spawn(program, role, dir.path())?;
        let mut node = Node {
            program: program.to_owned(),
            role,
            dir,
            child,
            ready_after: Duration::ZERO,
        };
        node.wait_ready()?;
        node.ready_after = start.elapsed();
        Ok(node)
    }

    /// Waits until the node is ready.
    ///
    /// # Errors
    /// It does not become ready; the message has the end of its log.
    pub fn wait_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        let mut args = vec!["status".to_owned(), "--quiet".to_owned()];
        if self.role == Role::Server {
            args.push("--server-only".into());
        }
        args.extend([
            "--config-dir".into(),
            self.path("config").display().to_string(),
        ]);
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the node ended with {status}:\n{}", self.log_tail());
            }
            let ok = Command::new(&self.program).args(&args).output()?;
            if ok.status.success() {
                return Ok(());
            }
            if Instant::now() > deadline {
                let why = String::from_utf8_lossy(&ok.stderr).into_owned();
                bail!(
                    "the node is not ready after {START_DEADLINE:?}: {why}\n{}",
                    self.log_tail()
                );
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The admin kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.path("config").join("admin.kubeconfig")
    }

    /// A path under the node's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The control group that the groups of this node's pods are made in, as `/kontiki-test-x`.
    pub fn cgroup_root(&self) -> String {
        let [_, root] = cgroup_root(self.dir.path());
        root
    }

    /// The end of the node's log.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Ends the process with SIGKILL; containers and what else it made stay.
    ///
    /// # Errors
    /// The process cannot be ended.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts the process again after [`Node::kill`], on the same disk, and waits until it is ready.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn restart(&mut self) -> Result<()> {
        self.child = spawn(&self.program, self.role, self.dir.path())?;
        self.wait_ready()
    }

    /// Runs kubectl against this node.
    ///
    /// # Errors
    /// It fails; the message has what it wrote.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        let out = self.kubectl_output(args)?;
        if !out.status.success() {
            bail!(
                "kubectl {}: {}",
                args.join(" "),
                String::from_utf8_lossy(&out.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// Runs kubectl against this node and gives what came of it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn kubectl_output(&self, args: &[&str]) -> Result<Output> {
        self.kubectl_command(args)
            .output()
            .context("cannot run kubectl")
    }

    /// A kubectl command against this node, to be run by the caller.
    pub fn kubectl_command(&self, args: &[&str]) -> Command {
        let mut c = Command::new("kubectl");
        c.arg("--kubeconfig")
            .arg(self.kubeconfig())
            .arg("--cache-dir")
            .arg(self.path("kubectl"))
            .args(args);
        c
    }

    /// Runs a subcommand of the program with this node's directories.
    ///
    /// # Errors
    /// It fails; the message has what it wrote.
    pub fn kontiki(&self, args: &[&str]) -> Result<String> {
        let mut all: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
        all.extend(directories(self.dir.path()));
        all.extend(cgroup_root(self.dir.path()));
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        process::run(&self.program.display().to_string(), &all)
    }

    /// Waits until kubectl's answer satisfies a condition.
    ///
    /// # Errors
    /// It does not in time; the message has the last answer.
    pub fn wait_kubectl(
        &self,
        args: &[&str],
        deadline: Duration,
        good: impl Fn(&str) -> bool,
    ) -> Result<String> {
        wait::until(&format!("kubectl {}", args.join(" ")), deadline, || {
            let text = self.kubectl(args)?;
            if good(&text) {
                Ok(text)
            } else {
                bail!("last answer: {text}")
            }
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The process may have ended already; what it made is removed all the same.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let mut args = vec!["down".to_owned(), "--purge".to_owned()];
        args.extend(directories(self.dir.path()));
        args.extend(cgroup_root(self.dir.path()));
        match Command::new(&self.program).args(&args).output() {
            Ok(out) if out.status.success() => {}
            Ok(out) => report(&String::from_utf8_lossy(&out.stderr)),
            Err(e) => report(&e.to_string()),
        }
        if std::thread::panicking() {
            report(&self.log_tail());
        }
    }
}

#[allow(clippy::print_stderr, reason = "a failing test shows the node's log")]
fn report(text: &str) {
    eprintln!("--- node ---\n{text}");
}

fn directories(dir: &Path) -> Vec<String> {
    [
        ("--data-dir", "data"),
        ("--config-dir", "config"),
        ("--run-dir", "run"),
        ("--pod-logs-dir", "pods"),
    ]
    .into_iter()
    .flat_map(|(flag, name)| [flag.to_owned(), dir.join(name).display().to_string()])
    .collect()
}

fn spawn(program: &Path, role: Role, dir: &Path) -> Result<Child> {
    let log = File::options()
        .create(true)
        .append(true)
        .open(dir.join("log"))?;
    let mut command = Command::new(program);
    match role {
        Role::Server => command.args(["server", "--controllers="]),
        Role::Up => command.arg("up").args(cgroup_root(dir)),
    };
    command
        .args(directories(dir))
        .args([
            "--node-ip",
            &host::ADDRESS.to_string(),
            "--node-name",
            "node-1",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))
}

/// Nodes on one machine share its control groups: each gets a root of its own.
fn cgroup_root(dir: &Path) -> [String; 2] {
    let name = dir
        .file_name()
        .map(|n| n.to_string_lossy().to_lowercase())
        .unwrap_or_default();
    ["--cgroup-root".to_owned(), format!("/{name}")]
}
