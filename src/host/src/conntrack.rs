//! Connection tracking: forgetting UDP flows whose endpoint is gone.
//!
//! A UDP client that keeps its port keeps its flow alive, and with it the translation to an endpoint that no longer
//! exists; TCP finds out by itself.

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
}

/// A table that only remembers what it was asked to forget.
#[derive(Debug, Default)]
pub struct FakeConntrack(Mutex<Vec<UdpFlow>>);

impl FakeConntrack {
    /// The flows that were to be forgotten, in order.
    pub fn forgotten(&self) -> Vec<UdpFlow> {
        self.0.lock().clone()
    }
}

#[async_trait]
impl Conntrack for FakeConntrack {
    async fn forget_udp(&self, flow: &UdpFlow) -> Result<(), CommandError> {
        self.0.lock().push(flow.clone());
        Ok(())
    }
}
