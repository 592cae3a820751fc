//! Writes the definitions as lines that the crate parses lazily: one block a definition, one line a property.
//!
//! The index has `name, start, end` of each block. A block's first line is
//! `type, map type, union, description`; a property's line is
//! `name, type, flags, default, empty, values, map type, patch strategy, merge key, description`.
//! A description is `start:length` in the words. A type is `s` (string), `i` (int32), `l` (int64), `d` (double),
//! `b` (boolean), `y` (bytes; `ya` if they are called an atomic list), `?` (anything), `o` (struct), `Rn` (definition n), `{}T` (map) or `[list type=keys]T`.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use crate::facts::{Facts, GoFact, ListFact};

/// The three texts that are compiled in.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) index: String,
    pub(crate) schemas: String,
    pub(crate) words: String,
}

struct Writer<'a> {
    all: &'a BTreeMap<String, Value>,
    numbers: BTreeMap<&'a str, usize>,
    facts: &'a Facts,
    words: String,
    seen: BTreeMap<String, usize>,
}

/// Writes the table.
pub(crate) fn write(all: &BTreeMap<String, Value>, facts: &Facts) -> Table {
    let numbers = all
        .keys()
        .enumerate()
        .map(|(i, n)| (n.as_str(), i))
        .collect();
    let mut w = Writer {
        all,
        numbers,
        facts,
        words: String::new(),
        seen: BTreeMap::new(),
    };
    let mut table = Table::default();
    for (name, definition) in all {
        let start = table.schemas.len();
        w.definition(name, definition, &mut table.schemas);
        writeln!(table.index, "{name}\t{start}\t{}", table.schemas.len())
            .expect("writing to a string succeeds");
    }
    table.words = w.words;
    table
}

impl Writer<'_> {
    fn definition(&mut self, name: &str, definition: &Value, out: &mut String) {
        let list = self.facts.list(name, "");
        let map_type = map_type(&list);
        let union = self.facts.unions.get(name).cloned().unwrap_or_default();
        let words = self.describe(definition);
        let ty = match special(name) {
            Some(ty) => ty.to_owned(),
            // A struct without fields still drops what it does not know.
            None if definition["type"] == "object" => "o".to_owned(),
            None => self.ty(definition, &ListFact::default()),
        };
        writeln!(out, "{ty}\t{map_type}\t{union}\t{words}").expect("writing to a string succeeds");
        let required: Vec<&str> = definition["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let Some(properties) = definition.get("properties").and_then(Value::as_object) else {
            return;
        };
        let mut sorted: Vec<(&String, &Value)> = properties.iter().collect();
        sorted.sort_by_key(|(p, _)| p.as_str());
        for (p, schema) in sorted {
            let place = required.iter().position(|r| r == p);
            self.property(name, p, schema, place, out);
        }
    }

    fn property(
        &mut self,
        name: &str,
        p: &str,
        schema: &Value,
        place: Option<usize>,
        out: &mut String,
    ) {
        let (go, list) = (self.facts.go(name, p), self.facts.list(name, p));
        let shape = self.shape(schema);
        let default = match go.default.as_str() {
            "" => predicted_default(shape, p, place.is_some()).to_owned(),
            "none" => String::new(),
            given => given.to_owned(),
        };
        let (omit, empty) = omission(shape, place.is_some(), &default, &go, name, p);
        let mut flags = String::from(omit);
        if let Some(n) = place {
            write!(flags, "r{n}").expect("writing to a string succeeds");
        }
        let ty = self.ty(schema, &list);
        let words = self.describe(schema);
        let (values, map, patch, key) = (
            &go.values,
            map_type(&list),
            &list.patch_strategy,
            &list.merge_key,
        );
        writeln!(
            out,
            "{p}\t{ty}\t{flags}\t{default}\t{empty}\t{values}\t{map}\t{patch}\t{key}\t{words}"
        )
        .expect("writing to a string succeeds");
    }

    fn ty(&self, schema: &Value, list: &ListFact) -> String {
        if let Some(r) = reference(schema) {
            return format!("R{}", self.numbers[r]);
        }
        match (schema["type"].as_str(), schema["format"].as_str()) {
            (Some("string"), Some("byte")) if list.list_type == "atomic" => "ya".into(),
            (Some("string"), Some("byte")) => "y".into(),
            (Some("string"), _) => "s".into(),
            (Some("boolean"), _) => "b".into(),
            (Some("integer"), Some("int64")) => "l".into(),
            (Some("integer"), _) => "i".into(),
            (Some("number"), _) => "d".into(),
            (Some("array"), _) => {
                let ty = self.ty(&schema["items"], &ListFact::default());
                format!("[{}={}]{ty}", list.list_type, list.map_keys)
            }
            (Some("object"), _) if schema["additionalProperties"].is_object() => {
                format!(
                    "{{}}{}",
                    self.ty(&schema["additionalProperties"], &ListFact::default())
                )
            }
            (Some("object"), _) if schema.get("properties").is_some() => "o".into(),
            _ => "?".into(),
        }
    }

    fn shape(&self, schema: &Value) -> Shape {
        if let Some(r) = reference(schema) {
            if r.ends_with(".MicroTime") || r.ends_with("v1.Time") {
                return Shape::Time;
            }
            if r.ends_with(".Quantity") {
                return Shape::Quantity;
            }
            let structured = self.all[r].get("properties").is_some();
            return if structured {
                Shape::Struct
            } else {
                Shape::Opaque
            };
        }
        match (schema["type"].as_str(), schema["format"].as_str()) {
            (Some("string"), Some("byte")) | (Some("array" | "object"), _) => Shape::Collection,
            (Some("string"), _) => Shape::Text,
            (Some("integer" | "number"), _) => Shape::Number,
            (Some("boolean"), _) => Shape::Boolean,
            _ => Shape::Opaque,
        }
    }

    /// Places the description among the words, each text once.
    fn describe(&mut self, schema: &Value) -> String {
        let Some(text) = schema["description"].as_str().filter(|t| !t.is_empty()) else {
            return String::new();
        };
        let at = match self.seen.get(text) {
            Some(at) => *at,
            None => {
                let at = self.words.len();
                self.words.push_str(text);
                self.seen.insert(text.to_owned(), at);
                at
            }
        };
        format!("{at}:{}", text.len())
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Shape {
    Struct,
    Time,
    Quantity,
    Opaque,
    Collection,
    Text,
    Number,
    Boolean,
}

fn reference(schema: &Value) -> Option<&str> {
    schema["$ref"]
        .as_str()
        .map(|r| r.rsplit('/').next().unwrap_or(r))
}

fn map_type(list: &ListFact) -> &str {
    list.list_type.strip_prefix("map=").unwrap_or("")
}

/// Definitions whose JSON is not what their Go fields say.
fn special(name: &str) -> Option<&'static str> {
    Some(match name.strip_prefix("io.k8s.")? {
        "apimachinery.pkg.api.resource.Quantity" => "Quantity",
        "apimachinery.pkg.util.intstr.IntOrString" => "IntOrString",
        "apimachinery.pkg.apis.meta.v1.Time" => "Time",
        "apimachinery.pkg.apis.meta.v1.MicroTime" => "MicroTime",
        "apimachinery.pkg.apis.meta.v1.FieldsV1" | "apimachinery.pkg.apis.meta.v1.Patch" => {
            "RawObject"
        }
        "apimachinery.pkg.runtime.RawExtension" => "RawObject",
        "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON" => "Json",
        "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray"
        | "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool"
        | "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray" => {
            "PropsOr"
        }
        _ => return None,
    })
}

/// Upstream's generator gives every struct field and every scalar without omitempty its zero as default.
fn predicted_default(shape: Shape, property: &str, required: bool) -> &'static str {
    match shape {
        Shape::Struct if required || matches!(property, "metadata" | "spec" | "status") => "{}",
        Shape::Text if required => "\"\"",
        Shape::Number if required => "0",
        Shape::Boolean if required => "false",
        _ => "",
    }
}

/// How Go's encoder treats the field when it is empty: `a` writes it always (as `empty`), `v` leaves out the zero
/// value, `p` (a pointer) leaves out only null.
fn omission(
    shape: Shape,
    required: bool,
    default: &str,
    go: &GoFact,
    definition: &str,
    property: &str,
) -> (&'static str, &'static str) {
    let empty = match shape {
        Shape::Struct if default == "{}" => "{}",
        Shape::Text => "\"\"",
        Shape::Number => "0",
        Shape::Boolean => "false",
        Shape::Quantity => "\"0\"",
        Shape::Opaque if property == "targetPort" || property == "port" => "0",
        _ => "null",
    };
    match go.go.as_str() {
        "pointer" => return ("p", ""),
        "value" => return ("v", ""),
        "always" if default.is_empty() && shape == Shape::Text => return ("a", "null"),
        "always" => return ("a", empty),
        "" => {}
        other => panic!("go-fields.tsv: {definition} {property}: no such kind of field: {other}"),
    }
    match shape {
        Shape::Struct if default == "{}" => ("a", empty),
        Shape::Struct if required => ("a", "null"),
        Shape::Struct => ("p", ""),
        Shape::Time => ("a", "null"),
        Shape::Quantity | Shape::Opaque | Shape::Collection if required => ("a", empty),
        Shape::Quantity | Shape::Opaque => ("p", ""),
        Shape::Collection => ("v", ""),
        Shape::Text | Shape::Number | Shape::Boolean if required && !default.is_empty() => {
            ("a", empty)
        }
        Shape::Text | Shape::Boolean => ("v", ""),
        Shape::Number if required => ("v", ""),
        Shape::Number => ("p", ""),
    }
}
