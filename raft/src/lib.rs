//! The replicated, revisioned byte store.
//!
//! **Job.** Keeps ordered keys with their values, agrees on every write with the other masters
//! through Raft, makes it durable, and remembers enough of the past to read earlier revisions and
//! to follow changes from any of them. [`Store`] is the interface; [`RaftStore::open`] opens the
//! real one, [`memory`] makes one for tests, and [`conformance`] holds both to the same behaviour.
//!
//! **How a write goes.** A transaction waits in a queue with its neighbours; together they become
//! one Raft entry, written and synced once. When the entry is committed each transaction is judged
//! and applied with a revision of its own; observers are told, then the writer is answered.
//!
//! **Invariants.**
//! - A write that was answered survives any crash; one that was not is there completely or not at
//!   all. Errors say which of the two is known ([`StoreError::fate`]).
//! - Revisions are cluster-wide and have no gaps: every transaction that changes something takes the
//!   next one.
//! - Applying is deterministic: time comes in with the entry, and nothing depends on the order of a
//!   hash table, on chance or on the machine.
//! - An observer has seen a change before its writer gets the answer.
//! - All bytes on disk begin with a version, or lie in a directory whose marker has one.
//! - Every queue has a limit in [`limits`], and an answer for when it is reached.
//!
//! **What it must never know.** Kubernetes: keys and values are bytes. And nobody outside learns
//! that there is openraft or RocksDB in here.

mod codec;
mod command;
pub mod conformance;
mod consensus;
mod datadir;
mod error;
mod hub;
mod judge;
pub mod limits;
mod memory;
mod metrics;
mod raft_store;
mod record;
mod rocks;
mod store;
mod types;
mod watch;

pub use error::{OpenError, StoreError, WriteFate};
pub use hub::Observation;
pub use limits::WATCH_QUEUE_CHANGES_MAX;
pub use memory::{MemoryStore, memory};
pub use metrics::{COUNT_BUCKETS, HistogramSnapshot, SECONDS_BUCKETS, StoreMetrics};
pub use raft_store::{RaftStore, StoreConfig};
pub use store::{Observer, Store};
pub use types::{Change, KeyValue, Op, Precondition, Range, RangePage, Revision, Txn, TxnOutcome};
pub use watch::WatchStream;
