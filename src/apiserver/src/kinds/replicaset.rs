//! ReplicaSets.

use jiff::Timestamp;
use kontiki_api::field::Path;
use kontiki_api::object::{get, map_mut, name};
use serde_json::{Value, json};

use super::checks::{Errors, default_value, keep, map_of, non_negative};
use super::columns::{AGE, NAME, age, containers, integer, number, selector, wide};
use super::pod_spec::default_template;
use super::workload::{OWNER, immutable_selector, replica_status, selector_and_template};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of replicasets.
pub(super) struct ReplicaSet;

static COLUMNS: [Column; 8] = [
    NAME,
    integer(
        "Desired",
        "Replicas is the number of desired pods. This is a pointer to distinguish between explicit zero and unspecified. Defaults to 1. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset",
    ),
    integer(
        "Current",
        "Replicas is the most recently observed number of non-terminating pods. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset",
    ),
    integer(
        "Ready",
        "The number of non-terminating pods targeted by this ReplicaSet with a Ready Condition.",
    ),
    AGE,
    wide("Containers", "Names of each container in the template."),
    wide(
        "Images",
        "Images referenced by each container in the template.",
    ),
    wide(
        "Selector",
        "Selector is a label query over pods that should match the replica count. Label keys and values that must match in order to be controlled by this replica set. It must match the pod template's labels. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
    ),
];

impl Strategy for ReplicaSet {
    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        default_value(object, "spec", json!({}));
        let Some(spec) = map_of(object, "spec") else {
            return;
        };
        default_value(spec, "replicas", 1);
        default_template(spec);
    }

    fn prepare_for_create(&self, _cx: &Context<'_>, object: &mut Value) {
        map_mut(object, &[]).insert("status".into(), json!({"replicas": 0}));
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let at = Path::new("spec");
        let Some(spec) = object.get("spec") else {
            return errors;
        };
        non_negative(&mut errors, &at, spec, "replicas");
        non_negative(&mut errors, &at, spec, "minReadySeconds");
        selector_and_template(&mut errors, &at, spec, OWNER);
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
    }

    fn validate_status_update(&self, _cx: &Context<'_>, new: &Value, _old: &Value) -> Errors {
        replica_status(new)
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let [names, images] = containers(get(object, &["spec", "template"]));
        vec![
            name(object).into(),
            number(object, &["spec", "replicas"]),
            number(object, &["status", "replicas"]),
            number(object, &["status", "readyReplicas"]),
            age(object, now),
            names,
            images,
            selector(get(object, &["spec", "selector"])),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cx, fields, idempotent};
    use super::*;

    #[test]
    fn defaults_and_checks() {
        let mut o = idempotent(
            &ReplicaSet,
            json!({"spec": {"selector": {"matchLabels": {"app": "x"}}, "template": {"metadata": {"labels":
                {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}}),
        );
        assert!(ReplicaSet.validate(&cx(), &o).is_empty());
        o["spec"]["replicas"] = (-2).into();
        o["spec"]["template"]["spec"]["activeDeadlineSeconds"] = 5.into();
        assert_eq!(
            fields(&ReplicaSet.validate(&cx(), &o)),
            ["spec.replicas", "spec.template.spec.activeDeadlineSeconds"]
        );
    }

    #[test]
    fn the_status_counts_consistently() {
        let o = json!({"status": {"replicas": 1, "readyReplicas": 1, "availableReplicas": 2}});
        assert_eq!(ReplicaSet.validate_status_update(&cx(), &o, &o).len(), 2);
    }
}
