//! VolumeAttachments.

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::names;
use kontiki_api::object::{get, map_mut, text, truth};
use serde_json::{Value, json};

use super::checks::{Errors, complain, immutable, keep, member};
use super::columns::{AGE, NAME, boolean, named_row, string};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of volumeattachments.
pub(super) struct VolumeAttachment;

static COLUMNS: [Column; 6] = [
    NAME,
    Column {
        format: "name",
        ..string(
            "Attacher",
            "attacher indicates the name of the volume driver that MUST handle this request. This is the name returned by GetPluginName().",
        )
    },
    string(
        "PV",
        "persistentVolumeName represents the name of the persistent volume to attach.",
    ),
    string(
        "Node",
        "nodeName represents the node that the volume should be attached to.",
    ),
    boolean(
        "Attached",
        "attached indicates the volume is successfully attached. This field must only be set by the entity completing the attach operation, i.e. the external-attacher.",
    ),
    AGE,
];

impl Strategy for VolumeAttachment {
    fn prepare_for_create(&self, _cx: &Context<'_>, object: &mut Value) {
        map_mut(object, &[]).insert("status".into(), json!({"attached": false}));
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let at = Path::new("spec");
        if text(object, &["spec", "attacher"]).is_empty() {
            errors.push(Error::required(&at.child("attacher"), ""));
        }
        let source = get(object, &["spec", "source"]).unwrap_or(&Value::Null);
        let sources = ["inlineVolumeSpec", "persistentVolumeName"]
            .iter()
            .filter(|k| member(source, k).is_some())
            .count();
        let why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
        match sources {
            0 => errors.push(Error::required(&at.child("source"), why)),
            1 => {}
            _ => errors.push(Error::invalid(&at.child("source"), source.clone(), why)),
        }
        let node = text(object, &["spec", "nodeName"]);
        complain(
            &mut errors,
            &at.child("nodeName"),
            node,
            names::dns1123_subdomain(node),
        );
        errors
    }

    fn prepare_for_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "status");
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(cx, new);
        immutable(
            &mut errors,
            &Path::new("spec"),
            new.get("spec"),
            old.get("spec"),
        );
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = |path: &[&str]| {
            Value::from(
                get(object, path)
                    .and_then(Value::as_str)
                    .unwrap_or_default(),
            )
        };
        let cells = [
            spec(&["spec", "attacher"]),
            spec(&["spec", "source", "persistentVolumeName"]),
            spec(&["spec", "nodeName"]),
            truth(object, &["status", "attached"]).into(),
        ];
        named_row(object, now, cells)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cx, fields};
    use super::*;

    #[test]
    fn an_attachment_has_one_source_and_a_node() {
        let o = json!({"spec": {"attacher": "a", "source": {}, "nodeName": ""}});
        assert_eq!(
            fields(&VolumeAttachment.validate(&cx(), &o)),
            ["spec.source", "spec.nodeName"]
        );
        let o = json!({"spec": {"attacher": "a", "source": {"persistentVolumeName": "v"}, "nodeName": "n"}});
        assert!(VolumeAttachment.validate(&cx(), &o).is_empty());
        assert_eq!(
            fields(&VolumeAttachment.validate_update(&cx(), &o, &json!({}))),
            ["spec"]
        );
    }
}
