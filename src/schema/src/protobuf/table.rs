//! The messages, from the table that is made at build time.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::builtin::{Definition, Schemas};
use crate::node::{Omit, Property};

static TEXT: &str = include_str!(concat!(env!("OUT_DIR"), "/protobuf.tsv"));

static MESSAGES: LazyLock<Vec<Message>> = LazyLock::new(|| {
    let mut messages: Vec<Message> = TEXT.lines().map(parse).collect();
    mark_values(&mut messages);
    messages
});

/// A message: its definition's name and its fields in the order of the table.
#[derive(Debug)]
pub(super) struct Message {
    name: &'static str,
    pub(super) fields: Vec<Field>,
}

impl Message {
    /// The field of this number.
    pub(super) fn field(&self, number: u32) -> Option<&Field> {
        self.fields.iter().find(|f| f.number == number)
    }
}

/// A field of a message.
#[derive(Debug)]
pub(super) struct Field {
    /// Its name in JSON.
    pub(super) name: &'static str,
    pub(super) number: u32,
    pub(super) shape: Shape,
    pub(super) kind: Kind,
    /// Whether it is no pointer in Go, and hence written even when it is empty.
    pub(super) always: bool,
}

/// How often a field stands in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Single,
    List,
    /// With string keys.
    Map,
    /// Its members are those of the object around it.
    Inline,
}

/// What a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    String,
    Int,
    Bool,
    Bytes,
    Double,
    Quantity,
    Time,
    MicroTime,
    IntOrString,
    RawExtension,
    /// JSON as bytes.
    Json,
    PropsOrArray,
    PropsOrBool,
    PropsOrStrings,
    /// A list of strings as a message of its own.
    Strings,
    /// Another message, by its place in the table.
    Message(usize),
}

/// The message of this definition.
pub(super) fn message(name: &str) -> Option<&'static Message> {
    MESSAGES
        .binary_search_by(|m| m.name.cmp(name))
        .ok()
        .map(|i| &MESSAGES[i])
}

/// The message at this place.
pub(super) fn at(place: usize) -> &'static Message {
    &MESSAGES[place]
}

/// The message of a JSON schema, which the types that may be something else refer to.
pub(super) fn schema_props() -> &'static Message {
    const NAME: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
    message(NAME).expect("the table is made by the build script, with this message")
}

/// Finds out which fields are always written. The members of a message that stands inline are described where it stands.
fn mark_values(messages: &mut [Message]) {
    let mut described: HashMap<usize, &'static Definition> = HashMap::new();
    for (place, message) in messages.iter().enumerate() {
        described.extend(
            Schemas::builtin()
                .definition(message.name)
                .map(|d| (place, d)),
        );
    }
    for (place, message) in messages.iter().enumerate() {
        let inline = message.fields.iter().filter(|f| f.shape == Shape::Inline);
        for field in inline {
            if let (Kind::Message(inner), Some(outer)) =
                (field.kind, described.get(&place).copied())
            {
                described.entry(inner).or_insert(outer);
            }
        }
    }
    for (place, message) in messages.iter_mut().enumerate() {
        let schema = described.get(&place).map(|d| d.schema());
        for field in message
            .fields
            .iter_mut()
            .filter(|f| f.shape == Shape::Single && f.kind != Kind::Bytes)
        {
            let property = schema.and_then(|s| s.property(field.name));
            // What no definition describes are options and lists, whose plain fields are values.
            field.always = match property {
                Some(property) => is_value(property, field.kind),
                None => matches!(field.kind, Kind::String | Kind::Bool),
            };
        }
    }
}

fn is_value(property: &Property, kind: Kind) -> bool {
    match property.omit {
        // JSON leaves out the zero of this time as if it were a pointer, which it is not.
        Omit::Null => property.name == "creationTimestamp",
        Omit::Zero => true,
        // A pointer that JSON always has is null there; so is a time that is none.
        Omit::Never => {
            matches!(kind, Kind::Time | Kind::MicroTime)
                || property.empty.as_ref().is_some_and(|e| !e.is_null())
        }
    }
}

fn parse(line: &'static str) -> Message {
    let mut columns = line.split('\t');
    let name = columns.next().unwrap_or_default();
    Message {
        name,
        fields: columns.map(field).collect(),
    }
}

fn field(text: &'static str) -> Field {
    let mut parts = text.split(':');
    let mut part = || {
        parts
            .next()
            .expect("the table is made by the build script, with three parts a field")
    };
    let (name, number, ty) = (part(), part(), part());
    let (shape, ty) = match ty.split_at(1) {
        ("*", ty) => (Shape::List, ty),
        ("%", ty) => (Shape::Map, ty),
        ("+", ty) => (Shape::Inline, ty),
        _ => (Shape::Single, ty),
    };
    let integer = |s: &str| {
        s.parse()
            .expect("the table is made by the build script, with numbers where they belong")
    };
    let kind = match ty.split_at(1) {
        ("s", _) => Kind::String,
        ("i", _) => Kind::Int,
        ("b", _) => Kind::Bool,
        ("y", _) => Kind::Bytes,
        ("d", _) => Kind::Double,
        ("Q", _) => Kind::Quantity,
        ("T", _) => Kind::Time,
        ("U", _) => Kind::MicroTime,
        ("I", _) => Kind::IntOrString,
        ("R", _) => Kind::RawExtension,
        ("J", _) => Kind::Json,
        ("A", _) => Kind::PropsOrArray,
        ("B", _) => Kind::PropsOrBool,
        ("S", _) => Kind::PropsOrStrings,
        ("E", _) => Kind::Strings,
        ("M", place) => Kind::Message(integer(place) as usize),
        (other, _) => unreachable!("the build script writes no type {other}"),
    };
    Field {
        name,
        number: integer(number),
        shape,
        kind,
        always: shape == Shape::Inline,
    }
}
