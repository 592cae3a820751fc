//! Compiles the pause program: freestanding, static, a few hundred bytes of code.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=pause/pause.rs");
    let var = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let out = PathBuf::from(var("OUT_DIR")).join("pause");
    let mut rustc = Command::new(var("RUSTC"));
    rustc.args([
        "--edition",
        "2024",
        "--crate-type",
        "bin",
        "--crate-name",
        "pause",
        "--target",
        &var("TARGET"),
    ]);
    rustc.args([
        "-Cpanic=abort",
        "-Copt-level=s",
        "-Cstrip=symbols",
        "-Crelocation-model=static",
    ]);
    rustc.args([
        "-Clink-arg=-nostartfiles",
        "-Clink-arg=-nostdlib",
        "-Clink-arg=-static",
        "-Clink-arg=-Wl,--build-id=none",
    ]);
    if let Ok(linker) = std::env::var("RUSTC_LINKER") {
        rustc.arg(format!("-Clinker={linker}"));
    }
    let status = rustc
        .arg("-o")
        .arg(&out)
        .arg("pause/pause.rs")
        .status()
        .expect("rustc can be started");
    assert!(status.success(), "the pause program does not compile");
}
