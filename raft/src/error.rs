//! What can go wrong, and whether a write that failed may have happened all the same.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::Revision;

/// What is known about a write that was answered with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteFate {
    /// It was not written and never will be.
    NotWritten,
    /// It may have been written, or may still be: read before you try again.
    Unknown,
}

/// Why an operation of the store failed.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The write queue stayed full for as long as a writer waits; nothing was written.
    #[error("the store is overloaded: no room in the write queue after {waited:?}")]
    Overloaded {
        /// How long the writer waited for room.
        waited: Duration,
    },
    /// Another master leads, or none does; nothing was written.
    #[error("this master does not lead the store (leader: {})", leader.map_or_else(|| "unknown".to_owned(), |id| id.to_string()))]
    NotLeader {
        /// The node id of the leader, if one is known.
        leader: Option<u64>,
    },
    /// The answer to a write was lost with the leadership or with the store; it may have happened.
    #[error("the outcome of the write is unknown: {reason}")]
    OutcomeUnknown {
        /// What happened to the answer.
        reason: String,
    },
    /// The history before a revision has been removed.
    #[error("revision {requested} has been compacted: history starts after {compacted}")]
    Compacted {
        /// The revision that was asked for.
        requested: Revision,
        /// The newest revision whose changes are gone; the state at it can still be read.
        compacted: Revision,
    },
    /// The revision has not happened yet on this master.
    #[error("revision {requested} is in the future: this master is at {current}")]
    FutureRevision {
        /// The revision that was asked for.
        requested: Revision,
        /// The newest revision that this master has applied.
        current: Revision,
    },
    /// A watcher did not take its changes in time and was cut off.
    #[error("the watch fell behind by more than {limit} changes and was ended")]
    Lagged {
        /// How many changes a watch may have waiting.
        limit: usize,
    },
    /// The request breaks one of the store's limits or rules; nothing was written.
    #[error("invalid request: {reason}")]
    Invalid {
        /// Which rule, and by how much.
        reason: String,
    },
    /// The store cannot serve now: no quorum confirmed the read, or the store's disk has failed. A
    /// write that is answered with this was not written.
    #[error("the store is unavailable: {reason}")]
    Unavailable {
        /// What is missing.
        reason: String,
    },
    /// The store has been shut down; nothing was written.
    #[error("the store is closed")]
    Closed,
    /// The disk or the database failed.
    #[error("storage failed while {operation}: {reason}")]
    Storage {
        /// What was being done.
        operation: &'static str,
        /// What the database said.
        reason: String,
    },
}

impl StoreError {
    /// What this error says about a write that it answers.
    pub fn fate(&self) -> WriteFate {
        match self {
            StoreError::OutcomeUnknown { .. } | StoreError::Storage { .. } => WriteFate::Unknown,
            StoreError::Overloaded { .. }
            | StoreError::NotLeader { .. }
            | StoreError::Compacted { .. }
            | StoreError::FutureRevision { .. }
            | StoreError::Lagged { .. }
            | StoreError::Invalid { .. }
            | StoreError::Unavailable { .. }
            | StoreError::Closed => WriteFate::NotWritten,
        }
    }

    pub(crate) fn storage(operation: &'static str, error: impl std::fmt::Display) -> StoreError {
        StoreError::Storage {
            operation,
            reason: error.to_string(),
        }
    }

    pub(crate) fn invalid(reason: impl Into<String>) -> StoreError {
        StoreError::Invalid {
            reason: reason.into(),
        }
    }
}

/// Why a data directory could not be opened. Nothing in the directory has been changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory holds something else.
    #[error(
        "{} is not empty and not a Kontiki data directory (no {marker} file in it): choose another \
         data directory, or move what is in this one away",
        path.display()
    )]
    Foreign {
        /// The data directory.
        path: PathBuf,
        /// The name of the file that marks a data directory.
        marker: &'static str,
    },
    /// The file that marks the directory cannot be understood.
    #[error(
        "{} is damaged ({reason}): restore the data directory from a backup, or move it away to \
         start an empty one",
        path.display()
    )]
    CorruptMarker {
        /// The marker file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A newer program wrote the directory.
    #[error(
        "{} was written in format {found}, and this program reads up to format {supported}: run \
         the newer program that wrote it",
        path.display()
    )]
    NewerFormat {
        /// The data directory.
        path: PathBuf,
        /// The format that it is in.
        found: u32,
        /// The newest format that this program reads.
        supported: u32,
    },
    /// The directory belongs to another cluster or another node.
    #[error(
        "{} belongs to {what} {found:?}, and this one is {expected:?}: point the program to its own \
         data directory",
        path.display()
    )]
    OtherOwner {
        /// The data directory.
        path: PathBuf,
        /// What differs: the cluster or the node id.
        what: &'static str,
        /// Whose directory it is.
        found: String,
        /// Who asked for it.
        expected: String,
    },
    /// Another process has it open.
    #[error("{} is in use by another process: stop that one first", path.display())]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// The database is missing or broken.
    #[error(
        "the database in {} is damaged ({reason}): restore the data directory from a backup, or \
         move it away to start an empty one",
        path.display()
    )]
    CorruptDatabase {
        /// The database's directory.
        path: PathBuf,
        /// What the database says about it.
        reason: String,
    },
    /// A value of the configuration cannot be used.
    #[error("invalid store configuration: {reason}")]
    InvalidConfig {
        /// Which value, and why.
        reason: String,
    },
    /// The operating system refused something.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The replication engine did not start.
    #[error("cannot start replication: {reason}")]
    Start {
        /// What it said.
        reason: String,
    },
}
