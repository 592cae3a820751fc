//! Network namespaces for tests: machines that have no way out of this one.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Runs a program that has to succeed; gives its output.
///
/// # Panics
/// If it does not.
pub fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(
        out.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// A network namespace with a loopback link and without IPv6, gone when this is dropped. Needs root.
#[derive(Debug)]
pub struct Namespace(String);

impl Namespace {
    /// A new namespace; the tag is a part of its name.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn new(tag: &str) -> Namespace {
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let ns = Namespace(format!("kn{}-{number}-{tag}", std::process::id()));
        run("ip", &["netns", "add", &ns.0]);
        ns.inside(|| {
            // Neighbour discovery and the like would be counted among the packets.
            std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").expect("a setting");
        });
        ns.ip("link set lo up");
        ns
    }

    /// Its name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// The file that stands for it.
    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.0)
    }

    /// Runs `ip` here; the arguments are parted by spaces.
    pub fn ip(&self, args: &str) -> String {
        let all: Vec<&str> = ["-n", &self.0].into_iter().chain(args.split(' ')).collect();
        run("ip", &all)
    }

    /// Runs `nft` here; the arguments are parted by spaces.
    pub fn nft(&self, args: &str) -> String {
        let net = format!("--net={}", self.path());
        let all: Vec<&str> = [&*net, "nft"].into_iter().chain(args.split(' ')).collect();
        run("nsenter", &all)
    }

    /// Calls a function on a thread that is in this namespace.
    pub fn inside<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        let path = self.path();
        std::thread::scope(|s| {
            let thread = s.spawn(move || {
                enter(&path);
                f()
            });
            thread
                .join()
                .unwrap_or_else(|p| std::panic::resume_unwind(p))
        })
    }

    /// Runs a future on a thread that is in this namespace.
    ///
    /// # Panics
    /// If the future does.
    pub fn block_on<F: Future<Output: Send>>(&self, make: impl FnOnce() -> F + Send) -> F::Output {
        self.inside(|| {
            // One thread only: others would be in another namespace.
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(make())
        })
    }

    /// Starts a thread in this namespace.
    pub fn thread(&self, f: impl FnOnce() + Send + 'static) -> std::thread::JoinHandle<()> {
        let path = self.path();
        std::thread::spawn(move || {
            enter(&path);
            f();
        })
    }

    /// How many packets the first rule of a chain that has a counter has seen.
    ///
    /// # Panics
    /// If there is no such rule.
    pub fn counted(&self, chain: &str) -> u64 {
        let listing = self.nft(&format!("list chain {chain}"));
        let words: Vec<&str> = listing.split_whitespace().collect();
        let at = words
            .iter()
            .position(|w| *w == "packets")
            .expect("there is a counter");
        words[at + 1].parse().expect("a number")
    }
}

fn enter(path: &str) {
    let file = File::open(path).expect("the namespace is there");
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("tests run as root");
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _already_gone = Command::new("ip")
            .args(["netns", "delete", &self.0])
            .output();
    }
}
