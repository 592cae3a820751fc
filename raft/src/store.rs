//! The store's interface, which the in-memory and the replicated store both serve.

use std::sync::Arc;

use async_trait::async_trait;

use crate::hub::Observation;
use crate::watch::WatchStream;
use crate::{
    Change, KeyValue, Range, RangePage, Revision, StoreError, StoreMetrics, Txn, TxnOutcome,
};

/// A revisioned byte store.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Applies a transaction and returns its own answer.
    ///
    /// When this returns `Ok`, the outcome is durable, it is visible to reads on this master, and
    /// the observers have seen it.
    ///
    /// # Errors
    /// [`StoreError::fate`] says whether the transaction may have happened in spite of the error.
    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError>;

    /// Returns when this master has applied at least everything that was committed at the time of
    /// the call, with the revision that it is at.
    ///
    /// What the observers hold is at least as new as the returned revision.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::NotLeader`] when no quorum confirms it.
    async fn read_index(&self) -> Result<Revision, StoreError>;

    /// The newest revision that this master has applied and shown to its observers.
    fn applied_revision(&self) -> Revision;

    /// The newest revision whose changes are gone. The state at it, and all that came after, can
    /// still be read.
    fn compacted_revision(&self) -> Revision;

    /// Reads one key, from this master's applied state: now, or at an earlier revision.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] or [`StoreError::FutureRevision`] when there is no such state.
    fn get(&self, key: &[u8], at: Option<Revision>) -> Result<Option<KeyValue>, StoreError>;

    /// Reads the first `limit` keys of a range (0: all of them), from this master's applied state:
    /// now, or at an earlier revision.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] or [`StoreError::FutureRevision`] when there is no such state.
    fn range(
        &self,
        range: Range,
        at: Option<Revision>,
        limit: usize,
    ) -> Result<RangePage, StoreError>;

    /// Registers an observer for a range.
    ///
    /// Before this returns, the observer has been given the current key-values of the range at some
    /// revision, and every change of the range after it. It is called until the returned guard is
    /// dropped or the store closes.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when the start took so long that history was removed meanwhile.
    fn observe(&self, range: Range, observer: Arc<dyn Observer>)
    -> Result<Observation, StoreError>;

    /// Follows the changes of a range, from those of revision `from` on: in order, each exactly
    /// once. `from` may lie in the future.
    ///
    /// The stream ends with an error when history was removed before it was read
    /// ([`StoreError::Compacted`]), when more than [`crate::WATCH_QUEUE_CHANGES_MAX`] changes wait
    /// to be taken ([`StoreError::Lagged`]), or when the store closes ([`StoreError::Closed`]).
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when the changes at `from` are gone.
    fn watch(&self, range: Range, from: Revision) -> Result<WatchStream, StoreError>;

    /// Removes the history up to a revision; the state at it stays readable. Compacting to where
    /// the store already is compacted changes nothing.
    ///
    /// # Errors
    /// [`StoreError::FutureRevision`] when the revision has not happened yet.
    async fn compact(&self, to: Revision) -> Result<(), StoreError>;

    /// Numbers about the store, for export.
    fn metrics(&self) -> StoreMetrics;

    /// Ends the store: writes that wait are answered, watches end. What was applied can still be
    /// read; files are closed when the store is dropped.
    async fn shutdown(&self);
}

/// Someone who keeps what the store holds, in step with it.
///
/// The calls come from the thread that applies writes, one at a time, before the writers of these
/// changes get their answers: a cache that is fed here gives its reader what it wrote. For the
/// same reason they must be quick, and must not call [`Store::observe`] or [`Store::watch`], or
/// wait for a write.
pub trait Observer: Send + Sync + 'static {
    /// The state to start from: every key-value of the range at `revision`, in key order. Called
    /// once, before anything else.
    fn start(&self, kvs: &mut dyn Iterator<Item = KeyValue>, revision: Revision);

    /// Changes of the range, in revision order. The changes of one transaction come in one call.
    fn applied(&self, changes: &[Arc<Change>]);
}
