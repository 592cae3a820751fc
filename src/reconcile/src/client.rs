//! [`Client`]: typed calls over an [`Api`].

use std::sync::Arc;

use bytes::Bytes;
use kontiki_api::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::source::{Api, CallError, ListParams, PatchKind, Request, Verb};

/// How many objects [`Client::list`] asks for at a time.
const LIST_PAGE_OBJECTS: usize = 500;

/// Typed calls in the name of one field manager. Clones share the connection.
#[derive(Clone)]
pub struct Client {
    api: Arc<dyn Api>,
    manager: &'static str,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("manager", &self.manager)
            .finish_non_exhaustive()
    }
}

fn read<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, CallError> {
    serde_json::from_slice(bytes).map_err(|e| CallError::Malformed(e.to_string()))
}

fn write(body: &impl Serialize) -> Result<Bytes, CallError> {
    serde_json::to_vec(body)
        .map(Bytes::from)
        .map_err(|e| CallError::Malformed(e.to_string()))
}

/// Options of [`Client::delete`].
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeleteOptions {
    /// Seconds of grace; `Some(0)` deletes at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_period_seconds: Option<i64>,
    /// What must hold for the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preconditions: Option<Preconditions>,
    /// `Foreground`, `Background` or `Orphan`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub propagation_policy: Option<&'static str>,
}

/// What must hold for an object to be deleted.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Preconditions {
    /// The uid that it must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// The resourceVersion that it must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
}

impl Client {
    /// A client that writes as this field manager.
    pub fn new(api: Arc<dyn Api>, manager: &'static str) -> Client {
        Client { api, manager }
    }

    /// What carries the calls.
    pub fn api(&self) -> &Arc<dyn Api> {
        &self.api
    }

    /// Reads an object.
    ///
    /// # Errors
    /// The server's refusal, or that no answer came.
    pub async fn get<T: DeserializeOwned>(
        &self,
        r: &'static Resource,
        ns: &str,
        name: &str,
    ) -> Result<T, CallError> {
        read(&self.call(Verb::Get, r, ns, name, "", Bytes::new()).await?)
    }

    /// Reads all objects, page by page.
    ///
    /// # Errors
    /// The server's refusal, or that no answer came.
    pub async fn list<T: DeserializeOwned>(
        &self,
        r: &'static Resource,
        mut p: ListParams,
    ) -> Result<Vec<T>, CallError> {
        p.limit = LIST_PAGE_OBJECTS;
        let mut out = Vec::new();
        loop {
            let page = self.api.list(r, p.clone()).await?;
            for item in &page.items {
                out.push(read(item)?);
            }
            if page.continue_token.is_empty() {
                return Ok(out);
            }
            p.continue_token = page.continue_token;
        }
    }

    /// Creates an object; the answer is what was stored.
    ///
    /// # Errors
    /// The server's refusal, or that no answer came.
    pub async fn create(
        &self,
        r: &'static Resource,
        ns: &str,
        object: &impl Serialize,
    ) -> Result<Value, CallError> {
        read(
            &self
                .call(Verb::Create, r, ns, "", "", write(object)?)
                .await?,
        )
    }

    /// Creates a subresource of an object, as a pod's `binding` or `eviction`.
    ///
    /// # Errors
    /// The server's refusal, or that no answer came.
    pub async fn create_subresource(
        &self,
        r: &'static Resource,
        (ns, name): (&str, &str),
        subresource: &'static str,
        object: &impl Serialize,
    ) -> Result<Value, CallError> {
        read(
            &self
                .call(Verb::Create, r, ns, name, subresource, write(object)?)
                .await?,
        )
    }

    /// Replaces an object or (with a subresource) a part of it. A resourceVersion in it is a precondition.
    ///
    /// # Errors
    /// The server's refusal, or that no answer came.
    pub async fn update(
        &self,
        r: &'static Resource,
        (ns, name): (&str, &str),
        subresource: &'static str,
        object: &impl Serialize,
    ) -> Result<Value, CallError> {
        read(
            &self
                .call(Verb::Update, r, ns, name, subresource, write(object)?)
                .await?,
        )
    }

    /// Patches an object or (with a subresource) a part of it. A `metadata.resourceVersion` in the patch is a precondition.
    ///
    /// # Errors
    /// The server's refusal, or that no answer came.
    pub async fn patch(
        &self,
        r: &'static Resource,
        (ns, name): (&str, &str),
        subresource: &'static str,
        kind: PatchKind,
        patch: &impl Serialize,
    ) -> Result<Value, CallError> {
        read(
            &self
                .call(Verb::Patch(kind), r, ns, name, subresource, write(patch)?)
                .await?,
        )
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// The server's refusal, or that no answer came.
    pub async fn delete(
        &self,
        r: &'static Resource,
        ns: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<(), CallError> {
        self.call(Verb::Delete, r, ns, name, "", write(options)?)
            .await
            .map(drop)
    }

    async fn call(
        &self,
        verb: Verb,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        subresource: &'static str,
        body: Bytes,
    ) -> Result<Bytes, CallError> {
        let query = match verb {
            Verb::Get | Verb::Delete => Vec::new(),
            _ => vec![("fieldManager", self.manager.to_owned())],
        };
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        self.api
            .call(Request {
                verb,
                resource,
                namespace,
                name,
                subresource,
                query,
                body,
            })
            .await
    }
}
