//! The state machine: applies committed entries to the state, in the same way on every master.
//!
//! No clock, no randomness, no order of a hash table: an entry's effects follow from the entry and
//! the state alone. What belongs to one call is written in one piece with the position in the log
//! that it brings the state to, without waiting for the disk: the log is durable already, and after
//! a crash it is applied again from where the state has got to.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine, Snapshot};
use openraft::type_config::alias::SnapshotOf;
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::log::{Log, read_meta};
use super::{Health, LogId, Membership, SnapshotMeta, Types};
use crate::command::{Answer, Command};
use crate::hub::Hub;
use crate::judge::{self, judge};
use crate::limits::{APPLY_BATCH_BYTES_MAX, LOG_BYTES_BETWEEN_CUTS};
use crate::metrics::Counters;
use crate::rocks::keys;
use crate::rocks::state::{Pending, Progress, State};
use crate::{Change, Revision, StoreError, Txn, TxnOutcome};

/// How far the state has got, written together with it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Applied {
    pub(crate) last: Option<LogId>,
    pub(crate) membership: Membership,
    pub(crate) progress: Progress,
}

/// What the upkeep wants to know of what is applied.
pub(crate) struct Signals {
    /// Wakes the upkeep before its time.
    pub(crate) wake: Notify,
    /// The earliest end of a time to live; [`u64::MAX`] if there is none.
    pub(crate) deadline_ms: AtomicU64,
    /// How many revisions of history are kept before the upkeep is woken to compact.
    history_revisions_max: u64,
    counters: Arc<Counters>,
    /// Bytes that had been written to the log when it was last cut.
    cut_at_bytes: AtomicU64,
}

impl Signals {
    pub(crate) fn new(
        history_revisions_max: u64,
        deadline_ms: Option<u64>,
        counters: Arc<Counters>,
    ) -> Signals {
        Signals {
            wake: Notify::new(),
            deadline_ms: AtomicU64::new(deadline_ms.unwrap_or(u64::MAX)),
            history_revisions_max,
            counters,
            cut_at_bytes: AtomicU64::new(0),
        }
    }

    /// Whether enough has been written to the log to cut it.
    pub(crate) fn log_is_long(&self) -> bool {
        let bytes = self.counters.log_bytes.load(Ordering::Relaxed);
        bytes - self.cut_at_bytes.load(Ordering::Relaxed) > LOG_BYTES_BETWEEN_CUTS
    }

    pub(crate) fn log_was_cut(&self) {
        let bytes = self.counters.log_bytes.load(Ordering::Relaxed);
        self.cut_at_bytes.store(bytes, Ordering::Relaxed);
    }
}

/// The state machine, as Raft drives it.
pub(crate) struct Machine {
    /// Never locked: the state machine has one owner. Raft asks that it could be shared between
    /// threads, which a database batch cannot be without a lock.
    applier: Mutex<Applier>,
}

impl Machine {
    pub(crate) fn new(parts: Parts, applied: Applied) -> Machine {
        Machine {
            applier: Mutex::new(Applier::new(parts, applied)),
        }
    }
}

/// What applies entries.
struct Applier {
    state: Arc<State>,
    hub: Arc<Hub>,
    log: Log,
    signals: Arc<Signals>,
    counters: Arc<Counters>,
    health: Arc<Health>,
    applied: Applied,
    pending: Pending,
    changes: Vec<Arc<Change>>,
    answers: Vec<(ApplyResponder<Types>, Answer)>,
}

/// The parts that a machine works with.
pub(crate) struct Parts {
    pub(crate) state: Arc<State>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) log: Log,
    pub(crate) signals: Arc<Signals>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) health: Arc<Health>,
}

impl Applier {
    fn new(parts: Parts, applied: Applied) -> Applier {
        let pending = Pending::new(Arc::clone(&parts.state));
        Applier {
            state: parts.state,
            hub: parts.hub,
            log: parts.log,
            signals: parts.signals,
            counters: parts.counters,
            health: parts.health,
            applied,
            pending,
            changes: Vec::new(),
            answers: Vec::new(),
        }
    }

    async fn apply_all<S>(&mut self, mut entries: S) -> Result<(), StoreError>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) =
                item.map_err(|error| StoreError::storage("reading the log", error))?;
            let answer = match entry.payload {
                EntryPayload::Blank => Answer::Nothing,
                EntryPayload::Normal(command) => self.command(&command)?,
                EntryPayload::Membership(membership) => {
                    self.applied.membership = Membership::new(Some(entry.log_id), membership);
                    Answer::Nothing
                }
            };
            self.applied.last = Some(entry.log_id);
            if let Some(responder) = responder {
                self.answers.push((responder, answer));
            }
            if self.pending.bytes() >= APPLY_BATCH_BYTES_MAX {
                self.write()?;
            }
        }
        self.write()
    }

    fn command(&mut self, command: &Command) -> Result<Answer, StoreError> {
        match command {
            Command::Txns { time_ms, txns } => {
                let now_ms = self.advance_clock(*time_ms);
                let outcomes: Result<Vec<TxnOutcome>, StoreError> =
                    txns.iter().map(|txn| self.txn(txn, now_ms)).collect();
                outcomes.map(Answer::Txns)
            }
            Command::Compact { to } => {
                let progress = &mut self.applied.progress;
                progress.compacted = (*to).min(progress.revision).max(progress.compacted);
                Ok(Answer::Compacted(progress.compacted))
            }
            Command::Expire { time_ms, keys_max } => {
                let now_ms = self.advance_clock(*time_ms);
                self.expire(now_ms, *keys_max).map(Answer::Expired)
            }
        }
    }

    /// The store's time at an entry: the proposer's, unless that is behind an earlier one's.
    fn advance_clock(&mut self, time_ms: u64) -> u64 {
        let progress = &mut self.applied.progress;
        progress.time_ms = progress.time_ms.max(time_ms);
        progress.time_ms
    }

    fn txn(&mut self, txn: &Txn, now_ms: u64) -> Result<TxnOutcome, StoreError> {
        let revision = self.applied.progress.revision;
        let (outcome, effects) = judge(&mut self.pending, txn, revision, now_ms)?;
        self.take(effects);
        Ok(outcome)
    }

    /// Deletes what is due, each key as a transaction of its own.
    fn expire(&mut self, now_ms: u64, keys_max: u32) -> Result<u32, StoreError> {
        // The deadlines are read from the database: it has to have those of earlier entries.
        self.write()?;
        let due = self.state.due(now_ms, keys_max as usize)?;
        let mut expired = 0;
        for (_, key) in due {
            if let Some(effect) = judge::expire(&mut self.pending, &key, now_ms)? {
                self.take(vec![effect]);
                expired += 1;
            }
        }
        Ok(expired)
    }

    /// Gives effects the next revision.
    fn take(&mut self, effects: Vec<judge::Effect>) {
        if effects.is_empty() {
            return;
        }
        let revision = self.applied.progress.revision.next();
        self.applied.progress.revision = revision;
        self.changes.extend(
            effects
                .iter()
                .map(|effect| Arc::new(effect.change(revision))),
        );
        self.pending.add(revision, effects);
    }

    /// Writes what has been applied, shows it to the observers, and answers the writers.
    fn write(&mut self) -> Result<(), StoreError> {
        self.pending.put_meta(keys::META_APPLIED, &self.applied);
        fail::fail_point!("state-before-write");
        let deadline_ms = self.pending.write()?;
        fail::fail_point!("state-after-write");
        let Progress {
            revision,
            compacted,
            ..
        } = self.applied.progress;
        self.state.set_compacted(compacted);
        self.hub.publish(&self.changes, revision);
        self.changes.clear();
        for (responder, answer) in self.answers.drain(..) {
            if let Answer::Expired(expired) = answer {
                self.counters
                    .expired
                    .fetch_add(expired.into(), Ordering::Relaxed);
            }
            responder.send(answer);
        }
        if let Some(last) = self.applied.last {
            self.log.applied(last.index);
        }
        self.signal(deadline_ms, revision, compacted);
        Ok(())
    }

    fn signal(&self, deadline_ms: Option<u64>, revision: Revision, compacted: Revision) {
        let sooner = deadline_ms.is_some_and(|deadline_ms| {
            deadline_ms
                < self
                    .signals
                    .deadline_ms
                    .fetch_min(deadline_ms, Ordering::AcqRel)
        });
        let too_much_history = revision.0 - compacted.0 > self.signals.history_revisions_max;
        if sooner || too_much_history || self.signals.log_is_long() {
            self.signals.wake.notify_one();
        }
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = InPlace;
    type SnapshotBuilder = SnapshotOfNow;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), io::Error> {
        let applied = &self.applier.get_mut().applied;
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<S>(&mut self, entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let applier = self.applier.get_mut();
        applier.apply_all(entries).await.map_err(|error| {
            applier.health.fail(format!("applying the log: {error}"));
            io::Error::other(error)
        })
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotOfNow {
        let applier = self.applier.get_mut();
        SnapshotOfNow {
            state: Arc::clone(&applier.state),
            meta: SnapshotMeta {
                last_log_id: applier.applied.last,
                last_membership: applier.applied.membership.clone(),
            },
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        _snapshot: InPlace,
    ) -> Result<(), io::Error> {
        if meta.last_log_id <= self.applier.get_mut().applied.last {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "a snapshot of another voter, in a cluster that has one",
        ))
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<Types, InPlace>>, io::Error> {
        let meta: Option<SnapshotMeta> =
            read_meta(&self.applier.get_mut().state.db, keys::META_SNAPSHOT)?;
        Ok(meta.map(|meta| Snapshot {
            meta,
            snapshot: InPlace,
        }))
    }
}

/// The contents of a snapshot that never leaves its node: they are the state in the database, which
/// is at least as new as the snapshot says. A snapshot is a mark up to which the log can be purged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InPlace;

/// Marks the state as it was when the builder was made.
pub(crate) struct SnapshotOfNow {
    state: Arc<State>,
    meta: SnapshotMeta,
}

impl RaftSnapshotBuilder<Types> for SnapshotOfNow {
    type SnapshotData = InPlace;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Types, InPlace>, io::Error> {
        let mut pending = Pending::new(Arc::clone(&self.state));
        pending.put_meta(keys::META_SNAPSHOT, &self.meta);
        fail::fail_point!("snapshot-before-write");
        pending.write().map_err(io::Error::other)?;
        Ok(Snapshot {
            meta: self.meta.clone(),
            snapshot: InPlace,
        })
    }
}
