//! The generic engine: every verb for every kind, over the store and the caches.
//!
//! It takes and gives objects in the version in which they are stored, decoded where they are written and as served bytes
//! where they are read. HTTP and the in-process source both stand on it; it knows neither.

use std::sync::Arc;

use bytes::Bytes;
use kontiki_api::{ApiError, Reason, object};
use kontiki_base::Clock;
use kontiki_raft::{Op, Precondition, Store, StoreError, Txn, TxnOutcome};
use parking_lot::Mutex;
use serde_json::Value;

use crate::cache::{Cache, Entry, Feed};
use crate::keys;
use crate::options::WriteOptions;
use crate::registry::{Kind, Registry};
use crate::stored;
use crate::strategy::{Context, Objects};
use crate::user::User;

mod admission;
mod create;
mod delete;
mod list;
pub(crate) mod metadata;
mod namespaces;
mod patch;
mod pods;
mod read;
mod scale;
mod update;
mod watch;

pub(crate) use list::{List, ListOptions, selectors};
pub(crate) use patch::Patch;
pub(crate) use scale::SCALE;
pub(crate) use update::Part;
pub(crate) use watch::{Told, Watch, WatchOptions};

/// The largest object that is stored, in bytes; upstream's store refuses larger requests (`--max-request-bytes`).
pub(crate) const OBJECT_BYTES_MAX: usize = 1_572_864;
/// How often a write that states no resourceVersion is tried again when somebody else was faster.
pub(crate) const CONFLICT_RETRIES_MAX: usize = 16;

/// The words of upstream's optimistic lock.
pub(crate) const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// What a call brings along beside the object.
pub(crate) struct Call<'a> {
    /// Who asks.
    pub(crate) user: &'a User,
    /// How to write.
    pub(crate) options: WriteOptions,
    /// What the client is warned of, whatever becomes of the call.
    warnings: Mutex<Vec<String>>,
}

impl<'a> Call<'a> {
    pub(crate) fn new(user: &'a User, options: WriteOptions) -> Call<'a> {
        Call {
            user,
            options,
            warnings: Mutex::default(),
        }
    }

    /// Warns the client, once of each thing.
    pub(crate) fn warn(&self, warnings: Vec<String>) {
        let mut all = self.warnings.lock();
        for w in warnings {
            if !all.contains(&w) {
                all.push(w);
            }
        }
    }

    /// The warnings so far.
    pub(crate) fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.warnings.lock())
    }
}

/// The object that a call is about.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    /// The resource, in the version of the request.
    pub(crate) kind: &'a Arc<Kind>,
    /// The namespace; empty for cluster-scoped kinds.
    pub(crate) namespace: &'a str,
    /// The object's name.
    pub(crate) name: &'a str,
}

/// What became of a write.
pub(crate) struct Written {
    /// The object as it is stored now (or, in a dry run, would be).
    pub(crate) object: Bytes,
    /// Whether it was created.
    pub(crate) created: bool,
}

/// The engine.
pub(crate) struct Engine {
    store: Arc<dyn Store>,
    registry: Registry,
    clock: Arc<dyn Clock>,
    node_ports: (u16, u16),
    /// Held while a service is written: its addresses and ports are chosen from what the caches show to be free.
    allocating: tokio::sync::Mutex<()>,
}

impl Engine {
    /// An engine over a store; its caches are empty until [`Engine::feed`] is registered.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        node_ports: (u16, u16),
    ) -> Engine {
        Engine {
            store,
            registry: Registry::new(),
            clock,
            node_ports,
            allocating: tokio::sync::Mutex::default(),
        }
    }

    /// Writes of services come one after the other.
    async fn turn(&self, kind: &Kind) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        if kind.resource.group.is_empty() && kind.resource.plural == "services" {
            Some(self.allocating.lock().await)
        } else {
            None
        }
    }

    /// The observer that fills the caches.
    pub(crate) fn feed(&self) -> Arc<Feed> {
        Arc::new(Feed::new(self.registry.caches().map(|k| k.cache.clone())))
    }

    /// The resources.
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The store.
    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Now.
    pub(crate) fn now(&self) -> jiff::Timestamp {
        self.clock.now()
    }

    /// Waits until everything that is committed has reached the caches.
    async fn catch_up(&self) -> Result<u64, ApiError> {
        self.store
            .read_index()
            .await
            .map(|r| r.0)
            .map_err(|e| unavailable(&e))
    }

    /// The object as it is now; what the caches do not have yet is looked for once more after a read-index round.
    pub(crate) async fn current(&self, t: Target<'_>) -> Result<Arc<Entry>, ApiError> {
        if let Some(e) = t.kind.cache.get(t.namespace, t.name) {
            return Ok(e);
        }
        self.catch_up().await?;
        t.kind
            .cache
            .get(t.namespace, t.name)
            .ok_or_else(|| ApiError::not_found(t.kind.resource, t.name))
    }

    fn context<'a>(&'a self, namespace: &'a str, call: &'a Call<'_>, now: &'a str) -> Context<'a> {
        Context {
            namespace,
            user: &call.user.name,
            now,
            dry_run: call.options.dry_run,
            objects: self,
        }
    }

    /// Writes an object if the store still holds `before` (0: nothing). `Ok(None)`: it does not.
    async fn put(
        &self,
        cache: &Cache,
        place: (&str, &str),
        value: Bytes,
        before: u64,
    ) -> Result<Option<Bytes>, ApiError> {
        let written = self.put_at(cache, place, value.clone(), before).await?;
        Ok(written.map(|revision| match cache.get(place.0, place.1) {
            Some(e) if e.revision == revision => e.bytes().clone(),
            _ => {
                stored::Served::new(&value, revision)
                    .expect("it was just encoded")
                    .bytes
            }
        }))
    }

    /// The same; what comes back is the object's new revision.
    async fn put_at(
        &self,
        cache: &Cache,
        place: (&str, &str),
        value: Bytes,
        before: u64,
    ) -> Result<Option<u64>, ApiError> {
        if value.len() > OBJECT_BYTES_MAX {
            return Err(too_large());
        }
        let key = keys::object(cache.prefix(), place.0, place.1);
        let revision = kontiki_raft::Revision(before);
        let preconditions = vec![Precondition::ModRevision {
            key: key.clone(),
            revision,
        }];
        let ops = vec![Op::Put {
            key,
            value,
            ttl: ttl_of(cache.prefix()),
        }];
        match self
            .store
            .txn(Txn { preconditions, ops })
            .await
            .map_err(|e| unavailable(&e))?
        {
            TxnOutcome::Committed { revision, .. } => Ok(Some(revision.0)),
            TxnOutcome::PreconditionFailed { .. } => Ok(None),
        }
    }

    /// Removes an object if the store still holds `before`; false: it does not.
    async fn remove(
        &self,
        cache: &Cache,
        place: (&str, &str),
        before: u64,
    ) -> Result<bool, ApiError> {
        let key = keys::object(cache.prefix(), place.0, place.1);
        let revision = kontiki_raft::Revision(before);
        let preconditions = vec![Precondition::ModRevision {
            key: key.clone(),
            revision,
        }];
        let outcome = self
            .store
            .txn(Txn {
                preconditions,
                ops: vec![Op::Delete { key }],
            })
            .await;
        Ok(matches!(
            outcome.map_err(|e| unavailable(&e))?,
            TxnOutcome::Committed { .. }
        ))
    }
}

/// How long an event lives (upstream's `--event-ttl`).
const EVENT_TTL: std::time::Duration = std::time::Duration::from_secs(3600);

fn ttl_of(prefix: &str) -> Option<std::time::Duration> {
    (prefix == "/registry/core/events/").then_some(EVENT_TTL)
}

/// What upstream says when its store refuses a request for its size.
fn too_large() -> ApiError {
    ApiError::new(Reason::Unknown, "etcdserver: request is too large")
}

/// What a failure of the store means to a client.
pub(crate) fn unavailable(e: &StoreError) -> ApiError {
    match e {
        StoreError::Compacted { .. } => {
            ApiError::expired("The resourceVersion for the provided list is too old.")
        }
        StoreError::Overloaded { .. } => ApiError::too_many_requests(e.to_string(), 1),
        StoreError::Invalid { .. } => ApiError::bad_request(e.to_string()),
        StoreError::NotLeader { .. } | StoreError::Unavailable { .. } | StoreError::Closed => {
            let mut s = ApiError::new(Reason::ServiceUnavailable, e.to_string());
            s.0.retry_after_seconds = 1;
            s
        }
        StoreError::OutcomeUnknown { .. } => ApiError::new(Reason::Timeout, e.to_string()),
        _ => ApiError::internal(e),
    }
}

/// Reads of other objects for strategies, from this master's own caches.
impl Objects for Engine {
    fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        Some(
            self.registry
                .stored(group, plural)?
                .cache
                .get(namespace, name)?
                .decode(),
        )
    }

    fn node_ports(&self) -> std::ops::RangeInclusive<i64> {
        i64::from(self.node_ports.0)..=i64::from(self.node_ports.1)
    }

    fn each(&self, group: &str, plural: &str, visit: &mut dyn FnMut(&Value)) {
        let Some(kind) = self.registry.stored(group, plural) else {
            return;
        };
        for e in kind
            .cache
            .snapshot(&crate::cache::Filter::default())
            .entries
        {
            visit(&e.decode());
        }
    }
}

/// The object's resourceVersion as a number; 0 if it states none.
fn stated_revision(v: &Value) -> Result<u64, ApiError> {
    match object::text(v, &["metadata", "resourceVersion"]) {
        "" | "0" => Ok(0),
        s => s.parse().map_err(|_| {
            let why = format!("strconv.ParseUint: parsing {s:?}: invalid syntax");
            let path = kontiki_api::field::Path::new("metadata").child("resourceVersion");
            let e = kontiki_api::field::Error::invalid(&path, s, why);
            ApiError::invalid("", object::text(v, &["kind"]), object::name(v), &[e])
        }),
    }
}
