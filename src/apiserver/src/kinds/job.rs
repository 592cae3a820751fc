//! Jobs.

mod checks;

use std::borrow::Cow;

use jiff::Timestamp;
use kontiki_api::object::{get, int, list, map_mut, name, text, truth, uid};
use serde_json::{Value, json};

use super::checks::{Errors, default_text, default_value, items_mut, keep, map_of, member, same};
use super::columns::{AGE, NAME, age, containers, human_duration, selector, string, wide};
use super::pod_spec::default_template;
use crate::strategy::{Column, Context, Strategy};

pub(super) use checks::validate_spec;

/// The strategy of jobs.
pub(super) struct Job;

static COLUMNS: [Column; 8] = [
    NAME,
    string("Status", "Status of the job."),
    string(
        "Completions",
        "The number of pods which reached phase Succeeded. The value increases monotonically for a given spec. However, it may decrease in reaction to scale down of elastic indexed jobs.",
    ),
    string("Duration", "Time required to complete the job."),
    AGE,
    wide("Containers", "Names of each container in the template."),
    wide(
        "Images",
        "Images referenced by each container in the template.",
    ),
    wide(
        "Selector",
        "A label query over pods that should match the pod count. Normally, the system sets this field for you. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
    ),
];

/// The label that ties pods to their job, by its uid.
pub(super) const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
/// The label with the job's name.
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// How often a job is tried again if it does not say.
const BACKOFF_LIMIT: i64 = 6;

impl Strategy for Job {
    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        default_value(object, "spec", json!({}));
        if let Some(spec) = map_of(object, "spec") {
            default_spec(spec);
        }
        let labels = object.pointer("/spec/template/metadata/labels").cloned();
        if let Some(labels) = labels.filter(|l| !same(Some(l), None))
            && same(object.pointer("/metadata/labels"), None)
        {
            map_mut(object, &["metadata"]).insert("labels".into(), labels);
        }
    }

    fn prepare_for_create(&self, _cx: &Context<'_>, object: &mut Value) {
        map_mut(object, &[]).insert("status".into(), json!({}));
        if !truth(object, &["spec", "manualSelector"]) {
            generate_selector(object);
            // A job without labels takes those of its pods, generated ones included.
            self.default(object);
        }
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        checks::validate(object)
    }

    fn prepare_for_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "status");
    }

    fn validate_update(&self, _cx: &Context<'_>, new: &Value, old: &Value) -> Errors {
        checks::validate_update(new, old)
    }

    fn prepare_for_status_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "spec");
    }

    fn validate_status_update(&self, _cx: &Context<'_>, new: &Value, _old: &Value) -> Errors {
        let mut errors = Errors::new();
        let status = new.get("status").unwrap_or(&Value::Null);
        let keys = ["active", "succeeded", "failed", "ready", "terminating"];
        super::workload::status_numbers(&mut errors, status, &keys, &[]);
        errors
    }

    fn field<'a>(&self, object: &'a Value, field: &str) -> Option<Cow<'a, str>> {
        let count = || {
            int(object, &["status", "succeeded"])
                .unwrap_or_default()
                .to_string()
        };
        (field == "status.successful").then(|| count().into())
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["status.successful"]
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let [names, images] = containers(get(object, &["spec", "template"]));
        vec![
            name(object).into(),
            status(object).into(),
            completions(object).into(),
            duration(object, now).into(),
            age(object, now),
            names,
            images,
            selector(get(object, &["spec", "selector"])),
        ]
    }
}

/// The defaults of a job's spec.
pub(super) fn default_spec(spec: &mut Value) {
    // A job that says nothing of how many runs one pod once.
    if member(spec, "completions").is_none() && member(spec, "parallelism").is_none() {
        default_value(spec, "completions", 1);
    }
    default_value(spec, "parallelism", 1);
    let limit = if member(spec, "backoffLimitPerIndex").is_some() {
        i64::from(i32::MAX)
    } else {
        BACKOFF_LIMIT
    };
    default_value(spec, "backoffLimit", limit);
    default_text(spec, "completionMode", "NonIndexed");
    default_value(spec, "suspend", false);
    default_value(spec, "manualSelector", false);
    let policy = if member(spec, "podFailurePolicy").is_some() {
        "Failed"
    } else {
        "TerminatingOrFailed"
    };
    default_text(spec, "podReplacementPolicy", policy);
    if let Some(p) = map_of(spec, "podFailurePolicy") {
        for rule in items_mut(p, "rules") {
            for condition in items_mut(rule, "onPodConditions") {
                default_text(condition, "status", "True");
            }
        }
    }
    default_template(spec);
}

/// The job's pods carry its uid, and it selects them by that.
fn generate_selector(object: &mut Value) {
    let (own, id) = (name(object).to_owned(), uid(object).to_owned());
    let labels = map_mut(object, &["spec", "template", "metadata", "labels"]);
    for (key, value) in [
        ("controller-uid", &id),
        (CONTROLLER_UID, &id),
        ("job-name", &own),
        (JOB_NAME, &own),
    ] {
        labels.insert(key.into(), value.as_str().into());
    }
    let selected = map_mut(object, &["spec", "selector", "matchLabels"]);
    selected.entry(CONTROLLER_UID).or_insert_with(|| id.into());
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    let all = list(object, &["status", "conditions"]).iter();
    all.into_iter()
        .find(|c| text(c, &["type"]) == kind && text(c, &["status"]) == "True")
}

fn status(object: &Value) -> &'static str {
    if condition(object, "Complete").is_some() {
        "Complete"
    } else if condition(object, "Failed").is_some() {
        "Failed"
    } else if !text(object, &["metadata", "deletionTimestamp"]).is_empty() {
        "Terminating"
    } else if condition(object, "Suspended").is_some() {
        "Suspended"
    } else if condition(object, "FailureTarget").is_some() {
        "FailureTarget"
    } else if condition(object, "SuccessCriteriaMet").is_some() {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn completions(object: &Value) -> String {
    let done = int(object, &["status", "succeeded"]).unwrap_or_default();
    match (
        int(object, &["spec", "completions"]),
        int(object, &["spec", "parallelism"]).unwrap_or_default(),
    ) {
        (Some(n), _) => format!("{done}/{n}"),
        (None, n) if n > 1 => format!("{done}/1 of {n}"),
        (None, _) => format!("{done}/1"),
    }
}

fn duration(object: &Value, now: Timestamp) -> String {
    let time = |key: &str| text(object, &["status", key]).parse::<Timestamp>().ok();
    let Some(start) = time("startTime") else {
        return String::new();
    };
    let ended = time("completionTime").or_else(|| {
        condition(object, "Failed").and_then(|c| text(c, &["lastTransitionTime"]).parse().ok())
    });
    human_duration(ended.unwrap_or(now).as_second() - start.as_second())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cx, fields, idempotent};
    use super::*;

    fn job(spec: Value) -> Value {
        let mut o = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {"metadata": {"labels": {"app": "x"}},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]}}}});
        o["spec"]
            .as_object_mut()
            .expect("an object")
            .extend(spec.as_object().expect("an object").clone());
        let mut o = idempotent(&Job, o);
        Job.prepare_for_create(&cx(), &mut o);
        o
    }

    #[test]
    fn a_minimal_job_runs_one_pod_once() {
        let o = job(json!({}));
        assert_eq!(
            (&o["spec"]["completions"], &o["spec"]["backoffLimit"]),
            (&json!(1), &json!(6))
        );
        assert_eq!(
            o["spec"]["selector"],
            json!({"matchLabels": {CONTROLLER_UID: "u"}})
        );
        assert_eq!(o["spec"]["template"]["metadata"]["labels"]["job-name"], "j");
        assert!(Job.validate(&cx(), &o).is_empty());
        assert_eq!(
            job(json!({"parallelism": 2}))["spec"].get("completions"),
            None
        );
        assert_eq!(
            job(json!({"backoffLimitPerIndex": 1}))["spec"]["backoffLimit"],
            i32::MAX
        );
    }

    #[test]
    fn mistakes_are_named() {
        let of = |spec: Value| fields(&Job.validate(&cx(), &job(spec)));
        assert_eq!(of(json!({"parallelism": -1})), ["spec.parallelism"]);
        assert_eq!(of(json!({"completionMode": "x"})), ["spec.completionMode"]);
        assert_eq!(
            of(json!({"completionMode": "Indexed", "parallelism": 1})),
            ["spec.completions"]
        );
        assert_eq!(
            of(json!({"selector": {"matchLabels": {"app": "x"}}})),
            ["spec.selector"]
        );
        let rule = json!({"action": "x", "onExitCodes": {"operator": "In", "values": [1]}});
        assert_eq!(
            of(json!({"podFailurePolicy": {"rules": [rule]}})),
            ["spec.podFailurePolicy.rules[0].action"]
        );
        let mut always = job(json!({}));
        always["spec"]["template"]["spec"]["restartPolicy"] = "Always".into();
        assert_eq!(
            fields(&Job.validate(&cx(), &always)),
            ["spec.template.spec.restartPolicy"]
        );
    }

    #[test]
    fn a_row_shows_how_far_it_is() {
        let now = "2020-01-01T00:01:00Z".parse().expect("a time");
        let o = json!({"metadata": {"name": "j"}, "spec": {"completions": 3, "parallelism": 1},
            "status": {"succeeded": 1, "startTime": "2020-01-01T00:00:00Z"}});
        let row = Job.row(&o, now);
        assert_eq!(row[1..4], ["Running", "1/3", "60s"].map(Value::from));
        let done = json!({"status": {"conditions": [{"type": "Complete", "status": "True"}]}});
        assert_eq!(Job.row(&done, now)[1], "Complete");
    }
}
