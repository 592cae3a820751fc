//! The options of writes and deletions, from the query or the body.

use kontiki_api::field::{Error, Path};
use kontiki_api::{ApiError, object};
use serde_json::Value;

use crate::request::Query;

/// The longest field manager's name, in bytes.
const FIELD_MANAGER_BYTES_MAX: usize = 128;

/// What happens to fields that the kind does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    /// They are dropped without a word.
    Ignore,
    /// They are dropped, with a warning for each.
    #[default]
    Warn,
    /// The request is refused.
    Strict,
}

/// The options of a create, update or patch.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteOptions {
    /// Whether nothing is to be stored.
    pub(crate) dry_run: bool,
    /// Who owns the fields that are written.
    pub(crate) field_manager: String,
    /// What happens to unknown fields.
    pub(crate) field_validation: FieldValidation,
    /// Whether an apply takes fields over from others.
    pub(crate) force: bool,
}

/// Which write the options are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteVerb {
    Create,
    Update,
    Patch,
    Apply,
}

impl WriteVerb {
    fn options_kind(self) -> &'static str {
        match self {
            WriteVerb::Create => "CreateOptions",
            WriteVerb::Update => "UpdateOptions",
            WriteVerb::Patch | WriteVerb::Apply => "PatchOptions",
        }
    }
}

impl WriteOptions {
    /// Reads the options; `user_agent` names the manager where the query does not.
    pub(crate) fn from_query(
        q: &Query,
        verb: WriteVerb,
        user_agent: &str,
    ) -> Result<WriteOptions, ApiError> {
        let mut errors = Vec::new();
        let dry_run = check_dry_run(q.all("dryRun"), &mut errors);
        let given = q.get("fieldManager");
        let path = Path::new("fieldManager");
        if verb == WriteVerb::Apply && given.is_empty() {
            errors.push(Error::required(&path, "is required for apply patch"));
        }
        if given.len() > FIELD_MANAGER_BYTES_MAX {
            errors.push(Error::too_long(&path, FIELD_MANAGER_BYTES_MAX));
        }
        if let Some((i, c)) = given.chars().enumerate().find(|(_, c)| c.is_control()) {
            let detail = format!("invalid character {c:?} (at position {i})");
            errors.push(Error::invalid(&path, given, detail));
        }
        let field_validation = match q.get("fieldValidation") {
            "Ignore" => FieldValidation::Ignore,
            "" | "Warn" => FieldValidation::Warn,
            "Strict" => FieldValidation::Strict,
            other => {
                let path = Path::new("fieldValidation");
                errors.push(Error::not_supported(
                    &path,
                    other,
                    &["", "Ignore", "Strict", "Warn"],
                ));
                FieldValidation::Strict
            }
        };
        if q.has("force") && verb != WriteVerb::Apply && verb.options_kind() == "PatchOptions" {
            errors.push(Error::forbidden(
                &Path::new("force"),
                "may not be specified for non-apply patch",
            ));
        }
        if !errors.is_empty() {
            return Err(ApiError::invalid(
                "meta.k8s.io",
                verb.options_kind(),
                "",
                &errors,
            ));
        }
        let field_manager = if given.is_empty() {
            manager_of(user_agent)
        } else {
            given.to_owned()
        };
        Ok(WriteOptions {
            dry_run,
            field_manager,
            field_validation,
            force: q.flag("force"),
        })
    }
}

/// The part of the User-Agent before the first slash.
fn manager_of(user_agent: &str) -> String {
    let first = user_agent.split('/').next().unwrap_or_default();
    first
        .chars()
        .filter(|c| !c.is_control())
        .take(FIELD_MANAGER_BYTES_MAX)
        .collect()
}

fn check_dry_run<'a>(values: impl Iterator<Item = &'a str>, errors: &mut Vec<Error>) -> bool {
    let values: Vec<&str> = values.collect();
    if values.iter().any(|v| *v != "All") {
        let shown = Value::from(values.clone());
        let mut e = Error::not_supported(&Path::new("dryRun"), "", &["All"]);
        e.value = Some(shown.to_string());
        errors.push(e);
    }
    !values.is_empty()
}

/// What happens to the dependents of a deleted object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    Orphan,
    Background,
    Foreground,
}

/// `metav1.DeleteOptions`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeleteOptions {
    pub(crate) dry_run: bool,
    pub(crate) grace_period_seconds: Option<i64>,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) orphan_dependents: Option<bool>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
}

impl DeleteOptions {
    /// Options from the query, used where there is no body.
    pub(crate) fn from_query(q: &Query) -> Result<DeleteOptions, ApiError> {
        let mut v = serde_json::Map::new();
        let grace = q.get("gracePeriodSeconds");
        if !grace.is_empty() {
            let n: i64 = grace.parse().map_err(|_| {
                ApiError::bad_request(format!(
                    "strconv.ParseInt: parsing {grace:?}: invalid syntax"
                ))
            })?;
            v.insert("gracePeriodSeconds".into(), n.into());
        }
        if q.has("orphanDependents") {
            v.insert("orphanDependents".into(), q.flag("orphanDependents").into());
        }
        if q.has("propagationPolicy") {
            v.insert(
                "propagationPolicy".into(),
                q.get("propagationPolicy").into(),
            );
        }
        let dry: Vec<&str> = q.all("dryRun").collect();
        if !dry.is_empty() {
            v.insert("dryRun".into(), Value::from(dry));
        }
        DeleteOptions::from_value(&Value::Object(v))
    }

    /// Options as they stand in a body.
    pub(crate) fn from_value(v: &Value) -> Result<DeleteOptions, ApiError> {
        let mut errors = Vec::new();
        let policy = v.get("propagationPolicy").and_then(Value::as_str);
        let orphan_dependents = v.get("orphanDependents").and_then(Value::as_bool);
        let path = Path::new("propagationPolicy");
        if policy.is_some() && orphan_dependents.is_some() {
            let detail = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(Error::invalid(&path, policy.unwrap_or_default(), detail));
        }
        let propagation = match policy {
            Some("Orphan") => Some(Propagation::Orphan),
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            None => None,
            Some(other) => {
                errors.push(Error::not_supported(
                    &path,
                    other,
                    &["Foreground", "Background", "Orphan", "nil"],
                ));
                None
            }
        };
        let dry = object::list(v, &["dryRun"])
            .iter()
            .filter_map(Value::as_str);
        let dry_run = check_dry_run(dry, &mut errors);
        if !errors.is_empty() {
            return Err(ApiError::invalid(
                "meta.k8s.io",
                "DeleteOptions",
                "",
                &errors,
            ));
        }
        let text = |k: &str| {
            object::get(v, &["preconditions", k])
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        Ok(DeleteOptions {
            dry_run,
            grace_period_seconds: object::int(v, &["gracePeriodSeconds"]),
            propagation,
            orphan_dependents,
            uid: text("uid"),
            resource_version: text("resourceVersion"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_comes_from_the_user_agent() {
        let q = Query::parse(None);
        let o = WriteOptions::from_query(&q, WriteVerb::Create, "kubectl/v1.36 (linux)")
            .expect("valid");
        assert_eq!(o.field_manager, "kubectl");
        let e =
            WriteOptions::from_query(&q, WriteVerb::Apply, "x").expect_err("apply needs a manager");
        assert_eq!(e.code(), 422);
    }

    #[test]
    fn what_is_wrong_with_options_is_said() {
        for (query, verb) in [
            ("dryRun=Nope", WriteVerb::Create),
            ("fieldValidation=x", WriteVerb::Update),
            ("force=true", WriteVerb::Patch),
        ] {
            let q = Query::parse(Some(query));
            assert_eq!(
                WriteOptions::from_query(&q, verb, "")
                    .expect_err(query)
                    .code(),
                422
            );
        }
        let q = Query::parse(Some("gracePeriodSeconds=x"));
        assert_eq!(
            DeleteOptions::from_query(&q)
                .expect_err("not a number")
                .code(),
            400
        );
        let both = serde_json::json!({"propagationPolicy": "Orphan", "orphanDependents": true});
        assert_eq!(
            DeleteOptions::from_value(&both).expect_err("both").code(),
            422
        );
    }
}
