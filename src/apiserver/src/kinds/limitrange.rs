//! LimitRanges.

use kontiki_api::field::{Error, Path};
use kontiki_api::object::{get, list, map_mut, name, text};
use kontiki_api::{Quantity, names};
use serde_json::{Map, Value, json};

use super::checks::{Errors, complain, default_value, items_mut, map_of, member};
use super::pod_spec::resources::{is_standard, quantity};
use crate::strategy::{Context, Strategy};

/// The strategy of limitranges.
pub(super) struct LimitRange;

impl Strategy for LimitRange {
    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let Some(spec) = map_of(object, "spec") else {
            return;
        };
        for limit in items_mut(spec, "limits")
            .iter_mut()
            .filter(|l| text(l, &["type"]) == "Container")
        {
            default_limit(limit);
        }
    }

    fn prepare_for_create(&self, _cx: &Context<'_>, object: &mut Value) {
        if name(object).is_empty() {
            let made = kontiki_api::object::uid(object).to_owned();
            map_mut(object, &["metadata"]).insert("name".into(), made.into());
        }
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let at = Path::new("spec").child("limits");
        let all = list(object, &["spec", "limits"]);
        for (i, limit) in all.iter().enumerate() {
            let at = at.index(i);
            let kind = text(limit, &["type"]);
            complain(
                &mut errors,
                &at.child("type"),
                kind,
                names::qualified_name(kind),
            );
            if all[..i].iter().any(|l| text(l, &["type"]) == kind) {
                errors.push(Error::duplicate(&at.child("type"), kind));
            }
            one(&mut errors, &at, limit, kind);
        }
        errors
    }
}

/// What is limited is the default, and what is the default or the least is requested.
fn default_limit(limit: &mut Value) {
    let copy = |limit: &Value, key: &str| {
        member(limit, key)
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default()
    };
    for (to, from) in [
        ("default", "max"),
        ("defaultRequest", "default"),
        ("defaultRequest", "min"),
    ] {
        let source: Map<String, Value> = copy(limit, from);
        if source.is_empty() {
            continue;
        }
        default_value(limit, to, json!({}));
        if let Some(target) = map_of(limit, to) {
            for (key, value) in source {
                default_value(target, &key, value);
            }
        }
    }
}

fn one(errors: &mut Errors, at: &Path, limit: &Value, kind: &str) {
    let keys = [
        "max",
        "min",
        "default",
        "defaultRequest",
        "maxLimitRequestRatio",
    ];
    let mut all: Vec<&String> = Vec::new();
    for key in keys {
        for (resource, value) in member(limit, key)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let path = at.child(key).key(resource);
            complain(errors, &path, resource, names::qualified_name(resource));
            if !resource.contains('/') && !is_standard(resource) {
                errors.push(Error::invalid(
                    &path,
                    resource.as_str(),
                    "must be a standard resource type or fully qualified",
                ));
            }
            quantity(errors, &path, resource, value);
            if !all.contains(&resource) {
                all.push(resource);
            }
        }
    }
    if kind == "Pod" {
        for key in ["default", "defaultRequest"] {
            if get(limit, &[key])
                .and_then(Value::as_object)
                .is_some_and(|m| !m.is_empty())
            {
                errors.push(Error::forbidden(
                    &at.child(key),
                    "may not be specified when `type` is 'Pod'",
                ));
            }
        }
    }
    for resource in all {
        in_order(errors, at, limit, resource);
    }
}

/// From the least over the default request and the default to the most: none may be greater than the next.
fn in_order(errors: &mut Errors, at: &Path, limit: &Value, resource: &str) {
    let of = |key: &str| {
        let shown = get(limit, &[key, resource]).and_then(Value::as_str)?;
        Some((shown.parse::<Quantity>().ok()?, shown.to_owned()))
    };
    let (max, min, default, request) = (of("max"), of("min"), of("default"), of("defaultRequest"));
    let names = |key: &str| match key {
        "min" => "min value",
        "max" => "max value",
        "default" => "default value",
        _ => "default request value",
    };
    // The field that is named, the value that is shown, and which two are compared.
    let pairs = [
        ("min", &min, "min", &min, "max", &max),
        (
            "defaultRequest",
            &request,
            "min",
            &min,
            "defaultRequest",
            &request,
        ),
        (
            "defaultRequest",
            &request,
            "defaultRequest",
            &request,
            "max",
            &max,
        ),
        (
            "defaultRequest",
            &request,
            "defaultRequest",
            &request,
            "default",
            &default,
        ),
        ("default", &min, "min", &min, "default", &default),
        ("default", &max, "default", &default, "max", &max),
    ];
    for (field, shown, low_name, low, high_name, high) in pairs {
        let (Some((l, ls)), Some((h, hs)), Some((_, s))) = (low, high, shown) else {
            continue;
        };
        if l > h {
            let why = format!(
                "{} {ls} is greater than {} {hs}",
                names(low_name),
                names(high_name)
            );
            errors.push(Error::invalid(
                &at.child(field).key(resource),
                s.as_str(),
                why,
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cx, fields, idempotent};
    use super::*;

    fn range(limit: Value) -> Value {
        idempotent(&LimitRange, json!({"spec": {"limits": [limit]}}))
    }

    #[test]
    fn defaults_follow_from_the_limits() {
        let o = range(
            json!({"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1", "memory": "1Gi"}}),
        );
        let limit = &o["spec"]["limits"][0];
        assert_eq!(limit["default"], json!({"cpu": "2"}));
        assert_eq!(
            limit["defaultRequest"],
            json!({"cpu": "2", "memory": "1Gi"})
        );
    }

    #[test]
    fn limits_are_in_order() {
        let o = range(
            json!({"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "3"}, "default": {"cpu": "1"}}),
        );
        assert_eq!(
            fields(&LimitRange.validate(&cx(), &o)),
            [
                "spec.limits[0].min[cpu]",
                "spec.limits[0].defaultRequest[cpu]",
                "spec.limits[0].default[cpu]"
            ]
        );
        let o = range(json!({"type": "Pod", "default": {"cpu": "1"}}));
        assert_eq!(
            fields(&LimitRange.validate(&cx(), &o)),
            ["spec.limits[0].default"]
        );
    }
}
