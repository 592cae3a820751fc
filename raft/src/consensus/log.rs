//! The Raft log in the database, with its newest entries in memory.
//!
//! Appended entries can be read at once, from memory; they leave it when they are durable and
//! applied, so that applying never reads or decodes what was just written.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use parking_lot::Mutex;
use rocksdb::{ReadOptions, WriteBatch};
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use super::log_thread::{Done, Job, LogThread};
use super::{Entry, LogId, Types, Vote};
use crate::codec;
use crate::rocks::{Db, LOG, META, keys};

/// The log. Clones are the same log.
#[derive(Clone)]
pub(crate) struct Log {
    shared: Arc<Shared>,
}

struct Shared {
    db: Arc<Db>,
    thread: LogThread,
    state: Mutex<Known>,
}

/// What is known of the log without reading it.
struct Known {
    purged: Option<LogId>,
    last: Option<LogId>,
    vote: Option<Vote>,
    /// The newest entries, without gaps, up to the last.
    recent: VecDeque<Entry>,
}

impl Known {
    fn forget_upto(&mut self, index: u64) {
        while self
            .recent
            .front()
            .is_some_and(|entry| entry.log_id.index <= index)
        {
            self.recent.pop_front();
        }
    }
}

impl Log {
    /// Opens the log in the database, and checks that no entry is missing from its middle.
    pub(crate) fn open(db: Arc<Db>, thread: LogThread) -> io::Result<Log> {
        let purged: Option<LogId> = read_meta(&db, keys::META_PURGED)?;
        let vote: Option<Vote> = read_meta(&db, keys::META_VOTE)?;
        let last = check_entries(&db, purged.as_ref())?.or(purged);
        Ok(Log {
            shared: Arc::new(Shared {
                db,
                thread,
                state: Mutex::new(Known {
                    purged,
                    last,
                    vote,
                    recent: VecDeque::new(),
                }),
            }),
        })
    }

    /// Entries in the log.
    pub(crate) fn len(&self) -> u64 {
        let state = self.shared.state.lock();
        let last = state.last.map_or(0, |id| id.index + 1);
        let first = state.purged.map_or(0, |id| id.index + 1);
        last.saturating_sub(first)
    }

    /// Lets go of entries in memory that have been applied, and so are durable.
    pub(crate) fn applied(&self, index: u64) {
        self.shared.state.lock().forget_upto(index);
    }

    /// Writes, and waits until it is done.
    async fn write(
        &self,
        durable: bool,
        fill: impl FnOnce(&Db, &mut WriteBatch) + Send + 'static,
    ) -> io::Result<()> {
        let (done, written) = oneshot::channel();
        self.shared.thread.send(Job {
            fill: Box::new(fill),
            durable,
            done: Done::Caller(done),
        })?;
        written
            .await
            .map_err(|_| io::Error::other("the log thread has ended"))?
    }

    /// Entries `start..end`, as far as the log has them.
    fn entries(&self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let mut recent = Vec::new();
        let mut stored_end = end;
        {
            let state = self.shared.state.lock();
            if let Some(first) = state.recent.front().map(|entry| entry.log_id.index) {
                let skip = usize::try_from(start.saturating_sub(first)).unwrap_or(usize::MAX);
                recent.extend(
                    state
                        .recent
                        .iter()
                        .skip(skip)
                        .take_while(|entry| entry.log_id.index < end)
                        .cloned(),
                );
                stored_end = end.min(first);
            }
        }
        if start >= stored_end {
            return Ok(recent);
        }
        let mut entries = self.stored(start, stored_end)?;
        entries.append(&mut recent);
        Ok(entries)
    }

    fn stored(&self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(keys::log(end));
        let db = &self.shared.db;
        let mut rows = db.raw().raw_iterator_cf_opt(db.family(LOG), options);
        rows.seek(keys::log(start));
        let mut entries = Vec::new();
        while let Some(value) = rows.value() {
            entries.push(codec::decode(value).map_err(damaged)?);
            rows.next();
        }
        rows.status().map_err(io::Error::other)?;
        Ok(entries)
    }
}

/// The last entry's id. An entry that is missing between the first and the last is an error.
fn check_entries(db: &Db, purged: Option<&LogId>) -> io::Result<Option<LogId>> {
    let mut expected = purged.map_or(0, |id| id.index + 1);
    let mut rows = db.raw().raw_iterator_cf(db.family(LOG));
    // Entries that a purge has marked as gone may still lie before the first one.
    rows.seek(keys::log(expected));
    while let Some(key) = rows.key() {
        let index = keys::log_index(key)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a log key is malformed"))?;
        if index != expected {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the log lacks entry {expected}: the next one is {index}"),
            ));
        }
        expected += 1;
        rows.next();
    }
    rows.status().map_err(io::Error::other)?;
    rows.seek_to_last();
    match rows.value() {
        Some(value) => {
            let entry: Entry = codec::decode(value).map_err(damaged)?;
            Ok(Some(entry.log_id).filter(|id| purged.is_none_or(|purged| id.index > purged.index)))
        }
        None => {
            rows.status().map_err(io::Error::other)?;
            Ok(None)
        }
    }
}

/// A single value, if it has been written.
pub(crate) fn read_meta<T: DeserializeOwned>(db: &Db, name: &[u8]) -> io::Result<Option<T>> {
    db.raw()
        .get_pinned_cf(db.family(META), name)
        .map_err(io::Error::other)?
        .map(|bytes| codec::decode(&bytes).map_err(damaged))
        .transpose()
}

fn damaged(error: codec::CodecError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.entries(start, end)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared.state.lock().vote)
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Log;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let state = self.shared.state.lock();
        Ok(LogState {
            last_purged_log_id: state.purged,
            last_log_id: state.last,
        })
    }

    async fn get_log_reader(&mut self) -> Log {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let row = codec::encode(vote);
        self.write(true, move |db, batch| {
            batch.put_cf(db.family(META), keys::META_VOTE, row);
        })
        .await?;
        self.shared.state.lock().vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut rows = Vec::new();
        {
            let mut state = self.shared.state.lock();
            for entry in entries {
                rows.push((entry.log_id.index, codec::encode(&entry)));
                state.last = Some(entry.log_id);
                state.recent.push_back(entry);
            }
        }
        self.shared.thread.send(Job {
            fill: Box::new(move |db, batch| {
                for (index, row) in rows {
                    batch.put_cf(db.family(LOG), keys::log(index), row);
                }
            }),
            durable: true,
            done: Done::Appended(callback),
        })
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let first_gone = last.map_or(0, |id| id.index + 1);
        {
            let mut state = self.shared.state.lock();
            while state
                .recent
                .back()
                .is_some_and(|entry| entry.log_id.index >= first_gone)
            {
                state.recent.pop_back();
            }
            state.last = last;
        }
        self.write(true, move |db, batch| {
            let log = db.family(LOG);
            batch.delete_range_cf(log, keys::log(first_gone), keys::log(u64::MAX));
        })
        .await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        fail::fail_point!("purge-before-write");
        {
            let mut state = self.shared.state.lock();
            state.forget_upto(upto.index);
            state.purged = Some(upto);
            if state.last.is_none_or(|last| last.index < upto.index) {
                state.last = Some(upto);
            }
        }
        // A purge that a crash takes back leaves entries that are purged again later.
        self.write(false, move |db, batch| {
            batch.delete_range_cf(db.family(LOG), keys::log(0), keys::log(upto.index + 1));
            batch.put_cf(db.family(META), keys::META_PURGED, codec::encode(&upto));
        })
        .await
    }
}
