//! [`Context`]: what every loop is given, caches that are shared among them included.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;

use kontiki_api::{ObjectMeta, Resource};
use kontiki_base::{Clock, Tasks};
use kontiki_reconcile::{Api, Cache, Client, Recorder, Selection, View};
use parking_lot::Mutex;
use serde_json::{Value, json};

/// The namespace and name of an object; the key that most loops work with.
pub type Key = (String, String);

/// The key of an object.
pub fn key_of(m: &ObjectMeta) -> Key {
    (m.namespace.clone(), m.name.clone())
}

/// What every loop is given.
#[derive(Clone)]
pub struct Context {
    /// Where calls go.
    pub api: Arc<dyn Api>,
    /// The group that the loops end with.
    pub tasks: Tasks,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    caches: Arc<Mutex<HashMap<TypeId, Box<dyn Any + Send>>>>,
}

impl Context {
    /// A context without caches.
    pub fn new(api: Arc<dyn Api>, tasks: Tasks, clock: Arc<dyn Clock>) -> Context {
        Context {
            api,
            tasks,
            clock,
            caches: Arc::default(),
        }
    }

    /// The cache of this view; it begins to follow the resource when it is first asked for.
    ///
    /// # Panics
    /// Never: the cache is found by the type of its views.
    pub fn cache<V: View>(&self, resource: &'static Resource) -> Cache<V> {
        self.selected(resource, Selection::default())
    }

    /// As [`Context::cache`], for a view that only ever holds this selection.
    ///
    /// # Panics
    /// Never: the cache is found by the type of its views.
    pub fn selected<V: View>(&self, resource: &'static Resource, selection: Selection) -> Cache<V> {
        let mut caches = self.caches.lock();
        let made = caches.entry(TypeId::of::<V>()).or_insert_with(|| {
            Box::new(Cache::<V>::start(
                &self.tasks,
                &self.api,
                resource,
                selection,
            ))
        });
        made.downcast_ref::<Cache<V>>()
            .expect("it is found by its type")
            .clone()
    }

    /// A client that writes in the name of a loop.
    pub fn client(&self, manager: &'static str) -> Client {
        Client::new(self.api.clone(), manager)
    }

    /// A recorder for the events of a loop.
    pub fn recorder(&self, component: &'static str) -> Recorder {
        Recorder::start(
            &self.tasks,
            self.client(component),
            component,
            "",
            self.clock.clone(),
        )
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

/// The metadata of a patch that only this very state of the object may get.
pub fn precondition(m: &ObjectMeta) -> Value {
    json!({"uid": m.uid, "resourceVersion": m.resource_version})
}
