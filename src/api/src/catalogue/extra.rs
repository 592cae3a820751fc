//! What discovery's table of resources does not carry: short names, categories and singular names.

/// The singular name of a kind: the kind in lower case.
pub(super) fn singular(kind: &'static str) -> &'static str {
    Box::leak(kind.to_ascii_lowercase().into_boxed_str())
}

/// The short names that kubectl takes.
pub(super) fn short_names(group: &str, plural: &str) -> &'static [&'static str] {
    match (group, plural) {
        ("", "componentstatuses") => &["cs"],
        ("", "configmaps") => &["cm"],
        ("", "endpoints") => &["ep"],
        ("", "events") => &["ev"],
        ("", "limitranges") => &["limits"],
        ("", "namespaces") => &["ns"],
        ("", "nodes") => &["no"],
        ("", "persistentvolumeclaims") => &["pvc"],
        ("", "persistentvolumes") => &["pv"],
        ("", "pods") => &["po"],
        ("", "replicationcontrollers") => &["rc"],
        ("", "resourcequotas") => &["quota"],
        ("", "serviceaccounts") => &["sa"],
        ("", "services") => &["svc"],
        ("apiextensions.k8s.io", "customresourcedefinitions") => &["crd", "crds"],
        ("apps", "daemonsets") => &["ds"],
        ("apps", "deployments") => &["deploy"],
        ("apps", "replicasets") => &["rs"],
        ("apps", "statefulsets") => &["sts"],
        ("autoscaling", "horizontalpodautoscalers") => &["hpa"],
        ("batch", "cronjobs") => &["cj"],
        ("certificates.k8s.io", "certificatesigningrequests") => &["csr"],
        ("events.k8s.io", "events") => &["ev"],
        ("networking.k8s.io", "ingresses") => &["ing"],
        ("networking.k8s.io", "ipaddresses") => &["ip"],
        ("networking.k8s.io", "networkpolicies") => &["netpol"],
        ("policy", "poddisruptionbudgets") => &["pdb"],
        ("scheduling.k8s.io", "priorityclasses") => &["pc"],
        ("storage.k8s.io", "storageclasses") => &["sc"],
        ("storage.k8s.io", "volumeattributesclasses") => &["vac"],
        _ => &[],
    }
}

/// The categories that kubectl takes.
pub(super) fn categories(group: &str, plural: &str) -> &'static [&'static str] {
    match (group, plural) {
        ("", "pods") => &["all"],
        ("", "replicationcontrollers") => &["all"],
        ("", "services") => &["all"],
        ("admissionregistration.k8s.io", "mutatingadmissionpolicies") => &["api-extensions"],
        ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings") => &["api-extensions"],
        ("admissionregistration.k8s.io", "mutatingwebhookconfigurations") => &["api-extensions"],
        ("admissionregistration.k8s.io", "validatingadmissionpolicies") => &["api-extensions"],
        ("admissionregistration.k8s.io", "validatingadmissionpolicybindings") => {
            &["api-extensions"]
        }
        ("admissionregistration.k8s.io", "validatingwebhookconfigurations") => &["api-extensions"],
        ("apiextensions.k8s.io", "customresourcedefinitions") => &["api-extensions"],
        ("apiregistration.k8s.io", "apiservices") => &["api-extensions"],
        ("apps", "daemonsets") => &["all"],
        ("apps", "deployments") => &["all"],
        ("apps", "replicasets") => &["all"],
        ("apps", "statefulsets") => &["all"],
        ("autoscaling", "horizontalpodautoscalers") => &["all"],
        ("batch", "cronjobs") => &["all"],
        ("batch", "jobs") => &["all"],
        _ => &[],
    }
}
