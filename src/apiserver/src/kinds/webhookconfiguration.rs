//! MutatingWebhookConfigurations and ValidatingWebhookConfigurations.

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::names;
use kontiki_api::object::{int, list, text};
use serde_json::Value;

use super::admissionrules::{
    FAILURE_POLICIES, conditions, default_matching, matching, one_of, rule,
};
use super::checks::{
    Errors, PORT_RANGE, complain, default_int, default_text, is_port, items_mut, map_of, member,
};
use super::columns::{AGE, NAME, integer, named_row};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of webhook configurations.
pub(super) struct WebhookConfiguration {
    /// Whether the webhooks may change the objects.
    pub(super) mutating: bool,
}

static COLUMNS: [Column; 3] = [
    NAME,
    integer(
        "Webhooks",
        "Webhooks indicates the number of webhooks registered in this configuration",
    ),
    AGE,
];

const TIMEOUT_DEFAULT_SECONDS: i64 = 10;
const TIMEOUT_MAX_SECONDS: i64 = 30;
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

impl Strategy for WebhookConfiguration {
    fn default(&self, object: &mut Value) {
        for hook in items_mut(object, "webhooks") {
            default_text(hook, "failurePolicy", "Fail");
            default_matching(hook, &["rules"]);
            default_int(hook, "timeoutSeconds", TIMEOUT_DEFAULT_SECONDS);
            if self.mutating {
                default_text(hook, "reinvocationPolicy", "Never");
            }
            if let Some(s) = map_of(hook, "clientConfig").and_then(|c| map_of(c, "service")) {
                default_int(s, "port", 443);
            }
        }
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let all = list(object, &["webhooks"]);
        for (i, h) in all.iter().enumerate() {
            let at = Path::new("webhooks").index(i);
            let name = text(h, &["name"]);
            if name.split('.').count() < 3 && !name.is_empty() {
                let why = "should be a domain with at least three segments separated by dots";
                errors.push(Error::invalid(&at.child("name"), name, why));
            } else if name.is_empty() {
                errors.push(Error::required(&at.child("name"), ""));
            } else {
                complain(
                    &mut errors,
                    &at.child("name"),
                    name,
                    names::dns1123_subdomain(name),
                );
            }
            if all[..i].iter().any(|b| text(b, &["name"]) == name) {
                errors.push(Error::duplicate(&at.child("name"), name));
            }
            webhook(&mut errors, &at, h);
            if self.mutating {
                one_of(
                    &mut errors,
                    &at,
                    h,
                    "reinvocationPolicy",
                    &["IfNeeded", "Never"],
                );
            }
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        named_row(object, now, [list(object, &["webhooks"]).len().into()])
    }
}

fn webhook(errors: &mut Errors, at: &Path, h: &Value) {
    for (i, r) in list(h, &["rules"]).iter().enumerate() {
        rule(errors, &at.child("rules").index(i), r);
    }
    one_of(errors, at, h, "failurePolicy", &FAILURE_POLICIES);
    matching(errors, at, h);
    if !matches!(text(h, &["sideEffects"]), "None" | "NoneOnDryRun") {
        let why = "must specify one of None, NoneOnDryRun";
        errors.push(Error::required(&at.child("sideEffects"), why));
    }
    if let Some(t) = int(h, &["timeoutSeconds"]).filter(|t| !(1..=TIMEOUT_MAX_SECONDS).contains(t))
    {
        let why = format!("the timeout value must be between 1 and {TIMEOUT_MAX_SECONDS} seconds");
        errors.push(Error::invalid(&at.child("timeoutSeconds"), t, why));
    }
    let versions = list(h, &["admissionReviewVersions"]);
    let path = at.child("admissionReviewVersions");
    if versions.is_empty() {
        let why = "must specify one of v1, v1beta1";
        errors.push(Error::required(&path, why));
    } else if !versions
        .iter()
        .any(|v| v.as_str().is_some_and(|v| REVIEW_VERSIONS.contains(&v)))
    {
        let why = "must include at least one of v1, v1beta1";
        errors.push(Error::invalid(&path, versions.to_vec(), why));
    }
    conditions(errors, at, h);
    client(
        errors,
        &at.child("clientConfig"),
        h.get("clientConfig").unwrap_or(&Value::Null),
    );
}

/// Where the webhook is: a URL or a service.
pub(super) fn client(errors: &mut Errors, at: &Path, c: &Value) {
    let (url, service) = (member(c, "url"), member(c, "service"));
    if url.is_some() == service.is_some() {
        let why = "exactly one of url or service is required";
        errors.push(Error::required(at, why));
    }
    if let (Some(url), None) = (url.and_then(Value::as_str), service) {
        let form = "desired format: https://host[/path]";
        let at = at.child("url");
        match url.split_once("://") {
            Some(("https", rest)) if rest.is_empty() || rest.starts_with('/') => {
                let why = format!("host must be specified; {form}");
                errors.push(Error::invalid(&at, "", why));
            }
            Some(("https", _)) => {}
            scheme => {
                let why = format!("'https' is the only allowed URL scheme; {form}");
                errors.push(Error::invalid(&at, scheme.map_or("", |s| s.0), why));
            }
        }
    }
    if let (Some(s), None) = (service, url) {
        let at = at.child("service");
        for key in ["name", "namespace"] {
            if text(s, &[key]).is_empty() {
                errors.push(Error::required(&at.child(key), ""));
            }
        }
        if let Some(p) = int(s, &["port"]).filter(|p| !is_port(*p)) {
            errors.push(Error::invalid(&at.child("port"), p, PORT_RANGE));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{cx, fields, idempotent};
    use super::*;

    #[test]
    fn webhooks_say_where_they_are_and_what_they_leave() {
        let s = WebhookConfiguration { mutating: true };
        let o = idempotent(
            &s,
            json!({"webhooks": [{
                "name": "x", "admissionReviewVersions": ["v9"], "timeoutSeconds": 31,
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["x"]}],
                "clientConfig": {"url": "http://x"},
            }]}),
        );
        assert_eq!(o["webhooks"][0]["rules"][0]["scope"], "*");
        assert_eq!(o["webhooks"][0]["reinvocationPolicy"], "Never");
        assert_eq!(
            fields(&s.validate(&cx(), &o)),
            [
                "webhooks[0].name",
                "webhooks[0].rules[0].operations[0]",
                "webhooks[0].sideEffects",
                "webhooks[0].timeoutSeconds",
                "webhooks[0].admissionReviewVersions",
                "webhooks[0].clientConfig.url",
            ]
        );
    }
}
