//! The state in the database: how effects are written, and what is known without reading.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use rocksdb::WriteBatch;
use serde::{Deserialize, Serialize};

use super::keys;
use super::{CHANGES, CURRENT, Db, META, TTL, UNDO};
use crate::codec::{self, CodecError};
use crate::judge::{Effect, View};
use crate::record::Record;
use crate::{Revision, StoreError};

/// Which key one change touched; its values are in the other column families.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChangeRow {
    pub(crate) key: Bytes,
    /// Whether the key holds a value after the change.
    pub(crate) put: bool,
}

/// What every replica derives from the same entries, beside the keys themselves.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// The newest revision.
    pub(crate) revision: Revision,
    /// The newest revision whose changes are gone.
    pub(crate) compacted: Revision,
    /// The store's clock: the latest time that came in with an entry. It never goes back.
    pub(crate) time_ms: u64,
}

/// The state's database and the numbers about it that others look at all the time.
pub(crate) struct State {
    pub(crate) db: Arc<Db>,
    /// The newest revision whose changes are gone, as the last applied entry left it.
    compacted: AtomicU64,
    /// History is removed from the database up to this revision.
    collected: AtomicU64,
}

impl State {
    pub(crate) fn new(db: Arc<Db>, compacted: Revision) -> Result<State, StoreError> {
        let collected = db
            .raw()
            .get_pinned_cf(db.family(META), keys::META_COLLECTED)
            .map_err(|error| StoreError::storage("reading how far history is removed", error))?
            .map(|bytes| codec::decode::<Revision>(&bytes))
            .transpose()
            .map_err(|error| damaged("the collected revision", &error))?
            .unwrap_or_default();
        Ok(State {
            db,
            compacted: AtomicU64::new(compacted.0),
            collected: AtomicU64::new(collected.0),
        })
    }

    pub(crate) fn compacted(&self) -> Revision {
        Revision(self.compacted.load(Ordering::Acquire))
    }

    /// Makes a compaction known. From then on its history may be removed.
    pub(crate) fn set_compacted(&self, compacted: Revision) {
        self.compacted.store(compacted.0, Ordering::Release);
    }

    pub(crate) fn collected(&self) -> Revision {
        Revision(self.collected.load(Ordering::Acquire))
    }

    pub(crate) fn set_collected(&self, collected: Revision) {
        self.collected.store(collected.0, Ordering::Release);
    }

    /// The current record of a key: one point lookup.
    pub(crate) fn current(&self, key: &[u8]) -> Result<Option<Record>, StoreError> {
        self.db
            .raw()
            .get_pinned_cf(self.db.family(CURRENT), key)
            .map_err(|error| StoreError::storage("reading a key", error))?
            .map(|bytes| decode_record(&bytes))
            .transpose()
    }

    /// The earliest end of a time to live, if any key has one.
    pub(crate) fn first_deadline_ms(&self) -> Result<Option<u64>, StoreError> {
        Ok(self
            .due(u64::MAX, 1)?
            .first()
            .map(|(deadline, _)| *deadline))
    }

    /// The keys whose time to live ends at `now_ms` or before, earliest first.
    pub(crate) fn due(
        &self,
        now_ms: u64,
        keys_max: usize,
    ) -> Result<Vec<(u64, Bytes)>, StoreError> {
        let mut rows = self.db.raw().raw_iterator_cf(self.db.family(TTL));
        rows.seek_to_first();
        let mut due = Vec::new();
        while let Some(row) = rows.key().filter(|_| due.len() < keys_max) {
            let (deadline_ms, key) =
                keys::split_ttl(row).ok_or_else(|| damaged("a deadline", &"it is too short"))?;
            if deadline_ms > now_ms {
                break;
            }
            due.push((deadline_ms, Bytes::copy_from_slice(key)));
            rows.next();
        }
        rows.status()
            .map_err(|error| StoreError::storage("reading deadlines", error))?;
        Ok(due)
    }
}

pub(crate) fn decode_record(bytes: &[u8]) -> Result<Record, StoreError> {
    codec::decode(bytes).map_err(|error: CodecError| damaged("a record", &error))
}

pub(crate) fn damaged(what: &str, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::storage("decoding", format!("{what} is damaged: {error}"))
}

/// A batch of effects on its way into the database, and the state as it will be after it.
pub(crate) struct Pending {
    state: Arc<State>,
    batch: WriteBatch,
    /// Every key that was read or written since the last write, with what it holds now. It is only
    /// looked up by key: its order never matters.
    seen: HashMap<Bytes, Option<Record>>,
    scratch: Vec<u8>,
    /// The earliest deadline among the effects.
    first_deadline_ms: Option<u64>,
}

impl View for Pending {
    fn get(&mut self, key: &Bytes) -> Result<Option<Record>, StoreError> {
        if let Some(seen) = self.seen.get(key) {
            return Ok(seen.clone());
        }
        let record = self.state.current(key)?;
        self.seen.insert(key.clone(), record.clone());
        Ok(record)
    }
}

impl Pending {
    pub(crate) fn new(state: Arc<State>) -> Pending {
        Pending {
            state,
            batch: WriteBatch::default(),
            seen: HashMap::new(),
            scratch: Vec::new(),
            first_deadline_ms: None,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.batch.size_in_bytes()
    }

    /// Adds one transaction's effects.
    pub(crate) fn add(&mut self, revision: Revision, effects: Vec<Effect>) {
        let db = Arc::clone(&self.state.db);
        for (position, effect) in effects.into_iter().enumerate() {
            let Effect { key, old, new } = effect;
            if let Some(old) = &old {
                self.encode(old);
                self.batch
                    .put_cf(db.family(UNDO), keys::undo(&key, revision), &self.scratch);
                if old.expires_at_ms != 0 {
                    self.batch
                        .delete_cf(db.family(TTL), keys::ttl(old.expires_at_ms, &key));
                }
            }
            match &new {
                Some(new) => {
                    self.encode(new);
                    self.batch.put_cf(db.family(CURRENT), &key, &self.scratch);
                    if new.expires_at_ms != 0 {
                        self.batch
                            .put_cf(db.family(TTL), keys::ttl(new.expires_at_ms, &key), b"");
                        let first = self.first_deadline_ms.unwrap_or(u64::MAX);
                        self.first_deadline_ms = Some(first.min(new.expires_at_ms));
                    }
                }
                None => self.batch.delete_cf(db.family(CURRENT), &key),
            }
            let change = ChangeRow {
                key: key.clone(),
                put: new.is_some(),
            };
            let position = u32::try_from(position).expect("a transaction has few operations");
            self.encode(&change);
            self.batch.put_cf(
                db.family(CHANGES),
                keys::change(revision, position),
                &self.scratch,
            );
            self.seen.insert(key, new);
        }
    }

    /// Puts a single value.
    pub(crate) fn put_meta(&mut self, name: &[u8], value: &impl Serialize) {
        let db = Arc::clone(&self.state.db);
        self.encode(value);
        self.batch.put_cf(db.family(META), name, &self.scratch);
    }

    /// Writes everything that was added, in one piece, and starts over. Returns the earliest
    /// deadline among it.
    pub(crate) fn write(&mut self) -> Result<Option<u64>, StoreError> {
        let batch = std::mem::take(&mut self.batch);
        self.state
            .db
            .write(batch)
            .map_err(|error| StoreError::storage("writing the state", error))?;
        self.seen.clear();
        Ok(self.first_deadline_ms.take())
    }

    /// Encodes a value into the buffer that all encodings share.
    fn encode(&mut self, value: &impl Serialize) {
        self.scratch.clear();
        codec::encode_into(&mut self.scratch, value);
    }
}
