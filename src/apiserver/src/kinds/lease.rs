//! Leases.

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::object::{int, text};
use serde_json::Value;

use super::checks::{Errors, non_negative};
use super::columns::{AGE, NAME, named_row, string};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of leases.
pub(super) struct Lease;

static COLUMNS: [Column; 3] = [
    NAME,
    string(
        "Holder",
        "holderIdentity contains the identity of the holder of a current lease. If Coordinated Leader Election is used, the holder identity must be equal to the elected LeaseCandidate.metadata.name field.",
    ),
    AGE,
];

impl Strategy for Lease {
    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let spec = Path::new("spec");
        if let Some(n) = int(object, &["spec", "leaseDurationSeconds"])
            && n <= 0
        {
            errors.push(Error::invalid(
                &spec.child("leaseDurationSeconds"),
                n,
                "must be greater than 0",
            ));
        }
        if let Some(s) = object.get("spec") {
            non_negative(&mut errors, &spec, s, "leaseTransitions");
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        named_row(
            object,
            now,
            [text(object, &["spec", "holderIdentity"]).into()],
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{cx, fields};
    use super::*;

    #[test]
    fn durations_are_positive_and_counts_not_negative() {
        let o = json!({"spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1}});
        assert_eq!(
            fields(&Lease.validate(&cx(), &o)),
            ["spec.leaseDurationSeconds", "spec.leaseTransitions"]
        );
        assert!(
            Lease
                .validate(&cx(), &json!({"spec": {"leaseDurationSeconds": 1}}))
                .is_empty()
        );
    }
}
