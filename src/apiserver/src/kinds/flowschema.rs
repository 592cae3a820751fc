//! FlowSchemas.

use std::sync::LazyLock;

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::names;
use kontiki_api::object::{get, int, list, name, text};
use serde_json::{Value, json};

use super::checks::{Errors, complain, keep, map_of, member, unsupported};
use super::columns::{AGE, NAME, age, described, or_none, string};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of flowschemas.
pub(super) struct FlowSchema;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
static COLUMNS: LazyLock<[Column; 6]> = LazyLock::new(|| {
    let of = |title, kind, field| string(title, described(GROUP, kind, &[field]));
    [
        NAME,
        of(
            "PriorityLevel",
            "PriorityLevelConfigurationReference",
            "name",
        ),
        of("MatchingPrecedence", "FlowSchemaSpec", "matchingPrecedence"),
        of(
            "DistinguisherMethod",
            "FlowSchemaSpec",
            "distinguisherMethod",
        ),
        AGE,
        string(
            "MissingPL",
            "references a broken or non-existent PriorityLevelConfiguration",
        ),
    ]
});

const PRECEDENCE_DEFAULT: i64 = 1000;
const PRECEDENCE_MAX: i64 = 10000;

impl Strategy for FlowSchema {
    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        if let Some(spec) = map_of(object, "spec")
            && int(spec, &["matchingPrecedence"]).unwrap_or(0) == 0
        {
            spec["matchingPrecedence"] = PRECEDENCE_DEFAULT.into();
        }
    }

    fn prepare_for_create(&self, _cx: &Context<'_>, object: &mut Value) {
        object["status"] = json!({});
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let at = Path::new("spec");
        let path = at.child("matchingPrecedence");
        match int(object, &["spec", "matchingPrecedence"]).unwrap_or(0) {
            n if n <= 0 => errors.push(Error::invalid(&path, n, "must be a positive value")),
            n if n > PRECEDENCE_MAX => {
                let why = format!("must not be greater than {PRECEDENCE_MAX}");
                errors.push(Error::invalid(&path, n, why));
            }
            1 if name(object) != "exempt" => {
                let why = "only the schema named 'exempt' may have matchingPrecedence 1";
                errors.push(Error::invalid(&path, 1, why));
            }
            _ => {}
        }
        if let Some(m) = get(object, &["spec"]).and_then(|s| member(s, "distinguisherMethod")) {
            let by = text(m, &["type"]);
            if !matches!(by, "ByNamespace" | "ByUser") {
                let path = at.child("distinguisherMethod").child("type");
                errors.push(unsupported(&path, by, &["ByNamespace", "ByUser"]));
            }
        }
        let level = text(object, &["spec", "priorityLevelConfiguration", "name"]);
        let path = at.child("priorityLevelConfiguration").child("name");
        if level.is_empty() {
            errors.push(Error::required(&path, "must reference a priority level"));
        } else {
            complain(&mut errors, &path, level, names::dns1123_subdomain(level));
        }
        for (i, r) in list(object, &["spec", "rules"]).iter().enumerate() {
            rule(&mut errors, &at.child("rules").index(i), r);
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
        let dangling = list(object, &["status", "conditions"])
            .iter()
            .find(|c| text(c, &["type"]) == "Dangling");
        vec![
            name(object).into(),
            text(object, &["spec", "priorityLevelConfiguration", "name"]).into(),
            int(object, &["spec", "matchingPrecedence"]).into(),
            or_none(text(object, &["spec", "distinguisherMethod", "type"])),
            age(object, now),
            dangling.map_or("?", |c| text(c, &["status"])).into(),
        ]
    }
}

fn rule(errors: &mut Errors, at: &Path, r: &Value) {
    let subjects = list(r, &["subjects"]);
    if subjects.is_empty() {
        let why = "subjects must contain at least one value";
        errors.push(Error::required(&at.child("subjects"), why));
    }
    for (i, s) in subjects.iter().enumerate() {
        subject(errors, &at.child("subjects").index(i), s);
    }
    let (resources, paths) = (list(r, &["resourceRules"]), list(r, &["nonResourceRules"]));
    if resources.is_empty() && paths.is_empty() {
        let why = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(Error::required(at, why));
    }
    let mut not_empty = |path: &Path, v: &Value, key: &str| {
        if list(v, &[key]).is_empty() {
            let why = format!("{key} must contain at least one value");
            errors.push(Error::required(&path.child(key), why));
        }
    };
    for (i, r) in resources.iter().enumerate() {
        let at = at.child("resourceRules").index(i);
        for key in ["verbs", "apiGroups", "resources"] {
            not_empty(&at, r, key);
        }
    }
    for (i, r) in paths.iter().enumerate() {
        let at = at.child("nonResourceRules").index(i);
        for key in ["verbs", "nonResourceURLs"] {
            not_empty(&at, r, key);
        }
    }
}

fn subject(errors: &mut Errors, at: &Path, s: &Value) {
    let key = match text(s, &["kind"]) {
        "User" => "user",
        "Group" => "group",
        "ServiceAccount" => "serviceAccount",
        other => {
            let known = ["Group", "ServiceAccount", "User"];
            errors.push(unsupported(&at.child("kind"), other, &known));
            return;
        }
    };
    match member(s, key) {
        None => {
            let why = format!(
                "{key} is required when subject kind is {}",
                text(s, &["kind"])
            );
            errors.push(Error::required(&at.child(key), why));
        }
        Some(who) => {
            if text(who, &["name"]).is_empty() {
                errors.push(Error::required(&at.child(key).child("name"), ""));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cx, fields, idempotent};
    use super::*;

    #[test]
    fn schemas_lead_to_a_level_and_say_who() {
        let o = idempotent(
            &FlowSchema,
            json!({"spec": {
                "priorityLevelConfiguration": {"name": ""}, "distinguisherMethod": {"type": "x"},
                "rules": [{"subjects": [{"kind": "x"}], "resourceRules": [{"verbs": ["get"], "apiGroups": [""]}]}, {}],
            }}),
        );
        assert_eq!(o["spec"]["matchingPrecedence"], 1000);
        assert_eq!(
            fields(&FlowSchema.validate(&cx(), &o)),
            [
                "spec.distinguisherMethod.type",
                "spec.priorityLevelConfiguration.name",
                "spec.rules[0].subjects[0].kind",
                "spec.rules[0].resourceRules[0].resources",
                "spec.rules[1].subjects",
                "spec.rules[1]",
            ]
        );
    }
}
