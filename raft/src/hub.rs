//! Hands applied changes to observers and watchers, and starts both without a gap or a repetition.
//!
//! The one lock here is held while changes are handed out and while someone registers, so that a
//! registration falls between two publications.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::limits::{CATCH_UP_ROWS_MAX, WATCH_QUEUE_CHANGES_MAX};
use crate::watch::WatchStream;
use crate::{Change, KeyValue, Observer, Range, Revision, StoreError};

/// Changes read from the past.
pub(crate) struct Past {
    pub(crate) changes: Vec<Arc<Change>>,
    /// Where to read on.
    pub(crate) next: Revision,
}

/// What is called with all key-values of a range and the revision that they are from.
pub(crate) type Scan<'a> = dyn FnMut(&mut dyn Iterator<Item = KeyValue>, Revision) + 'a;

/// A store's past and present, as far as starting a watch needs them.
pub(crate) trait History: Send + Sync + 'static {
    /// Calls `scan` with all key-values of the range in one consistent state.
    fn scan(&self, range: &Range, scan: &mut Scan<'_>) -> Result<(), StoreError>;

    /// The changes of the range with revisions `from..=to`, whole transactions, after looking at
    /// about `rows_max` rows of history.
    fn changes(
        &self,
        range: &Range,
        from: Revision,
        to: Revision,
        rows_max: usize,
    ) -> Result<Past, StoreError>;

    /// The newest revision whose changes are gone.
    fn compacted(&self) -> Revision;
}

struct Watcher {
    id: u64,
    range: Range,
    from: Revision,
    queue: mpsc::Sender<Arc<Change>>,
    lagged: Arc<AtomicBool>,
}

struct Registered {
    id: u64,
    range: Range,
    /// The start may have shown what is written but not handed out yet: that is not repeated.
    from: Revision,
    observer: Arc<dyn Observer>,
}

#[derive(Default)]
struct Members {
    closed: bool,
    next_id: u64,
    watchers: Vec<Watcher>,
    observers: Vec<Registered>,
}

/// The observers and watchers of one store.
#[derive(Default)]
pub(crate) struct Hub {
    members: Mutex<Members>,
    /// The newest revision that all observers have been told about.
    published: AtomicU64,
    lagged_total: AtomicU64,
}

impl Hub {
    pub(crate) fn published(&self) -> Revision {
        Revision(self.published.load(Ordering::Acquire))
    }

    pub(crate) fn watchers(&self) -> u64 {
        self.members.lock().watchers.len() as u64
    }

    pub(crate) fn lagged_total(&self) -> u64 {
        self.lagged_total.load(Ordering::Relaxed)
    }

    /// Hands out changes that are already readable from the store. `upto` is the revision of the
    /// last of them, or a later one that changed nothing.
    pub(crate) fn publish(&self, changes: &[Arc<Change>], upto: Revision) {
        let mut members = self.members.lock();
        for registered in &members.observers {
            registered.deliver(changes);
        }
        let lagged = &self.lagged_total;
        members
            .watchers
            .retain_mut(|watcher| watcher.offer(changes, lagged));
        // Readers who see this revision may rely on the observers having seen it.
        self.published.store(upto.0, Ordering::Release);
    }

    /// Ends all watches and lets all observers go.
    pub(crate) fn close(&self) {
        let gone = {
            let mut members = self.members.lock();
            members.closed = true;
            (
                std::mem::take(&mut members.watchers),
                std::mem::take(&mut members.observers),
            )
        };
        // An observer may own other registrations: it is dropped when the lock is free again.
        drop(gone);
    }

    pub(crate) fn watch(
        self: &Arc<Self>,
        history: Arc<dyn History>,
        range: Range,
        from: Revision,
    ) -> Result<WatchStream, StoreError> {
        let (queue, changes) = mpsc::channel(WATCH_QUEUE_CHANGES_MAX);
        let lagged = Arc::new(AtomicBool::new(false));
        let mut members = self.members.lock();
        if members.closed {
            return Err(StoreError::Closed);
        }
        let compacted = history.compacted();
        if from <= compacted {
            return Err(StoreError::Compacted {
                requested: from,
                compacted,
            });
        }
        let id = members.take_id();
        members.watchers.push(Watcher {
            id,
            range: range.clone(),
            from,
            queue,
            lagged: Arc::clone(&lagged),
        });
        let live_after = self.published();
        drop(members);
        Ok(WatchStream::new(
            history,
            range,
            from,
            live_after,
            changes,
            lagged,
            Arc::clone(self),
            id,
        ))
    }

    pub(crate) fn observe(
        self: &Arc<Self>,
        history: &dyn History,
        range: Range,
        observer: Arc<dyn Observer>,
    ) -> Result<Observation, StoreError> {
        let mut next = Revision::ZERO;
        history.scan(&range, &mut |kvs, revision| {
            observer.start(kvs, revision);
            next = revision.next();
        })?;
        // What happened during the start is read from history without holding up the writers; only
        // the last step, which is short then, happens under the lock.
        while self.published() >= next {
            next = replay(history, &range, observer.as_ref(), next, self.published())?;
        }
        let mut members = self.members.lock();
        if members.closed {
            return Err(StoreError::Closed);
        }
        while self.published() >= next {
            next = replay(history, &range, observer.as_ref(), next, self.published())?;
        }
        let id = members.take_id();
        members.observers.push(Registered {
            id,
            range,
            from: next,
            observer,
        });
        drop(members);
        Ok(Observation {
            hub: Arc::clone(self),
            id,
        })
    }

    pub(crate) fn forget_watcher(&self, id: u64) {
        self.members
            .lock()
            .watchers
            .retain(|watcher| watcher.id != id);
    }
}

impl Members {
    fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

impl Watcher {
    /// Queues what the watcher wants; false when it is gone or has fallen behind.
    fn offer(&mut self, changes: &[Arc<Change>], lagged_total: &AtomicU64) -> bool {
        for change in changes {
            if change.revision < self.from || !self.range.contains(&change.key) {
                continue;
            }
            match self.queue.try_send(Arc::clone(change)) {
                Ok(()) => {}
                Err(TrySendError::Closed(_)) => return false,
                Err(TrySendError::Full(_)) => {
                    self.lagged.store(true, Ordering::Release);
                    lagged_total.fetch_add(1, Ordering::Relaxed);
                    return false;
                }
            }
        }
        true
    }
}

impl Registered {
    fn deliver(&self, changes: &[Arc<Change>]) {
        let wanted = |change: &&Arc<Change>| {
            change.revision >= self.from && self.range.contains(&change.key)
        };
        let count = changes.iter().filter(wanted).count();
        if count == 0 {
            return;
        }
        if count == changes.len() {
            self.observer.applied(changes);
        } else {
            let own: Vec<Arc<Change>> = changes.iter().filter(wanted).map(Arc::clone).collect();
            self.observer.applied(&own);
        }
    }
}

fn replay(
    history: &dyn History,
    range: &Range,
    observer: &dyn Observer,
    from: Revision,
    to: Revision,
) -> Result<Revision, StoreError> {
    let past = history.changes(range, from, to, CATCH_UP_ROWS_MAX)?;
    if !past.changes.is_empty() {
        observer.applied(&past.changes);
    }
    Ok(past.next)
}

/// Keeps an observer registered; dropping it lets the observer go.
#[must_use = "the observer is let go when this is dropped"]
pub struct Observation {
    hub: Arc<Hub>,
    id: u64,
}

impl Drop for Observation {
    fn drop(&mut self) {
        let gone = {
            let mut members = self.hub.members.lock();
            members
                .observers
                .iter()
                .position(|registered| registered.id == self.id)
                .map(|at| members.observers.remove(at))
        };
        // The observer may own other registrations: it is dropped when the lock is free again.
        drop(gone);
    }
}

impl std::fmt::Debug for Observation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observation").field("id", &self.id).finish()
    }
}
