//! Reading the state: now, at an earlier revision, and as a sequence of changes.
//!
//! A key's state at revision R is what the first change after R found there, or, if there was no
//! such change, what the key holds now. So history keeps only what was overwritten, under the
//! revision that overwrote it.

use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{DBRawIterator, ReadOptions, Snapshot};

use super::state::{ChangeRow, Progress, State, damaged, decode_record};
use super::{CHANGES, CURRENT, META, UNDO, keys};
use crate::codec;
use crate::consensus::machine::Applied;
use crate::hub::{History, Past, Scan};
use crate::record::Record;
use crate::{Change, KeyValue, Range, RangePage, Revision, StoreError};

impl State {
    pub(crate) fn get_at(&self, key: &[u8], at: Revision) -> Result<Option<Record>, StoreError> {
        let view = self.view()?;
        view.check(at)?;
        view.record_at(key, at)
    }

    pub(crate) fn range(
        &self,
        range: &Range,
        at: Option<Revision>,
        limit: usize,
    ) -> Result<RangePage, StoreError> {
        let view = self.view()?;
        let revision = at.unwrap_or(view.revision);
        view.check(revision)?;
        let limit = if limit == 0 { usize::MAX } else { limit };
        let mut page = RangePage {
            kvs: Vec::new(),
            revision,
            more: false,
            remaining: 0,
        };
        if range.is_empty() {
            return Ok(page);
        }
        if revision == view.revision {
            view.page_now(range, limit, &mut page)?;
        } else {
            view.page_at(range, revision, limit, &mut page)?;
        }
        page.more = page.remaining > 0;
        Ok(page)
    }

    /// One consistent state of the database, with the history that is removed at the time.
    fn view(&self) -> Result<ViewAt<'_>, StoreError> {
        let snapshot = self.db.raw().snapshot();
        // Read after the snapshot is taken: what was removed before it is covered, and what is
        // removed later is still in it.
        let compacted = self.compacted();
        let revision = snapshot
            .get_pinned_cf(self.db.family(META), keys::META_APPLIED)
            .map_err(|error| StoreError::storage("reading the revision", error))?
            .map(|bytes| codec::decode::<Applied>(&bytes))
            .transpose()
            .map_err(|error| damaged("the applied state", &error))?
            .map_or(Revision::ZERO, |applied| {
                let Progress { revision, .. } = applied.progress;
                revision
            });
        Ok(ViewAt {
            state: self,
            snapshot,
            revision,
            compacted,
        })
    }
}

struct ViewAt<'a> {
    state: &'a State,
    snapshot: Snapshot<'a>,
    revision: Revision,
    compacted: Revision,
}

impl ViewAt<'_> {
    fn check(&self, at: Revision) -> Result<(), StoreError> {
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
        Ok(())
    }

    fn current(&self, key: &[u8]) -> Result<Option<Record>, StoreError> {
        self.snapshot
            .get_pinned_cf(self.state.db.family(CURRENT), key)
            .map_err(|error| StoreError::storage("reading a key", error))?
            .map(|bytes| decode_record(&bytes))
            .transpose()
    }

    fn record_at(&self, key: &[u8], at: Revision) -> Result<Option<Record>, StoreError> {
        let record = match self.overwritten_after(key, at)? {
            Some(overwritten) => Some(overwritten),
            None => self.current(key)?,
        };
        Ok(record.filter(|record| record.mod_revision <= at))
    }

    /// What the first change of the key after `at` found there.
    fn overwritten_after(&self, key: &[u8], at: Revision) -> Result<Option<Record>, StoreError> {
        let mut undo = self.rows(UNDO, None);
        undo.seek(keys::undo(key, at.next()));
        first_of(&undo, &keys::undo_prefix(key))
    }

    fn rows(&self, family: &'static str, end: Option<Vec<u8>>) -> DBRawIterator<'_> {
        let mut options = ReadOptions::default();
        if let Some(end) = end {
            options.set_iterate_upper_bound(end);
        }
        self.snapshot
            .raw_iterator_cf_opt(self.state.db.family(family), options)
    }

    fn page_now(
        &self,
        range: &Range,
        limit: usize,
        page: &mut RangePage,
    ) -> Result<(), StoreError> {
        let mut rows = self.rows(CURRENT, range.end.as_ref().map(|end| end.to_vec()));
        rows.seek(&range.start);
        while let Some((key, value)) = rows.item() {
            if page.kvs.len() < limit {
                let record = decode_record(value)?;
                page.kvs
                    .push(record.into_key_value(Bytes::copy_from_slice(key)));
            } else {
                page.remaining += 1;
            }
            rows.next();
        }
        finished(&rows)
    }

    fn page_at(
        &self,
        range: &Range,
        at: Revision,
        limit: usize,
        page: &mut RangePage,
    ) -> Result<(), StoreError> {
        let mut current = self.rows(CURRENT, range.end.as_ref().map(|end| end.to_vec()));
        let mut undo = self.rows(UNDO, range.end.as_ref().map(|end| keys::undo_prefix(end)));
        current.seek(&range.start);
        undo.seek(keys::undo_prefix(&range.start));
        loop {
            let changed = match undo.key() {
                Some(row) => Some(
                    keys::undo_key(row)
                        .ok_or_else(|| damaged("an undo row", &"its key is malformed"))?,
                ),
                None => None,
            };
            let key = match (current.key(), changed.as_deref()) {
                (None, None) => break,
                (Some(key), None) | (None, Some(key)) => key.to_vec(),
                (Some(now), Some(changed)) => now.min(changed).to_vec(),
            };
            let mut record = None;
            if changed.as_deref() == Some(key.as_slice()) {
                let prefix = keys::undo_prefix(&key);
                undo.seek(keys::undo(&key, at.next()));
                record = first_of(&undo, &prefix)?;
                while undo.key().is_some_and(|row| row.starts_with(&prefix)) {
                    undo.seek(keys::undo(&key, Revision(u64::MAX)));
                }
            }
            if let Some((_, value)) = current.item().filter(|(now, _)| *now == key) {
                if record.is_none() {
                    record = Some(decode_record(value)?);
                }
                current.next();
            }
            if let Some(record) = record.filter(|record| record.mod_revision <= at) {
                if page.kvs.len() < limit {
                    page.kvs.push(record.into_key_value(Bytes::from(key)));
                } else {
                    page.remaining += 1;
                }
            }
        }
        finished(&current)?;
        finished(&undo)
    }

    fn change(&self, revision: Revision, row: ChangeRow) -> Result<Change, StoreError> {
        let undo = self.state.db.family(UNDO);
        let previous = self
            .snapshot
            .get_pinned_cf(undo, keys::undo(&row.key, revision))
            .map_err(|error| StoreError::storage("reading history", error))?
            .map(|bytes| decode_record(&bytes))
            .transpose()?;
        let new = if row.put {
            let record = self
                .record_at(&row.key, revision)?
                .filter(|record| record.mod_revision == revision)
                .ok_or_else(|| {
                    damaged(
                        "history",
                        &format!("revision {revision} has lost its value"),
                    )
                })?;
            Some(record)
        } else {
            None
        };
        let create_revision = new
            .as_ref()
            .or(previous.as_ref())
            .map_or(Revision::ZERO, |record| record.create_revision);
        Ok(Change {
            revision,
            value: new.map(|record| record.value),
            previous: previous.map(|record| record.into_key_value(row.key.clone())),
            key: row.key,
            create_revision,
        })
    }
}

/// The record in the row that an undo iterator stands at, if the row is of the key with this prefix.
fn first_of(undo: &DBRawIterator<'_>, prefix: &[u8]) -> Result<Option<Record>, StoreError> {
    match undo.item() {
        Some((row, value)) if row.starts_with(prefix) => decode_record(value).map(Some),
        Some(_) => Ok(None),
        None => finished(undo).map(|()| None),
    }
}

fn finished(rows: &DBRawIterator<'_>) -> Result<(), StoreError> {
    rows.status()
        .map_err(|error| StoreError::storage("iterating", error))
}

impl History for State {
    fn scan(&self, range: &Range, scan: &mut Scan<'_>) -> Result<(), StoreError> {
        let view = self.view()?;
        let mut rows = view.rows(CURRENT, range.end.as_ref().map(|end| end.to_vec()));
        rows.seek(&range.start);
        let mut error = None;
        let mut kvs = std::iter::from_fn(|| {
            let (key, value) = rows.item()?;
            let kv: Result<KeyValue, StoreError> = decode_record(value)
                .map(|record| record.into_key_value(Bytes::copy_from_slice(key)));
            match kv {
                Ok(kv) => {
                    rows.next();
                    Some(kv)
                }
                Err(damage) => {
                    error = Some(damage);
                    None
                }
            }
        });
        if range.is_empty() {
            scan(&mut std::iter::empty(), view.revision);
        } else {
            scan(&mut kvs, view.revision);
        }
        match error {
            Some(damage) => Err(damage),
            None => finished(&rows),
        }
    }

    fn changes(
        &self,
        range: &Range,
        from: Revision,
        to: Revision,
        rows_max: usize,
    ) -> Result<Past, StoreError> {
        let view = self.view()?;
        if from <= view.compacted {
            return Err(StoreError::Compacted {
                requested: from,
                compacted: view.compacted,
            });
        }
        let mut rows = view.rows(CHANGES, Some(keys::change(to.next(), 0).to_vec()));
        rows.seek(keys::change(from, 0));
        let mut changes = Vec::new();
        let mut looked_at = 0;
        let mut last = from;
        while let Some((row, value)) = rows.item() {
            let revision = keys::change_revision(row)
                .ok_or_else(|| damaged("a change row", &"its key is too short"))?;
            if looked_at >= rows_max && revision > last {
                return Ok(Past {
                    changes,
                    next: revision,
                });
            }
            last = revision;
            looked_at += 1;
            let change: ChangeRow =
                codec::decode(value).map_err(|error| damaged("a change row", &error))?;
            if range.contains(&change.key) {
                changes.push(Arc::new(view.change(revision, change)?));
            }
            rows.next();
        }
        finished(&rows)?;
        Ok(Past {
            changes,
            next: to.next(),
        })
    }

    fn compacted(&self) -> Revision {
        State::compacted(self)
    }
}
