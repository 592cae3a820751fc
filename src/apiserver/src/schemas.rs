//! The engine's use of schemas: decoding bodies, defaulting, and who owns which field.

use kontiki_api::field::{Error, Path};
use kontiki_api::{ApiError, Cause, Reason, Resource};
use kontiki_schema::managed::{self, ApplyError, FieldSet, WriteContext};
use kontiki_schema::patch::{PatchError, json, merge, strategic};
use kontiki_schema::{Decoded, Expected, Schema, Schemas, Strictness};
use serde_json::Value;

use crate::convert;
use crate::engine::Patch;
use crate::options::FieldValidation;
use crate::registry::Kind;

/// The schema of a resource's kind.
pub(crate) fn of(r: &Resource) -> &'static Schema {
    of_kind(r.group, r.version, r.kind)
}

/// The schema of a kind of the catalogue, or of a subresource's kind.
pub(crate) fn of_kind(group: &str, version: &str, kind: &str) -> &'static Schema {
    Schemas::builtin()
        .get(group, version, kind)
        .unwrap_or_else(|| panic!("there is no schema of {group}/{version} {kind}"))
}

pub(crate) fn expected(r: &'static Resource) -> Expected<'static> {
    Expected {
        group: r.group,
        version: r.version,
        kind: r.kind,
    }
}

impl From<FieldValidation> for Strictness {
    fn from(v: FieldValidation) -> Strictness {
        match v {
            FieldValidation::Ignore => Strictness::Ignore,
            FieldValidation::Warn => Strictness::Warn,
            FieldValidation::Strict => Strictness::Strict,
        }
    }
}

/// Fills in the defaults of schema and strategy.
pub(crate) fn default(kind: &Kind, v: &mut Value) {
    kontiki_schema::default(of(kind.storage), v);
    kind.strategy.default(v);
}

/// What a write to the object itself, or to this subresource, leaves as it is: it does not get an owner there.
fn ignored(kind: &Kind, subresource: &str) -> Option<FieldSet> {
    match subresource {
        "" if kind.resource.subresource("status").is_some() => {
            Some(FieldSet::of_members(&[&["status"]]))
        }
        "status" if (kind.resource.group, kind.resource.plural) == ("apps", "deployments") => {
            Some(FieldSet::of_members(&[&["spec"], &["metadata", "labels"]]))
        }
        "status" if kind.resource.plural == "pods" => Some(FieldSet::of_members(&[
            &["spec"],
            &["metadata", "deletionTimestamp"],
            &["metadata", "ownerReferences"],
        ])),
        "status"
            if matches!(
                kind.resource.plural,
                "servicecidrs" | "flowschemas" | "prioritylevelconfigurations"
            ) =>
        {
            Some(FieldSet::of_members(&[&["spec"], &["metadata"]]))
        }
        "status" => Some(FieldSet::of_members(&[&["spec"]])),
        _ => None,
    }
}

/// Brings the managed fields of a new object up to date.
pub(crate) fn track_create(kind: &Kind, v: &mut Value, manager: &str, now: &str) {
    track(kind, None, v, manager, "", now);
}

/// Brings the managed fields of a changed object up to date. They speak of the version of the request.
pub(crate) fn track(
    kind: &Kind,
    old: Option<&Value>,
    new: &mut Value,
    manager: &str,
    subresource: &str,
    now: &str,
) {
    let ignored = ignored(kind, subresource);
    let api_version = kind.resource.api_version();
    let ctx = WriteContext {
        manager,
        api_version: &api_version,
        subresource,
        now,
        ignored: ignored.as_ref(),
    };
    if kind.is_storage_version() {
        return managed::on_write(of(kind.resource), old, new, &ctx);
    }
    let old = old.map(|o| requested(kind, o));
    let mut shown = requested(kind, new);
    managed::on_write(of(kind.resource), old.as_ref(), &mut shown, &ctx);
    let meta = crate::engine::metadata::of(new);
    match shown.pointer("/metadata/managedFields") {
        Some(m) => drop(meta.insert("managedFields".into(), m.clone())),
        None => drop(meta.remove("managedFields")),
    }
}

/// A stored object in the version of the request.
fn requested(kind: &Kind, v: &Value) -> Value {
    let mut v = v.clone();
    convert::convert(&mut v, kind.storage, kind.resource);
    v
}

/// Applies a configuration in the version of the request to the live object.
pub(crate) fn apply(
    kind: &Kind,
    live: Option<&Value>,
    config: &Value,
    (manager, subresource, now): (&str, &str, &str),
    force: bool,
) -> Result<Value, ApiError> {
    let ignored = ignored(kind, subresource);
    let api_version = kind.resource.api_version();
    let ctx = WriteContext {
        manager,
        api_version: &api_version,
        subresource,
        now,
        ignored: ignored.as_ref(),
    };
    let live = live.map(|l| requested(kind, l));
    let mut v = managed::apply(of(kind.resource), live.as_ref(), config, &ctx, force).map_err(
        |e| match &e {
            ApplyError::Conflicts(conflicts) => {
                let mut s = ApiError::new(Reason::Conflict, e.to_string());
                s.0.causes = conflicts
                    .iter()
                    .map(|c| Cause {
                        reason: "FieldManagerConflict".into(),
                        message: c.message(),
                        field: c.field.clone(),
                    })
                    .collect();
                s
            }
            ApplyError::BadRequest(_) => ApiError::bad_request(e.to_string()),
            ApplyError::NotTyped { .. } => ApiError::new(Reason::Unknown, e.to_string()),
        },
    )?;
    // A configuration is sparse; what is stored has the zero values that every object has.
    kontiki_schema::check(of(kind.resource), &mut v, Strictness::Ignore)
        .map_err(|e| ApiError::bad_request(e.to_string()))?;
    convert::convert(&mut v, kind.resource, kind.storage);
    default(kind, &mut v);
    Ok(v)
}

/// The object that a patch makes of `old`, checked and defaulted, with the warnings.
pub(crate) fn patched(
    kind: &Kind,
    old: &Value,
    patch: &Patch,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), ApiError> {
    let (schema, expected) = (of(kind.resource), expected(kind.resource));
    let (mut v, warnings) = if kind.is_storage_version() {
        patch_and_check(schema, expected, old, patch, validation)?
    } else {
        patch_and_check(schema, expected, &requested(kind, old), patch, validation)?
    };
    convert::convert(&mut v, kind.resource, kind.storage);
    default(kind, &mut v);
    Ok((v, warnings))
}

/// The same for an object that is only shown and never stored.
pub(crate) fn patched_as(
    schema: &Schema,
    expected: Expected<'_>,
    old: &Value,
    patch: &Patch,
    validation: FieldValidation,
) -> Result<Value, ApiError> {
    patch_and_check(schema, expected, old, patch, validation).map(|(v, _)| v)
}

fn patch_and_check(
    schema: &Schema,
    expected: Expected<'_>,
    old: &Value,
    patch: &Patch,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), ApiError> {
    let mut v = old.clone();
    let mut warnings = Vec::new();
    match patch {
        Patch::Json(body) => {
            let p = json::parse_patch(body).map_err(|e| refused(&e))?;
            if validation != FieldValidation::Ignore {
                warnings.clone_from(&p.warnings);
            }
            json::apply(&mut v, p).map_err(|e| refused(&e))?;
        }
        Patch::Merge(body) => {
            merge::apply(&mut v, merge::parse_patch(body).map_err(|e| refused(&e))?);
        }
        Patch::Strategic(body) => {
            let p = strategic::parse_patch(body).map_err(|e| refused(&e))?;
            strategic::apply(schema, &mut v, p).map_err(|e| refused(&e))?;
        }
        Patch::Apply(config) => merge::apply(&mut v, config.clone()),
    }
    let managed = v.pointer("/metadata/managedFields");
    let resets = managed.and_then(Value::as_array).is_some_and(Vec::is_empty);
    let before = v.clone();
    let Decoded {
        value,
        warnings: more,
    } = kontiki_schema::decode_value(v, &[], b"", schema, expected, validation.into()).map_err(
        |e| {
            let text = before.to_string();
            let why = match e.0.message.split_once(": ") {
                Some((_, why)) if why.starts_with("strict decoding error") => why.to_owned(),
                _ => e.0.message.clone(),
            };
            ApiError::invalid(
                "",
                "",
                "",
                &[Error::invalid(&Path::new("patch"), text.as_str(), why)],
            )
        },
    )?;
    warnings.extend(more);
    let mut value = value;
    if resets {
        crate::engine::metadata::of(&mut value)
            .insert("managedFields".into(), Value::Array(Vec::new()));
    }
    Ok((value, warnings))
}

fn refused(e: &PatchError) -> ApiError {
    let mut s = match e {
        PatchError::Malformed(_) => ApiError::bad_request(e.to_string()),
        PatchError::TooManyOperations(_) => {
            return ApiError::new(
                Reason::RequestEntityTooLarge,
                format!("Request entity too large: {e}"),
            );
        }
        // Upstream loses the words on the way; clients know these.
        PatchError::DoesNotApply(_) => {
            let mut s = ApiError::new(
                Reason::Invalid,
                "the server rejected our request due to an error in our request",
            );
            s.0.with_details = true;
            s
        }
        PatchError::Strategic(_) => ApiError::new(Reason::Unknown, e.to_string()),
    };
    s.0.code = e.code();
    s
}

/// Gives the managed fields their old times if nothing else differs.
pub(crate) fn settle(old: &Value, new: &mut Value) {
    managed::keep_times_if_unchanged(old, new);
}

/// The schema of the options of a deletion.
pub(crate) fn delete_options() -> &'static Schema {
    let name = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
    Schemas::builtin()
        .definition(name)
        .expect("it is part of every API")
        .schema()
}

/// An object in protobuf; 406 for what has no such form.
pub(crate) fn protobuf(v: &Value) -> Result<Vec<u8>, ApiError> {
    let text = |k: &str| v.get(k).and_then(Value::as_str).unwrap_or_default();
    kontiki_schema::protobuf::encode(text("apiVersion"), text("kind"), v)
        .map_err(|e| ApiError::new(Reason::NotAcceptable, e.to_string()))
}
