//! CSINodes.

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::object::{int, list, text};
use serde_json::Value;

use super::checks::{Errors, NOT_NEGATIVE, same};
use super::columns::{AGE, NAME, integer, named_row};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of csinodes.
pub(super) struct CsiNode;

static COLUMNS: [Column; 3] = [
    NAME,
    integer(
        "Drivers",
        "Drivers indicates the number of CSI drivers registered on the node",
    ),
    AGE,
];

/// The most bytes of a node's name in the words of a driver.
const NODE_ID_BYTES_MAX: usize = 256;

impl Strategy for CsiNode {
    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let all = list(object, &["spec", "drivers"]);
        for (i, d) in all.iter().enumerate() {
            let at = Path::new("spec").child("drivers").index(i);
            let (name, id) = (text(d, &["name"]), text(d, &["nodeID"]));
            if name.is_empty() {
                errors.push(Error::required(&at.child("name"), ""));
            } else if all[..i].iter().any(|e| text(e, &["name"]) == name) {
                errors.push(Error::duplicate(&at.child("name"), name));
            }
            if id.is_empty() {
                errors.push(Error::required(&at.child("nodeID"), ""));
            } else if id.len() > NODE_ID_BYTES_MAX {
                let why = format!("must be {NODE_ID_BYTES_MAX} characters or less");
                errors.push(Error::invalid(&at.child("nodeID"), id, why));
            }
            if let Some(n) = int(d, &["allocatable", "count"]).filter(|n| *n < 0) {
                errors.push(Error::invalid(
                    &at.child("allocatable").child("count"),
                    n,
                    NOT_NEGATIVE,
                ));
            }
        }
        errors
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(cx, new);
        let all = list(new, &["spec", "drivers"]);
        for d in list(old, &["spec", "drivers"]) {
            let found = all
                .iter()
                .enumerate()
                .find(|(_, n)| text(n, &["name"]) == text(d, &["name"]));
            let changed = |n: &Value| {
                ["nodeID", "topologyKeys"]
                    .iter()
                    .any(|k| !same(n.get(k), d.get(k)))
            };
            if let Some((i, n)) = found
                && changed(n)
            {
                let at = Path::new("spec").child("drivers").index(i);
                errors.push(Error::invalid(&at, n.clone(), "field is immutable"));
            }
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
            [list(object, &["spec", "drivers"]).len().into()],
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{cx, fields};
    use super::*;

    #[test]
    fn drivers_name_the_node() {
        let o = json!({"spec": {"drivers": [{"name": "d"}, {"name": "d", "nodeID": "n", "allocatable": {"count": -1}}]}});
        assert_eq!(
            fields(&CsiNode.validate(&cx(), &o)),
            [
                "spec.drivers[0].nodeID",
                "spec.drivers[1].name",
                "spec.drivers[1].allocatable.count"
            ]
        );
        let of = |id: &str| json!({"spec": {"drivers": [{"name": "d", "nodeID": id}]}});
        assert_eq!(
            fields(&CsiNode.validate_update(&cx(), &of("a"), &of("b"))),
            ["spec.drivers[0]"]
        );
    }
}
