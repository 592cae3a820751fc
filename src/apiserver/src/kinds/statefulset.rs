//! StatefulSets.

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::names;
use kontiki_api::object::{get, int, map_mut, name, text};
use serde_json::{Value, json};

use super::checks::{
    Errors, clear, default_text, default_value, invalid_shown, items_mut, keep, map_of, member,
    non_negative, same,
};
use super::columns::{AGE, NAME, age, containers, string, wide};
use super::pod_spec::default_template;
use super::workload::{Owner, selector_and_template, status_numbers};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of statefulsets.
pub(super) struct StatefulSet;

static COLUMNS: [Column; 5] = [
    NAME,
    string("Ready", "Number of the pod with ready state"),
    AGE,
    wide("Containers", "Names of each container in the template."),
    wide(
        "Images",
        "Images referenced by each container in the template.",
    ),
];

/// The members of the spec that may change.
const MUTABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

impl Strategy for StatefulSet {
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        names::dns1123_label(if prefix {
            name.trim_end_matches('-')
        } else {
            name
        })
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        default_value(object, "spec", json!({}));
        let Some(spec) = map_of(object, "spec") else {
            return;
        };
        default_value(spec, "replicas", 1);
        default_value(spec, "revisionHistoryLimit", 10);
        default_text(spec, "podManagementPolicy", "OrderedReady");
        default_value(spec, "updateStrategy", json!({}));
        if let Some(s) = map_of(spec, "updateStrategy") {
            default_text(s, "type", "RollingUpdate");
            if text(s, &["type"]) == "RollingUpdate" {
                default_value(s, "rollingUpdate", json!({}));
                if let Some(r) = map_of(s, "rollingUpdate") {
                    default_value(r, "partition", 0);
                }
            }
        }
        default_value(spec, "persistentVolumeClaimRetentionPolicy", json!({}));
        if let Some(p) = map_of(spec, "persistentVolumeClaimRetentionPolicy") {
            default_text(p, "whenDeleted", "Retain");
            default_text(p, "whenScaled", "Retain");
        }
        for claim in items_mut(spec, "volumeClaimTemplates") {
            default_text(claim, "apiVersion", "v1");
            default_text(claim, "kind", "PersistentVolumeClaim");
            super::persistentvolumeclaim::default_claim(claim);
        }
        default_template(spec);
    }

    fn prepare_for_create(&self, _cx: &Context<'_>, object: &mut Value) {
        map_mut(object, &[]).insert(
            "status".into(),
            json!({"replicas": 0, "availableReplicas": 0}),
        );
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let at = Path::new("spec");
        let Some(spec) = object.get("spec") else {
            return errors;
        };
        match text(spec, &["podManagementPolicy"]) {
            "" => errors.push(Error::required(&at.child("podManagementPolicy"), "")),
            "OrderedReady" | "Parallel" => {}
            other => {
                let why = "must be 'OrderedReady' or 'Parallel'";
                errors.push(Error::invalid(&at.child("podManagementPolicy"), other, why));
            }
        }
        update_strategy(
            &mut errors,
            &at.child("updateStrategy"),
            spec.get("updateStrategy").unwrap_or(&Value::Null),
        );
        for key in ["whenDeleted", "whenScaled"] {
            let policy = text(spec, &["persistentVolumeClaimRetentionPolicy", key]);
            if !["Delete", "Retain"].contains(&policy) {
                let path = at.child("persistentVolumeClaimRetentionPolicy").child(key);
                errors.push(Error::not_supported(&path, policy, &["Delete", "Retain"]));
            }
        }
        for key in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
            non_negative(&mut errors, &at, spec, key);
        }
        if let Some(o) = member(spec, "ordinals") {
            non_negative(&mut errors, &at.child("ordinals"), o, "start");
        }
        selector_and_template(
            &mut errors,
            &at,
            spec,
            Owner {
                selector: "statefulset",
                template: "StatefulSet",
            },
        );
        errors
    }

    fn prepare_for_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "status");
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(cx, new);
        let fixed = |v: &Value| {
            let mut spec = v.get("spec").cloned().unwrap_or_default();
            MUTABLE.iter().for_each(|key| clear(&mut spec, key));
            spec
        };
        if !same(Some(&fixed(new)), Some(&fixed(old))) {
            let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
            errors.push(Error::forbidden(&Path::new("spec"), why));
        }
        errors
    }

    fn prepare_for_status_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "spec");
    }

    fn validate_status_update(&self, _cx: &Context<'_>, new: &Value, _old: &Value) -> Errors {
        let mut errors = Errors::new();
        let keys = [
            "replicas",
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "observedGeneration",
            "collisionCount",
            "availableReplicas",
        ];
        let bounds = [
            ("readyReplicas", "replicas"),
            ("currentReplicas", "replicas"),
            ("updatedReplicas", "replicas"),
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

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let of = |path: &[&str]| int(object, path).unwrap_or_default();
        let [names, images] = containers(get(object, &["spec", "template"]));
        let ready = format!(
            "{}/{}",
            of(&["status", "readyReplicas"]),
            of(&["spec", "replicas"])
        );
        vec![
            name(object).into(),
            ready.into(),
            age(object, now),
            names,
            images,
        ]
    }
}

fn update_strategy(errors: &mut Errors, at: &Path, s: &Value) {
    let rolling = member(s, "rollingUpdate");
    match text(s, &["type"]) {
        "" => errors.push(Error::required(at, "")),
        "OnDelete" => {
            if let Some(r) = rolling {
                let why = "only allowed for updateStrategy 'RollingUpdate'";
                errors.push(Error::invalid(&at.child("rollingUpdate"), r.clone(), why));
            }
        }
        "RollingUpdate" => {
            if let Some(r) = rolling {
                non_negative(errors, &at.child("rollingUpdate"), r, "partition");
            }
        }
        other => {
            let shown = format!("{{\"Type\":{},\"RollingUpdate\":null}}", Value::from(other));
            errors.push(invalid_shown(
                at,
                shown,
                "must be 'RollingUpdate' or 'OnDelete'",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cx, fields, idempotent};
    use super::*;

    fn full() -> Value {
        idempotent(
            &StatefulSet,
            json!({"spec": {"serviceName": "s", "selector": {"matchLabels": {"app": "x"}}, "template": {"metadata":
                {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}},
                "volumeClaimTemplates": [{"metadata": {"name": "v"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]}}),
        )
    }

    #[test]
    fn defaults_and_checks() {
        let mut o = full();
        assert!(StatefulSet.validate(&cx(), &o).is_empty());
        assert_eq!(
            o["spec"]["volumeClaimTemplates"][0]["status"],
            json!({"phase": "Pending"})
        );
        o["spec"]["podManagementPolicy"] = "x".into();
        o["spec"]["updateStrategy"] = json!({"type": "x"});
        o["spec"]["ordinals"] = json!({"start": -1});
        assert_eq!(
            fields(&StatefulSet.validate(&cx(), &o)),
            [
                "spec.podManagementPolicy",
                "spec.updateStrategy",
                "spec.ordinals.start"
            ]
        );
    }

    #[test]
    fn few_fields_may_change() {
        let (old, mut new) = (full(), full());
        new["spec"]["replicas"] = 5.into();
        assert!(StatefulSet.validate_update(&cx(), &new, &old).is_empty());
        new["spec"]["serviceName"] = "t".into();
        assert_eq!(
            fields(&StatefulSet.validate_update(&cx(), &new, &old)),
            ["spec"]
        );
    }
}
