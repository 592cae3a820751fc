//! What is read from the machine where no option says it.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::PathBuf;

use anyhow::{Context, Result};
use kontiki_base::Tasks;
use kontiki_host::Network;

use crate::config::HostFacts;

/// Debian's CNI plugins, and where everybody else puts them.
const CNI_BIN_DIRS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];

/// The machine that the program runs on.
pub(crate) struct Machine {
    addresses: Vec<IpAddr>,
}

impl Machine {
    /// Looks at the machine's addresses.
    pub(crate) async fn look(pod_bridge: Option<&str>) -> Machine {
        let bridge = pod_bridge.unwrap_or("kontiki0");
        let tasks = Tasks::default();
        // Kept until the tasks are stopped: its netlink task ends with it.
        let host = Network::system(&tasks);
        let addresses = match &host {
            Ok(host) => host.links.addresses().await.unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        tasks.stop().await;
        let usable = addresses
            .into_iter()
            // The addresses that a node gives itself are not its own.
            .filter(|(link, _)| {
                ![bridge, kontiki_proxy::vip::SERVICE_LINK, "lo"].contains(&link.as_str())
            })
            .map(|(_, net)| net.addr())
            .filter(|a| matches!(a, IpAddr::V4(v4) if !v4.is_loopback() && !v4.is_link_local()))
            .collect();
        Machine { addresses: usable }
    }
}

impl HostFacts for Machine {
    fn name(&self) -> Result<String> {
        let uname = rustix::system::uname();
        let name = uname
            .nodename()
            .to_str()
            .context("the host's name is not text; pass one with --node-name")?;
        Ok(name.to_owned())
    }

    fn address(&self) -> Option<IpAddr> {
        source_of_default_route()
            .filter(|a| self.addresses.contains(a))
            .or_else(|| self.addresses.first().copied())
    }

    fn cni_bin_dir(&self) -> PathBuf {
        let found = CNI_BIN_DIRS
            .iter()
            .find(|d| PathBuf::from(d).join("bridge").is_file());
        found.unwrap_or(&CNI_BIN_DIRS[0]).into()
    }
}

/// The address that packets to the default route would come from. Connecting a UDP socket chooses it and sends nothing.
fn source_of_default_route() -> Option<IpAddr> {
    /// Reserved for documentation: nobody's address.
    const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((ELSEWHERE, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}
