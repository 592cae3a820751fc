//! Tables and metadata-only forms of objects (`meta.k8s.io`).

use kontiki_api::object;
use serde_json::{Map, Value, json};

use crate::negotiate::{Accepted, Include, Transform};
use crate::registry::Kind;

/// The columns of a kind's table.
pub(crate) fn columns(kind: &Kind) -> Value {
    kind.strategy
        .columns()
        .iter()
        .map(|c| json!({"name": c.name, "type": c.kind, "format": c.format, "description": c.description, "priority": c.priority}))
        .collect()
}

/// A table of these objects. `meta` is the list's metadata.
pub(crate) fn table(
    kind: &Kind,
    objects: &[Value],
    meta: &Value,
    a: &Accepted,
    now: jiff::Timestamp,
    with_columns: bool,
) -> Value {
    let rows: Vec<Value> = objects.iter().map(|o| row(kind, o, a, now)).collect();
    json!({
        "kind": "Table",
        "apiVersion": format!("meta.k8s.io/{}", a.version),
        "metadata": meta,
        "columnDefinitions": if with_columns { columns(kind) } else { Value::Null },
        "rows": rows,
    })
}

fn row(kind: &Kind, o: &Value, a: &Accepted, now: jiff::Timestamp) -> Value {
    let cells = kind.strategy.row(o, now);
    let mut row = json!({"cells": cells});
    let conditions = kind.strategy.row_conditions(o);
    if !conditions.is_empty() {
        row["conditions"] = conditions.into();
    }
    match a.include {
        Include::None => row["object"] = Value::Null,
        Include::Metadata => row["object"] = partial(o, a),
        Include::Object => row["object"] = o.clone(),
    }
    row
}

/// The object cut down to its metadata.
pub(crate) fn partial(o: &Value, a: &Accepted) -> Value {
    let mut meta = o
        .get("metadata")
        .cloned()
        .unwrap_or_else(|| Value::Object(Map::new()));
    hide_template_generation(&mut meta);
    json!({"kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{}", a.version), "metadata": meta})
}

/// Upstream adds this annotation when it encodes a whole DaemonSet, and not to its metadata alone.
fn hide_template_generation(meta: &mut Value) {
    let Some(annotations) = meta.get_mut("annotations").and_then(Value::as_object_mut) else {
        return;
    };
    if annotations
        .remove(crate::kinds::DAEMONSET_TEMPLATE_GENERATION)
        .is_some()
        && annotations.is_empty()
        && let Some(meta) = meta.as_object_mut()
    {
        meta.remove("annotations");
    }
}

/// What is made of one object.
pub(crate) fn transformed(kind: &Kind, o: Value, a: &Accepted, now: jiff::Timestamp) -> Value {
    match a.transform {
        Transform::None => o,
        Transform::Partial | Transform::PartialList => partial(&o, a),
        Transform::Table => {
            let revision = object::text(&o, &["metadata", "resourceVersion"]);
            let meta = if revision.is_empty() {
                json!({})
            } else {
                json!({"resourceVersion": revision})
            };
            table(kind, &[o], &meta, a, now, true)
        }
    }
}

/// What is made of a list.
pub(crate) fn transformed_list(
    kind: &Kind,
    objects: Vec<Value>,
    meta: &Value,
    a: &Accepted,
    now: jiff::Timestamp,
) -> Value {
    match a.transform {
        Transform::Table => table(kind, &objects, meta, a, now, true),
        Transform::Partial | Transform::PartialList => {
            let items: Vec<Value> = objects.iter().map(|o| partial(o, a)).collect();
            // Upstream leaves the empty list out of its Go slice.
            let items = if items.is_empty() {
                Value::Null
            } else {
                Value::Array(items)
            };
            json!({"kind": "PartialObjectMetadataList", "apiVersion": format!("meta.k8s.io/{}", a.version), "metadata": meta, "items": items})
        }
        Transform::None => {
            let items: Vec<Value> = objects
                .into_iter()
                .map(|mut o| {
                    if let Some(m) = o.as_object_mut() {
                        m.remove("apiVersion");
                        m.remove("kind");
                    }
                    o
                })
                .collect();
            json!({"kind": format!("{}List", kind.resource.kind), "apiVersion": kind.resource.api_version(), "metadata": meta, "items": items})
        }
    }
}
