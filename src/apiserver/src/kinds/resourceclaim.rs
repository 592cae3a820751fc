//! ResourceClaims and their templates: requests for devices.

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::object::{get, list, text};
use serde_json::{Value, json};

use super::checks::{Errors, default_text, immutable, items_mut, keep, map_of, member};
use super::columns::{AGE, NAME, named_row, string};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of resourceclaims.
pub(super) struct ResourceClaim;

/// The strategy of resourceclaimtemplates.
pub(super) struct ResourceClaimTemplate;

static COLUMNS: [Column; 3] = [
    NAME,
    string(
        "State",
        "A summary of the current state (allocated, pending, reserved, etc.).",
    ),
    AGE,
];
static NAME_AND_AGE: [Column; 2] = [NAME, AGE];

const EXACT_COUNT: &str = "ExactCount";

impl Strategy for ResourceClaim {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = map_of(object, "spec") {
            default_spec(spec);
        }
    }

    fn prepare_for_create(&self, _cx: &Context<'_>, object: &mut Value) {
        object["status"] = json!({});
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        spec(&mut errors, &Path::new("spec"), object.get("spec"));
        errors
    }

    fn prepare_for_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "status");
    }

    fn validate_update(&self, _cx: &Context<'_>, new: &Value, old: &Value) -> Errors {
        let mut errors = Errors::new();
        immutable(
            &mut errors,
            &Path::new("spec"),
            new.get("spec"),
            old.get("spec"),
        );
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        named_row(object, now, [state(object).into()])
    }
}

/// What has become of the claim, in a few words.
fn state(object: &Value) -> String {
    let mut words = Vec::new();
    let deleted = get(object, &["metadata", "deletionTimestamp"]).is_some();
    if deleted {
        words.push("deleted");
    }
    match object.get("status").and_then(|s| member(s, "allocation")) {
        Some(_) => words.push("allocated"),
        None if !deleted => words.push("pending"),
        None => {}
    }
    if !list(object, &["status", "reservedFor"]).is_empty() {
        words.push("reserved");
    }
    words.join(",")
}

impl Strategy for ResourceClaimTemplate {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = map_of(object, "spec").and_then(|s| map_of(s, "spec")) {
            default_spec(spec);
        }
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let template = object.get("spec");
        let at = Path::new("spec");
        super::checks::template_metadata(
            &mut errors,
            &at.child("metadata"),
            template.and_then(|t| t.get("metadata")),
        );
        spec(
            &mut errors,
            &at.child("spec"),
            template.and_then(|t| t.get("spec")),
        );
        errors
    }

    fn validate_update(&self, _cx: &Context<'_>, new: &Value, old: &Value) -> Errors {
        let mut errors = Errors::new();
        immutable(
            &mut errors,
            &Path::new("spec"),
            new.get("spec"),
            old.get("spec"),
        );
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &NAME_AND_AGE
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        named_row(object, now, [])
    }
}

fn default_spec(spec: &mut Value) {
    let Some(devices) = map_of(spec, "devices") else {
        return;
    };
    for request in items_mut(devices, "requests") {
        if let Some(e) = map_of(request, "exactly") {
            default_request(e);
        }
        items_mut(request, "firstAvailable")
            .iter_mut()
            .for_each(default_request);
    }
}

fn default_request(request: &mut Value) {
    if !request.is_object() {
        return;
    }
    default_text(request, "allocationMode", EXACT_COUNT);
    let unset = request
        .get("count")
        .is_none_or(|n| n.as_i64() == Some(0) || n.is_null());
    if unset && text(request, &["allocationMode"]) == EXACT_COUNT {
        request["count"] = 1.into();
    }
}

fn spec(errors: &mut Errors, at: &Path, spec: Option<&Value>) {
    let requests = spec.map_or(&[][..], |s| list(s, &["devices", "requests"]));
    for (i, r) in requests.iter().enumerate() {
        let at = at.child("devices").child("requests").index(i);
        let name = text(r, &["name"]);
        if name.is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
        } else if requests[..i].iter().any(|b| text(b, &["name"]) == name) {
            errors.push(Error::duplicate(&at, name));
        }
        let alternatives = list(r, &["firstAvailable"]);
        match (member(r, "exactly"), alternatives) {
            (None, []) => {
                let why = "exactly one of `exactly` or `firstAvailable` is required";
                errors.push(Error::required(&at, why));
            }
            (Some(_), [_, ..]) => {
                let why = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
                errors.push(Error::invalid(&at, Value::Null, why));
            }
            (Some(e), []) => class(errors, &at.child("exactly"), e),
            (None, all) => {
                for (j, a) in all.iter().enumerate() {
                    class(errors, &at.child("firstAvailable").index(j), a);
                }
            }
        }
    }
}

fn class(errors: &mut Errors, at: &Path, request: &Value) {
    if text(request, &["deviceClassName"]).is_empty() {
        errors.push(Error::required(&at.child("deviceClassName"), ""));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cx, fields, idempotent};
    use super::*;

    #[test]
    fn requests_name_a_class_and_count() {
        let o = idempotent(
            &ResourceClaim,
            json!({"spec": {"devices": {"requests": [{"name": "r", "exactly": {}}, {"name": "r", "exactly": {"deviceClassName": "c"}}]}}}),
        );
        let first = &o["spec"]["devices"]["requests"][0]["exactly"];
        assert_eq!(*first, json!({"allocationMode": "ExactCount", "count": 1}));
        assert_eq!(
            fields(&ResourceClaim.validate(&cx(), &o)),
            [
                "spec.devices.requests[0].exactly.deviceClassName",
                "spec.devices.requests[1]"
            ]
        );
        assert_eq!(state(&o), "pending");
        assert_eq!(
            fields(&ResourceClaim.validate_update(&cx(), &o, &json!({"spec": {}}))),
            ["spec"]
        );
    }
}
