//! The one place where values become bytes for the disk and the wire, and bytes become values.
//!
//! Every encoding starts with a version byte. bincode stays behind this module, and the golden
//! bytes in its tests hold the format: a change there is a new version.

use bincode::config::{Configuration, Limit};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// The version that is written.
pub(crate) const VERSION: u8 = 1;
/// The most bytes that one value may claim while it is decoded.
const DECODED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Why bytes could not be read.
#[derive(Debug, Error)]
pub(crate) enum CodecError {
    #[error("the value is empty")]
    Empty,
    #[error("the value is in version {found}, and this program reads version {VERSION}")]
    Version { found: u8 },
    #[error("the value is malformed: {0}")]
    Malformed(bincode::error::DecodeError),
    #[error("the value has {0} bytes too many")]
    Trailing(usize),
}

fn config()
-> Configuration<bincode::config::LittleEndian, bincode::config::Varint, Limit<DECODED_BYTES_MAX>> {
    bincode::config::standard().with_limit::<DECODED_BYTES_MAX>()
}

/// Appends the encoding of a value.
pub(crate) fn encode_into<T: Serialize>(buffer: &mut Vec<u8>, value: &T) {
    buffer.push(VERSION);
    bincode::serde::encode_into_std_write(value, buffer, config())
        .expect("plain data always encodes into memory");
}

/// The encoding of a value.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut buffer = Vec::new();
    encode_into(&mut buffer, value);
    buffer
}

/// The value that was encoded.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (version, body) = bytes.split_first().ok_or(CodecError::Empty)?;
    if *version != VERSION {
        return Err(CodecError::Version { found: *version });
    }
    let (value, used) =
        bincode::serde::decode_from_slice(body, config()).map_err(CodecError::Malformed)?;
    if used != body.len() {
        return Err(CodecError::Trailing(body.len() - used));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Debug;
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;
    use openraft::impls::leader_id_std::LeaderId;
    use openraft::vote::{RaftLeaderId, RaftVote};
    use openraft::{BasicNode, EntryPayload};

    use super::*;
    use crate::command::Command;
    use crate::consensus::machine::Applied;
    use crate::consensus::{Entry, LogId, Membership, Vote};
    use crate::record::Record;
    use crate::rocks::state::{ChangeRow, Progress};
    use crate::{Op, Precondition, Revision, Txn};

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The bytes of a value never change, and it can be read back from them.
    fn golden<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T, expected: &str) {
        let bytes = encode(value);
        assert_eq!(hex(&bytes), expected, "the encoding of {value:?}");
        assert_eq!(&decode::<T>(&bytes).unwrap(), value);
    }

    fn log_id(term: u64, index: u64) -> LogId {
        let leader = LeaderId {
            term,
            voted_for: 1u64,
        };
        LogId::new(leader.to_committed(), index)
    }

    fn membership() -> Membership {
        let nodes = BTreeMap::from([(1, BasicNode::new("a:1"))]);
        let members = openraft::Membership::new(vec![[1].into()], nodes).unwrap();
        Membership::new(Some(log_id(0, 0)), members)
    }

    #[test]
    fn records_keep_their_bytes() {
        let record = Record {
            create_revision: Revision(1),
            mod_revision: Revision(300),
            expires_at_ms: 1_700_000_000_000,
            value: Bytes::from_static(b"value"),
        };
        golden(&record, "0101fb2c01fd0068e5cf8b0100000576616c7565");
        let row = ChangeRow {
            key: Bytes::from_static(b"k"),
            put: true,
        };
        golden(&row, "0101 6b01".replace(' ', "").as_str());
        golden(&Revision(7), "0107");
    }

    #[test]
    fn entries_keep_their_bytes() {
        let txn = Txn {
            preconditions: vec![
                Precondition::ModRevision {
                    key: "a".into(),
                    revision: Revision(9),
                },
                Precondition::Exists { key: "b".into() },
                Precondition::Absent { key: "c".into() },
            ],
            ops: vec![
                Op::Put {
                    key: "a".into(),
                    value: "v".into(),
                    ttl: Some(Duration::from_millis(1500)),
                },
                Op::Delete { key: "b".into() },
            ],
        };
        let entry = |payload| Entry {
            log_id: log_id(2, 3),
            payload,
        };
        let txns = Arc::new(Command::Txns {
            time_ms: 5,
            txns: vec![txn],
        });
        golden(
            &entry(EntryPayload::Normal(txns)),
            "010203010005010300016109010162020163020001610176010 1fc0065cd1d010162"
                .replace(' ', "")
                .as_str(),
        );
        let compact = Arc::new(Command::Compact { to: Revision(4) });
        golden(&entry(EntryPayload::Normal(compact)), "010203010104");
        let expire = Arc::new(Command::Expire {
            time_ms: 5,
            keys_max: 6,
        });
        golden(&entry(EntryPayload::Normal(expire)), "01020301020506");
        golden(&entry(EntryPayload::Blank), "01020300");
        let members = membership().membership().clone();
        golden(
            &entry(EntryPayload::Membership(members)),
            "01020302010101010103613a31",
        );
    }

    #[test]
    fn positions_keep_their_bytes() {
        let leader = LeaderId {
            term: 2,
            voted_for: 1,
        };
        golden(
            &<Vote as RaftVote>::from_leader_id(leader, true),
            "0102010101",
        );
        golden(&log_id(2, 3), "010203");
        let applied = Applied {
            last: Some(log_id(2, 3)),
            membership: membership(),
            progress: Progress {
                revision: Revision(5),
                compacted: Revision(4),
                time_ms: 6,
            },
        };
        golden(
            &applied,
            "0101020301000001010101010 3613a31050406"
                .replace(' ', "")
                .as_str(),
        );
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        assert!(matches!(decode::<Revision>(&[]), Err(CodecError::Empty)));
        assert!(matches!(
            decode::<Revision>(&[2, 7]),
            Err(CodecError::Version { found: 2 })
        ));
        assert!(matches!(
            decode::<Revision>(&[1, 7, 0]),
            Err(CodecError::Trailing(1))
        ));
        assert!(matches!(
            decode::<Revision>(&[1]),
            Err(CodecError::Malformed(_))
        ));
        // A length that promises more than there can be is not believed.
        let huge = [
            1, 1, 1, 0, 253, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
        ];
        assert!(matches!(
            decode::<Record>(&huge),
            Err(CodecError::Malformed(_))
        ));
    }
}
