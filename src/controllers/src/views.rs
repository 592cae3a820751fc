//! What the loops read of the objects, shared where they agree.

mod node;
mod pod;
mod service;
mod workload;

pub use node::{Lease, Node, NodeCondition};
pub use pod::{Pod, PodPort};
pub use service::{
    Endpoint, EndpointConditions, EndpointPort, EndpointSlice, Endpoints, Service, ServicePort,
    TargetRef,
};
pub use workload::{
    Condition, Deployment, DeploymentStatus, ReplicaSet, ReplicaSetStatus, RollingUpdate, Strategy,
};

use kontiki_api::ObjectMeta;
use kontiki_reconcile::View;
use serde::Deserialize;

/// Any object, of which only the metadata is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "MetaText")]
pub struct Meta {
    /// The metadata, without annotations.
    pub metadata: ObjectMeta,
}

#[derive(Deserialize)]
struct MetaText {
    metadata: ObjectMeta,
}

impl From<MetaText> for Meta {
    fn from(t: MetaText) -> Meta {
        let mut metadata = t.metadata;
        metadata.annotations.clear();
        Meta { metadata }
    }
}

/// A namespace.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Namespace {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// Its spec.
    pub spec: NamespaceSpec,
    /// Its status.
    pub status: NamespaceStatus,
}

impl Namespace {
    /// Whether things can be created in it.
    pub fn is_active(&self) -> bool {
        !self.metadata.is_deleting() && self.status.phase != "Terminating"
    }
}

/// The spec of a namespace.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NamespaceSpec {
    /// Who has to agree before it is gone.
    #[serde(deserialize_with = "kontiki_api::meta::null_is_default")]
    pub finalizers: Vec<String>,
}

/// The status of a namespace.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NamespaceStatus {
    /// `Active` or `Terminating`.
    pub phase: String,
    /// Its conditions.
    #[serde(deserialize_with = "kontiki_api::meta::null_is_default")]
    pub conditions: Vec<Condition>,
}

/// A config map.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ConfigMap {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// Its data.
    #[serde(deserialize_with = "kontiki_api::meta::null_is_default")]
    pub data: std::collections::BTreeMap<String, String>,
}

macro_rules! views {
    ($($name:ty),*) => {
        $(impl View for $name {
            fn metadata(&self) -> &ObjectMeta {
                &self.metadata
            }
        })*
    };
}

views!(
    Meta,
    Namespace,
    ConfigMap,
    Pod,
    Node,
    Lease,
    Deployment,
    ReplicaSet,
    Service,
    EndpointSlice,
    Endpoints
);
