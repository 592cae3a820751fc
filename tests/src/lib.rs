//! Test hosts and what tests share: a node in a network namespace of its own, kubectl, waiting for conditions, load.
//!
//! Entry points: [`host::Host`] (a namespace without a default route), [`node::Node`] (a `kontiki up` in it), [`bench`].
//!
//! Invariants: nothing here sends a packet out of the namespaces that it makes; whatever it starts it ends, by process id.

pub mod bench;
pub mod host;
pub mod node;
pub mod process;
pub mod wait;
