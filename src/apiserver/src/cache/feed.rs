//! Feeds all caches from the store's one change stream.

use std::collections::HashMap;
use std::sync::Arc;

use kontiki_raft::{Change, KeyValue, Observer, Revision};

use super::Cache;
use crate::keys;

/// The observer that hands each key to the cache of its resource.
pub(crate) struct Feed {
    caches: HashMap<String, Arc<Cache>>,
}

impl Feed {
    pub(crate) fn new(caches: impl IntoIterator<Item = Arc<Cache>>) -> Feed {
        Feed {
            caches: caches
                .into_iter()
                .map(|c| (c.prefix().to_owned(), c))
                .collect(),
        }
    }

    fn find<'a>(&self, key: &'a [u8]) -> Option<(&Arc<Cache>, &'a str)> {
        let (prefix, place) = keys::split(key)?;
        Some((self.caches.get(prefix)?, place))
    }
}

impl Observer for Feed {
    fn start(&self, kvs: &mut dyn Iterator<Item = KeyValue>, revision: Revision) {
        for kv in kvs {
            match self.find(&kv.key) {
                Some((cache, place)) => cache.load(place, &kv),
                None => {
                    tracing::debug!(key = %kv.key.escape_ascii(), "a key of no resource known here");
                }
            }
        }
        for cache in self.caches.values() {
            cache.loaded(revision.0);
        }
    }

    fn applied(&self, changes: &[Arc<Change>]) {
        for change in changes {
            if let Some((cache, place)) = self.find(&change.key) {
                cache.apply(place, change);
            }
        }
    }
}
