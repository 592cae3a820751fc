//! Checks of environment variables.

use kontiki_api::Quantity;
use kontiki_api::field::{Error, Path};
use kontiki_api::object::text;
use serde_json::Value;

use crate::kinds::checks::{Errors, complain, config_key, member, unsupported};

/// The fields of a pod that variables may take.
const FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// The fields that may be referred to at all.
const KNOWN: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "spec.restartPolicy",
    "spec.schedulerName",
    "status.phase",
];
/// The resources of a container that variables and files may take.
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// The variables of a container.
pub(super) fn env(errors: &mut Errors, at: &Path, all: &[Value]) {
    for (i, e) in all.iter().enumerate() {
        let name = text(e, &["name"]);
        if name.is_empty() {
            errors.push(Error::required(&at.index(i).child("name"), ""));
        } else {
            complain(
                errors,
                &at.index(i).child("name"),
                name,
                variable_name(name),
            );
        }
        if let Some(from) = member(e, "valueFrom") {
            value_from(
                errors,
                &at.index(i).child("valueFrom"),
                from,
                text(e, &["value"]),
            );
        }
    }
}

/// The sources of many variables at once.
pub(super) fn env_from(errors: &mut Errors, at: &Path, all: &[Value]) {
    for (i, e) in all.iter().enumerate() {
        let at = at.index(i);
        let prefix = text(e, &["prefix"]);
        if !prefix.is_empty() {
            complain(errors, &at.child("prefix"), prefix, variable_name(prefix));
        }
        let mut found = 0;
        for key in ["configMapRef", "secretRef"] {
            let Some(v) = member(e, key) else { continue };
            found += 1;
            if text(v, &["name"]).is_empty() {
                errors.push(Error::required(&at.child(key).child("name"), ""));
            }
        }
        match found {
            0 => errors.push(Error::invalid(
                &at,
                "",
                "must specify one of: `configMapRef` or `secretRef`",
            )),
            1 => {}
            _ => errors.push(Error::invalid(&at, "", MORE_THAN_ONE)),
        }
    }
}

const MORE_THAN_ONE: &str = "may not have more than one field specified at a time";

fn variable_name(name: &str) -> Vec<String> {
    let ok = name.bytes().all(|c| matches!(c, b' '..=b'~') && c != b'=');
    if ok && !name.is_empty() {
        return Vec::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".into()]
}

fn value_from(errors: &mut Errors, at: &Path, from: &Value, value: &str) {
    let mut found = 0;
    for key in [
        "fieldRef",
        "resourceFieldRef",
        "configMapKeyRef",
        "secretKeyRef",
        "fileKeyRef",
    ] {
        let Some(v) = member(from, key) else { continue };
        found += 1;
        let at = at.child(key);
        match key {
            "fieldRef" => field_ref(errors, &at, v, &FIELDS),
            "resourceFieldRef" => resource_ref(errors, &at, v, false),
            "fileKeyRef" => {}
            _ => {
                if text(v, &["name"]).is_empty() {
                    errors.push(Error::required(&at.child("name"), ""));
                }
                match text(v, &["key"]) {
                    "" => errors.push(Error::required(&at.child("key"), "")),
                    k => complain(errors, &at.child("key"), k, config_key(k)),
                }
            }
        }
    }
    if found == 0 {
        let why = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`";
        errors.push(Error::invalid(at, "", why));
    } else if !value.is_empty() {
        errors.push(Error::invalid(
            at,
            "",
            "may not be specified when `value` is not empty",
        ));
    } else if found > 1 {
        errors.push(Error::invalid(at, "", MORE_THAN_ONE));
    }
}

/// A reference to a field of the pod; `allowed` are the paths that this place takes.
pub(super) fn field_ref(errors: &mut Errors, at: &Path, v: &Value, allowed: &[&str]) {
    if text(v, &["apiVersion"]).is_empty() {
        return errors.push(Error::required(&at.child("apiVersion"), ""));
    }
    let path = text(v, &["fieldPath"]);
    let at = at.child("fieldPath");
    if path.is_empty() {
        return errors.push(Error::required(&at, ""));
    }
    if let Some((field, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        match field {
            "metadata.annotations" => {
                complain(
                    errors,
                    &at,
                    key,
                    kontiki_api::names::qualified_name(&key.to_lowercase()),
                );
            }
            "metadata.labels" => {
                complain(errors, &at, key, kontiki_api::names::qualified_name(key));
            }
            _ => errors.push(Error::invalid(
                &at,
                path,
                format!(
                    "error converting fieldPath: field label does not support subscript: {path}"
                ),
            )),
        }
    } else if !FIELDS.contains(&path) && !KNOWN.contains(&path) {
        let why = format!("error converting fieldPath: field label not supported: {path}");
        errors.push(Error::invalid(&at, path, why));
    } else if !allowed.contains(&path) {
        errors.push(unsupported(&at, path, allowed));
    }
}

/// A reference to a resource of a container; `volume` for files, which have to name the container.
pub(super) fn resource_ref(errors: &mut Errors, at: &Path, v: &Value, volume: bool) {
    if volume && text(v, &["containerName"]).is_empty() {
        return errors.push(Error::required(&at.child("containerName"), ""));
    }
    let resource = text(v, &["resource"]);
    if resource.is_empty() {
        return errors.push(Error::required(&at.child("resource"), ""));
    }
    let huge = ["limits.hugepages-", "requests.hugepages-"]
        .iter()
        .any(|p| resource.starts_with(p));
    if !RESOURCES.contains(&resource) && !huge {
        return errors.push(unsupported(&at.child("resource"), resource, &RESOURCES));
    }
    let divisor = text(v, &["divisor"]);
    let Ok(d) = divisor.parse::<Quantity>() else {
        return;
    };
    let name = resource.split_once('.').map_or("", |(_, n)| n);
    let (of, units): (&str, &[&str]) = match name {
        "cpu" => ("cpu", &["1m", "1"]),
        "memory" => (
            "memory",
            &[
                "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
            ],
        ),
        "ephemeral-storage" => (
            "local ephemeral storage",
            &[
                "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
            ],
        ),
        _ => return,
    };
    if !d.is_zero()
        && !units
            .iter()
            .any(|u| u.parse::<Quantity>().is_ok_and(|u| u == d))
    {
        let why = format!(
            "only divisor's values {} are supported with the {of} resource",
            listed(units)
        );
        errors.push(Error::invalid(&at.child("divisor"), divisor, why));
    }
}

fn listed(units: &[&str]) -> String {
    match units {
        [a, b] => format!("{a} and {b}"),
        all => all.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::fields;

    fn of(e: Value) -> Vec<String> {
        let mut errors = Errors::new();
        env(&mut errors, &Path::new("env"), &[e]);
        fields(&errors)
    }

    #[test]
    fn names_are_printable_and_without_equals() {
        assert_eq!(of(json!({"name": "a=b"})), ["env[0].name"]);
        assert_eq!(of(json!({})), ["env[0].name"]);
        assert!(of(json!({"name": "a.b-c 1"})).is_empty());
    }

    #[test]
    fn a_value_comes_from_one_place() {
        let field = json!({"apiVersion": "v1", "fieldPath": "metadata.name"});
        assert!(of(json!({"name": "a", "valueFrom": {"fieldRef": field}})).is_empty());
        assert_eq!(
            of(json!({"name": "a", "value": "x", "valueFrom": {"fieldRef": field}})),
            ["env[0].valueFrom"]
        );
        assert_eq!(
            of(json!({"name": "a", "valueFrom": {}})),
            ["env[0].valueFrom"]
        );
        let both = json!({"fieldRef": field, "secretKeyRef": {"name": "s", "key": "k"}});
        assert_eq!(
            of(json!({"name": "a", "valueFrom": both})),
            ["env[0].valueFrom"]
        );
    }

    #[test]
    fn field_paths_are_known() {
        let with = |p: &str| {
            of(
                json!({"name": "a", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": p}}}),
            )
        };
        assert!(with("metadata.labels['a']").is_empty());
        for bad in ["spec.nope", "metadata.labels", "spec.nodeName['x']", ""] {
            assert_eq!(with(bad), ["env[0].valueFrom.fieldRef.fieldPath"], "{bad}");
        }
    }

    #[test]
    fn divisors_fit_the_resource() {
        let with = |r: &str, d: &str| {
            of(json!({"name": "a", "valueFrom": {"resourceFieldRef": {"resource": r, "divisor": d}}})).len()
        };
        assert_eq!(with("limits.cpu", "1m"), 0);
        assert_eq!(with("limits.cpu", "10m"), 1);
        assert_eq!(with("requests.memory", "1Mi"), 0);
        assert_eq!(with("limits.nope", "0"), 1);
    }
}
