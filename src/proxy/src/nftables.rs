//! The nftables backend: one table of our own, `ip kontiki-proxy`.
//!
//! A packet's way: the hooks of the nat type jump to `services`, where one look-up in a map by address, protocol and port finds
//! the chain of the service port; that chain picks an endpoint at random. Whatever still has a service address in the hooks of
//! the filter type was not served, and is refused there. A change of a service touches its own chains and elements only.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::sync::Arc;

use async_trait::async_trait;
use ipnet::Ipv4Net;
use kontiki_host::{Nft, NftError};

use crate::backend::{Backend, BackendError};
use crate::plan::{Changes, Plan, PortKey, PortPlan};
use crate::vip::LocalVip;

mod base;
mod render;

use render::{Element, Holder, Rendered};

/// The family and the name of our table, as commands name it.
pub(crate) const TABLE: &str = "ip kontiki-proxy";
const FAMILY: &str = "ip";
const NAME: &str = "kontiki-proxy";
/// How many elements one command adds or deletes.
const ELEMENTS_PER_COMMAND: usize = 500;

/// What the rules depend on besides the services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NftablesConfig {
    /// The range of service addresses.
    pub service_cidr: Ipv4Net,
    /// The range of pod addresses, if it is known.
    pub cluster_cidr: Option<Ipv4Net>,
    /// Whether every connection to a service gets the node's address as source.
    pub masquerade_all: bool,
    /// The addresses that node ports are on; empty for all of the node's own but loopback and service addresses.
    pub node_port_addresses: Vec<Ipv4Net>,
    /// Service addresses that the node itself answers on.
    pub local_vips: Vec<LocalVip>,
}

/// The nftables backend.
pub struct Nftables {
    config: NftablesConfig,
    nft: Arc<dyn Nft>,
    ports: BTreeMap<PortKey, Rendered>,
    /// Who wants each element: services can share one (an external address, an endpoint), and the first of them by key has it.
    claims: BTreeMap<Element, BTreeMap<PortKey, String>>,
}

impl std::fmt::Debug for Nftables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nftables")
            .field("ports", &self.ports.len())
            .finish_non_exhaustive()
    }
}

/// A transaction in the making.
#[derive(Default)]
struct Transaction {
    text: String,
}

impl Transaction {
    fn push(&mut self, verb: &str, what: &str, rest: &str) {
        writeln!(self.text, "{verb} {what} {TABLE} {rest}")
            .expect("writing to a String does not fail");
    }

    fn chain(&mut self, name: &str, rules: &[String]) {
        for rule in rules {
            writeln!(self.text, "add rule {TABLE} {name} {rule}")
                .expect("writing to a String does not fail");
        }
    }

    /// Adds or deletes elements, several a command.
    fn elements<'a>(
        &mut self,
        verb: &str,
        elements: impl Iterator<Item = (&'a Element, Option<&'a str>)>,
    ) {
        let mut by_holder: BTreeMap<Holder, Vec<String>> = BTreeMap::new();
        for (element, value) in elements {
            let text = match value.filter(|v| !v.is_empty()) {
                Some(value) => format!("{} : {value}", element.key),
                None => element.key.clone(),
            };
            by_holder.entry(element.holder).or_default().push(text);
        }
        for (holder, texts) in by_holder {
            for some in texts.chunks(ELEMENTS_PER_COMMAND) {
                self.push(
                    verb,
                    "element",
                    &format!("{} {{ {} }}", holder.name(), some.join(", ")),
                );
            }
        }
    }
}

impl Nftables {
    /// A backend that writes through this packet filter. Nothing is written yet.
    pub fn new(config: NftablesConfig, nft: Arc<dyn Nft>) -> Nftables {
        Nftables {
            config,
            nft,
            ports: BTreeMap::new(),
            claims: BTreeMap::new(),
        }
    }

    async fn run(&self, action: &'static str, t: &Transaction) -> Result<(), BackendError> {
        self.nft
            .run(&t.text)
            .await
            .map_err(|source| BackendError::Nft { action, source })
    }

    /// Takes new rules of a port into the claims; gives the elements whose value may have changed, each with its value before.
    fn claim(
        &mut self,
        key: &PortKey,
        rendered: Option<&Rendered>,
    ) -> BTreeMap<Element, Option<String>> {
        let mut before = BTreeMap::new();
        let old = self
            .ports
            .get(key)
            .map(|r| r.elements.keys().cloned().collect::<BTreeSet<_>>())
            .unwrap_or_default();
        let new = rendered
            .map(|r| r.elements.keys().cloned().collect())
            .unwrap_or_default();
        for element in old.union(&new) {
            let claims = self.claims.entry(element.clone()).or_default();
            before.insert(element.clone(), claims.values().next().cloned());
            match rendered.and_then(|r| r.elements.get(element)) {
                Some(value) => drop(claims.insert(key.clone(), value.clone())),
                None => drop(claims.remove(key)),
            }
            if claims.is_empty() {
                self.claims.remove(element);
            }
        }
        before
    }

    fn value(&self, element: &Element) -> Option<&str> {
        self.claims
            .get(element)
            .and_then(|c| c.values().next())
            .map(String::as_str)
    }

    fn remember(&mut self, key: &PortKey, rendered: Option<Rendered>) {
        match rendered {
            Some(r) => drop(self.ports.insert(key.clone(), r)),
            None => drop(self.ports.remove(key)),
        }
    }

    /// The transaction for some changes; takes them into the state.
    fn transaction(&mut self, changes: &Changes) -> Transaction {
        let set = changes.set.iter().map(|(k, p)| (k, Some(p)));
        let all: Vec<(&PortKey, Option<&Arc<PortPlan>>)> = set
            .chain(changes.removed.iter().map(|k| (k, None)))
            .collect();
        let mut before: BTreeMap<Element, Option<String>> = BTreeMap::new();
        let (mut made, mut filled, mut gone) = (
            Transaction::default(),
            Transaction::default(),
            Transaction::default(),
        );
        let mut dropped = Transaction::default();
        for (key, plan) in all {
            let rendered = plan.map(|p| render::port(&self.config, key, p));
            for (element, value) in self.claim(key, rendered.as_ref()) {
                before.entry(element).or_insert(value);
            }
            let empty = Rendered::default();
            let (old, new) = (
                self.ports.get(key).unwrap_or(&empty),
                rendered.as_ref().unwrap_or(&empty),
            );
            for (name, declaration) in new.sets.iter().filter(|(n, _)| !old.sets.contains_key(*n)) {
                made.push("add", "set", &format!("{name} {declaration}"));
            }
            for (name, rules) in &new.chains {
                match old.chains.get(name) {
                    Some(same) if same == rules => continue,
                    Some(_) => filled.push("flush", "chain", name),
                    None => made.push("add", "chain", name),
                }
                filled.chain(name, rules);
            }
            for name in old.chains.keys().filter(|n| !new.chains.contains_key(*n)) {
                filled.push("flush", "chain", name);
                gone.push("delete", "chain", name);
            }
            for name in old.sets.keys().filter(|n| !new.sets.contains_key(*n)) {
                dropped.push("delete", "set", name);
            }
            self.remember(key, rendered);
        }
        let changed = || {
            before
                .iter()
                .filter(|(e, old)| self.value(e) != old.as_deref())
        };
        let mut t = made;
        t.elements(
            "delete",
            changed()
                .filter(|(_, old)| old.is_some())
                .map(|(e, _)| (e, None)),
        );
        t.text.push_str(&filled.text);
        t.elements(
            "add",
            changed().filter_map(|(e, _)| self.value(e).map(|v| (e, Some(v)))),
        );
        t.text.push_str(&gone.text);
        t.text.push_str(&dropped.text);
        t
    }

    async fn existing(&self) -> Result<Option<kontiki_host::TableNames>, BackendError> {
        let failed = |source: NftError| BackendError::Nft {
            action: "read the table of the service proxy",
            source,
        };
        let names = self.nft.names(FAMILY, NAME).await.map_err(failed)?;
        // A table of another layout is made anew, in the same transaction that fills it.
        Ok(names.filter(|n| n.chains.contains(base::LAYOUT_CHAIN)))
    }

    /// The commands that bring the fixed part of the table to what the configuration asks for.
    fn base(&self, t: &mut Transaction, fresh: bool) {
        if fresh {
            // Adding first makes the deletion work whether or not there is a table.
            writeln!(
                t.text,
                "add table {TABLE}\ndelete table {TABLE}\nadd table {TABLE}"
            )
            .expect("writing to a String does not fail");
        }
        for holder in Holder::ALL {
            t.push(
                "add",
                holder.kind(),
                &format!("{} {{ {} }}", holder.name(), holder.declaration()),
            );
        }
        t.push(
            "add",
            "set",
            &format!(
                "{} {{ {} }}",
                base::LOCAL_VIPS,
                base::LOCAL_VIPS_DECLARATION
            ),
        );
        t.push("flush", "set", base::LOCAL_VIPS);
        for vip in &self.config.local_vips {
            t.push(
                "add",
                "element",
                &format!("{} {{ {} }}", base::LOCAL_VIPS, render::vip_key(vip)),
            );
        }
        let chains = base::chains(&self.config);
        for chain in &chains {
            t.push("add", "chain", &chain.declaration());
            t.push("flush", "chain", chain.name);
        }
        for chain in &chains {
            t.chain(chain.name, &chain.rules);
        }
    }
}

#[async_trait]
impl Backend for Nftables {
    fn name(&self) -> &'static str {
        "nftables"
    }

    async fn prepare(&mut self) -> Result<(), BackendError> {
        let mut t = Transaction::default();
        let there = self.is_intact().await?;
        self.base(&mut t, !there);
        self.run("put the service proxy's base rules in place", &t)
            .await
    }

    async fn replace(&mut self, plan: &Plan) -> Result<(), BackendError> {
        let existing = self.existing().await?.unwrap_or_default();
        let mut t = Transaction::default();
        let fixed = base::names(&self.config);
        // Making the table anew is quicker than emptying chain after chain. But then clients lose their endpoints.
        let fresh = existing.sets.iter().all(|n| fixed.contains(n.as_str()));
        let existing = if fresh {
            kontiki_host::TableNames::default()
        } else {
            existing
        };
        self.base(&mut t, fresh);
        self.ports.clear();
        self.claims.clear();
        let everything = Changes {
            set: plan.iter().map(|(k, p)| (k.clone(), p.clone())).collect(),
            removed: Vec::new(),
        };
        let added = self.transaction(&everything).text;
        let kept: BTreeSet<&str> = self.ports.values().flat_map(Rendered::names).collect();
        // Maps are emptied first: their elements hold the chains.
        for holder in Holder::ALL {
            t.push("flush", holder.kind(), holder.name());
        }
        let old_chains = || {
            existing
                .chains
                .iter()
                .map(String::as_str)
                .filter(|n| !fixed.contains(n))
        };
        for name in old_chains() {
            t.push("flush", "chain", name);
        }
        t.text.push_str(&added);
        for name in old_chains().filter(|n| !kept.contains(n)) {
            t.push("delete", "chain", name);
        }
        // The sets that are wanted still keep what they hold: which client stays with which endpoint.
        for name in existing
            .sets
            .iter()
            .map(String::as_str)
            .filter(|n| !fixed.contains(n) && !kept.contains(n))
        {
            t.push("delete", "set", name);
        }
        self.run("program all services", &t).await
    }

    async fn change(&mut self, changes: &Changes) -> Result<(), BackendError> {
        let t = self.transaction(changes);
        if t.text.is_empty() {
            return Ok(());
        }
        self.run("program the changed services", &t).await
    }

    async fn is_intact(&mut self) -> Result<bool, BackendError> {
        let failed = |source| BackendError::Nft {
            action: "read the table of the service proxy",
            source,
        };
        self.nft
            .has_chain(FAMILY, NAME, base::LAYOUT_CHAIN)
            .await
            .map_err(failed)
    }
}

/// Removes the table, and with it every rule of the service proxy.
///
/// # Errors
/// The packet filter refused.
pub async fn cleanup(nft: &dyn Nft) -> Result<(), BackendError> {
    let commands = format!("add table {TABLE}\ndelete table {TABLE}\n");
    let failed = |source| BackendError::Nft {
        action: "remove the table of the service proxy",
        source,
    };
    nft.run(&commands).await.map_err(failed)
}

/// `10.96.0.1 . tcp . 443`
fn address_key(ip: Ipv4Addr, protocol: &str, port: u16) -> String {
    format!("{ip} . {protocol} . {port}")
}

#[cfg(test)]
mod tests;
