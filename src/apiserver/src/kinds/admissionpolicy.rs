//! ValidatingAdmissionPolicies, MutatingAdmissionPolicies and what binds the former to parameters.
//!
//! Expressions are taken as they are: they are compiled where policies are enforced.

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::names;
use kontiki_api::object::{get, list, name, text};
use serde_json::{Value, json};

use super::admissionrules::{
    FAILURE_POLICIES, conditions, default_matching, matching, one_of, rule,
};
use super::checks::{Errors, complain, default_text, keep, map_of, member, unsupported};
use super::columns::{AGE, NAME, integer, named_row, string};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of policies.
pub(super) struct AdmissionPolicy {
    /// Whether it changes objects, rather than judging them.
    pub(super) mutating: bool,
}

const PARAM_KIND: Column = string(
    "ParamKind",
    "ParamKind specifies the kind of resources used to parameterize this policy",
);
static MUTATING_COLUMNS: [Column; 4] = [
    NAME,
    integer(
        "Mutations",
        "Mutation indicates the number of mutations rules defined in this configuration",
    ),
    PARAM_KIND,
    AGE,
];
static VALIDATING_COLUMNS: [Column; 4] = [
    NAME,
    integer(
        "Validations",
        "Validations indicates the number of validation rules defined in this configuration",
    ),
    PARAM_KIND,
    AGE,
];

const RULES: [&str; 2] = ["resourceRules", "excludeResourceRules"];
const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
const UNSET: &str = "<unset>";

impl AdmissionPolicy {
    fn steps(&self) -> &'static str {
        if self.mutating {
            "mutations"
        } else {
            "validations"
        }
    }
}

impl Strategy for AdmissionPolicy {
    fn default(&self, object: &mut Value) {
        let Some(spec) = map_of(object, "spec") else {
            return;
        };
        default_text(spec, "failurePolicy", "Fail");
        if let Some(m) = map_of(spec, "matchConstraints") {
            default_matching(m, &RULES);
        }
    }

    fn prepare_for_create(&self, _cx: &Context<'_>, object: &mut Value) {
        if !self.mutating {
            object["status"] = json!({});
        }
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let at = Path::new("spec");
        let spec = object.get("spec").unwrap_or(&Value::Null);
        one_of(&mut errors, &at, spec, "failurePolicy", &FAILURE_POLICIES);
        match member(spec, "matchConstraints") {
            None => errors.push(Error::required(&at.child("matchConstraints"), "")),
            Some(m) => constraints(&mut errors, &at.child("matchConstraints"), m, true),
        }
        conditions(&mut errors, &at, spec);
        let steps = list(spec, &[self.steps()]);
        let path = at.child(self.steps());
        if self.mutating {
            if steps.is_empty() {
                errors.push(Error::required(
                    &path,
                    "mutations must contain at least one item",
                ));
            }
            for (i, m) in steps.iter().enumerate() {
                mutation(&mut errors, &path.index(i), m);
            }
            return errors;
        }
        let annotations = list(spec, &["auditAnnotations"]);
        if steps.is_empty() && annotations.is_empty() {
            let why = "validations or auditAnnotations must contain at least one item";
            errors.push(Error::required(&path, why));
            errors.push(Error::required(&at.child("auditAnnotations"), why));
        }
        for (i, v) in steps.iter().enumerate() {
            let at = path.index(i);
            if text(v, &["expression"]).trim().is_empty() {
                errors.push(Error::required(
                    &at.child("expression"),
                    "expression is not specified",
                ));
            }
            one_of(&mut errors, &at, v, "reason", &REASONS);
        }
        for (i, a) in annotations.iter().enumerate() {
            let at = at.child("auditAnnotations").index(i);
            let key = format!("{}/{}", name(object), text(a, &["key"]));
            complain(
                &mut errors,
                &at.child("key"),
                &key,
                names::qualified_name(&key),
            );
            if text(a, &["valueExpression"]).trim().is_empty() {
                let why = "valueExpression is not specified";
                errors.push(Error::required(&at.child("valueExpression"), why));
            }
        }
        errors
    }

    fn prepare_for_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        if !self.mutating {
            keep(new, old, "status");
        }
    }

    fn columns(&self) -> &'static [Column] {
        if self.mutating {
            &MUTATING_COLUMNS
        } else {
            &VALIDATING_COLUMNS
        }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let param = get(object, &["spec", "paramKind"]).filter(|p| !p.is_null());
        let shown = param.map_or(UNSET.to_owned(), |p| {
            format!("{}/{}", text(p, &["apiVersion"]), text(p, &["kind"]))
        });
        let steps = list(object, &["spec", self.steps()]).len();
        named_row(object, now, [steps.into(), shown.into()])
    }
}

fn constraints(errors: &mut Errors, at: &Path, m: &Value, rules_needed: bool) {
    matching(errors, at, m);
    for key in RULES {
        let all = list(m, &[key]);
        if key == "resourceRules" && rules_needed && all.is_empty() {
            errors.push(Error::required(&at.child(key), ""));
        }
        for (i, r) in all.iter().enumerate() {
            rule(errors, &at.child(key).index(i), r);
        }
    }
}

fn mutation(errors: &mut Errors, at: &Path, m: &Value) {
    let (wanted, other) = match text(m, &["patchType"]) {
        "ApplyConfiguration" => ("applyConfiguration", "jsonPatch"),
        "JSONPatch" => ("jsonPatch", "applyConfiguration"),
        "" => {
            errors.push(Error::required(&at.child("patchType"), ""));
            return;
        }
        unknown => {
            let known = ["ApplyConfiguration", "JSONPatch"];
            errors.push(unsupported(&at.child("patchType"), unknown, &known));
            return;
        }
    };
    if member(m, wanted).is_none() {
        let why = format!(
            "must be specified when patchType is {}",
            text(m, &["patchType"])
        );
        errors.push(Error::required(&at.child(wanted), why));
    }
    if member(m, other).is_some() {
        let why = format!(
            "must not be specified when patchType is {}",
            text(m, &["patchType"])
        );
        errors.push(Error::invalid(&at.child(other), "{}", why));
    }
}

/// The strategy of what binds policies to parameters.
pub(super) struct AdmissionPolicyBinding {
    /// Whether the policies change objects.
    pub(super) mutating: bool,
}

static BINDING_COLUMNS: [Column; 4] = [
    NAME,
    string(
        "PolicyName",
        "PolicyName indicates the policy definition which the policy binding binded to",
    ),
    string(
        "ParamRef",
        "ParamRef indicates the param resource which sets the configuration param",
    ),
    AGE,
];

impl Strategy for AdmissionPolicyBinding {
    fn default(&self, object: &mut Value) {
        if let Some(m) = map_of(object, "spec").and_then(|s| map_of(s, "matchResources")) {
            default_matching(m, &RULES);
        }
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let at = Path::new("spec");
        let spec = object.get("spec").unwrap_or(&Value::Null);
        let policy = text(spec, &["policyName"]);
        if policy.is_empty() {
            errors.push(Error::required(&at.child("policyName"), ""));
        } else {
            let complaints = names::dns1123_subdomain(policy);
            complain(&mut errors, &at.child("policyName"), policy, complaints);
        }
        if let Some(m) = member(spec, "matchResources") {
            constraints(&mut errors, &at.child("matchResources"), m, false);
        }
        if !self.mutating {
            actions(
                &mut errors,
                &at.child("validationActions"),
                list(spec, &["validationActions"]),
            );
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &BINDING_COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let param = get(object, &["spec", "paramRef"]).filter(|p| !p.is_null());
        let shown = param.map_or(UNSET.to_owned(), |p| match text(p, &["namespace"]) {
            "" => text(p, &["name"]).to_owned(),
            ns => format!("{ns}/{}", text(p, &["name"])),
        });
        named_row(
            object,
            now,
            [text(object, &["spec", "policyName"]).into(), shown.into()],
        )
    }
}

fn actions(errors: &mut Errors, at: &Path, all: &[Value]) {
    const KNOWN: [&str; 3] = ["Audit", "Deny", "Warn"];
    if all.is_empty() {
        errors.push(Error::required(
            at,
            "at least one validation action is required",
        ));
    }
    for (i, a) in all.iter().enumerate() {
        let action = a.as_str().unwrap_or_default();
        if !KNOWN.contains(&action) {
            errors.push(unsupported(&at.index(i), action, &KNOWN));
        }
        if all[..i].contains(a) {
            errors.push(Error::duplicate(&at.index(i), action));
        }
    }
    if all.iter().any(|a| a == "Deny") && all.iter().any(|a| a == "Warn") {
        let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        errors.push(Error::invalid(at, all.to_vec(), why));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cx, fields, idempotent};
    use super::*;

    const VALIDATING: AdmissionPolicy = AdmissionPolicy { mutating: false };

    #[test]
    fn policies_say_what_they_are_about() {
        let o = idempotent(
            &VALIDATING,
            json!({"metadata": {"name": "p"}, "spec": {"auditAnnotations": [{"key": "k", "valueExpression": "'x'"}]}}),
        );
        assert_eq!(o["spec"]["failurePolicy"], "Fail");
        assert_eq!(
            fields(&VALIDATING.validate(&cx(), &o)),
            ["spec.matchConstraints"]
        );
        let empty = json!({"spec": {"matchConstraints": {"resourceRules": [{
            "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"],
        }]}}});
        assert_eq!(
            fields(&VALIDATING.validate(&cx(), &empty)),
            ["spec.validations", "spec.auditAnnotations"]
        );
    }

    #[test]
    fn bindings_do_not_refuse_and_warn_at_once() {
        let s = AdmissionPolicyBinding { mutating: false };
        let of = |actions: Value| {
            fields(&s.validate(
                &cx(),
                &json!({"spec": {"policyName": "p", "validationActions": actions}}),
            ))
        };
        assert!(of(json!(["Warn", "Audit"])).is_empty());
        assert_eq!(of(json!([])), ["spec.validationActions"]);
        assert_eq!(of(json!(["Deny", "Warn"])), ["spec.validationActions"]);
    }
}
