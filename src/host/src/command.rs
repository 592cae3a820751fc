//! Runs the machine's own programs: input on standard input, a deadline, and errors that name the package of a missing one.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// How long a program may take. The slowest is nft with a rule set of ten thousand services, which takes about a second.
const DEADLINE: Duration = Duration::from_secs(30);
/// How much of a program's error text is kept.
const ERROR_TEXT_BYTES_MAX: usize = 2000;

/// A program that could not be run, or that failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The program is not installed.
    #[error("{program} is not installed; on Debian: apt-get install {package}")]
    Missing {
        /// The program.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// The program could not be started, or not be talked to.
    #[error("cannot run {program}")]
    Io {
        /// The program.
        program: &'static str,
        /// What went wrong.
        #[source]
        source: std::io::Error,
    },
    /// The program did not end in time, and was killed.
    #[error("{program} did not end within {} s", DEADLINE.as_secs())]
    Deadline {
        /// The program.
        program: &'static str,
    },
    /// The program ended with an error.
    #[error("{program} failed: {stderr}")]
    Failed {
        /// The program.
        program: &'static str,
        /// The end of what it said.
        stderr: String,
    },
}

/// A program of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Its name, looked up in PATH and in the places of system programs.
    pub name: &'static str,
    /// The Debian package that has it.
    pub package: &'static str,
}

impl Program {
    /// Runs it with these arguments and this input; gives its standard output.
    ///
    /// # Errors
    /// It is missing, cannot be run, takes too long, or fails.
    pub async fn run(self, args: &[&str], input: &[u8]) -> Result<Vec<u8>, CommandError> {
        let program = self.name;
        let io = |source| CommandError::Io { program, source };
        let mut child = Command::new(self.path())
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| match e.kind() {
                std::io::ErrorKind::NotFound => CommandError::Missing {
                    program,
                    package: self.package,
                },
                _ => io(e),
            })?;
        let mut stdin = child.stdin.take().expect("standard input is piped");
        let feed = async move {
            // A program that ends without reading its input says why on standard error, which is the better message.
            let _ = stdin.write_all(input).await;
        };
        let both = async { tokio::join!(feed, child.wait_with_output()).1 };
        let output = tokio::time::timeout(DEADLINE, both)
            .await
            .map_err(|_| CommandError::Deadline { program })?
            .map_err(io)?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let stderr = text.trim().chars().take(ERROR_TEXT_BYTES_MAX).collect();
        Err(CommandError::Failed { program, stderr })
    }

    /// Services often run with a PATH that lacks the places of system programs.
    fn path(self) -> std::path::PathBuf {
        let in_path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&in_path)
            .chain(["/usr/sbin", "/sbin"].map(Into::into))
            .map(|dir| dir.join(self.name))
            .find(|p| p.is_file())
            .unwrap_or_else(|| self.name.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missing_program_names_its_package() {
        let p = Program {
            name: "kontiki-no-such-program",
            package: "no-such-package",
        };
        let e = p.run(&[], b"").await.expect_err("it does not exist");
        assert!(
            e.to_string().contains("apt-get install no-such-package"),
            "{e}"
        );
    }

    #[tokio::test]
    async fn input_output_and_failure_are_passed_on() {
        let sh = Program {
            name: "sh",
            package: "dash",
        };
        assert_eq!(
            sh.run(&["-c", "cat"], b"hello").await.expect("cat works"),
            b"hello"
        );
        let e = sh
            .run(&["-c", "echo bad >&2; exit 3"], b"")
            .await
            .expect_err("it exits with 3");
        assert_eq!(e.to_string(), "sh failed: bad");
    }
}
