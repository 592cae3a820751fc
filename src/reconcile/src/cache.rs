//! [`Cache`]: the objects of a resource as views, kept current by list and watch.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use kontiki_api::{ObjectMeta, Reason, Resource};
use kontiki_base::{Backoff, Tasks, chain};
use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::source::{Api, CallError, ListParams, WatchEvent, WatchParams};

const RETRY_DELAY_INITIAL: Duration = Duration::from_millis(50);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(5);
const LIST_PAGE_OBJECTS: usize = 500;

/// The fields of an object that a loop reads. Serde skips the others.
pub trait View: DeserializeOwned + Send + Sync + 'static {
    /// The object's metadata.
    fn metadata(&self) -> &ObjectMeta;
}

/// Which objects a cache holds.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// The namespace; empty for all.
    pub namespace: String,
    /// Label selector in text form; empty for all.
    pub label_selector: String,
    /// Field selector in text form; empty for all.
    pub field_selector: String,
}

/// A change of the cache.
#[derive(Debug)]
pub enum Event<V> {
    /// The object is new.
    Added(Arc<V>),
    /// The object was changed.
    Updated {
        /// What the cache held before.
        old: Arc<V>,
        /// What it holds now.
        new: Arc<V>,
    },
    /// The object is gone; its last known state.
    Deleted(Arc<V>),
}

impl<V> Event<V> {
    /// The object as it is now, or as it last was.
    pub fn object(&self) -> &Arc<V> {
        match self {
            Event::Added(v) | Event::Updated { new: v, .. } | Event::Deleted(v) => v,
        }
    }
}

type Handler<V> = Box<dyn Fn(&Event<V>) + Send + Sync>;
type IndexFn<V> = Box<dyn Fn(&V) -> Vec<String> + Send + Sync>;
/// Objects by namespace and name.
type Objects<V> = BTreeMap<(String, String), Arc<V>>;
/// For each value of an index, the keys of the objects that have it.
type IndexKeys = HashMap<String, BTreeMap<(String, String), ()>>;

struct Inner<V> {
    objects: RwLock<Objects<V>>,
    handlers: Mutex<Vec<Arc<Handler<V>>>>,
    indexes: RwLock<HashMap<&'static str, (IndexFn<V>, IndexKeys)>>,
    synced: watch::Sender<bool>,
    progress: Mutex<Progress>,
    /// Held while a change is made and told, so that handlers see the changes of an object in their order.
    delivery: Mutex<()>,
}

/// How far the watch has come, and what of our own writes is ahead of it.
#[derive(Default)]
struct Progress {
    /// Every change up to this revision is in the cache.
    seen: u64,
    /// Objects that [`Cache::written`] took in at a revision that the watch has not come to.
    ahead: HashMap<(String, String), u64>,
}

impl Progress {
    fn come_to(&mut self, revision: u64) {
        self.seen = self.seen.max(revision);
        self.ahead.retain(|_, own| *own > revision);
    }
}

/// A cache of views. Clones are the same cache.
pub struct Cache<V>(Arc<Inner<V>>);

impl<V> Clone for Cache<V> {
    fn clone(&self) -> Self {
        Cache(self.0.clone())
    }
}

impl<V: View> Default for Cache<V> {
    fn default() -> Self {
        Cache(Arc::new(Inner {
            objects: RwLock::default(),
            handlers: Mutex::default(),
            indexes: RwLock::default(),
            synced: watch::Sender::new(false),
            progress: Mutex::default(),
            delivery: Mutex::default(),
        }))
    }
}

impl<V: View> Cache<V> {
    /// Starts to follow a resource. Handlers and indexes should be added before (on [`Cache::default`], then
    /// [`Cache::follow`]) by who must not miss the first objects.
    pub fn start(
        tasks: &Tasks,
        api: &Arc<dyn Api>,
        resource: &'static Resource,
        selection: Selection,
    ) -> Cache<V> {
        let cache = Cache::default();
        cache.follow(tasks, api, resource, selection);
        cache
    }

    /// Lists and watches a resource into this cache until the group ends.
    pub fn follow(
        &self,
        tasks: &Tasks,
        api: &Arc<dyn Api>,
        resource: &'static Resource,
        selection: Selection,
    ) {
        let (cache, api, token) = (self.clone(), api.clone(), tasks.token().clone());
        tasks.spawn_restarting(format!("cache-{}", resource.plural), move || {
            let (cache, api, token, selection) =
                (cache.clone(), api.clone(), token.clone(), selection.clone());
            async move {
                tokio::select! {
                    () = token.cancelled() => {}
                    () = cache.run(&*api, resource, &selection) => {}
                }
            }
        });
    }

    /// Calls back for every change, in order, from the task that follows the resource: handlers do little, as
    /// adding a key to a queue. Objects that are already there come as `Added`, before this returns.
    pub fn on_event(&self, handler: impl Fn(&Event<V>) + Send + Sync + 'static) {
        let handler: Arc<Handler<V>> = Arc::new(Box::new(handler));
        let _delivery = self.0.delivery.lock();
        for v in self.list() {
            handler(&Event::Added(v));
        }
        self.0.handlers.lock().push(handler);
    }

    /// Adds an index: `values` gives the values that an object is found by with [`Cache::by_index`].
    pub fn add_index(
        &self,
        name: &'static str,
        values: impl Fn(&V) -> Vec<String> + Send + Sync + 'static,
    ) {
        let objects = self.0.objects.read();
        let mut keys = IndexKeys::new();
        for (k, v) in objects.iter() {
            for value in values(v) {
                keys.entry(value).or_default().insert(k.clone(), ());
            }
        }
        self.0
            .indexes
            .write()
            .insert(name, (Box::new(values), keys));
    }

    /// Waits until the first list is in the cache.
    pub async fn synced(&self) {
        // The sender lives in the cache itself, so that it cannot be gone.
        let _ = self.0.synced.subscribe().wait_for(|s| *s).await;
    }

    /// Whether the first list is in the cache.
    pub fn is_synced(&self) -> bool {
        *self.0.synced.borrow()
    }

    /// The object of this name; the namespace of a cluster-scoped one is empty.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<V>> {
        self.0
            .objects
            .read()
            .get(&(namespace.to_owned(), name.to_owned()))
            .cloned()
    }

    /// All objects, by namespace and name.
    pub fn list(&self) -> Vec<Arc<V>> {
        self.0.objects.read().values().cloned().collect()
    }

    /// The objects of a namespace, by name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<V>> {
        let start = (namespace.to_owned(), String::new());
        self.0
            .objects
            .read()
            .range(start..)
            .take_while(|((ns, _), _)| ns == namespace)
            .map(|(_, v)| v.clone())
            .collect()
    }

    /// The objects that have this value in an index.
    ///
    /// # Panics
    /// If there is no such index.
    pub fn by_index(&self, index: &'static str, value: &str) -> Vec<Arc<V>> {
        let objects = self.0.objects.read();
        let indexes = self.0.indexes.read();
        let (_, keys) = indexes
            .get(index)
            .unwrap_or_else(|| panic!("the cache has no index {index}"));
        keys.get(value)
            .map(|k| k.keys().filter_map(|k| objects.get(k).cloned()).collect())
            .unwrap_or_default()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.0.objects.read().len()
    }

    /// Whether there are no objects.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes in the answer to a write of our own, so that who wrote reads it at once and not only when the watch has
    /// brought it. An answer that the watch has overtaken, or that is not an object (a `Status`), changes nothing.
    pub fn written(&self, answer: &serde_json::Value) {
        let Ok(view) = V::deserialize(answer) else {
            return;
        };
        let revision = revision_of(view.metadata());
        let key = (
            view.metadata().namespace.clone(),
            view.metadata().name.clone(),
        );
        let _delivery = self.0.delivery.lock();
        {
            let mut progress = self.0.progress.lock();
            if revision <= progress.seen {
                return;
            }
            let have = self
                .0
                .objects
                .read()
                .get(&key)
                .map_or(0, |o| revision_of(o.metadata()));
            if revision <= have {
                return;
            }
            progress.ahead.insert(key, revision);
        }
        self.insert_delivered(view);
    }

    /// Whether the object was written by us at a later revision than this one of the watch. An entry that the watch has
    /// come to is forgotten.
    fn is_behind(&self, key: &(String, String), revision: u64) -> bool {
        let mut progress = self.0.progress.lock();
        progress.seen = progress.seen.max(revision);
        match progress.ahead.get(key) {
            Some(own) if *own > revision => true,
            Some(_) => {
                progress.ahead.remove(key);
                false
            }
            None => false,
        }
    }

    fn watched(&self, view: V) {
        let _delivery = self.0.delivery.lock();
        let (m, revision) = (view.metadata(), revision_of(view.metadata()));
        let key = (m.namespace.clone(), m.name.clone());
        let have = self.get(&m.namespace, &m.name);
        let known = have.is_some_and(|o| revision > 0 && revision_of(o.metadata()) == revision);
        if !self.is_behind(&key, revision) && !known {
            self.insert_delivered(view);
        }
    }

    fn watched_deletion(&self, m: &ObjectMeta) {
        let _delivery = self.0.delivery.lock();
        if !self.is_behind(&(m.namespace.clone(), m.name.clone()), revision_of(m)) {
            self.remove_delivered(&m.namespace, &m.name);
        }
    }

    /// Puts an object into the cache, as a watch event would.
    pub fn insert(&self, view: V) {
        let _delivery = self.0.delivery.lock();
        self.insert_delivered(view);
    }

    fn insert_delivered(&self, view: V) {
        let key = (
            view.metadata().namespace.clone(),
            view.metadata().name.clone(),
        );
        let new = Arc::new(view);
        let old = {
            let mut objects = self.0.objects.write();
            let old = objects.insert(key.clone(), new.clone());
            self.reindex(&key, old.as_deref(), Some(&new));
            old
        };
        self.tell(&match old {
            Some(old) => Event::Updated { old, new },
            None => Event::Added(new),
        });
    }

    /// Takes an object out of the cache, as a watch event would.
    pub fn remove(&self, namespace: &str, name: &str) {
        let _delivery = self.0.delivery.lock();
        self.remove_delivered(namespace, name);
    }

    fn remove_delivered(&self, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        let old = {
            let mut objects = self.0.objects.write();
            let old = objects.remove(&key);
            self.reindex(&key, old.as_deref(), None);
            old
        };
        if let Some(old) = old {
            self.tell(&Event::Deleted(old));
        }
    }

    fn reindex(&self, key: &(String, String), old: Option<&V>, new: Option<&V>) {
        for (values, keys) in self.0.indexes.write().values_mut() {
            for value in old.map(&*values).unwrap_or_default() {
                if let Some(k) = keys.get_mut(&value) {
                    k.remove(key);
                    if k.is_empty() {
                        keys.remove(&value);
                    }
                }
            }
            for value in new.map(&*values).unwrap_or_default() {
                keys.entry(value).or_default().insert(key.clone(), ());
            }
        }
    }

    fn tell(&self, event: &Event<V>) {
        let handlers = self.0.handlers.lock().clone();
        for h in handlers {
            h(event);
        }
    }

    async fn run(&self, api: &dyn Api, resource: &'static Resource, selection: &Selection) {
        let mut backoff = Backoff::new(RETRY_DELAY_INITIAL, RETRY_DELAY_MAX);
        let mut revision = String::new();
        loop {
            let result = if revision.is_empty() {
                self.relist(api, resource, selection)
                    .await
                    .map(|r| revision = r)
            } else {
                self.watch(api, resource, selection, &mut revision).await
            };
            match result {
                Ok(()) => backoff.reset(),
                Err(e) => {
                    let expired = e
                        .refusal()
                        .is_some_and(|e| matches!(e.reason(), Reason::Expired | Reason::Gone));
                    if expired {
                        revision.clear();
                    }
                    tracing::debug!(
                        resource = resource.plural,
                        error = chain(&e),
                        "following the resource was interrupted"
                    );
                    tokio::time::sleep(backoff.next_delay()).await;
                }
            }
        }
    }

    async fn relist(
        &self,
        api: &dyn Api,
        resource: &'static Resource,
        selection: &Selection,
    ) -> Result<String, CallError> {
        let mut params = ListParams {
            namespace: selection.namespace.clone(),
            label_selector: selection.label_selector.clone(),
            field_selector: selection.field_selector.clone(),
            limit: LIST_PAGE_OBJECTS,
            continue_token: String::new(),
        };
        let mut seen = Vec::new();
        let revision = loop {
            let page = api.list(resource, params.clone()).await?;
            for item in &page.items {
                seen.push(parse::<V>(item)?);
            }
            if page.continue_token.is_empty() {
                break page.resource_version;
            }
            params.continue_token = page.continue_token;
        };
        let names: std::collections::BTreeSet<(String, String)> = seen
            .iter()
            .map(|v| (v.metadata().namespace.clone(), v.metadata().name.clone()))
            .collect();
        let gone: Vec<_> = self
            .0
            .objects
            .read()
            .keys()
            .filter(|k| !names.contains(*k))
            .cloned()
            .collect();
        for (namespace, name) in gone {
            let resource_version = revision.clone();
            let m = ObjectMeta {
                namespace,
                name,
                resource_version,
                ..ObjectMeta::default()
            };
            self.watched_deletion(&m);
        }
        for v in seen {
            self.watched(v);
        }
        self.0
            .progress
            .lock()
            .come_to(revision.parse().unwrap_or(0));
        self.0.synced.send_replace(true);
        Ok(revision)
    }

    async fn watch(
        &self,
        api: &dyn Api,
        resource: &'static Resource,
        selection: &Selection,
        revision: &mut String,
    ) -> Result<(), CallError> {
        let params = WatchParams {
            namespace: selection.namespace.clone(),
            label_selector: selection.label_selector.clone(),
            field_selector: selection.field_selector.clone(),
            resource_version: revision.clone(),
        };
        let mut stream = api.watch(resource, params).await?;
        while let Some(event) = stream.next().await {
            match event {
                WatchEvent::Added(b) | WatchEvent::Modified(b) => {
                    let v = parse::<V>(&b)?;
                    revision.clone_from(&v.metadata().resource_version);
                    self.watched(v);
                }
                WatchEvent::Deleted(b) => {
                    let v = parse::<V>(&b)?;
                    revision.clone_from(&v.metadata().resource_version);
                    self.watched_deletion(v.metadata());
                }
                WatchEvent::Bookmark(r) => {
                    self.0.progress.lock().come_to(r.parse().unwrap_or(0));
                    *revision = r;
                }
                WatchEvent::Error(e) => return Err(CallError::Refused(e)),
            }
        }
        Ok(())
    }
}

/// Revisions are ordered numbers; 0 for an object without one.
fn revision_of(m: &ObjectMeta) -> u64 {
    m.resource_version.parse().unwrap_or(0)
}

fn parse<V: View>(bytes: &Bytes) -> Result<V, CallError> {
    serde_json::from_slice(bytes).map_err(|e| CallError::Malformed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Clone, Debug, Deserialize)]
    struct Thing {
        metadata: ObjectMeta,
    }

    impl View for Thing {
        fn metadata(&self) -> &ObjectMeta {
            &self.metadata
        }
    }

    fn thing(ns: &str, name: &str, app: &str) -> Thing {
        let labels = [("app".to_owned(), app.to_owned())].into();
        Thing {
            metadata: ObjectMeta {
                namespace: ns.into(),
                name: name.into(),
                labels,
                ..ObjectMeta::default()
            },
        }
    }

    #[test]
    fn handlers_and_indexes_follow_every_change() {
        let cache = Cache::<Thing>::default();
        cache.insert(thing("a", "x", "1"));
        cache.add_index("app", |t| t.metadata.labels.values().cloned().collect());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        cache.on_event(move |e| {
            let kind = match e {
                Event::Added(_) => "added",
                Event::Updated { .. } => "updated",
                Event::Deleted(_) => "deleted",
            };
            log.lock().push((kind, e.object().metadata.key()));
        });
        cache.insert(thing("a", "x", "2"));
        cache.insert(thing("b", "y", "2"));
        assert_eq!(cache.by_index("app", "1").len(), 0);
        assert_eq!(cache.by_index("app", "2").len(), 2);
        assert_eq!(cache.in_namespace("a").len(), 1);
        cache.remove("b", "y");
        cache.remove("b", "y");
        assert_eq!(cache.by_index("app", "2").len(), 1);
        let want = [
            ("added", "a/x"),
            ("updated", "a/x"),
            ("added", "b/y"),
            ("deleted", "b/y"),
        ];
        assert_eq!(*seen.lock(), want.map(|(k, n)| (k, n.to_owned())));
    }

    fn at(mut t: Thing, revision: u64) -> Thing {
        t.metadata.resource_version = revision.to_string();
        t
    }

    #[test]
    fn own_writes_are_read_at_once_and_the_watch_does_not_undo_them() {
        let cache = Cache::<Thing>::default();
        let own = |app: &str, revision: u64| {
            let metadata = at(thing("a", "x", app), revision).metadata;
            cache.written(&serde_json::json!({ "metadata": metadata }));
        };
        let app = || {
            cache
                .get("a", "x")
                .map(|t| t.metadata.labels["app"].clone())
        };
        cache.watched(at(thing("a", "x", "1"), 5));
        own("3", 7);
        assert_eq!(app().as_deref(), Some("3"));
        cache.watched(at(thing("a", "x", "2"), 6));
        assert_eq!(app().as_deref(), Some("3"), "the watch is behind");
        cache.watched(at(thing("a", "x", "3"), 7));
        cache.watched_deletion(&at(thing("a", "x", "3"), 8).metadata);
        own("3", 7);
        assert_eq!(app(), None, "the answer came after the watch");
        own("9", 9);
        cache.watched_deletion(&at(thing("a", "x", "3"), 8).metadata);
        assert_eq!(app().as_deref(), Some("9"), "an old deletion is not ours");
    }

    #[tokio::test]
    async fn a_cache_follows_the_api_and_survives_compaction() {
        let (fake, tasks) = (crate::fake::FakeApi::default(), Tasks::default());
        let r = kontiki_api::catalogue::known::configmaps();
        let put = |name: &str| {
            fake.put(
                r,
                serde_json::json!({"metadata": {"namespace": "a", "name": name}}),
            )
        };
        put("x");
        let cache = Cache::<Thing>::start(&tasks, &fake.api(), r, Selection::default());
        cache.synced().await;
        assert_eq!(cache.len(), 1);
        put("y");
        fake.remove(r, "a", "x");
        fake.compact();
        put("z");
        let names = || {
            cache
                .list()
                .iter()
                .map(|t| t.metadata.name.clone())
                .collect::<Vec<_>>()
        };
        tokio::time::timeout(Duration::from_secs(10), async {
            while names() != ["y", "z"] {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("the cache catches up");
        tasks.stop().await;
    }
}
