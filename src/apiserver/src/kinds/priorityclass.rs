//! PriorityClasses.

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::object::{int, name, text, truth};
use serde_json::Value;

use super::checks::{Errors, default_value, unsupported};
use super::columns::{AGE, NAME, age, boolean, integer, string};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of priorityclasses.
pub(super) struct PriorityClass;

static COLUMNS: [Column; 5] = [
    NAME,
    integer(
        "Value",
        "value represents the integer value of this priority class. This is the actual priority that pods receive when they have the name of this class in their pod spec.",
    ),
    boolean(
        "Global-Default",
        "globalDefault specifies whether this PriorityClass should be considered as the default priority for pods that do not have any priority class. Only one PriorityClass can be marked as `globalDefault`. However, if more than one PriorityClasses exists with their `globalDefault` field set to true, the smallest value of such global default PriorityClasses will be used as the default priority.",
    ),
    AGE,
    string(
        "PreemptionPolicy",
        "preemptionPolicy is the Policy for preempting pods with lower priority. One of Never, PreemptLowerPriority. Defaults to PreemptLowerPriority if unset.",
    ),
];

/// The highest priority of a class that is not the system's.
const USER_MAX: i64 = 1_000_000_000;
/// The classes of the system, with their priorities.
pub(super) const SYSTEM: [(&str, i64); 2] = [
    ("system-cluster-critical", 2_000_000_000),
    ("system-node-critical", 2_000_001_000),
];

impl Strategy for PriorityClass {
    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        default_value(object, "preemptionPolicy", "PreemptLowerPriority");
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let (own, value) = (name(object), int(object, &["value"]).unwrap_or_default());
        if own.starts_with("system-") {
            let why = match SYSTEM.iter().find(|(n, _)| *n == own) {
                None => Some(format!("{own} is not a known system priority class")),
                Some((_, v)) if *v != value => {
                    Some(format!("value of {own} PriorityClass must be {v}"))
                }
                Some(_) if truth(object, &["globalDefault"]) => Some(format!(
                    "globalDefault of {own} PriorityClass must be false"
                )),
                Some(_) => None,
            };
            if let Some(why) = why {
                let why = format!(
                    "priority class names with 'system-' prefix are reserved for system use only. error: {why}"
                );
                errors.push(Error::forbidden(&Path::new("metadata").child("name"), why));
            }
        } else if value > USER_MAX {
            let why = format!("maximum allowed value of a user defined priority is {USER_MAX}");
            errors.push(Error::forbidden(&Path::new("value"), why));
        }
        let (policy, known) = (
            text(object, &["preemptionPolicy"]),
            ["PreemptLowerPriority", "Never"],
        );
        if !known.contains(&policy) {
            errors.push(unsupported(&Path::new("preemptionPolicy"), policy, &known));
        }
        errors
    }

    fn validate_update(&self, _cx: &Context<'_>, new: &Value, old: &Value) -> Errors {
        let mut errors = Errors::new();
        let value = |v| int(v, &["value"]).unwrap_or_default();
        if value(new) != value(old) {
            errors.push(Error::forbidden(
                &Path::new("value"),
                "may not be changed in an update.",
            ));
        }
        if text(new, &["preemptionPolicy"]) != text(old, &["preemptionPolicy"]) {
            let path = Path::new("preemptionPolicy");
            errors.push(Error::invalid(
                &path,
                text(new, &["preemptionPolicy"]),
                "field is immutable",
            ));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![
            name(object).into(),
            int(object, &["value"]).unwrap_or_default().into(),
            truth(object, &["globalDefault"]).into(),
            age(object, now),
            text(object, &["preemptionPolicy"]).into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{cx, fields, idempotent};
    use super::*;

    #[test]
    fn values_and_names_have_their_limits() {
        let of = |o: Value| fields(&PriorityClass.validate(&cx(), &idempotent(&PriorityClass, o)));
        assert!(of(json!({"metadata": {"name": "a"}, "value": 5})).is_empty());
        assert_eq!(
            of(json!({"metadata": {"name": "a"}, "value": 2_000_000_000})),
            ["value"]
        );
        assert_eq!(
            of(json!({"metadata": {"name": "system-x"}})),
            ["metadata.name"]
        );
        assert!(
            of(json!({"metadata": {"name": "system-node-critical"}, "value": 2_000_001_000}))
                .is_empty()
        );
        assert_eq!(of(json!({"preemptionPolicy": "x"})), ["preemptionPolicy"]);
    }

    #[test]
    fn the_value_stays() {
        let of = |v: i64| idempotent(&PriorityClass, json!({"value": v}));
        assert_eq!(
            fields(&PriorityClass.validate_update(&cx(), &of(2), &of(1))),
            ["value"]
        );
    }
}
