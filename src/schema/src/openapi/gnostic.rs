//! The protobuf form of a document of version 2 (`openapi.v2.Document` of gnostic's `OpenAPIv2.proto`).
//!
//! The messages are written straight from the JSON of each part; a field is a number of that file.

use prost::encoding::{WireType, encode_key, encode_varint};
use serde_json::Value;

/// A message under way.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        encode_key(field, WireType::LengthDelimited, &mut self.0);
        encode_varint(bytes.len() as u64, &mut self.0);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, field: u32, v: &Value) {
        if let Some(s) = v.as_str().filter(|s| !s.is_empty()) {
            self.bytes(field, s.as_bytes());
        }
    }

    fn texts(&mut self, field: u32, v: &Value) {
        for s in v.as_array().into_iter().flatten().filter_map(Value::as_str) {
            self.bytes(field, s.as_bytes());
        }
    }

    fn boolean(&mut self, field: u32, v: &Value) {
        if v.as_bool() == Some(true) {
            encode_key(field, WireType::Varint, &mut self.0);
            encode_varint(1, &mut self.0);
        }
    }

    fn message(&mut self, field: u32, m: &Message) {
        self.bytes(field, &m.0);
    }

    /// A repeated field of `{name = 1, value = 2}` entries.
    fn named(&mut self, field: u32, name: &str, value: &Message) {
        let mut entry = Message::default();
        entry.bytes(1, name.as_bytes());
        entry.message(2, value);
        self.message(field, &entry);
    }

    /// The `x-` members, as YAML; JSON is YAML.
    fn extensions(&mut self, field: u32, v: &Value) {
        for (name, value) in v
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(k, _)| k.starts_with("x-"))
        {
            self.named(field, name, &any(value));
        }
    }
}

fn any(v: &Value) -> Message {
    let mut m = Message::default();
    m.bytes(2, format!("{v}\n").as_bytes());
    m
}

/// A document under way; its parts are added in any order.
pub(super) struct Document {
    out: Message,
    paths: Message,
    definitions: Message,
    parameters: Message,
}

impl Document {
    pub(super) fn new(swagger: &str, info: &Value) -> Document {
        let mut out = Message::default();
        out.bytes(1, swagger.as_bytes());
        let mut m = Message::default();
        m.text(1, &info["title"]);
        m.text(2, &info["version"]);
        out.message(2, &m);
        Document {
            out,
            paths: Message::default(),
            definitions: Message::default(),
            parameters: Message::default(),
        }
    }

    pub(super) fn path(&mut self, path: &str, item: &Value) {
        self.paths.named(2, path, &path_item(item));
    }

    pub(super) fn definition(&mut self, name: &str, v: &Value) {
        self.definitions.named(1, name, &schema(v));
    }

    pub(super) fn parameter(&mut self, name: &str, v: &Value) {
        self.parameters.named(1, name, &parameter(v));
    }

    /// The bytes, with one way to authenticate.
    pub(super) fn finish(mut self, scheme: &str, v: &Value) -> Vec<u8> {
        self.out.message(8, &self.paths);
        self.out.message(9, &self.definitions);
        self.out.message(10, &self.parameters);
        let mut requirement = Message::default();
        requirement.named(1, scheme, &Message::default());
        self.out.message(12, &requirement);
        let mut key = Message::default();
        for (field, name) in [(1, "type"), (2, "name"), (3, "in"), (4, "description")] {
            key.text(field, &v[name]);
        }
        let mut item = Message::default();
        item.message(2, &key);
        let mut definitions = Message::default();
        definitions.named(1, scheme, &item);
        self.out.message(13, &definitions);
        self.out.0
    }
}

fn path_item(v: &Value) -> Message {
    let mut m = Message::default();
    let methods = [
        (2, "get"),
        (3, "put"),
        (4, "post"),
        (5, "delete"),
        (6, "options"),
        (7, "head"),
        (8, "patch"),
    ];
    for (field, method) in methods {
        if let Some(o) = v.get(method) {
            m.message(field, &operation(o));
        }
    }
    for p in v["parameters"].as_array().into_iter().flatten() {
        m.message(9, &parameters_item(p));
    }
    m
}

fn operation(v: &Value) -> Message {
    let mut m = Message::default();
    m.texts(1, &v["tags"]);
    m.text(3, &v["description"]);
    m.text(5, &v["operationId"]);
    m.texts(6, &v["produces"]);
    m.texts(7, &v["consumes"]);
    for p in v["parameters"].as_array().into_iter().flatten() {
        m.message(8, &parameters_item(p));
    }
    let mut responses = Message::default();
    for (code, r) in v["responses"].as_object().into_iter().flatten() {
        let mut response = Message::default();
        response.text(1, &r["description"]);
        if let Some(s) = r.get("schema") {
            let mut item = Message::default();
            item.message(1, &schema(s));
            response.message(2, &item);
        }
        let mut value = Message::default();
        value.message(1, &response);
        responses.named(1, code, &value);
    }
    m.message(9, &responses);
    m.texts(10, &v["schemes"]);
    m.extensions(13, v);
    m
}

fn parameters_item(v: &Value) -> Message {
    let mut m = Message::default();
    if v.get("$ref").is_some() {
        let mut reference = Message::default();
        reference.text(1, &v["$ref"]);
        m.message(2, &reference);
    } else {
        m.message(1, &parameter(v));
    }
    m
}

fn parameter(v: &Value) -> Message {
    let mut m = Message::default();
    let mut inner = Message::default();
    let place = v["in"].as_str().unwrap_or_default();
    if place == "body" {
        inner.text(1, &v["description"]);
        inner.text(2, &v["name"]);
        inner.text(3, &v["in"]);
        inner.boolean(4, &v["required"]);
        inner.message(5, &schema(&v["schema"]));
        m.message(1, &inner);
        return m;
    }
    inner.boolean(1, &v["required"]);
    inner.text(2, &v["in"]);
    inner.text(3, &v["description"]);
    inner.text(4, &v["name"]);
    // A query parameter has `allow_empty_value` as number 5, so that what follows is shifted by one.
    let (field, ty, unique) = if place == "path" {
        (4, 5, 19)
    } else {
        (3, 6, 20)
    };
    inner.text(ty, &v["type"]);
    inner.boolean(unique, &v["uniqueItems"]);
    let mut non_body = Message::default();
    non_body.message(field, &inner);
    m.message(2, &non_body);
    m
}

fn schema(v: &Value) -> Message {
    let mut m = Message::default();
    m.text(1, &v["$ref"]);
    m.text(2, &v["format"]);
    m.text(4, &v["description"]);
    if let Some(default) = v.get("default") {
        m.message(5, &any(default));
    }
    m.texts(19, &v["required"]);
    for value in v["enum"].as_array().into_iter().flatten() {
        m.message(20, &any(value));
    }
    if let Some(additional) = v.get("additionalProperties") {
        let mut item = Message::default();
        item.message(1, &schema(additional));
        m.message(21, &item);
    }
    if v.get("type").is_some() {
        let mut item = Message::default();
        item.text(1, &v["type"]);
        m.message(22, &item);
    }
    if let Some(items) = v.get("items") {
        let mut item = Message::default();
        item.message(1, &schema(items));
        m.message(23, &item);
    }
    if let Some(properties) = v["properties"].as_object() {
        let mut all = Message::default();
        for (name, p) in properties {
            all.named(1, name, &schema(p));
        }
        m.message(25, &all);
    }
    m.extensions(31, v);
    m
}
