//! Container log files: reading them in the CRI format, following them, rotating and removing them.
//!
//! Entry points: [`Reader`] reads one container's log for the node API; [`start`] keeps the files of all containers in
//! bounds.
//!
//! The runtime writes `<time> <stdout|stderr> <F|P> <text>` lines to
//! `<pod_logs_dir>/<namespace>_<name>_<uid>/<container>/<attempt>.log`. A `P` line is a piece of a line that goes on in the
//! next one of the same stream. A file that has grown large is renamed to `<attempt>.log.<time>` and the runtime is told
//! to open the path again; readers that follow notice the new inode and go over to it.
//!
//! Invariants: a reader holds a bounded buffer however long the log or its lines are. Nothing outside of the directory of
//! logs is ever removed. This part knows nothing of HTTP.

mod follow;
mod format;
mod keep;
mod tail;

pub use follow::{Alive, Reader};
pub use format::{Options, Stream};
pub use keep::start;
