//! Config maps and secrets that pods refer to: fetched when needed, kept for a while, refreshed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use kontiki_api::catalogue::known;
use kontiki_api::meta::null_is_default;
use kontiki_reconcile::{CallError, Client};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::time::Instant;

use crate::pod::Pod;

/// How long a fetched object is taken for current. Pods see changes within about this time.
pub const FRESH_FOR: Duration = Duration::from_secs(50);
/// The most objects that are kept; what is not used for a while goes first.
const KEPT_MAX: usize = 4096;

/// The contents of a config map or secret.
pub type Data = BTreeMap<String, Vec<u8>>;

/// The config maps and secrets of one pod's namespace, by name; `None` where there is no such object.
#[derive(Clone, Debug, Default)]
pub struct Materials {
    config_maps: HashMap<String, Option<Arc<Data>>>,
    secrets: HashMap<String, Option<Arc<Data>>>,
}

impl Materials {
    /// The data of a config map, if it exists.
    pub fn config_map(&self, name: &str) -> Option<&Data> {
        self.config_maps.get(name).and_then(|d| d.as_deref())
    }

    /// The data of a secret, if it exists.
    pub fn secret(&self, name: &str) -> Option<&Data> {
        self.secrets.get(name).and_then(|d| d.as_deref())
    }

    /// Adds what is known of a config map.
    pub fn put_config_map(&mut self, name: &str, data: Option<Data>) {
        self.config_maps.insert(name.to_owned(), data.map(Arc::new));
    }

    /// Adds what is known of a secret.
    pub fn put_secret(&mut self, name: &str, data: Option<Data>) {
        self.secrets.insert(name.to_owned(), data.map(Arc::new));
    }
}

/// The names of the objects that a pod refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// Config maps.
    pub config_maps: BTreeSet<String>,
    /// Secrets.
    pub secrets: BTreeSet<String>,
}

impl References {
    /// Those in variables of containers.
    pub fn of_env(pod: &Pod) -> References {
        let mut r = References::default();
        for c in pod.all_containers() {
            for f in &c.env_from {
                r.config_maps
                    .extend(f.config_map_ref.iter().map(|x| x.name.clone()));
                r.secrets
                    .extend(f.secret_ref.iter().map(|x| x.name.clone()));
            }
            for s in c.env.iter().filter_map(|e| e.value_from.as_ref()) {
                r.config_maps
                    .extend(s.config_map_key_ref.iter().map(|x| x.name.clone()));
                r.secrets
                    .extend(s.secret_key_ref.iter().map(|x| x.name.clone()));
            }
        }
        r
    }

    /// Those in volumes.
    pub fn of_volumes(pod: &Pod) -> References {
        let mut r = References::default();
        for v in &pod.spec.volumes {
            r.config_maps
                .extend(v.config_map.iter().map(|x| x.name.clone()));
            r.secrets
                .extend(v.secret.iter().map(|x| x.secret_name.clone()));
            for p in v.projected.iter().flat_map(|p| &p.sources) {
                r.config_maps
                    .extend(p.config_map.iter().map(|x| x.name.clone()));
                r.secrets
                    .extend(p.secret.iter().map(|x| x.secret_name.clone()));
            }
        }
        r
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConfigMap {
    #[serde(default, deserialize_with = "null_is_default")]
    data: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null_is_default")]
    binary_data: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Secret {
    #[serde(default, deserialize_with = "null_is_default")]
    data: BTreeMap<String, String>,
}

fn decode(encoded: BTreeMap<String, String>) -> impl Iterator<Item = (String, Vec<u8>)> {
    // The API server lets only base64 through.
    encoded
        .into_iter()
        .filter_map(|(k, v)| Some((k, BASE64.decode(v).ok()?)))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    ConfigMap,
    Secret,
}

type Key = (Kind, String, String);

struct Kept {
    fetched: Instant,
    data: Option<Arc<Data>>,
}

/// Fetches and keeps config maps and secrets.
pub struct Store {
    client: Client,
    kept: Mutex<HashMap<Key, Kept>>,
}

impl Store {
    /// A store that fetches through this client.
    pub fn new(client: Client) -> Store {
        Store {
            client,
            kept: Mutex::default(),
        }
    }

    /// The objects that are referred to, none of them fetched longer ago than `age_max`. When the API cannot be reached,
    /// what was fetched before still counts: a pod that runs goes on with what it had.
    ///
    /// # Errors
    /// An object was never fetched and cannot be now.
    pub async fn get(
        &self,
        namespace: &str,
        refs: &References,
        age_max: Duration,
    ) -> Result<Materials, CallError> {
        let mut m = Materials::default();
        for name in &refs.config_maps {
            m.config_maps.insert(
                name.clone(),
                self.one(Kind::ConfigMap, namespace, name, age_max).await?,
            );
        }
        for name in &refs.secrets {
            m.secrets.insert(
                name.clone(),
                self.one(Kind::Secret, namespace, name, age_max).await?,
            );
        }
        Ok(m)
    }

    async fn one(
        &self,
        kind: Kind,
        ns: &str,
        name: &str,
        age_max: Duration,
    ) -> Result<Option<Arc<Data>>, CallError> {
        let key = (kind, ns.to_owned(), name.to_owned());
        let before = self
            .kept
            .lock()
            .get(&key)
            .map(|k| (k.fetched, k.data.clone()));
        if let Some((fetched, data)) = &before
            && fetched.elapsed() < age_max
        {
            return Ok(data.clone());
        }
        let fetched = match kind {
            Kind::ConfigMap => self
                .client
                .get::<ConfigMap>(known::configmaps(), ns, name)
                .await
                .map(|c| {
                    let text = c.data.into_iter().map(|(k, v)| (k, v.into_bytes()));
                    text.chain(decode(c.binary_data)).collect::<Data>()
                }),
            Kind::Secret => self
                .client
                .get::<Secret>(known::secrets(), ns, name)
                .await
                .map(|s| decode(s.data).collect()),
        };
        let data = match (fetched, before) {
            (Ok(data), _) => Some(Arc::new(data)),
            (Err(e), _) if e.is_not_found() => None,
            (Err(CallError::Unavailable { .. }), Some((_, data))) => return Ok(data),
            (Err(e), _) => return Err(e),
        };
        let mut kept = self.kept.lock();
        if kept.len() >= KEPT_MAX {
            kept.retain(|_, k| k.fetched.elapsed() < FRESH_FOR * 2);
        }
        kept.insert(
            key,
            Kept {
                fetched: Instant::now(),
                data: data.clone(),
            },
        );
        Ok(data)
    }
}
