//! The store in memory, on one node, for tests of what is built on a store.
//!
//! It serves the same interface with the same answers as the replicated one (the conformance suite
//! holds both to it), and forgets everything when it is dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};

use crate::hub::{History, Hub, Observation, Past, Scan};
use crate::judge::{self, Effect, View, judge};
use crate::limits;
use crate::record::{Record, now_ms};
use crate::watch::WatchStream;
use crate::{
    Change, KeyValue, Observer, Range, RangePage, Revision, Store, StoreError, StoreMetrics, Txn,
    TxnOutcome,
};

/// Makes an empty store in memory.
pub fn memory() -> MemoryStore {
    let inner = Arc::new(Inner::default());
    let thread = std::thread::Builder::new()
        .name("memory-expiry".to_owned())
        .spawn({
            let inner = Arc::clone(&inner);
            move || inner.expire_until_closed()
        })
        .expect("a thread can be started");
    MemoryStore {
        inner,
        expiry: Mutex::new(Some(thread)),
    }
}

/// A [`Store`] that lives in memory.
pub struct MemoryStore {
    inner: Arc<Inner>,
    expiry: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Inner {
    /// Held during a write, so that changes are published in the order of their revisions.
    writer: Mutex<Writer>,
    state: RwLock<State>,
    hub: Arc<Hub>,
    txns: AtomicU64,
    expired: AtomicU64,
    wake: Condvar,
}

#[derive(Default)]
struct Writer {
    closed: bool,
}

#[derive(Default)]
struct State {
    revision: Revision,
    compacted: Revision,
    /// Each key's versions, oldest first; `None` is a deletion.
    keys: BTreeMap<Bytes, Vec<(Revision, Option<Record>)>>,
    changes: BTreeMap<Revision, Vec<Arc<Change>>>,
    deadlines: BTreeSet<(u64, Bytes)>,
}

impl View for &State {
    fn get(&mut self, key: &Bytes) -> Result<Option<Record>, StoreError> {
        Ok(self.at(key, self.revision))
    }
}

impl State {
    fn at(&self, key: &[u8], at: Revision) -> Option<Record> {
        version_at(self.keys.get(key)?, at)
    }

    fn check(&self, at: Option<Revision>) -> Result<Revision, StoreError> {
        let at = at.unwrap_or(self.revision);
        if at > self.revision {
            return Err(StoreError::FutureRevision {
                requested: at,
                current: self.revision,
            });
        }
        if at < self.compacted {
            return Err(StoreError::Compacted {
                requested: at,
                compacted: self.compacted,
            });
        }
        Ok(at)
    }

    fn records<'a>(
        &'a self,
        range: &'a Range,
        at: Revision,
    ) -> impl Iterator<Item = KeyValue> + 'a {
        let end = range.end.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let keys = (!range.is_empty()).then(|| {
            self.keys
                .range::<Bytes, _>((Bound::Included(&range.start), end))
        });
        keys.into_iter()
            .flatten()
            .filter_map(move |(key, versions)| {
                version_at(versions, at).map(|record| record.into_key_value(key.clone()))
            })
    }

    fn write(&mut self, effects: Vec<Effect>) -> Vec<Arc<Change>> {
        if effects.is_empty() {
            return Vec::new();
        }
        let revision = self.revision.next();
        self.revision = revision;
        let changes: Vec<Arc<Change>> = effects
            .iter()
            .map(|effect| Arc::new(effect.change(revision)))
            .collect();
        for effect in effects {
            if let Some(old) = effect.old.filter(|old| old.expires_at_ms != 0) {
                self.deadlines
                    .remove(&(old.expires_at_ms, effect.key.clone()));
            }
            if let Some(new) = effect.new.as_ref().filter(|new| new.expires_at_ms != 0) {
                self.deadlines
                    .insert((new.expires_at_ms, effect.key.clone()));
            }
            self.keys
                .entry(effect.key)
                .or_default()
                .push((revision, effect.new));
        }
        self.changes.insert(revision, changes.clone());
        changes
    }

    fn compact(&mut self, to: Revision) {
        self.compacted = to;
        self.changes = self.changes.split_off(&to.next());
        self.keys.retain(|_, versions| {
            let kept_from = versions.partition_point(|(revision, _)| *revision <= to);
            // The newest version up to `to` is the state at `to`, unless it is a deletion.
            let state_at = kept_from.saturating_sub(1);
            let first = if versions
                .get(state_at)
                .is_some_and(|(_, record)| record.is_none())
            {
                kept_from
            } else {
                state_at
            };
            versions.drain(..first);
            !versions.is_empty()
        });
    }
}

fn version_at(versions: &[(Revision, Option<Record>)], at: Revision) -> Option<Record> {
    let upto = versions.partition_point(|(revision, _)| *revision <= at);
    versions.get(upto.checked_sub(1)?)?.1.clone()
}

impl Inner {
    fn expire_until_closed(&self) {
        let mut writer = self.writer.lock();
        while !writer.closed {
            let now_ms = now_ms();
            let first = self.state.read().deadlines.first().cloned();
            match first {
                Some((at_ms, key)) if at_ms <= now_ms => {
                    let mut state = self.state.write();
                    let effect = judge::expire(&mut &*state, &key, now_ms)
                        .expect("reading memory does not fail");
                    let changes = state.write(effect.into_iter().collect());
                    let revision = state.revision;
                    drop(state);
                    self.expired.fetch_add(1, Ordering::Relaxed);
                    self.hub.publish(&changes, revision);
                }
                Some((at_ms, _)) => {
                    let wait = Duration::from_millis(at_ms - now_ms);
                    self.wake.wait_for(&mut writer, wait);
                }
                None => self.wake.wait(&mut writer),
            }
        }
    }
}

impl History for Inner {
    fn scan(&self, range: &Range, scan: &mut Scan<'_>) -> Result<(), StoreError> {
        let state = self.state.read();
        scan(&mut state.records(range, state.revision), state.revision);
        Ok(())
    }

    fn changes(
        &self,
        range: &Range,
        from: Revision,
        to: Revision,
        rows_max: usize,
    ) -> Result<Past, StoreError> {
        let state = self.state.read();
        if from <= state.compacted {
            return Err(StoreError::Compacted {
                requested: from,
                compacted: state.compacted,
            });
        }
        let mut changes = Vec::new();
        let mut next = from;
        let mut rows = 0;
        for (revision, txn) in state.changes.range(from..=to) {
            changes.extend(
                txn.iter()
                    .filter(|change| range.contains(&change.key))
                    .cloned(),
            );
            next = revision.next();
            rows += txn.len();
            if rows >= rows_max {
                return Ok(Past { changes, next });
            }
        }
        Ok(Past {
            changes,
            next: next.max(to.next()),
        })
    }

    fn compacted(&self) -> Revision {
        self.state.read().compacted
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        limits::check_txn(&txn)?;
        let writer = self.inner.writer.lock();
        if writer.closed {
            return Err(StoreError::Closed);
        }
        self.inner.txns.fetch_add(1, Ordering::Relaxed);
        let mut state = self.inner.state.write();
        let (outcome, effects) = judge(&mut &*state, &txn, state.revision, now_ms())?;
        let changes = state.write(effects);
        let revision = state.revision;
        drop(state);
        self.inner.hub.publish(&changes, revision);
        self.inner.wake.notify_one();
        Ok(outcome)
    }

    async fn read_index(&self) -> Result<Revision, StoreError> {
        if self.inner.writer.lock().closed {
            return Err(StoreError::Closed);
        }
        Ok(self.applied_revision())
    }

    fn applied_revision(&self) -> Revision {
        self.inner.hub.published()
    }

    fn compacted_revision(&self) -> Revision {
        self.inner.compacted()
    }

    fn get(&self, key: &[u8], at: Option<Revision>) -> Result<Option<KeyValue>, StoreError> {
        let state = self.inner.state.read();
        let at = state.check(at)?;
        Ok(judge::key_value(key, state.at(key, at)))
    }

    fn range(
        &self,
        range: Range,
        at: Option<Revision>,
        limit: usize,
    ) -> Result<RangePage, StoreError> {
        let state = self.inner.state.read();
        let revision = state.check(at)?;
        let mut records = state.records(&range, revision);
        let limit = if limit == 0 { usize::MAX } else { limit };
        let kvs: Vec<KeyValue> = records.by_ref().take(limit).collect();
        let remaining = records.count() as u64;
        Ok(RangePage {
            kvs,
            revision,
            more: remaining > 0,
            remaining,
        })
    }

    fn observe(
        &self,
        range: Range,
        observer: Arc<dyn Observer>,
    ) -> Result<Observation, StoreError> {
        self.inner.hub.observe(self.inner.as_ref(), range, observer)
    }

    fn watch(&self, range: Range, from: Revision) -> Result<WatchStream, StoreError> {
        let history = Arc::clone(&self.inner);
        self.inner.hub.watch(history, range, from)
    }

    async fn compact(&self, to: Revision) -> Result<(), StoreError> {
        let writer = self.inner.writer.lock();
        if writer.closed {
            return Err(StoreError::Closed);
        }
        let mut state = self.inner.state.write();
        if to > state.revision {
            return Err(StoreError::FutureRevision {
                requested: to,
                current: state.revision,
            });
        }
        if to > state.compacted {
            state.compact(to);
        }
        Ok(())
    }

    fn metrics(&self) -> StoreMetrics {
        StoreMetrics {
            applied_revision: self.applied_revision().0,
            compacted_revision: self.compacted_revision().0,
            txns_total: self.inner.txns.load(Ordering::Relaxed),
            watchers: self.inner.hub.watchers(),
            watchers_lagged_total: self.inner.hub.lagged_total(),
            expired_total: self.inner.expired.load(Ordering::Relaxed),
            ..StoreMetrics::default()
        }
    }

    async fn shutdown(&self) {
        self.close();
    }
}

impl MemoryStore {
    fn close(&self) {
        self.inner.writer.lock().closed = true;
        self.inner.hub.close();
        self.inner.wake.notify_all();
        let thread = self.expiry.lock().take();
        if let Some(thread) = thread
            && let Err(panic) = thread.join()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        self.inner.writer.lock().closed = true;
        self.inner.hub.close();
        self.inner.wake.notify_all();
    }
}
