//! Facts about the built-in kinds that the engine needs and strategies seldom have to say.

use kontiki_api::Resource;

/// How the engine treats a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Traits {
    /// metadata.generation counts changes.
    pub(crate) generation: bool,
    /// A PUT of a name that does not exist creates the object.
    pub(crate) create_on_update: bool,
    /// An update need not state a resourceVersion.
    pub(crate) unconditional_update: bool,
    /// A deletion answers with the object.
    pub(crate) returns_deleted: bool,
    /// Owners and dependents mean nothing: propagation policies are not looked at.
    pub(crate) no_garbage_collection: bool,
    /// Dependents are let go unless the deletion says otherwise.
    pub(crate) orphans_by_default: bool,
    /// How often an update's labels and annotations are looked at; upstream reports what is wrong each time.
    pub(crate) metadata_passes: u8,
    /// What clients are warned of whenever they touch the resource.
    pub(crate) deprecation: Option<&'static str>,
}

const GENERATION: [(&str, &str); 20] = [
    ("", "pods"),
    ("", "replicationcontrollers"),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicies"),
    (
        "admissionregistration.k8s.io",
        "mutatingwebhookconfigurations",
    ),
    (
        "admissionregistration.k8s.io",
        "validatingadmissionpolicies",
    ),
    (
        "admissionregistration.k8s.io",
        "validatingadmissionpolicybindings",
    ),
    (
        "admissionregistration.k8s.io",
        "validatingwebhookconfigurations",
    ),
    ("apps", "daemonsets"),
    ("apps", "deployments"),
    ("apps", "replicasets"),
    ("apps", "statefulsets"),
    ("batch", "cronjobs"),
    ("batch", "jobs"),
    ("discovery.k8s.io", "endpointslices"),
    ("networking.k8s.io", "ingresses"),
    ("networking.k8s.io", "networkpolicies"),
    ("policy", "poddisruptionbudgets"),
    ("resource.k8s.io", "deviceclasses"),
    ("resource.k8s.io", "resourceslices"),
    ("scheduling.k8s.io", "priorityclasses"),
];

const CREATE_ON_UPDATE: [&str; 10] = [
    "clusterrolebindings",
    "clusterroles",
    "endpoints",
    "events",
    "leases",
    "limitranges",
    "rolebindings",
    "roles",
    "runtimeclasses",
    "services",
];

const CONDITIONAL_UPDATE: [&str; 13] = [
    "apiservices",
    "csidrivers",
    "csinodes",
    "csistoragecapacities",
    "customresourcedefinitions",
    "leases",
    "mutatingadmissionpolicies",
    "mutatingwebhookconfigurations",
    "poddisruptionbudgets",
    "runtimeclasses",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "validatingwebhookconfigurations",
];

const RETURNS_DELETED: [&str; 16] = [
    "csidrivers",
    "csinodes",
    "deviceclasses",
    "persistentvolumeclaims",
    "persistentvolumes",
    "pods",
    "podtemplates",
    "resourceclaims",
    "resourceclaimtemplates",
    "resourcequotas",
    "resourceslices",
    "serviceaccounts",
    "services",
    "storageclasses",
    "volumeattachments",
    "volumeattributesclasses",
];

const PASSES_4: [&str; 27] = [
    "apiservices",
    "certificatesigningrequests",
    "clusterrolebindings",
    "clusterroles",
    "configmaps",
    "csistoragecapacities",
    "deviceclasses",
    "endpoints",
    "ingressclasses",
    "ingresses",
    "ipaddresses",
    "jobs",
    "namespaces",
    "nodes",
    "persistentvolumeclaims",
    "persistentvolumes",
    "pods",
    "resourceclaims",
    "resourceclaimtemplates",
    "rolebindings",
    "roles",
    "runtimeclasses",
    "secrets",
    "serviceaccounts",
    "storageclasses",
    "volumeattributesclasses",
    "controllerrevisions",
];

/// The traits of a resource.
pub(crate) fn of(r: &Resource) -> Traits {
    let core = r.group.is_empty();
    let metadata_passes = match r.plural {
        "controllerrevisions" => 5,
        "poddisruptionbudgets" => 2,
        "events" if core => 2,
        p if PASSES_4.contains(&p) => 4,
        _ => 3,
    };
    Traits {
        generation: GENERATION.contains(&(r.group, r.plural)),
        create_on_update: CREATE_ON_UPDATE.contains(&r.plural),
        unconditional_update: !CONDITIONAL_UPDATE.contains(&r.plural)
            && (r.group, r.plural) != ("storage.k8s.io", "volumeattachments"),
        returns_deleted: RETURNS_DELETED.contains(&r.plural),
        no_garbage_collection: r.plural == "events",
        orphans_by_default: matches!(
            (r.group, r.plural),
            ("", "replicationcontrollers") | ("batch", "jobs")
        ),
        metadata_passes,
        deprecation: match (r.group, r.plural) {
            ("", "endpoints") => {
                Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
            }
            ("", "componentstatuses") => Some("v1 ComponentStatus is deprecated in v1.19+"),
            _ => None,
        },
    }
}
