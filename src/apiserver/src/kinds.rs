//! The strategies of the built-in kinds: what each adds to the generic engine.
//!
//! Entry point: [`strategy`]. A kind that is not listed here has the default strategy, which adds nothing.

mod checks;
mod columns;
mod configmap;
mod deployment;
mod endpoints;
mod endpointslice;
mod lease;
mod namespace;
mod pod;
mod pod_spec;
mod replicaset;
mod secret;
mod serviceaccount;
#[cfg(test)]
mod testing;
mod workload;

use crate::strategy::Strategy;

/// The strategy of a kind that needs none.
struct Plain;

impl Strategy for Plain {}

/// What the kind of this resource adds to the generic engine.
pub fn strategy(group: &str, plural: &str) -> &'static dyn Strategy {
    match (group, plural) {
        ("", "configmaps") => &configmap::ConfigMap,
        ("", "endpoints") => &endpoints::Endpoints,
        ("", "namespaces") => &namespace::Namespace,
        ("", "pods") => &pod::Pod,
        ("", "secrets") => &secret::Secret,
        ("", "serviceaccounts") => &serviceaccount::ServiceAccount,
        ("apps", "deployments") => &deployment::Deployment,
        ("apps", "replicasets") => &replicaset::ReplicaSet,
        ("coordination.k8s.io", "leases") => &lease::Lease,
        ("discovery.k8s.io", "endpointslices") => &endpointslice::EndpointSlice,
        _ => &Plain,
    }
}
