//! What is wrong with a job.

use kontiki_api::field::{Error, Path};
use kontiki_api::labels::LabelSelector;
use kontiki_api::object::{get, int, list, text, truth};
use serde::Deserialize;
use serde_json::Value;

use super::{CONTROLLER_UID, JOB_NAME};
use crate::kinds::checks::{
    Errors, clear, immutable, label_selector, map_of, member, non_negative, same, unsupported,
};
use crate::kinds::pod_spec::{Rules, validate_template};
use crate::kinds::workload::labels_match;

const MODES: [&str; 2] = ["NonIndexed", "Indexed"];
const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
const REPLACEMENTS: [&str; 2] = ["Failed", "TerminatingOrFailed"];
/// The most pods that an indexed job runs at a time.
const INDEXED_PARALLELISM_MAX: i64 = 100_000;

/// A new job, or one that is updated.
pub(super) fn validate(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let at = Path::new("spec");
    let Some(spec) = object.get("spec") else {
        return errors;
    };
    selector(&mut errors, &at, object, spec);
    validate_spec(&mut errors, &at, spec);
    // The pods of an indexed job take their host name from it.
    let (own, last) = (
        kontiki_api::object::name(object),
        int(spec, &["completions"]).unwrap_or_default() - 1,
    );
    if text(spec, &["completionMode"]) == "Indexed" && last >= 0 && !own.is_empty() {
        let pod = format!("{own}-{last}");
        if !kontiki_api::names::dns1123_label(&pod).is_empty() {
            let why = format!("will not able to create pod with invalid DNS label: {pod}");
            errors.push(Error::invalid(
                &Path::new("metadata").child("name"),
                own,
                why,
            ));
        }
    }
    errors
}

/// The selector is the one that the job was given, unless it chooses its own.
fn selector(errors: &mut Errors, at: &Path, object: &Value, spec: &Value) {
    let path = at.child("selector");
    let Some(s) = member(spec, "selector") else {
        return errors.push(Error::required(&path, ""));
    };
    label_selector(errors, &path, s);
    if !truth(spec, &["manualSelector"]) {
        let id = kontiki_api::object::uid(object);
        let labels = s.get("matchLabels").and_then(Value::as_object);
        let generated =
            labels.is_some_and(|m| m.len() == 1 && m.get(CONTROLLER_UID).is_some_and(|v| v == id));
        let name = text(spec, &["template", "metadata", "labels", JOB_NAME]);
        if name.is_empty() && !kontiki_api::object::name(object).is_empty() {
            let path = at.child("template").child("metadata").child("labels");
            let labels = get(spec, &["template", "metadata", "labels"])
                .cloned()
                .unwrap_or_default();
            errors.push(Error::invalid(
                &path,
                labels,
                format!("must be '{}'", kontiki_api::object::name(object)),
            ));
        }
        if !generated || !list(s, &["matchExpressions"]).is_empty() {
            errors.push(Error::invalid(
                &path,
                s.clone(),
                "`selector` not auto-generated",
            ));
        }
    }
    if let Some(Ok(parsed)) = LabelSelector::deserialize(s).ok().map(|s| s.to_selector()) {
        labels_match(
            errors,
            &at.child("template"),
            spec.get("template").unwrap_or(&Value::Null),
            &parsed,
        );
    }
}

/// The spec of a job, also of one in a cron job.
pub(in crate::kinds) fn validate_spec(errors: &mut Errors, at: &Path, spec: &Value) {
    let numbers = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    for key in numbers {
        non_negative(errors, at, spec, key);
    }
    let mode = text(spec, &["completionMode"]);
    if !mode.is_empty() && !MODES.contains(&mode) {
        errors.push(unsupported(&at.child("completionMode"), mode, &MODES));
    }
    if mode == "Indexed" {
        if member(spec, "completions").is_none() {
            errors.push(Error::required(
                &at.child("completions"),
                "when completion mode is Indexed",
            ));
        }
        if let Some(n) = int(spec, &["parallelism"]).filter(|n| *n > INDEXED_PARALLELISM_MAX) {
            let why = format!(
                "must be less than or equal to {INDEXED_PARALLELISM_MAX} when completion mode is Indexed"
            );
            errors.push(Error::invalid(&at.child("parallelism"), n, why));
        }
    } else if mode == "NonIndexed"
        && let Some(n) = int(spec, &["backoffLimitPerIndex"])
    {
        let why = "requires indexed completion mode";
        errors.push(Error::invalid(&at.child("backoffLimitPerIndex"), n, why));
    }
    failure_policy(errors, &at.child("podFailurePolicy"), spec);
    let replacement = text(spec, &["podReplacementPolicy"]);
    if !replacement.is_empty() && !REPLACEMENTS.contains(&replacement) {
        errors.push(unsupported(
            &at.child("podReplacementPolicy"),
            replacement,
            &REPLACEMENTS,
        ));
    }
    let path = at.child("template");
    let template = spec.get("template").unwrap_or(&Value::Null);
    validate_template(
        errors,
        &path,
        template,
        Rules {
            restart_policies: &[],
        },
    );
    let policy = text(template, &["spec", "restartPolicy"]);
    let path = path.child("spec").child("restartPolicy");
    if policy.is_empty() || policy == "Always" {
        errors.push(Error::required(
            &path,
            "valid values: \"OnFailure\", \"Never\"",
        ));
    } else if member(spec, "podFailurePolicy").is_some() && policy == "OnFailure" {
        errors.push(Error::invalid(
            &path,
            policy,
            "only \"Never\" is supported when podFailurePolicy is specified",
        ));
    }
}

fn failure_policy(errors: &mut Errors, at: &Path, spec: &Value) {
    let Some(policy) = member(spec, "podFailurePolicy") else {
        return;
    };
    for (i, rule) in list(policy, &["rules"]).iter().enumerate() {
        let at = at.child("rules").index(i);
        let action = text(rule, &["action"]);
        if action.is_empty() {
            errors.push(Error::required(
                &at.child("action"),
                "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]",
            ));
        } else if !ACTIONS.contains(&action) {
            errors.push(Error::not_supported(&at.child("action"), action, &ACTIONS));
        } else if action == "FailIndex" && member(spec, "backoffLimitPerIndex").is_none() {
            let why = "requires the backoffLimitPerIndex to be set";
            errors.push(Error::invalid(&at.child("action"), action, why));
        }
        let codes = member(rule, "onExitCodes");
        let conditions = list(rule, &["onPodConditions"]);
        match (codes, conditions.is_empty()) {
            (None, true) => {
                errors.push(Error::invalid(
                    &at,
                    "",
                    "specifying one of OnExitCodes and OnPodConditions is required",
                ));
            }
            (Some(_), false) => {
                errors.push(Error::invalid(
                    &at,
                    "",
                    "specifying both OnExitCodes and OnPodConditions is not supported",
                ));
            }
            (Some(c), true) => exit_codes(errors, &at.child("onExitCodes"), c),
            (None, false) => {}
        }
    }
}

fn exit_codes(errors: &mut Errors, at: &Path, codes: &Value) {
    let operator = text(codes, &["operator"]);
    if !["In", "NotIn"].contains(&operator) {
        errors.push(Error::not_supported(
            &at.child("operator"),
            operator,
            &["In", "NotIn"],
        ));
    }
    let values = list(codes, &["values"]);
    if values.is_empty() {
        errors.push(Error::invalid(
            &at.child("values"),
            values.to_vec(),
            "at least one value is required",
        ));
    }
    for (i, v) in values.iter().enumerate() {
        if operator == "In" && v.as_i64() == Some(0) {
            errors.push(Error::invalid(
                &at.child("values").index(i),
                0,
                "must not be 0 for the In operator",
            ));
        }
        if values[..i].contains(v) {
            errors.push(Error::duplicate(&at.child("values").index(i), v.clone()));
        }
    }
}

/// What may not change.
pub(super) fn validate_update(new: &Value, old: &Value) -> Errors {
    let mut errors = validate(new);
    let at = Path::new("spec");
    let (spec, was) = (&new["spec"], &old["spec"]);
    completions(&mut errors, &at, spec, was);
    immutable(
        &mut errors,
        &at.child("selector"),
        spec.get("selector"),
        was.get("selector"),
    );
    let fixed = |v: &Value| {
        let mut t = v.get("template").cloned().unwrap_or_default();
        if truth(old, &["spec", "suspend"]) && get(old, &["status", "startTime"]).is_none() {
            // A job that has not started yet may still be placed elsewhere.
            if let Some(m) = map_of(&mut t, "metadata") {
                clear(m, "labels");
                clear(m, "annotations");
            }
            if let Some(s) = map_of(&mut t, "spec") {
                ["nodeSelector", "affinity", "tolerations", "schedulingGates"]
                    .iter()
                    .for_each(|k| clear(s, k));
            }
        }
        t
    };
    if !same(Some(&fixed(spec)), Some(&fixed(was))) {
        let shown = spec.get("template").cloned().unwrap_or_default();
        errors.push(Error::invalid(
            &at.child("template"),
            shown,
            "field is immutable",
        ));
    }
    for key in [
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ] {
        immutable(&mut errors, &at.child(key), spec.get(key), was.get(key));
    }
    errors
}

/// The number of completions stays, except that an indexed job may be scaled together with its parallelism.
fn completions(errors: &mut Errors, at: &Path, spec: &Value, was: &Value) {
    let path = at.child("completions");
    if same(spec.get("completions"), was.get("completions")) {
        return;
    }
    let shown = spec.get("completions").cloned().unwrap_or_default();
    if text(was, &["completionMode"]) != "Indexed" {
        errors.push(Error::invalid(&path, shown, "field is immutable"));
    } else if !same(spec.get("completions"), spec.get("parallelism")) {
        errors.push(Error::invalid(
            &path,
            shown,
            "can only be modified in tandem with spec.parallelism",
        ));
    }
}
