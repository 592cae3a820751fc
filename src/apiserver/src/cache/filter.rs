//! Which objects a list or watch is about.

use std::sync::Arc;

use kontiki_api::{fields, labels};

use super::entry::Entry;
use super::event::{Delivery, Event, EventKind};
use crate::keys;

/// Namespace, labels and fields that an object must have.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    namespace: Box<str>,
    labels: labels::Selector,
    fields: fields::Selector,
    cluster_scoped: bool,
}

/// The part of a filter by which a watcher is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    All,
    Namespace(Box<str>),
    Place(Box<str>),
    Node(Box<str>),
}

impl Filter {
    /// `namespace` is empty for all namespaces and for cluster-scoped resources.
    pub(crate) fn new(
        namespace: &str,
        labels: labels::Selector,
        fields: fields::Selector,
        cluster_scoped: bool,
    ) -> Filter {
        let namespace = match fields.exact("metadata.namespace") {
            Some(ns) if namespace.is_empty() && !cluster_scoped => ns.into(),
            _ => namespace.into(),
        };
        Filter {
            namespace,
            labels,
            fields,
            cluster_scoped,
        }
    }

    /// Everything in a namespace (empty: everywhere).
    pub(crate) fn namespaced(namespace: &str) -> Filter {
        Filter {
            namespace: namespace.into(),
            ..Filter::default()
        }
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Whether objects are chosen by more than their namespace.
    pub(crate) fn selects(&self) -> bool {
        !self.labels.is_everything() || !self.fields.is_everything()
    }

    /// The one place that can match, if the filter names it.
    pub(super) fn place(&self) -> Option<String> {
        let name = self.fields.exact("metadata.name")?;
        (self.cluster_scoped || !self.namespace.is_empty())
            .then(|| keys::place(&self.namespace, name))
    }

    pub(super) fn scope(&self) -> Scope {
        if let Some(p) = self.place() {
            Scope::Place(p.into())
        } else if let Some(node) = self.fields.exact("spec.nodeName").filter(|n| !n.is_empty()) {
            Scope::Node(node.into())
        } else if self.namespace.is_empty() {
            Scope::All
        } else {
            Scope::Namespace(self.namespace.clone())
        }
    }

    /// Whether the object matches.
    pub(crate) fn matches(&self, entry: &Entry) -> bool {
        (self.namespace.is_empty() || self.namespace == entry.namespace)
            && self.labels.matches(entry)
            && self.fields.matches(|f| entry.field(f))
    }

    /// What a watcher with this filter is told of the change.
    pub(crate) fn delivery(&self, event: &Arc<Event>) -> Option<Delivery> {
        let now = event.new.as_ref().is_some_and(|e| self.matches(e));
        let before = event.old.as_ref().is_some_and(|e| self.matches(e));
        let kind = match (before, now) {
            (false, false) => return None,
            (false, true) => EventKind::Added,
            (true, true) => EventKind::Modified,
            (true, false) => EventKind::Deleted,
        };
        Some(Delivery::of_change(kind, event.clone()))
    }
}
