//! From the bytes of a request to an object of the expected kind, with the refusals that upstream's codecs give.

use kontiki_api::ApiError;
use serde_json::Value;

use crate::builtin::Schemas;
use crate::check::{Strictness, check};
use crate::json;
use crate::node::Schema;

/// Bytes of an unrecognised body that its refusal shows.
const SUMMARY_BYTES_MAX: usize = 30;

/// The kind that a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected<'a> {
    /// The group, or empty for the core group.
    pub group: &'a str,
    /// The version.
    pub version: &'a str,
    /// The kind.
    pub kind: &'a str,
}

impl Expected<'_> {
    /// The `apiVersion` of such an object.
    pub fn api_version(&self) -> String {
        join(self.group, self.version)
    }
}

/// An object that came in.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The object, in canonical form and with `apiVersion` and `kind`.
    pub value: Value,
    /// What a client that asked for warnings is warned of: `unknown field "spec.foo"`, `duplicate field "spec.bar"`.
    pub warnings: Vec<String>,
}

/// Decodes a JSON body as an object of the expected kind.
///
/// # Errors
/// 400 in upstream's words if it is not JSON, not of this kind or version, has a wrong type somewhere or, under
/// [`Strictness::Strict`], has unknown or duplicate members.
pub fn decode(
    body: &[u8],
    schema: &Schema,
    expected: Expected<'_>,
    strictness: Strictness,
) -> Result<Decoded, ApiError> {
    let parsed = json::parse(body).map_err(|e| unrecognised(body, expected, &e.to_string()))?;
    decode_value(
        parsed.value,
        &parsed.duplicates,
        body,
        schema,
        expected,
        strictness,
    )
}

/// As [`decode`], from a value that was parsed before (from YAML, say); `body` is only shown if it is unrecognisable.
///
/// # Errors
/// As [`decode`].
pub fn decode_value(
    mut value: Value,
    duplicates: &[String],
    body: &[u8],
    schema: &Schema,
    expected: Expected<'_>,
    strictness: Strictness,
) -> Result<Decoded, ApiError> {
    let (api_version, kind) = envelope(&value).map_err(|e| unrecognised(body, expected, &e))?;
    let (group, version) = match api_version.rsplit_once('/') {
        Some(gv) => gv,
        None if api_version.is_empty() => (expected.group, expected.version),
        None => ("", api_version),
    };
    let kind = if kind.is_empty() { expected.kind } else { kind };
    let refuse = |kind: &str, version: &str, why: &dyn std::fmt::Display| {
        let wanted = expected.kind;
        ApiError::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {wanted}: {why}"
        ))
    };
    if (group, version, kind) != (expected.group, expected.version, expected.kind) {
        return Err(if Schemas::builtin().get(group, version, kind).is_none() {
            let gv = join(group, version);
            let scheme = scheme(expected.group);
            refuse(
                kind,
                version,
                &format!("no kind {kind:?} is registered for version {gv:?} in scheme {scheme:?}"),
            )
        } else if kind == expected.kind {
            ApiError::bad_request(format!(
                "the API version in the data ({}) does not match the expected API version ({})",
                join(group, version),
                expected.api_version()
            ))
        } else {
            refuse(
                kind,
                version,
                &format!(
                    "converting ({version}.{kind}) to ({}.{}): unknown conversion",
                    package(expected.group),
                    expected.kind
                ),
            )
        });
    }
    let refuse = |why: &dyn std::fmt::Display| refuse(expected.kind, expected.version, why);
    let checked = check(schema, &mut value, strictness).map_err(|e| refuse(&e))?;
    let mut warnings = Vec::new();
    if strictness != Strictness::Ignore {
        warnings.extend(
            checked
                .unknown
                .iter()
                .map(|p| format!("unknown field {p:?}")),
        );
        warnings.extend(duplicates.iter().map(|p| format!("duplicate field {p:?}")));
    }
    if strictness == Strictness::Strict && !warnings.is_empty() {
        return Err(refuse(&format!(
            "strict decoding error: {}",
            warnings.join(", ")
        )));
    }
    if let Value::Object(map) = &mut value {
        map.insert("apiVersion".into(), expected.api_version().into());
        map.insert("kind".into(), expected.kind.into());
    }
    Ok(Decoded { value, warnings })
}

/// The `apiVersion` and `kind` as written.
fn envelope(value: &Value) -> Result<(&str, &str), String> {
    let found = |v: &Value| match v {
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Null | Value::Object(_) => "object",
    };
    let map = match value {
        Value::Object(map) => map,
        Value::Null => return Ok(("", "")),
        other => {
            return Err(format!(
                "json: cannot unmarshal {} into Go value of type struct {{ APIVersion string \
                 \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}",
                found(other)
            ));
        }
    };
    let text = |name: &str| match map.get(name) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(s)) => Ok(s.as_str()),
        Some(other) => Err(format!(
            "json: cannot unmarshal {} into Go struct field .{name} of type string",
            found(other)
        )),
    };
    Ok((text("apiVersion")?, text("kind")?))
}

fn join(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

/// The refusal of a body of which not even the kind is known.
fn unrecognised(body: &[u8], expected: Expected<'_>, why: &str) -> ApiError {
    let head = &body[..body.len().min(SUMMARY_BYTES_MAX)];
    let mut summary = match head.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => String::from_utf8_lossy(head).into_owned(),
        Some(_) => head.iter().map(|b| format!("{b:02x}")).collect(),
    };
    if head.len() < body.len() {
        summary.push_str(" ...");
    }
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: {why} ({summary})",
        expected.kind
    ))
}

/// Where upstream registers the kinds of a group; its refusals name the line.
fn scheme(group: &str) -> &'static str {
    match group {
        "apiextensions.k8s.io" => "pkg/apiserver/apiserver.go:55",
        "apiregistration.k8s.io" => "pkg/apiserver/scheme/scheme.go:28",
        _ => "pkg/api/legacyscheme/scheme.go:30",
    }
}

/// The Go package of a group's internal types.
fn package(group: &str) -> &str {
    match group {
        "" => "core",
        g => g.split('.').next().unwrap_or(g),
    }
}

#[cfg(test)]
mod tests;
