//! The schemas of the built-in kinds: a table made at build time, of which a definition is parsed when it is first used.

use std::borrow::Cow;
use std::fmt;
use std::sync::{LazyLock, OnceLock};

use serde_json::Value;

use crate::node::{ListType, MapType, Node, Omit, PatchStrategy, Property, Schema, Text, Type};

static INDEX: &str = include_str!(concat!(env!("OUT_DIR"), "/index.tsv"));
static SCHEMAS: &str = include_str!(concat!(env!("OUT_DIR"), "/schemas.tsv"));
static WORDS: &str = include_str!(concat!(env!("OUT_DIR"), "/words.txt"));

static BUILTIN: LazyLock<Schemas> = LazyLock::new(|| Schemas {
    definitions: INDEX
        .lines()
        .map(|line| {
            let mut f = line.split('\t');
            let (name, from, to) = (next(&mut f), number(next(&mut f)), number(next(&mut f)));
            Definition {
                name,
                text: &SCHEMAS[from..to],
                schema: OnceLock::new(),
            }
        })
        .collect(),
});

/// A named schema.
pub struct Definition {
    /// Its name upstream, as in `io.k8s.api.core.v1.Pod`.
    pub name: &'static str,
    text: &'static str,
    schema: OnceLock<Schema>,
}

impl Definition {
    /// The schema; parsed by the first caller.
    pub fn schema(&self) -> &Schema {
        self.schema.get_or_init(|| parse(self.name, self.text))
    }
}

impl fmt::Debug for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Definitions refer to one another in circles.
        f.debug_tuple("Definition").field(&self.name).finish()
    }
}

/// The schemas of all built-in kinds.
pub struct Schemas {
    definitions: Vec<Definition>,
}

impl Schemas {
    /// The schemas that are compiled in. The first call reads the index; each definition is parsed when it is used.
    pub fn builtin() -> &'static Schemas {
        &BUILTIN
    }

    /// Every definition, sorted by name.
    pub fn definitions(&self) -> &[Definition] {
        &self.definitions
    }

    /// The definition of this upstream name.
    pub fn definition(&'static self, name: &str) -> Option<&'static Definition> {
        self.definitions
            .binary_search_by(|d| d.name.cmp(name))
            .ok()
            .map(|i| &self.definitions[i])
    }

    /// The schema of a kind.
    pub fn get(&'static self, group: &str, version: &str, kind: &str) -> Option<&'static Schema> {
        self.definition(&definition_name(group, version, kind))
            .map(Definition::schema)
    }
}

/// Upstream's name for the definition of a kind.
pub fn definition_name(group: &str, version: &str, kind: &str) -> String {
    let (prefix, short) = match group {
        "" => ("io.k8s.api", "core"),
        "apiextensions.k8s.io" => ("io.k8s.apiextensions-apiserver.pkg.apis", "apiextensions"),
        "apiregistration.k8s.io" => ("io.k8s.kube-aggregator.pkg.apis", "apiregistration"),
        "internal.apiserver.k8s.io" => ("io.k8s.api", "apiserverinternal"),
        "meta.k8s.io" => ("io.k8s.apimachinery.pkg.apis", "meta"),
        g => ("io.k8s.api", g.split('.').next().unwrap_or(g)),
    };
    format!("{prefix}.{short}.{version}.{kind}")
}

fn next(fields: &mut std::str::Split<'static, char>) -> &'static str {
    fields
        .next()
        .expect("the table is made by the build script, with every column")
}

fn number(s: &str) -> usize {
    s.parse()
        .expect("the table is made by the build script, with numbers where they belong")
}

fn words(place: &'static str) -> Text {
    match place.split_once(':') {
        Some((at, len)) => Cow::Borrowed(&WORDS[number(at)..number(at) + number(len)]),
        None => Cow::Borrowed(""),
    }
}

fn json(s: &str) -> Option<Value> {
    if s.is_empty() {
        return None;
    }
    Some(serde_json::from_str(s).expect("the table is made by the build script, with valid JSON"))
}

fn parse(name: &'static str, text: &'static str) -> Schema {
    let mut lines = text.lines();
    let mut f = lines
        .next()
        .expect("a definition has a first line")
        .split('\t');
    let mut schema = ty(next(&mut f));
    schema.map_type = map_type(next(&mut f));
    schema.union = Cow::Borrowed(next(&mut f));
    schema.description = words(next(&mut f));
    schema.name = Cow::Borrowed(name);
    if schema.ty == Type::PropsOr {
        let props = name.split("JSONSchemaPropsOr").next().unwrap_or(name);
        schema.additional = BUILTIN
            .definition(&format!("{props}JSONSchemaProps"))
            .map(Node::Named);
    }
    schema.with_properties(lines.map(property).collect())
}

fn property(line: &'static str) -> Property {
    let mut f = line.split('\t');
    let name = Cow::Borrowed(next(&mut f));
    let node = node(next(&mut f));
    let flags = next(&mut f);
    let omit = match flags.as_bytes().first() {
        Some(b'a') => Omit::Never,
        Some(b'v') => Omit::Zero,
        _ => Omit::Null,
    };
    let required = flags.split_once('r').and_then(|(_, n)| n.parse().ok());
    let (default, empty) = (json(next(&mut f)), json(next(&mut f)));
    let values = next(&mut f);
    // One of the empty value and others is a value, too: `HostPathType` has it.
    let values = if values.is_empty() {
        Vec::new()
    } else {
        values.split('|').map(Cow::Borrowed).collect()
    };
    let map_type = map_type(next(&mut f));
    let strategy = next(&mut f);
    let has = |s: &str| strategy.split(',').any(|x| x == s);
    let patch_strategy = PatchStrategy {
        merge: has("merge"),
        retain_keys: has("retainKeys"),
        replace: has("replace"),
    };
    let patch_merge_key = Cow::Borrowed(next(&mut f));
    let description = words(next(&mut f));
    Property {
        name,
        node,
        required,
        omit,
        empty,
        default,
        values,
        map_type,
        patch_strategy,
        patch_merge_key,
        description,
    }
}

fn map_type(s: &str) -> MapType {
    match s {
        "atomic" => MapType::Atomic,
        "granular" => MapType::Granular,
        _ => MapType::Unset,
    }
}

fn node(s: &'static str) -> Node {
    match s.strip_prefix('R') {
        Some(n) if n.bytes().all(|b| b.is_ascii_digit()) => {
            Node::Named(&BUILTIN.definitions[number(n)])
        }
        _ => Node::from(ty(s)),
    }
}

fn ty(s: &'static str) -> Schema {
    if let Some(rest) = s.strip_prefix("{}") {
        return Schema {
            ty: Type::Map,
            additional: Some(node(rest)),
            ..Schema::default()
        };
    }
    if let Some(rest) = s.strip_prefix('[') {
        let (list, item) = rest
            .split_once(']')
            .expect("a list type ends with a bracket");
        let (kind, keys) = list
            .split_once('=')
            .expect("a list type has an equals sign");
        let list_type = match kind {
            "atomic" => ListType::Atomic,
            "set" => ListType::Set,
            "map" => ListType::Map,
            _ => ListType::Unset,
        };
        let list_map_keys = keys
            .split(',')
            .filter(|k| !k.is_empty())
            .map(Cow::Borrowed)
            .collect();
        return Schema {
            ty: Type::Array,
            items: Some(node(item)),
            list_type,
            list_map_keys,
            ..Schema::default()
        };
    }
    let list_type = if s == "ya" {
        ListType::Atomic
    } else {
        ListType::Unset
    };
    let ty = match s {
        "o" => Type::Struct,
        "s" => Type::String,
        "y" | "ya" => Type::Bytes,
        "i" => Type::Int32,
        "l" => Type::Int64,
        "d" => Type::Number,
        "b" => Type::Boolean,
        "?" => Type::Any,
        "Time" => Type::Time,
        "MicroTime" => Type::MicroTime,
        "Quantity" => Type::Quantity,
        "IntOrString" => Type::IntOrString,
        "RawObject" => Type::RawObject,
        "Json" => Type::Json,
        "PropsOr" => Type::PropsOr,
        other => unreachable!("the build script writes no type {other}"),
    };
    Schema {
        ty,
        list_type,
        ..Schema::default()
    }
}

#[cfg(test)]
mod tests;
