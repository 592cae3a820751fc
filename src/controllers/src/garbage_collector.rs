//! The garbage collector: dependents go with their owners, in the background, in the foreground, or are orphaned.
//!
//! Follows upstream's garbage collector: a graph of all objects that can be deleted, by uid. Before anything is deleted for
//! a missing owner, the owner is looked for in the API itself: the graph may be behind.

mod graph;
mod plan;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use kontiki_api::{OwnerReference, Resource, catalogue};
use kontiki_reconcile::{
    Cache, CallError, Client, DeleteOptions, Outcome, PatchKind, Preconditions, Queue, Reconcile,
    Selection, run,
};
use parking_lot::Mutex;
use serde_json::json;

use crate::context::{Context, precondition};
use crate::views::Meta;

use graph::{Graph, Item};
use plan::{Command, OwnerState, plan};

const WORKERS: usize = 4;
/// Uids of owners that are known to be gone; at the limit they are forgotten and looked for again.
const ABSENT_OWNERS_MAX: usize = 10_000;
/// What comes and goes by itself, or is another view of what is listed already.
const LEFT_OUT: [(&str, &str); 2] = [("", "events"), ("events.k8s.io", "events")];

struct GarbageCollector {
    graph: Arc<Mutex<Graph>>,
    caches: Vec<Cache<Meta>>,
    queue: Queue<String>,
    client: Client,
    absent: Mutex<HashSet<String>>,
}

/// The resources that take part: all that can be listed, watched and deleted, each once.
fn resources() -> Vec<&'static Resource> {
    let mut seen = BTreeSet::new();
    catalogue::all()
        .iter()
        .filter(|r| ["list", "watch", "delete"].iter().all(|v| r.has_verb(v)))
        .filter(|r| !LEFT_OUT.contains(&(r.group, r.plural)))
        .filter(|r| seen.insert((r.group, r.plural)))
        .collect()
}

/// Starts the loop.
pub fn start(context: &Context) {
    let graph: Arc<Mutex<Graph>> = Arc::default();
    let queue: Queue<String> = Queue::default();
    let mut caches = Vec::new();
    for resource in resources() {
        let cache = Cache::<Meta>::default();
        let (g, q) = (graph.clone(), queue.clone());
        cache.on_event(move |e| {
            for uid in g.lock().observe(resource, e) {
                q.add(uid);
            }
        });
        cache.follow(&context.tasks, &context.api, resource, Selection::default());
        caches.push(cache);
    }
    let what = GarbageCollector {
        graph,
        caches,
        queue: queue.clone(),
        client: context.client("garbage-collector"),
        absent: Mutex::default(),
    };
    run(&context.tasks, &queue, WORKERS, Arc::new(what));
}

impl GarbageCollector {
    async fn owner_state(
        &self,
        item: &Item,
        owner: &OwnerReference,
    ) -> Result<OwnerState, CallError> {
        if let Some(state) = self.graph.lock().owner_state(&owner.uid) {
            return Ok(state);
        }
        if self.absent.lock().contains(&owner.uid) {
            return Ok(OwnerState::Absent);
        }
        // Owners of kinds that are not known, and namespaced owners of cluster-scoped objects, cannot be looked for.
        let Some(r) = catalogue::by_api_version(&owner.api_version, &owner.kind) else {
            return Ok(OwnerState::Solid);
        };
        let namespace = &item.meta.metadata.namespace;
        if r.namespaced && namespace.is_empty() {
            return Ok(OwnerState::Solid);
        }
        let namespace = if r.namespaced { namespace.as_str() } else { "" };
        match self.client.get::<Meta>(r, namespace, &owner.name).await {
            Ok(found) if found.metadata.uid == owner.uid => Ok(OwnerState::Solid),
            Err(e) if !e.is_not_found() => Err(e),
            _ => {
                let mut absent = self.absent.lock();
                if absent.len() >= ABSENT_OWNERS_MAX {
                    absent.clear();
                }
                absent.insert(owner.uid.clone());
                Ok(OwnerState::Absent)
            }
        }
    }

    async fn carry_out(&self, item: &Item, command: Command) -> Result<(), CallError> {
        match command {
            Command::Wake(uids) => {
                for uid in uids {
                    self.queue.add(uid);
                }
                Ok(())
            }
            Command::KeepOwners(owners) => {
                self.patch(item, json!({"ownerReferences": owners})).await
            }
            Command::KeepFinalizers(finalizers) => {
                self.patch(item, json!({"finalizers": finalizers})).await
            }
            Command::Orphan(dependents) => {
                for (dependent, owners) in dependents {
                    self.patch(&dependent, json!({"ownerReferences": owners}))
                        .await?;
                }
                Ok(())
            }
            Command::Delete(propagation_policy) => {
                let m = &item.meta.metadata;
                let options = DeleteOptions {
                    preconditions: Some(Preconditions {
                        uid: Some(m.uid.clone()),
                        // Whoever adopts it in the meantime keeps it.
                        resource_version: Some(m.resource_version.clone()),
                    }),
                    propagation_policy: Some(propagation_policy),
                    ..DeleteOptions::default()
                };
                gone_is_good(
                    self.client
                        .delete(item.resource, &m.namespace, &m.name, &options)
                        .await,
                )
            }
        }
    }

    async fn patch(&self, item: &Item, mut metadata: serde_json::Value) -> Result<(), CallError> {
        let m = &item.meta.metadata;
        let conditions = precondition(m);
        for key in ["uid", "resourceVersion"] {
            metadata[key] = conditions[key].clone();
        }
        let patch = json!({"metadata": metadata});
        let at = (m.namespace.as_str(), m.name.as_str());
        gone_is_good(
            self.client
                .patch(item.resource, at, "", PatchKind::Merge, &patch)
                .await
                .map(drop),
        )
    }
}

fn gone_is_good(result: Result<(), CallError>) -> Result<(), CallError> {
    match result {
        Err(e) if e.is_not_found() => Ok(()),
        other => other,
    }
}

#[async_trait]
impl Reconcile<String> for GarbageCollector {
    fn name(&self) -> &'static str {
        "garbage-collector"
    }

    async fn reconcile(&self, uid: &String) -> Result<Outcome, CallError> {
        for cache in &self.caches {
            cache.synced().await;
        }
        let Some((item, dependents)) = self.graph.lock().item(uid) else {
            return Ok(Outcome::Done);
        };
        let mut owners = Vec::new();
        for owner in &item.meta.metadata.owner_references {
            owners.push((owner.clone(), self.owner_state(&item, owner).await?));
        }
        for command in plan(&item, &owners, &dependents) {
            self.carry_out(&item, command).await?;
        }
        Ok(Outcome::Done)
    }
}
