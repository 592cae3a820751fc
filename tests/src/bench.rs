//! The measurements behind `make bench`.

pub mod http;
pub mod node;
pub mod server;
pub mod watchers;
