//! The pause image: our own static program, packed in memory.

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::tar::Tar;

/// The image's name. `localhost` is no registry, so nothing ever tries to pull it.
pub const IMAGE: &str = concat!("localhost/kontiki-pause:", env!("CARGO_PKG_VERSION"));

static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));

/// The image as an archive that `ctr images import` reads.
pub fn archive() -> Vec<u8> {
    single_program(IMAGE, "pause", PROGRAM)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// An image that holds one static program and runs it.
fn single_program(name: &str, file: &str, program: &[u8]) -> Vec<u8> {
    let mut layer = Tar::default();
    layer.file(file, 0o755, program);
    let layer = layer.finish();
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {"Entrypoint": [format!("/{file}")], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex(&Sha256::digest(&layer)))]},
    })
    .to_string();
    let config_name = format!("{}.json", hex(&Sha256::digest(&config)));
    let manifest =
        json!([{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]).to_string();
    let mut image = Tar::default();
    image.file(&config_name, 0o644, config.as_bytes());
    image.file("layer.tar", 0o644, &layer);
    image.file("manifest.json", 0o644, manifest.as_bytes());
    image.finish()
}

/// This machine's architecture as OCI names it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn the_program_is_small_static_and_ends_on_sigterm() {
        assert!(PROGRAM.len() < 16 << 10, "{} bytes", PROGRAM.len());
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("pause");
        std::fs::write(&path, PROGRAM).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
            .expect("made executable");
        let mut child = Command::new(&path).spawn().expect("starts");
        let pid = rustix::process::Pid::from_child(&child);
        let status = format!("/proc/{}/status", child.id());
        let deadline = Instant::now() + Duration::from_secs(10);
        // It sleeps only where it waits for signals: then SIGTERM is an order that it carries out rather than its end.
        while !std::fs::read_to_string(&status)
            .expect("runs")
            .contains("State:\tS")
        {
            assert!(Instant::now() < deadline, "it never came to wait");
            std::thread::yield_now();
        }
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signalled");
        assert_eq!(child.wait().expect("ends").code(), Some(0));
    }
}
