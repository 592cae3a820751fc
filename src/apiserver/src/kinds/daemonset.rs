//! DaemonSets.

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::object::{get, map_mut, name, text};
use serde_json::{Value, json};

use super::checks::{
    Errors, default_text, default_value, keep, map_of, member, non_negative, same,
};
use super::columns::{
    AGE, NAME, age, containers, integer, map_text, number, selector, string, wide,
};
use super::deployment::{amount, int_or_percent, not_over_100};
use super::pod_spec::default_template;
use super::workload::{
    Owner, immutable_selector, selector_and_template, status_numbers, unsupported_strategy,
};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of daemonsets.
pub(super) struct DaemonSet;

static COLUMNS: [Column; 11] = [
    NAME,
    integer(
        "Desired",
        "The total number of nodes that should be running the daemon pod (including nodes correctly running the daemon pod). More info: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/",
    ),
    integer(
        "Current",
        "The number of nodes that are running at least 1 daemon pod and are supposed to run the daemon pod. More info: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/",
    ),
    integer(
        "Ready",
        "numberReady is the number of nodes that should be running the daemon pod and have one or more of the daemon pod running with a Ready Condition.",
    ),
    integer(
        "Up-to-date",
        "The total number of nodes that are running updated daemon pod",
    ),
    integer(
        "Available",
        "The number of nodes that should be running the daemon pod and have one or more of the daemon pod running and available (ready for at least spec.minReadySeconds)",
    ),
    string(
        "Node Selector",
        "NodeSelector is a selector which must be true for the pod to fit on a node. Selector which must match a node's labels for the pod to be scheduled on that node. More info: https://kubernetes.io/docs/concepts/configuration/assign-pod-node/",
    ),
    AGE,
    wide("Containers", "Names of each container in the template."),
    wide(
        "Images",
        "Images referenced by each container in the template.",
    ),
    wide(
        "Selector",
        "A label query over pods that are managed by the daemon set. Must match in order to be controlled. It must match the pod template's labels. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
    ),
];

/// The annotation that counts the templates.
pub(crate) const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
const COUNTS: [&str; 4] = [
    "currentNumberScheduled",
    "desiredNumberScheduled",
    "numberMisscheduled",
    "numberReady",
];

impl Strategy for DaemonSet {
    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        default_value(object, "spec", json!({}));
        map_mut(object, &["metadata", "annotations"])
            .entry(TEMPLATE_GENERATION)
            .or_insert_with(|| "0".into());
        let Some(spec) = map_of(object, "spec") else {
            return;
        };
        default_value(spec, "revisionHistoryLimit", 10);
        default_value(spec, "updateStrategy", json!({}));
        if let Some(s) = map_of(spec, "updateStrategy") {
            default_text(s, "type", "RollingUpdate");
            if text(s, &["type"]) == "RollingUpdate" {
                default_value(s, "rollingUpdate", json!({}));
                if let Some(r) = map_of(s, "rollingUpdate") {
                    default_value(r, "maxUnavailable", 1);
                    default_value(r, "maxSurge", 0);
                }
            }
        }
        default_template(spec);
    }

    fn prepare_for_create(&self, _cx: &Context<'_>, object: &mut Value) {
        map_mut(object, &[]).insert(
            "status".into(),
            COUNTS
                .iter()
                .map(|k| ((*k).to_owned(), Value::from(0)))
                .collect(),
        );
        map_mut(object, &["metadata", "annotations"])
            .insert(TEMPLATE_GENERATION.into(), "1".into());
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let at = Path::new("spec");
        let Some(spec) = object.get("spec") else {
            return errors;
        };
        selector_and_template(
            &mut errors,
            &at,
            spec,
            Owner {
                selector: "daemonset",
                template: "DaemonSet",
            },
        );
        non_negative(&mut errors, &at, spec, "minReadySeconds");
        update_strategy(
            &mut errors,
            &at.child("updateStrategy"),
            spec.get("updateStrategy").unwrap_or(&Value::Null),
        );
        non_negative(&mut errors, &at, spec, "revisionHistoryLimit");
        errors
    }

    fn prepare_for_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "status");
        let count = text(old, &["metadata", "annotations", TEMPLATE_GENERATION])
            .parse::<i64>()
            .unwrap_or(1);
        let of = |v| get(v, &["spec", "template"]);
        let changed = i64::from(!same(of(new), of(old)));
        map_mut(new, &["metadata", "annotations"]).insert(
            TEMPLATE_GENERATION.into(),
            (count + changed).to_string().into(),
        );
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
        let mut errors = Errors::new();
        let more = [
            "observedGeneration",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
            "collisionCount",
        ];
        let keys: Vec<&str> = COUNTS.into_iter().chain(more).collect();
        status_numbers(
            &mut errors,
            new.get("status").unwrap_or(&Value::Null),
            &keys,
            &[],
        );
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let of = |key| number(object, &["status", key]);
        let [names, images] = containers(get(object, &["spec", "template"]));
        vec![
            name(object).into(),
            of("desiredNumberScheduled"),
            of("currentNumberScheduled"),
            of("numberReady"),
            of("updatedNumberScheduled"),
            of("numberAvailable"),
            map_text(get(object, &["spec", "template", "spec", "nodeSelector"])),
            age(object, now),
            names,
            images,
            selector(get(object, &["spec", "selector"])),
        ]
    }
}

fn update_strategy(errors: &mut Errors, at: &Path, s: &Value) {
    match text(s, &["type"]) {
        "OnDelete" => {}
        "RollingUpdate" => match member(s, "rollingUpdate") {
            None => errors.push(Error::required(&at.child("rollingUpdate"), "")),
            Some(r) => rolling_update(errors, &at.child("rollingUpdate"), r),
        },
        other => errors.push(unsupported_strategy(
            at,
            other,
            "supported values: \"RollingUpdate\", \"OnDelete\"",
        )),
    }
}

fn rolling_update(errors: &mut Errors, at: &Path, r: &Value) {
    let (unavailable, surge) = (r.get("maxUnavailable"), r.get("maxSurge"));
    for (key, v) in [("maxUnavailable", unavailable), ("maxSurge", surge)] {
        int_or_percent(errors, &at.child(key), v);
        not_over_100(errors, &at.child(key), v);
    }
    match (amount(unavailable), amount(surge)) {
        (0, 0) => errors.push(Error::required(
            &at.child("maxUnavailable"),
            "cannot be 0 when maxSurge is 0",
        )),
        (u, s) if u != 0 && s != 0 => {
            let why = "may not be set when maxUnavailable is non-zero";
            errors.push(Error::invalid(
                &at.child("maxSurge"),
                surge.cloned().unwrap_or_default(),
                why,
            ));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cx, fields, idempotent};
    use super::*;

    fn minimal() -> Value {
        idempotent(
            &DaemonSet,
            json!({"spec": {"selector": {"matchLabels": {"app": "x"}}, "template": {"metadata": {"labels": {"app": "x"}},
                "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}}),
        )
    }

    #[test]
    fn defaults_and_checks() {
        let mut o = minimal();
        assert!(DaemonSet.validate(&cx(), &o).is_empty());
        o["spec"]["updateStrategy"]["type"] = "x".into();
        o["spec"]["template"]["spec"]["activeDeadlineSeconds"] = 1.into();
        assert_eq!(
            fields(&DaemonSet.validate(&cx(), &o)),
            [
                "spec.template.spec.activeDeadlineSeconds",
                "spec.updateStrategy"
            ]
        );
    }

    #[test]
    fn templates_are_counted() {
        let mut old = minimal();
        DaemonSet.prepare_for_create(&cx(), &mut old);
        let mut new = old.clone();
        DaemonSet.prepare_for_update(&cx(), &mut new, &old);
        assert_eq!(new["metadata"]["annotations"][TEMPLATE_GENERATION], "1");
        new["spec"]["template"]["spec"]["containers"][0]["image"] = "i:2".into();
        DaemonSet.prepare_for_update(&cx(), &mut new, &old);
        assert_eq!(new["metadata"]["annotations"][TEMPLATE_GENERATION], "2");
    }
}
