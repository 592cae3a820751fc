//! The stored form of an object, and the served form made from it.
//!
//! A value in the store is a format byte, the place where the object's body begins, and the object as JSON without its
//! resourceVersion: `[format][u16 little endian][{"apiVersion":…,"kind":…,"metadata":{…},…}]`. `apiVersion`, `kind` and
//! `metadata` come first, so that the served form is made by inserting the revision at a known place, and an item of a
//! list (which has neither apiVersion nor kind) is a slice of the served bytes.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::Value;

/// The format that this program writes.
const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 3;
/// What the body begins with; the resourceVersion is inserted right after it.
const METADATA: &[u8] = b"\"metadata\":{";
const REVISION: &[u8] = b"\"resourceVersion\":\"";

/// A value of the store that this program did not write.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FormatError {
    /// The first byte names no format known here.
    #[error("stored object has format {0}, this program reads format {FORMAT}")]
    Unknown(u8),
    /// The value is cut short or its layout is not that of an object.
    #[error("stored object is damaged")]
    Damaged,
}

/// Writes an object in the stored form. A resourceVersion in it is left out.
pub(crate) fn encode(object: &Value) -> Bytes {
    let map = object.as_object().expect("an object is a JSON object");
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(&[FORMAT, 0, 0]);
    out.push(b'{');
    for key in ["apiVersion", "kind"] {
        if let Some(v) = map.get(key) {
            member(&mut out, key, v);
            out.push(b',');
        }
    }
    let body_at = u16::try_from(out.len() - HEADER_BYTES).expect("apiVersion and kind are short");
    out[1..3].copy_from_slice(&body_at.to_le_bytes());
    out.extend_from_slice(METADATA);
    let mut first = true;
    for (key, v) in map
        .get("metadata")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        if key == "resourceVersion" {
            continue;
        }
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        member(&mut out, key, v);
    }
    assert!(!first, "an object has a name and a uid");
    out.push(b'}');
    for (key, v) in map
        .iter()
        .filter(|(k, _)| !matches!(k.as_str(), "apiVersion" | "kind" | "metadata"))
    {
        out.push(b',');
        member(&mut out, key, v);
    }
    out.push(b'}');
    Bytes::from(out)
}

fn member(out: &mut Vec<u8>, key: &str, v: &Value) {
    serde_json::to_writer(&mut *out, key).expect("a string is written to memory");
    out.push(b':');
    serde_json::to_writer(&mut *out, v).expect("a value is written to memory");
}

/// The parts of a stored value: where the body begins, and the JSON.
fn open(stored: &[u8]) -> Result<(usize, &[u8]), FormatError> {
    let [format, low, high, json @ ..] = stored else {
        return Err(FormatError::Damaged);
    };
    if *format != FORMAT {
        return Err(FormatError::Unknown(*format));
    }
    let body_at = usize::from(u16::from_le_bytes([*low, *high]));
    if json.get(body_at..).is_none_or(|b| !b.starts_with(METADATA)) {
        return Err(FormatError::Damaged);
    }
    Ok((body_at, json))
}

/// The JSON of a stored value, without a resourceVersion.
pub(crate) fn json(stored: &[u8]) -> Result<&[u8], FormatError> {
    open(stored).map(|(_, json)| json)
}

/// An object in its served form: JSON with the resourceVersion in it.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    /// The whole object.
    pub(crate) bytes: Bytes,
    /// Where the body begins, after apiVersion and kind.
    body_at: u16,
    /// How many digits the revision has.
    digits: u8,
}

impl Served {
    /// Makes the served form at a revision, wrapped in `before` and `after`; the wrapped bytes are shared with it.
    pub(crate) fn wrapped(
        stored: &[u8],
        revision: u64,
        before: &[u8],
        after: &[u8],
    ) -> Result<(Served, Bytes), FormatError> {
        let (body_at, json) = open(stored)?;
        let at = body_at + METADATA.len();
        let digits = revision.to_string();
        let mut out = BytesMut::with_capacity(
            before.len() + json.len() + REVISION.len() + digits.len() + 2 + after.len(),
        );
        out.put_slice(before);
        out.put_slice(&json[..at]);
        out.put_slice(REVISION);
        out.put_slice(digits.as_bytes());
        out.put_slice(b"\",");
        out.put_slice(&json[at..]);
        out.put_slice(after);
        let all = out.freeze();
        let bytes = all.slice(before.len()..all.len() - after.len());
        let body_at = u16::try_from(body_at).map_err(|_| FormatError::Damaged)?;
        let digits = u8::try_from(digits.len()).expect("a u64 has 20 digits at most");
        Ok((
            Served {
                bytes,
                body_at,
                digits,
            },
            all,
        ))
    }

    /// Makes the served form at a revision.
    pub(crate) fn new(stored: &[u8], revision: u64) -> Result<Served, FormatError> {
        Served::wrapped(stored, revision, b"", b"").map(|(s, _)| s)
    }

    /// The object without apiVersion and kind and without its opening brace, as it stands in a list.
    pub(crate) fn body(&self) -> Bytes {
        self.bytes.slice(usize::from(self.body_at)..)
    }

    /// The object with another resourceVersion.
    pub(crate) fn at_revision(&self, revision: u64) -> Bytes {
        let from = usize::from(self.body_at) + METADATA.len() + REVISION.len();
        let to = from + usize::from(self.digits);
        let digits = revision.to_string();
        let mut out = BytesMut::with_capacity(self.bytes.len() + digits.len());
        out.put_slice(&self.bytes[..from]);
        out.put_slice(digits.as_bytes());
        out.put_slice(&self.bytes[to..]);
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_revision_is_spliced_in_and_exchanged() {
        let object = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a", "uid": "u", "resourceVersion": "7"}, "data": {"x": "y"}});
        let stored = encode(&object);
        assert_eq!(stored[0], FORMAT);
        let served = Served::new(&stored, 42).expect("own format");
        let mut want = object.clone();
        want["metadata"]["resourceVersion"] = "42".into();
        assert_eq!(
            serde_json::from_slice::<Value>(&served.bytes).expect("JSON"),
            want
        );
        want["metadata"]["resourceVersion"] = "1000".into();
        assert_eq!(
            serde_json::from_slice::<Value>(&served.at_revision(1000)).expect("JSON"),
            want
        );
        let item = [b"{", &served.body()[..]].concat();
        let item: Value = serde_json::from_slice(&item).expect("JSON");
        assert_eq!(
            item,
            json!({"metadata": {"name": "a", "uid": "u", "resourceVersion": "42"}, "data": {"x": "y"}})
        );
    }

    #[test]
    fn the_bytes_on_disk_stay_what_they_are() {
        let object = json!({"kind": "K", "apiVersion": "v1", "metadata": {"name": "a"}, "z": 1});
        let golden = b"\x01\x1e\x00{\"apiVersion\":\"v1\",\"kind\":\"K\",\"metadata\":{\"name\":\"a\"},\"z\":1}";
        assert_eq!(encode(&object)[..], golden[..]);
    }

    #[test]
    fn foreign_values_are_refused() {
        assert!(matches!(json(b""), Err(FormatError::Damaged)));
        assert!(matches!(json(b"\x09\0\0{}"), Err(FormatError::Unknown(9))));
        assert!(matches!(json(b"\x01\x01\0{}"), Err(FormatError::Damaged)));
    }
}
