//! The checks of a pod's spec as a whole.

use kontiki_api::field::{Error, Path};
use kontiki_api::names;
use kontiki_api::object::{get, int, list, text, truth};
use serde_json::Value;

use super::affinity::affinity;
use super::{containers, scheduling, security, volumes};
use crate::kinds::checks::{
    Errors, complain, ip, labels, member, non_negative, template_metadata, unsupported,
};

/// The most nameservers of a pod.
const NAMESERVERS_MAX: usize = 3;
/// The most search domains of a pod.
const SEARCHES_MAX: usize = 32;
/// The most bytes of all search domains.
const SEARCH_BYTES_MAX: usize = 2048;

/// What a pod's spec has to keep to beside the rules for all.
#[derive(Clone, Copy, Debug)]
pub(in crate::kinds) struct Rules<'a> {
    /// The restart policies that the owner of the spec takes; none for any.
    pub(in crate::kinds) restart_policies: &'a [&'a str],
}

const ANY_RESTART: [&str; 3] = ["Always", "OnFailure", "Never"];

/// A template of pods, with its metadata.
pub(in crate::kinds) fn validate_template(
    errors: &mut Errors,
    at: &Path,
    template: &Value,
    rules: Rules<'_>,
) {
    // Upstream names the labels as if they were members of the template.
    template_metadata(errors, at, template.get("metadata"));
    let spec = template.get("spec").unwrap_or(&Value::Null);
    validate_pod_spec(errors, &at.child("spec"), spec);
    let at = at.child("spec");
    if !list(spec, &["ephemeralContainers"]).is_empty() {
        errors.push(Error::forbidden(
            &at.child("ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        ));
    }
    let policy = text(spec, &["restartPolicy"]);
    if !rules.restart_policies.is_empty()
        && ANY_RESTART.contains(&policy)
        && !rules.restart_policies.contains(&policy)
    {
        errors.push(unsupported(
            &at.child("restartPolicy"),
            policy,
            rules.restart_policies,
        ));
    }
}

/// The spec of a pod.
pub(in crate::kinds) fn validate_pod_spec(errors: &mut Errors, at: &Path, spec: &Value) {
    let volumes = volumes::all(errors, &at.child("volumes"), list(spec, &["volumes"]));
    containers::all(errors, at, &containers::Pod { spec, volumes });
    policies(errors, at, spec);
    labels(errors, &at.child("nodeSelector"), spec.get("nodeSelector"));
    if let Some(sc) = member(spec, "securityContext") {
        security::of_pod(errors, &at.child("securityContext"), sc, spec);
    }
    for (i, s) in list(spec, &["imagePullSecrets"]).iter().enumerate() {
        if text(s, &["name"]).is_empty() {
            errors.push(Error::required(
                &at.child("imagePullSecrets").index(i).child("name"),
                "",
            ));
        }
    }
    if let Some(a) = member(spec, "affinity") {
        affinity(errors, &at.child("affinity"), a);
    }
    dns(errors, at, spec);
    for (i, g) in list(spec, &["readinessGates"]).iter().enumerate() {
        let kind = text(g, &["conditionType"]);
        let at = at.child("readinessGates").index(i).child("conditionType");
        complain(errors, &at, kind, names::qualified_name(kind));
    }
    scheduling::gates(
        errors,
        &at.child("schedulingGates"),
        list(spec, &["schedulingGates"]),
    );
    scheduling::spread(
        errors,
        &at.child("topologySpreadConstraints"),
        list(spec, &["topologySpreadConstraints"]),
    );
    spec_names(errors, at, spec);
    non_negative(errors, at, spec, "terminationGracePeriodSeconds");
    if let Some(n) = int(spec, &["activeDeadlineSeconds"])
        && !(1..=i64::from(i32::MAX)).contains(&n)
    {
        let why = "must be between 1 and 2147483647, inclusive";
        errors.push(Error::invalid(&at.child("activeDeadlineSeconds"), n, why));
    }
    scheduling::tolerations(
        errors,
        &at.child("tolerations"),
        list(spec, &["tolerations"]),
    );
    for (i, a) in list(spec, &["hostAliases"]).iter().enumerate() {
        let at = at.child("hostAliases").index(i);
        ip(errors, &at.child("ip"), text(a, &["ip"]));
        for name in list(a, &["hostnames"]).iter().filter_map(Value::as_str) {
            complain(
                errors,
                &at.child("hostnames"),
                name,
                names::dns1123_subdomain(name),
            );
        }
    }
    preemption(errors, at, spec);
}

fn policies(errors: &mut Errors, at: &Path, spec: &Value) {
    let restart = text(spec, &["restartPolicy"]);
    if restart.is_empty() {
        errors.push(Error::required(&at.child("restartPolicy"), ""));
    } else if !ANY_RESTART.contains(&restart) {
        errors.push(unsupported(
            &at.child("restartPolicy"),
            restart,
            &ANY_RESTART,
        ));
    }
    let supported = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    match text(spec, &["dnsPolicy"]) {
        "" => errors.push(Error::required(&at.child("dnsPolicy"), "")),
        p if !supported.contains(&p) => {
            errors.push(unsupported(&at.child("dnsPolicy"), p, &supported));
        }
        _ => {}
    }
    if let Some(os) = member(spec, "os") {
        match text(os, &["name"]) {
            "" => errors.push(Error::required(
                &at.child("os").child("name"),
                "cannot be empty",
            )),
            "linux" | "windows" => {}
            other => errors.push(unsupported(
                &at.child("os").child("name"),
                other,
                &["linux", "windows"],
            )),
        }
    }
    if spec.get("hostUsers") == Some(&Value::Bool(false)) {
        for key in ["hostNetwork", "hostPID", "hostIPC"] {
            if truth(spec, &[key]) {
                errors.push(Error::forbidden(
                    &at.child(key),
                    "when `hostUsers` is false",
                ));
            }
        }
    }
}

fn spec_names(errors: &mut Errors, at: &Path, spec: &Value) {
    for key in [
        "serviceAccountName",
        "nodeName",
        "priorityClassName",
        "runtimeClassName",
    ] {
        let name = text(spec, &[key]);
        if !name.is_empty() {
            complain(errors, &at.child(key), name, names::dns1123_subdomain(name));
        }
    }
    for key in ["hostname", "subdomain"] {
        let name = text(spec, &[key]);
        if !name.is_empty() {
            complain(errors, &at.child(key), name, names::dns1123_label(name));
        }
    }
}

fn preemption(errors: &mut Errors, at: &Path, spec: &Value) {
    if let Some(p) = get(spec, &["preemptionPolicy"]).and_then(Value::as_str)
        && !["PreemptLowerPriority", "Never"].contains(&p)
    {
        let supported = ["PreemptLowerPriority", "Never"];
        errors.push(Error::not_supported(
            &at.child("preemptionPolicy"),
            p,
            &supported,
        ));
    }
}

fn dns(errors: &mut Errors, at: &Path, spec: &Value) {
    let none = text(spec, &["dnsPolicy"]) == "None";
    let at = at.child("dnsConfig");
    let Some(config) = member(spec, "dnsConfig") else {
        if none {
            errors.push(Error::required(
                &at,
                "must provide `dnsConfig` when `dnsPolicy` is None",
            ));
        }
        return;
    };
    let servers = list(config, &["nameservers"]);
    if none && servers.is_empty() {
        let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.push(Error::required(&at.child("nameservers"), why));
    }
    if servers.len() > NAMESERVERS_MAX {
        let why = format!("must not have more than {NAMESERVERS_MAX} nameservers");
        errors.push(Error::invalid(
            &at.child("nameservers"),
            servers.to_vec(),
            why,
        ));
    }
    for (i, s) in servers.iter().filter_map(Value::as_str).enumerate() {
        ip(errors, &at.child("nameservers").index(i), s);
    }
    let searches = list(config, &["searches"]);
    if searches.len() > SEARCHES_MAX {
        let why = format!("must not have more than {SEARCHES_MAX} search paths");
        errors.push(Error::invalid(
            &at.child("searches"),
            searches.to_vec(),
            why,
        ));
    }
    let bytes: usize = searches
        .iter()
        .filter_map(Value::as_str)
        .map(|s| s.len() + 1)
        .sum();
    if bytes > SEARCH_BYTES_MAX + 1 {
        let why = format!(
            "must not have more than {SEARCH_BYTES_MAX} characters (including spaces) in the search list"
        );
        errors.push(Error::invalid(
            &at.child("searches"),
            searches.to_vec(),
            why,
        ));
    }
    for (i, s) in searches.iter().filter_map(Value::as_str).enumerate() {
        if s != "." {
            let plain: String = s.trim_end_matches('.').replace('_', "-");
            complain(
                errors,
                &at.child("searches").index(i),
                s,
                names::dns1123_subdomain(&plain),
            );
        }
    }
    for (i, o) in list(config, &["options"]).iter().enumerate() {
        if text(o, &["name"]).is_empty() {
            // Upstream names the list's item where it means the option.
            errors.push(Error::required(
                &at.child("options").index(i),
                "must not be empty",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::fields;

    fn of(mut spec: Value) -> Vec<String> {
        spec["containers"] = json!([{"name": "c", "image": "i"}]);
        super::super::default_pod_spec(&mut spec);
        let mut e = Errors::new();
        validate_pod_spec(&mut e, &Path::new("spec"), &spec);
        fields(&e)
    }

    #[test]
    fn a_plain_spec_is_in_order() {
        assert!(of(json!({})).is_empty());
    }

    #[test]
    fn policies_and_names_are_known() {
        assert_eq!(
            of(json!({"restartPolicy": "x", "dnsPolicy": "y"})),
            ["spec.restartPolicy", "spec.dnsPolicy"]
        );
        assert_eq!(
            of(json!({"nodeName": "A b", "hostname": "a.b"})),
            ["spec.nodeName", "spec.hostname"]
        );
        assert_eq!(
            of(json!({"activeDeadlineSeconds": 0})),
            ["spec.activeDeadlineSeconds"]
        );
        assert_eq!(
            of(json!({"preemptionPolicy": "x"})),
            ["spec.preemptionPolicy"]
        );
    }

    #[test]
    fn dns_none_needs_nameservers() {
        assert_eq!(of(json!({"dnsPolicy": "None"})), ["spec.dnsConfig"]);
        assert_eq!(
            of(json!({"dnsPolicy": "None", "dnsConfig": {}})),
            ["spec.dnsConfig.nameservers"]
        );
        assert_eq!(
            of(json!({"dnsConfig": {"nameservers": ["x"]}})),
            ["spec.dnsConfig.nameservers[0]"]
        );
    }

    #[test]
    fn a_template_restarts_as_its_owner_says() {
        let mut t = json!({"spec": {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"}});
        super::super::default_pod_spec(&mut t["spec"]);
        let mut e = Errors::new();
        validate_template(
            &mut e,
            &Path::new("t"),
            &t,
            Rules {
                restart_policies: &["Always"],
            },
        );
        assert_eq!(fields(&e), ["t.spec.restartPolicy"]);
    }
}
