//! What is kept of a key: shared by both stores.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{KeyValue, Revision};

/// A key's value with its revisions and its end of life. Stored on disk: see `codec`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) create_revision: Revision,
    pub(crate) mod_revision: Revision,
    /// When the time to live runs out, in milliseconds since 1970; 0 means never.
    pub(crate) expires_at_ms: u64,
    pub(crate) value: Bytes,
}

impl Record {
    pub(crate) fn key_value(&self, key: &Bytes) -> KeyValue {
        KeyValue {
            key: key.clone(),
            value: self.value.clone(),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
        }
    }

    pub(crate) fn into_key_value(self, key: Bytes) -> KeyValue {
        KeyValue {
            key,
            value: self.value,
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
        }
    }
}

/// The wall clock, in milliseconds since 1970. It is read where a write is proposed, never where
/// one is applied: there, time comes in with the entry.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_millis() as u64
}
