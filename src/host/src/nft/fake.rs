//! A packet filter that is only data. It understands the commands that we use, one a line, and refuses what the kernel
//! refuses: what is missing, what is there already, and the removal of what is still referred to.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{Nft, NftError, TableNames};
use crate::command::CommandError;

/// One table: chains with their rules, maps with their values, sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FakeTable {
    /// For each chain its rules, in order.
    pub chains: BTreeMap<String, Vec<String>>,
    /// For each map its elements.
    pub maps: BTreeMap<String, BTreeMap<String, String>>,
    /// For each set its elements.
    pub sets: BTreeMap<String, BTreeSet<String>>,
    /// What stands in the braces at the declaration of each chain, map and set that has any.
    pub declarations: BTreeMap<String, String>,
}

/// Tables by `family name`.
type Tables = BTreeMap<String, FakeTable>;

/// A packet filter that is only data.
#[derive(Debug, Default)]
pub struct FakeNft {
    tables: Mutex<Tables>,
    failures: Mutex<u32>,
    transactions: Mutex<Vec<String>>,
}

impl FakeNft {
    /// The table, if it is there.
    pub fn table(&self, family: &str, name: &str) -> Option<FakeTable> {
        self.tables.lock().get(&format!("{family} {name}")).cloned()
    }

    /// The text of every transaction that was carried out.
    pub fn transactions(&self) -> Vec<String> {
        self.transactions.lock().clone()
    }

    /// The next transactions fail.
    pub fn fail_next(&self, count: u32) {
        *self.failures.lock() = count;
    }
}

fn refused(stderr: String) -> NftError {
    NftError::Command(CommandError::Failed {
        program: "nft",
        stderr,
    })
}

/// The words after each `goto`, `jump` and `@`: what the text refers to.
fn references(text: &str) -> impl Iterator<Item = &str> {
    let words: Vec<&str> = text
        .split([' ', ',', ';', '{', '}'])
        .filter(|w| !w.is_empty())
        .collect();
    let jumps: Vec<&str> = words
        .windows(2)
        .filter(|w| matches!(w[0], "goto" | "jump"))
        .map(|w| w[1])
        .collect();
    let sets: Vec<&str> = words.iter().filter_map(|w| w.strip_prefix('@')).collect();
    jumps.into_iter().chain(sets)
}

impl FakeTable {
    fn has(&self, name: &str) -> bool {
        self.chains.contains_key(name)
            || self.maps.contains_key(name)
            || self.sets.contains_key(name)
    }

    fn is_referred_to(&self, name: &str) -> bool {
        let rules = self.chains.values().flatten();
        let values = self.maps.values().flat_map(BTreeMap::values);
        rules
            .chain(values)
            .any(|text| references(text).any(|r| r == name))
    }

    fn check_references(&self, text: &str) -> Result<(), String> {
        match references(text).find(|r| !self.has(r)) {
            Some(missing) => Err(format!("{missing}: No such file or directory")),
            None => Ok(()),
        }
    }

    fn declare(&mut self, kind: &str, name: &str, rest: &str) -> Result<(), String> {
        if !rest.is_empty() {
            let old = self.declarations.insert(name.to_owned(), rest.to_owned());
            if old.is_some_and(|old| old != rest) {
                return Err(format!("{name}: File exists"));
            }
        }
        match kind {
            "chain" => drop(self.chains.entry(name.to_owned()).or_default()),
            "map" => drop(self.maps.entry(name.to_owned()).or_default()),
            "set" => drop(self.sets.entry(name.to_owned()).or_default()),
            _ => return Err(format!("syntax error at {kind}")),
        }
        Ok(())
    }

    fn flush(&mut self, kind: &str, name: &str) -> Result<(), String> {
        let found = match kind {
            "chain" => self.chains.get_mut(name).map(Vec::clear),
            "map" => self.maps.get_mut(name).map(BTreeMap::clear),
            "set" => self.sets.get_mut(name).map(BTreeSet::clear),
            _ => None,
        };
        found.ok_or_else(|| format!("flush {kind} {name}: No such file or directory"))
    }

    fn delete(&mut self, kind: &str, name: &str) -> Result<(), String> {
        if self.is_referred_to(name) {
            return Err(format!("delete {kind} {name}: Device or resource busy"));
        }
        let found = match kind {
            "chain" => self.chains.remove(name).is_some(),
            "map" => self.maps.remove(name).is_some(),
            "set" => self.sets.remove(name).is_some(),
            _ => false,
        };
        self.declarations.remove(name);
        if found {
            Ok(())
        } else {
            Err(format!("delete {kind} {name}: No such file or directory"))
        }
    }

    fn elements(&mut self, add: bool, name: &str, rest: &str) -> Result<(), String> {
        let list = rest.trim().trim_start_matches('{').trim_end_matches('}');
        for element in list.split(',').map(str::trim).filter(|e| !e.is_empty()) {
            let (key, value) = element.split_once(" : ").unwrap_or((element, ""));
            self.check_references(value)?;
            let missing = || format!("{name} {key}: No such file or directory");
            if let Some(map) = self.maps.get_mut(name) {
                match (add, map.get(key)) {
                    (true, Some(old)) if old != value => {
                        return Err(format!("{name} {key}: File exists"));
                    }
                    (true, _) => drop(map.insert(key.to_owned(), value.to_owned())),
                    (false, Some(_)) => drop(map.remove(key)),
                    (false, None) => return Err(missing()),
                }
            } else {
                let set = self
                    .sets
                    .get_mut(name)
                    .ok_or_else(|| format!("{name}: No such file or directory"))?;
                if add {
                    set.insert(key.to_owned());
                } else if !set.remove(key) {
                    return Err(missing());
                }
            }
        }
        Ok(())
    }
}

fn carry_out(tables: &mut Tables, line: &str) -> Result<(), String> {
    let mut words = line.splitn(6, ' ');
    let mut word = || words.next().unwrap_or_default();
    let (verb, what, family, table) = (word(), word(), word(), word());
    let (name, rest) = (word(), word());
    let key = format!("{family} {table}");
    if what == "table" {
        match verb {
            "add" => drop(tables.entry(key).or_default()),
            "delete" if tables.remove(&key).is_some() => {}
            "delete" => return Err(format!("table {key}: No such file or directory")),
            _ => return Err(format!("syntax error: {line}")),
        }
        return Ok(());
    }
    let t = tables
        .get_mut(&key)
        .ok_or_else(|| format!("table {key}: No such file or directory"))?;
    match (verb, what) {
        ("add", "rule") => {
            t.check_references(rest)?;
            let chain = t
                .chains
                .get_mut(name)
                .ok_or_else(|| format!("chain {name}: No such file or directory"))?;
            chain.push(rest.to_owned());
            Ok(())
        }
        ("add" | "delete", "element") => t.elements(verb == "add", name, rest),
        ("add", _) => t.declare(what, name, rest),
        ("flush", _) => t.flush(what, name),
        ("delete", _) => t.delete(what, name),
        _ => Err(format!("syntax error: {line}")),
    }
}

#[async_trait]
impl Nft for FakeNft {
    async fn run(&self, commands: &str) -> Result<(), NftError> {
        {
            let mut failures = self.failures.lock();
            if *failures > 0 {
                *failures -= 1;
                return Err(refused("on purpose".into()));
            }
        }
        let mut tables = self.tables.lock();
        let mut next = tables.clone();
        for line in commands.lines().map(str::trim).filter(|l| !l.is_empty()) {
            carry_out(&mut next, line).map_err(refused)?;
        }
        *tables = next;
        self.transactions.lock().push(commands.to_owned());
        Ok(())
    }

    async fn names(&self, family: &str, table: &str) -> Result<Option<TableNames>, NftError> {
        Ok(self.table(family, table).map(|t| TableNames {
            chains: t.chains.into_keys().collect(),
            maps: t.maps.into_keys().collect(),
            sets: t.sets.into_keys().collect(),
        }))
    }

    async fn has_chain(&self, family: &str, table: &str, chain: &str) -> Result<bool, NftError> {
        Ok(self
            .table(family, table)
            .is_some_and(|t| t.chains.contains_key(chain)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_transaction_is_done_whole_or_not_at_all() {
        let nft = FakeNft::default();
        nft.run("add table ip t\nadd chain ip t a\nadd chain ip t b\nadd rule ip t a jump b\n")
            .await
            .expect("valid");
        let before = nft.table("ip", "t");
        nft.run("add chain ip t c\ndelete chain ip t b\n")
            .await
            .expect_err("b is referred to");
        nft.run("add rule ip t a jump nowhere\n")
            .await
            .expect_err("no such chain");
        assert_eq!(nft.table("ip", "t"), before);
        nft.run("flush chain ip t a\ndelete chain ip t b\n")
            .await
            .expect("b is free now");
        assert!(!nft.has_chain("ip", "t", "b").await.expect("works"));
    }

    #[tokio::test]
    async fn elements_come_and_go() {
        let nft = FakeNft::default();
        nft.run("add table ip t\nadd chain ip t c\nadd map ip t m { type x : verdict; }\nadd element ip t m { 1 . 2 : goto c, 3 : drop }")
            .await
            .expect("valid");
        nft.run("add element ip t m { 3 : goto c }")
            .await
            .expect_err("it has another value");
        nft.run("delete element ip t m { 4 }")
            .await
            .expect_err("there is none");
        nft.run("delete element ip t m { 1 . 2 }\ndelete chain ip t c")
            .await
            .expect("valid");
        assert_eq!(
            nft.table("ip", "t").expect("there").maps["m"],
            [("3".to_owned(), "drop".to_owned())].into()
        );
    }
}
