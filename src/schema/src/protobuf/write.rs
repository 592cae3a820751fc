//! From values to messages.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::table::{Field, Message, Shape, at, schema_props};
use super::wire::{put_bytes, put_double, put_int};
use super::{DEPTH_MAX, Kind, ProtobufError};

/// Writes the fields of a message from the members of an object. Members that the message has not are left out.
pub(super) fn message(
    message: &Message,
    members: &Map<String, Value>,
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<(), ProtobufError> {
    if depth > DEPTH_MAX {
        return Err(ProtobufError::TooMuch("the depth of an object"));
    }
    for field in &message.fields {
        if field.shape == Shape::Inline {
            if let Kind::Message(place) = field.kind {
                let mut inner = Vec::new();
                self::message(at(place), members, &mut inner, depth + 1)?;
                put_bytes(out, field.number, &inner);
            }
            continue;
        }
        match members.get(field.name) {
            None | Some(Value::Null) if field.always => empty(field, out, depth)?,
            None | Some(Value::Null) => {}
            Some(value) => field_of(field, value, out, depth)?,
        }
    }
    Ok(())
}

/// Writes what Go has for a value that nobody set.
fn empty(field: &Field, out: &mut Vec<u8>, depth: usize) -> Result<(), ProtobufError> {
    let value = match field.kind {
        Kind::Int | Kind::IntOrString => Value::from(0),
        Kind::Bool => Value::Bool(false),
        Kind::Double => Value::from(0.0),
        Kind::String => Value::from(""),
        Kind::Quantity => Value::from("0"),
        Kind::Message(_) | Kind::Time | Kind::MicroTime => Value::Null,
        _ => {
            put_bytes(out, field.number, b"");
            return Ok(());
        }
    };
    one(field, field.number, &value, out, depth)
}

fn field_of(
    field: &Field,
    value: &Value,
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<(), ProtobufError> {
    match field.shape {
        Shape::Single | Shape::Inline => one(field, field.number, value, out, depth),
        Shape::List => {
            let items = value.as_array().ok_or_else(|| unfit(field, "a list"))?;
            items
                .iter()
                .try_for_each(|item| one(field, field.number, item, out, depth))
        }
        Shape::Map => {
            let entries = value.as_object().ok_or_else(|| unfit(field, "an object"))?;
            for (key, value) in entries {
                let mut entry = Vec::new();
                put_bytes(&mut entry, 1, key.as_bytes());
                one(field, 2, value, &mut entry, depth)?;
                put_bytes(out, field.number, &entry);
            }
            Ok(())
        }
    }
}

fn unfit(field: &Field, wanted: &'static str) -> ProtobufError {
    ProtobufError::Unfit {
        field: field.name.to_owned(),
        wanted,
    }
}

/// Writes one value: that of a field, of an item or of a map's entry.
fn one(
    field: &Field,
    number: u32,
    value: &Value,
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<(), ProtobufError> {
    let string = || value.as_str().ok_or_else(|| unfit(field, "a string"));
    let mut inner = Vec::new();
    match field.kind {
        Kind::String => {
            put_bytes(out, number, string()?.as_bytes());
            return Ok(());
        }
        Kind::Int => {
            put_int(
                out,
                number,
                integer(value).ok_or_else(|| unfit(field, "an integer"))?,
            );
            return Ok(());
        }
        Kind::Bool => {
            put_int(
                out,
                number,
                value
                    .as_bool()
                    .ok_or_else(|| unfit(field, "a boolean"))?
                    .into(),
            );
            return Ok(());
        }
        Kind::Double => {
            put_double(
                out,
                number,
                value.as_f64().ok_or_else(|| unfit(field, "a number"))?,
            );
            return Ok(());
        }
        Kind::Bytes => {
            inner = STANDARD
                .decode(string()?)
                .map_err(|_| unfit(field, "base64"))?;
        }
        Kind::Quantity => match value {
            Value::Number(n) => put_bytes(&mut inner, 1, n.to_string().as_bytes()),
            _ => put_bytes(&mut inner, 1, string()?.as_bytes()),
        },
        // No time is an empty message.
        Kind::Time | Kind::MicroTime if value.is_null() => {}
        Kind::Time | Kind::MicroTime => {
            let time: Timestamp = string()?.parse().map_err(|_| unfit(field, "a time"))?;
            // Seconds go down to the second before, so that the rest counts up.
            let nanos = time.as_nanosecond().rem_euclid(1_000_000_000);
            let seconds = time.as_nanosecond().div_euclid(1_000_000_000);
            put_int(&mut inner, 1, seconds as i64);
            let nanos = if field.kind == Kind::Time {
                0
            } else {
                nanos as i64 / 1000 * 1000
            };
            put_int(&mut inner, 2, nanos);
        }
        Kind::IntOrString => match value {
            Value::String(s) => {
                put_int(&mut inner, 1, 1);
                put_int(&mut inner, 2, 0);
                put_bytes(&mut inner, 3, s.as_bytes());
            }
            _ => {
                put_int(&mut inner, 1, 0);
                put_int(
                    &mut inner,
                    2,
                    integer(value).ok_or_else(|| unfit(field, "an integer or a string"))?,
                );
                put_bytes(&mut inner, 3, b"");
            }
        },
        Kind::RawExtension | Kind::Json => put_bytes(&mut inner, 1, value.to_string().as_bytes()),
        Kind::PropsOrArray => match value {
            Value::Array(items) => items
                .iter()
                .try_for_each(|i| props(field, 2, i, &mut inner, depth))?,
            _ => props(field, 1, value, &mut inner, depth)?,
        },
        Kind::PropsOrBool => match value {
            Value::Bool(allows) => put_int(&mut inner, 1, (*allows).into()),
            _ => {
                put_int(&mut inner, 1, 1);
                props(field, 2, value, &mut inner, depth)?;
            }
        },
        Kind::PropsOrStrings => match value {
            Value::Array(items) => strings(field, 2, items, &mut inner)?,
            _ => props(field, 1, value, &mut inner, depth)?,
        },
        Kind::Strings => strings(
            field,
            1,
            value.as_array().ok_or_else(|| unfit(field, "a list"))?,
            &mut inner,
        )?,
        Kind::Message(place) => {
            let none = Map::new();
            let members = if value.is_null() {
                Some(&none)
            } else {
                value.as_object()
            };
            message(
                at(place),
                members.ok_or_else(|| unfit(field, "an object"))?,
                &mut inner,
                depth + 1,
            )?;
        }
    }
    put_bytes(out, number, &inner);
    Ok(())
}

fn props(
    field: &Field,
    number: u32,
    value: &Value,
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<(), ProtobufError> {
    let members = value.as_object().ok_or_else(|| unfit(field, "a schema"))?;
    let mut inner = Vec::new();
    message(schema_props(), members, &mut inner, depth + 1)?;
    put_bytes(out, number, &inner);
    Ok(())
}

fn strings(
    field: &Field,
    number: u32,
    items: &[Value],
    out: &mut Vec<u8>,
) -> Result<(), ProtobufError> {
    for item in items {
        put_bytes(
            out,
            number,
            item.as_str()
                .ok_or_else(|| unfit(field, "a string"))?
                .as_bytes(),
        );
    }
    Ok(())
}

/// An integer, also where it is written with a fraction of zero.
fn integer(value: &Value) -> Option<i64> {
    let whole = |f: f64| (f.fract() == 0.0 && f.abs() < 9e15).then_some(f as i64);
    value.as_i64().or_else(|| value.as_f64().and_then(whole))
}
