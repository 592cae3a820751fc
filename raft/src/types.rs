//! The words of the store's interface: revisions, key-values, transactions, changes and ranges.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A point in the history of the whole store.
///
/// Every transaction that changes something takes the next revision, so revisions have no gaps and
/// order all changes. [`Revision::ZERO`] is the empty store, before any change.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl Revision {
    /// The empty store; as a key's modification revision it means that the key is absent.
    pub const ZERO: Revision = Revision(0);

    /// The revision that follows this one.
    #[must_use]
    pub const fn next(self) -> Revision {
        Revision(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A key with its value at some revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The revision that created the key; a deletion and a new put start over.
    pub create_revision: Revision,
    /// The revision that wrote this value.
    pub mod_revision: Revision,
}

/// A condition on the state in which a transaction is applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precondition {
    /// The key was last written by exactly this revision; [`Revision::ZERO`] means that it is absent.
    ModRevision {
        /// The key that is looked at.
        key: Bytes,
        /// The revision that must have written it last.
        revision: Revision,
    },
    /// The key exists.
    Exists {
        /// The key that is looked at.
        key: Bytes,
    },
    /// The key does not exist.
    Absent {
        /// The key that is looked at.
        key: Bytes,
    },
}

impl Precondition {
    /// The key that the condition looks at.
    pub fn key(&self) -> &Bytes {
        match self {
            Precondition::ModRevision { key, .. }
            | Precondition::Exists { key }
            | Precondition::Absent { key } => key,
        }
    }
}

/// One write of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Write a value, creating the key if it is absent.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
        /// How long the key lives after this write; without it the key stays until it is deleted. A
        /// later put replaces the time to live as well as the value.
        ttl: Option<Duration>,
    },
    /// Delete a key. Deleting an absent key changes nothing.
    Delete {
        /// The key.
        key: Bytes,
    },
}

impl Op {
    /// The key that the operation writes.
    pub fn key(&self) -> &Bytes {
        match self {
            Op::Put { key, .. } | Op::Delete { key } => key,
        }
    }
}

/// Writes that happen all together, if all the preconditions hold, or not at all.
///
/// A transaction writes each key at most once.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Txn {
    /// What must hold, judged in order when the transaction is applied.
    pub preconditions: Vec<Precondition>,
    /// What is written if it does.
    pub ops: Vec<Op>,
}

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TxnOutcome {
    /// The preconditions held.
    Committed {
        /// The transaction's own revision; the store's current one if it changed nothing.
        revision: Revision,
        /// What each operation's key held before, in the order of the operations.
        previous: Vec<Option<KeyValue>>,
    },
    /// A precondition did not hold; nothing was written.
    PreconditionFailed {
        /// The position of the first precondition that did not hold.
        index: usize,
        /// What that precondition's key holds.
        current: Option<KeyValue>,
        /// The store's revision when the precondition was judged.
        revision: Revision,
    },
}

/// One key's change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The revision of the transaction that made the change.
    pub revision: Revision,
    /// The key.
    pub key: Bytes,
    /// The new value, or `None` when the key was deleted or its time to live ran out.
    pub value: Option<Bytes>,
    /// What the key held before.
    pub previous: Option<KeyValue>,
    /// The revision that created the key (for a deletion, the deleted one's).
    pub create_revision: Revision,
}

/// A set of neighbouring keys: all that are at least `start` and, if there is an end, below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The first key in the range.
    pub start: Bytes,
    /// The first key after the range; `None` means up to the last key.
    pub end: Option<Bytes>,
}

impl Range {
    /// Every key.
    pub fn all() -> Range {
        Range {
            start: Bytes::new(),
            end: None,
        }
    }

    /// Every key that begins with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Range {
        let start = prefix.into();
        let end = prefix_end(&start);
        Range { start, end }
    }

    /// The keys from `start` up to, and without, `end`.
    pub fn between(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Range {
        Range {
            start: start.into(),
            end: Some(end.into()),
        }
    }

    /// The part of this range that comes after `key`, for reading the next page.
    #[must_use]
    pub fn after(&self, key: &[u8]) -> Range {
        let mut start = Vec::with_capacity(key.len() + 1);
        start.extend_from_slice(key);
        start.push(0);
        Range {
            start: Bytes::from(start).max(self.start.clone()),
            end: self.end.clone(),
        }
    }

    /// Whether the range holds `key`.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.start.as_ref() && self.end.as_ref().is_none_or(|end| key < end.as_ref())
    }

    /// Whether the range can hold no key at all.
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }
}

/// The smallest key that is greater than every key with this prefix, if there is one.
fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(Bytes::from(end))
}

/// One page of a range read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangePage {
    /// The key-values, in key order.
    pub kvs: Vec<KeyValue>,
    /// The revision at which the page was read; the next page is read at the same one.
    pub revision: Revision,
    /// Whether the range holds more keys than the limit let through.
    pub more: bool,
    /// How many more.
    pub remaining: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_after_its_last_key() {
        assert_eq!(prefix_end(b"/a/"), Some(Bytes::from_static(b"/a0")));
        assert_eq!(prefix_end(b"a\xff\xff"), Some(Bytes::from_static(b"b")));
        assert_eq!(prefix_end(b"\xff"), None);
        assert_eq!(prefix_end(b""), None);
    }

    #[test]
    fn a_range_holds_its_start_and_not_its_end() {
        let range = Range::between("b", "d");
        assert!(!range.contains(b"a"));
        assert!(range.contains(b"b"));
        assert!(range.contains(b"czz"));
        assert!(!range.contains(b"d"));
        assert!(Range::prefix("\u{7f}").contains(b"\x7f\xff"));
        assert!(Range::all().contains(b""));
    }

    #[test]
    fn the_next_page_starts_right_after_the_last_key() {
        let range = Range::prefix("/a/").after(b"/a/x");
        assert!(!range.contains(b"/a/x"));
        assert!(range.contains(b"/a/x\0"));
        assert!(!range.contains(b"/b"));
        assert_eq!(Range::prefix("/b/").after(b"/a/x").start, "/b/");
    }
}
