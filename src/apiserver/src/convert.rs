//! Kinds that are served in more than one version, or in two groups: stored in one, converted at the edge.

use kontiki_api::{Resource, catalogue};
use serde_json::{Map, Value};

/// What the fields of an event are called in `v1` and in `events.k8s.io/v1`.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// The version in which objects of this resource are stored.
pub(crate) fn storage_of(r: &'static Resource) -> &'static Resource {
    let other = match (r.group, r.version, r.plural) {
        ("events.k8s.io", "v1", "events") => catalogue::by_name("", "v1", "events"),
        ("autoscaling", "v1", "horizontalpodautoscalers") => {
            catalogue::by_name("autoscaling", "v2", r.plural)
        }
        _ => None,
    };
    other.unwrap_or(r)
}

/// Converts an object between the versions of one kind.
pub(crate) fn convert(object: &mut Value, from: &Resource, to: &Resource) {
    if std::ptr::eq(from, to) {
        return;
    }
    let Some(map) = object.as_object_mut() else {
        return;
    };
    map.insert("apiVersion".into(), to.api_version().into());
    match (from.group, from.version, from.plural) {
        ("", _, "events") => rename(map, EVENT_FIELDS.iter().map(|(a, b)| (*a, *b))),
        ("events.k8s.io", _, "events") => rename(map, EVENT_FIELDS.iter().map(|(a, b)| (*b, *a))),
        ("autoscaling", "v1", _) => autoscaler_to_v2(map),
        ("autoscaling", "v2", _) => autoscaler_to_v1(map),
        _ => {}
    }
}

/// The stored name of a field that a selector in this version names.
pub(crate) fn stored_field(r: &Resource, field: &str) -> String {
    if r.group != "events.k8s.io" {
        return field.to_owned();
    }
    match field {
        "reportingController" => "source".into(),
        f => match f.strip_prefix("regarding.") {
            Some(rest) => format!("involvedObject.{rest}"),
            None => f.to_owned(),
        },
    }
}

fn rename<'a>(map: &mut Map<String, Value>, names: impl Iterator<Item = (&'a str, &'a str)>) {
    for (from, to) in names {
        if let Some(v) = map.remove(from) {
            map.insert(to.into(), v);
        }
    }
}

/// `targetCPUUtilizationPercentage` is the one metric that v1 has.
fn autoscaler_to_v2(map: &mut Map<String, Value>) {
    if let Some(status) = map.get_mut("status").and_then(Value::as_object_mut) {
        status.entry("currentMetrics").or_insert(Value::Null);
        if status.get("currentReplicas").and_then(Value::as_i64) == Some(0) {
            status.remove("currentReplicas");
        }
    }
    let Some(spec) = map.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    if let Some(percent) = spec.remove("targetCPUUtilizationPercentage") {
        let target = serde_json::json!({"type": "Utilization", "averageUtilization": percent});
        let metric =
            serde_json::json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
        spec.insert("metrics".into(), Value::Array(vec![metric]));
    }
}

fn autoscaler_to_v1(map: &mut Map<String, Value>) {
    if let Some(status) = map.get_mut("status").and_then(Value::as_object_mut) {
        status.remove("currentMetrics");
        status.remove("conditions");
        status.entry("currentReplicas").or_insert_with(|| 0.into());
    }
    let Some(spec) = map.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    let metrics = spec.remove("metrics");
    let percent = metrics.as_ref().and_then(Value::as_array).and_then(|all| {
        all.iter()
            .filter(|m| m.pointer("/resource/name").and_then(Value::as_str) == Some("cpu"))
            .find_map(|m| m.pointer("/resource/target/averageUtilization").cloned())
    });
    if let Some(p) = percent {
        spec.insert("targetCPUUtilizationPercentage".into(), p);
    }
    spec.remove("behavior");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_keep_their_content_in_both_groups() {
        let core = catalogue::known::events();
        let new = catalogue::by_name("events.k8s.io", "v1", "events").expect("in the catalogue");
        assert!(std::ptr::eq(storage_of(new), core));
        let event = json!({"apiVersion": "v1", "kind": "Event", "involvedObject": {"name": "x"}, "message": "m"});
        let mut v = event.clone();
        convert(&mut v, core, new);
        assert_eq!(
            v,
            json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "regarding": {"name": "x"}, "note": "m"})
        );
        convert(&mut v, new, core);
        assert_eq!(v, event);
    }
}
