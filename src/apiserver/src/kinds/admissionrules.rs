//! What webhook configurations and admission policies share: which requests they are asked about.

use kontiki_api::field::{Error, Path};
use kontiki_api::object::{list, text};
use serde_json::{Value, json};

use super::checks::{
    Errors, default_text, default_value, items_mut, label_selector, member, unsupported,
};

const SCOPES: [&str; 3] = ["*", "Cluster", "Namespaced"];
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
pub(super) const FAILURE_POLICIES: [&str; 2] = ["Fail", "Ignore"];
const MATCH_POLICIES: [&str; 2] = ["Equivalent", "Exact"];

/// The defaults of the members that both have: `rules` is what the rules are called.
pub(super) fn default_matching(v: &mut Value, rules: &[&str]) {
    default_text(v, "matchPolicy", "Equivalent");
    default_value(v, "namespaceSelector", json!({}));
    default_value(v, "objectSelector", json!({}));
    for key in rules {
        for rule in items_mut(v, key) {
            default_text(rule, "scope", "*");
        }
    }
}

/// What is wrong with the match policy and the selectors.
pub(super) fn matching(errors: &mut Errors, at: &Path, v: &Value) {
    one_of(errors, at, v, "matchPolicy", &MATCH_POLICIES);
    for key in ["namespaceSelector", "objectSelector"] {
        if let Some(s) = member(v, key) {
            label_selector(errors, &at.child(key), s);
        }
    }
}

/// The text under `key`, where it is said, is one of these.
pub(super) fn one_of(errors: &mut Errors, at: &Path, v: &Value, key: &str, known: &[&str]) {
    let value = text(v, &[key]);
    if !value.is_empty() && !known.contains(&value) {
        errors.push(unsupported(&at.child(key), value, known));
    }
}

/// What is wrong with a rule.
pub(super) fn rule(errors: &mut Errors, at: &Path, r: &Value) {
    for key in ["apiGroups", "apiVersions", "resources"] {
        let all = list(r, &[key]);
        if all.is_empty() {
            errors.push(Error::required(&at.child(key), ""));
        }
        if all.len() > 1 && all.iter().any(|v| v == "*") && key != "resources" {
            let why = "if '*' is present, must not specify other ".to_owned()
                + if key == "apiGroups" {
                    "API groups"
                } else {
                    "API versions"
                };
            errors.push(Error::invalid(&at.child(key), all.to_vec(), why));
        }
    }
    one_of(errors, at, r, "scope", &SCOPES);
    let operations = list(r, &["operations"]);
    if operations.is_empty() {
        errors.push(Error::required(&at.child("operations"), ""));
    }
    for (i, o) in operations.iter().enumerate() {
        let o = o.as_str().unwrap_or_default();
        if !OPERATIONS.contains(&o) {
            errors.push(unsupported(
                &at.child("operations").index(i),
                o,
                &OPERATIONS,
            ));
        }
    }
}

/// What is wrong with the conditions but for the expressions themselves.
pub(super) fn conditions(errors: &mut Errors, at: &Path, v: &Value) {
    let all = list(v, &["matchConditions"]);
    for (i, c) in all.iter().enumerate() {
        let at = at.child("matchConditions").index(i);
        if text(c, &["expression"]).trim().is_empty() {
            errors.push(Error::required(&at.child("expression"), ""));
        }
        let name = text(c, &["name"]);
        if name.is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
        } else if all[..i].iter().any(|b| text(b, &["name"]) == name) {
            errors.push(Error::duplicate(&at.child("name"), name));
        }
    }
}
