//! What happens to one object: patches, subresources, preconditions, deletion.

use jiff::{SignedDuration, Timestamp};
use kontiki_api::{ApiError, Reason, Resource, object as read};
use serde_json::{Value, json};

use crate::source::PatchKind;

/// Grace of a pod that names none.
const GRACE_SECONDS_DEFAULT: i64 = 30;

/// Checks the uid and resourceVersion that a body names against the object.
pub(super) fn check_preconditions(r: &Resource, old: &Value, body: &Value) -> Result<(), ApiError> {
    for (field, what) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
        let (want, have) = (
            read::text(body, &["metadata", field]),
            read::text(old, &["metadata", field]),
        );
        if !want.is_empty() && want != have {
            let why = format!(
                "Precondition failed: {what} in precondition: {want}, {what} in object meta: {have}"
            );
            return Err(ApiError::conflict(r, read::name(old), why));
        }
    }
    Ok(())
}

/// The object after a patch.
pub(super) fn patch(kind: PatchKind, old: &Value, body: &[u8]) -> Result<Value, ApiError> {
    let bad = |e: serde_json::Error| ApiError::bad_request(e.to_string());
    let mut new = old.clone();
    match kind {
        PatchKind::Merge => {
            json_patch::merge(&mut new, &serde_json::from_slice(body).map_err(bad)?);
        }
        PatchKind::Json => {
            let p: json_patch::Patch = serde_json::from_slice(body).map_err(bad)?;
            json_patch::patch(&mut new, &p)
                .map_err(|e| ApiError::new(Reason::Invalid, e.to_string()))?;
        }
        PatchKind::Strategic | PatchKind::Apply => {
            let text = format!("the fake API does not take {}", kind.content_type());
            return Err(ApiError::new(Reason::UnsupportedMediaType, text));
        }
    }
    Ok(new)
}

/// The object with only the part changed that a subresource (or none) may change.
pub(super) fn merge_part(subresource: &str, old: &Value, mut new: Value) -> Value {
    let mut out = old.clone();
    match subresource {
        "status" => out["status"] = new["status"].take(),
        "finalize" => out["spec"]["finalizers"] = new["spec"]["finalizers"].take(),
        "scale" => out["spec"]["replicas"] = new["spec"]["replicas"].take(),
        _ => {
            out = new;
            if !old["status"].is_null() {
                out["status"] = old["status"].clone();
            } else if let Some(o) = out.as_object_mut() {
                o.remove("status");
            }
            let generation = read::int(old, &["metadata", "generation"]).unwrap_or(1);
            out["metadata"]["generation"] =
                (generation + i64::from(out["spec"] != old["spec"])).into();
        }
    }
    if out["status"].is_null()
        && let Some(o) = out.as_object_mut()
    {
        o.remove("status");
    }
    out
}

/// Puts back what no write may change.
pub(super) fn keep_system_fields(old: &Value, mut new: Value) -> Value {
    for field in [
        "uid",
        "name",
        "namespace",
        "creationTimestamp",
        "deletionTimestamp",
        "resourceVersion",
    ] {
        match &old["metadata"][field] {
            Value::Null => {
                read::map_mut(&mut new, &["metadata"]).remove(field);
            }
            kept => new["metadata"][field] = kept.clone(),
        }
    }
    new
}

/// A pod bound to the target of a Binding.
pub(super) fn bind(
    r: &Resource,
    subresource: &str,
    old: &Value,
    body: &Value,
) -> Result<Value, ApiError> {
    if (r.plural, subresource) != ("pods", "binding") {
        return Err(ApiError::new(
            Reason::MethodNotAllowed,
            format!("cannot create {}/{subresource}", r.plural),
        ));
    }
    check_preconditions(r, old, body)?;
    let bound_to = read::text(old, &["spec", "nodeName"]);
    if !bound_to.is_empty() {
        let why = format!(
            "pod {} is already assigned to node {bound_to:?}",
            read::name(old)
        );
        return Err(ApiError::conflict(r, read::name(old), why));
    }
    let mut new = old.clone();
    new["spec"]["nodeName"] = body["target"]["name"].clone();
    let scheduled = json!({"type": "PodScheduled", "status": "True"});
    match new["status"]["conditions"].as_array_mut() {
        Some(list) => {
            list.retain(|c| c["type"] != "PodScheduled");
            list.push(scheduled);
        }
        None => new["status"]["conditions"] = json!([scheduled]),
    }
    Ok(new)
}

/// The object marked for deletion, as its kind, its finalizers and the options say.
pub(super) fn mark_deleted(r: &Resource, old: &Value, options: &Value, now: Timestamp) -> Value {
    let mut new = old.clone();
    let policy = read::text(options, &["propagationPolicy"]);
    for (name, wanted) in [
        ("foregroundDeletion", policy == "Foreground"),
        ("orphan", policy == "Orphan"),
    ] {
        let m = read::map_mut(&mut new, &["metadata"]);
        let list = m.entry("finalizers").or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            if wanted && !list.iter().any(|f| f == name) {
                list.push(name.into());
            }
            if list.is_empty() {
                m.remove("finalizers");
            }
        }
    }
    let mut grace = 0;
    if (r.group, r.plural) == ("", "pods") {
        let own = read::int(old, &["spec", "terminationGracePeriodSeconds"])
            .unwrap_or(GRACE_SECONDS_DEFAULT);
        grace = read::int(options, &["gracePeriodSeconds"]).unwrap_or(own);
        let phase = read::text(old, &["status", "phase"]);
        if read::text(old, &["spec", "nodeName"]).is_empty()
            || matches!(phase, "Succeeded" | "Failed")
        {
            grace = 0;
        }
        new["metadata"]["deletionGracePeriodSeconds"] = grace.into();
    }
    if old["metadata"]["deletionTimestamp"].is_null() {
        new["metadata"]["deletionTimestamp"] =
            read::time_text(now + SignedDuration::from_secs(grace)).into();
        let generation = read::int(old, &["metadata", "generation"]).unwrap_or(1);
        new["metadata"]["generation"] = (generation + 1).into();
    }
    if (r.group, r.plural) == ("", "namespaces") {
        new["status"]["phase"] = "Terminating".into();
    }
    new
}

/// Whether nothing keeps a deleted object any longer.
pub(super) fn is_finished(r: &Resource, v: &Value) -> bool {
    let m = &v["metadata"];
    let finalized = read::list(v, &["metadata", "finalizers"]).is_empty()
        && ((r.group, r.plural) != ("", "namespaces")
            || read::list(v, &["spec", "finalizers"]).is_empty());
    let grace_over = read::int(m, &["deletionGracePeriodSeconds"]).unwrap_or(0) == 0;
    !m["deletionTimestamp"].is_null() && finalized && grace_over
}
