//! Checks a decoded body against the schema of its kind, and brings it into the form that upstream stores: what a round
//! trip through the Go struct of the kind makes of it.
//!
//! Unknown members go (and are reported if asked for), wrong types are refused with the words of Go's decoder, empty
//! values vanish or appear as Go's encoder has it, and times and quantities become canonical.

use std::fmt;

use serde_json::{Map, Value};

use crate::node::{Omit, Property, Schema, Type};
use crate::scalar;

/// Most unknown members that are reported; further ones are dropped silently.
pub const UNKNOWN_MAX: usize = 100;

/// What happens to members that the schema does not know (`fieldValidation`). They are dropped in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strictness {
    /// They are not even mentioned.
    Ignore,
    /// The client is warned of them.
    Warn,
    /// They are an error.
    #[default]
    Strict,
}

/// A value that fits its schema.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Paths of the members that were dropped, as in `spec.containers[0].foo`; empty under [`Strictness::Ignore`].
    pub unknown: Vec<String>,
}

/// The value does not fit its schema. `Display` is upstream's text, without the head that names the kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// A JSON value of the wrong type.
    Type {
        /// What was found: `string`, `number 1.5`, `object`, …
        found: String,
        /// The Go struct and the path of the field, as in `ContainerPort.spec.containers.ports.containerPort`.
        field: String,
        /// The Go type that it should be of, as in `int32`.
        wanted: String,
    },
    /// Text that cannot be read as what it should be: a time, a quantity, base64.
    Text(String),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Type {
                found,
                field,
                wanted,
            } if field.is_empty() => {
                write!(
                    f,
                    "json: cannot unmarshal {found} into Go value of type {wanted}"
                )
            }
            DecodeError::Type {
                found,
                field,
                wanted,
            } => {
                write!(
                    f,
                    "json: cannot unmarshal {found} into Go struct field {field} of type {wanted}"
                )
            }
            DecodeError::Text(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Checks `value` against `schema` and brings it into canonical form; null is an object without members. After an error
/// the value is in between.
///
/// # Errors
/// [`DecodeError`] for the first member, in the order of names, that does not fit.
pub fn check(
    schema: &Schema,
    value: &mut Value,
    strictness: Strictness,
) -> Result<Checked, DecodeError> {
    let mut walk = Walk {
        report: strictness != Strictness::Ignore,
        unknown: Vec::new(),
    };
    if value.is_null() {
        *value = zero(schema);
    }
    walk.value(schema, value, None)?;
    Ok(Checked {
        unknown: walk.unknown,
    })
}

/// The value that stands for an absent one of this schema: what Go's zero value is encoded as.
pub fn zero(schema: &Schema) -> Value {
    match schema.ty {
        Type::String => Value::String(String::new()),
        Type::Int32 | Type::Int64 | Type::Number | Type::IntOrString => 0.into(),
        Type::Boolean => false.into(),
        Type::Quantity => "0".into(),
        Type::Struct => {
            let mut map = Map::new();
            complete(schema, &mut map);
            Value::Object(map)
        }
        _ => Value::Null,
    }
}

/// Adds the members that are never left out.
fn complete(schema: &Schema, map: &mut Map<String, Value>) {
    for at in &schema.never_omitted {
        let p = &schema.properties[usize::from(*at)];
        if !map.contains_key(p.name.as_ref()) {
            map.insert(p.name.clone().into_owned(), empty(p));
        }
    }
}

fn empty(p: &Property) -> Value {
    match &p.empty {
        Some(Value::Object(_)) => zero(&p.node),
        Some(v) => v.clone(),
        None => Value::Null,
    }
}

/// The way from the root to a value; it lies on the stack and is only spelled out where something is wrong.
#[derive(Clone, Copy)]
struct Frame<'a> {
    parent: Option<&'a Frame<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    /// A field, of the struct with this name.
    Field(&'a str, &'a str),
    Key(&'a str),
    Index(usize),
}

fn path(frame: Option<&Frame<'_>>) -> String {
    let Some(frame) = frame else {
        return String::new();
    };
    let mut s = path(frame.parent);
    match frame.step {
        Step::Field(name, _) | Step::Key(name) => {
            if !s.is_empty() {
                s.push('.');
            }
            s.push_str(name);
        }
        Step::Index(i) => s.push_str(&format!("[{i}]")),
    }
    s
}

/// `Struct.path.of.fields`: the innermost struct, and the fields without indices and keys.
fn go_field(frame: Option<&Frame<'_>>) -> String {
    let mut fields = Vec::new();
    let mut owner = "";
    let mut at = frame;
    while let Some(f) = at {
        if let Step::Field(name, of) = f.step {
            if fields.is_empty() {
                owner = of;
            }
            fields.push(name);
        }
        at = f.parent;
    }
    if fields.is_empty() {
        return String::new();
    }
    fields.reverse();
    format!(
        "{}.{}",
        owner.rsplit('.').next().unwrap_or(owner),
        fields.join(".")
    )
}

fn found(v: &Value) -> &'static str {
    match v {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The name of the Go type, as the decoder prints it.
fn go_type(schema: &Schema) -> String {
    match schema.ty {
        Type::Struct | Type::Quantity | Type::PropsOr | Type::Json | Type::RawObject
            if !schema.name.is_empty() =>
        {
            let mut parts = schema.name.rsplitn(3, '.');
            let (kind, package) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
            format!("{package}.{kind}")
        }
        Type::Struct | Type::Any | Type::RawObject | Type::Json | Type::PropsOr => {
            "interface {}".into()
        }
        Type::Map => match schema.additional.as_deref() {
            Some(s) if s.ty == Type::Quantity => "v1.ResourceList".into(),
            Some(s) => format!("map[string]{}", go_type(s)),
            None => "map[string]interface {}".into(),
        },
        Type::Array => format!(
            "[]{}",
            schema
                .items
                .as_deref()
                .map_or_else(|| "interface {}".into(), go_type)
        ),
        Type::Bytes => "[]uint8".into(),
        Type::Int64 => "int64".into(),
        Type::Int32 | Type::IntOrString => "int32".into(),
        Type::Number => "float64".into(),
        Type::Boolean => "bool".into(),
        Type::String | Type::Time | Type::MicroTime | Type::Quantity => "string".into(),
    }
}

fn wrong(schema: &Schema, v: &Value, frame: Option<&Frame<'_>>) -> DecodeError {
    let found = match (schema.ty, v) {
        // A number that is no integer, or too big, is shown.
        (Type::Int32 | Type::Int64 | Type::IntOrString, Value::Number(n)) => format!("number {n}"),
        _ => found(v).to_owned(),
    };
    DecodeError::Type {
        found,
        field: go_field(frame),
        wanted: go_type(schema),
    }
}

struct Walk {
    report: bool,
    unknown: Vec<String>,
}

impl Walk {
    /// A value that is there and not null.
    fn value(
        &mut self,
        schema: &Schema,
        v: &mut Value,
        frame: Option<&Frame<'_>>,
    ) -> Result<(), DecodeError> {
        match (schema.ty, &mut *v) {
            (Type::Any | Type::Json, _)
            | (Type::String, Value::String(_))
            | (Type::Boolean, Value::Bool(_))
            | (Type::Number, Value::Number(_))
            | (Type::IntOrString, Value::String(_))
            | (Type::RawObject, Value::Object(_)) => Ok(()),
            (Type::Struct, Value::Object(map)) => self.object(schema, map, frame),
            (Type::Map, Value::Object(map)) => self.map(schema, map, frame),
            (Type::Array, Value::Array(items)) => self.array(schema, items, frame),
            (Type::Int64, Value::Number(n)) if n.is_i64() => Ok(()),
            (Type::Int32 | Type::IntOrString, Value::Number(n))
                if n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) =>
            {
                Ok(())
            }
            (Type::Bytes, Value::String(s)) => scalar::bytes(s).map_err(DecodeError::Text),
            (Type::Time, Value::String(s)) => scalar::time(s).map_err(DecodeError::Text),
            (Type::MicroTime, Value::String(s)) => scalar::micro_time(s).map_err(DecodeError::Text),
            (Type::Quantity, _) => scalar::quantity(v).map_err(DecodeError::Text),
            (Type::PropsOr, inner) => match (schema.additional.as_deref(), inner) {
                (Some(props), Value::Object(map)) => self.object(props, map, frame),
                (Some(props), Value::Array(items)) => {
                    for (i, item) in items.iter_mut().enumerate() {
                        if let Value::Object(map) = item {
                            self.object(
                                props,
                                map,
                                Some(&Frame {
                                    parent: frame,
                                    step: Step::Index(i),
                                }),
                            )?;
                        }
                    }
                    Ok(())
                }
                _ => Ok(()),
            },
            _ => Err(wrong(schema, v, frame)),
        }
    }

    fn array(
        &mut self,
        schema: &Schema,
        items: &mut [Value],
        frame: Option<&Frame<'_>>,
    ) -> Result<(), DecodeError> {
        let Some(item) = schema.items.as_deref() else {
            return Ok(());
        };
        for (i, v) in items.iter_mut().enumerate() {
            self.element(
                item,
                v,
                &Frame {
                    parent: frame,
                    step: Step::Index(i),
                },
            )?;
        }
        Ok(())
    }

    fn map(
        &mut self,
        schema: &Schema,
        map: &mut Map<String, Value>,
        frame: Option<&Frame<'_>>,
    ) -> Result<(), DecodeError> {
        let Some(member) = schema.additional.as_deref() else {
            return Ok(());
        };
        for (key, v) in map.iter_mut() {
            self.element(
                member,
                v,
                &Frame {
                    parent: frame,
                    step: Step::Key(key),
                },
            )?;
        }
        Ok(())
    }

    /// An item of a list or a member of a map: null becomes the zero value.
    fn element(
        &mut self,
        schema: &Schema,
        v: &mut Value,
        frame: &Frame<'_>,
    ) -> Result<(), DecodeError> {
        if v.is_null() {
            *v = match schema.ty {
                Type::Bytes => Value::String(String::new()),
                _ => zero(schema),
            };
            return Ok(());
        }
        self.value(schema, v, Some(frame))
    }

    fn object(
        &mut self,
        schema: &Schema,
        map: &mut Map<String, Value>,
        frame: Option<&Frame<'_>>,
    ) -> Result<(), DecodeError> {
        // Both the members and the properties are sorted, so one pass finds the property of every member.
        let mut properties = schema.properties.iter().peekable();
        let mut error = None;
        map.retain(|key, v| {
            if error.is_some() {
                return true;
            }
            while properties
                .next_if(|p| p.name.as_ref() < key.as_str())
                .is_some()
            {}
            let here = Frame {
                parent: frame,
                step: Step::Field(key, &schema.name),
            };
            let result = match (
                properties.next_if(|p| p.name.as_ref() == key.as_str()),
                schema.additional.as_deref(),
            ) {
                (Some(p), _) => self.property(p, v, &here),
                (None, Some(member)) => self.element(member, v, &here).map(|()| true),
                (None, None) if schema.preserve_unknown => Ok(true),
                (None, None) => {
                    if self.report && self.unknown.len() < UNKNOWN_MAX {
                        self.unknown.push(path(Some(&here)));
                    }
                    Ok(false)
                }
            };
            result.unwrap_or_else(|e| {
                error = Some(e);
                true
            })
        });
        match error {
            Some(e) => Err(e),
            None => {
                complete(schema, map);
                Ok(())
            }
        }
    }

    /// Whether the member stays.
    fn property(
        &mut self,
        p: &Property,
        v: &mut Value,
        frame: &Frame<'_>,
    ) -> Result<bool, DecodeError> {
        if v.is_null() {
            return Ok(p.node.nullable);
        }
        self.value(&p.node, v, Some(frame))?;
        if p.omit == Omit::Never
            && is_collection(p.node.ty)
            && is_zero(v)
            && through_protobuf(frame)
        {
            *v = Value::Null;
        }
        Ok(p.omit != Omit::Zero || !is_zero(v))
    }
}

fn is_collection(ty: Type) -> bool {
    matches!(ty, Type::Array | Type::Map)
}

/// Whether upstream stores the kind as protobuf, which cannot tell an empty list from none.
fn through_protobuf(frame: &Frame<'_>) -> bool {
    matches!(frame.step, Step::Field(_, owner) if owner.starts_with("io.k8s.api."))
}

/// Whether Go's `omitempty` leaves the value out.
pub(crate) fn is_zero(v: &Value) -> bool {
    match v {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
    }
}

#[cfg(test)]
mod tests;
