//! [`Node`]: what the scheduler reads of a node.

use kontiki_api::ObjectMeta;
use kontiki_api::meta::null_is_default;
use kontiki_api::taints::Taint;
use kontiki_reconcile::View;
use serde::Deserialize;

use crate::resources::{ResourceList, Resources};

/// A node, as the scheduler sees it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "NodeText")]
pub struct Node {
    /// Its metadata, without annotations.
    pub metadata: ObjectMeta,
    /// Whether it was cordoned.
    pub unschedulable: bool,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// What pods can have of it.
    pub allocatable: Resources,
    /// How many pods it takes.
    pub pods_max: i64,
}

impl Node {
    /// Whether something that decides about pods differs; heartbeats do not.
    pub fn differs(&self, other: &Node) -> bool {
        self.unschedulable != other.unschedulable
            || self.taints != other.taints
            || self.allocatable != other.allocatable
            || self.pods_max != other.pods_max
            || self.metadata.labels != other.metadata.labels
    }
}

#[derive(Deserialize)]
struct NodeText {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: SpecText,
    #[serde(default)]
    status: StatusText,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SpecText {
    unschedulable: bool,
    #[serde(deserialize_with = "null_is_default")]
    taints: Vec<Taint>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StatusText {
    #[serde(deserialize_with = "null_is_default")]
    allocatable: ResourceList,
}

impl From<NodeText> for Node {
    fn from(t: NodeText) -> Node {
        let mut metadata = t.metadata;
        metadata.annotations.clear();
        let pods = t
            .status
            .allocatable
            .get("pods")
            .and_then(|p| p.parse::<kontiki_api::Quantity>().ok());
        Node {
            metadata,
            unschedulable: t.spec.unschedulable,
            taints: t.spec.taints,
            allocatable: Resources::read(&t.status.allocatable),
            pods_max: pods.map_or(0, kontiki_api::Quantity::units),
        }
    }
}

impl View for Node {
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
}
