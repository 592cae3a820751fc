//! ReplicationControllers.

use std::borrow::Cow;

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::labels::Selector;
use kontiki_api::object::{get, int, map_mut, name};
use serde_json::{Map, Value, json};

use super::checks::{Errors, default_value, keep, map_of, non_negative, same};
use super::columns::{AGE, NAME, age, containers, integer, map_text, number, wide};
use super::pod_spec::default_template;
use super::workload::{OWNER, replica_status, template};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of replicationcontrollers.
pub(super) struct ReplicationController;

static COLUMNS: [Column; 8] = [
    NAME,
    integer(
        "Desired",
        "Replicas is the number of desired replicas. This is a pointer to distinguish between explicit zero and unspecified. Defaults to 1. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicationcontroller#what-is-a-replicationcontroller",
    ),
    integer(
        "Current",
        "Replicas is the most recently observed number of replicas. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicationcontroller#what-is-a-replicationcontroller",
    ),
    integer(
        "Ready",
        "The number of ready replicas for this replication controller.",
    ),
    AGE,
    wide("Containers", "Names of each container in the template."),
    wide(
        "Images",
        "Images referenced by each container in the template.",
    ),
    wide(
        "Selector",
        "Selector is a label query over pods that should match the Replicas count. If Selector is empty, it is defaulted to the labels present on the Pod template. Label keys and values that must match in order to be controlled by this replication controller, if empty defaulted to labels on Pod template. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
    ),
];

impl Strategy for ReplicationController {
    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        default_value(object, "spec", json!({}));
        let labels = object.pointer("/spec/template/metadata/labels").cloned();
        if let Some(labels) = labels.filter(|l| !same(Some(l), None)) {
            if same(object.pointer("/spec/selector"), None) {
                map_mut(object, &["spec"]).insert("selector".into(), labels.clone());
            }
            if same(object.pointer("/metadata/labels"), None) {
                map_mut(object, &["metadata"]).insert("labels".into(), labels);
            }
        }
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
        non_negative(&mut errors, &at, spec, "minReadySeconds");
        let selector = get(spec, &["selector"])
            .and_then(Value::as_object)
            .filter(|m| !m.is_empty());
        if selector.is_none() {
            errors.push(Error::required(&at.child("selector"), ""));
        }
        non_negative(&mut errors, &at, spec, "replicas");
        template(&mut errors, &at, spec, &parsed(selector), OWNER);
        errors
    }

    fn prepare_for_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "status");
    }

    fn prepare_for_status_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "spec");
    }

    fn validate_status_update(&self, _cx: &Context<'_>, new: &Value, _old: &Value) -> Errors {
        replica_status(new)
    }

    fn field<'a>(&self, object: &'a Value, field: &str) -> Option<Cow<'a, str>> {
        let replicas = || {
            int(object, &["status", "replicas"])
                .unwrap_or_default()
                .to_string()
        };
        (field == "status.replicas").then(|| replicas().into())
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["status.replicas"]
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
            map_text(get(object, &["spec", "selector"])),
        ]
    }
}

/// The selector of equalities that the map stands for.
fn parsed(selector: Option<&Map<String, Value>>) -> Selector {
    let pairs = selector.into_iter().flatten();
    Selector::from_map(
        &pairs
            .map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned()))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cx, fields, idempotent};
    use super::*;

    #[test]
    fn the_selector_comes_from_the_template() {
        let template = json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
        let mut o = idempotent(
            &ReplicationController,
            json!({"spec": {"template": template}}),
        );
        assert!(ReplicationController.validate(&cx(), &o).is_empty());
        assert_eq!(
            (&o["spec"]["selector"], &o["metadata"]["labels"]),
            (&json!({"app": "x"}), &json!({"app": "x"}))
        );
        o["spec"]["selector"] = json!({"app": "y"});
        o["spec"]["replicas"] = (-1).into();
        assert_eq!(
            fields(&ReplicationController.validate(&cx(), &o)),
            ["spec.replicas", "spec.template.metadata.labels"]
        );
    }
}
