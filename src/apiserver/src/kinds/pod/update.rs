//! What may change in a pod once it exists.

use kontiki_api::field::{Error, Path};
use kontiki_api::object::{get, int, list, text};
use serde_json::Value;

use super::without;
use crate::kinds::checks::{Errors, complain, ip, items_mut, same};
use crate::kinds::pod_spec::validate_pod_spec;

const MAY_CHANGE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Lines of context around a difference.
const CONTEXT_LINES: usize = 3;

/// An update of a pod.
pub(super) fn validate(new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let at = Path::new("spec");
    let (none, empty) = (Value::Null, Value::Null);
    let (spec, was) = (
        new.get("spec").unwrap_or(&none),
        old.get("spec").unwrap_or(&empty),
    );
    validate_pod_spec(&mut errors, &at, spec);
    for key in ["containers", "initContainers"] {
        if list(spec, &[key]).len() != list(was, &[key]).len() {
            errors.push(Error::forbidden(
                &at.child(key),
                "pod updates may not add or remove containers",
            ));
            return errors;
        }
    }
    deadline(&mut errors, &at, spec, was);
    tolerations(
        &mut errors,
        &at,
        list(spec, &["tolerations"]),
        list(was, &["tolerations"]),
    );
    for gate in list(spec, &["schedulingGates"]) {
        if !list(was, &["schedulingGates"]).contains(gate) {
            let why = format!(
                "only deletion is allowed, but found new scheduling gate '{}'",
                text(gate, &["name"])
            );
            errors.push(Error::forbidden(&at.child("schedulingGates"), why));
        }
    }
    let (a, b) = (munged(was, was), munged(spec, was));
    if a != b {
        errors.push(Error::forbidden(
            &at,
            format!("{MAY_CHANGE}\n{}", difference(&a, &b)),
        ));
    }
    errors
}

/// The spec without what may change.
fn munged(spec: &Value, was: &Value) -> Value {
    let mut v = spec.clone();
    without(
        &mut v,
        &[
            "activeDeadlineSeconds",
            "tolerations",
            "schedulingGates",
            "ephemeralContainers",
        ],
    );
    for key in ["containers", "initContainers"] {
        for c in items_mut(&mut v, key) {
            without(c, &["image"]);
        }
    }
    let grace = |v: &Value| int(v, &["terminationGracePeriodSeconds"]);
    if grace(was).is_some_and(|n| n < 0) && grace(spec) == Some(1) {
        without(&mut v, &["terminationGracePeriodSeconds"]);
    }
    if !list(was, &["schedulingGates"]).is_empty() {
        // A pod that is held back has not been placed: where it may go can still be narrowed.
        without(&mut v, &["nodeSelector", "affinity"]);
    }
    v
}

fn deadline(errors: &mut Errors, at: &Path, spec: &Value, was: &Value) {
    let path = at.child("activeDeadlineSeconds");
    let of = |v| int(v, &["activeDeadlineSeconds"]);
    match (of(spec), of(was)) {
        (Some(n), Some(old)) if n > old => {
            errors.push(Error::invalid(
                &path,
                n,
                "must be less than or equal to previous value",
            ));
        }
        (None, Some(_)) => {
            errors.push(Error::invalid(
                &path,
                Value::Null,
                "must not update from a positive integer to nil value",
            ));
        }
        _ => {}
    }
}

/// Tolerations may only be added, and their seconds changed.
fn tolerations(errors: &mut Errors, at: &Path, new: &[Value], old: &[Value]) {
    let alike = |a: &Value, b: &Value| {
        ["key", "operator", "value", "effect"]
            .iter()
            .all(|k| same(a.get(k), b.get(k)))
    };
    if !old.iter().all(|o| new.iter().any(|n| alike(n, o))) {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(Error::forbidden(&at.child("tolerations"), why));
    }
}

/// The changed lines of two values, with those around them, as a unified diff has them.
fn difference(old: &Value, new: &Value) -> String {
    let lines = |v: &Value| -> Vec<String> {
        serde_json::to_string_pretty(v)
            .unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect()
    };
    let (a, b) = (lines(old), lines(new));
    let head = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let rest = a.len().min(b.len()) - head;
    let tail = a
        .iter()
        .rev()
        .zip(b.iter().rev())
        .take(rest)
        .take_while(|(x, y)| x == y)
        .count();
    let from = head.saturating_sub(CONTEXT_LINES);
    let (a_to, b_to) = (
        (a.len() - tail + CONTEXT_LINES).min(a.len()),
        (b.len() - tail + CONTEXT_LINES).min(b.len()),
    );
    let mut out = format!(
        "@@ -{},{} +{},{} @@\n",
        from + 1,
        a_to - from,
        from + 1,
        b_to - from
    );
    let mut add = |sign: char, lines: &[String]| {
        for line in lines {
            out.push(sign);
            out.push_str(line);
            out.push('\n');
        }
    };
    add(' ', &a[from..head]);
    add('-', &a[head..a.len() - tail]);
    add('+', &b[head..b.len() - tail]);
    add(' ', &a[a.len() - tail..a_to]);
    out
}

/// An update of a pod's status.
pub(super) fn validate_status(new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let at = Path::new("status");
    let nominated = text(new, &["status", "nominatedNodeName"]);
    if !nominated.is_empty() {
        complain(
            &mut errors,
            &at.child("nominatedNodeName"),
            nominated,
            kontiki_api::names::dns1123_subdomain(nominated),
        );
    }
    let placed = !text(new, &["spec", "nodeName"]).is_empty();
    if placed && !nominated.is_empty() && nominated != text(old, &["status", "nominatedNodeName"]) {
        let why = "may not be set on pods that are already bound to a node";
        errors.push(Error::forbidden(&at.child("nominatedNodeName"), why));
    }
    let (qos, was) = (
        get(new, &["status", "qosClass"]),
        get(old, &["status", "qosClass"]),
    );
    if was.is_some() && !same(qos, was) {
        errors.push(Error::invalid(
            &at.child("qosClass"),
            qos.cloned().unwrap_or_default(),
            "field is immutable",
        ));
    }
    transitions(&mut errors, &at, new, old);
    for (i, a) in list(new, &["status", "podIPs"]).iter().enumerate() {
        ip(
            &mut errors,
            &at.child("podIPs").index(i).child("ip"),
            text(a, &["ip"]),
        );
    }
    for (i, c) in list(new, &["status", "conditions"]).iter().enumerate() {
        let kind = text(c, &["type"]);
        complain(
            &mut errors,
            &at.child("conditions").index(i).child("type"),
            kind,
            kontiki_api::names::qualified_name(kind),
        );
    }
    errors
}

/// What has ended for good does not run again.
fn transitions(errors: &mut Errors, at: &Path, new: &Value, old: &Value) {
    let policy = text(old, &["spec", "restartPolicy"]);
    if policy == "Always" {
        return;
    }
    for (list_name, specs) in [
        ("containerStatuses", "containers"),
        ("initContainerStatuses", "initContainers"),
    ] {
        for was in list(old, &["status", list_name]) {
            let Some(ended) = get(was, &["state", "terminated"]) else {
                continue;
            };
            let container = text(was, &["name"]);
            let own = list(old, &["spec", specs])
                .iter()
                .find(|c| text(c, &["name"]) == container);
            let sidecar = own.is_some_and(|c| !text(c, &["restartPolicy"]).is_empty());
            if sidecar
                || (policy == "OnFailure" && int(ended, &["exitCode"]).unwrap_or_default() != 0)
            {
                continue;
            }
            let now = list(new, &["status", list_name])
                .iter()
                .enumerate()
                .find(|(_, s)| text(s, &["name"]) == container);
            if let Some((i, s)) = now
                && get(s, &["state", "terminated"]).is_none()
            {
                let why = "may not be transitioned to non-terminated state";
                errors.push(Error::forbidden(
                    &at.child(list_name).index(i).child("state"),
                    why,
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::pod_spec::default_pod_spec;
    use crate::kinds::testing::fields;

    fn pod() -> Value {
        let mut p = json!({"spec": {"containers": [{"name": "c", "image": "i"}],
            "tolerations": [{"key": "a", "operator": "Exists"}], "activeDeadlineSeconds": 10}});
        default_pod_spec(&mut p["spec"]);
        p
    }

    fn change(path: &str, value: Value) -> Vec<String> {
        let (old, mut new) = (pod(), pod());
        let (parent, key) = path.rsplit_once('/').expect("a path");
        new.pointer_mut(parent).expect("a parent")[key] = value;
        fields(&validate(&new, &old))
    }

    #[test]
    fn few_fields_may_change() {
        assert!(validate(&pod(), &pod()).is_empty());
        assert!(
            validate(
                &{
                    let mut p = pod();
                    p["spec"]["containers"][0]["image"] = "j".into();
                    p
                },
                &pod()
            )
            .is_empty()
        );
        assert!(change("/spec/activeDeadlineSeconds", 5.into()).is_empty());
        assert_eq!(
            change("/spec/activeDeadlineSeconds", 50.into()),
            ["spec.activeDeadlineSeconds"]
        );
        assert_eq!(change("/spec/tolerations", json!([])), ["spec.tolerations"]);
        assert_eq!(change("/spec/nodeName", "n".into()), ["spec"]);
        assert_eq!(
            change("/spec/schedulingGates", json!([{"name": "g"}])),
            ["spec.schedulingGates"]
        );
        assert_eq!(
            change("/spec/containers", json!([])),
            ["spec.containers", "spec.containers"]
        );
    }

    #[test]
    fn the_difference_has_its_context() {
        let d = difference(
            &json!({"a": 1, "b": 2, "c": 3}),
            &json!({"a": 1, "b": 9, "c": 3}),
        );
        assert_eq!(
            d,
            "@@ -1,5 +1,5 @@\n {\n   \"a\": 1,\n-  \"b\": 2,\n+  \"b\": 9,\n   \"c\": 3\n }\n"
        );
        assert!(difference(&json!([]), &json!({})).contains("+{}"));
    }

    #[test]
    fn what_has_ended_stays_ended() {
        let of = |policy: &str, code: i64| {
            let old = json!({"spec": {"restartPolicy": policy}, "status": {"containerStatuses":
                [{"name": "c", "state": {"terminated": {"exitCode": code}}}]}});
            let new = json!({"spec": {"restartPolicy": policy}, "status": {"containerStatuses":
                [{"name": "c", "state": {"running": {}}}]}});
            validate_status(&new, &old).len()
        };
        assert_eq!(
            (
                of("Always", 0),
                of("OnFailure", 1),
                of("OnFailure", 0),
                of("Never", 1)
            ),
            (0, 0, 1, 1)
        );
    }
}
