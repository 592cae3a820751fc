//! A pod that names its node goes there or nowhere.

use super::{Plugin, Rejection};
use crate::node::Node;
use crate::pod::Pod;

/// Rejects every node but the one that the pod names.
pub fn filter(pod: &Pod, node: &Node) -> Result<(), Rejection> {
    if pod.node_name.is_empty() || pod.node_name == node.metadata.name {
        return Ok(());
    }
    Err(Rejection::lasting(
        Plugin::NodeName,
        "node(s) didn't match the requested node name",
    ))
}
