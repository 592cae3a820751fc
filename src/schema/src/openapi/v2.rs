//! The document of version 2.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::operations::{self, Answer, Body, Operation, PathItem, Paths};
use super::parameters::Parameter;
use super::schemas::{self, Version};
use super::v3::{PATCHES, extensions, phrase, roots};
use super::{Api, Members, bearer_token, gnostic, info};

const OBJECTS: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
];
const STREAMS: &[&str] = &[
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];
const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

fn paths(api: &Api<'_>) -> Paths {
    let mut all = Paths::new();
    for name in api.v3_names() {
        all.extend(operations::of_machinery(api, &name));
    }
    for (group, version) in api.group_versions() {
        all.extend(operations::of_group_version(api, group, version));
    }
    all
}

/// The parameters that operations share, by the name under which they are defined.
fn shared(paths: &Paths) -> BTreeMap<String, Parameter> {
    let all = paths.values().flat_map(|i| {
        i.parameters
            .iter()
            .chain(i.operations.iter().flat_map(|o| &o.parameters))
    });
    all.map(|p| (key(p), *p)).collect()
}

/// `path` is both in paths and in queries.
fn key(p: &Parameter) -> String {
    if p.in_path {
        format!("{}-in-path", p.name)
    } else {
        p.name.to_owned()
    }
}

/// As JSON.
pub(super) fn json(api: &Api<'_>) -> Vec<u8> {
    let paths = paths(api);
    let mut out = Members::new();
    out.object("definitions", |members| {
        definitions(api, &paths, |name, v| members.add(name, &v));
    });
    out.add("info", &info(api));
    out.object("parameters", |members| {
        for (key, p) in shared(&paths) {
            members.add(&key, &parameter(&p));
        }
    });
    out.object("paths", |members| {
        for (path, item) in &paths {
            members.add(path, &path_item(item));
        }
    });
    out.add("security", &json!([{"BearerToken": []}]));
    out.add(
        "securityDefinitions",
        &json!({"BearerToken": bearer_token()}),
    );
    out.add("swagger", &"2.0".into());
    out.finish()
}

/// As protobuf.
pub(super) fn protobuf(api: &Api<'_>) -> Vec<u8> {
    let paths = paths(api);
    let mut document = gnostic::Document::new("2.0", &info(api));
    for (path, item) in &paths {
        document.path(path, &path_item(item));
    }
    definitions(api, &paths, |name, v| document.definition(name, &v));
    for (key, p) in shared(&paths) {
        document.parameter(&key, &parameter(&p));
    }
    document.finish("BearerToken", &bearer_token())
}

fn definitions(api: &Api<'_>, paths: &Paths, mut add: impl FnMut(&str, Value)) {
    let kinds = schemas::kinds(api);
    for (name, d) in schemas::closure(roots(paths)) {
        let gvks = kinds.get(name).map_or(&[][..], Vec::as_slice);
        add(
            name,
            schemas::definition(name, d.schema(), gvks, Version::V2),
        );
    }
}

fn parameter(p: &Parameter) -> Value {
    let place = if p.in_path { "path" } else { "query" };
    let mut v = json!({"name": p.name, "in": place, "description": p.description, "type": p.ty, "uniqueItems": true});
    if p.in_path {
        v["required"] = true.into();
    }
    v
}

fn reference(p: &Parameter) -> Value {
    json!({"$ref": format!("#/parameters/{}", key(p))})
}

fn path_item(item: &PathItem) -> Value {
    let mut out = Map::new();
    for o in &item.operations {
        out.insert(o.method.into(), operation(o));
    }
    if !item.parameters.is_empty() {
        out.insert(
            "parameters".into(),
            item.parameters.iter().map(reference).collect(),
        );
    }
    Value::Object(out)
}

fn operation(o: &Operation) -> Value {
    let (schema, produces): (Value, Vec<&str>) = match &o.answer {
        Answer::Object(name) => (Version::V2.reference(name), OBJECTS.to_vec()),
        Answer::List(name) => (
            Version::V2.reference(name),
            OBJECTS.iter().chain(STREAMS).copied().collect(),
        ),
        Answer::Text => (json!({"type": "string"}), vec!["text/plain"]),
        Answer::Stream => (json!({"type": "string"}), vec!["*/*"]),
        Answer::Plain => (json!({"type": "string"}), vec!["application/json"]),
    };
    let mut responses: Map<String, Value> = o
        .codes
        .iter()
        .map(|code| {
            (
                code.to_string(),
                json!({"description": phrase(*code), "schema": schema}),
            )
        })
        .collect();
    responses.insert("401".into(), json!({"description": phrase(401)}));
    let body = |name: &str, required: bool| {
        let mut v = json!({"in": "body", "name": "body", "schema": Version::V2.reference(name)});
        if required {
            v["required"] = true.into();
        }
        v
    };
    let mut parameters = Vec::new();
    let mut consumes: &[&str] = &["*/*"];
    match &o.body {
        Some(Body::Required(name)) => parameters.push(body(name, true)),
        Some(Body::Optional(name)) => parameters.push(body(name, false)),
        Some(Body::Patch) => {
            parameters.push(body(PATCH, true));
            consumes = PATCHES;
        }
        None => {}
    }
    parameters.extend(o.parameters.iter().map(reference));
    let mut v = json!({
        "operationId": o.id, "tags": [o.tag], "description": o.description, "responses": responses,
        "schemes": ["https"], "consumes": consumes, "produces": produces,
    });
    if !parameters.is_empty() {
        v["parameters"] = parameters.into();
    }
    extensions(o, &mut v);
    v
}
