//! Documents of version 3.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::operations::{Answer, Body, Operation, PathItem, Paths};
use super::parameters::Parameter;
use super::schemas::{self, Version};
use super::{Api, Members, bearer_token, info};

const OBJECTS: &[&str] = &[
    "application/json",
    "application/vnd.kubernetes.protobuf",
    "application/yaml",
];
const STREAMS: &[&str] = &[
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];
pub(super) const PATCHES: &[&str] = &[
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];
const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

/// The document of these operations.
pub(super) fn document(api: &Api<'_>, paths: &Paths) -> Vec<u8> {
    let mut out = Members::new();
    out.object("components", |components| {
        components.object("schemas", |members| {
            let kinds = schemas::kinds(api);
            for (name, d) in schemas::closure(roots(paths)) {
                let gvks = kinds.get(name).map_or(&[][..], Vec::as_slice);
                members.add(
                    name,
                    &schemas::definition(name, d.schema(), gvks, Version::V3),
                );
            }
        });
        components.add("securitySchemes", &json!({"BearerToken": bearer_token()}));
    });
    out.add("info", &info(api));
    out.add("openapi", &"3.0.0".into());
    out.object("paths", |members| {
        for (path, item) in paths {
            members.add(path, &path_item(item));
        }
    });
    out.finish()
}

/// The definitions that operations name.
pub(super) fn roots(paths: &Paths) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for o in paths.values().flat_map(|i| &i.operations) {
        match &o.answer {
            Answer::Object(name) | Answer::List(name) => all.insert(name.clone()),
            Answer::Text | Answer::Stream | Answer::Plain => false,
        };
        match &o.body {
            Some(Body::Required(name) | Body::Optional(name)) => all.insert(name.clone()),
            Some(Body::Patch) => all.insert(PATCH.to_owned()),
            None => false,
        };
    }
    all
}

fn path_item(item: &PathItem) -> Value {
    let mut out = Map::new();
    for o in &item.operations {
        out.insert(o.method.into(), operation(o));
    }
    if !item.parameters.is_empty() {
        out.insert(
            "parameters".into(),
            item.parameters.iter().map(parameter).collect(),
        );
    }
    Value::Object(out)
}

fn parameter(p: &Parameter) -> Value {
    let place = if p.in_path { "path" } else { "query" };
    let mut v = json!({
        "name": p.name, "in": place, "description": p.description, "schema": {"type": p.ty, "uniqueItems": true},
    });
    if p.in_path {
        v["required"] = true.into();
    }
    v
}

fn content(types: &[&str], schema: &Value) -> Value {
    types
        .iter()
        .map(|t| ((*t).to_owned(), json!({"schema": schema})))
        .collect()
}

fn operation(o: &Operation) -> Value {
    let answer = match &o.answer {
        Answer::Object(name) => content(OBJECTS, &Version::V3.reference(name)),
        Answer::List(name) => {
            let all: Vec<&str> = OBJECTS.iter().chain(STREAMS).copied().collect();
            content(&all, &Version::V3.reference(name))
        }
        Answer::Text => content(&["text/plain"], &json!({"type": "string"})),
        Answer::Stream => content(&["*/*"], &json!({"type": "string"})),
        Answer::Plain => content(&["application/json"], &json!({"type": "string"})),
    };
    let mut responses: Map<String, Value> = o
        .codes
        .iter()
        .map(|code| {
            (
                code.to_string(),
                json!({"description": phrase(*code), "content": answer}),
            )
        })
        .collect();
    responses.insert("401".into(), json!({"description": phrase(401)}));
    let mut v = json!({
        "operationId": o.id, "tags": [o.tag], "description": o.description, "responses": responses,
    });
    if !o.parameters.is_empty() {
        v["parameters"] = o.parameters.iter().map(parameter).collect();
    }
    match &o.body {
        Some(Body::Required(name)) => {
            let content = content(&["*/*"], &Version::V3.reference(name));
            v["requestBody"] = json!({"required": true, "content": content});
        }
        Some(Body::Optional(name)) => {
            v["requestBody"] = json!({"content": content(&["*/*"], &Version::V3.reference(name))});
        }
        Some(Body::Patch) => {
            let content = content(PATCHES, &Version::V3.reference(PATCH));
            v["requestBody"] = json!({"required": true, "content": content});
        }
        None => {}
    }
    extensions(o, &mut v);
    v
}

/// The extensions of an operation, the same in both versions.
pub(super) fn extensions(o: &Operation, v: &mut Value) {
    if !o.action.is_empty() {
        v["x-kubernetes-action"] = o.action.into();
    }
    if let Some((group, version, kind)) = &o.gvk {
        v["x-kubernetes-group-version-kind"] =
            json!({"group": group, "version": version, "kind": kind});
    }
}

/// The words that go with a status code.
pub(super) fn phrase(code: u16) -> &'static str {
    match code {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        _ => "Unauthorized",
    }
}
