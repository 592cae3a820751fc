//! The fixed part of the table: hooks, the refusal of what is not served, masquerade.

use std::collections::BTreeSet;

use super::NftablesConfig;
use super::render::Holder;

/// Its presence says that the table has this layout. A change of hooks or declarations takes the next number.
pub(super) const LAYOUT_CHAIN: &str = "layout-1";
/// The set of service addresses and ports that the node itself answers on.
pub(super) const LOCAL_VIPS: &str = "local-vips";
pub(super) const LOCAL_VIPS_DECLARATION: &str = "type ipv4_addr . inet_proto . inet_service;";
/// The bit of the packet mark that asks for the node's address as source; the same as upstream's default.
const MASQUERADE_MARK: &str = "0x00004000";
/// The chain that sets the bit.
pub(super) const MARK_CHAIN: &str = "mark-masquerade";

/// A chain of the fixed part.
pub(super) struct Chain {
    pub(super) name: &'static str,
    /// The hook of a base chain, or empty.
    hook: &'static str,
    pub(super) rules: Vec<String>,
}

impl Chain {
    pub(super) fn declaration(&self) -> String {
        if self.hook.is_empty() {
            self.name.to_owned()
        } else {
            format!("{} {{ type {}; policy accept; }}", self.name, self.hook)
        }
    }
}

fn chain(name: &'static str, hook: &'static str, rules: &[&str]) -> Chain {
    Chain {
        name,
        hook,
        rules: rules.iter().map(|&r| r.to_owned()).collect(),
    }
}

/// The chains of the fixed part.
pub(super) fn chains(config: &NftablesConfig) -> Vec<Chain> {
    let cidr = config.service_cidr;
    let own = if config.node_port_addresses.is_empty() {
        format!("fib daddr type local ip daddr != {{ 127.0.0.0/8, {cidr} }}")
    } else {
        let list: Vec<String> = config
            .node_port_addresses
            .iter()
            .map(ToString::to_string)
            .collect();
        format!("ip daddr {{ {} }}", list.join(", "))
    };
    vec![
        chain(LAYOUT_CHAIN, "", &[]),
        chain(
            MARK_CHAIN,
            "",
            &[&format!("meta mark set meta mark or {MASQUERADE_MARK}")],
        ),
        chain(
            "refuse",
            "",
            &[
                "meta l4proto tcp reject with tcp reset",
                "reject with icmp type port-unreachable",
            ],
        ),
        chain(
            "services",
            "",
            &[
                "ip daddr . meta l4proto . th dport vmap @service-ips",
                &format!("{own} meta l4proto . th dport vmap @node-ports"),
            ],
        ),
        chain(
            "unserved",
            "",
            &[
                // Answers to the node's own service addresses have such an address as destination, and are wanted.
                "ct direction reply return",
                "ip daddr . meta l4proto . th dport vmap @refused-ips",
                &format!("{own} meta l4proto . th dport vmap @refused-node-ports"),
                &format!(
                    "ip daddr {cidr} ip daddr . meta l4proto . th dport != @{LOCAL_VIPS} goto refuse"
                ),
            ],
        ),
        chain(
            "nat-prerouting",
            "nat hook prerouting priority -100",
            &["jump services"],
        ),
        chain(
            "nat-output",
            "nat hook output priority -100",
            &["jump services"],
        ),
        chain(
            "nat-postrouting",
            "nat hook postrouting priority 100",
            &[
                // A pod that reaches itself through its service has to see another source, or it would answer itself directly.
                "ct status dnat ip saddr . ip daddr @hairpin masquerade fully-random",
                &format!("meta mark & {MASQUERADE_MARK} == 0 return"),
                &format!("meta mark set meta mark xor {MASQUERADE_MARK}"),
                "masquerade fully-random",
            ],
        ),
        chain(
            "filter-input",
            "filter hook input priority -10",
            &["jump unserved"],
        ),
        chain(
            "filter-forward",
            "filter hook forward priority -10",
            &["jump unserved"],
        ),
        chain(
            "filter-output",
            "filter hook output priority -10",
            &["jump unserved"],
        ),
    ]
}

/// The names of the fixed part's chains, maps and sets.
pub(super) fn names(config: &NftablesConfig) -> BTreeSet<&'static str> {
    let holders = Holder::ALL.iter().map(|h| h.name());
    chains(config)
        .iter()
        .map(|c| c.name)
        .chain(holders)
        .chain([LOCAL_VIPS])
        .collect()
}
