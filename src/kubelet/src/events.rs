//! What events are about: pods, their containers, the node.

use kontiki_api::catalogue::known;
use kontiki_reconcile::events::ObjectRef;

use crate::pod::Pod;

/// A pod.
pub fn pod(pod: &Pod) -> ObjectRef {
    ObjectRef::new(known::pods(), &pod.metadata)
}

/// A container of a pod.
pub fn container(p: &Pod, name: &str) -> ObjectRef {
    let list = if p.container(name).is_some_and(|(_, init)| init) {
        "initContainers"
    } else {
        "containers"
    };
    ObjectRef {
        field_path: format!("spec.{list}{{{name}}}"),
        ..pod(p)
    }
}

/// The node. Tools find its events by the name in place of a uid.
pub fn node(name: &str) -> ObjectRef {
    ObjectRef {
        api_version: "v1".into(),
        kind: "Node",
        name: name.to_owned(),
        uid: name.to_owned(),
        ..ObjectRef::default()
    }
}
