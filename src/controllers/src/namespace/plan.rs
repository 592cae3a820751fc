//! What holds a namespace back, told as conditions.

use std::collections::BTreeMap;

use crate::conditions;
use crate::views::Condition;

/// What is still in a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Remains {
    /// How many objects there are, by resource.
    objects: BTreeMap<String, usize>,
    /// How many objects wait for each finalizer.
    finalizers: BTreeMap<String, usize>,
    /// What could not be deleted.
    pub(super) errors: Vec<String>,
}

impl Remains {
    /// Adds an object that is still there.
    pub(super) fn add(&mut self, resource: &str, finalizers: &[String]) {
        *self.objects.entry(resource.to_owned()).or_default() += 1;
        for f in finalizers {
            *self.finalizers.entry(f.clone()).or_default() += 1;
        }
    }

    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.errors.is_empty()
    }
}

/// The conditions of a namespace with these remains; `None` if they are what they were. `now` is RFC 3339 text.
pub(super) fn conditions(
    old: &[Condition],
    remains: &Remains,
    now: &str,
) -> Option<Vec<Condition>> {
    let list = |map: &BTreeMap<String, usize>, word: &str| {
        let parts: Vec<String> = map
            .iter()
            .map(|(k, n)| format!("{k} {word} {n} resource instances"))
            .collect();
        parts.join(", ")
    };
    let errors = &remains.errors;
    let told = [
        (
            "NamespaceDeletionDiscoveryFailure",
            false,
            ("", "ResourcesDiscovered"),
            (String::new(), "All resources successfully discovered"),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            ("", "ParsedGroupVersions"),
            (String::new(), "All legacy kube types successfully parsed"),
        ),
        (
            "NamespaceDeletionContentFailure",
            !errors.is_empty(),
            ("ContentDeletionFailed", "ContentDeleted"),
            (
                format!(
                    "Failed to delete all resource types, {} remaining: {}",
                    errors.len(),
                    errors.join(", ")
                ),
                "All content successfully deleted, may be waiting on finalization",
            ),
        ),
        (
            "NamespaceContentRemaining",
            !remains.objects.is_empty(),
            ("SomeResourcesRemain", "ContentRemoved"),
            (
                format!(
                    "Some resources are remaining: {}",
                    list(&remains.objects, "has")
                ),
                "All content successfully removed",
            ),
        ),
        (
            "NamespaceFinalizersRemaining",
            !remains.finalizers.is_empty(),
            ("SomeFinalizersRemain", "ContentHasNoFinalizers"),
            (
                format!(
                    "Some content in the namespace has finalizers remaining: {}",
                    list(&remains.finalizers, "in")
                ),
                "All content-preserving finalizers finished",
            ),
        ),
    ];
    let mut new = old.to_vec();
    for (kind, is_true, reasons, messages) in told {
        conditions::set(
            &mut new,
            Condition {
                kind: kind.into(),
                status: if is_true { "True" } else { "False" }.into(),
                reason: if is_true { reasons.0 } else { reasons.1 }.into(),
                message: if is_true {
                    messages.0
                } else {
                    messages.1.into()
                },
                last_transition_time: Some(now.to_owned()),
                last_update_time: None,
            },
        );
    }
    (new != old).then_some(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_tell_what_holds_the_namespace_back() {
        let mut remains = Remains::default();
        assert!(remains.is_empty());
        remains.add("pods", &["example.com/f".into()]);
        let told = conditions(&[], &remains, "1").expect("news");
        let get = |kind: &str| told.iter().find(|c| c.kind == kind).expect(kind);
        assert_eq!(get("NamespaceContentRemaining").status, "True");
        assert_eq!(
            get("NamespaceFinalizersRemaining").message,
            "Some content in the namespace has finalizers remaining: example.com/f in 1 resource instances"
        );
        assert_eq!(get("NamespaceDeletionContentFailure").status, "False");
        assert_eq!(conditions(&told, &remains, "2"), None, "no news, no write");
        remains.errors.push("secrets: no".into());
        assert!(!remains.is_empty());
        assert!(conditions(&told, &remains, "3").is_some());
    }
}
