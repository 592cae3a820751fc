//! What a Raft entry carries, and what applying it answers. Both are replicated or stored: see `codec`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Revision, Txn, TxnOutcome};

/// The contents of one Raft entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Transactions, applied one after the other, each with its own revision and answer.
    Txns {
        /// The proposer's clock.
        time_ms: u64,
        /// The transactions, in the order in which they came.
        txns: Vec<Txn>,
    },
    /// Remove the history up to a revision.
    Compact {
        /// The newest revision whose changes go.
        to: Revision,
    },
    /// Delete keys whose time to live has run out.
    Expire {
        /// The proposer's clock.
        time_ms: u64,
        /// How many keys at most.
        keys_max: u32,
    },
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Txns { txns, .. } => write!(f, "{} transactions", txns.len()),
            Command::Compact { to } => write!(f, "compaction to {to}"),
            Command::Expire { time_ms, .. } => write!(f, "expiry at {time_ms}"),
        }
    }
}

/// What applying an entry answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The entry carried no command.
    Nothing,
    /// One outcome for each transaction.
    Txns(Vec<TxnOutcome>),
    /// The newest revision whose changes are gone.
    Compacted(Revision),
    /// How many keys were deleted.
    Expired(u32),
}
