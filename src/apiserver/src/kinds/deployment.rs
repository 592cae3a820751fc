//! Deployments.

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::object::{get, int, map_mut, text};
use serde_json::{Value, json};

use super::checks::{
    Errors, default_text, default_value, keep, map_of, member, non_negative, same,
};
use super::columns;
use super::columns::{AGE, NAME, containers, number, selector, string, wide};
use super::pod_spec::default_template;
use super::workload::{
    OWNER, immutable_selector, selector_and_template, status_numbers, unsupported_strategy,
};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of deployments.
pub(super) struct Deployment;

static COLUMNS: [Column; 8] = [
    NAME,
    string("Ready", "Number of the pod with ready state"),
    string(
        "Up-to-date",
        "Total number of non-terminating pods targeted by this deployment that have the desired template spec.",
    ),
    string(
        "Available",
        "Total number of available non-terminating pods (ready for at least minReadySeconds) targeted by this deployment.",
    ),
    AGE,
    wide("Containers", "Names of each container in the template."),
    wide(
        "Images",
        "Images referenced by each container in the template.",
    ),
    wide(
        "Selector",
        "Label selector for pods. Existing ReplicaSets whose pods are selected by this will be the ones affected by this deployment. It must match the pod template's labels.",
    ),
];

impl Strategy for Deployment {
    fn has_generation(&self) -> bool {
        true
    }

    fn metadata_counts(&self, new: &Value, old: &Value) -> bool {
        let of = |v| get(v, &["metadata", "annotations"]);
        !same(of(new), of(old))
    }

    fn default(&self, object: &mut Value) {
        default_value(object, "spec", json!({}));
        let Some(spec) = map_of(object, "spec") else {
            return;
        };
        default_value(spec, "replicas", 1);
        default_value(spec, "revisionHistoryLimit", 10);
        default_value(spec, "progressDeadlineSeconds", 600);
        default_value(spec, "strategy", json!({}));
        if let Some(s) = map_of(spec, "strategy") {
            default_text(s, "type", "RollingUpdate");
            if text(s, &["type"]) == "RollingUpdate" {
                default_value(s, "rollingUpdate", json!({}));
                if let Some(r) = map_of(s, "rollingUpdate") {
                    default_value(r, "maxUnavailable", "25%");
                    default_value(r, "maxSurge", "25%");
                }
            }
        }
        default_template(spec);
    }

    fn prepare_for_create(&self, _cx: &Context<'_>, object: &mut Value) {
        map_mut(object, &[]).insert("status".into(), json!({}));
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let at = Path::new("spec");
        let Some(spec) = object.get("spec") else {
            return errors;
        };
        non_negative(&mut errors, &at, spec, "replicas");
        selector_and_template(&mut errors, &at, spec, OWNER);
        strategy(
            &mut errors,
            &at.child("strategy"),
            spec.get("strategy").unwrap_or(&Value::Null),
        );
        for key in [
            "minReadySeconds",
            "revisionHistoryLimit",
            "progressDeadlineSeconds",
        ] {
            non_negative(&mut errors, &at, spec, key);
        }
        let ready = int(spec, &["minReadySeconds"]).unwrap_or_default();
        if let Some(n) = int(spec, &["progressDeadlineSeconds"])
            && n <= ready
        {
            let why = "must be greater than minReadySeconds";
            errors.push(Error::invalid(&at.child("progressDeadlineSeconds"), n, why));
        }
        errors
    }

    fn prepare_for_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "status");
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(cx, new);
        immutable_selector(&mut errors, new, old);
        errors
    }

    fn prepare_for_status_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "spec");
        match old.pointer("/metadata/labels") {
            Some(labels) => map_mut(new, &["metadata"]).insert("labels".into(), labels.clone()),
            None => map_mut(new, &["metadata"]).remove("labels"),
        };
    }

    fn validate_status_update(&self, _cx: &Context<'_>, new: &Value, old: &Value) -> Errors {
        let mut errors = Errors::new();
        let status = new.get("status").unwrap_or(&Value::Null);
        let keys = [
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
            "collisionCount",
        ];
        let bounds = [
            ("updatedReplicas", "replicas"),
            ("readyReplicas", "replicas"),
            ("availableReplicas", "replicas"),
            ("availableReplicas", "readyReplicas"),
        ];
        status_numbers(&mut errors, status, &keys, &bounds);
        let count = |v| int(v, &["status", "collisionCount"]);
        if let Some(was) = count(old)
            && count(new).is_none_or(|n| n < was)
        {
            let path = Path::new("status").child("collisionCount");
            errors.push(Error::invalid(&path, count(new), "cannot be decremented"));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let of = |path: &[&str]| int(object, path).unwrap_or_default();
        let [names, images] = containers(get(object, &["spec", "template"]));
        vec![
            kontiki_api::object::name(object).into(),
            format!(
                "{}/{}",
                of(&["status", "readyReplicas"]),
                of(&["spec", "replicas"])
            )
            .into(),
            number(object, &["status", "updatedReplicas"]),
            number(object, &["status", "availableReplicas"]),
            columns::age(object, now),
            names,
            images,
            selector(get(object, &["spec", "selector"])),
        ]
    }
}

fn strategy(errors: &mut Errors, at: &Path, s: &Value) {
    let rolling = member(s, "rollingUpdate");
    match text(s, &["type"]) {
        "Recreate" => {
            if rolling.is_some() {
                let why = "may not be specified when strategy `type` is 'Recreate'";
                errors.push(Error::forbidden(&at.child("rollingUpdate"), why));
            }
        }
        "RollingUpdate" => match rolling {
            None => errors.push(Error::required(
                &at.child("rollingUpdate"),
                "this should be defaulted and never be nil",
            )),
            Some(r) => rolling_update(errors, &at.child("rollingUpdate"), r),
        },
        other => errors.push(unsupported_strategy(
            at,
            other,
            "supported values: \"Recreate\", \"RollingUpdate\"",
        )),
    }
}

fn rolling_update(errors: &mut Errors, at: &Path, r: &Value) {
    let (unavailable, surge) = (r.get("maxUnavailable"), r.get("maxSurge"));
    int_or_percent(errors, &at.child("maxUnavailable"), unavailable);
    int_or_percent(errors, &at.child("maxSurge"), surge);
    if amount(unavailable) == 0 && amount(surge) == 0 {
        let value = unavailable.cloned().unwrap_or_default();
        errors.push(Error::invalid(
            &at.child("maxUnavailable"),
            value,
            "may not be 0 when `maxSurge` is 0",
        ));
    }
    not_over_100(errors, &at.child("maxUnavailable"), unavailable);
}

/// A count or a share of pods: neither negative nor malformed.
pub(super) fn int_or_percent(errors: &mut Errors, at: &Path, v: Option<&Value>) {
    match v {
        Some(Value::String(s)) => {
            let digits = s.strip_suffix('%').unwrap_or_default();
            if digits.is_empty() || !digits.bytes().all(|c| c.is_ascii_digit()) {
                let message =
                    "a valid percent string must be a numeric string followed by an ending '%'";
                let why = kontiki_api::names::regex_error(message, "[0-9]+%", &["1%", "93%"]);
                errors.push(Error::invalid(at, s.as_str(), why));
            }
        }
        Some(Value::Number(n)) if n.as_i64().is_some_and(|n| n < 0) => {
            errors.push(Error::invalid(at, n.as_i64(), super::checks::NOT_NEGATIVE));
        }
        _ => {}
    }
}

/// A share is not more than all.
pub(super) fn not_over_100(errors: &mut Errors, at: &Path, v: Option<&Value>) {
    if let Some(Value::String(s)) = v
        && amount(v) > 100
    {
        errors.push(Error::invalid(
            at,
            s.as_str(),
            "must not be greater than 100%",
        ));
    }
}

/// The number of a count or a share; 0 where it is malformed.
pub(super) fn amount(v: Option<&Value>) -> i64 {
    match v {
        Some(Value::String(s)) => s
            .strip_suffix('%')
            .and_then(|d| d.parse().ok())
            .unwrap_or_default(),
        other => other.and_then(Value::as_i64).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cx, fields, idempotent};
    use super::*;

    fn minimal() -> Value {
        json!({"spec": {"selector": {"matchLabels": {"app": "x"}}, "template": {"metadata": {"labels": {"app": "x"}},
            "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}})
    }

    #[test]
    fn defaults_make_a_minimal_one_valid() {
        let o = idempotent(&Deployment, minimal());
        assert!(Deployment.validate(&cx(), &o).is_empty());
        assert_eq!(
            o["spec"]["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
        );
        assert_eq!(
            (&o["spec"]["replicas"], &o["spec"]["revisionHistoryLimit"]),
            (&json!(1), &json!(10))
        );
    }

    #[test]
    fn a_recreated_one_has_no_rolling_update() {
        let mut o = minimal();
        o["spec"]["strategy"] = json!({"type": "Recreate"});
        let o = idempotent(&Deployment, o);
        assert_eq!(o["spec"]["strategy"], json!({"type": "Recreate"}));
    }

    #[test]
    fn mistakes_are_named() {
        let of = |path: &str, value: Value| {
            let mut o = minimal();
            *o.pointer_mut(path).expect("a path of the object") = value;
            let o = idempotent(&Deployment, o);
            fields(&Deployment.validate(&cx(), &o))
        };
        assert_eq!(
            of("/spec/selector/matchLabels/app", "y".into()),
            ["spec.template.metadata.labels"]
        );
        assert_eq!(
            of("/spec/selector", Value::Null),
            ["spec.selector", "spec.template.metadata.labels"]
        );
        assert_eq!(of("/spec/selector", json!({})), ["spec.selector"]);
        assert_eq!(
            of("/spec/template", Value::Null),
            [
                "spec.template.metadata.labels",
                "spec.template.spec.containers"
            ]
        );
    }

    #[test]
    fn rolling_updates_make_progress() {
        let of = |r: Value| {
            let mut e = Errors::new();
            rolling_update(&mut e, &Path::new("r"), &r);
            fields(&e)
        };
        assert_eq!(
            of(json!({"maxUnavailable": 0, "maxSurge": 0})),
            ["r.maxUnavailable"]
        );
        assert_eq!(
            of(json!({"maxUnavailable": 0, "maxSurge": "x%"})),
            ["r.maxSurge", "r.maxUnavailable"]
        );
        assert_eq!(
            of(json!({"maxUnavailable": "101%", "maxSurge": 0})),
            ["r.maxUnavailable"]
        );
        assert!(of(json!({"maxUnavailable": "0%", "maxSurge": 1})).is_empty());
    }

    #[test]
    fn the_selector_stays_and_the_status_is_consistent() {
        let old = idempotent(&Deployment, minimal());
        let mut new = old.clone();
        new["spec"]["selector"]["matchLabels"]["app"] = "y".into();
        new["spec"]["template"]["metadata"]["labels"]["app"] = "y".into();
        assert_eq!(
            fields(&Deployment.validate_update(&cx(), &new, &old)),
            ["spec.selector"]
        );
        let status =
            json!({"status": {"replicas": 1, "readyReplicas": 2, "observedGeneration": -1}});
        assert_eq!(
            fields(&Deployment.validate_status_update(&cx(), &status, &old)),
            ["status.observedGeneration", "status.readyReplicas"]
        );
    }
}
