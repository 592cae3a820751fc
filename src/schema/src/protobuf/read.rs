//! From messages to values.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Number, Value};

use super::table::{Field, Message, Shape, at, schema_props};
use super::wire::{self, Reader};
use super::{DEPTH_MAX, Kind, ProtobufError, VALUES_MAX, decode_within, is_protobuf};

/// How many more values a body may have.
#[derive(Debug)]
pub(super) struct Budget {
    values: usize,
}

impl Budget {
    pub(super) fn new() -> Self {
        Budget { values: VALUES_MAX }
    }

    fn spend(&mut self) -> Result<(), ProtobufError> {
        self.values = self
            .values
            .checked_sub(1)
            .ok_or(ProtobufError::TooMuch("the number of values"))?;
        Ok(())
    }
}

/// Reads a message into the members of an object. Fields that the table does not have are left out.
pub(super) fn message(
    message: &Message,
    bytes: &[u8],
    members: &mut Map<String, Value>,
    budget: &mut Budget,
    depth: usize,
) -> Result<(), ProtobufError> {
    if depth > DEPTH_MAX {
        return Err(ProtobufError::TooMuch("the depth of a message"));
    }
    let mut reader = Reader::new(bytes);
    while let Some(raw) = reader.field()? {
        budget.spend()?;
        let Some(field) = message.field(raw.number) else {
            continue;
        };
        match (field.shape, field.kind) {
            (Shape::Inline, Kind::Message(place)) => {
                self::message(at(place), raw.bytes()?, members, budget, depth + 1)?;
            }
            (Shape::List, Kind::Int) => {
                let list = list_at(members, field.name);
                for int in raw.packed_ints()? {
                    budget.spend()?;
                    list.push(int.into());
                }
            }
            (Shape::List, _) => {
                let value = one(field, raw, None, budget, depth)?;
                list_at(members, field.name).push(value);
            }
            (Shape::Map, _) => {
                let (key, value) = entry(field, raw.bytes()?, budget, depth)?;
                if let Value::Object(map) = members
                    .entry(field.name)
                    .or_insert_with(|| Value::Object(Map::new()))
                {
                    map.insert(key, value);
                }
            }
            _ => {
                // A message that comes in two parts is merged, as the wire format wants it.
                let before = members.remove(field.name);
                let value = one(field, raw, before, budget, depth)?;
                if !value.is_null() {
                    members.insert(field.name.to_owned(), value);
                }
            }
        }
    }
    Ok(())
}

fn list_at<'a>(members: &'a mut Map<String, Value>, name: &str) -> &'a mut Vec<Value> {
    let list = members
        .entry(name)
        .or_insert_with(|| Value::Array(Vec::new()));
    if !list.is_array() {
        *list = Value::Array(Vec::new());
    }
    match list {
        Value::Array(items) => items,
        _ => unreachable!("it has just been made a list"),
    }
}

fn entry(
    field: &Field,
    bytes: &[u8],
    budget: &mut Budget,
    depth: usize,
) -> Result<(String, Value), ProtobufError> {
    let mut key = String::new();
    let mut value = None;
    let mut reader = Reader::new(bytes);
    while let Some(raw) = reader.field()? {
        match raw.number {
            1 => key = raw.string()?,
            2 => value = Some(one(field, raw, None, budget, depth)?),
            _ => {}
        }
    }
    // A value that is not written is the empty one of its type.
    let empty = || match field.kind {
        Kind::Message(_) => Value::Object(Map::new()),
        Kind::Strings => Value::Array(Vec::new()),
        Kind::Int => 0.into(),
        Kind::Quantity => "0".into(),
        Kind::String | Kind::Bytes => "".into(),
        _ => Value::Null,
    };
    Ok((key, value.unwrap_or_else(empty)))
}

/// Reads one value: that of a field, of an item or of a map's entry.
fn one(
    field: &Field,
    raw: wire::Field<'_>,
    before: Option<Value>,
    budget: &mut Budget,
    depth: usize,
) -> Result<Value, ProtobufError> {
    Ok(match field.kind {
        Kind::String => raw.string()?.into(),
        Kind::Int => raw.int()?.into(),
        Kind::Bool => (raw.int()? != 0).into(),
        Kind::Double => Number::from_f64(raw.double()?).map_or(Value::Null, Value::Number),
        Kind::Bytes => STANDARD.encode(raw.bytes()?).into(),
        Kind::Quantity => {
            let text = last(raw, 1)?.map_or_else(|| Ok(String::new()), wire::Field::string)?;
            if text.is_empty() {
                "0".into()
            } else {
                text.into()
            }
        }
        Kind::Time | Kind::MicroTime => time(field.kind, raw)?,
        Kind::IntOrString => match last(raw, 1)?.map_or(Ok(0), wire::Field::int)? {
            0 => last(raw, 2)?.map_or(Ok(0), wire::Field::int)?.into(),
            _ => last(raw, 3)?
                .map_or_else(|| Ok(String::new()), wire::Field::string)?
                .into(),
        },
        Kind::RawExtension | Kind::Json => {
            match last(raw, 1)?.map_or(Ok(&[][..]), wire::Field::bytes)? {
                [] => Value::Null,
                body if is_protobuf(body) => decode_within(body, budget, depth + 1)?.object,
                body => serde_json::from_slice(body)
                    .map_err(|_| ProtobufError::Malformed("raw bytes are not JSON"))?,
            }
        }
        Kind::PropsOrArray => match last(raw, 1)? {
            Some(schema) => props(schema, budget, depth)?,
            None => Value::Array(each(raw, 2, |f| props(f, budget, depth))?),
        },
        Kind::PropsOrBool => match last(raw, 2)? {
            Some(schema) => props(schema, budget, depth)?,
            None => (last(raw, 1)?.map_or(Ok(0), wire::Field::int)? != 0).into(),
        },
        Kind::PropsOrStrings => match last(raw, 1)? {
            Some(schema) => props(schema, budget, depth)?,
            None => Value::Array(strings(raw, 2, budget)?),
        },
        Kind::Strings => Value::Array(strings(raw, 1, budget)?),
        Kind::Message(place) => {
            let mut members = match before {
                Some(Value::Object(members)) => members,
                _ => Map::new(),
            };
            message(at(place), raw.bytes()?, &mut members, budget, depth + 1)?;
            Value::Object(members)
        }
    })
}

/// The last field of this number in a message.
fn last(message: wire::Field<'_>, number: u32) -> Result<Option<wire::Field<'_>>, ProtobufError> {
    let mut reader = Reader::new(message.bytes()?);
    let mut found = None;
    while let Some(field) = reader.field()? {
        if field.number == number {
            found = Some(field);
        }
    }
    Ok(found)
}

fn each(
    message: wire::Field<'_>,
    number: u32,
    mut read: impl FnMut(wire::Field<'_>) -> Result<Value, ProtobufError>,
) -> Result<Vec<Value>, ProtobufError> {
    let mut reader = Reader::new(message.bytes()?);
    let mut items = Vec::new();
    while let Some(field) = reader.field()? {
        if field.number == number {
            items.push(read(field)?);
        }
    }
    Ok(items)
}

fn strings(
    message: wire::Field<'_>,
    number: u32,
    budget: &mut Budget,
) -> Result<Vec<Value>, ProtobufError> {
    each(message, number, |field| {
        budget.spend()?;
        Ok(field.string()?.into())
    })
}

fn props(
    field: wire::Field<'_>,
    budget: &mut Budget,
    depth: usize,
) -> Result<Value, ProtobufError> {
    budget.spend()?;
    let mut members = Map::new();
    message(
        schema_props(),
        field.bytes()?,
        &mut members,
        budget,
        depth + 1,
    )?;
    Ok(Value::Object(members))
}

/// A time in the words of JSON; an empty message is no time.
fn time(kind: Kind, raw: wire::Field<'_>) -> Result<Value, ProtobufError> {
    if raw.bytes()?.is_empty() {
        return Ok(Value::Null);
    }
    let seconds = last(raw, 1)?.map_or(Ok(0), wire::Field::int)?;
    let nanos = last(raw, 2)?.map_or(Ok(0), wire::Field::int)?;
    let bad = || ProtobufError::Malformed("a time is out of range");
    let nanos = i32::try_from(nanos)
        .ok()
        .filter(|n| (0..1_000_000_000).contains(n))
        .ok_or_else(bad)?;
    let time = Timestamp::new(seconds, nanos).map_err(|_| bad())?;
    Ok(match kind {
        Kind::MicroTime => time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string().into(),
        _ => time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into(),
    })
}
