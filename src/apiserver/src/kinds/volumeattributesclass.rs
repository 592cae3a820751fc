//! VolumeAttributesClasses.

use jiff::Timestamp;
use kontiki_api::ApiError;
use kontiki_api::field::{Error, Path};
use kontiki_api::object::text;
use serde_json::Value;

use super::checks::{Errors, add_finalizer, same};
use super::columns::{AGE, NAME, named_row, string};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of volumeattributesclasses.
pub(super) struct VolumeAttributesClass;

static COLUMNS: [Column; 3] = [
    NAME,
    string(
        "DriverName",
        "Name of the CSI driver This field is immutable.",
    ),
    AGE,
];

/// The finalizer that keeps a class while claims use it.
const PROTECTION: &str = "kubernetes.io/vac-protection";

impl Strategy for VolumeAttributesClass {
    fn admit_create(&self, _cx: &Context<'_>, object: &mut Value) -> Result<(), ApiError> {
        add_finalizer(object, PROTECTION);
        Ok(())
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        if text(object, &["driverName"]).is_empty() {
            errors.push(Error::required(&Path::new("driverName"), ""));
        }
        if same(object.get("parameters"), None) {
            errors.push(Error::required(
                &Path::new("parameters"),
                "must contain at least one key/value pair",
            ));
        }
        errors
    }

    fn validate_update(&self, _cx: &Context<'_>, new: &Value, old: &Value) -> Errors {
        let mut errors = Errors::new();
        for key in ["driverName", "parameters"] {
            if !same(new.get(key), old.get(key)) {
                errors.push(Error::forbidden(
                    &Path::new(key),
                    format!("updates to {key} are forbidden."),
                ));
            }
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        named_row(object, now, [text(object, &["driverName"]).into()])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{cx, fields};
    use super::*;

    #[test]
    fn a_class_has_parameters_that_stay() {
        let of = |v: &str| json!({"driverName": "d", "parameters": {"a": v}});
        assert_eq!(
            fields(&VolumeAttributesClass.validate(&cx(), &json!({"driverName": "d"}))),
            ["parameters"]
        );
        assert_eq!(
            fields(&VolumeAttributesClass.validate_update(&cx(), &of("1"), &of("2"))),
            ["parameters"]
        );
    }
}
