//! The pod network of a node: what the CNI plugins need to connect pods to a bridge, and what the kernel needs to forward for them.
//!
//! Entry point: [`PodNetwork::start`]. It waits for the node's `spec.podCIDR`, then lets pods of the node forward and masquerade, and
//! writes the CNI configuration, in that order: what runs pods starts when the configuration is there.
//!
//! Invariants: the range is the controllers' to allocate; until the node has one its network is not ready, and says why.
//! Fail static: everything stays when this process ends; only [`cleanup`] removes it. This crate touches no service and no
//! policy, and no packet filter table but its own.

pub mod cni;
pub mod network;

pub use cni::CniError;
pub use network::{NetworkConfig, NetworkError, PodNetwork, Status, cleanup};
