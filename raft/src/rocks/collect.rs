//! Removes the history that a compaction has made unreadable, in small steps, behind the writers.
//!
//! What is removed cannot be read any more on any master, so each does it in its own time.

use rocksdb::WriteBatch;

use super::state::{ChangeRow, State, damaged};
use super::{CHANGES, META, UNDO, keys};
use crate::{Revision, StoreError, codec};

impl State {
    /// Removes about `rows_max` rows of compacted history. True when there may be more.
    pub(crate) fn collect(&self, rows_max: usize) -> Result<bool, StoreError> {
        let compacted = self.compacted();
        let collected = self.collected();
        if collected >= compacted {
            return Ok(false);
        }
        let changes = self.db.family(CHANGES);
        let mut batch = WriteBatch::default();
        let mut rows = self.db.raw().raw_iterator_cf(changes);
        rows.seek(keys::change(collected.next(), 0));
        let mut looked_at = 0;
        let mut upto = compacted;
        let mut last = Revision::ZERO;
        while let Some((row, value)) = rows.item() {
            let revision = keys::change_revision(row)
                .ok_or_else(|| damaged("a change row", &"its key is too short"))?;
            if revision > compacted {
                break;
            }
            if looked_at >= rows_max && revision > last {
                upto = last;
                break;
            }
            last = revision;
            looked_at += 1;
            let change: ChangeRow =
                codec::decode(value).map_err(|error| damaged("a change row", &error))?;
            batch.delete_cf(self.db.family(UNDO), keys::undo(&change.key, revision));
            rows.next();
        }
        rows.status()
            .map_err(|error| StoreError::storage("reading history to remove", error))?;
        batch.delete_range_cf(
            changes,
            keys::change(collected.next(), 0),
            keys::change(upto.next(), 0),
        );
        batch.put_cf(
            self.db.family(META),
            keys::META_COLLECTED,
            codec::encode(&upto),
        );
        fail::fail_point!("collect-before-write");
        self.db
            .write(batch)
            .map_err(|error| StoreError::storage("removing history", error))?;
        fail::fail_point!("collect-after-write");
        self.set_collected(upto);
        Ok(upto < compacted)
    }
}
