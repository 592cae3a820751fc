//! The three kinds of patch that change an object without owning fields: JSON patch (RFC 6902), merge patch
//! (RFC 7386) and strategic merge patch.
//!
//! Each is parsed from the bytes of a request and applied to a `serde_json::Value`. Where the documents leave room, the
//! result is what kube-apiserver makes of the same patch; the texts of the errors are the ones that its clients know.
//! Nothing here checks that the result is a valid object.

pub mod json;
pub mod merge;
pub mod strategic;

use serde_json::Value;

/// Most operations that one JSON patch may have; one with more is answered with 413.
pub const JSON_PATCH_OPERATIONS_MAX: usize = 10_000;

/// Most bytes by which the `copy` operations of one JSON patch may make a document grow.
pub const JSON_PATCH_COPY_BYTES_MAX: usize = 3 * 1024 * 1024;

/// Deepest nesting of a patched document: what the JSON parser accepts, so that the result can be read back.
pub const DEPTH_MAX: usize = 120;

/// Why a patch could not be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The body is not a patch of the announced kind.
    #[error("{0}")]
    Malformed(String),
    /// There are more operations than [`JSON_PATCH_OPERATIONS_MAX`].
    #[error(
        "The allowed maximum operations in a JSON patch is {JSON_PATCH_OPERATIONS_MAX}, got {0}"
    )]
    TooManyOperations(usize),
    /// A well-formed JSON patch does not fit this document, or one of its tests fails.
    #[error("{0}")]
    DoesNotApply(String),
    /// A strategic patch asks for something that cannot be done to this document.
    #[error("{0}")]
    Strategic(String),
}

impl PatchError {
    /// The HTTP status code that answers this error.
    pub fn code(&self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::TooManyOperations(_) => 413,
            Self::DoesNotApply(_) => 422,
            Self::Strategic(_) => 500,
        }
    }
}

/// Parses the bytes of a patch; the error has the words of Go's JSON decoder, which clients see from kube-apiserver.
pub(crate) fn parse(body: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(body).map_err(|e| syntax_error(body, &e))
}

fn syntax_error(body: &[u8], error: &serde_json::Error) -> String {
    if error.is_eof() || body.iter().all(u8::is_ascii_whitespace) {
        return "unexpected end of JSON input".into();
    }
    let at = offset(body, error.line(), error.column());
    let rest = &body[at.min(body.len())..];
    let shown = String::from_utf8_lossy(&rest[..rest.len().min(4)])
        .chars()
        .next();
    match shown {
        Some(c) if body[..at].iter().all(u8::is_ascii_whitespace) => {
            format!("invalid character '{c}' looking for beginning of value")
        }
        Some(c) if error.to_string().starts_with("trailing characters") => {
            format!("invalid character '{c}' after top-level value")
        }
        Some(c) => format!("invalid character '{c}' in JSON: {error}"),
        None => error.to_string(),
    }
}

/// The byte at which the parser stopped: its columns count from 1 and point at the offending byte.
fn offset(body: &[u8], line: usize, column: usize) -> usize {
    let start = body
        .iter()
        .enumerate()
        .filter(|(_, b)| **b == b'\n')
        .map(|(i, _)| i + 1);
    let line_start = std::iter::once(0)
        .chain(start)
        .nth(line.saturating_sub(1))
        .unwrap_or(0);
    line_start + column.saturating_sub(1)
}

/// The name that Go's JSON decoder has for the type of a value.
pub(crate) fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// How Go prints a value with `%v`, which is how kube-apiserver quotes values in these errors.
pub(crate) fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(s) => s.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_value).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(map) => {
            let members: Vec<String> = map
                .iter()
                .map(|(k, v)| format!("{k}:{}", go_value(v)))
                .collect();
            format!("map[{}]", members.join(" "))
        }
        other => other.to_string(),
    }
}

/// How many levels of lists and maps a value has, a scalar having none.
pub(crate) fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn syntax_errors_read_like_those_of_the_go_decoder() {
        assert_eq!(parse(b"{").unwrap_err(), "unexpected end of JSON input");
        assert_eq!(parse(b"").unwrap_err(), "unexpected end of JSON input");
        assert_eq!(
            parse(b"x").unwrap_err(),
            "invalid character 'x' looking for beginning of value"
        );
        assert_eq!(
            parse(b"\n  ]").unwrap_err(),
            "invalid character ']' looking for beginning of value"
        );
        assert_eq!(
            parse(b"{} y").unwrap_err(),
            "invalid character 'y' after top-level value"
        );
    }

    #[test]
    fn values_print_like_go_maps() {
        let v = json!({"name": "q", "emptyDir": {}, "n": [1, null, true]});
        assert_eq!(go_value(&v), "map[emptyDir:map[] n:[1 <nil> true] name:q]");
    }
}
