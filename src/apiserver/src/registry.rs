//! The resources that are served, each with its strategy and its cache.

use std::collections::HashMap;
use std::sync::Arc;

use kontiki_api::{Resource, catalogue};

use crate::cache::Cache;
use crate::convert;
use crate::keys;
use crate::strategy::Strategy;
use crate::traits::{self, Traits};

/// A resource that is served.
pub(crate) struct Kind {
    /// Its entry of the catalogue.
    pub(crate) resource: &'static Resource,
    /// The version in which its objects are stored.
    pub(crate) storage: &'static Resource,
    /// What it adds to the engine.
    pub(crate) strategy: &'static dyn Strategy,
    /// How the engine treats it.
    pub(crate) traits: Traits,
    /// Its objects; versions of one kind share them.
    pub(crate) cache: Arc<Cache>,
}

impl Kind {
    /// Whether objects are served as they are stored.
    pub(crate) fn is_storage_version(&self) -> bool {
        std::ptr::eq(self.resource, self.storage)
    }

    /// Whether metadata.generation counts changes.
    pub(crate) fn has_generation(&self) -> bool {
        self.traits.generation || self.strategy.has_generation()
    }

    /// Whether an update need not state a resourceVersion.
    pub(crate) fn allow_unconditional_update(&self) -> bool {
        self.traits.unconditional_update && self.strategy.allow_unconditional_update()
    }

    /// Whether a PUT of a name that does not exist creates the object.
    pub(crate) fn allow_create_on_update(&self) -> bool {
        self.traits.create_on_update || self.strategy.allow_create_on_update()
    }

    /// Whether objects of the kind are stored at all (reviews and bindings are not).
    pub(crate) fn is_stored(&self) -> bool {
        self.resource.has_verb("get")
    }
}

/// All resources that are served.
pub(crate) struct Registry {
    kinds: Vec<Arc<Kind>>,
    /// By plural name; few names are in more than one group or version.
    by_plural: HashMap<&'static str, Vec<Arc<Kind>>>,
}

/// Alpha and beta versions are off, as they are by default upstream.
fn is_served(r: &Resource) -> bool {
    !r.version.contains("alpha") && !r.version.contains("beta")
}

impl Registry {
    /// The resources of the catalogue.
    pub(crate) fn new() -> Registry {
        let mut caches: HashMap<String, Arc<Cache>> = HashMap::new();
        let mut kinds = Vec::new();
        let mut by_plural: HashMap<&str, Vec<Arc<Kind>>> = HashMap::new();
        for resource in catalogue::all().iter().filter(|r| is_served(r)) {
            let storage = convert::storage_of(resource);
            let strategy = crate::kinds::strategy(resource.group, resource.plural);
            // What is stored is looked at as what it is stored as, whatever it was written as.
            let stored_as = crate::kinds::strategy(storage.group, storage.plural);
            let prefix = keys::resource(storage.group, storage.plural);
            let cache = caches
                .entry(prefix.clone())
                .or_insert_with(|| Arc::new(Cache::new(prefix, stored_as)));
            let kind = Arc::new(Kind {
                traits: traits::of(resource),
                resource,
                storage,
                strategy,
                cache: cache.clone(),
            });
            by_plural
                .entry(resource.plural)
                .or_default()
                .push(kind.clone());
            kinds.push(kind);
        }
        Registry { kinds, by_plural }
    }

    /// Every resource, in the order of the catalogue.
    pub(crate) fn all(&self) -> &[Arc<Kind>] {
        &self.kinds
    }

    /// The resource of this name.
    pub(crate) fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Kind>> {
        let all = self.by_plural.get(plural)?;
        all.iter()
            .find(|k| k.resource.group == group && k.resource.version == version)
    }

    /// The resource of this name in the version in which it is stored.
    pub(crate) fn stored(&self, group: &str, plural: &str) -> Option<&Arc<Kind>> {
        let all = self.by_plural.get(plural)?;
        all.iter()
            .find(|k| k.resource.group == group && k.is_storage_version())
    }

    /// The resource of an entry of the catalogue.
    pub(crate) fn of(&self, r: &Resource) -> Option<&Arc<Kind>> {
        self.get(r.group, r.version, r.plural)
    }

    /// Every cache, once.
    pub(crate) fn caches(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.kinds.iter().filter(|k| k.is_storage_version())
    }
}
