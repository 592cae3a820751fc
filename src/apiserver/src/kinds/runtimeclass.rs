//! RuntimeClasses.

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::names;
use kontiki_api::object::{get, list, text};
use serde_json::Value;

use super::checks::{Errors, complain, immutable, labels};
use super::columns::{AGE, NAME, named_row, string};
use super::pod_spec::resources;
use super::pod_spec::scheduling::tolerations;
use crate::strategy::{Column, Context, Strategy};

/// The strategy of runtimeclasses.
pub(super) struct RuntimeClass;

static COLUMNS: [Column; 3] = [NAME, string("Handler", ""), AGE];

impl Strategy for RuntimeClass {
    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        match text(object, &["handler"]) {
            "" => errors.push(Error::required(&Path::new("handler"), "")),
            h => complain(
                &mut errors,
                &Path::new("handler"),
                h,
                names::dns1123_label(h),
            ),
        }
        let fixed = get(object, &["overhead", "podFixed"]).and_then(Value::as_object);
        let at = Path::new("overhead").child("podFixed");
        for (key, value) in fixed.into_iter().flatten() {
            resources::resource_name(&mut errors, &at.key(key), key);
            resources::quantity(&mut errors, &at.key(key), key, value);
        }
        let at = Path::new("scheduling");
        labels(
            &mut errors,
            &at.child("nodeSelector"),
            get(object, &["scheduling", "nodeSelector"]),
        );
        tolerations(
            &mut errors,
            &at.child("tolerations"),
            list(object, &["scheduling", "tolerations"]),
        );
        errors
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, old: &Value) -> Errors {
        let mut errors = Errors::new();
        immutable(
            &mut errors,
            &Path::new("handler"),
            new.get("handler"),
            old.get("handler"),
        );
        errors.extend(self.validate(cx, new));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        named_row(object, now, [text(object, &["handler"]).into()])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{cx, fields};
    use super::*;

    #[test]
    fn the_handler_is_a_label_and_stays() {
        assert_eq!(
            fields(&RuntimeClass.validate(&cx(), &json!({}))),
            ["handler"]
        );
        assert_eq!(
            fields(&RuntimeClass.validate(&cx(), &json!({"handler": "A b"}))),
            ["handler"]
        );
        let of = |h: &str| json!({"handler": h});
        assert_eq!(
            fields(&RuntimeClass.validate_update(&cx(), &of("i"), &of("h"))),
            ["handler"]
        );
    }
}
