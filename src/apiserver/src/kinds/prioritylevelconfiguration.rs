//! PriorityLevelConfigurations.

use std::sync::LazyLock;

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::object::{get, int, name, text};
use serde_json::{Value, json};

use super::checks::{Errors, default_int, default_value, keep, map_of, member, unsupported};
use super::columns::{AGE, NAME, described, named_row, or_none, string};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of prioritylevelconfigurations.
pub(super) struct PriorityLevelConfiguration;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
static COLUMNS: LazyLock<[Column; 7]> = LazyLock::new(|| {
    let of = |title, kind, field| string(title, described(GROUP, kind, &[field]));
    [
        NAME,
        of("Type", "PriorityLevelConfigurationSpec", "type"),
        of(
            "NominalConcurrencyShares",
            "LimitedPriorityLevelConfiguration",
            "nominalConcurrencyShares",
        ),
        of("Queues", "QueuingConfiguration", "queues"),
        of("HandSize", "QueuingConfiguration", "handSize"),
        of(
            "QueueLengthLimit",
            "QueuingConfiguration",
            "queueLengthLimit",
        ),
        AGE,
    ]
});

/// The level that nothing waits at; its type is its own.
const EXEMPT: &str = "exempt";
const SHARES_DEFAULT: i64 = 30;
const QUEUES_DEFAULT: i64 = 64;
const QUEUES_MAX: i64 = 10_000_000;
const HAND_DEFAULT: i64 = 8;
const QUEUE_LENGTH_DEFAULT: i64 = 50;
const POSITIVE: &str = "must be positive";

impl Strategy for PriorityLevelConfiguration {
    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let Some(spec) = map_of(object, "spec") else {
            return;
        };
        if let Some(e) = map_of(spec, "exempt") {
            default_int(e, "nominalConcurrencyShares", 0);
            default_int(e, "lendablePercent", 0);
        }
        let Some(l) = map_of(spec, "limited") else {
            return;
        };
        // None at all is a choice, too: it holds requests back.
        default_value(l, "nominalConcurrencyShares", SHARES_DEFAULT);
        default_int(l, "lendablePercent", 0);
        if let Some(q) = map_of(l, "limitResponse").and_then(|r| map_of(r, "queuing")) {
            for (key, n) in [
                ("queues", QUEUES_DEFAULT),
                ("handSize", HAND_DEFAULT),
                ("queueLengthLimit", QUEUE_LENGTH_DEFAULT),
            ] {
                if int(q, &[key]).unwrap_or(0) == 0 {
                    q[key] = n.into();
                }
            }
        }
    }

    fn prepare_for_create(&self, _cx: &Context<'_>, object: &mut Value) {
        object["status"] = json!({});
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let at = Path::new("spec");
        let kind = text(object, &["spec", "type"]);
        if (name(object) == EXEMPT) != (kind == "Exempt") {
            let why = "must be 'Exempt' if and only if `name` is 'exempt'";
            errors.push(Error::invalid(&at.child("type"), kind, why));
        }
        if name(object) == EXEMPT && kind != "Exempt" {
            let why = "spec of 'exempt' except the 'spec.exempt' field must equal the fixed value";
            errors.push(Error::invalid(
                &at,
                get(object, &["spec"]).cloned().unwrap_or_default(),
                why,
            ));
        }
        let part = |key| get(object, &["spec"]).and_then(|s| member(s, key));
        match kind {
            "Exempt" if part("limited").is_some() => {
                let why = "must be nil if the type is not Limited";
                errors.push(Error::forbidden(&at.child("limited"), why));
            }
            "Exempt" => {}
            "Limited" => {
                if part("exempt").is_some() {
                    let why = "must be nil if the type is Limited";
                    errors.push(Error::forbidden(&at.child("exempt"), why));
                }
                match part("limited") {
                    Some(l) => limited(&mut errors, &at.child("limited"), l),
                    None => errors.push(Error::required(
                        &at.child("limited"),
                        "must not be empty when type is Limited",
                    )),
                }
            }
            other => errors.push(unsupported(
                &at.child("type"),
                other,
                &["Exempt", "Limited"],
            )),
        }
        errors
    }

    fn prepare_for_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "status");
    }

    fn columns(&self) -> &'static [Column] {
        &*COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let number = |path: &[&str]| get(object, path).cloned().unwrap_or_else(|| or_none(""));
        let shares = [
            number(&["spec", "limited", "nominalConcurrencyShares"]),
            number(&["spec", "exempt", "nominalConcurrencyShares"]),
        ];
        let shares = shares.into_iter().find(Value::is_number);
        let queuing = |key| number(&["spec", "limited", "limitResponse", "queuing", key]);
        named_row(
            object,
            now,
            [
                text(object, &["spec", "type"]).into(),
                shares.unwrap_or_else(|| or_none("")),
                queuing("queues"),
                queuing("handSize"),
                queuing("queueLengthLimit"),
            ],
        )
    }
}

fn limited(errors: &mut Errors, at: &Path, l: &Value) {
    super::flowcontrol::at_least(
        errors,
        at,
        l,
        "nominalConcurrencyShares",
        0,
        "must be a non-negative integer",
    );
    if let Some(p) = int(l, &["lendablePercent"]).filter(|p| !(0..=100).contains(p)) {
        let why = "must be between 0 and 100, inclusive";
        errors.push(Error::invalid(&at.child("lendablePercent"), p, why));
    }
    let at = at.child("limitResponse");
    let response = l.get("limitResponse").unwrap_or(&Value::Null);
    let queuing = member(response, "queuing");
    match text(response, &["type"]) {
        "Reject" if queuing.is_some() => {
            let why = "must be nil if limited.limitResponse.type is not Limited";
            errors.push(Error::forbidden(&at.child("queuing"), why));
        }
        "Reject" => {}
        "Queue" => match queuing {
            Some(q) => queues(errors, &at.child("queuing"), q),
            None => errors.push(Error::required(
                &at.child("queuing"),
                "must not be empty if limited.limitResponse.type is Limited",
            )),
        },
        other => errors.push(unsupported(&at.child("type"), other, &["Queue", "Reject"])),
    }
}

fn queues(errors: &mut Errors, at: &Path, q: &Value) {
    for key in ["queueLengthLimit", "queues", "handSize"] {
        super::flowcontrol::at_least(errors, at, q, key, 1, POSITIVE);
    }
    let (queues, hand) = (
        int(q, &["queues"]).unwrap_or(0),
        int(q, &["handSize"]).unwrap_or(0),
    );
    if queues > QUEUES_MAX {
        let why = format!("must not be greater than {QUEUES_MAX}");
        errors.push(Error::invalid(&at.child("queues"), queues, why));
    }
    if hand > queues {
        let why = format!("should not be greater than queues ({queues})");
        errors.push(Error::invalid(&at.child("handSize"), hand, why));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cx, fields, idempotent};
    use super::*;

    const LEVEL: PriorityLevelConfiguration = PriorityLevelConfiguration;

    #[test]
    fn queues_are_deep_enough_for_a_hand() {
        let o = json!({"metadata": {"name": "x"}, "spec": {"type": "Limited", "limited": {
            "limitResponse": {"type": "Queue", "queuing": {"queues": 4}},
        }}});
        let o = idempotent(&LEVEL, o);
        assert_eq!(o["spec"]["limited"]["nominalConcurrencyShares"], 30);
        assert_eq!(
            fields(&LEVEL.validate(&cx(), &o)),
            ["spec.limited.limitResponse.queuing.handSize"]
        );
    }

    #[test]
    fn only_the_exempt_level_is_exempt() {
        let of = |name: &str, spec: Value| {
            fields(&LEVEL.validate(&cx(), &json!({"metadata": {"name": name}, "spec": spec})))
        };
        assert!(of("exempt", json!({"type": "Exempt", "exempt": {}})).is_empty());
        assert_eq!(
            of("x", json!({"type": "Exempt", "limited": {}})),
            ["spec.type", "spec.limited"]
        );
        assert_eq!(
            of("exempt", json!({"type": "Limited", "exempt": {}})),
            ["spec.type", "spec", "spec.exempt", "spec.limited"]
        );
    }
}
