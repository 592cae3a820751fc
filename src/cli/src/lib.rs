//! Operator commands over the API: `status`, `get --raw`, `apply`. They work where there is no kubectl.
//!
//! Entry points: [`status::run`], [`raw::run`], [`apply::run`]; each prints to the writer that it is given.
//!
//! Invariants: this crate sees the cluster through the public API only, and knows nothing of the machine.

pub mod apply;
pub mod raw;
pub mod status;
