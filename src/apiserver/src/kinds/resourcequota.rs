//! ResourceQuotas.

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::object::{get, list, map_mut};
use serde_json::{Value, json};

use super::checks::{Errors, immutable, keep};
use super::columns::{AGE, NAME, named_row, string};
use super::pod_spec::resources::{is_standard, quantity, resource_name};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of resourcequotas.
pub(super) struct ResourceQuota;

static COLUMNS: [Column; 4] = [
    NAME,
    string(
        "Request",
        "Request represents a minimum amount of cpu/memory that a container may consume.",
    ),
    string(
        "Limit",
        "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.",
    ),
    AGE,
];

/// The scopes of a quota.
const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];
/// The resources that are counted.
const COUNTED: [&str; 9] = [
    "pods",
    "services",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

impl Strategy for ResourceQuota {
    fn prepare_for_create(&self, _cx: &Context<'_>, object: &mut Value) {
        map_mut(object, &[]).insert("status".into(), json!({}));
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let spec = Path::new("spec");
        amounts(
            &mut errors,
            &spec.child("hard"),
            get(object, &["spec", "hard"]),
        );
        let scopes = list(object, &["spec", "scopes"]);
        let path = spec.child("scopes");
        let has = |s: &str| scopes.iter().any(|x| x == s);
        if scopes
            .iter()
            .any(|s| !s.as_str().is_some_and(|s| SCOPES.contains(&s)))
        {
            errors.push(Error::invalid(&path, scopes.to_vec(), "unsupported scope"));
        }
        for (a, b) in [
            ("BestEffort", "NotBestEffort"),
            ("Terminating", "NotTerminating"),
        ] {
            if has(a) && has(b) {
                errors.push(Error::invalid(&path, scopes.to_vec(), "conflicting scopes"));
            }
        }
        errors
    }

    fn prepare_for_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "status");
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(cx, new);
        let of = |v| get(v, &["spec", "scopes"]);
        immutable(
            &mut errors,
            &Path::new("spec").child("scopes"),
            of(new),
            of(old),
        );
        errors
    }

    fn prepare_for_status_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "spec");
    }

    fn validate_status_update(&self, _cx: &Context<'_>, new: &Value, _old: &Value) -> Errors {
        let mut errors = Errors::new();
        for key in ["hard", "used"] {
            amounts(
                &mut errors,
                &Path::new("status").child(key),
                get(new, &["status", key]),
            );
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        let hard = get(object, &["status", "hard"]).and_then(Value::as_object);
        for (key, value) in hard.into_iter().flatten() {
            let used = get(object, &["status", "used", key])
                .and_then(Value::as_str)
                .unwrap_or("0");
            let shown = format!("{key}: {used}/{}", value.as_str().unwrap_or_default());
            if key.starts_with("limits.") {
                limits.push(shown);
            } else {
                requests.push(shown);
            }
        }
        named_row(
            object,
            now,
            [requests.join(", ").into(), limits.join(", ").into()],
        )
    }
}

fn amounts(errors: &mut Errors, at: &Path, all: Option<&Value>) {
    for (key, value) in all.and_then(Value::as_object).into_iter().flatten() {
        let path = at.key(key);
        if resource_name(errors, &path, key) && !key.contains('/') && !is_standard(key) {
            errors.push(Error::invalid(
                &path,
                key.as_str(),
                "must be a standard resource for quota",
            ));
        }
        let q = quantity(errors, &path, key, value);
        let counted = COUNTED.contains(&key.as_str()) || key.starts_with("count/");
        if counted && q.is_some_and(|q| !q.is_integer()) && !key.contains('/') {
            errors.push(Error::invalid(&path, value.clone(), "must be an integer"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cx, fields};
    use super::*;

    #[test]
    fn mistakes_are_named() {
        let of = |spec: Value| fields(&ResourceQuota.validate(&cx(), &json!({"spec": spec})));
        assert_eq!(of(json!({"hard": {"pods": "1500m"}})), ["spec.hard[pods]"]);
        assert_eq!(
            of(json!({"hard": {"nope": "1"}})),
            ["spec.hard[nope]", "spec.hard[nope]"]
        );
        assert_eq!(
            of(json!({"scopes": ["Terminating", "NotTerminating"]})),
            ["spec.scopes"]
        );
        assert!(
            of(json!({"hard": {"requests.cpu": "1500m", "count/deployments.apps": "3"}}))
                .is_empty()
        );
    }

    #[test]
    fn a_row_splits_requests_and_limits() {
        let o = json!({"metadata": {"name": "q"}, "status": {"hard": {"pods": "2", "limits.cpu": "1"}, "used": {"pods": "1"}}});
        let row = ResourceQuota.row(&o, Timestamp::UNIX_EPOCH);
        assert_eq!(
            (&row[1], &row[2]),
            (&json!("pods: 1/2"), &json!("limits.cpu: 0/1"))
        );
    }
}
