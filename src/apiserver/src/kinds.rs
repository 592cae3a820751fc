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

mod admissionpolicy;
mod admissionrules;
mod apiservice;
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
mod flowcontrol;
mod flowschema;
mod horizontalpodautoscaler;
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
mod prioritylevelconfiguration;
mod replicaset;
mod replicationcontroller;
mod resourceclaim;
mod resourcequota;
mod resourceslice;
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
mod webhookconfiguration;
mod workload;

pub(crate) use daemonset::TEMPLATE_GENERATION as DAEMONSET_TEMPLATE_GENERATION;

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
        ("admissionregistration.k8s.io", "mutatingadmissionpolicies") => {
            &admissionpolicy::AdmissionPolicy { mutating: true }
        }
        ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings") => {
            &admissionpolicy::AdmissionPolicyBinding { mutating: true }
        }
        ("admissionregistration.k8s.io", "mutatingwebhookconfigurations") => {
            &webhookconfiguration::WebhookConfiguration { mutating: true }
        }
        ("admissionregistration.k8s.io", "validatingadmissionpolicies") => {
            &admissionpolicy::AdmissionPolicy { mutating: false }
        }
        ("admissionregistration.k8s.io", "validatingadmissionpolicybindings") => {
            &admissionpolicy::AdmissionPolicyBinding { mutating: false }
        }
        ("admissionregistration.k8s.io", "validatingwebhookconfigurations") => {
            &webhookconfiguration::WebhookConfiguration { mutating: false }
        }
        ("apiregistration.k8s.io", "apiservices") => &apiservice::ApiService,
        ("apps", "controllerrevisions") => &controllerrevision::ControllerRevision,
        ("apps", "daemonsets") => &daemonset::DaemonSet,
        ("apps", "deployments") => &deployment::Deployment,
        ("apps", "replicasets") => &replicaset::ReplicaSet,
        ("apps", "statefulsets") => &statefulset::StatefulSet,
        ("autoscaling", "horizontalpodautoscalers") => {
            &horizontalpodautoscaler::HorizontalPodAutoscaler
        }
        ("batch", "cronjobs") => &cronjob::CronJob,
        ("batch", "jobs") => &job::Job,
        ("coordination.k8s.io", "leases") => &lease::Lease,
        ("discovery.k8s.io", "endpointslices") => &endpointslice::EndpointSlice,
        ("events.k8s.io", "events") => &event::Event { strict: true },
        ("flowcontrol.apiserver.k8s.io", "flowschemas") => &flowschema::FlowSchema,
        ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations") => {
            &prioritylevelconfiguration::PriorityLevelConfiguration
        }
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
        ("resource.k8s.io", "deviceclasses") => &resourceslice::DeviceClass,
        ("resource.k8s.io", "resourceclaims") => &resourceclaim::ResourceClaim,
        ("resource.k8s.io", "resourceclaimtemplates") => &resourceclaim::ResourceClaimTemplate,
        ("resource.k8s.io", "resourceslices") => &resourceslice::ResourceSlice,
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

#[cfg(test)]
mod tests {
    use kontiki_api::catalogue;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use serde_json::{Map, Value, json};

    use super::strategy;

    /// How many objects each kind is tried with.
    const ROUNDS: usize = 60;
    /// Members that hooks look at.
    const KEYS: [&str; 40] = [
        "metadata",
        "labels",
        "annotations",
        "name",
        "namespace",
        "spec",
        "status",
        "template",
        "selector",
        "matchLabels",
        "containers",
        "initContainers",
        "env",
        "valueFrom",
        "fieldRef",
        "ports",
        "port",
        "volumes",
        "projected",
        "sources",
        "resources",
        "limits",
        "requests",
        "cpu",
        "strategy",
        "rollingUpdate",
        "type",
        "data",
        "stringData",
        "subsets",
        "addresses",
        "endpoints",
        "clusterIP",
        "clusterIPs",
        "taints",
        "jobTemplate",
        "rules",
        "subjects",
        "roleRef",
        "loadBalancer",
    ];

    fn arbitrary(rng: &mut StdRng, depth: usize) -> Value {
        match rng.random_range(0..if depth == 0 { 6 } else { 12 }) {
            0 => Value::Null,
            1 => rng.random_range(-1..3).into(),
            2 => rng.random_bool(0.5).into(),
            3 => "".into(),
            4 => "1".into(),
            5 => "LoadBalancer".into(),
            6 | 7 => (0..rng.random_range(0..3))
                .map(|_| arbitrary(rng, depth - 1))
                .collect(),
            _ => Value::Object(members(rng, depth - 1)),
        }
    }

    fn members(rng: &mut StdRng, depth: usize) -> Map<String, Value> {
        let count = rng.random_range(0..8);
        (0..count)
            .map(|_| {
                (
                    KEYS[rng.random_range(0..KEYS.len())].to_owned(),
                    arbitrary(rng, depth),
                )
            })
            .collect()
    }

    #[test]
    fn hooks_take_any_object_and_defaults_are_idempotent() {
        let seed = rand::random();
        eprintln!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let cx = super::testing::cx();
        for r in catalogue::all() {
            let s = strategy(r.group, r.plural);
            for _ in 0..ROUNDS {
                let mut o = Value::Object(members(&mut rng, 6));
                let raw = o.clone();
                s.default(&mut o);
                let once = o.clone();
                s.default(&mut o);
                assert_eq!(o, once, "{} of {raw}", r.plural);
                s.prepare_for_create(&cx, &mut o);
                let _ = s.admit_create(&cx, &mut o);
                s.validate(&cx, &o);
                s.prepare_for_update(&cx, &mut o, &once);
                s.validate_update(&cx, &o, &once);
                s.prepare_for_status_update(&cx, &mut o, &once);
                s.validate_status_update(&cx, &o, &once);
                s.warnings(&o, None);
                assert!(
                    s.selectable_fields()
                        .iter()
                        .all(|f| s.field(&o, f).is_some()),
                    "{}",
                    r.plural
                );
                assert!(
                    s.row(&o, jiff::Timestamp::UNIX_EPOCH).len() >= s.columns().len(),
                    "{}",
                    r.plural
                );
            }
        }
    }

    #[test]
    fn kinds_without_a_strategy_have_the_plain_one() {
        let mut o = json!({"a": 1});
        strategy("none.example.com", "things").default(&mut o);
        assert_eq!(o, json!({"a": 1}));
    }
}
