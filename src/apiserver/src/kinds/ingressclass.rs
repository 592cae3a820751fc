//! IngressClasses.

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::names;
use kontiki_api::object::{get, text};
use serde_json::Value;

use super::checks::{Errors, complain, default_text, immutable, map_of, member};
use super::columns::{AGE, NAME, named_row, or_none, string};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of ingressclasses.
pub(super) struct IngressClass;

static COLUMNS: [Column; 4] = [
    NAME,
    string(
        "Controller",
        "Controller that is responsible for handling this class",
    ),
    string(
        "Parameters",
        "A reference to a resource with additional parameters",
    ),
    AGE,
];

const SCOPES: [&str; 2] = ["Cluster", "Namespace"];

impl Strategy for IngressClass {
    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        if let Some(p) = map_of(object, "spec").and_then(|s| map_of(s, "parameters")) {
            default_text(p, "scope", "Cluster");
        }
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let at = Path::new("spec");
        let controller = text(object, &["spec", "controller"]);
        match controller {
            "" => errors.push(Error::required(&at.child("controller"), "")),
            c if !c.contains('/') => {
                let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
                errors.push(Error::invalid(&at.child("controller"), c, why));
            }
            c => {
                let domain = c.split('/').next().unwrap_or_default();
                complain(
                    &mut errors,
                    &at.child("controller"),
                    c,
                    names::dns1123_subdomain(domain),
                );
            }
        }
        let Some(p) = object.get("spec").and_then(|s| member(s, "parameters")) else {
            return errors;
        };
        let at = at.child("parameters");
        for key in ["kind", "name"] {
            if text(p, &[key]).is_empty() {
                errors.push(Error::required(&at.child(key), ""));
            }
        }
        let (scope, namespace) = (text(p, &["scope"]), text(p, &["namespace"]));
        if !SCOPES.contains(&scope) {
            errors.push(Error::not_supported(&at.child("scope"), scope, &SCOPES));
        } else if scope == "Namespace" && namespace.is_empty() {
            let why = "`parameters.scope` is set to 'Namespace'";
            errors.push(Error::required(&at.child("namespace"), why));
        } else if scope == "Cluster" && !namespace.is_empty() {
            errors.push(Error::forbidden(
                &at.child("namespace"),
                "`parameters.scope` is set to 'Cluster'",
            ));
        }
        errors
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(cx, new);
        let of = |v| get(v, &["spec", "controller"]);
        immutable(
            &mut errors,
            &Path::new("spec").child("controller"),
            of(new),
            of(old),
        );
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let shown = get(object, &["spec", "parameters"]).map_or(String::new(), |p| {
            let (kind, name) = (text(p, &["kind"]), text(p, &["name"]));
            match text(p, &["apiGroup"]) {
                "" => format!("{kind}/{name}"),
                group => format!("{kind}.{group}/{name}"),
            }
        });
        named_row(
            object,
            now,
            [
                text(object, &["spec", "controller"]).into(),
                or_none(&shown),
            ],
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{cx, fields, idempotent};
    use super::*;

    #[test]
    fn the_controller_is_named_and_stays() {
        assert_eq!(
            fields(&IngressClass.validate(&cx(), &json!({}))),
            ["spec.controller"]
        );
        let of = |c: &str| {
            idempotent(
                &IngressClass,
                json!({"spec": {"controller": c, "parameters": {"kind": "X", "name": "x"}}}),
            )
        };
        assert!(IngressClass.validate(&cx(), &of("a.com/b")).is_empty());
        assert_eq!(
            fields(&IngressClass.validate_update(&cx(), &of("a.com/c"), &of("a.com/b"))),
            ["spec.controller"]
        );
    }
}
