//! Who owns whom: the graph of owner references, and what it means for an object.

use std::collections::{BTreeSet, HashMap, HashSet};

use kontiki_api::{OwnerReference, Resource, catalogue};

/// The finalizer of an owner that waits for its dependents.
pub const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an owner whose dependents are to stay.
pub const ORPHAN: &str = "orphan";

/// What is known of an object.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its resource.
    pub resource: &'static Resource,
    /// Its namespace, or empty.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its resourceVersion.
    pub resource_version: String,
    /// Its owners.
    pub owners: Vec<OwnerReference>,
    /// Its finalizers.
    pub finalizers: Vec<String>,
    /// Whether its deletion was asked for.
    pub deleting: bool,
}

impl Item {
    fn waits_for_dependents(&self) -> bool {
        self.deleting && self.finalizers.iter().any(|f| f == FOREGROUND)
    }

    fn orphans_dependents(&self) -> bool {
        self.deleting && self.finalizers.iter().any(|f| f == ORPHAN)
    }

    fn blocks(&self, owner_uid: &str) -> bool {
        self.owners
            .iter()
            .any(|o| o.uid == owner_uid && o.block_owner_deletion == Some(true))
    }
}

/// What to do about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Ask the API whether these owners exist, and plan again.
    Verify(Vec<OwnerReference>),
    /// Delete it, with this propagation policy.
    Delete(&'static str),
    /// Take out of its references the owners with these uids.
    Disown(BTreeSet<String>),
    /// Look at its dependents (uids): they go before it.
    Visit(Vec<String>),
    /// Take its reference out of its dependents (uids), and then the finalizer off it.
    OrphanDependents(Vec<String>),
    /// Take this finalizer off it.
    RemoveFinalizer(&'static str),
}

/// The graph.
#[derive(Debug, Default)]
pub struct Graph {
    items: HashMap<String, Item>,
    dependents: HashMap<String, BTreeSet<String>>,
}

/// How an owner stands to a dependent.
enum Standing {
    Solid,
    Absent,
    Waiting,
    Unknown,
}

impl Graph {
    /// Takes in an object as it is now. Returns the uids of those to look at.
    pub fn set(&mut self, item: Item) -> Vec<String> {
        let uid = item.uid.clone();
        let before = self
            .items
            .get(&uid)
            .map(|i| i.owners.clone())
            .unwrap_or_default();
        for o in &before {
            self.unlink(&o.uid, &uid);
        }
        for o in &item.owners {
            self.dependents
                .entry(o.uid.clone())
                .or_default()
                .insert(uid.clone());
        }
        let mut look = Vec::new();
        let unsettled = |o: &OwnerReference| {
            self.items
                .get(&o.uid)
                .is_none_or(Item::waits_for_dependents)
        };
        if item.deleting || item.owners.iter().any(unsettled) {
            look.push(uid.clone());
        }
        // An owner that waited for this object may not have to any more.
        for o in before.iter().filter(|o| !item.blocks(&o.uid)) {
            look.extend(
                self.items
                    .get(&o.uid)
                    .filter(|i| i.waits_for_dependents())
                    .map(|i| i.uid.clone()),
            );
        }
        self.items.insert(uid, item);
        look
    }

    /// Forgets an object that is gone. Returns the uids of those to look at: its dependents, and owners that waited for it.
    pub fn remove(&mut self, uid: &str) -> Vec<String> {
        let Some(item) = self.items.remove(uid) else {
            return Vec::new();
        };
        let mut look: Vec<String> = self
            .dependents
            .get(uid)
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        for o in &item.owners {
            self.unlink(&o.uid, uid);
            look.extend(
                self.items
                    .get(&o.uid)
                    .filter(|i| i.waits_for_dependents())
                    .map(|i| i.uid.clone()),
            );
        }
        look
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(list) = self.dependents.get_mut(owner) {
            list.remove(dependent);
            if list.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }

    /// The object with this uid.
    pub fn item(&self, uid: &str) -> Option<&Item> {
        self.items.get(uid)
    }

    fn dependents_of(&self, uid: &str) -> impl Iterator<Item = &Item> {
        self.dependents
            .get(uid)
            .into_iter()
            .flatten()
            .filter_map(|d| self.items.get(d))
    }

    fn standing(
        &self,
        item: &Item,
        owner: &OwnerReference,
        solid: &HashSet<String>,
        absent: &HashSet<String>,
    ) -> Standing {
        let Some(resource) = catalogue::by_api_version(&owner.api_version, &owner.kind) else {
            // Of a kind that we do not know nobody can say that it is gone.
            return Standing::Solid;
        };
        if resource.namespaced && item.namespace.is_empty() {
            // An object of the whole cluster cannot be owned by one of a namespace; it is not deleted for that.
            return Standing::Solid;
        }
        match self.items.get(&owner.uid) {
            Some(o) if !o.namespace.is_empty() && o.namespace != item.namespace => {}
            Some(o) if o.waits_for_dependents() => return Standing::Waiting,
            Some(_) => return Standing::Solid,
            None => {}
        }
        if absent.contains(&owner.uid) {
            Standing::Absent
        } else if solid.contains(&owner.uid) {
            Standing::Solid
        } else {
            Standing::Unknown
        }
    }

    /// What to do about an object; `solid` and `absent` are uids of owners that the API was asked about.
    pub fn plan(
        &self,
        uid: &str,
        solid: &HashSet<String>,
        absent: &HashSet<String>,
    ) -> Option<Command> {
        let item = self.items.get(uid)?;
        if item.orphans_dependents() {
            let dependents = self.dependents_of(uid).map(|d| d.uid.clone()).collect();
            return Some(Command::OrphanDependents(dependents));
        }
        if item.waits_for_dependents() {
            let blocking: Vec<&Item> = self.dependents_of(uid).filter(|d| d.blocks(uid)).collect();
            if blocking.is_empty() {
                return Some(Command::RemoveFinalizer(FOREGROUND));
            }
            let left = self
                .dependents_of(uid)
                .filter(|d| !d.deleting)
                .map(|d| d.uid.clone())
                .collect::<Vec<_>>();
            return (!left.is_empty()).then_some(Command::Visit(left));
        }
        if item.deleting || item.owners.is_empty() {
            return None;
        }
        let (mut any_solid, mut waiting, mut gone, mut unknown) =
            (false, BTreeSet::new(), BTreeSet::new(), Vec::new());
        for o in &item.owners {
            match self.standing(item, o, solid, absent) {
                Standing::Solid => any_solid = true,
                Standing::Absent => drop(gone.insert(o.uid.clone())),
                Standing::Waiting => drop(waiting.insert(o.uid.clone())),
                Standing::Unknown => unknown.push(o.clone()),
            }
        }
        if !unknown.is_empty() {
            return Some(Command::Verify(unknown));
        }
        if any_solid {
            gone.append(&mut waiting);
            return (!gone.is_empty()).then_some(Command::Disown(gone));
        }
        let has_dependents = self.dependents_of(uid).next().is_some();
        let has = |f: &str| item.finalizers.iter().any(|x| x == f);
        Some(Command::Delete(
            if !waiting.is_empty() && has_dependents || has(FOREGROUND) {
                "Foreground"
            } else if has(ORPHAN) {
                "Orphan"
            } else {
                "Background"
            },
        ))
    }
}

#[cfg(test)]
mod tests {
    use kontiki_api::catalogue::known;

    use super::*;

    fn owner(kind: &str, uid: &str) -> OwnerReference {
        OwnerReference {
            api_version: "apps/v1".into(),
            kind: kind.into(),
            name: uid.into(),
            uid: uid.into(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }

    fn item(uid: &str, owners: &[&str]) -> Item {
        Item {
            resource: known::pods(),
            namespace: "ns".into(),
            name: uid.into(),
            uid: uid.into(),
            resource_version: "1".into(),
            owners: owners.iter().map(|o| owner("ReplicaSet", o)).collect(),
            finalizers: Vec::new(),
            deleting: false,
        }
    }

    fn deleting(mut i: Item, finalizer: &str) -> Item {
        i.deleting = true;
        i.finalizers = vec![finalizer.into()];
        i
    }

    fn set(uids: &[&str]) -> HashSet<String> {
        uids.iter().map(|u| (*u).to_owned()).collect()
    }

    #[test]
    fn an_object_goes_when_its_last_owner_is_gone() {
        let mut g = Graph::default();
        g.set(item("rs", &[]));
        assert!(g.set(item("p", &["rs"])).is_empty(), "its owner is there");
        assert_eq!(g.plan("p", &set(&[]), &set(&[])), None);
        assert_eq!(g.remove("rs"), ["p"]);
        assert!(
            matches!(g.plan("p", &set(&[]), &set(&[])), Some(Command::Verify(v)) if v[0].uid == "rs")
        );
        assert_eq!(
            g.plan("p", &set(&[]), &set(&["rs"])),
            Some(Command::Delete("Background"))
        );
        assert_eq!(
            g.plan("p", &set(&["rs"]), &set(&[])),
            None,
            "the cache was behind"
        );
    }

    #[test]
    fn an_object_with_another_owner_only_loses_the_reference() {
        let mut g = Graph::default();
        g.set(item("a", &[]));
        assert_eq!(g.set(item("p", &["a", "b"])), ["p"]);
        assert_eq!(
            g.plan("p", &set(&[]), &set(&["b"])),
            Some(Command::Disown(["b".to_owned()].into()))
        );
    }

    #[test]
    fn a_foreground_deletion_waits_for_those_that_block() {
        let mut g = Graph::default();
        g.set(item("rs", &[]));
        g.set(item("p", &["rs"]));
        assert_eq!(g.set(deleting(item("rs", &[]), FOREGROUND)), ["rs"]);
        assert_eq!(
            g.plan("rs", &set(&[]), &set(&[])),
            Some(Command::Visit(vec!["p".into()]))
        );
        assert_eq!(
            g.plan("p", &set(&[]), &set(&[])),
            Some(Command::Delete("Background"))
        );
        g.set(item("child", &["p"]));
        assert_eq!(
            g.plan("p", &set(&[]), &set(&[])),
            Some(Command::Delete("Foreground")),
            "it has dependents itself"
        );
        assert_eq!(g.remove("p"), ["child", "rs"]);
        assert_eq!(
            g.plan("rs", &set(&[]), &set(&[])),
            Some(Command::RemoveFinalizer(FOREGROUND))
        );
    }

    #[test]
    fn orphans_stay() {
        let mut g = Graph::default();
        g.set(item("p", &["rs"]));
        g.set(deleting(item("rs", &[]), ORPHAN));
        assert_eq!(
            g.plan("rs", &set(&[]), &set(&[])),
            Some(Command::OrphanDependents(vec!["p".into()]))
        );
    }

    #[test]
    fn what_cannot_be_known_is_not_deleted() {
        let mut g = Graph::default();
        let mut custom = item("p", &["x"]);
        custom.owners[0].api_version = "example.com/v1".into();
        g.set(custom);
        assert_eq!(g.plan("p", &set(&[]), &set(&["x"])), None);
        let mut wide = item("n", &["rs"]);
        wide.namespace.clear();
        g.set(wide);
        assert_eq!(g.plan("n", &set(&[]), &set(&["rs"])), None);
        let mut foreign = item("rs", &[]);
        foreign.namespace = "other".into();
        g.set(foreign);
        g.set(item("q", &["rs"]));
        assert!(
            matches!(g.plan("q", &set(&[]), &set(&[])), Some(Command::Verify(_))),
            "an owner of another namespace is none"
        );
    }
}
