//! ResourceSlices and DeviceClasses: devices, and how they are chosen.

use std::borrow::Cow;
use std::sync::LazyLock;

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::names;
use kontiki_api::object::{get, list, text, truth};
use serde_json::Value;

use super::checks::{Errors, complain, immutable, member};
use super::columns::{AGE, NAME, described, named_row, string};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of resourceslices.
pub(super) struct ResourceSlice;

/// The strategy of deviceclasses.
pub(super) struct DeviceClass;

const GROUP: &str = "resource.k8s.io";
static COLUMNS: LazyLock<[Column; 5]> = LazyLock::new(|| {
    [
        NAME,
        string("Node", described(GROUP, "ResourceSliceSpec", &["nodeName"])),
        string("Driver", described(GROUP, "ResourceSliceSpec", &["driver"])),
        string("Pool", described(GROUP, "ResourcePool", &["name"])),
        AGE,
    ]
});
static NAME_AND_AGE: [Column; 2] = [NAME, AGE];

/// Where the devices of a slice are: one of these is said.
const PLACES: [&str; 4] = [
    "nodeName",
    "nodeSelector",
    "allNodes",
    "perDeviceNodeSelection",
];
/// What may not change.
const FIXED: [&[&str]; 3] = [&["driver"], &["pool", "name"], &["nodeName"]];

impl Strategy for ResourceSlice {
    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let at = Path::new("spec");
        let spec = object.get("spec").unwrap_or(&Value::Null);
        let driver = text(spec, &["driver"]);
        if driver.is_empty() {
            errors.push(Error::required(&at.child("driver"), ""));
        } else {
            let complaints = names::dns1123_subdomain(driver);
            complain(&mut errors, &at.child("driver"), driver, complaints);
        }
        if text(spec, &["pool", "name"]).is_empty() {
            errors.push(Error::required(&at.child("pool").child("name"), ""));
        }
        let said = PLACES.iter().filter(|p| match **p {
            "nodeName" => !text(spec, &["nodeName"]).is_empty(),
            "nodeSelector" => member(spec, "nodeSelector").is_some(),
            flag => truth(spec, &[flag]),
        });
        let which = PLACES.map(|p| format!("`{p}`")).join(", ");
        match said.count() {
            1 => {}
            0 => {
                let why = format!("exactly one of {which} is required");
                errors.push(Error::required(&at, why));
            }
            _ => {
                let why =
                    format!("exactly one of {which} is required, but multiple fields are set");
                errors.push(Error::invalid(&at, Value::Null, why));
            }
        }
        let devices = list(spec, &["devices"]);
        for (i, d) in devices.iter().enumerate() {
            let at = at.child("devices").index(i).child("name");
            let name = text(d, &["name"]);
            if name.is_empty() {
                errors.push(Error::required(&at, ""));
                continue;
            }
            complain(&mut errors, &at, name, names::dns1123_label(name));
            if devices[..i].iter().any(|b| text(b, &["name"]) == name) {
                errors.push(Error::duplicate(&at, name));
            }
        }
        errors
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(cx, new);
        for path in FIXED {
            let at = path.iter().fold(Path::new("spec"), |at, p| at.child(p));
            let of = |v: &Value| get(v.get("spec")?, path).cloned();
            immutable(&mut errors, &at, of(new).as_ref(), of(old).as_ref());
        }
        errors
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.driver", "spec.nodeName"]
    }

    fn field<'a>(&self, object: &'a Value, field: &str) -> Option<Cow<'a, str>> {
        let key = match field {
            "spec.driver" => "driver",
            "spec.nodeName" => "nodeName",
            _ => return None,
        };
        Some(text(object, &["spec", key]).into())
    }

    fn columns(&self) -> &'static [Column] {
        &*COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let of = |path: &[&str]| text(object, path).into();
        named_row(
            object,
            now,
            [
                of(&["spec", "nodeName"]),
                of(&["spec", "driver"]),
                of(&["spec", "pool", "name"]),
            ],
        )
    }
}

impl Strategy for DeviceClass {
    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        for (i, s) in list(object, &["spec", "selectors"]).iter().enumerate() {
            let at = Path::new("spec").child("selectors").index(i).child("cel");
            if text(s, &["cel", "expression"]).is_empty() {
                errors.push(Error::required(&at.child("expression"), ""));
            }
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &NAME_AND_AGE
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        named_row(object, now, [])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{cx, fields};
    use super::*;

    #[test]
    fn slices_are_in_one_place_and_stay_with_their_driver() {
        let of = |spec: Value| json!({"spec": spec});
        let good = of(json!({"driver": "d.example.com", "nodeName": "n", "pool": {"name": "p"}}));
        assert!(ResourceSlice.validate(&cx(), &good).is_empty());
        let bad = of(json!({"driver": "A b", "pool": {"name": "p"}}));
        assert_eq!(
            fields(&ResourceSlice.validate(&cx(), &bad)),
            ["spec.driver", "spec"]
        );
        let other = of(json!({"driver": "e.example.com", "nodeName": "n", "pool": {"name": "p"}}));
        assert_eq!(
            fields(&ResourceSlice.validate_update(&cx(), &other, &good)),
            ["spec.driver"]
        );
    }
}
