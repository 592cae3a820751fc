//! The strategies of the built-in kinds: what each adds to the generic engine.
//!
//! Entry point: [`strategy`]. A kind that is not listed here has the default strategy, which adds nothing.

#![cfg_attr(
    test,
    allow(
        clippy::needless_pass_by_value,
        reason = "tests hand over data that they write in place"
    )
)]

mod checks;
mod columns;
mod configmap;
mod controllerrevision;
mod cronjob;
mod csidriver;
mod csinode;
mod csistoragecapacity;
mod daemonset;
mod deployment;
mod endpoints;
mod endpointslice;
mod event;
mod ingress;
mod ingressclass;
mod ipaddress;
mod job;
mod lease;
mod limitrange;
mod namespace;
mod networkpolicy;
mod node;
mod persistentvolume;
mod persistentvolumeclaim;
mod pod;
mod pod_spec;
mod poddisruptionbudget;
mod podtemplate;
mod priorityclass;
mod replicaset;
mod replicationcontroller;
mod resourcequota;
mod role;
mod rolebinding;
mod runtimeclass;
mod secret;
mod service;
mod serviceaccount;
mod servicecidr;
mod statefulset;
mod storageclass;
#[cfg(test)]
mod testing;
mod volumeattachment;
mod volumeattributesclass;
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
        ("", "events") => &event::Event { strict: false },
        ("", "limitranges") => &limitrange::LimitRange,
        ("", "namespaces") => &namespace::Namespace,
        ("", "nodes") => &node::Node,
        ("", "persistentvolumeclaims") => &persistentvolumeclaim::PersistentVolumeClaim,
        ("", "persistentvolumes") => &persistentvolume::PersistentVolume,
        ("", "pods") => &pod::Pod,
        ("", "podtemplates") => &podtemplate::PodTemplate,
        ("", "replicationcontrollers") => &replicationcontroller::ReplicationController,
        ("", "resourcequotas") => &resourcequota::ResourceQuota,
        ("", "secrets") => &secret::Secret,
        ("", "services") => &service::Service,
        ("", "serviceaccounts") => &serviceaccount::ServiceAccount,
        ("apps", "controllerrevisions") => &controllerrevision::ControllerRevision,
        ("apps", "daemonsets") => &daemonset::DaemonSet,
        ("apps", "deployments") => &deployment::Deployment,
        ("apps", "replicasets") => &replicaset::ReplicaSet,
        ("apps", "statefulsets") => &statefulset::StatefulSet,
        ("batch", "cronjobs") => &cronjob::CronJob,
        ("batch", "jobs") => &job::Job,
        ("coordination.k8s.io", "leases") => &lease::Lease,
        ("discovery.k8s.io", "endpointslices") => &endpointslice::EndpointSlice,
        ("events.k8s.io", "events") => &event::Event { strict: true },
        ("networking.k8s.io", "ingressclasses") => &ingressclass::IngressClass,
        ("networking.k8s.io", "ingresses") => &ingress::Ingress,
        ("networking.k8s.io", "ipaddresses") => &ipaddress::IpAddress,
        ("networking.k8s.io", "networkpolicies") => &networkpolicy::NetworkPolicy,
        ("networking.k8s.io", "servicecidrs") => &servicecidr::ServiceCidr,
        ("node.k8s.io", "runtimeclasses") => &runtimeclass::RuntimeClass,
        ("policy", "poddisruptionbudgets") => &poddisruptionbudget::PodDisruptionBudget,
        ("rbac.authorization.k8s.io", "clusterrolebindings") => {
            &rolebinding::RoleBinding { namespaced: false }
        }
        ("rbac.authorization.k8s.io", "clusterroles") => &role::Role { namespaced: false },
        ("rbac.authorization.k8s.io", "rolebindings") => {
            &rolebinding::RoleBinding { namespaced: true }
        }
        ("rbac.authorization.k8s.io", "roles") => &role::Role { namespaced: true },
        ("scheduling.k8s.io", "priorityclasses") => &priorityclass::PriorityClass,
        ("storage.k8s.io", "csidrivers") => &csidriver::CsiDriver,
        ("storage.k8s.io", "csinodes") => &csinode::CsiNode,
        ("storage.k8s.io", "csistoragecapacities") => &csistoragecapacity::CsiStorageCapacity,
        ("storage.k8s.io", "storageclasses") => &storageclass::StorageClass,
        ("storage.k8s.io", "volumeattachments") => &volumeattachment::VolumeAttachment,
        ("storage.k8s.io", "volumeattributesclasses") => {
            &volumeattributesclass::VolumeAttributesClass
        }
        _ => &Plain,
    }
}
