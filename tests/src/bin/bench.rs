//! `make bench`: speed, memory and start-up of a release build, printed beside upstream's figures with the machine's load.
//!
//! Client and server share the machine's cores, so the rate says little and the server's CPU time per operation says most.

use std::path::PathBuf;

use anyhow::{Context, Result};
use kontiki_tests::bench::{node, server};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (mut kontiki, mut only) = (PathBuf::from("kontiki"), None);
    while let Some(a) = args.next() {
        match a.as_str() {
            "--kontiki" => {
                kontiki = args
                    .next()
                    .context("--kontiki takes the path of the program")?
                    .into();
            }
            "--only" => only = Some(args.next().context("--only takes `server` or `node`")?),
            other => anyhow::bail!(
                "unknown argument {other}; known are --kontiki FILE and --only server|node"
            ),
        }
    }
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    say(&format!(
        "machine: {} cores, load {}",
        std::thread::available_parallelism()?,
        load.trim()
    ));
    if only.as_deref() != Some("node") {
        server::run(&kontiki, &mut |line| say(line))?;
    }
    if only.as_deref() != Some("server") {
        node::run(&kontiki, &mut |line| say(line))?;
    }
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    say(&format!("load at the end: {}", load.trim()));
    Ok(())
}

#[allow(clippy::print_stdout, reason = "printing is what this program is for")]
fn say(line: &str) {
    println!("{line}");
}
