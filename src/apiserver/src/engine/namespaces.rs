//! Deletion of a namespace: it becomes `Terminating`, and goes when its content and its finalizers are gone.

use kontiki_api::object;
use serde_json::Value;

use super::metadata;
use super::update::is_gone;
use crate::options::DeleteOptions;

/// The namespace after a request to delete it, and whether it is gone at once; `None`: it is on its way already.
pub(super) fn plan_deletion(
    mut v: Value,
    _options: &DeleteOptions,
    now: jiff::Timestamp,
) -> Option<(Value, bool)> {
    let before = v.clone();
    let meta = metadata::of(&mut v);
    meta.entry("deletionTimestamp")
        .or_insert_with(|| object::time_text(now).into());
    object::map_mut(&mut v, &["status"]).insert("phase".into(), "Terminating".into());
    let gone = is_gone(&v);
    (gone || v != before).then_some((v, gone))
}
