//! Checks of the resources that a container asks for.

use kontiki_api::Quantity;
use kontiki_api::field::{Error, Path};
use kontiki_api::names;
use kontiki_api::object::list;
use serde_json::{Map, Value};

use crate::kinds::checks::{Errors, NOT_NEGATIVE, complain, member};

/// Names without a domain that stand for resources anywhere.
const STANDARD: [&str; 20] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "requests.storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "services.nodeports",
    "services.loadbalancers",
];
/// The resources of a container that have no domain.
const OF_CONTAINERS: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// The prefix of huge pages.
const HUGE_PAGES: &str = "hugepages-";

/// Whether this is a resource name without a domain that stands for itself.
pub(in crate::kinds) fn is_standard(name: &str) -> bool {
    STANDARD.contains(&name)
        || name.starts_with(HUGE_PAGES)
        || name.starts_with("requests.hugepages-")
}

/// The name of any resource.
pub(in crate::kinds) fn resource_name(errors: &mut Errors, at: &Path, name: &str) -> bool {
    let bad = names::qualified_name(name);
    let ok = bad.is_empty();
    complain(errors, at, name, bad);
    if ok && !name.contains('/') && !is_standard(name) {
        errors.push(Error::invalid(
            at,
            name,
            "must be a standard resource type or fully qualified",
        ));
    }
    ok
}

/// An amount: not negative, and whole where the resource comes in pieces.
pub(in crate::kinds) fn quantity(
    errors: &mut Errors,
    at: &Path,
    name: &str,
    value: &Value,
) -> Option<Quantity> {
    let text = text_of(value);
    let q: Quantity = text.parse().ok()?;
    if q.is_negative() {
        errors.push(Error::invalid(at, text.as_str(), NOT_NEGATIVE));
    }
    if is_integer(name) && !q.is_integer() {
        errors.push(Error::invalid(at, text.as_str(), "must be an integer"));
    }
    Some(q)
}

fn text_of(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// Resources that cannot be divided.
fn is_integer(name: &str) -> bool {
    is_extended(name) || name.starts_with(HUGE_PAGES)
}

/// Resources of a domain that is not Kubernetes'.
fn is_extended(name: &str) -> bool {
    name.split_once('/')
        .is_some_and(|(domain, _)| domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io"))
}

/// The limits and requests of a container.
pub(super) fn requirements(errors: &mut Errors, at: &Path, resources: &Value) {
    let map = |key| member(resources, key).and_then(Value::as_object);
    let (limits, requests) = (map("limits"), map("requests"));
    if limits.is_none() && requests.is_none() {
        return;
    }
    for (name, value) in limits.into_iter().flatten() {
        one(errors, &at.child("limits").key(name), name, value);
    }
    for (name, value) in requests.into_iter().flatten() {
        one(errors, &at.child("requests").key(name), name, value);
        within(errors, at, name, value, limits);
    }
    for (i, claim) in list(resources, &["claims"]).iter().enumerate() {
        if kontiki_api::object::text(claim, &["name"]).is_empty() {
            errors.push(Error::required(&at.child("claims").index(i), ""));
        }
    }
}

fn one(errors: &mut Errors, at: &Path, name: &str, value: &Value) {
    let ok = resource_name(errors, at, name);
    if ok && !name.contains('/') && !OF_CONTAINERS.contains(&name) && !name.starts_with(HUGE_PAGES)
    {
        errors.push(Error::invalid(
            at,
            name,
            "must be a standard resource for containers",
        ));
    }
    quantity(errors, at, name, value);
}

/// A request stays within its limit; what cannot be overcommitted is the same in both.
fn within(
    errors: &mut Errors,
    at: &Path,
    name: &str,
    request: &Value,
    limits: Option<&Map<String, Value>>,
) {
    let exact = is_integer(name);
    let Some(limit) = limits.and_then(|l| l.get(name)) else {
        if exact {
            errors.push(Error::required(
                &at.child("limits"),
                "Limit must be set for non overcommitable resources",
            ));
        }
        return;
    };
    let (r, l) = (text_of(request), text_of(limit));
    let (Ok(request), Ok(limit)) = (r.parse::<Quantity>(), l.parse::<Quantity>()) else {
        return;
    };
    if exact && request != limit {
        errors.push(Error::invalid(
            &at.child("requests"),
            r,
            format!("must be equal to {name} limit of {l}"),
        ));
    } else if request > limit {
        errors.push(Error::invalid(
            &at.child("requests"),
            r,
            format!("must be less than or equal to {name} limit of {l}"),
        ));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(r: Value) -> Vec<String> {
        let mut e = Errors::new();
        requirements(&mut e, &Path::new("r"), &r);
        e.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn requests_stay_within_limits() {
        assert!(
            of(json!({"limits": {"cpu": "1"}, "requests": {"cpu": "500m", "memory": "1Gi"}}))
                .is_empty()
        );
        assert_eq!(
            of(json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}})),
            ["r.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"]
        );
        assert_eq!(
            of(json!({"limits": {"cpu": "-1"}})),
            ["r.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"]
        );
    }

    #[test]
    fn unknown_names_are_refused_twice() {
        assert_eq!(of(json!({"limits": {"foo": "1"}})).len(), 2);
        assert!(of(json!({"limits": {"example.com/foo": "1"}})).is_empty());
    }

    #[test]
    fn extended_resources_are_whole_and_not_overcommitted() {
        assert_eq!(of(json!({"requests": {"example.com/foo": "1"}})).len(), 1);
        assert_eq!(of(json!({"limits": {"example.com/foo": "1500m"}})).len(), 1);
        assert_eq!(
            of(json!({"limits": {"example.com/foo": "2"}, "requests": {"example.com/foo": "1"}}))
                .len(),
            1
        );
    }
}
