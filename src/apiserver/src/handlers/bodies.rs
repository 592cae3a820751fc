//! Bodies of requests: JSON and YAML, objects, patches and options.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use kontiki_api::{ApiError, Reason};
use kontiki_schema::{Decoded, Expected, Schema, protobuf};
use serde_json::Value;

use super::Ask;
use crate::convert;
use crate::engine::Patch;
use crate::options::{DeleteOptions, FieldValidation, WriteVerb};
use crate::schemas;

/// The media type without its parameters.
fn media(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

fn unsupported() -> ApiError {
    ApiError::new(
        Reason::UnsupportedMediaType,
        "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf",
    )
}

/// Decodes a body as an object of this kind.
pub(super) fn decode(
    content_type: &str,
    bytes: &Bytes,
    schema: &Schema,
    expected: Expected<'_>,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), ApiError> {
    let Decoded { value, warnings } = match media(content_type) {
        "" | "application/json" => {
            kontiki_schema::decode(bytes, schema, expected, validation.into())?
        }
        "application/yaml" => {
            let v = yaml(bytes)?;
            kontiki_schema::decode_value(v, &[], bytes, schema, expected, validation.into())?
        }
        protobuf::MEDIA_TYPE => {
            let d = protobuf::decode(bytes).map_err(|e| ApiError::bad_request(e.to_string()))?;
            kontiki_schema::decode_value(d.object, &[], bytes, schema, expected, validation.into())?
        }
        _ => return Err(unsupported()),
    };
    Ok((value, warnings))
}

fn yaml(bytes: &[u8]) -> Result<Value, ApiError> {
    serde_yaml_ng::from_slice(bytes)
        .map_err(|e| ApiError::bad_request(format!("error converting YAML to JSON: yaml: {e}")))
}

/// Decodes a body as an object of the request's kind: checked, defaulted, and in the version in which it is stored.
pub(super) fn object(
    ask: &Ask<'_>,
    bytes: &Bytes,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), ApiError> {
    let r = ask.kind.resource;
    let (mut v, warnings) = decode(
        ask.header(CONTENT_TYPE),
        bytes,
        schemas::of(r),
        schemas::expected(r),
        validation,
    )?;
    convert::convert(&mut v, r, ask.kind.storage);
    schemas::default(ask.kind, &mut v);
    if resets_managed_fields(bytes) {
        kontiki_api::object::map_mut(&mut v, &["metadata"])
            .insert("managedFields".into(), Value::Array(Vec::new()));
    }
    Ok((v, warnings))
}

/// Whether a JSON body has an empty list of managed fields, which asks for a new beginning; decoded, it is left out.
fn resets_managed_fields(bytes: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct View {
        metadata: Option<Metadata>,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        managed_fields: Option<Vec<serde::de::IgnoredAny>>,
    }
    let name = b"managedFields";
    let mentioned = bytes.windows(name.len()).any(|w| w == name);
    let view = || {
        serde_json::from_slice::<View>(bytes)
            .ok()?
            .metadata?
            .managed_fields
    };
    mentioned && view().is_some_and(|list| list.is_empty())
}

/// The four kinds of patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PatchType {
    Json,
    Merge,
    Strategic,
    Apply,
}

/// The kind of a patch, by its media type.
pub(super) fn patch_kind(content_type: &str) -> Result<(PatchType, WriteVerb), ApiError> {
    Ok(match media(content_type) {
        "application/json-patch+json" => (PatchType::Json, WriteVerb::Patch),
        "application/merge-patch+json" => (PatchType::Merge, WriteVerb::Patch),
        "application/strategic-merge-patch+json" => (PatchType::Strategic, WriteVerb::Patch),
        "application/apply-patch+yaml" => (PatchType::Apply, WriteVerb::Apply),
        _ => {
            let mut e = ApiError::new(Reason::UnsupportedMediaType, "415: Unsupported Media Type");
            e.0.with_details = true;
            return Err(e);
        }
    })
}

/// A patch from its body. Patches are checked when they are applied; a configuration is only parsed, as it says by what
/// it leaves out what it does not own.
pub(super) fn patch(kind: PatchType, bytes: Bytes) -> Result<Patch, ApiError> {
    Ok(match kind {
        PatchType::Json => Patch::Json(bytes),
        PatchType::Merge => Patch::Merge(bytes),
        PatchType::Strategic => Patch::Strategic(bytes),
        PatchType::Apply => {
            let v: Value = serde_yaml_ng::from_slice(&bytes)
                .map_err(|e| ApiError::bad_request(format!("error decoding YAML: {e}")))?;
            Patch::Apply(v)
        }
    })
}

/// The options of a deletion from its body.
pub(super) fn delete_options(ask: &Ask<'_>, bytes: &Bytes) -> Result<DeleteOptions, ApiError> {
    let json = matches!(media(ask.header(CONTENT_TYPE)), "" | "application/json");
    let refuse = |why: String| {
        ApiError::bad_request(format!(
            "couldn't get version/kind; json parse error: {why}"
        ))
    };
    let v = match media(ask.header(CONTENT_TYPE)) {
        "" | "application/json" => {
            kontiki_schema::json::parse(bytes)
                .map_err(|e| refuse(e.to_string()))?
                .value
        }
        "application/yaml" => yaml(bytes)?,
        protobuf::MEDIA_TYPE => {
            protobuf::decode(bytes)
                .map_err(|e| ApiError::bad_request(e.to_string()))?
                .object
        }
        _ => return Err(unsupported()),
    };
    if json && !v.is_object() && !v.is_null() {
        return Err(refuse("json: cannot unmarshal into Go value of type struct { APIVersion string; Kind string }".into()));
    }
    let kind = v
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or("DeleteOptions");
    if kind != "DeleteOptions" {
        let version = v.get("apiVersion").and_then(Value::as_str).unwrap_or("v1");
        return Err(ApiError::bad_request(format!(
            "no kind {kind:?} is registered for version {version:?} in scheme \"pkg/apis/meta/internalversion/scheme/register.go:27\""
        )));
    }
    let schema = schemas::delete_options();
    let mut checked = v;
    kontiki_schema::check(schema, &mut checked, kontiki_schema::Strictness::Ignore)
        .map_err(|e| ApiError::bad_request(e.to_string()))?;
    DeleteOptions::from_value(&checked)
}
