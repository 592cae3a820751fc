//! The definitions of `k8s-openapi`, completed with those that it has no types for.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::facts::Facts;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// Every definition by its upstream name.
pub(crate) fn collect(facts: &Facts) -> BTreeMap<String, Value> {
    let mut generator = schemars::SchemaGenerator::default();
    crate::roots::register(&mut generator);
    let mut all: BTreeMap<String, Value> = generator.take_definitions(false).into_iter().collect();
    all.insert(
        format!("{META}.WatchEvent"),
        json!({
            "description": "Event represents a single event to a watched resource.",
            "type": "object",
            "required": ["type", "object"],
            "properties": {
                "type": {"type": "string"},
                "object": {
                    "description": "The new state of the object; on deletion its last state; on an error a Status.",
                    "$ref": "io.k8s.apimachinery.pkg.runtime.RawExtension",
                },
            },
        }),
    );
    for kind in facts.kinds.iter().filter(|k| k.listed) {
        let item = name_of(&all, &kind.group, &kind.version, &kind.kind);
        all.insert(
            format!("{item}List"),
            list_of(&all[&item], &item, &kind.kind),
        );
    }
    for (name, definition) in &mut all {
        correct(name, definition, facts);
    }
    all
}

/// The definition of a kind.
pub(crate) fn name_of(
    all: &BTreeMap<String, Value>,
    group: &str,
    version: &str,
    kind: &str,
) -> String {
    let short = match group {
        "" => "core",
        "internal.apiserver.k8s.io" => "apiserverinternal",
        g => g.split('.').next().expect("split yields at least one part"),
    };
    let prefix = match group {
        "apiextensions.k8s.io" => "io.k8s.apiextensions-apiserver.pkg.apis",
        "apiregistration.k8s.io" => "io.k8s.kube-aggregator.pkg.apis",
        _ => "io.k8s.api",
    };
    let name = format!("{prefix}.{short}.{version}.{kind}");
    assert!(
        all.contains_key(&name),
        "the catalogue has {group}/{version} {kind}, but there is no definition {name}"
    );
    name
}

fn list_of(item: &Value, name: &str, kind: &str) -> Value {
    let of = |p: &str| item["properties"][p]["description"].clone();
    json!({
        "description": format!("{kind}List is a list of {kind} objects."),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": of("apiVersion")},
            "kind": {"type": "string", "description": of("kind")},
            "items": {"type": "array", "items": {"$ref": name}, "description": format!("The {kind} objects.")},
            "metadata": {"$ref": format!("{META}.ListMeta"), "description": "Standard list metadata."},
        },
    })
}

/// Puts `required` right: the types make `metadata` required where upstream does not, and drop or add a few others.
fn correct(name: &str, definition: &mut Value, facts: &Facts) {
    let Some(properties) = definition.get("properties").and_then(Value::as_object) else {
        return;
    };
    let before: Vec<String> = definition
        .get("required")
        .and_then(Value::as_array)
        .map(|a| {
            a.iter()
                .filter_map(|v| v.as_str().map(str::to_owned))
                .collect()
        })
        .unwrap_or_default();
    let mut required: Vec<String> = properties
        .keys()
        .filter(|p| match facts.go(name, p).required.as_str() {
            "yes" => true,
            "no" => false,
            _ => before.contains(p) && *p != "metadata",
        })
        .cloned()
        .collect();
    required.sort_by_key(|p| facts.order(name, p));
    definition["required"] = required.into();
}
