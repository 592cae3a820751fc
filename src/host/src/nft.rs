//! nftables: transactions in nft's own language, and what a table holds.
//!
//! The language rather than its JSON form, because a person who looks at a log, a test or a bug report reads it at once, and
//! because nft 1.0 takes some statements (a dnat by a map of address and port) in that form only.

use std::collections::BTreeSet;

use async_trait::async_trait;
use serde::Deserialize;

use crate::command::{CommandError, Program};

mod fake;

pub use fake::{FakeNft, FakeTable};

const NFT: Program = Program {
    name: "nft",
    package: "nftables",
};

/// A transaction that failed; nothing of it was done.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The program is missing or failed.
    #[error("the packet filter was not changed")]
    Command(#[from] CommandError),
    /// The program's answer cannot be read.
    #[error("the answer of nft cannot be read")]
    Answer(#[from] serde_json::Error),
}

/// The names of what a table holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableNames {
    /// Its chains.
    pub chains: BTreeSet<String>,
    /// Its maps.
    pub maps: BTreeSet<String>,
    /// Its sets.
    pub sets: BTreeSet<String>,
}

/// The machine's packet filter.
#[async_trait]
pub trait Nft: Send + Sync + 'static {
    /// Carries out all of these commands or none; packets see the state before or the state after.
    async fn run(&self, commands: &str) -> Result<(), NftError>;

    /// What this table holds; `None` if there is no such table. The family is `ip`, `ip6`, `inet`, `arp` or `bridge`.
    async fn names(&self, family: &str, table: &str) -> Result<Option<TableNames>, NftError>;

    /// Whether this chain is there. Cheap, whatever else the table holds.
    async fn has_chain(&self, family: &str, table: &str, chain: &str) -> Result<bool, NftError>;
}

/// The kernel's packet filter, through the `nft` program.
#[derive(Clone, Copy, Debug)]
pub struct NftProgram;

#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Item>,
}

/// One item of a listing; the kinds that are not asked for are skipped.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Item {
    chain: Option<Named>,
    map: Option<Named>,
    set: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    table: String,
    name: String,
}

fn not_found(e: &CommandError) -> bool {
    matches!(e, CommandError::Failed { stderr, .. } if stderr.contains("No such file or directory"))
}

#[async_trait]
impl Nft for NftProgram {
    async fn run(&self, commands: &str) -> Result<(), NftError> {
        NFT.run(&["-f", "-"], commands.as_bytes()).await?;
        Ok(())
    }

    async fn names(&self, family: &str, table: &str) -> Result<Option<TableNames>, NftError> {
        // `-t` leaves out the elements of maps and sets.
        match NFT
            .run(&["-j", "-t", "list", "table", family, table], b"")
            .await
        {
            Ok(json) => parse_names(&json).map(Some),
            Err(e) if not_found(&e) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    async fn has_chain(&self, family: &str, table: &str, chain: &str) -> Result<bool, NftError> {
        // Asked for one chain, nft reads much of its table as well; for the list of all of them, it reads nothing else.
        let json = NFT.run(&["-j", "list", "chains", family], b"").await?;
        let listing: Listing = serde_json::from_slice(&json)?;
        let mut chains = listing.nftables.into_iter().filter_map(|i| i.chain);
        Ok(chains.any(|c| c.table == table && c.name == chain))
    }
}

fn parse_names(json: &[u8]) -> Result<TableNames, NftError> {
    let listing: Listing = serde_json::from_slice(json)?;
    let mut names = TableNames::default();
    for item in listing.nftables {
        names.chains.extend(item.chain.map(|n| n.name));
        names.maps.extend(item.map.map(|n| n.name));
        names.sets.extend(item.set.map(|n| n.name));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_the_rest_is_skipped() {
        let json = br#"{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"table": {"family": "ip", "name": "t"}},
            {"map": {"name": "m", "type": ["ipv4_addr"], "map": "verdict"}}, {"set": {"name": "s", "type": "ipv4_addr"}},
            {"chain": {"name": "c", "hook": "output"}}, {"rule": {"chain": "c", "expr": [{"jump": {"target": "d"}}]}}]}"#;
        let n = parse_names(json).expect("valid");
        assert_eq!(n.chains, ["c".to_owned()].into());
        assert_eq!(
            (n.maps, n.sets),
            (["m".to_owned()].into(), ["s".to_owned()].into())
        );
    }
}
