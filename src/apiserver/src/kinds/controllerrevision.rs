//! ControllerRevisions.

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::object::{list, text, truth};
use serde_json::Value;

use super::checks::{Errors, immutable, member, non_negative};
use super::columns::{AGE, NAME, named_row, number, or_none, string};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of controllerrevisions.
pub(super) struct ControllerRevision;

static COLUMNS: [Column; 4] = [
    NAME,
    string("Controller", "Controller of the object"),
    string(
        "Revision",
        "Revision indicates the revision of the state represented by Data.",
    ),
    AGE,
];

impl Strategy for ControllerRevision {
    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        if member(object, "data").is_none() {
            errors.push(Error::required(&Path::new("data"), "data is mandatory"));
        }
        non_negative(&mut errors, &Path::root(), object, "revision");
        errors
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(cx, new);
        immutable(
            &mut errors,
            &Path::new("data"),
            new.get("data"),
            old.get("data"),
        );
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let owner = list(object, &["metadata", "ownerReferences"])
            .iter()
            .find(|o| truth(o, &["controller"]));
        let shown = owner.map_or(String::new(), |o| {
            let kind = text(o, &["kind"]).to_lowercase();
            match text(o, &["apiVersion"]).split_once('/') {
                Some((group, _)) => format!("{kind}.{group}/{}", text(o, &["name"])),
                None => format!("{kind}/{}", text(o, &["name"])),
            }
        });
        named_row(
            object,
            now,
            [or_none(&shown), number(object, &["revision"])],
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{cx, fields};
    use super::*;

    #[test]
    fn the_data_is_there_and_stays() {
        let old = json!({"data": {"a": 1}, "revision": 1});
        assert_eq!(
            fields(&ControllerRevision.validate(&cx(), &json!({"revision": -1}))),
            ["data", "revision"]
        );
        let new = json!({"data": {"a": 2}, "revision": 2});
        assert_eq!(
            fields(&ControllerRevision.validate_update(&cx(), &new, &old)),
            ["data"]
        );
    }
}
