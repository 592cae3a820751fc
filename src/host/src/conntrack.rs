//! Connection tracking: forgetting UDP flows whose endpoint is gone.
//!
//! A UDP client that keeps its port keeps its flow alive, and with it the translation to an endpoint that no longer
//! exists; TCP finds out by itself.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::command::{CommandError, Program};

const CONNTRACK: Program = Program {
    name: "conntrack",
    package: "conntrack",
};

/// UDP flows to one address and port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UdpFlow {
    /// The address that clients sent to; `None` for any (a node port).
    pub address: Option<Ipv4Addr>,
    /// The port that clients sent to.
    pub port: u16,
    /// The endpoint that they were sent on to; `None` for any, and for flows that were not sent on at all.
    pub endpoint: Option<Ipv4Addr>,
}

/// The machine's table of connections.
#[async_trait]
pub trait Conntrack: Send + Sync + 'static {
    /// Forgets these flows; that there are none is no error.
    async fn forget_udp(&self, flow: &UdpFlow) -> Result<(), CommandError>;

    /// The IPv4 flows that were sent on to an endpoint, each with address and endpoint.
    async fn udp_flows(&self) -> Result<BTreeSet<UdpFlow>, CommandError>;
}

/// The kernel's table, through the `conntrack` program.
#[derive(Clone, Copy, Debug)]
pub struct ConntrackProgram;

#[async_trait]
impl Conntrack for ConntrackProgram {
    async fn forget_udp(&self, flow: &UdpFlow) -> Result<(), CommandError> {
        let port = flow.port.to_string();
        let (address, endpoint) = (
            flow.address.map(|a| a.to_string()),
            flow.endpoint.map(|e| e.to_string()),
        );
        let mut args = vec!["-D", "-f", "ipv4", "-p", "udp", "--orig-port-dst", &port];
        if let Some(e) = &endpoint {
            args.extend(["--dst-nat", e]);
        }
        if let Some(a) = &address {
            args.extend(["--orig-dst", a]);
        }
        match CONNTRACK.run(&args, b"").await {
            // This is how the program says that it found nothing.
            Err(CommandError::Failed { stderr, .. }) if stderr.contains("0 flow entries") => Ok(()),
            other => other.map(drop),
        }
    }

    async fn udp_flows(&self) -> Result<BTreeSet<UdpFlow>, CommandError> {
        let listing = CONNTRACK
            .run(&["-L", "-f", "ipv4", "-p", "udp", "--dst-nat"], b"")
            .await?;
        Ok(String::from_utf8_lossy(&listing)
            .lines()
            .filter_map(parse_flow)
            .collect())
    }
}

/// Reads a line as `udp 17 29 src=A dst=B sport=1 dport=2 [UNREPLIED] src=C dst=D sport=3 dport=4 …`: the first half is what the
/// client sent, the second what the answer to it looks like.
fn parse_flow(line: &str) -> Option<UdpFlow> {
    let values = |key: &'static str| {
        line.split_whitespace()
            .filter_map(move |w| w.strip_prefix(key))
    };
    Some(UdpFlow {
        address: Some(values("dst=").next()?.parse().ok()?),
        port: values("dport=").next()?.parse().ok()?,
        endpoint: Some(values("src=").nth(1)?.parse().ok()?),
    })
}

/// A table that is only data, and remembers what it was asked to forget.
#[derive(Debug, Default)]
pub struct FakeConntrack {
    flows: Mutex<BTreeSet<UdpFlow>>,
    forgotten: Mutex<Vec<UdpFlow>>,
}

impl FakeConntrack {
    /// Adds a flow.
    pub fn add(&self, flow: UdpFlow) {
        self.flows.lock().insert(flow);
    }

    /// The flows that were to be forgotten, in order.
    pub fn forgotten(&self) -> Vec<UdpFlow> {
        self.forgotten.lock().clone()
    }
}

#[async_trait]
impl Conntrack for FakeConntrack {
    async fn forget_udp(&self, flow: &UdpFlow) -> Result<(), CommandError> {
        self.flows.lock().remove(flow);
        self.forgotten.lock().push(flow.clone());
        Ok(())
    }

    async fn udp_flows(&self) -> Result<BTreeSet<UdpFlow>, CommandError> {
        Ok(self.flows.lock().clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_read_from_a_line() {
        let line = "udp      17 29 src=10.244.0.9 dst=10.96.0.20 sport=43986 dport=80 [UNREPLIED] \
                    src=10.244.0.5 dst=10.244.0.9 sport=8080 dport=43986 mark=0 use=1";
        let want = UdpFlow {
            address: Some([10, 96, 0, 20].into()),
            port: 80,
            endpoint: Some([10, 244, 0, 5].into()),
        };
        assert_eq!(parse_flow(line), Some(want));
        assert_eq!(parse_flow("udp 17 29 src=fd00::1 dst=fd00::2"), None);
    }
}
