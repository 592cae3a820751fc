//! The OpenAPI documents: one of version 2 (JSON, or protobuf as older kubectl asks for it) and one of version 3 for
//! each group and version.
//!
//! Pure functions from the resources that are served and the built-in schemas to bytes; they take some milliseconds, so
//! the server makes each document once and keeps it. What clients read of them, and what is therefore complete: merge
//! keys, patch strategies, list types, kinds of schemas and operations, the `dryRun` and `fieldValidation` parameters.

use std::collections::BTreeSet;

use kontiki_api::Resource;
use serde_json::{Value, json};

mod gnostic;
mod operations;
mod parameters;
mod schemas;
mod v2;
mod v3;

/// What the documents describe.
#[derive(Clone, Copy, Debug)]
pub struct Api<'a> {
    /// The resources that are served.
    pub resources: &'a [&'a Resource],
    /// The version of the server, as in `v1.36.2`.
    pub version: &'a str,
}

impl Api<'_> {
    /// The groups and versions that are served, sorted.
    pub(crate) fn group_versions(&self) -> BTreeSet<(&str, &str)> {
        self.resources
            .iter()
            .map(|r| (r.group, r.version))
            .collect()
    }

    /// The document of version 2, as JSON.
    pub fn v2(&self) -> Vec<u8> {
        v2::json(self)
    }

    /// The document of version 2, in the protobuf form `application/com.github.proto-openapi.spec.v2.v1.0+protobuf`.
    pub fn v2_protobuf(&self) -> Vec<u8> {
        v2::protobuf(self)
    }

    /// The names of the documents of version 3, as in `api/v1` and `apis/apps/v1`; the index lists them.
    pub fn v3_names(&self) -> Vec<String> {
        let mut names: BTreeSet<String> = [
            ".well-known/openid-configuration",
            "api",
            "apis",
            "openid/v1/jwks",
            "version",
        ]
        .into_iter()
        .map(str::to_owned)
        .collect();
        for (group, version) in self.group_versions() {
            if group.is_empty() {
                names.insert(format!("api/{version}"));
            } else {
                names.insert(format!("apis/{group}"));
                names.insert(format!("apis/{group}/{version}"));
            }
        }
        names.into_iter().collect()
    }

    /// The document of version 3 of this name; `None` if there is none.
    pub fn v3(&self, name: &str) -> Option<Vec<u8>> {
        let operations = match name.split('/').collect::<Vec<_>>()[..] {
            ["api", version] => operations::of_group_version(self, "", version),
            ["apis", group, version] => operations::of_group_version(self, group, version),
            _ => operations::of_machinery(self, name),
        };
        if operations.is_empty() {
            None
        } else {
            Some(v3::document(self, &operations))
        }
    }
}

/// The title and version of every document.
fn info(api: &Api<'_>) -> Value {
    json!({"title": "Kubernetes", "version": api.version})
}

/// How clients authenticate, as far as the documents can say it.
fn bearer_token() -> Value {
    json!({
        "type": "apiKey", "name": "authorization", "in": "header", "description": "Bearer Token authentication",
    })
}

/// Writes a document member by member, so that it is never held as one tree.
struct Members(Vec<u8>);

impl Members {
    fn new() -> Members {
        Members(b"{".to_vec())
    }

    fn key(&mut self, name: &str) {
        if self.0.last() != Some(&b'{') {
            self.0.push(b',');
        }
        serde_json::to_writer(&mut self.0, name).expect("a string can be written to memory");
        self.0.push(b':');
    }

    fn add(&mut self, name: &str, value: &Value) {
        self.key(name);
        serde_json::to_writer(&mut self.0, value).expect("a JSON value can be written to memory");
    }

    /// A member that is an object, filled by `f`.
    fn object(&mut self, name: &str, f: impl FnOnce(&mut Members)) {
        self.key(name);
        let mut inner = Members(std::mem::take(&mut self.0));
        inner.0.push(b'{');
        f(&mut inner);
        self.0 = inner.0;
        self.0.push(b'}');
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
    }
}

#[cfg(test)]
mod tests;
