//! An object as the cache holds it: its served bytes, and the index that selectors look at.

use std::borrow::Cow;

use bytes::Bytes;
use kontiki_api::labels::Labels;
use serde::Deserialize;
use serde_json::Value;

use crate::keys;
use crate::stored::{self, FormatError, Served};
use crate::strategy::Strategy;

/// An object of the cache.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The namespace; empty for cluster-scoped objects.
    pub(crate) namespace: Box<str>,
    /// The name.
    pub(crate) name: Box<str>,
    /// The revision that wrote it.
    pub(crate) revision: u64,
    /// The bytes that are served.
    pub(crate) served: Served,
    /// Its labels.
    pub(crate) labels: Box<[(Box<str>, Box<str>)]>,
    /// Its selectable fields.
    fields: Box<[(&'static str, Box<str>)]>,
}

/// Why an object of the store cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EntryError {
    /// The value's layout is foreign.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The value is not JSON.
    #[error("stored object is not JSON: {0}")]
    Json(#[from] serde_json::Error),
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct View<'a> {
    #[serde(borrow)]
    metadata: MetadataView<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct MetadataView<'a> {
    #[serde(borrow)]
    labels: std::collections::BTreeMap<Cow<'a, str>, Cow<'a, str>>,
}

impl Entry {
    /// Reads what selectors need of a stored object.
    pub(crate) fn new(
        place: &str,
        value: &[u8],
        revision: u64,
        strategy: &dyn Strategy,
    ) -> Result<Entry, EntryError> {
        let served = Served::new(value, revision)?;
        Entry::with_served(place, value, revision, served, strategy)
    }

    pub(super) fn with_served(
        place: &str,
        value: &[u8],
        revision: u64,
        served: Served,
        strategy: &dyn Strategy,
    ) -> Result<Entry, EntryError> {
        let json = stored::json(value)?;
        let (labels, fields) = match strategy.selectable_fields() {
            [] => {
                let view: View<'_> = serde_json::from_slice(json)?;
                (
                    view.metadata
                        .labels
                        .into_iter()
                        .map(|(k, v)| (k.into(), v.into()))
                        .collect(),
                    Box::default(),
                )
            }
            names => {
                let object: Value = serde_json::from_slice(json)?;
                let fields = names
                    .iter()
                    .filter_map(|f| strategy.field(&object, f).map(|v| (*f, v.into())))
                    .collect();
                (labels_of(&object), fields)
            }
        };
        let (namespace, name) = keys::names(place);
        Ok(Entry {
            namespace: namespace.into(),
            name: name.into(),
            revision,
            served,
            labels,
            fields,
        })
    }

    /// The value of a selectable field.
    pub(crate) fn field(&self, field: &str) -> Option<&str> {
        match field {
            "metadata.name" => Some(&self.name),
            "metadata.namespace" => Some(&self.namespace),
            _ => self
                .fields
                .iter()
                .find(|(f, _)| *f == field)
                .map(|(_, v)| &**v),
        }
    }

    /// The served bytes.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.served.bytes
    }

    /// The object, decoded, with its resourceVersion.
    pub(crate) fn decode(&self) -> Value {
        serde_json::from_slice(&self.served.bytes).expect("the cache holds JSON")
    }
}

fn labels_of(object: &Value) -> Box<[(Box<str>, Box<str>)]> {
    let labels = object
        .pointer("/metadata/labels")
        .and_then(Value::as_object);
    labels
        .into_iter()
        .flatten()
        .filter_map(|(k, v)| v.as_str().map(|v| (k.as_str().into(), v.into())))
        .collect()
}

impl Labels for Entry {
    fn label(&self, key: &str) -> Option<&str> {
        self.labels
            .iter()
            .find(|(k, _)| **k == *key)
            .map(|(_, v)| &**v)
    }
}
