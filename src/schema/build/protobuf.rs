//! The table by which objects are written as protobuf: one line a message, with the number and type of each field.
//!
//! A line is the name of a definition and then `name:number:type` for each field. Types are a letter for a scalar or for a
//! message that JSON writes as something else, `M` and a line number for another message; before that `*` is a list, `%` a
//! map with string keys, and `+` a message whose members JSON has in the object itself.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use serde_json::Value;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// Messages that JSON does not write as objects, by the end of their names.
const SPECIAL: [(&str, char); 12] = [
    (".api.resource.Quantity", 'Q'),
    (".meta.v1.Time", 'T'),
    (".meta.v1.MicroTime", 'U'),
    (".intstr.IntOrString", 'I'),
    (".runtime.RawExtension", 'R'),
    (".meta.v1.FieldsV1", 'J'),
    (".apiextensions.v1.JSON", 'J'),
    (".apiextensions.v1.JSONSchemaPropsOrArray", 'A'),
    (".apiextensions.v1.JSONSchemaPropsOrBool", 'B'),
    (".apiextensions.v1.JSONSchemaPropsOrStringArray", 'S'),
    (".ExtraValue", 'E'),
    (".meta.v1.Verbs", 'E'),
];

struct Row {
    field: String,
    number: String,
    label: String,
    ty: String,
}

/// Writes the table for all messages that the definitions and the types around them reach.
pub(crate) fn table(definitions: &BTreeMap<String, Value>) -> String {
    let messages = messages();
    let mut wanted: Vec<String> = definitions.keys().map(|d| message_of(d)).collect();
    wanted.extend(
        messages
            .keys()
            .filter(|m| definition_of(m).starts_with(META))
            .cloned(),
    );
    let mut lines: BTreeMap<String, Option<String>> = BTreeMap::new();
    while let Some(message) = wanted.pop() {
        if lines.contains_key(&message) || special(&message).is_some() {
            continue;
        }
        lines.insert(message.clone(), None);
        let rows = messages
            .get(&message)
            .map(Vec::as_slice)
            .unwrap_or_default();
        wanted.extend(
            rows.iter()
                .filter_map(|r| refers_to(&message, &r.ty, &messages)),
        );
    }
    let places: HashMap<String, usize> = lines
        .keys()
        .enumerate()
        .map(|(i, m)| (m.clone(), i))
        .collect();
    let mut text = String::new();
    for message in lines.keys() {
        text += &definition_of(message);
        let properties = definitions
            .get(&definition_of(message))
            .and_then(|d| d["properties"].as_object());
        for row in messages.get(message).map(Vec::as_slice).unwrap_or_default() {
            let property =
                properties.and_then(|p| p.keys().find(|k| plain(k) == plain(&row.field)));
            let reference = refers_to(message, &row.ty, &messages);
            let shape = match (&reference, property) {
                (Some(_), None) if properties.is_some() => "+",
                _ if row.ty.starts_with("map<") => "%",
                _ if row.label == "repeated" => "*",
                _ => "",
            };
            let ty = match &reference {
                Some(m) => special(m).map_or_else(|| format!("M{}", places[m]), String::from),
                None => scalar(&row.ty).to_string(),
            };
            let name = property.unwrap_or(&row.field);
            let _ = write!(text, "\t{name}:{}:{shape}{ty}", row.number);
        }
        text.push('\n');
    }
    text
}

fn messages() -> HashMap<String, Vec<Row>> {
    let path = "facts/protobuf-fields.tsv";
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("cannot read {path}: {e}"));
    let mut messages: HashMap<String, Vec<Row>> = HashMap::new();
    let number = |r: &Row| -> u32 {
        r.number
            .parse()
            .unwrap_or_else(|_| panic!("{path}: no number: {}", r.number))
    };
    for line in text.lines().skip(1) {
        let columns: Vec<String> = line.split('\t').map(str::to_owned).collect();
        let [message, field, number, label, ty]: [String; 5] = columns
            .try_into()
            .unwrap_or_else(|_| panic!("{path}: a line has five columns: {line}"));
        messages.entry(message).or_default().push(Row {
            field,
            number,
            label,
            ty,
        });
    }
    // Go's encoder writes fields in the order of their numbers.
    messages
        .values_mut()
        .for_each(|rows| rows.sort_by_key(number));
    messages
}

fn message_of(definition: &str) -> String {
    definition
        .replacen("io.k8s.", "k8s.io.", 1)
        .replace('-', "_")
}

fn definition_of(message: &str) -> String {
    message
        .replacen("k8s.io.", "io.k8s.", 1)
        .replace("apiextensions_apiserver", "apiextensions-apiserver")
        .replace("kube_aggregator", "kube-aggregator")
}

/// A name without what JSON and protobuf write differently.
fn plain(name: &str) -> String {
    name.chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

fn special(message: &str) -> Option<char> {
    let found = SPECIAL.iter().find(|(end, _)| message.ends_with(end));
    found.map(|(_, letter)| *letter)
}

/// The type of a field, or of the values of a map.
fn bare(ty: &str) -> &str {
    let inner = ty
        .strip_prefix("map<string, ")
        .and_then(|t| t.strip_suffix('>'))
        .unwrap_or(ty);
    inner.trim_start_matches('.')
}

fn is_scalar(ty: &str) -> bool {
    matches!(
        bare(ty),
        "string" | "int32" | "int64" | "bool" | "bytes" | "double"
    )
}

fn scalar(ty: &str) -> char {
    match bare(ty) {
        "string" => 's',
        "int32" | "int64" => 'i',
        "bool" => 'b',
        "bytes" => 'y',
        "double" => 'd',
        other => panic!("protobuf-fields.tsv: no such type: {other}"),
    }
}

/// The message that a type names, in full or from its own package. A message without fields has no rows.
fn refers_to(from: &str, ty: &str, messages: &HashMap<String, Vec<Row>>) -> Option<String> {
    if is_scalar(ty) {
        return None;
    }
    let name = bare(ty);
    if messages.contains_key(name) || name.starts_with("k8s.io.") {
        return Some(name.to_owned());
    }
    let package = from.rsplit_once('.').map_or("", |(package, _)| package);
    Some(format!("{package}.{name}"))
}
