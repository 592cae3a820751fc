//! PodDisruptionBudgets.

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::object::{get, map_mut, text};
use serde_json::{Value, json};

use super::checks::{Errors, invalid_shown, keep, label_selector, member};
use super::columns::{AGE, NAME, named_row, number, string};
use super::deployment::{int_or_percent, not_over_100};
use super::workload::status_numbers;
use crate::strategy::{Column, Context, Strategy};

/// The strategy of poddisruptionbudgets.
pub(super) struct PodDisruptionBudget;

static COLUMNS: [Column; 5] = [
    NAME,
    string(
        "Min Available",
        "The minimum number of pods that must be available.",
    ),
    string(
        "Max Unavailable",
        "The maximum number of pods that may be unavailable.",
    ),
    super::columns::integer(
        "Allowed Disruptions",
        "Calculated number of pods that may be disrupted at this time.",
    ),
    AGE,
];

const COUNTS: [&str; 4] = [
    "currentHealthy",
    "desiredHealthy",
    "disruptionsAllowed",
    "expectedPods",
];
const POLICIES: [&str; 2] = ["AlwaysAllow", "IfHealthyBudget"];

impl Strategy for PodDisruptionBudget {
    fn validate_name(&self, _name: &str, _prefix: bool) -> Vec<String> {
        // Upstream takes any name for them.
        Vec::new()
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn prepare_for_create(&self, _cx: &Context<'_>, object: &mut Value) {
        let status: Value = COUNTS
            .iter()
            .map(|k| ((*k).to_owned(), Value::from(0)))
            .collect();
        map_mut(object, &[]).insert("status".into(), status);
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let at = Path::new("spec");
        let Some(spec) = object.get("spec") else {
            return errors;
        };
        let (least, most) = (member(spec, "minAvailable"), member(spec, "maxUnavailable"));
        if let (Some(least), Some(most)) = (least, most) {
            let selector = spec.get("selector").unwrap_or(&Value::Null);
            let policy = spec
                .get("unhealthyPodEvictionPolicy")
                .unwrap_or(&Value::Null);
            let shown = format!(
                "{{\"MinAvailable\":{least},\"Selector\":{selector},\"MaxUnavailable\":{most},\"UnhealthyPodEvictionPolicy\":{policy}}}"
            );
            errors.push(invalid_shown(
                &at,
                shown,
                "minAvailable and maxUnavailable cannot be both set",
            ));
        }
        for key in ["minAvailable", "maxUnavailable"] {
            int_or_percent(&mut errors, &at.child(key), spec.get(key));
            not_over_100(&mut errors, &at.child(key), spec.get(key));
        }
        if let Some(s) = member(spec, "selector") {
            label_selector(&mut errors, &at.child("selector"), s);
        }
        let policy = text(spec, &["unhealthyPodEvictionPolicy"]);
        if !policy.is_empty() && !POLICIES.contains(&policy) {
            errors.push(Error::not_supported(
                &at.child("unhealthyPodEvictionPolicy"),
                policy,
                &POLICIES,
            ));
        }
        errors
    }

    fn prepare_for_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "status");
    }

    fn prepare_for_status_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "spec");
    }

    fn validate_status_update(&self, _cx: &Context<'_>, new: &Value, _old: &Value) -> Errors {
        let mut errors = Errors::new();
        status_numbers(
            &mut errors,
            new.get("status").unwrap_or(&json!({})),
            &COUNTS,
            &[],
        );
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let shown = |key: &str| match get(object, &["spec", key]) {
            Some(Value::String(s)) => Value::from(s.as_str()),
            Some(Value::Number(n)) => n.to_string().into(),
            _ => "N/A".into(),
        };
        let allowed = number(object, &["status", "disruptionsAllowed"]);
        named_row(
            object,
            now,
            [shown("minAvailable"), shown("maxUnavailable"), allowed],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cx, fields};
    use super::*;

    #[test]
    fn budgets_say_one_thing() {
        let of = |spec: Value| fields(&PodDisruptionBudget.validate(&cx(), &json!({"spec": spec})));
        assert!(of(json!({"minAvailable": "50%"})).is_empty());
        assert_eq!(of(json!({"minAvailable": "150%"})), ["spec.minAvailable"]);
        assert_eq!(
            of(json!({"minAvailable": 1, "maxUnavailable": 1})),
            ["spec"]
        );
        assert_eq!(
            of(json!({"unhealthyPodEvictionPolicy": "x"})),
            ["spec.unhealthyPodEvictionPolicy"]
        );
    }
}
