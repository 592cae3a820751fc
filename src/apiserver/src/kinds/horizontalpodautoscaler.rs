//! HorizontalPodAutoscalers. They are stored, and seen here, as `autoscaling/v2`.

use std::sync::LazyLock;

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::object::{get, int, list, text};
use serde_json::{Value, json};

use super::checks::{
    Errors, default_int, default_text, default_value, keep, map_of, member, unsupported,
};
use super::columns::{AGE, NAME, described_in, named_row, number, string};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of horizontalpodautoscalers.
pub(super) struct HorizontalPodAutoscaler;

static COLUMNS: LazyLock<[Column; 7]> = LazyLock::new(|| {
    let of = |title, kind, field| string(title, described_in("autoscaling", "v2", kind, &[field]));
    let spec = "HorizontalPodAutoscalerSpec";
    [
        NAME,
        of("Reference", spec, "scaleTargetRef"),
        of("Targets", spec, "metrics"),
        of("MinPods", spec, "minReplicas"),
        of("MaxPods", spec, "maxReplicas"),
        of(
            "Replicas",
            "HorizontalPodAutoscalerStatus",
            "currentReplicas",
        ),
        AGE,
    ]
});

const CPU_PERCENT_DEFAULT: i64 = 80;
const WINDOW_MAX_SECONDS: i64 = 3600;
const PERIOD_MAX_SECONDS: i64 = 1800;
const SOURCES: [&str; 5] = [
    "ContainerResource",
    "External",
    "Object",
    "Pods",
    "Resource",
];
/// How many metrics a row shows.
const METRICS_SHOWN: usize = 2;

impl Strategy for HorizontalPodAutoscaler {
    fn default(&self, object: &mut Value) {
        let Some(spec) = map_of(object, "spec") else {
            return;
        };
        default_value(spec, "minReplicas", 1);
        if list(spec, &["metrics"]).is_empty() {
            let target = json!({"type": "Utilization", "averageUtilization": CPU_PERCENT_DEFAULT});
            spec["metrics"] =
                json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]);
        }
        if let Some(b) = map_of(spec, "behavior") {
            let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
            let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
            default_rules(b, "scaleUp", json!([pods, percent]));
            default_rules(b, "scaleDown", json!([percent]));
            if let Some(up) = map_of(b, "scaleUp") {
                default_int(up, "stabilizationWindowSeconds", 0);
            }
        }
    }

    fn prepare_for_create(&self, _cx: &Context<'_>, object: &mut Value) {
        object["status"] = json!({"currentMetrics": null, "desiredReplicas": 0});
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let at = Path::new("spec");
        let spec = object.get("spec").unwrap_or(&Value::Null);
        let (min, max) = (
            int(spec, &["minReplicas"]).unwrap_or(1),
            int(spec, &["maxReplicas"]).unwrap_or(0),
        );
        if min < 1 {
            let why = "must be greater than or equal to 1";
            errors.push(Error::invalid(&at.child("minReplicas"), min, why));
        }
        if max < 1 {
            let why = "must be greater than 0";
            errors.push(Error::invalid(&at.child("maxReplicas"), max, why));
        }
        if max < min {
            let why = "must be greater than or equal to `minReplicas`";
            errors.push(Error::invalid(&at.child("maxReplicas"), max, why));
        }
        reference(&mut errors, &at.child("scaleTargetRef"), spec);
        let metrics = list(spec, &["metrics"]);
        for (i, m) in metrics.iter().enumerate() {
            metric(&mut errors, &at.child("metrics").index(i), m);
        }
        let scales_from_nothing = metrics
            .iter()
            .any(|m| matches!(text(m, &["type"]), "Object" | "External"));
        if min == 0 && !scales_from_nothing {
            let why = "must specify at least one Object or External metric to support scaling to zero replicas";
            errors.push(Error::forbidden(&at.child("metrics"), why));
        }
        for key in ["scaleUp", "scaleDown"] {
            let rules = get(spec, &["behavior", key]).unwrap_or(&Value::Null);
            behavior(&mut errors, &at.child("behavior").child(key), rules);
        }
        errors
    }

    fn prepare_for_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "status");
    }

    fn prepare_for_status_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        // Unlike most, this takes metadata along with the status.
        keep(new, old, "spec");
    }

    fn columns(&self) -> &'static [Column] {
        &*COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let of = |key| text(object, &["spec", "scaleTargetRef", key]);
        let min = int(object, &["spec", "minReplicas"]);
        named_row(
            object,
            now,
            [
                format!("{}/{}", of("kind"), of("name")).into(),
                targets(object).into(),
                min.map_or("<unset>".into(), |m| m.to_string()).into(),
                number(object, &["spec", "maxReplicas"]),
                number(object, &["status", "currentReplicas"]),
            ],
        )
    }
}

fn default_rules(behavior: &mut Value, key: &str, policies: Value) {
    if behavior.get(key).is_none_or(Value::is_null) {
        behavior[key] = json!({});
    }
    let Some(rules) = map_of(behavior, key) else {
        return;
    };
    default_text(rules, "selectPolicy", "Max");
    if list(rules, &["policies"]).is_empty() {
        rules["policies"] = policies;
    }
}

fn reference(errors: &mut Errors, at: &Path, spec: &Value) {
    let of = |key| text(spec, &["scaleTargetRef", key]);
    for key in ["kind", "name"] {
        if of(key).is_empty() {
            errors.push(Error::required(&at.child(key), ""));
        }
    }
    let version = of("apiVersion");
    if !version.contains('/') && of("kind") != "ReplicationController" {
        let why = "apiVersion must specify API group";
        errors.push(Error::invalid(&at.child("apiVersion"), version, why));
    }
}

/// The member that describes a metric of this type.
fn source(kind: &str) -> &'static str {
    match kind {
        "ContainerResource" => "containerResource",
        "External" => "external",
        "Object" => "object",
        "Pods" => "pods",
        _ => "resource",
    }
}

fn metric(errors: &mut Errors, at: &Path, m: &Value) {
    let kind = text(m, &["type"]);
    if kind.is_empty() {
        let why = "must specify a metric source type";
        errors.push(Error::required(&at.child("type"), why));
    } else if !SOURCES.contains(&kind) {
        // Upstream says so once for the type, and once for the source that goes with it.
        errors.push(unsupported(&at.child("type"), kind, &SOURCES));
        errors.push(unsupported(&at.child("type"), kind, &SOURCES));
        return;
    }
    let key = source(kind);
    let Some(s) = member(m, key) else {
        let why = "must populate information for the given metric source";
        errors.push(Error::required(&at.child(key), why));
        return;
    };
    let at = at.child(key).child("target");
    let target = s.get("target").unwrap_or(&Value::Null);
    let of = text(target, &["type"]);
    if of.is_empty() {
        let why = "must specify a metric target type";
        errors.push(Error::required(&at.child("type"), why));
    }
    if !matches!(of, "Utilization" | "Value" | "AverageValue") {
        let why = "must be either Utilization, Value, or AverageValue";
        errors.push(Error::invalid(&at.child("type"), of, why));
    }
    let said = |key| member(target, key).is_some();
    if key.to_lowercase().ends_with("resource")
        && !said("averageUtilization")
        && !said("averageValue")
    {
        let why = "must set either a target raw value or a target utilization";
        errors.push(Error::required(&at.child("averageUtilization"), why));
    }
    if key == "pods" && !said("averageValue") {
        let why = "must specify a positive target averageValue";
        errors.push(Error::required(&at.child("averageValue"), why));
    }
    if matches!(key, "object" | "external") && !said("value") && !said("averageValue") {
        let why = "must set either a target value for metric or a per-pod target";
        errors.push(Error::required(&at.child("averageValue"), why));
    }
}

fn behavior(errors: &mut Errors, at: &Path, rules: &Value) {
    if rules.is_null() {
        return;
    }
    let window = int(rules, &["stabilizationWindowSeconds"]).unwrap_or(0);
    let path = at.child("stabilizationWindowSeconds");
    if window < 0 {
        let why = "must be greater than or equal to zero";
        errors.push(Error::invalid(&path, window, why));
    }
    if window > WINDOW_MAX_SECONDS {
        let why = format!("must be less than or equal to {WINDOW_MAX_SECONDS}");
        errors.push(Error::invalid(&path, window, why));
    }
    let policy = text(rules, &["selectPolicy"]);
    if !matches!(policy, "Max" | "Min" | "Disabled") {
        let known = ["Disabled", "Max", "Min"];
        errors.push(unsupported(&at.child("selectPolicy"), policy, &known));
    }
    for (i, p) in list(rules, &["policies"]).iter().enumerate() {
        let at = at.child("policies").index(i);
        let kind = text(p, &["type"]);
        if !matches!(kind, "Pods" | "Percent") {
            errors.push(unsupported(&at.child("type"), kind, &["Percent", "Pods"]));
        }
        for key in ["value", "periodSeconds"] {
            let n = int(p, &[key]).unwrap_or(0);
            if n <= 0 {
                errors.push(Error::invalid(
                    &at.child(key),
                    n,
                    "must be greater than zero",
                ));
            } else if key == "periodSeconds" && n > PERIOD_MAX_SECONDS {
                let why = format!("must be less than or equal to {PERIOD_MAX_SECONDS}");
                errors.push(Error::invalid(&at.child(key), n, why));
            }
        }
    }
}

/// The metrics with what they are and what they should be.
fn targets(object: &Value) -> String {
    let all = list(object, &["spec", "metrics"]);
    if all.is_empty() {
        // Rows of `autoscaling/v1` are made from objects of that version.
        let percent = int(object, &["spec", "targetCPUUtilizationPercentage"]);
        return percent.map_or("<none>".into(), |p| format!("cpu: <unknown>/{p}%"));
    }
    let now = list(object, &["status", "currentMetrics"]);
    let shown: Vec<String> = all
        .iter()
        .enumerate()
        .take(METRICS_SHOWN)
        .map(|(i, m)| target(m, now.get(i)))
        .collect();
    let more = match all.len().saturating_sub(METRICS_SHOWN) {
        0 => String::new(),
        n => format!(" + {n} more..."),
    };
    shown.join(", ") + &more
}

fn target(metric: &Value, now: Option<&Value>) -> String {
    let key = source(text(metric, &["type"]));
    let target = get(metric, &[key, "target"]).unwrap_or(&Value::Null);
    let current = now
        .and_then(|n| get(n, &[key, "current"]))
        .unwrap_or(&Value::Null);
    let name = if key.to_lowercase().ends_with("resource") {
        format!("{}: ", text(metric, &[key, "name"]))
    } else {
        String::new()
    };
    if let Some(percent) = int(target, &["averageUtilization"]) {
        let is =
            int(current, &["averageUtilization"]).map_or("<unknown>".into(), |n| format!("{n}%"));
        return format!("{name}{is}/{percent}%");
    }
    let average = !text(target, &["averageValue"]).is_empty();
    let value = if average { "averageValue" } else { "value" };
    let is = match text(current, &[value]) {
        "" => "<unknown>",
        v => v,
    };
    let per_pod = if average && matches!(key, "object" | "external") {
        " (avg)"
    } else {
        ""
    };
    format!("{name}{is}/{}{per_pod}", text(target, &[value]))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cx, fields, idempotent};
    use super::*;

    const HPA: HorizontalPodAutoscaler = HorizontalPodAutoscaler;

    #[test]
    fn one_metric_and_one_behavior_are_defaults() {
        let o = idempotent(
            &HPA,
            json!({"spec": {"maxReplicas": 3, "behavior": {"scaleDown": {"stabilizationWindowSeconds": 4000}},
                "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}}),
        );
        assert_eq!(o["spec"]["minReplicas"], 1);
        assert_eq!(o["spec"]["behavior"]["scaleUp"]["policies"][0]["value"], 4);
        assert_eq!(targets(&o), "cpu: <unknown>/80%");
        assert_eq!(
            fields(&HPA.validate(&cx(), &o)),
            ["spec.behavior.scaleDown.stabilizationWindowSeconds"]
        );
    }

    #[test]
    fn metrics_say_what_they_want() {
        let of = |metric: Value| {
            fields(&HPA.validate(
                &cx(),
                &json!({"spec": {"maxReplicas": 1, "metrics": [metric],
                "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}}),
            ))
        };
        assert_eq!(
            of(json!({"type": "x"})),
            ["spec.metrics[0].type", "spec.metrics[0].type"]
        );
        assert_eq!(
            of(json!({"type": "Resource", "resource": {"name": "cpu"}})),
            [
                "spec.metrics[0].resource.target.type",
                "spec.metrics[0].resource.target.type",
                "spec.metrics[0].resource.target.averageUtilization"
            ]
        );
    }
}
