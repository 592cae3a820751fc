//! Which set is the new one, the history of revisions, and the annotations that tell of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use kontiki_api::ObjectMeta;
use serde_json::Value;

use super::limits::{DESIRED_REPLICAS, MAX_REPLICAS};
use crate::views::{Deployment, ReplicaSet};

/// The number of a deployment's current template, and of each set's.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
/// The earlier numbers of a set that was rolled back to.
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The longest history of numbers that is kept, in bytes.
const REVISION_HISTORY_BYTES_MAX: usize = 2000;
/// The label that tells the pods of a deployment's sets apart.
pub(super) const POD_TEMPLATE_HASH: &str = "pod-template-hash";
/// Annotations of a deployment that its sets do not get.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

/// The number in an annotation.
pub(super) fn annotated(m: &ObjectMeta, name: &str) -> Option<i64> {
    m.annotations.get(name)?.parse().ok()
}

/// The revision of a set; 0 if it has none.
pub(super) fn revision(set: &ReplicaSet) -> i64 {
    annotated(&set.metadata, REVISION).unwrap_or(0)
}

/// The oldest set that has the deployment's template.
pub(super) fn find_new<'a>(
    d: &Deployment,
    sets: &'a [Arc<ReplicaSet>],
) -> Option<&'a Arc<ReplicaSet>> {
    let want = comparable(d.template());
    let mut same: Vec<_> = sets
        .iter()
        .filter(|s| comparable(s.template()) == want)
        .collect();
    same.sort_by_key(|s| age(s));
    same.into_iter().next()
}

/// What sets are sorted by, the oldest first.
pub(super) fn age(set: &ReplicaSet) -> (String, String) {
    (
        set.metadata.creation_timestamp.clone().unwrap_or_default(),
        set.metadata.name.clone(),
    )
}

/// A template in the form in which two are compared: without the hash label and what says nothing.
fn comparable(mut template: Value) -> Value {
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove(POD_TEMPLATE_HASH);
    }
    strip(&mut template);
    if let Some(m) = template["metadata"].as_object_mut() {
        m.retain(|_, v| v.as_object().is_none_or(|o| !o.is_empty()));
    }
    template
}

/// Takes out nulls and empty lists, which mean the same as nothing.
fn strip(v: &mut Value) {
    match v {
        Value::Object(m) => {
            m.values_mut().for_each(strip);
            m.retain(|_, v| !v.is_null() && v.as_array().is_none_or(|a| !a.is_empty()));
        }
        Value::Array(a) => a.iter_mut().for_each(strip),
        _ => {}
    }
}

/// The hash that names the set of a template: FNV-1a over its JSON and the number of collisions so far, in letters
/// that spell no words.
pub(super) fn hash(template: &Value, collisions: Option<i32>) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut text = comparable(template.clone()).to_string();
    if let Some(n) = collisions {
        text.push_str(&n.to_string());
    }
    let sum = text.bytes().fold(0x811c_9dc5_u32, |h, b| {
        (h ^ u32::from(b)).wrapping_mul(0x0100_0193)
    });
    sum.to_string()
        .bytes()
        .map(|b| char::from(LETTERS[usize::from(b) % LETTERS.len()]))
        .collect()
}

/// The annotations that the new set should have beyond those that it has, for this revision of the deployment.
pub(super) fn new_set_annotations(
    d: &Deployment,
    set: Option<&ReplicaSet>,
    revision_now: i64,
) -> BTreeMap<String, String> {
    let empty = BTreeMap::new();
    let have = set.map_or(&empty, |s| &s.metadata.annotations);
    let copied = d
        .metadata
        .annotations
        .iter()
        .filter(|(k, v)| !NOT_COPIED.contains(&k.as_str()) && have.get(*k) != Some(*v));
    let mut out: BTreeMap<String, String> = copied.map(|(k, v)| (k.clone(), v.clone())).collect();
    let before = set.map_or(0, revision);
    if before < revision_now {
        out.insert(REVISION.into(), revision_now.to_string());
        if set.is_some_and(|s| s.metadata.annotations.contains_key(REVISION)) {
            out.insert(
                REVISION_HISTORY.into(),
                with_history(have.get(REVISION_HISTORY), before),
            );
        }
    }
    out
}

fn with_history(history: Option<&String>, revision: i64) -> String {
    let mut list: Vec<String> = history
        .map(|h| {
            h.split(',')
                .filter(|s| !s.is_empty())
                .map(str::to_owned)
                .collect()
        })
        .unwrap_or_default();
    list.push(revision.to_string());
    while list.len() > 1
        && list.iter().map(|s| s.len() + 1).sum::<usize>() > REVISION_HISTORY_BYTES_MAX
    {
        list.remove(0);
    }
    list.join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn templates_are_equal_but_for_hash_and_nothing() {
        let a = json!({"metadata": {"labels": {"app": "x", POD_TEMPLATE_HASH: "h"}, "creationTimestamp": null},
                       "spec": {"volumes": [{"emptyDir": {}}], "tolerations": []}});
        let b = json!({"metadata": {"labels": {"app": "x"}, "annotations": {}}, "spec": {"volumes": [{"emptyDir": {}}]}});
        assert_eq!(comparable(a.clone()), comparable(b.clone()));
        assert_eq!(hash(&a, None), hash(&b, None));
        assert_ne!(hash(&a, None), hash(&a, Some(1)));
        assert_ne!(hash(&a, None), hash(&json!({}), None));
        assert_ne!(
            comparable(json!({"spec": {"volumes": [{}]}})),
            comparable(b)
        );
    }

    #[test]
    fn a_set_that_is_rolled_back_to_keeps_its_history() {
        let d: Deployment = serde_json::from_value(json!({"metadata": {"annotations": {
            "kubernetes.io/change-cause": "c", REVISION: "3", "kubectl.kubernetes.io/last-applied-configuration": "x"}}}))
        .expect("a deployment");
        let s: ReplicaSet = serde_json::from_value(
            json!({"metadata": {"annotations": {REVISION: "2", REVISION_HISTORY: "1"}}}),
        )
        .expect("a set");
        let got = new_set_annotations(&d, Some(&s), 4);
        let want = [
            ("kubernetes.io/change-cause", "c"),
            (REVISION, "4"),
            (REVISION_HISTORY, "1,2"),
        ];
        assert_eq!(got, want.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        assert!(!new_set_annotations(&d, None, 1).contains_key(REVISION_HISTORY));
    }
}
