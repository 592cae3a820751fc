//! What every crate needs and none should write twice: time, backoff, supervised tasks, error chains, logging, metrics.
//!
//! Entry points: [`Tasks`] (no task runs unsupervised), [`Clock`] (no loop reads the wall clock itself), [`Backoff`].
//!
//! Invariants: this crate knows nothing of Kubernetes, of Raft or of any protocol.

pub mod backoff;
pub mod chain;
pub mod clock;
pub mod logging;
pub mod metrics;
pub mod tasks;

pub use backoff::Backoff;
pub use chain::chain;
pub use clock::{Clock, FakeClock, SystemClock};
pub use metrics::Metrics;
pub use tasks::Tasks;
pub use tokio_util::sync::CancellationToken;
