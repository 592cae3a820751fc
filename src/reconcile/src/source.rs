//! [`Api`]: the Kubernetes API as loops use it, whatever carries it.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use kontiki_api::{ApiError, Resource};

/// The format of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Strategic merge patch.
    Strategic,
    /// Server-side apply.
    Apply,
}

impl PatchKind {
    /// The media type of a patch of this kind.
    pub fn content_type(self) -> &'static str {
        match self {
            PatchKind::Json => "application/json-patch+json",
            PatchKind::Merge => "application/merge-patch+json",
            PatchKind::Strategic => "application/strategic-merge-patch+json",
            PatchKind::Apply => "application/apply-patch+yaml",
        }
    }
}

/// What a [`Request`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the verbs are the API's")]
pub enum Verb {
    Get,
    Create,
    Update,
    Patch(PatchKind),
    Delete,
}

/// One call for one object.
#[derive(Clone, Debug)]
pub struct Request {
    /// What to do.
    pub verb: Verb,
    /// The resource.
    pub resource: &'static Resource,
    /// The namespace; empty for cluster-scoped resources.
    pub namespace: String,
    /// The object's name; empty for a create (unless it is of a subresource).
    pub name: String,
    /// The subresource, or empty.
    pub subresource: &'static str,
    /// Query parameters, as in `("fieldManager", "kubelet")`; values are not yet encoded.
    pub query: Vec<(&'static str, String)>,
    /// The body as JSON (for apply patches: YAML or JSON), or empty.
    pub body: Bytes,
}

/// Which objects of a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListParams {
    /// The namespace; empty for all.
    pub namespace: String,
    /// Label selector in text form; empty for all.
    pub label_selector: String,
    /// Field selector in text form; empty for all.
    pub field_selector: String,
    /// At most this many objects; 0 for all.
    pub limit: usize,
    /// The token of the page before, or empty.
    pub continue_token: String,
}

/// A page of a list: the objects as JSON.
#[derive(Clone, Debug, Default)]
pub struct ListPage {
    /// The objects, each with its resourceVersion.
    pub items: Vec<Bytes>,
    /// The revision that the list shows.
    pub resource_version: String,
    /// Token of the next page; empty on the last.
    pub continue_token: String,
}

/// Where a watch begins, and over what.
#[derive(Clone, Debug, Default)]
pub struct WatchParams {
    /// The namespace; empty for all.
    pub namespace: String,
    /// Label selector in text form; empty for all.
    pub label_selector: String,
    /// Field selector in text form; empty for all.
    pub field_selector: String,
    /// Changes after this revision are sent.
    pub resource_version: String,
}

/// One change seen by a watch; the objects are JSON with their resourceVersion.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    /// The object was created, or came to match the selectors.
    Added(Bytes),
    /// The object was changed.
    Modified(Bytes),
    /// The object was deleted, or no longer matches; its last state.
    Deleted(Bytes),
    /// Nothing more has happened up to this revision.
    Bookmark(String),
    /// The watch is over; `Expired` asks for a new list.
    Error(ApiError),
}

/// The changes of a watch. Its end without an error asks for a new watch from the last revision seen.
pub type WatchStream = BoxStream<'static, WatchEvent>;

/// A call that did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// The server refused; nothing was changed.
    #[error("{0}")]
    Refused(ApiError),
    /// No answer came. `maybe_done` says whether the call may have been carried out all the same.
    #[error("the API cannot be reached: {reason}")]
    Unavailable {
        /// Why not.
        reason: String,
        /// Whether the request may have had its effect.
        maybe_done: bool,
    },
    /// The answer could not be read.
    #[error("the answer of the API cannot be read: {0}")]
    Malformed(String),
}

impl CallError {
    /// The server's refusal, if it was one.
    pub fn refusal(&self) -> Option<&ApiError> {
        match self {
            CallError::Refused(e) => Some(e),
            _ => None,
        }
    }

    /// Whether the server said that the object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.refusal().is_some_and(ApiError::is_not_found)
    }

    /// Whether the server said that a precondition did not hold.
    pub fn is_conflict(&self) -> bool {
        self.refusal().is_some_and(ApiError::is_conflict)
    }

    /// Whether the server said that the object exists.
    pub fn is_already_exists(&self) -> bool {
        self.refusal()
            .is_some_and(|e| e.reason() == kontiki_api::Reason::AlreadyExists)
    }
}

/// The API: in the masters the store's own engine in the same process, elsewhere HTTPS to a master.
#[async_trait]
pub trait Api: Send + Sync + 'static {
    /// Carries out one call; the answer is the object (or `Status`) as JSON.
    async fn call(&self, request: Request) -> Result<Bytes, CallError>;

    /// A page of objects.
    async fn list(
        &self,
        resource: &'static Resource,
        params: ListParams,
    ) -> Result<ListPage, CallError>;

    /// The changes after a revision.
    async fn watch(
        &self,
        resource: &'static Resource,
        params: WatchParams,
    ) -> Result<WatchStream, CallError>;
}
