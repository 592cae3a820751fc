//! The store's limits, by name, and the check that a transaction keeps them.

use std::collections::HashSet;
use std::time::Duration;

use crate::{Op, StoreError, Txn};

/// The longest key.
pub const KEY_BYTES_MAX: usize = 4 * 1024;
/// The longest value.
pub const VALUE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The most operations in one transaction.
pub const TXN_OPS_MAX: usize = 1024;
/// The most preconditions in one transaction.
pub const TXN_PRECONDITIONS_MAX: usize = 1024;
/// The most bytes of keys and values in one transaction.
pub const TXN_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The longest time to live.
pub const TTL_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The most transactions in one Raft entry. What is over waits for the next one.
pub(crate) const BATCH_TXNS_MAX: usize = 512;
/// A Raft entry takes no further transaction once it holds this many bytes.
pub(crate) const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Transactions that wait to be proposed. At the limit a writer waits for [`QUEUE_WAIT_MAX`].
pub(crate) const QUEUE_TXNS_MAX: usize = 4096;
/// KiB of transactions that are waiting or being replicated; at the limit a writer waits.
pub(crate) const QUEUE_KIB_MAX: usize = 64 * 1024;
/// How long a writer waits for room in the queue before it is told that the store is overloaded.
pub(crate) const QUEUE_WAIT_MAX: Duration = Duration::from_secs(5);
/// Raft entries with transactions that are being replicated at the same time. While they are on
/// their way to the disk, later transactions gather in the queue and share the next entry.
pub(crate) const ENTRIES_IN_FLIGHT_MAX: usize = 2;
/// Writes of the log that wait for the log thread; at the limit the consensus waits.
pub(crate) const LOG_QUEUE_MAX: usize = 64;
/// The log is cut after this many bytes; opening a store reads at most about this much log.
pub(crate) const LOG_BYTES_BETWEEN_CUTS: u64 = 16 * 1024 * 1024;
/// Entries that stay in the log when it is cut.
pub(crate) const LOG_ENTRIES_KEPT: u64 = 16;
/// Bytes of state that one database batch collects while a long log is replayed.
pub(crate) const APPLY_BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Linearizable reads that wait for the next round; at the limit a reader waits.
pub(crate) const READS_WAITING_MAX: usize = 4096;
/// Changes that wait for one watcher; at the limit the watch is ended.
pub const WATCH_QUEUE_CHANGES_MAX: usize = 8192;
/// Rows of history that a watch reads at a time while it catches up.
pub(crate) const CATCH_UP_ROWS_MAX: usize = 256;
/// Rows of history that are removed in one step after a compaction.
pub(crate) const COLLECT_ROWS_MAX: usize = 512;
/// Keys that one entry expires; what is over comes with the next entry.
pub(crate) const EXPIRE_KEYS_MAX: u32 = 1024;
/// Expiries are looked for at most this often, so that many of them share an entry.
pub(crate) const EXPIRE_INTERVAL_MIN: Duration = Duration::from_millis(500);

/// How much of the queue a transaction takes, in bytes.
pub(crate) fn txn_bytes(txn: &Txn) -> usize {
    /// What an operation or precondition weighs beside its key and value.
    const ITEM_BYTES: usize = 32;
    let ops: usize = txn
        .ops
        .iter()
        .map(|op| {
            ITEM_BYTES
                + match op {
                    Op::Put { key, value, .. } => key.len() + value.len(),
                    Op::Delete { key } => key.len(),
                }
        })
        .sum();
    let preconditions: usize = txn
        .preconditions
        .iter()
        .map(|condition| ITEM_BYTES + condition.key().len())
        .sum();
    ops + preconditions
}

/// Refuses a transaction that breaks a limit, and returns the bytes that it weighs.
pub(crate) fn check_txn(txn: &Txn) -> Result<usize, StoreError> {
    if txn.ops.len() > TXN_OPS_MAX {
        return Err(StoreError::invalid(format!(
            "a transaction of {} operations: at most {TXN_OPS_MAX}",
            txn.ops.len()
        )));
    }
    if txn.preconditions.len() > TXN_PRECONDITIONS_MAX {
        return Err(StoreError::invalid(format!(
            "a transaction of {} preconditions: at most {TXN_PRECONDITIONS_MAX}",
            txn.preconditions.len()
        )));
    }
    for condition in &txn.preconditions {
        check_key(condition.key())?;
    }
    for op in &txn.ops {
        check_key(op.key())?;
        if let Op::Put { value, ttl, .. } = op {
            if value.len() > VALUE_BYTES_MAX {
                return Err(StoreError::invalid(format!(
                    "a value of {} bytes: at most {VALUE_BYTES_MAX}",
                    value.len()
                )));
            }
            if let Some(ttl) = ttl
                && *ttl > TTL_MAX
            {
                return Err(StoreError::invalid(format!(
                    "a time to live of {} s: at most {} s",
                    ttl.as_secs(),
                    TTL_MAX.as_secs()
                )));
            }
        }
    }
    if txn.ops.len() > 1 {
        let mut seen = HashSet::with_capacity(txn.ops.len());
        if let Some(op) = txn.ops.iter().find(|op| !seen.insert(op.key())) {
            return Err(StoreError::invalid(format!(
                "a transaction that writes the key {:?} twice",
                String::from_utf8_lossy(op.key())
            )));
        }
    }
    let bytes = txn_bytes(txn);
    if bytes > TXN_BYTES_MAX {
        return Err(StoreError::invalid(format!(
            "a transaction of {bytes} bytes: at most {TXN_BYTES_MAX}"
        )));
    }
    Ok(bytes)
}

fn check_key(key: &[u8]) -> Result<(), StoreError> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(StoreError::invalid(format!(
            "a key of {} bytes: from 1 to {KEY_BYTES_MAX}",
            key.len()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn put(key: &'static str, value: usize) -> Op {
        Op::Put {
            key: Bytes::from_static(key.as_bytes()),
            value: Bytes::from(vec![0; value]),
            ttl: None,
        }
    }

    fn txn(ops: Vec<Op>) -> Txn {
        Txn {
            preconditions: Vec::new(),
            ops,
        }
    }

    #[test]
    fn what_keeps_the_limits_passes_with_its_weight() {
        assert_eq!(check_txn(&txn(vec![put("a", 10)])).unwrap(), 43);
        assert!(check_txn(&txn(vec![put("a", VALUE_BYTES_MAX)])).is_ok());
    }

    #[test]
    fn what_breaks_a_limit_is_refused() {
        let many = (0..=TXN_OPS_MAX)
            .map(|n| Op::Delete {
                key: Bytes::from(n.to_string()),
            })
            .collect();
        for bad in [
            txn(vec![put("", 1)]),
            txn(vec![put("a", VALUE_BYTES_MAX + 1)]),
            txn(vec![put("a", 1), put("a", 2)]),
            txn(vec![put("a", VALUE_BYTES_MAX), put("b", VALUE_BYTES_MAX)]),
            txn(many),
            txn(vec![Op::Put {
                key: Bytes::from_static(b"a"),
                value: Bytes::new(),
                ttl: Some(TTL_MAX * 2),
            }]),
            txn(vec![Op::Delete {
                key: Bytes::from(vec![1; KEY_BYTES_MAX + 1]),
            }]),
        ] {
            let error = check_txn(&bad).expect_err("a limit is broken");
            assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
        }
    }
}
