//! Kubernetes on a raft: the program. It reads the command line, and composes the parts; the parts live in their crates.

mod args;
mod config;
mod down;
mod host_facts;
mod identities;
mod master;
mod run;
mod system_objects;
mod worker;

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run::run(args::Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // The one place where an error's chain is printed.
            report(&format!("kontiki: {e:#}"));
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stderr, reason = "the edge of the program")]
fn report(line: &str) {
    eprintln!("{line}");
}
