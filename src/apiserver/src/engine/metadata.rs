//! The metadata that the engine itself manages, and what is wrong with metadata
//! (upstream's `rest.BeforeCreate`, `rest.BeforeUpdate` and `ValidateObjectMeta`).

use kontiki_api::field::{Error, Path};
use kontiki_api::{names, object};
use serde_json::{Map, Value};

use crate::registry::Kind;

/// The most bytes of all annotations together.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;
/// Finalizers of upstream's that have no slash in them.
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

/// The metadata of an object, made if it is missing.
pub(crate) fn of(v: &mut Value) -> &mut Map<String, Value> {
    object::map_mut(v, &["metadata"])
}

/// Sets what a creator may not choose.
pub(super) fn fill_new(v: &mut Value, kind: &Kind, now: &str) {
    let meta = of(v);
    for key in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
    ] {
        meta.remove(key);
    }
    meta.insert("creationTimestamp".into(), now.into());
    meta.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    if kind.has_generation() {
        meta.insert("generation".into(), 1.into());
    }
}

/// Takes over from `old` what an update may not touch, or need not state.
pub(super) fn carry_over(new: &mut Value, old: &Value) {
    let Some(old) = old.get("metadata").and_then(Value::as_object) else {
        return;
    };
    let meta = of(new);
    meta.remove("selfLink");
    for key in ["generation", "creationTimestamp", "deletionTimestamp"] {
        match old.get(key) {
            Some(v) => drop(meta.insert(key.into(), v.clone())),
            None if key == "generation" => drop(meta.remove(key)),
            None => {}
        }
    }
    for key in ["uid", "deletionGracePeriodSeconds"] {
        if meta.get(key).is_none_or(|v| v.is_null() || v == "")
            && let Some(v) = old.get(key)
        {
            meta.insert(key.into(), v.clone());
        }
    }
}

/// Counts a change of what is asked for (everything but metadata and status).
pub(super) fn count_generation(new: &mut Value, old: &Value, kind: &Kind) {
    if !kind.has_generation() {
        return;
    }
    let wanted = |v: &Value| -> Vec<(String, Value)> {
        let map = v.as_object().cloned().unwrap_or_default();
        map.into_iter()
            .filter(|(k, _)| !matches!(k.as_str(), "metadata" | "status" | "kind" | "apiVersion"))
            .collect()
    };
    let generation = object::int(old, &["metadata", "generation"]).unwrap_or(0);
    let counts = kind.strategy.metadata_counts(new, old);
    let changed = i64::from(counts || wanted(new) != wanted(old));
    of(new).insert("generation".into(), (generation + changed).into());
}

/// What is wrong with the metadata of a new object.
pub(super) fn validate(v: &Value, kind: &Kind) -> Vec<Error> {
    let meta = Path::new("metadata");
    let mut errors = Vec::new();
    let generate = object::text(v, &["metadata", "generateName"]);
    if !generate.is_empty() {
        let path = meta.child("generateName");
        errors.extend(
            kind.strategy
                .validate_name(generate, true)
                .into_iter()
                .map(|m| Error::invalid(&path, generate, m)),
        );
    }
    let name = object::name(v);
    let path = meta.child("name");
    if name.is_empty() {
        errors.push(Error::required(&path, "name or generateName is required"));
    } else {
        errors.extend(
            kind.strategy
                .validate_name(name, false)
                .into_iter()
                .map(|m| Error::invalid(&path, name, m)),
        );
    }
    let namespace = object::namespace(v);
    let path = meta.child("namespace");
    if !kind.resource.namespaced && !namespace.is_empty() {
        errors.push(Error::forbidden(&path, "not allowed on this type"));
    } else if kind.resource.namespaced && namespace.is_empty() {
        errors.push(Error::required(&path, ""));
    } else if kind.resource.namespaced {
        errors.extend(
            names::dns1123_label(namespace)
                .into_iter()
                .map(|m| Error::invalid(&path, namespace, m)),
        );
    }
    if object::int(v, &["metadata", "generation"]).is_some_and(|g| g < 0) {
        let g = object::int(v, &["metadata", "generation"]);
        errors.push(Error::invalid(
            &meta.child("generation"),
            g,
            "must be greater than or equal to 0",
        ));
    }
    common(v, &meta, &mut errors);
    errors
}

/// Labels, annotations, owner references and finalizers.
fn common(v: &Value, meta: &Path, errors: &mut Vec<Error>) {
    let entries = |key: &str| {
        object::get(v, &["metadata", key])
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
    };
    let path = meta.child("labels");
    for (k, value) in entries("labels") {
        errors.extend(
            names::qualified_name(k)
                .into_iter()
                .map(|m| Error::invalid(&path, k.as_str(), m)),
        );
        let value = value.as_str().unwrap_or_default();
        errors.extend(
            names::label_value(value)
                .into_iter()
                .map(|m| Error::invalid(&path, value, m)),
        );
    }
    let path = meta.child("annotations");
    let mut bytes = 0;
    for (k, value) in entries("annotations") {
        // Upstream compares the lower-cased key, so that upper-case prefixes pass.
        errors.extend(
            names::qualified_name(&k.to_lowercase())
                .into_iter()
                .map(|m| Error::invalid(&path, k.as_str(), m)),
        );
        bytes += k.len() + value.as_str().map_or(0, str::len);
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        errors.push(Error::too_long(&path, ANNOTATIONS_BYTES_MAX));
    }
    owners(
        object::list(v, &["metadata", "ownerReferences"]),
        &meta.child("ownerReferences"),
        errors,
    );
    let path = meta.child("finalizers");
    for f in object::list(v, &["metadata", "finalizers"])
        .iter()
        .filter_map(Value::as_str)
    {
        errors.extend(
            names::qualified_name(f)
                .into_iter()
                .map(|m| Error::invalid(&path, f, m)),
        );
        if !f.contains('/') && !STANDARD_FINALIZERS.contains(&f) {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(Error::invalid(&path, f, detail));
        }
    }
    let has = |f: &str| {
        object::list(v, &["metadata", "finalizers"])
            .iter()
            .any(|x| x == f)
    };
    if has("orphan") && has("foregroundDeletion") {
        let all = object::get(v, &["metadata", "finalizers"])
            .cloned()
            .unwrap_or_default();
        errors.push(Error::invalid(
            &path,
            all,
            "finalizer orphan and foregroundDeletion cannot be both set",
        ));
    }
}

fn owners(refs: &[Value], path: &Path, errors: &mut Vec<Error>) {
    let mut controller: Option<(&str, &str)> = None;
    for r in refs {
        let text = |k: &str| object::text(r, &[k]);
        // Upstream gives the list's path without an index.
        let version = text("apiVersion");
        if version.is_empty() {
            errors.push(Error::invalid(
                &path.child("apiVersion"),
                version,
                "version must not be empty",
            ));
        }
        for (field, what) in [("kind", "kind"), ("name", "name"), ("uid", "uid")] {
            if text(field).is_empty() {
                errors.push(Error::invalid(
                    &path.child(field),
                    "",
                    format!("{what} must not be empty"),
                ));
            }
        }
        if version == "v1" && text("kind") == "Event" {
            errors.push(Error::invalid(
                path,
                "v1, Kind=Event",
                "is disallowed from being an owner",
            ));
        }
        if object::truth(r, &["controller"]) {
            if let Some((kind, name)) = controller {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {kind}/{name} and {}/{}",
                    text("kind"),
                    text("name")
                );
                errors.push(Error::invalid(path, Value::Array(refs.to_vec()), detail));
            }
            controller = Some((text("kind"), text("name")));
        }
    }
}

/// What is wrong with the metadata of an update.
pub(super) fn validate_update(new: &Value, old: &Value, kind: &Kind) -> Vec<Error> {
    let meta = Path::new("metadata");
    let mut errors = Vec::new();
    let field = |v: &Value, k: &str| {
        object::get(v, &["metadata", k])
            .cloned()
            .unwrap_or_default()
    };
    if !field(old, "deletionTimestamp").is_null() {
        let before = object::list(old, &["metadata", "finalizers"]);
        let added: Vec<&str> = object::list(new, &["metadata", "finalizers"])
            .iter()
            .filter(|f| !before.contains(f))
            .filter_map(Value::as_str)
            .collect();
        if !added.is_empty() {
            let shown: Vec<String> = added.iter().map(|f| format!("{f:?}")).collect();
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                shown.join(", ")
            );
            errors.push(Error::forbidden(&meta.child("finalizers"), detail));
        }
    }
    for key in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        let (a, b) = (field(new, key), field(old, key));
        if a != b {
            errors.push(Error::invalid(&meta.child(key), a, "field is immutable"));
        }
    }
    // Generic and kind's own validation both look at this, and both report it.
    if kind.traits.metadata_passes > 2 {
        errors.extend(errors.clone());
    }
    for _ in 0..kind.traits.metadata_passes {
        common(new, &meta, &mut errors);
    }
    errors
}
