//! Brings images into containerd without a registry.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::config::ContainerdConfig;
use crate::containerd::Error;

/// The containerd namespace that CRI looks into.
pub const NAMESPACE: &str = "k8s.io";
/// The label by which CRI marks the images that it has taken notice of.
const NOTICED_LABEL: &str = "io.cri-containerd.image=managed";
const NOTICE_WAIT_MAX: Duration = Duration::from_secs(10);
const NOTICE_RETRY: Duration = Duration::from_millis(30);

fn ctr(config: &ContainerdConfig) -> Command {
    let mut c = Command::new(config.binary.with_file_name("ctr"));
    c.arg("--address")
        .arg(&config.socket)
        .args(["--namespace", NAMESPACE]);
    c
}

async fn output(mut command: Command, what: &str, input: Option<&[u8]>) -> Result<String, Error> {
    let program = format!("ctr {what}");
    let run_error = |source| Error::Run {
        program: program.clone(),
        source,
    };
    command.stdin(if input.is_some() {
        Stdio::piped()
    } else {
        Stdio::null()
    });
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(run_error)?;
    if let (Some(bytes), Some(mut pipe)) = (input, child.stdin.take()) {
        // An import that fails early closes its input; what it says then is the better message.
        let _ = pipe.write_all(bytes).await;
    }
    let out = child.wait_with_output().await.map_err(run_error)?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&out.stderr).trim().to_owned();
    Err(Error::Failed { program, message })
}

/// Makes sure that the built-in pause image is there and known to CRI.
///
/// # Errors
/// The import failed.
pub async fn ensure_pause(config: &ContainerdConfig) -> Result<(), Error> {
    if config.sandbox_image != crate::pause::IMAGE
        || is_noticed(config, &config.sandbox_image).await?
    {
        return Ok(());
    }
    let mut c = ctr(config);
    c.args(["images", "import", "-"]);
    output(c, "images import", Some(&crate::pause::archive())).await?;
    let deadline = tokio::time::Instant::now() + NOTICE_WAIT_MAX;
    while !is_noticed(config, &config.sandbox_image).await? {
        if tokio::time::Instant::now() > deadline {
            let message = format!("CRI took no notice of {}", config.sandbox_image);
            return Err(Error::Failed {
                program: "ctr images import".into(),
                message,
            });
        }
        tokio::time::sleep(NOTICE_RETRY).await;
    }
    Ok(())
}

async fn is_noticed(config: &ContainerdConfig, image: &str) -> Result<bool, Error> {
    let mut c = ctr(config);
    c.args(["images", "ls", &format!("name=={image}")]);
    Ok(output(c, "images ls", None).await?.contains(NOTICED_LABEL))
}

/// Imports one image archive (`docker save` or OCI layout in a tar).
///
/// # Errors
/// The archive cannot be read as images.
pub async fn import_file(config: &ContainerdConfig, path: &Path) -> Result<(), Error> {
    let mut c = ctr(config);
    c.args(["images", "import"]).arg(path);
    output(c, &format!("images import {}", path.display()), None).await?;
    tracing::info!(archive = %path.display(), "images imported");
    Ok(())
}

/// Imports all `*.tar` files of a directory, in the order of their names; one that is bad is logged and left out.
/// Returns those that were imported. A directory that does not exist is empty.
pub async fn import_directory(config: &ContainerdConfig, dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut archives: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    archives.retain(|p| p.extension().is_some_and(|e| e == "tar"));
    archives.sort();
    let mut imported = Vec::new();
    for path in archives {
        match import_file(config, &path).await {
            Ok(()) => imported.push(path),
            Err(e) => tracing::error!(
                error = kontiki_base::chain(&e),
                "an image archive was left out"
            ),
        }
    }
    imported
}
