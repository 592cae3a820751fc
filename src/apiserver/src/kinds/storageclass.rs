//! StorageClasses.

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::names;
use kontiki_api::object::{text, truth};
use serde_json::Value;

use super::checks::{Errors, complain, default_value, immutable};
use super::columns::{AGE, NAME, named_row, string};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of storageclasses.
pub(super) struct StorageClass;

static COLUMNS: [Column; 6] = [
    NAME,
    string(
        "Provisioner",
        "provisioner indicates the type of the provisioner.",
    ),
    string(
        "ReclaimPolicy",
        "reclaimPolicy controls the reclaimPolicy for dynamically provisioned PersistentVolumes of this storage class. Defaults to Delete.",
    ),
    string(
        "VolumeBindingMode",
        "volumeBindingMode indicates how PersistentVolumeClaims should be provisioned and bound.  When unset, VolumeBindingImmediate is used. This field is only honored by servers that enable the VolumeScheduling feature.",
    ),
    string(
        "AllowVolumeExpansion",
        "allowVolumeExpansion shows whether the storage class allow volume expand.",
    ),
    AGE,
];

/// The annotation of the class for claims that name none.
const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
const POLICIES: [&str; 2] = ["Delete", "Retain"];
const MODES: [&str; 2] = ["Immediate", "WaitForFirstConsumer"];

impl Strategy for StorageClass {
    fn default(&self, object: &mut Value) {
        default_value(object, "reclaimPolicy", "Delete");
        default_value(object, "volumeBindingMode", "Immediate");
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        match text(object, &["provisioner"]) {
            "" => errors.push(Error::required(&Path::new("provisioner"), "")),
            p => complain(
                &mut errors,
                &Path::new("provisioner"),
                p,
                names::qualified_name(&p.to_lowercase()),
            ),
        }
        for (key, known) in [("reclaimPolicy", &POLICIES), ("volumeBindingMode", &MODES)] {
            let value = text(object, &[key]);
            if !known.contains(&value) {
                errors.push(Error::not_supported(&Path::new(key), value, known));
            }
        }
        errors
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, old: &Value) -> Errors {
        let mut errors = Errors::new();
        for key in [
            "parameters",
            "provisioner",
            "reclaimPolicy",
            "volumeBindingMode",
        ] {
            immutable(&mut errors, &Path::new(key), new.get(key), old.get(key));
        }
        errors.extend(self.validate(cx, new));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let cells = ["provisioner", "reclaimPolicy", "volumeBindingMode"]
            .map(|key| Value::from(text(object, &[key])));
        let [provisioner, policy, mode] = cells;
        let expands = truth(object, &["allowVolumeExpansion"]).into();
        let mut row = named_row(object, now, [provisioner, policy, mode, expands]);
        if text(object, &["metadata", "annotations", DEFAULT]) == "true" {
            row[0] = format!("{} (default)", kontiki_api::object::name(object)).into();
        }
        row
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{cx, fields, idempotent};
    use super::*;

    #[test]
    fn defaults_checks_and_what_stays() {
        let old = idempotent(&StorageClass, json!({"provisioner": "p.example.com"}));
        assert!(StorageClass.validate(&cx(), &old).is_empty());
        let new = json!({"provisioner": "p.example.com", "reclaimPolicy": "x", "volumeBindingMode": "Immediate"});
        assert_eq!(
            fields(&StorageClass.validate_update(&cx(), &new, &old)),
            ["reclaimPolicy", "reclaimPolicy"]
        );
    }

    #[test]
    fn the_default_class_is_marked() {
        let o = json!({"metadata": {"name": "a", "annotations": {DEFAULT: "true"}}});
        assert_eq!(
            StorageClass.row(&o, Timestamp::UNIX_EPOCH)[0],
            "a (default)"
        );
    }
}
