//! Checks of affinities.

use kontiki_api::field::{Error, Path};
use kontiki_api::names;
use kontiki_api::object::{int, list, text};
use serde_json::Value;

use crate::kinds::checks::{Errors, complain, label_selector, member};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// The affinity of a pod.
pub(super) fn affinity(errors: &mut Errors, at: &Path, a: &Value) {
    if let Some(node) = member(a, "nodeAffinity") {
        let at = at.child("nodeAffinity");
        if let Some(selector) = member(node, REQUIRED) {
            node_selector(errors, &at.child(REQUIRED), selector);
        }
        for (i, p) in list(node, &[PREFERRED]).iter().enumerate() {
            let at = at.child(PREFERRED).index(i);
            weight(errors, &at, p);
            if let Some(term) = member(p, "preference") {
                node_term(errors, &at.child("preference"), term);
            }
        }
    }
    for key in ["podAffinity", "podAntiAffinity"] {
        let Some(pod) = member(a, key) else { continue };
        let at = at.child(key);
        for (i, t) in list(pod, &[REQUIRED]).iter().enumerate() {
            pod_term(errors, &at.child(REQUIRED).index(i), t);
        }
        for (i, p) in list(pod, &[PREFERRED]).iter().enumerate() {
            let at = at.child(PREFERRED).index(i);
            weight(errors, &at, p);
            if let Some(term) = member(p, "podAffinityTerm") {
                pod_term(errors, &at.child("podAffinityTerm"), term);
            }
        }
    }
}

/// A selector of nodes, of pods and of persistent volumes.
pub(in crate::kinds) fn node_selector(errors: &mut Errors, at: &Path, selector: &Value) {
    let terms = list(selector, &["nodeSelectorTerms"]);
    if terms.is_empty() {
        let why = "must have at least one node selector term";
        return errors.push(Error::required(&at.child("nodeSelectorTerms"), why));
    }
    for (i, term) in terms.iter().enumerate() {
        node_term(errors, &at.child("nodeSelectorTerms").index(i), term);
    }
}

fn node_term(errors: &mut Errors, at: &Path, term: &Value) {
    for (i, e) in list(term, &["matchExpressions"]).iter().enumerate() {
        expression(errors, &at.child("matchExpressions").index(i), e);
    }
    for (i, f) in list(term, &["matchFields"]).iter().enumerate() {
        let at = at.child("matchFields").index(i);
        let values = list(f, &["values"]);
        match text(f, &["operator"]) {
            "In" | "NotIn" if values.len() != 1 => {
                errors.push(Error::required(&at.child("values"), "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"));
            }
            "In" | "NotIn" => {}
            other => errors.push(Error::invalid(
                &at.child("operator"),
                other,
                "not a valid selector operator",
            )),
        }
        let key = text(f, &["key"]);
        if key != "metadata.name" {
            errors.push(Error::invalid(
                &at.child("key"),
                key,
                "not a valid field selector key",
            ));
        }
    }
}

fn expression(errors: &mut Errors, at: &Path, e: &Value) {
    let values = list(e, &["values"]);
    let path = at.child("values");
    match text(e, &["operator"]) {
        "In" | "NotIn" if values.is_empty() => {
            errors.push(Error::required(
                &path,
                "must be specified when `operator` is 'In' or 'NotIn'",
            ));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors.push(Error::forbidden(
                &path,
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ));
        }
        "Gt" | "Lt" if values.len() != 1 => {
            errors.push(Error::required(
                &path,
                "must be specified single value when `operator` is 'Lt' or 'Gt'",
            ));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.push(Error::invalid(
            &at.child("operator"),
            other,
            "not a valid selector operator",
        )),
    }
    let key = text(e, &["key"]);
    complain(errors, &at.child("key"), key, names::qualified_name(key));
}

fn weight(errors: &mut Errors, at: &Path, p: &Value) {
    let n = int(p, &["weight"]).unwrap_or_default();
    if !(1..=100).contains(&n) {
        errors.push(Error::invalid(
            &at.child("weight"),
            n,
            "must be in the range 1-100",
        ));
    }
}

fn pod_term(errors: &mut Errors, at: &Path, term: &Value) {
    for key in ["labelSelector", "namespaceSelector"] {
        if let Some(s) = member(term, key) {
            label_selector(errors, &at.child(key), s);
        }
    }
    for ns in list(term, &["namespaces"]).iter().filter_map(Value::as_str) {
        // Upstream names the field in the singular, and no item.
        complain(errors, &at.child("namespace"), ns, names::dns1123_label(ns));
    }
    match text(term, &["topologyKey"]) {
        "" => errors.push(Error::required(
            &at.child("topologyKey"),
            "can not be empty",
        )),
        key => complain(
            errors,
            &at.child("topologyKey"),
            key,
            names::qualified_name(key),
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::fields;

    #[test]
    fn terms_and_weights_are_checked() {
        let mut e = Errors::new();
        let a = json!({
            "nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Is"},
                {"key": "a", "operator": "Gt", "values": ["1"]}]}]}, PREFERRED: [{"weight": 0, "preference": {}}]},
            "podAntiAffinity": {REQUIRED: [{"labelSelector": {}}]},
        });
        affinity(&mut e, &Path::new("a"), &a);
        assert_eq!(
            fields(&e),
            [
                format!(
                    "a.nodeAffinity.{REQUIRED}.nodeSelectorTerms[0].matchExpressions[0].operator"
                ),
                format!("a.nodeAffinity.{PREFERRED}[0].weight"),
                format!("a.podAntiAffinity.{REQUIRED}[0].topologyKey"),
            ]
        );
    }
}
