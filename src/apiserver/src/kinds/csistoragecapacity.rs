//! CSIStorageCapacities.

use kontiki_api::field::{Error, Path};
use kontiki_api::object::text;
use kontiki_api::{Quantity, names};
use serde_json::Value;

use super::checks::{Errors, NOT_NEGATIVE, complain, immutable, label_selector, member};
use crate::strategy::{Context, Strategy};

/// The strategy of csistoragecapacities.
pub(super) struct CsiStorageCapacity;

impl Strategy for CsiStorageCapacity {
    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let class = text(object, &["storageClassName"]);
        complain(
            &mut errors,
            &Path::new("storageClassName"),
            class,
            names::dns1123_subdomain(class),
        );
        for key in ["capacity", "maximumVolumeSize"] {
            let amount = member(object, key).and_then(Value::as_str);
            if amount.is_some_and(|a| a.parse::<Quantity>().is_ok_and(Quantity::is_negative)) {
                errors.push(Error::invalid(
                    &Path::new(key),
                    amount.unwrap_or_default(),
                    NOT_NEGATIVE,
                ));
            }
        }
        if let Some(s) = member(object, "nodeTopology") {
            label_selector(&mut errors, &Path::new("nodeTopology"), s);
        }
        errors
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(cx, new);
        for key in ["nodeTopology", "storageClassName"] {
            immutable(&mut errors, &Path::new(key), new.get(key), old.get(key));
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{cx, fields};
    use super::*;

    #[test]
    fn a_capacity_is_of_a_class_that_stays() {
        let of =
            |class: &str, capacity: &str| json!({"storageClassName": class, "capacity": capacity});
        assert_eq!(
            fields(&CsiStorageCapacity.validate(&cx(), &of("", "-1"))),
            ["storageClassName", "capacity"]
        );
        assert!(
            CsiStorageCapacity
                .validate(&cx(), &of("a", "1Gi"))
                .is_empty()
        );
        let e = CsiStorageCapacity.validate_update(&cx(), &of("a", "1Gi"), &of("b", "1Gi"));
        assert_eq!(fields(&e), ["storageClassName"]);
    }
}
