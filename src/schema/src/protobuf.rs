//! Objects as protobuf (`application/vnd.kubernetes.protobuf`), which clients written in Go like to speak.
//!
//! A body is `k8s\0` and a `runtime.Unknown` with the kind and the message. [`encode`] and [`decode`] go by a table of the
//! field numbers of every built-in kind; the objects on the other side are the same values that JSON has. What decoding
//! yields has the zero values that Go's encoder writes, so it has to be checked like any body that came in.
//!
//! Nothing that a client sends makes it panic, and what it may ask for is limited. Custom resources and tables have no
//! protobuf.

mod read;
mod table;
mod wire;
mod write;

use serde_json::{Map, Value};

use table::{Kind, Message};
use wire::{Reader, put_bytes};

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// What every body starts with.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// Longest body that is decoded, in bytes; what the API takes is less.
pub const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Deepest nesting of messages.
pub const DEPTH_MAX: usize = 100;

/// Most values that one body may have, so that a few bytes cannot become much memory.
pub const VALUES_MAX: usize = 2_000_000;

/// Why something is not written or read as protobuf.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// The kind has no protobuf.
    #[error("object {kind} of {api_version} does not implement the protobuf marshalling interface")]
    NoSuchMessage {
        /// Group and version.
        api_version: String,
        /// Kind.
        kind: String,
    },
    /// A member of the object is not what the message wants.
    #[error("{field}: {wanted} expected")]
    Unfit {
        /// The member.
        field: String,
        /// What its message has there.
        wanted: &'static str,
    },
    /// The body does not start with [`MAGIC`].
    #[error("provided data does not appear to be a protobuf message, expected prefix {MAGIC:?}")]
    NoMagic,
    /// The bytes are no message, or not this one.
    #[error("proto: {0}")]
    Malformed(&'static str),
    /// A limit of this module is exceeded.
    #[error("proto: {0} is over the limit")]
    TooMuch(&'static str),
    /// The message is in a form that is not read.
    #[error("unexpected content type {0} of the embedded object")]
    ContentType(String),
}

/// An object that came as protobuf.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// Group and version, as in `apps/v1`.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// The object, with both of them in it.
    pub object: Value,
}

/// Whether a body says of itself that it is protobuf.
pub fn is_protobuf(body: &[u8]) -> bool {
    body.starts_with(MAGIC)
}

/// Encodes an object of this version and kind, envelope and all.
pub fn encode(api_version: &str, kind: &str, object: &Value) -> Result<Vec<u8>, ProtobufError> {
    let message = message(api_version, kind)?;
    let mut raw = Vec::with_capacity(1024);
    let members = object.as_object().ok_or(ProtobufError::Unfit {
        field: kind.to_owned(),
        wanted: "an object",
    })?;
    write::message(message, members, &mut raw, 0)?;

    let mut type_meta = Vec::new();
    put_bytes(&mut type_meta, 1, api_version.as_bytes());
    put_bytes(&mut type_meta, 2, kind.as_bytes());
    let mut body = Vec::with_capacity(raw.len() + type_meta.len() + 24);
    body.extend_from_slice(MAGIC);
    put_bytes(&mut body, 1, &type_meta);
    put_bytes(&mut body, 2, &raw);
    put_bytes(&mut body, 3, b"");
    put_bytes(&mut body, 4, b"");
    Ok(body)
}

/// Decodes a body.
pub fn decode(body: &[u8]) -> Result<Decoded, ProtobufError> {
    let mut budget = read::Budget::new();
    decode_within(body, &mut budget, 0)
}

fn decode_within(
    body: &[u8],
    budget: &mut read::Budget,
    depth: usize,
) -> Result<Decoded, ProtobufError> {
    if body.len() > BODY_BYTES_MAX {
        return Err(ProtobufError::TooMuch("the length of a body"));
    }
    let envelope = body.strip_prefix(MAGIC).ok_or(ProtobufError::NoMagic)?;
    let (mut api_version, mut kind, mut raw, mut content_type) =
        (String::new(), String::new(), &[][..], String::new());
    let mut reader = Reader::new(envelope);
    while let Some(field) = reader.field()? {
        match field.number {
            1 => {
                let mut reader = Reader::new(field.bytes()?);
                while let Some(field) = reader.field()? {
                    match field.number {
                        1 => api_version = field.string()?,
                        2 => kind = field.string()?,
                        _ => {}
                    }
                }
            }
            2 => raw = field.bytes()?,
            4 => content_type = field.string()?,
            _ => {}
        }
    }
    if !content_type.is_empty() && content_type != MEDIA_TYPE {
        return Err(ProtobufError::ContentType(content_type));
    }
    let mut members = Map::new();
    read::message(
        message(&api_version, &kind)?,
        raw,
        &mut members,
        budget,
        depth,
    )?;
    members.insert("apiVersion".into(), api_version.clone().into());
    members.insert("kind".into(), kind.clone().into());
    Ok(Decoded {
        api_version,
        kind,
        object: Value::Object(members),
    })
}

/// The message of a kind. Options, lists of metadata and the like are the same in every group.
fn message(api_version: &str, kind: &str) -> Result<&'static Message, ProtobufError> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let name = crate::definition_name(group, version, kind);
    let shared = || table::message(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}"));
    table::message(&name)
        .or_else(shared)
        .ok_or_else(|| ProtobufError::NoSuchMessage {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
        })
}

/// One frame of a watch: the length in four bytes, then a `WatchEvent` whose object is a body that [`encode`] has made.
pub fn watch_frame(event_type: &str, object: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(object.len() + 8);
    put_bytes(&mut raw, 1, object);
    let mut event = Vec::with_capacity(raw.len() + 24);
    put_bytes(&mut event, 1, event_type.as_bytes());
    put_bytes(&mut event, 2, &raw);
    let mut frame = Vec::with_capacity(event.len() + 4);
    // An event is far shorter than 4 GiB, as the object in it is limited.
    frame.extend_from_slice(&u32::try_from(event.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(&event);
    frame
}

/// A frame of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchFrame<'a> {
    /// `ADDED` and so on.
    pub event_type: String,
    /// The body of the object.
    pub object: &'a [u8],
    /// How many bytes the frame has.
    pub length: usize,
}

/// Reads the first frame of a watch. None if it is not complete.
pub fn read_watch_frame(stream: &[u8]) -> Result<Option<WatchFrame<'_>>, ProtobufError> {
    let Some((length, rest)) = stream.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*length) as usize;
    if length > BODY_BYTES_MAX {
        return Err(ProtobufError::TooMuch("the length of a frame"));
    }
    let Some(event) = rest.get(..length) else {
        return Ok(None);
    };
    let (mut event_type, mut object) = (String::new(), &[][..]);
    let mut reader = Reader::new(event);
    while let Some(field) = reader.field()? {
        match field.number {
            1 => event_type = field.string()?,
            2 => {
                let mut reader = Reader::new(field.bytes()?);
                while let Some(field) = reader.field()? {
                    if field.number == 1 {
                        object = field.bytes()?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(Some(WatchFrame {
        event_type,
        object,
        length: length + 4,
    }))
}

#[cfg(test)]
mod tests;
