//! Cluster DNS, answered on every node.
