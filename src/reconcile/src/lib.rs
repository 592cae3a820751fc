//! How a loop sees the cluster: a cache of the objects it reads, a queue of the keys to look at, a runtime that calls it.
//!
//! Entry points: [`Api`] (where objects come from and where writes go: the store in the same process, or HTTPS),
//! [`Client`] (typed calls over it), [`Cache`] (list, then watch, kept current), [`Queue`] and [`run`] (the controller runtime).
//!
//! Invariants: a cache holds views, the few fields that its readers need, and never whole objects. A loop writes
//! patches of what it owns. This crate knows no transport and no store.

pub mod cache;
pub mod client;
pub mod controller;
pub mod events;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
pub mod queue;
pub mod source;

pub use cache::{Cache, Event, Selection, View};
pub use client::{Client, DeleteOptions, Preconditions};
pub use controller::{Outcome, Reconcile, run};
pub use events::{ObjectRef, Recorder};
pub use queue::Queue;
pub use source::{
    Api, CallError, ListPage, ListParams, PatchKind, Request, Verb, WatchEvent, WatchParams,
    WatchStream,
};
