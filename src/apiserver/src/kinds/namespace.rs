//! Namespaces.

use std::borrow::Cow;

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::names;
use kontiki_api::object::{list, map_mut, name, text};
use serde_json::{Value, json};

use super::checks::{Errors, complain, keep, set_label};
use super::columns::{AGE, NAME, named_row, string};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of namespaces.
pub(super) struct Namespace;

static COLUMNS: [Column; 3] = [NAME, string("Status", "The status of the namespace"), AGE];

/// The label by which selectors find a namespace by its name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// The finalizer that the namespace controller takes away once the namespace is empty.
const FINALIZER: &str = "kubernetes";

impl Strategy for Namespace {
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        names::dns1123_label(if prefix {
            name.trim_end_matches('-')
        } else {
            name
        })
    }

    fn default(&self, object: &mut Value) {
        let name = name(object).to_owned();
        if !name.is_empty() {
            set_label(object, NAME_LABEL, &name);
        }
    }

    fn prepare_for_create(&self, _cx: &Context<'_>, object: &mut Value) {
        // A generated name is known only now.
        self.default(object);
        if !list(object, &["spec", "finalizers"])
            .iter()
            .any(|f| f == FINALIZER)
        {
            let finalizers = map_mut(object, &["spec"])
                .entry("finalizers")
                .or_insert_with(|| json!([]));
            match finalizers.as_array_mut() {
                Some(all) => all.push(FINALIZER.into()),
                None => *finalizers = json!([FINALIZER]),
            }
        }
        map_mut(object, &[]).insert("status".into(), json!({"phase": "Active"}));
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        for (i, f) in list(object, &["spec", "finalizers"])
            .iter()
            .filter_map(Value::as_str)
            .enumerate()
        {
            let at = Path::new("spec").child("finalizers").index(i);
            complain(&mut errors, &at, f, names::qualified_name(f));
            if !f.contains('/') && f != FINALIZER {
                errors.push(Error::invalid(
                    &at,
                    f,
                    "name is neither a standard finalizer name nor is it fully qualified",
                ));
            }
        }
        errors
    }

    fn prepare_for_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "spec");
        keep(new, old, "status");
    }

    fn validate_update(&self, _cx: &Context<'_>, _new: &Value, _old: &Value) -> Errors {
        Errors::new()
    }

    fn prepare_for_status_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "spec");
        let status = map_mut(new, &["status"]);
        if status
            .get("phase")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .is_empty()
        {
            status.insert("phase".into(), "Active".into());
        }
    }

    fn validate_status_update(&self, _cx: &Context<'_>, new: &Value, _old: &Value) -> Errors {
        let phase = text(new, &["status", "phase"]);
        let deleting = !text(new, &["metadata", "deletionTimestamp"]).is_empty();
        let why = match (deleting, phase) {
            (false, "Active") | (true, "Terminating") => return Errors::new(),
            (false, _) => "may only be 'Active' if `deletionTimestamp` is empty",
            (true, _) => "may only be 'Terminating' if `deletionTimestamp` is not empty",
        };
        vec![Error::invalid(
            &Path::new("status").child("Phase"),
            phase,
            why,
        )]
    }

    fn field<'a>(&self, object: &'a Value, field: &str) -> Option<Cow<'a, str>> {
        (field == "status.phase").then(|| text(object, &["status", "phase"]).into())
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["status.phase"]
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        named_row(object, now, [text(object, &["status", "phase"]).into()])
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cx, idempotent};
    use super::*;

    #[test]
    fn a_new_one_is_active_and_carries_its_name_and_finalizer() {
        let mut o = idempotent(&Namespace, json!({"metadata": {"name": "a"}}));
        Namespace.prepare_for_create(&cx(), &mut o);
        Namespace.prepare_for_create(&cx(), &mut o);
        assert_eq!(
            o,
            json!({"metadata": {"name": "a", "labels": {NAME_LABEL: "a"}}, "spec": {"finalizers": ["kubernetes"]},
                "status": {"phase": "Active"}})
        );
        assert!(Namespace.validate(&cx(), &o).is_empty());
    }

    #[test]
    fn the_phase_follows_the_deletion() {
        let of = |o: Value| Namespace.validate_status_update(&cx(), &o, &o).len();
        assert_eq!(of(json!({"status": {"phase": "Active"}})), 0);
        assert_eq!(of(json!({"status": {"phase": "Terminating"}})), 1);
        assert_eq!(
            of(json!({"metadata": {"deletionTimestamp": "x"}, "status": {"phase": "Active"}})),
            1
        );
    }

    #[test]
    fn an_update_keeps_finalizers_and_status() {
        let old = json!({"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        let mut new = json!({"spec": {}, "status": {"phase": "x"}});
        Namespace.prepare_for_update(&cx(), &mut new, &old);
        assert_eq!(new, old);
    }
}
