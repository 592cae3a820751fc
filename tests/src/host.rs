//! [`Host`]: a network namespace that stands for a machine. It has one address and no default route.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use crate::process::run;

/// The address that a test host has; every host has the same, as no two share a network.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);

static SERIAL: AtomicU32 = AtomicU32::new(0);

/// A network namespace of its own. It is removed when the value is dropped.
#[derive(Debug)]
pub struct Host {
    name: String,
    outside: File,
}

impl Host {
    /// Makes a namespace and moves the calling thread, and what it starts from now on, into it.
    ///
    /// # Errors
    /// The namespace cannot be made (this takes root).
    pub fn enter() -> Result<Host> {
        let outside = File::open("/proc/thread-self/ns/net")
            .context("cannot open this thread's network namespace")?;
        let name = format!(
            "kontiki-{}-{}",
            std::process::id(),
            SERIAL.fetch_add(1, Ordering::Relaxed)
        );
        run("ip", &["netns", "add", &name]).context("a test host takes root and iproute2")?;
        let host = Host { name, outside };
        let inside = File::open(format!("/run/netns/{}", host.name))?;
        move_into(&inside)?;
        run("ip", &["link", "set", "lo", "up"])?;
        // A bridge without ports holds the address: the kernel of a test machine may lack the dummy device.
        run("ip", &["link", "add", "uplink", "type", "bridge"])?;
        run(
            "ip",
            &["addr", "add", &format!("{ADDRESS}/24"), "dev", "uplink"],
        )?;
        run("ip", &["link", "set", "uplink", "up"])?;
        Ok(host)
    }

    /// The namespace's name, as in `/run/netns`.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Err(e) = move_into(&self.outside) {
            tracing_fallback(&format!("cannot leave the network namespace: {e:#}"));
        }
        if let Err(e) = run("ip", &["netns", "del", &self.name]) {
            tracing_fallback(&format!(
                "cannot remove network namespace {}: {e:#}",
                self.name
            ));
        }
    }
}

#[allow(clippy::print_stderr, reason = "a test's own output")]
fn tracing_fallback(line: &str) {
    eprintln!("{line}");
}

fn move_into(namespace: &File) -> Result<()> {
    rustix::thread::move_into_link_name_space(
        namespace.as_fd(),
        Some(rustix::thread::LinkNameSpaceType::Network),
    )
    .context("cannot change the thread's network namespace")
}
