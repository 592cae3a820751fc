//! The machine as the node's loops see it: links, addresses and routes, kernel settings, nftables, connection tracking,
//! mounts and cgroups. Each is a trait, and its fake stands beside the real one.
//!
//! Entry point: [`Network`], the networking parts of the machine bundled; [`Network::system`] is the machine itself,
//! [`Network::fake`] is plain data for tests.
//!
//! Invariants: this crate knows nothing of Kubernetes and decides nothing; it carries out single, idempotent steps and says
//! which one failed, on what. A program that is missing is named together with the Debian package that brings it.

pub mod cgroups;
pub mod command;
pub mod conntrack;
pub mod links;
pub mod mounts;
pub mod nft;
pub mod sysctl;
#[cfg(feature = "testing")]
pub mod testing;

use std::sync::Arc;

use kontiki_base::Tasks;

pub use conntrack::{Conntrack, FakeConntrack, UdpFlow};
pub use links::{FakeLinks, Link, LinkError, Links, Route, RouteKind};
pub use nft::{FakeNft, Nft, NftError, TableNames};
pub use sysctl::{FakeSysctls, Sysctls};

/// The networking parts of a machine. Clones are the same machine.
#[derive(Clone)]
pub struct Network {
    /// Links, addresses, routes.
    pub links: Arc<dyn Links>,
    /// Settings under `/proc/sys`.
    pub sysctls: Arc<dyn Sysctls>,
    /// The packet filter.
    pub nft: Arc<dyn Nft>,
    /// The table of connections.
    pub conntrack: Arc<dyn Conntrack>,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Network")
    }
}

impl Network {
    /// This machine, in the network namespace of the calling thread. Links can be worked on for as long as the group runs.
    ///
    /// # Errors
    /// The kernel gives no netlink socket.
    pub fn system(tasks: &Tasks) -> Result<Network, LinkError> {
        Ok(Network {
            links: Arc::new(links::RtLinks::open(tasks)?),
            sysctls: Arc::new(sysctl::ProcSys::default()),
            nft: Arc::new(nft::NftProgram),
            conntrack: Arc::new(conntrack::ConntrackProgram),
        })
    }

    /// A machine that is only data.
    pub fn fake() -> (Network, FakeParts) {
        let parts = FakeParts::default();
        let network = Network {
            links: parts.links.clone(),
            sysctls: parts.sysctls.clone(),
            nft: parts.nft.clone(),
            conntrack: parts.conntrack.clone(),
        };
        (network, parts)
    }
}

/// The parts of [`Network::fake`], to look into.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "the fields are those of Network")]
pub struct FakeParts {
    pub links: Arc<FakeLinks>,
    pub sysctls: Arc<FakeSysctls>,
    pub nft: Arc<FakeNft>,
    pub conntrack: Arc<FakeConntrack>,
}
