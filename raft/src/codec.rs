//! The one place where values become bytes for the disk and the wire, and bytes become values.
//!
//! Every encoding starts with a version byte. bincode stays behind this module, and the golden
//! bytes in its tests hold the format: a change there is a new version.

use bincode::config::{Configuration, Limit};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// The version that is written.
pub(crate) const VERSION: u8 = 1;
/// The most bytes that one value may claim while it is decoded.
const DECODED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Why bytes could not be read.
#[derive(Debug, Error)]
pub(crate) enum CodecError {
    #[error("the value is empty")]
    Empty,
    #[error("the value is in version {found}, and this program reads version {VERSION}")]
    Version { found: u8 },
    #[error("the value is malformed: {0}")]
    Malformed(bincode::error::DecodeError),
    #[error("the value has {0} bytes too many")]
    Trailing(usize),
}

fn config()
-> Configuration<bincode::config::LittleEndian, bincode::config::Varint, Limit<DECODED_BYTES_MAX>> {
    bincode::config::standard().with_limit::<DECODED_BYTES_MAX>()
}

/// Appends the encoding of a value.
pub(crate) fn encode_into<T: Serialize>(buffer: &mut Vec<u8>, value: &T) {
    buffer.push(VERSION);
    bincode::serde::encode_into_std_write(value, buffer, config())
        .expect("plain data always encodes into memory");
}

/// The encoding of a value.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut buffer = Vec::new();
    encode_into(&mut buffer, value);
    buffer
}

/// The value that was encoded.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (version, body) = bytes.split_first().ok_or(CodecError::Empty)?;
    if *version != VERSION {
        return Err(CodecError::Version { found: *version });
    }
    let (value, used) =
        bincode::serde::decode_from_slice(body, config()).map_err(CodecError::Malformed)?;
    if used != body.len() {
        return Err(CodecError::Trailing(body.len() - used));
    }
    Ok(value)
}
