//! [`FakeApi`]: an API in memory, for the tests of loops.
//!
//! It keeps the semantics that loops depend on: resourceVersions and conflicts, watches from a revision, selectors,
//! generation, finalizers, graceful deletion of pods, the subresources `status`, `binding` and `finalize`. It does not
//! validate or default, and refuses strategic and apply patches, whose rules need schemas.

mod object;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use kontiki_api::{ApiError, Reason, Resource, fields, labels, object as read};
use kontiki_base::{Clock, SystemClock};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;

use crate::source::{
    Api, CallError, ListPage, ListParams, PatchKind, Request, Verb, WatchEvent, WatchParams,
    WatchStream,
};

/// Group, plural name, namespace, name.
type Key = (&'static str, &'static str, String, String);
type Judge = Box<dyn Fn(&Request) -> Option<CallError> + Send>;

struct Change {
    revision: u64,
    group: &'static str,
    plural: &'static str,
    old: Option<Value>,
    new: Option<Value>,
}

struct State {
    revision: u64,
    /// Changes up to this revision have been forgotten.
    compacted: u64,
    serial: u64,
    objects: BTreeMap<Key, Value>,
    history: VecDeque<Change>,
    requests: Vec<Request>,
    judge: Option<Judge>,
}

/// An API in memory. Clones are the same API.
#[derive(Clone)]
pub struct FakeApi {
    state: Arc<Mutex<State>>,
    revision: watch::Sender<u64>,
    clock: Arc<dyn Clock>,
}

impl Default for FakeApi {
    fn default() -> Self {
        FakeApi::new(Arc::new(SystemClock))
    }
}

impl std::fmt::Debug for FakeApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeApi")
            .field("revision", &*self.revision.borrow())
            .finish_non_exhaustive()
    }
}

impl FakeApi {
    /// An empty API that stamps objects with this clock's time.
    pub fn new(clock: Arc<dyn Clock>) -> FakeApi {
        let state = State {
            revision: 1,
            compacted: 0,
            serial: 0,
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            requests: Vec::new(),
            judge: None,
        };
        FakeApi {
            state: Arc::new(Mutex::new(state)),
            revision: watch::Sender::new(1),
            clock,
        }
    }

    /// As the trait object that components take.
    pub fn api(&self) -> Arc<dyn Api> {
        Arc::new(self.clone())
    }

    /// Asks `judge` before each call; what it returns is the answer instead.
    pub fn fail_when(&self, judge: impl Fn(&Request) -> Option<CallError> + Send + 'static) {
        self.state.lock().judge = Some(Box::new(judge));
    }

    /// The calls so far, in order.
    pub fn requests(&self) -> Vec<Request> {
        self.state.lock().requests.clone()
    }

    /// Forgets the history: watches from earlier revisions are answered with `Expired`.
    pub fn compact(&self) {
        let mut s = self.state.lock();
        s.compacted = s.revision;
        s.history.clear();
    }

    /// Puts an object as it is (with a uid, times and a generation if it lacks them), and returns what is stored.
    /// One that exists is replaced, its status included.
    pub fn put(&self, r: &'static Resource, mut object: Value) -> Value {
        let mut s = self.state.lock();
        let key = key_of(r, read::namespace(&object), read::name(&object));
        let old = s.objects.get(&key).cloned();
        s.stamp_new(r, &mut object, &*self.clock, old.as_ref());
        s.store(r, key, old, Some(object.clone()));
        self.revision.send_replace(s.revision);
        let stored = s
            .objects
            .get(&key_of(r, read::namespace(&object), read::name(&object)));
        stored.cloned().expect("it was just stored")
    }

    /// The object, if there is one.
    pub fn object(&self, r: &'static Resource, namespace: &str, name: &str) -> Option<Value> {
        self.state
            .lock()
            .objects
            .get(&key_of(r, namespace, name))
            .cloned()
    }

    /// All objects of a resource.
    pub fn objects(&self, r: &'static Resource) -> Vec<Value> {
        let s = self.state.lock();
        s.objects
            .iter()
            .filter(|(k, _)| (k.0, k.1) == (r.group, r.plural))
            .map(|(_, v)| v.clone())
            .collect()
    }

    /// Takes an object away at once, whatever its finalizers say.
    pub fn remove(&self, r: &'static Resource, namespace: &str, name: &str) {
        let mut s = self.state.lock();
        let key = key_of(r, namespace, name);
        if let Some(old) = s.objects.get(&key).cloned() {
            s.store(r, key, Some(old), None);
            self.revision.send_replace(s.revision);
        }
    }

    /// Waits until `done` holds for the objects of a resource.
    ///
    /// # Panics
    /// If it does not within ten seconds.
    pub async fn wait_for(
        &self,
        r: &'static Resource,
        what: &str,
        done: impl Fn(&[Value]) -> bool,
    ) {
        let mut changes = self.revision.subscribe();
        let waited = tokio::time::timeout(std::time::Duration::from_secs(10), async {
            while !done(&self.objects(r)) {
                changes.changed().await.expect("the sender lives in self");
            }
        });
        if waited.await.is_err() {
            let shown: Vec<String> = self.objects(r).iter().map(Value::to_string).collect();
            panic!(
                "{} never {what}; there are:\n{}",
                r.plural,
                shown.join("\n")
            );
        }
    }

    fn carry_out(&self, request: &Request) -> Result<Value, CallError> {
        let mut s = self.state.lock();
        s.requests.push(request.clone());
        if let Some(e) = s.judge.as_ref().and_then(|judge| judge(request)) {
            return Err(e);
        }
        let answer = s.call(request, &*self.clock).map_err(CallError::Refused);
        self.revision.send_replace(s.revision);
        answer
    }
}

fn key_of(r: &'static Resource, namespace: &str, name: &str) -> Key {
    let namespace = if r.namespaced { namespace } else { "" };
    (r.group, r.plural, namespace.to_owned(), name.to_owned())
}

impl State {
    /// Stores a change and remembers it for watches. The new object gets the revision.
    fn store(&mut self, r: &'static Resource, key: Key, old: Option<Value>, new: Option<Value>) {
        self.revision += 1;
        let new = new.map(|mut v| {
            v["metadata"]["resourceVersion"] = self.revision.to_string().into();
            v
        });
        match &new {
            Some(v) => self.objects.insert(key, v.clone()),
            None => self.objects.remove(&key),
        };
        let (revision, group, plural) = (self.revision, r.group, r.plural);
        self.history.push_back(Change {
            revision,
            group,
            plural,
            old,
            new,
        });
    }

    fn call(&mut self, q: &Request, clock: &dyn Clock) -> Result<Value, ApiError> {
        let r = q.resource;
        let body: Value = if q.body.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&q.body).map_err(|e| ApiError::bad_request(e.to_string()))?
        };
        if q.verb == Verb::Create && q.subresource.is_empty() {
            return self.create(r, &q.namespace, body, clock);
        }
        let key = key_of(r, &q.namespace, &q.name);
        let old = self
            .objects
            .get(&key)
            .cloned()
            .ok_or_else(|| ApiError::not_found(r, &q.name))?;
        let changed = match q.verb {
            Verb::Get => return Ok(old),
            Verb::Delete => return self.delete(r, &key, old, &body, clock),
            Verb::Create => object::bind(r, q.subresource, &old, &body)?,
            Verb::Update => {
                object::check_preconditions(r, &old, &body)?;
                object::merge_part(q.subresource, &old, body)
            }
            Verb::Patch(kind) => {
                if kind == PatchKind::Merge {
                    object::check_preconditions(r, &old, &body)?;
                }
                let patched = object::patch(kind, &old, &q.body)?;
                object::merge_part(q.subresource, &old, patched)
            }
        };
        let changed = object::keep_system_fields(&old, changed);
        if changed == old {
            return Ok(old);
        }
        let gone = object::is_finished(r, &changed);
        self.store(r, key.clone(), Some(old), (!gone).then(|| changed.clone()));
        Ok(self.objects.get(&key).cloned().unwrap_or(changed))
    }

    fn create(
        &mut self,
        r: &'static Resource,
        namespace: &str,
        mut object: Value,
        clock: &dyn Clock,
    ) -> Result<Value, ApiError> {
        if read::name(&object).is_empty() {
            let base = read::text(&object, &["metadata", "generateName"]);
            if base.is_empty() {
                return Err(ApiError::bad_request("name or generateName is required"));
            }
            object["metadata"]["name"] = kontiki_api::names::generate(base).into();
        }
        if r.namespaced {
            object["metadata"]["namespace"] = namespace.into();
        }
        let key = key_of(r, namespace, read::name(&object));
        if self.objects.contains_key(&key) {
            return Err(ApiError::already_exists(r, read::name(&object)));
        }
        self.stamp_new(r, &mut object, clock, None);
        self.store(r, key.clone(), None, Some(object));
        Ok(self.objects[&key].clone())
    }

    fn stamp_new(
        &mut self,
        r: &'static Resource,
        object: &mut Value,
        clock: &dyn Clock,
        old: Option<&Value>,
    ) {
        self.serial += 1;
        let serial = self.serial;
        object["apiVersion"] = r.api_version().into();
        object["kind"] = r.kind.into();
        let now = read::time_text(clock.now());
        let m = read::map_mut(object, &["metadata"]);
        let old_meta = old.map(|o| &o["metadata"]);
        let mut keep = |field: &str, fresh: Value| {
            let kept = old_meta
                .map(|o| o[field].clone())
                .filter(|v| !v.is_null())
                .unwrap_or(fresh);
            m.entry(field).or_insert(kept);
        };
        keep(
            "uid",
            format!("00000000-0000-0000-0000-{serial:012}").into(),
        );
        keep("creationTimestamp", now.into());
        keep("generation", 1.into());
        if (r.group, r.plural) == ("", "namespaces") && object["spec"]["finalizers"].is_null() {
            object["spec"]["finalizers"] = serde_json::json!(["kubernetes"]);
            object["status"]["phase"] = "Active".into();
        }
    }

    fn delete(
        &mut self,
        r: &'static Resource,
        key: &Key,
        old: Value,
        options: &Value,
        clock: &dyn Clock,
    ) -> Result<Value, ApiError> {
        object::check_preconditions(
            r,
            &old,
            &serde_json::json!({ "metadata": options["preconditions"] }),
        )?;
        let marked = object::mark_deleted(r, &old, options, clock.now());
        let gone = object::is_finished(r, &marked);
        if gone || marked != old {
            self.store(r, key.clone(), Some(old), (!gone).then(|| marked.clone()));
        }
        Ok(self.objects.get(key).cloned().unwrap_or(marked))
    }

    /// The events after this revision for a watch, and the revision up to which they go.
    fn events_after(&self, r: &Resource, filter: &Filter, after: u64) -> (Vec<WatchEvent>, u64) {
        let changes = self
            .history
            .iter()
            .filter(|c| c.revision > after && (c.group, c.plural) == (r.group, r.plural));
        let events = changes.filter_map(|c| {
            let matched = |v: &Option<Value>| v.as_ref().is_some_and(|v| filter.matches(v));
            let bytes = |v: &Option<Value>| {
                let mut v = v.clone().unwrap_or_default();
                v["metadata"]["resourceVersion"] = c.revision.to_string().into();
                Bytes::from(v.to_string())
            };
            match (matched(&c.old), matched(&c.new)) {
                (false, true) => Some(WatchEvent::Added(bytes(&c.new))),
                (true, true) => Some(WatchEvent::Modified(bytes(&c.new))),
                (true, false) => Some(WatchEvent::Deleted(bytes(&c.old))),
                (false, false) => None,
            }
        });
        (events.collect(), self.revision)
    }
}

/// What a list or watch shows.
struct Filter {
    namespace: String,
    labels: labels::Selector,
    fields: fields::Selector,
}

impl Filter {
    fn new(namespace: &str, label_text: &str, field_text: &str) -> Result<Filter, CallError> {
        let refused = |e: String| CallError::Refused(ApiError::bad_request(e));
        Ok(Filter {
            namespace: namespace.to_owned(),
            labels: labels::Selector::parse(label_text).map_err(refused)?,
            fields: fields::Selector::parse(field_text).map_err(refused)?,
        })
    }

    fn matches(&self, v: &Value) -> bool {
        (self.namespace.is_empty() || read::namespace(v) == self.namespace)
            && self.labels.matches(&v["metadata"]["labels"])
            && self.fields.matches(|f| {
                read::get(v, &f.split('.').collect::<Vec<_>>()).and_then(Value::as_str)
            })
    }
}

#[async_trait]
impl Api for FakeApi {
    async fn call(&self, request: Request) -> Result<Bytes, CallError> {
        self.carry_out(&request).map(|v| Bytes::from(v.to_string()))
    }

    async fn list(&self, r: &'static Resource, p: ListParams) -> Result<ListPage, CallError> {
        let filter = Filter::new(&p.namespace, &p.label_selector, &p.field_selector)?;
        let s = self.state.lock();
        let start: usize = if p.continue_token.is_empty() {
            0
        } else {
            let bad = |_| CallError::Refused(ApiError::bad_request("continue key is not valid"));
            p.continue_token.parse().map_err(bad)?
        };
        let found: Vec<&Value> = s
            .objects
            .iter()
            .filter(|(k, v)| (k.0, k.1) == (r.group, r.plural) && filter.matches(v))
            .map(|(_, v)| v)
            .collect();
        let end = if p.limit == 0 {
            found.len()
        } else {
            found.len().min(start + p.limit)
        };
        let items = found[start.min(end)..end]
            .iter()
            .map(|v| Bytes::from(v.to_string()))
            .collect();
        let continue_token = if end < found.len() {
            end.to_string()
        } else {
            String::new()
        };
        Ok(ListPage {
            items,
            resource_version: s.revision.to_string(),
            continue_token,
        })
    }

    async fn watch(&self, r: &'static Resource, p: WatchParams) -> Result<WatchStream, CallError> {
        let filter = Filter::new(&p.namespace, &p.label_selector, &p.field_selector)?;
        let after: u64 = p.resource_version.parse().map_err(|_| {
            CallError::Refused(ApiError::new(
                Reason::BadRequest,
                "invalid resource version",
            ))
        })?;
        let start = (self.state.clone(), self.revision.subscribe(), filter, after);
        let batches = stream::unfold(Some(start), move |at| async move {
            let (state, mut changes, filter, after) = at?;
            loop {
                let (events, revision) = {
                    let s = state.lock();
                    if after < s.compacted {
                        let e = WatchEvent::Error(ApiError::expired("too old resource version"));
                        return Some((stream::iter(vec![e]), None));
                    }
                    s.events_after(r, &filter, after)
                };
                if !events.is_empty() {
                    return Some((
                        stream::iter(events),
                        Some((state, changes, filter, revision)),
                    ));
                }
                // The sender is gone when the API is: then there is nothing to come.
                changes.changed().await.ok()?;
            }
        });
        Ok(batches.flatten().boxed())
    }
}

#[cfg(test)]
mod tests;
