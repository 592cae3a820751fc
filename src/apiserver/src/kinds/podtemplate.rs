//! PodTemplates.

use jiff::Timestamp;
use kontiki_api::field::Path;
use kontiki_api::object::{get, name};
use serde_json::Value;

use super::checks::Errors;
use super::columns::{NAME, containers, map_text, string};
use super::pod_spec::{Rules, default_template, validate_template};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of podtemplates.
pub(super) struct PodTemplate;

static COLUMNS: [Column; 4] = [
    NAME,
    string("Containers", "Names of each container in the template."),
    string(
        "Images",
        "Images referenced by each container in the template.",
    ),
    string("Pod Labels", "The labels for the pod template."),
];

impl Strategy for PodTemplate {
    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        default_template(object);
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let template = object.get("template").unwrap_or(&Value::Null);
        validate_template(
            &mut errors,
            &Path::new("template"),
            template,
            Rules {
                restart_policies: &[],
            },
        );
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        let [names, images] = containers(get(object, &["template"]));
        vec![
            name(object).into(),
            names,
            images,
            map_text(get(object, &["template", "metadata", "labels"])),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{cx, fields, idempotent};
    use super::*;

    #[test]
    fn an_empty_one_lacks_containers() {
        let o = idempotent(&PodTemplate, json!({}));
        assert_eq!(
            fields(&PodTemplate.validate(&cx(), &o)),
            ["template.spec.containers"]
        );
    }
}
