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
        let objects = self.0.objects.read();
        for v in objects.values() {
            handler(&Event::Added(v.clone()));
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

    /// Puts an object into the cache, as a watch event would.
    pub fn insert(&self, view: V) {
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
        for (ns, name) in gone {
            self.remove(&ns, &name);
        }
        for v in seen {
            let m = v.metadata();
            // An object that has not changed since is no event.
            let same = self.get(&m.namespace, &m.name).is_some_and(|o| {
                !m.resource_version.is_empty()
                    && o.metadata().resource_version == m.resource_version
            });
            if !same {
                self.insert(v);
            }
        }
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
                    self.insert(v);
                }
                WatchEvent::Deleted(b) => {
                    let v = parse::<V>(&b)?;
                    revision.clone_from(&v.metadata().resource_version);
                    self.remove(&v.metadata().namespace, &v.metadata().name);
                }
                WatchEvent::Bookmark(r) => *revision = r,
                WatchEvent::Error(e) => return Err(CallError::Refused(e)),
            }
        }
        Ok(())
    }
}

fn parse<V: View>(bytes: &Bytes) -> Result<V, CallError> {
    serde_json::from_slice(bytes).map_err(|e| CallError::Malformed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
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
}
