//! The graph of owners and dependents, by uid.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use kontiki_api::Resource;
use kontiki_reconcile::Event;

use super::plan::{FOREGROUND, ORPHAN, OwnerState};
use crate::views::Meta;

/// An object of the graph.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// Its resource.
    pub(super) resource: &'static Resource,
    /// Its metadata.
    pub(super) meta: Arc<Meta>,
}

impl Item {
    /// Whether deletion was asked for and waits for this finalizer.
    pub(super) fn waits_for(&self, finalizer: &str) -> bool {
        let m = &self.meta.metadata;
        m.is_deleting() && m.finalizers.iter().any(|f| f == finalizer)
    }
}

/// All objects that take part, and who depends on whom.
#[derive(Debug, Default)]
pub(super) struct Graph {
    items: HashMap<String, Item>,
    /// Dependents by the uid of their owner, whether or not the owner is there.
    dependents: HashMap<String, BTreeSet<String>>,
}

impl Graph {
    /// Takes a change over. Returns the uids to look at for it.
    pub(super) fn observe(
        &mut self,
        resource: &'static Resource,
        event: &Event<Meta>,
    ) -> Vec<String> {
        match event {
            Event::Added(new) => self.insert(resource, new),
            Event::Updated { old, new } => {
                let mut wake = Vec::new();
                // The same name with another uid is another object.
                if old.metadata.uid != new.metadata.uid {
                    wake = self.remove(old);
                } else {
                    self.unlink(old);
                }
                wake.extend(self.insert(resource, new));
                wake
            }
            Event::Deleted(old) => self.remove(old),
        }
    }

    fn insert(&mut self, resource: &'static Resource, new: &Arc<Meta>) -> Vec<String> {
        let m = &new.metadata;
        for owner in &m.owner_references {
            self.dependents
                .entry(owner.uid.clone())
                .or_default()
                .insert(m.uid.clone());
        }
        let item = Item {
            resource,
            meta: new.clone(),
        };
        let mut wake = Vec::new();
        let has_unsure_owner = m.owner_references.iter().any(|o| {
            // An owner that is there and stays asks for nothing.
            self.items
                .get(&o.uid)
                .is_none_or(|i| i.waits_for(FOREGROUND))
        });
        if has_unsure_owner || item.waits_for(FOREGROUND) || item.waits_for(ORPHAN) {
            wake.push(m.uid.clone());
        }
        // A dependent that no longer blocks lets its owners go on.
        wake.extend(self.waiting_owners(new));
        self.items.insert(m.uid.clone(), item);
        wake
    }

    fn remove(&mut self, old: &Arc<Meta>) -> Vec<String> {
        self.unlink(old);
        self.items.remove(&old.metadata.uid);
        let mut wake: Vec<String> = self
            .dependents
            .get(&old.metadata.uid)
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        wake.extend(self.waiting_owners(old));
        wake
    }

    fn unlink(&mut self, old: &Meta) {
        for owner in &old.metadata.owner_references {
            if let Some(d) = self.dependents.get_mut(&owner.uid) {
                d.remove(&old.metadata.uid);
                if d.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
    }

    fn waiting_owners(&self, meta: &Meta) -> Vec<String> {
        let owners = meta.metadata.owner_references.iter();
        owners
            .filter(|o| {
                self.items
                    .get(&o.uid)
                    .is_some_and(|i| i.waits_for(FOREGROUND))
            })
            .map(|o| o.uid.clone())
            .collect()
    }

    /// An object with its dependents.
    pub(super) fn item(&self, uid: &str) -> Option<(Item, Vec<Item>)> {
        let item = self.items.get(uid)?.clone();
        let dependents = self.dependents.get(uid).into_iter().flatten();
        Some((
            item,
            dependents
                .filter_map(|d| self.items.get(d).cloned())
                .collect(),
        ))
    }

    /// What the graph knows of an owner; `None` if it is not in it.
    pub(super) fn owner_state(&self, uid: &str) -> Option<OwnerState> {
        let item = self.items.get(uid)?;
        Some(if item.waits_for(FOREGROUND) {
            OwnerState::WaitsForDependents
        } else {
            OwnerState::Solid
        })
    }
}
