//! The wire format: tags, varints and lengths.

use super::ProtobufError;

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;
const FIXED32: u8 = 5;

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_tag(out: &mut Vec<u8>, number: u32, wire_type: u8) {
    put_varint(out, u64::from(number) << 3 | u64::from(wire_type));
}

/// A signed number, in two's complement as protobuf's `int32` and `int64` have it.
pub(super) fn put_int(out: &mut Vec<u8>, number: u32, value: i64) {
    put_tag(out, number, VARINT);
    put_varint(out, value.cast_unsigned());
}

pub(super) fn put_double(out: &mut Vec<u8>, number: u32, value: f64) {
    put_tag(out, number, FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_tag(out, number, BYTES);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// One field, as it is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    pub(super) number: u32,
    value: Raw<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Raw<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    pub(super) fn int(self) -> Result<i64, ProtobufError> {
        match self.value {
            Raw::Varint(v) => Ok(v.cast_signed()),
            _ => Err(ProtobufError::Malformed("wrong wireType for an integer")),
        }
    }

    pub(super) fn double(self) -> Result<f64, ProtobufError> {
        match self.value {
            Raw::Fixed64(v) => Ok(f64::from_bits(v)),
            _ => Err(ProtobufError::Malformed("wrong wireType for a double")),
        }
    }

    pub(super) fn bytes(self) -> Result<&'a [u8], ProtobufError> {
        match self.value {
            Raw::Bytes(v) => Ok(v),
            _ => Err(ProtobufError::Malformed("wrong wireType for bytes")),
        }
    }

    pub(super) fn string(self) -> Result<String, ProtobufError> {
        let text = std::str::from_utf8(self.bytes()?);
        text.map(str::to_owned)
            .map_err(|_| ProtobufError::Malformed("a string is not UTF-8"))
    }

    /// The numbers of a list that is written as one field, or the one number of a field.
    pub(super) fn packed_ints(self) -> Result<Vec<i64>, ProtobufError> {
        let Raw::Bytes(bytes) = self.value else {
            return Ok(vec![self.int()?]);
        };
        let mut reader = Reader::new(bytes);
        let mut ints = Vec::new();
        while !reader.rest.is_empty() {
            ints.push(reader.varint()?.cast_signed());
        }
        Ok(ints)
    }
}

/// Reads the fields of a message, one after the other.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Reader { rest: message }
    }

    /// The next field, whether it is known or not.
    pub(super) fn field(&mut self) -> Result<Option<Field<'a>>, ProtobufError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok().filter(|n| *n > 0);
        let number = number.ok_or(ProtobufError::Malformed("illegal tag"))?;
        let value = match (tag & 7) as u8 {
            VARINT => Raw::Varint(self.varint()?),
            FIXED64 => {
                let (bytes, rest) = self.rest.split_first_chunk::<8>().ok_or(CUT_OFF)?;
                self.rest = rest;
                Raw::Fixed64(u64::from_le_bytes(*bytes))
            }
            BYTES => {
                let length = usize::try_from(self.varint()?).map_err(|_| CUT_OFF)?;
                let (bytes, rest) = self.rest.split_at_checked(length).ok_or(CUT_OFF)?;
                self.rest = rest;
                Raw::Bytes(bytes)
            }
            FIXED32 => {
                self.rest = self.rest.get(4..).ok_or(CUT_OFF)?;
                Raw::Fixed32
            }
            // Groups have gone out of use before Kubernetes was.
            _ => return Err(ProtobufError::Malformed("illegal wireType")),
        };
        Ok(Some(Field { number, value }))
    }

    fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut value = 0u64;
        for (i, byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[i + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 {
            CUT_OFF
        } else {
            ProtobufError::Malformed("integer overflow")
        })
    }
}

const CUT_OFF: ProtobufError = ProtobufError::Malformed("unexpected EOF");
