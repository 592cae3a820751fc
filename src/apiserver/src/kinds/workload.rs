//! What the kinds that make pods from a template have in common.

use kontiki_api::field::{Error, ErrorKind, Path};
use kontiki_api::labels::LabelSelector;
use kontiki_api::object::{get, int};
use serde::Deserialize;
use serde_json::Value;

use super::checks::{
    Errors, immutable, invalid_shown, label_selector, member, non_negative, selector_is_empty,
};
use super::pod_spec::{Rules, validate_template};

/// What a kind is called in the words of its errors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    /// As the owner of a selector.
    pub(super) selector: &'static str,
    /// As the owner of a template.
    pub(super) template: &'static str,
}

/// Deployments and replica sets, which share their words.
pub(super) const OWNER: Owner = Owner {
    selector: "deployment",
    template: "ReplicaSet",
};

/// The selector and the template of a workload whose pods restart always.
pub(super) fn selector_and_template(errors: &mut Errors, at: &Path, spec: &Value, owner: Owner) {
    let Some(parsed) = selector(errors, at, spec, owner) else {
        return;
    };
    template(errors, at, spec, &parsed, owner);
}

/// The selector alone; `None` if it cannot be used.
pub(super) fn selector(
    errors: &mut Errors,
    at: &Path,
    spec: &Value,
    owner: Owner,
) -> Option<kontiki_api::labels::Selector> {
    let path = at.child("selector");
    let Some(s) = member(spec, "selector") else {
        errors.push(Error::required(&path, ""));
        return Some(kontiki_api::labels::Selector::nothing());
    };
    label_selector(errors, &path, s);
    if selector_is_empty(s) {
        errors.push(Error::invalid(
            &path,
            s.clone(),
            format!("empty selector is invalid for {}", owner.selector),
        ));
    }
    let parsed = LabelSelector::deserialize(s)
        .map_err(|e| e.to_string())
        .and_then(|s| s.to_selector());
    if parsed.is_err() {
        errors.push(Error::invalid(&path, s.clone(), "invalid label selector"));
    }
    parsed.ok()
}

/// A template whose labels the selector takes, and whose pods restart always.
pub(super) fn template(
    errors: &mut Errors,
    at: &Path,
    spec: &Value,
    selector: &kontiki_api::labels::Selector,
    owner: Owner,
) {
    let at = at.child("template");
    let Some(t) = member(spec, "template") else {
        return errors.push(Error::required(&at, ""));
    };
    labels_match(errors, &at, t, selector);
    validate_template(
        errors,
        &at,
        t,
        Rules {
            restart_policies: &["Always"],
        },
    );
    if int(t, &["spec", "activeDeadlineSeconds"]).is_some() {
        let why = format!(
            "activeDeadlineSeconds in {} is not Supported",
            owner.template
        );
        errors.push(Error::forbidden(
            &at.child("spec").child("activeDeadlineSeconds"),
            why,
        ));
    }
}

/// The labels of a template are those that the selector takes.
pub(super) fn labels_match(
    errors: &mut Errors,
    at: &Path,
    template: &Value,
    selector: &kontiki_api::labels::Selector,
) {
    let labels = template.pointer("/metadata/labels").unwrap_or(&Value::Null);
    if !selector.is_everything() && !selector.matches(labels) {
        let why = "`selector` does not match template `labels`";
        errors.push(Error::invalid(
            &at.child("metadata").child("labels"),
            labels.clone(),
            why,
        ));
    }
}

/// The numbers of a status may not be negative, and some not greater than others.
pub(super) fn status_numbers(
    errors: &mut Errors,
    status: &Value,
    keys: &[&str],
    bounds: &[(&str, &str)],
) {
    let at = Path::new("status");
    for key in keys {
        non_negative(errors, &at, status, key);
    }
    for (key, bound) in bounds {
        let of = |k: &str| int(status, &[k]).unwrap_or_default();
        if of(key) > of(bound) {
            let shown = if *bound == "replicas" {
                "status.replicas"
            } else {
                bound
            };
            errors.push(Error::invalid(
                &at.child(key),
                of(key),
                format!("cannot be greater than {shown}"),
            ));
        }
    }
}

/// What is wrong with the status of a set of pods: replica sets and replication controllers count the same.
pub(super) fn replica_status(new: &Value) -> Errors {
    let mut errors = Errors::new();
    let keys = [
        "replicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
        "observedGeneration",
    ];
    let bounds = [
        ("fullyLabeledReplicas", "replicas"),
        ("readyReplicas", "replicas"),
        ("availableReplicas", "replicas"),
        ("availableReplicas", "readyReplicas"),
    ];
    status_numbers(
        &mut errors,
        new.get("status").unwrap_or(&Value::Null),
        &keys,
        &bounds,
    );
    errors
}

/// The selector of a workload may not change: its pods are found by it.
pub(super) fn immutable_selector(errors: &mut Errors, new: &Value, old: &Value) {
    let of = |v| get(v, &["spec", "selector"]);
    let at = Path::new("spec").child("selector");
    immutable(errors, &at, of(new), of(old));
}

/// An update strategy of a type that the kind does not have; upstream shows the strategy as a whole.
pub(super) fn unsupported_strategy(at: &Path, kind: &str, supported: &str) -> Error {
    let shown = format!("{{\"Type\":{},\"RollingUpdate\":null}}", Value::from(kind));
    let mut e = invalid_shown(at, shown, supported);
    e.kind = ErrorKind::NotSupported;
    e
}
