//! The machine's own resolvers, from its `resolv.conf`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::time::Instant;

/// How many resolvers are used; the rest of the list is left out, as the C library does.
const UPSTREAMS_MAX: usize = 3;
/// How often the file is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
const DNS_PORT: u16 = 53;

/// The resolvers in a file of this form, without those that are ourselves.
pub(crate) fn parse(text: &str, ourselves: &[IpAddr]) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let ip = words
            .next()
            .and_then(|w| w.split('%').next())
            .and_then(|w| w.parse::<IpAddr>().ok());
        if let Some(ip) = ip.filter(|ip| !ourselves.contains(ip) && !ip.is_unspecified()) {
            let address = SocketAddr::new(ip, DNS_PORT);
            if !found.contains(&address) {
                found.push(address);
            }
        }
    }
    found.truncate(UPSTREAMS_MAX);
    found
}

struct State {
    looked_at: Option<Instant>,
    modified: Option<SystemTime>,
    upstreams: Vec<SocketAddr>,
}

/// The resolvers to ask.
pub(crate) struct Upstreams {
    source: Source,
    ourselves: Vec<IpAddr>,
    state: Mutex<State>,
}

/// Where the list of resolvers comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A file, read again when it changes.
    File(PathBuf),
    /// These.
    List(Vec<SocketAddr>),
}

impl Upstreams {
    pub(crate) fn new(source: Source, ourselves: Vec<IpAddr>) -> Upstreams {
        let state = State {
            looked_at: None,
            modified: None,
            upstreams: Vec::new(),
        };
        Upstreams {
            source,
            ourselves,
            state: Mutex::new(state),
        }
    }

    /// The resolvers, in the order in which to ask them.
    pub(crate) fn get(&self) -> Vec<SocketAddr> {
        let path = match &self.source {
            Source::List(list) => return list.clone(),
            Source::File(path) => path,
        };
        let mut s = self.state.lock();
        if s.looked_at.is_some_and(|t| t.elapsed() < LOOK_INTERVAL) {
            return s.upstreams.clone();
        }
        s.looked_at = Some(Instant::now());
        let modified = std::fs::metadata(path).and_then(|m| m.modified()).ok();
        if modified.is_none() || modified != s.modified {
            s.modified = modified;
            // Without the file there is nobody to ask.
            let text = std::fs::read_to_string(path).unwrap_or_default();
            s.upstreams = parse(&text, &self.ourselves);
            tracing::info!(upstreams = ?s.upstreams, file = %path.display(), "resolvers for names outside of the cluster");
        }
        s.upstreams.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_read_and_ourselves_left_out() {
        let text = "# comment\nsearch a b\nnameserver 10.96.0.10\nnameserver 192.0.2.1 # x\nnameserver fe80::1%eth0\n\
                    nameserver bad\nnameserver 192.0.2.1\nnameserver 0.0.0.0\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n";
        let found = parse(text, &["10.96.0.10".parse().expect("valid")]);
        let want = ["192.0.2.1:53", "[fe80::1]:53", "192.0.2.2:53"];
        assert_eq!(found, want.map(|a| a.parse().expect("valid")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_is_read_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("resolv.conf");
        let u = Upstreams::new(Source::File(path.clone()), Vec::new());
        assert!(u.get().is_empty());
        std::fs::write(&path, "nameserver 192.0.2.1\n").expect("writable");
        assert!(u.get().is_empty(), "it was just looked at");
        tokio::time::advance(LOOK_INTERVAL).await;
        assert_eq!(u.get().len(), 1);
        std::fs::remove_file(&path).expect("there");
        tokio::time::advance(LOOK_INTERVAL).await;
        assert!(u.get().is_empty());
    }
}
