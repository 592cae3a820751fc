//! The objects of one resource as they are now, with their recent changes and those who watch them.
//!
//! The store's observer feeds it in the thread that applies writes, before the writer gets his answer: what a client
//! wrote, he reads. Readers take a snapshot (a vector of shared entries) under a short read lock. A change is turned into
//! bytes once; all watchers share them, and a watcher that cannot be interested is not looked at (see [`watchers`]).

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use kontiki_api::ApiError;
use kontiki_raft::{Change, KeyValue};
use parking_lot::RwLock;
use tokio::sync::mpsc;

mod entry;
mod event;
mod feed;
mod filter;
mod watchers;

pub(crate) use entry::Entry;
pub(crate) use event::{Delivery, Event, EventKind};
pub(crate) use feed::Feed;
pub(crate) use filter::Filter;
use watchers::Watchers;

use crate::keys;
use crate::strategy::Strategy;

/// Changes that are kept for watches that begin in the past; older ones are answered with 410.
pub(crate) const RING_EVENTS_MAX: usize = 4096;
/// Bytes of objects that the kept changes may hold; beyond it the oldest go first.
pub(crate) const RING_BYTES_MAX: usize = 16 << 20;
/// Changes that wait for one watcher; a watcher that falls behind further is ended, and begins anew.
pub(crate) const WATCHER_QUEUE_EVENTS_MAX: usize = 1024;

/// A snapshot of a resource.
pub(crate) struct Snapshot {
    /// The objects in key order.
    pub(crate) entries: Vec<Arc<Entry>>,
    /// The newest revision that changed the resource.
    pub(crate) revision: u64,
}

/// What a new watcher gets.
pub(crate) struct Subscription {
    /// What happened before it was registered, in order.
    pub(crate) backlog: Vec<Delivery>,
    /// What happens from then on; it ends when the watcher fell behind or the cache was closed.
    pub(crate) queue: mpsc::Receiver<Delivery>,
    /// The revision at which it was registered.
    pub(crate) revision: u64,
    /// Deregisters on drop.
    pub(crate) _guard: Guard,
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// With the objects as they are now.
    State,
    /// After this revision.
    After(u64),
}

/// The cache of one resource.
pub(crate) struct Cache {
    prefix: String,
    strategy: &'static dyn Strategy,
    inner: RwLock<Inner>,
}

struct Inner {
    entries: BTreeMap<Box<str>, Arc<Entry>>,
    revision: u64,
    ring: VecDeque<Arc<Event>>,
    ring_bytes: usize,
    /// Events of this revision and older are gone.
    ring_after: u64,
    watchers: Watchers,
}

impl Cache {
    pub(crate) fn new(prefix: String, strategy: &'static dyn Strategy) -> Cache {
        let inner = Inner {
            entries: BTreeMap::new(),
            revision: 0,
            ring: VecDeque::new(),
            ring_bytes: 0,
            ring_after: 0,
            watchers: Watchers::default(),
        };
        Cache {
            prefix,
            strategy,
            inner: RwLock::new(inner),
        }
    }

    /// The prefix of the resource's keys.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Makes the entry of a key-value of this resource; a value that cannot be read is logged and left out.
    fn entry(&self, place: &str, stored: &[u8], revision: u64) -> Option<Entry> {
        Entry::new(place, stored, revision, self.strategy)
            .map_err(|e| tracing::error!(prefix = self.prefix, place, error = %e, "an object in the store cannot be read"))
            .ok()
    }

    /// Takes over an object of the start state.
    fn load(&self, place: &str, kv: &KeyValue) {
        if let Some(e) = self.entry(place, &kv.value, kv.mod_revision.0) {
            let mut inner = self.inner.write();
            inner.revision = inner.revision.max(e.revision);
            inner.entries.insert(place.into(), Arc::new(e));
        }
    }

    /// Declares the start state complete: watches can begin at this revision.
    fn loaded(&self, revision: u64) {
        let mut inner = self.inner.write();
        inner.ring_after = revision;
    }

    /// The event of a change that the store remembers and this cache does not.
    pub(crate) fn replayed(&self, change: &Change) -> Option<Arc<Event>> {
        let (_, place) = keys::split(&change.key)?;
        let revision = change.revision.0;
        let old = change
            .previous
            .as_ref()
            .and_then(|kv| self.entry(place, &kv.value, kv.mod_revision.0))
            .map(Arc::new);
        let event = match &change.value {
            Some(stored) => {
                let kind = if old.is_some() {
                    EventKind::Modified
                } else {
                    EventKind::Added
                };
                Event::of_write(kind, place, stored, revision, old, self.strategy).ok()?
            }
            None => Event::of_deletion(old?, revision),
        };
        Some(Arc::new(event))
    }

    /// The revision after which this cache remembers all changes.
    pub(crate) fn remembers_after(&self) -> u64 {
        self.inner.read().ring_after
    }

    /// Takes over a change and hands it to its watchers.
    fn apply(&self, place: &str, change: &Change) {
        let revision = change.revision.0;
        let old = self.inner.read().entries.get(place).cloned();
        let event = match &change.value {
            Some(stored) => {
                let kind = if old.is_some() {
                    EventKind::Modified
                } else {
                    EventKind::Added
                };
                match Event::of_write(kind, place, stored, revision, old, self.strategy) {
                    Ok(e) => e,
                    Err(e) => {
                        tracing::error!(prefix = self.prefix, place, error = %e, "an object in the store cannot be read");
                        return;
                    }
                }
            }
            None => match old {
                Some(old) => Event::of_deletion(old, revision),
                None => return,
            },
        };
        let event = Arc::new(event);
        let mut inner = self.inner.write();
        match &event.new {
            Some(new) => drop(inner.entries.insert(place.into(), new.clone())),
            None => drop(inner.entries.remove(place)),
        }
        inner.revision = revision;
        inner.watchers.dispatch(&event);
        inner.remember(event);
    }

    /// The object at this place.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        let inner = self.inner.read();
        if namespace.is_empty() {
            inner.entries.get(name).cloned()
        } else {
            inner
                .entries
                .get(keys::place(namespace, name).as_str())
                .cloned()
        }
    }

    /// The objects that match, in key order.
    pub(crate) fn snapshot(&self, filter: &Filter) -> Snapshot {
        let inner = self.inner.read();
        Snapshot {
            entries: inner.matching(filter),
            revision: inner.revision,
        }
    }

    /// How many objects there are.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.inner.read().entries.len()
    }

    /// How many watchers there are.
    #[cfg(test)]
    fn watchers(&self) -> usize {
        self.inner.read().watchers.len()
    }

    /// Registers a watcher. `now` is the revision that the store is known to have shown to this cache.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        filter: Filter,
        start: Start,
        now: u64,
    ) -> Result<Subscription, ApiError> {
        let mut inner = self.inner.write();
        let revision = inner.revision.max(now);
        let backlog = match start {
            Start::State => inner
                .matching(&filter)
                .into_iter()
                .map(Delivery::of_state)
                .collect(),
            Start::After(after) if after < inner.ring_after => {
                let have = inner.ring_after;
                return Err(ApiError::expired(format!(
                    "too old resource version: {after} ({have})"
                )));
            }
            Start::After(after) => {
                let from = inner.ring.partition_point(|e| e.revision <= after);
                inner
                    .ring
                    .range(from..)
                    .filter_map(|e| filter.delivery(e))
                    .collect()
            }
        };
        let (sender, queue) = mpsc::channel(WATCHER_QUEUE_EVENTS_MAX);
        let id = inner.watchers.add(filter, sender);
        drop(inner);
        let guard = Guard {
            cache: self.clone(),
            id,
        };
        Ok(Subscription {
            backlog,
            queue,
            revision,
            _guard: guard,
        })
    }
}

impl Inner {
    fn matching(&self, filter: &Filter) -> Vec<Arc<Entry>> {
        let matches = |e: &Arc<Entry>| filter.matches(e);
        if let Some(place) = filter.place() {
            return self
                .entries
                .get(place.as_str())
                .cloned()
                .filter(matches)
                .into_iter()
                .collect();
        }
        if filter.namespace().is_empty() {
            return self
                .entries
                .values()
                .filter(|e| matches(e))
                .cloned()
                .collect();
        }
        let from = format!("{}/", filter.namespace());
        self.entries
            .range::<str, _>((Bound::Included(from.as_str()), Bound::Unbounded))
            .take_while(|(place, _)| place.starts_with(&from))
            .filter(|(_, e)| matches(e))
            .map(|(_, e)| e.clone())
            .collect()
    }

    fn remember(&mut self, event: Arc<Event>) {
        self.ring_bytes += event.weight();
        self.ring.push_back(event);
        while self.ring.len() > RING_EVENTS_MAX
            || (self.ring_bytes > RING_BYTES_MAX && self.ring.len() > 1)
        {
            let gone = self.ring.pop_front().expect("the ring holds events");
            self.ring_bytes -= gone.weight();
            self.ring_after = gone.revision;
        }
    }
}

/// A registered watcher; dropping it deregisters.
pub(crate) struct Guard {
    cache: Arc<Cache>,
    id: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.cache.inner.write().watchers.remove(self.id);
    }
}

#[cfg(test)]
mod tests;
