//! Schemas as OpenAPI has them, in both versions.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::Api;
use crate::builtin::{Definition, Schemas, definition_name};
use crate::node::{ListType, MapType, Node, PatchStrategy, Property, Schema, Text, Type};

/// Which version of OpenAPI is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V2,
    V3,
}

impl Version {
    /// A reference to a definition.
    pub(super) fn reference(self, name: &str) -> Value {
        let at = match self {
            Version::V2 => "#/definitions/",
            Version::V3 => "#/components/schemas/",
        };
        json!({"$ref": format!("{at}{name}")})
    }
}

/// The definitions with these names, and all that they refer to, by name.
pub(super) fn closure(roots: BTreeSet<String>) -> BTreeMap<&'static str, &'static Definition> {
    let mut all = BTreeMap::new();
    for name in roots {
        let definition = Schemas::builtin().definition(&name);
        visit(
            definition
                .unwrap_or_else(|| panic!("an operation refers to {name}, which is no definition")),
            &mut all,
        );
    }
    all
}

fn visit(d: &'static Definition, all: &mut BTreeMap<&'static str, &'static Definition>) {
    if all.insert(d.name, d).is_some() {
        return;
    }
    let schema = d.schema();
    if schema.ty == Type::PropsOr {
        // Documented as anything.
        return;
    }
    for node in schema.properties.iter().map(|p| &p.node) {
        follow(node, all);
    }
}

fn follow(node: &Node, all: &mut BTreeMap<&'static str, &'static Definition>) {
    match node {
        Node::Named(d) => visit(d, all),
        Node::Inline(s) => {
            for inner in s
                .items
                .iter()
                .chain(&s.additional)
                .chain(s.properties.iter().map(|p| &p.node))
            {
                follow(inner, all);
            }
        }
    }
}

/// The groups, versions and kinds of a definition, if it is a kind.
pub(super) fn kinds(api: &Api<'_>) -> BTreeMap<String, Vec<(String, String, String)>> {
    let mut all: BTreeMap<String, Vec<(String, String, String)>> = BTreeMap::new();
    let mut add = |group: &str, version: &str, kind: &str| {
        let entry = all
            .entry(definition_name(group, version, kind))
            .or_default();
        let gvk = (group.to_owned(), version.to_owned(), kind.to_owned());
        if !entry.contains(&gvk) {
            entry.push(gvk);
        }
    };
    for r in api.resources {
        add(r.group, r.version, r.kind);
        if r.has_verb("list") {
            add(r.group, r.version, &format!("{}List", r.kind));
        }
        for s in r
            .subresources
            .iter()
            .filter(|s| !s.version.is_empty() && !s.kind.ends_with("Options"))
        {
            add(s.group, s.version, s.kind);
        }
    }
    let meta = |kind: &str| definition_name("meta.k8s.io", "v1", kind);
    for kind in [
        "Status",
        "APIVersions",
        "APIGroup",
        "APIGroupList",
        "APIResourceList",
    ] {
        all.insert(meta(kind), vec![(String::new(), "v1".into(), kind.into())]);
    }
    // These two are registered with every group and version.
    for kind in ["DeleteOptions", "WatchEvent"] {
        let gvs = api.group_versions();
        all.insert(
            meta(kind),
            gvs.iter()
                .map(|(g, v)| ((*g).into(), (*v).into(), kind.into()))
                .collect(),
        );
    }
    all
}

/// The schema of a definition.
pub(super) fn definition(
    name: &str,
    schema: &Schema,
    gvks: &[(String, String, String)],
    version: Version,
) -> Value {
    let mut out = inline(schema, &[], version);
    if !schema.description.is_empty() {
        out.insert("description".into(), text(&schema.description));
    }
    if name.ends_with(".JSON") || schema.ty == Type::PropsOr {
        out.remove("type");
    }
    if !gvks.is_empty() {
        let list = gvks
            .iter()
            .map(|(g, v, k)| json!({"group": g, "version": v, "kind": k}))
            .collect();
        out.insert("x-kubernetes-group-version-kind".into(), list);
    }
    if let Some((discriminator, fields)) = schema.union.split_once(';') {
        let fields: Map<String, Value> = fields
            .split(',')
            .filter_map(|f| f.split_once('='))
            .map(|(field, name)| (field.to_owned(), name.into()))
            .collect();
        let mut union = json!({"fields-to-discriminateBy": fields});
        if !discriminator.is_empty() {
            union["discriminator"] = discriminator.into();
        }
        out.insert("x-kubernetes-unions".into(), json!([union]));
    }
    Value::Object(out)
}

fn text(t: &Text) -> Value {
    Value::String(t.clone().into_owned())
}

fn node(n: &Node, values: &[Text], version: Version) -> Value {
    match n {
        Node::Named(d) => version.reference(d.name),
        Node::Inline(s) => Value::Object(inline(s, values, version)),
    }
}

/// A schema without its words; `values` are those of its scalars.
fn inline(s: &Schema, values: &[Text], version: Version) -> Map<String, Value> {
    let mut out = Map::new();
    let mut put = |k: &str, v: Value| out.insert(k.to_owned(), v);
    let (ty, format) = names(s.ty, version);
    if !ty.is_empty() {
        put("type", ty.into());
    }
    if !format.is_empty() {
        put("format", format.into());
    }
    match (s.ty, version) {
        (Type::Quantity, Version::V3) => {
            put("oneOf", json!([{"type": "string"}, {"type": "number"}]));
        }
        (Type::IntOrString, Version::V3) => {
            put("oneOf", json!([{"type": "integer"}, {"type": "string"}]));
        }
        _ => {}
    }
    if s.ty == Type::Struct {
        let mut required: Vec<(u16, &Text)> = s
            .properties
            .iter()
            .filter_map(|p| Some((p.required?, &p.name)))
            .collect();
        required.sort_unstable();
        if !required.is_empty() {
            put(
                "required",
                required.into_iter().map(|(_, name)| text(name)).collect(),
            );
        }
        let properties = s
            .properties
            .iter()
            .map(|p| (p.name.to_string(), property(p, version)));
        let properties: Map<String, Value> = properties.collect();
        if !properties.is_empty() {
            put("properties", Value::Object(properties));
        }
    }
    if let (Type::Map, Some(member)) = (s.ty, &s.additional) {
        put("additionalProperties", node(member, values, version));
    } else if let Some(item) = &s.items {
        put("items", node(item, values, version));
    } else if !values.is_empty() {
        put("enum", values.iter().map(text).collect());
    }
    match s.list_type {
        ListType::Unset => None,
        ListType::Atomic => put("x-kubernetes-list-type", "atomic".into()),
        ListType::Set => put("x-kubernetes-list-type", "set".into()),
        ListType::Map => {
            put(
                "x-kubernetes-list-map-keys",
                s.list_map_keys.iter().map(text).collect(),
            );
            put("x-kubernetes-list-type", "map".into())
        }
    };
    if let Some(t) = map_type(s.map_type) {
        put("x-kubernetes-map-type", t.into());
    }
    out
}

fn names(ty: Type, version: Version) -> (&'static str, &'static str) {
    match ty {
        Type::Any | Type::Json | Type::PropsOr => ("", ""),
        Type::Struct | Type::Map | Type::RawObject => ("object", ""),
        Type::Array => ("array", ""),
        Type::String => ("string", ""),
        Type::Bytes => ("string", "byte"),
        Type::Int32 => ("integer", "int32"),
        Type::Int64 => ("integer", "int64"),
        Type::Number => ("number", "double"),
        Type::Boolean => ("boolean", ""),
        Type::Time | Type::MicroTime => ("string", "date-time"),
        Type::Quantity => (if version == Version::V2 { "string" } else { "" }, ""),
        Type::IntOrString => (
            if version == Version::V2 { "string" } else { "" },
            "int-or-string",
        ),
    }
}

fn map_type(t: MapType) -> Option<&'static str> {
    match t {
        MapType::Unset => None,
        MapType::Granular => Some("granular"),
        MapType::Atomic => Some("atomic"),
    }
}

fn property(p: &Property, version: Version) -> Value {
    let mut out = match &p.node {
        // In version 3 nothing may stand beside a reference.
        Node::Named(d) if version == Version::V3 => {
            Map::from_iter([("allOf".to_owned(), json!([version.reference(d.name)]))])
        }
        n => match node(n, &p.values, version) {
            Value::Object(map) => map,
            other => unreachable!("a schema is an object: {other}"),
        },
    };
    let mut put = |k: &str, v: Value| out.insert(k.to_owned(), v);
    if !p.description.is_empty() {
        put("description", text(&p.description));
    }
    // Version 2 has always been published without defaults.
    if let (Some(default), Version::V3) = (&p.default, version) {
        put("default", default.clone());
    }
    if let Some(t) = map_type(p.map_type) {
        put("x-kubernetes-map-type", t.into());
    }
    if let Some(strategy) = strategy(p.patch_strategy) {
        put("x-kubernetes-patch-strategy", strategy.into());
    }
    if !p.patch_merge_key.is_empty() {
        put("x-kubernetes-patch-merge-key", text(&p.patch_merge_key));
    }
    // A reference that stands alone needs no wrapping.
    if let (Node::Named(d), 1) = (&p.node, out.len()) {
        return version.reference(d.name);
    }
    Value::Object(out)
}

fn strategy(s: PatchStrategy) -> Option<String> {
    let words: Vec<&str> = [
        (s.merge, "merge"),
        (s.replace, "replace"),
        (s.retain_keys, "retainKeys"),
    ]
    .into_iter()
    .filter_map(|(set, word)| set.then_some(word))
    .collect();
    if words.is_empty() {
        None
    } else {
        Some(words.join(","))
    }
}
