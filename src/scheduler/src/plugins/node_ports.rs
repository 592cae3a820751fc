//! Two pods cannot have the same port of a node.

use super::{Plugin, Rejection};
use crate::cluster::NodeInfo;
use crate::pod::Pod;

/// Rejects a node on which a port that the pod wants is taken.
pub fn filter(pod: &Pod, info: &NodeInfo) -> Result<(), Rejection> {
    let wanted = &pod.spec.host_ports;
    if wanted.is_empty()
        || !info.pods.iter().any(|p| {
            p.spec
                .host_ports
                .iter()
                .any(|a| wanted.iter().any(|b| a.conflicts(b)))
        })
    {
        return Ok(());
    }
    Err(Rejection::crowded(
        Plugin::NodePorts,
        "node(s) didn't have free ports for the requested pod ports",
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::super::testing::{empty, node, pod};
    use super::*;

    fn with(port: &Value) -> Pod {
        pod("p", &json!({}), &json!({"containers": [{"ports": [port]}]}))
    }

    #[test]
    fn ports_conflict_by_address_protocol_and_number() {
        let (_, mut info) = empty(node("n", &json!({}), &json!({})));
        info.add(Arc::new(with(
            &json!({"hostPort": 80, "hostIP": "10.0.0.1"}),
        )));
        for (port, free) in [
            (json!({"hostPort": 80}), false),
            (json!({"hostPort": 80, "hostIP": "10.0.0.2"}), true),
            (json!({"hostPort": 80, "protocol": "UDP"}), true),
            (json!({"hostPort": 81}), true),
            (json!({"containerPort": 80}), true),
        ] {
            assert_eq!(filter(&with(&port), &info).is_ok(), free, "{port}");
        }
    }
}
