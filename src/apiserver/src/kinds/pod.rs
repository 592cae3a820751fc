//! Pods.

mod admission;
mod table;
mod update;

use std::borrow::Cow;

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::object::{get, int, list, map_mut, text, truth};
use kontiki_api::{ApiError, Quantity};
use serde_json::{Value, json};

use super::checks::{Errors, clear, default_value, keep, map_of};
use super::pod_spec::{default_pod_spec, defaults, validate_pod_spec};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of pods.
pub(super) struct Pod;

/// How long a pod may take to stop if its spec does not say.
const GRACE_SECONDS: i64 = 30;

impl Strategy for Pod {
    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        default_value(object, "spec", json!({"containers": null}));
        if let Some(spec) = map_of(object, "spec") {
            default_pod_spec(spec);
            defaults::default_pod(spec);
        }
        if let Some(status) = map_of(object, "status") {
            addresses(status);
        }
    }

    fn prepare_for_create(&self, cx: &Context<'_>, object: &mut Value) {
        let qos = qos_class(object);
        let mut status = json!({"phase": "Pending", "qosClass": qos});
        if !list(object, &["spec", "schedulingGates"]).is_empty() {
            status["conditions"] = json!([{
                "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
                "lastProbeTime": null, "lastTransitionTime": cx.now,
            }]);
        }
        map_mut(object, &[]).insert("status".into(), status);
        positive_grace(object);
    }

    fn admit_create(&self, cx: &Context<'_>, object: &mut Value) -> Result<(), ApiError> {
        admission::admit(cx, object)
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let spec = object.get("spec").unwrap_or(&Value::Null);
        validate_pod_spec(&mut errors, &Path::new("spec"), spec);
        if !list(spec, &["ephemeralContainers"]).is_empty() {
            errors.push(Error::forbidden(
                &Path::new("spec").child("ephemeralContainers"),
                "cannot be set on create",
            ));
        }
        if !text(spec, &["nodeName"]).is_empty() && !list(spec, &["schedulingGates"]).is_empty() {
            let why = "cannot be set until all schedulingGates have been cleared";
            errors.push(Error::forbidden(&Path::new("spec").child("nodeName"), why));
        }
        errors
    }

    fn prepare_for_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "status");
        positive_grace(new);
        admission::carry_over(new, old);
    }

    fn validate_update(&self, _cx: &Context<'_>, new: &Value, old: &Value) -> Errors {
        update::validate(new, old)
    }

    fn prepare_for_status_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "spec");
        if let Some(meta) = map_of(new, "metadata") {
            keep(
                meta,
                old.get("metadata").unwrap_or(&Value::Null),
                "ownerReferences",
            );
        }
        if let Some(qos) = get(old, &["status", "qosClass"]).cloned()
            && text(new, &["status", "qosClass"]).is_empty()
        {
            map_mut(new, &["status"]).insert("qosClass".into(), qos);
        }
    }

    fn validate_status_update(&self, _cx: &Context<'_>, new: &Value, old: &Value) -> Errors {
        update::validate_status(new, old)
    }

    fn deletion_grace_seconds(&self, object: &Value, requested: Option<i64>) -> Option<i64> {
        let asked = requested
            .or_else(|| int(object, &["spec", "terminationGracePeriodSeconds"]))
            .unwrap_or(GRACE_SECONDS);
        // Where no agent has the pod, or it has ended, there is nobody to wait for.
        let unplaced = text(object, &["spec", "nodeName"]).is_empty();
        if unplaced || matches!(text(object, &["status", "phase"]), "Succeeded" | "Failed") {
            return Some(0);
        }
        Some(if asked < 0 { 1 } else { asked })
    }

    fn field<'a>(&self, object: &'a Value, field: &str) -> Option<Cow<'a, str>> {
        Some(match field {
            "spec.nodeName" => text(object, &["spec", "nodeName"]).into(),
            "spec.restartPolicy" => text(object, &["spec", "restartPolicy"]).into(),
            "spec.schedulerName" => text(object, &["spec", "schedulerName"]).into(),
            "spec.serviceAccountName" => text(object, &["spec", "serviceAccountName"]).into(),
            "spec.hostNetwork" => if truth(object, &["spec", "hostNetwork"]) {
                "true"
            } else {
                "false"
            }
            .into(),
            "status.phase" => text(object, &["status", "phase"]).into(),
            "status.podIP" => text(object, &["status", "podIP"]).into(),
            "status.podIPs" => "".into(),
            "status.nominatedNodeName" => text(object, &["status", "nominatedNodeName"]).into(),
            _ => return None,
        })
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ]
    }

    fn columns(&self) -> &'static [Column] {
        &table::COLUMNS
    }

    fn row_conditions(&self, object: &Value) -> Vec<Value> {
        let (reason, message) = match text(object, &["status", "phase"]) {
            "Succeeded" => ("Succeeded", "The pod has completed successfully."),
            "Failed" => ("Failed", "The pod failed."),
            _ => return Vec::new(),
        };
        vec![json!({"type": "Completed", "status": "True", "reason": reason, "message": message})]
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::row(object, now)
    }
}

/// `podIP` and the first of `podIPs` say the same; where they differ, the first is right.
fn addresses(status: &mut Value) {
    let ip = text(status, &["podIP"]);
    let first = list(status, &["podIPs"])
        .first()
        .map_or("", |a| text(a, &["ip"]));
    if ip == first {
        return;
    }
    let (key, value) = if ip.is_empty() {
        ("podIP", first.into())
    } else {
        ("podIPs", json!([{"ip": ip}]))
    };
    map_mut(status, &[]).insert(key.into(), value);
}

/// A negative grace period is as good as one second.
fn positive_grace(object: &mut Value) {
    if int(object, &["spec", "terminationGracePeriodSeconds"]).is_some_and(|n| n < 0) {
        map_mut(object, &["spec"]).insert("terminationGracePeriodSeconds".into(), 1.into());
    }
}

/// How well a pod is served when its node runs short.
fn qos_class(pod: &Value) -> &'static str {
    let (mut any, mut all_limited) = (false, true);
    for key in &defaults::CONTAINER_LISTS[..2] {
        for c in list(pod, &["spec", key]) {
            let of = |part: &str, name: &str| {
                let q = get(c, &["resources", part, name])
                    .and_then(Value::as_str)
                    .and_then(|s| s.parse::<Quantity>().ok());
                q.filter(|q| !q.is_zero() && !q.is_negative())
            };
            for name in ["cpu", "memory"] {
                let (request, limit) = (of("requests", name), of("limits", name));
                any |= request.is_some() || limit.is_some();
                all_limited &= limit.is_some() && request == limit;
            }
        }
    }
    match (any, all_limited) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Takes what may always change out of a spec that is compared.
fn without(spec: &mut Value, keys: &[&str]) {
    for key in keys {
        clear(spec, key);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cx, idempotent};
    use super::*;

    #[test]
    fn the_class_follows_requests_and_limits() {
        let of = |r: Value| qos_class(&json!({"spec": {"containers": [{"resources": r}]}}));
        assert_eq!(of(json!({})), "BestEffort");
        assert_eq!(of(json!({"requests": {"cpu": "1"}})), "Burstable");
        let all = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(of(json!({"requests": all, "limits": all})), "Guaranteed");
        assert_eq!(of(json!({"requests": {"cpu": "0"}})), "BestEffort");
    }

    #[test]
    fn a_new_one_is_pending_and_its_addresses_agree() {
        let mut o = idempotent(
            &Pod,
            json!({"spec": {"containers": [{"name": "c", "image": "i"}]},
            "status": {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.2"}]}}),
        );
        assert_eq!(o["status"]["podIPs"], json!([{"ip": "10.0.0.1"}]));
        o["spec"]["terminationGracePeriodSeconds"] = (-1).into();
        Pod.prepare_for_create(&cx(), &mut o);
        assert_eq!(
            o["status"],
            json!({"phase": "Pending", "qosClass": "BestEffort"})
        );
        assert_eq!(o["spec"]["terminationGracePeriodSeconds"], 1);
    }

    #[test]
    fn only_a_placed_and_living_pod_has_grace() {
        let of = |v: Value, requested| Pod.deletion_grace_seconds(&v, requested);
        let spec = json!({"nodeName": "n", "terminationGracePeriodSeconds": 5});
        assert_eq!(of(json!({"spec": spec}), None), Some(5));
        assert_eq!(of(json!({"spec": spec}), Some(2)), Some(2));
        assert_eq!(
            of(json!({"spec": {"terminationGracePeriodSeconds": 5}}), None),
            Some(0)
        );
        assert_eq!(
            of(json!({"spec": spec, "status": {"phase": "Failed"}}), None),
            Some(0)
        );
    }
}
