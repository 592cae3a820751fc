//! Those who watch a resource, found by the object's place, node or namespace instead of being asked one by one.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::event::{Delivery, Event};
use super::filter::{Filter, Scope};
use crate::keys;

struct Watcher {
    id: u64,
    filter: Filter,
    queue: mpsc::Sender<Delivery>,
}

/// The watchers of one resource.
#[derive(Default)]
pub(super) struct Watchers {
    next_id: u64,
    scopes: HashMap<u64, Scope>,
    all: Vec<Watcher>,
    by_namespace: HashMap<Box<str>, Vec<Watcher>>,
    by_place: HashMap<Box<str>, Vec<Watcher>>,
    by_node: HashMap<Box<str>, Vec<Watcher>>,
}

impl Watchers {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.scopes.len()
    }

    pub(super) fn add(&mut self, filter: Filter, queue: mpsc::Sender<Delivery>) -> u64 {
        self.next_id += 1;
        let id = self.next_id;
        let scope = filter.scope();
        let watcher = Watcher { id, filter, queue };
        match &scope {
            Scope::All => self.all.push(watcher),
            Scope::Namespace(k) => self
                .by_namespace
                .entry(k.clone())
                .or_default()
                .push(watcher),
            Scope::Place(k) => self.by_place.entry(k.clone()).or_default().push(watcher),
            Scope::Node(k) => self.by_node.entry(k.clone()).or_default().push(watcher),
        }
        self.scopes.insert(id, scope);
        id
    }

    pub(super) fn remove(&mut self, id: u64) {
        let drop_from = |map: &mut HashMap<Box<str>, Vec<Watcher>>, key: Box<str>| {
            if let Some(list) = map.get_mut(&key) {
                list.retain(|w| w.id != id);
                if list.is_empty() {
                    map.remove(&key);
                }
            }
        };
        match self.scopes.remove(&id) {
            Some(Scope::All) => self.all.retain(|w| w.id != id),
            Some(Scope::Namespace(k)) => drop_from(&mut self.by_namespace, k),
            Some(Scope::Place(k)) => drop_from(&mut self.by_place, k),
            Some(Scope::Node(k)) => drop_from(&mut self.by_node, k),
            None => {}
        }
    }

    /// Hands the change to those whom it concerns.
    pub(super) fn dispatch(&mut self, event: &Arc<Event>) {
        let Some(about) = event.new.as_ref().or(event.old.as_ref()) else {
            return;
        };
        offer(&mut self.all, event);
        if let Some(list) = self.by_namespace.get_mut(&about.namespace) {
            offer(list, event);
        }
        if !self.by_place.is_empty()
            && let Some(list) = self
                .by_place
                .get_mut(keys::place(&about.namespace, &about.name).as_str())
        {
            offer(list, event);
        }
        if !self.by_node.is_empty() {
            let node = |e: &Option<Arc<super::Entry>>| {
                e.as_ref()
                    .and_then(|e| e.field("spec.nodeName"))
                    .map(str::to_owned)
            };
            let (new, old) = (node(&event.new), node(&event.old));
            for name in new
                .iter()
                .chain(old.iter().filter(|o| Some(*o) != new.as_ref()))
            {
                if let Some(list) = self.by_node.get_mut(name.as_str()) {
                    offer(list, event);
                }
            }
        }
    }
}

/// A watcher whose queue is full is let go: its stream ends, and its client begins anew where it was.
fn offer(list: &mut Vec<Watcher>, event: &Arc<Event>) {
    list.retain(|w| {
        let Some(delivery) = w.filter.delivery(event) else {
            return true;
        };
        match w.queue.try_send(delivery) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                tracing::debug!(watcher = w.id, "a watcher fell behind and is ended");
                false
            }
            Err(TrySendError::Closed(_)) => false,
        }
    });
}
