//! The keys in the database: such that their byte order is the order in which we read.

/// Names of the single values.
pub(crate) const META_VOTE: &[u8] = b"vote";
pub(crate) const META_APPLIED: &[u8] = b"applied";
pub(crate) const META_PURGED: &[u8] = b"purged";
pub(crate) const META_COLLECTED: &[u8] = b"collected";
pub(crate) const META_SNAPSHOT: &[u8] = b"snapshot";

use crate::Revision;

/// A Raft entry's key.
pub(crate) fn log(index: u64) -> [u8; 8] {
    index.to_be_bytes()
}

pub(crate) fn log_index(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.try_into().ok()?))
}

/// The key of one change: its revision and its position in the transaction.
pub(crate) fn change(revision: Revision, position: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&revision.0.to_be_bytes());
    key[8..].copy_from_slice(&position.to_be_bytes());
    key
}

pub(crate) fn change_revision(key: &[u8]) -> Option<Revision> {
    Some(Revision(u64::from_be_bytes(key.get(..8)?.try_into().ok()?)))
}

/// The key of a deadline.
pub(crate) fn ttl(deadline_ms: u64, key: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(8 + key.len());
    row.extend_from_slice(&deadline_ms.to_be_bytes());
    row.extend_from_slice(key);
    row
}

pub(crate) fn split_ttl(row: &[u8]) -> Option<(u64, &[u8])> {
    let (deadline, key) = row.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*deadline), key))
}

/// The part of an undo key that all revisions of one key share. Zero bytes are escaped and an end
/// is put, so that one key's rows lie together and keys keep their order.
pub(crate) fn undo_prefix(key: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(key.len() + 10);
    for byte in key {
        row.push(*byte);
        if *byte == 0 {
            row.push(0xff);
        }
    }
    row.extend_from_slice(&[0, 1]);
    row
}

/// The key of what `key` held until `revision` changed it.
pub(crate) fn undo(key: &[u8], revision: Revision) -> Vec<u8> {
    let mut row = undo_prefix(key);
    row.extend_from_slice(&revision.0.to_be_bytes());
    row
}

/// The key in an undo row.
pub(crate) fn undo_key(row: &[u8]) -> Option<Vec<u8>> {
    let escaped = row.get(..row.len().checked_sub(8)?)?;
    let mut key = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.iter();
    while let Some(byte) = bytes.next() {
        if *byte != 0 {
            key.push(*byte);
            continue;
        }
        match bytes.next()? {
            0xff => key.push(0),
            1 => return bytes.next().is_none().then_some(key),
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(
            prop_oneof![Just(0u8), Just(1), Just(0xff), any::<u8>()],
            0..6,
        )
    }

    proptest! {
        #[test]
        fn undo_rows_keep_the_order_of_keys_then_revisions(
            a in key(), b in key(), at in any::<u64>(), bt in any::<u64>(),
        ) {
            let rows = undo(&a, Revision(at)).cmp(&undo(&b, Revision(bt)));
            prop_assert_eq!(rows, (&a, at).cmp(&(&b, bt)));
        }

        #[test]
        fn an_undo_row_gives_its_key_back(a in key(), at in any::<u64>()) {
            prop_assert_eq!(undo_key(&undo(&a, Revision(at))), Some(a));
        }
    }

    #[test]
    fn rows_that_are_not_ours_are_not_read() {
        assert_eq!(undo_key(b"short"), None);
        assert_eq!(undo_key(b"a\0\x02\0\0\0\0\0\0\0\0"), None);
        assert_eq!(split_ttl(b"1234567"), None);
        assert_eq!(log_index(b"123"), None);
    }
}
