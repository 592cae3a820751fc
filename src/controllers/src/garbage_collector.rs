//! Garbage collector: what is owned goes with its owners.

mod graph;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kontiki_api::{ObjectMeta, OwnerReference, Resource, catalogue};
use kontiki_base::chain;
use kontiki_reconcile::{
    Cache, CallError, Client, DeleteOptions, Event, ListParams, Outcome, PatchKind, Preconditions,
    Queue, Reconcile, Selection, View, run,
};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;

use crate::context::Context;
use crate::views::Meta;

pub use graph::{Command, FOREGROUND, Graph, Item, ORPHAN};

const WORKERS: usize = 5;
/// How often a resource that the server does not have is asked for again.
const PROBE_INTERVAL: Duration = Duration::from_secs(60);
/// How soon a resource is asked for again when the server did not answer.
const PROBE_RETRY: Duration = Duration::from_millis(500);
/// Plans for one object in a row: with each, owners that were not known before are.
const PLANS_MAX: usize = 4;

/// An object's references, and nothing else.
#[derive(Debug, Deserialize)]
#[serde(from = "TinyText")]
struct Tiny {
    metadata: ObjectMeta,
}

#[derive(Deserialize)]
struct TinyText {
    metadata: ObjectMeta,
}

impl From<TinyText> for Tiny {
    fn from(t: TinyText) -> Tiny {
        let m = t.metadata;
        Tiny {
            metadata: ObjectMeta {
                name: m.name,
                namespace: m.namespace,
                uid: m.uid,
                resource_version: m.resource_version,
                deletion_timestamp: m.deletion_timestamp,
                owner_references: m.owner_references,
                finalizers: m.finalizers,
                ..ObjectMeta::default()
            },
        }
    }
}

impl View for Tiny {
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
}

struct Collector {
    graph: Arc<Mutex<Graph>>,
    queue: Queue<String>,
    client: Client,
    /// Whether all resources have been looked through once.
    ready: watch::Receiver<bool>,
}

/// The resources whose objects own or are owned: one version of each, without events.
fn collected() -> impl Iterator<Item = &'static Resource> {
    let has = |r: &&Resource| {
        ["delete", "list", "watch"].iter().all(|v| r.has_verb(v)) && r.plural != "events"
    };
    let first = |r: &&'static Resource| {
        catalogue::all()
            .iter()
            .find(|o| (o.group, o.plural) == (r.group, r.plural))
            .is_some_and(|o| std::ptr::eq(o, *r))
    };
    catalogue::all().iter().filter(has).filter(first)
}

/// Starts the loop.
pub fn start(context: &Context) {
    let (graph, queue): (Arc<Mutex<Graph>>, Queue<String>) = Default::default();
    let (all_seen, ready) = watch::channel(false);
    let resources: Vec<_> = collected().collect();
    let left = Arc::new(Mutex::new(resources.len()));
    let all_seen = Arc::new(all_seen);
    for r in resources {
        let (c, token) = (context.clone(), context.tasks.token().clone());
        let (graph, queue, left, all_seen) =
            (graph.clone(), queue.clone(), left.clone(), all_seen.clone());
        context
            .tasks
            .spawn_transient(format!("gc-{}", r.plural), async move {
                let seen = move || {
                    let mut left = left.lock();
                    *left -= 1;
                    if *left == 0 {
                        all_seen.send_replace(true);
                    }
                };
                tokio::select! {
                    () = token.cancelled() => {}
                    () = follow(&c, r, &graph, &queue, seen) => {}
                }
            });
    }
    let what = Collector {
        graph,
        queue: queue.clone(),
        client: context.client("generic-garbage-collector"),
        ready,
    };
    run(&context.tasks, &queue, WORKERS, Arc::new(what));
}

/// Follows a resource, from when the server has it on. Calls `seen` when its objects are in the graph, or it has none.
async fn follow(
    c: &Context,
    r: &'static Resource,
    graph: &Arc<Mutex<Graph>>,
    queue: &Queue<String>,
    seen: impl FnOnce(),
) {
    let mut seen = Some(seen);
    loop {
        let probe = c
            .api
            .list(
                r,
                ListParams {
                    limit: 1,
                    ..ListParams::default()
                },
            )
            .await;
        match probe {
            Ok(_) => break,
            Err(CallError::Refused(_)) => {
                if let Some(seen) = seen.take() {
                    seen();
                }
                tokio::time::sleep(PROBE_INTERVAL).await;
            }
            Err(_) => tokio::time::sleep(PROBE_RETRY).await,
        }
    }
    let cache: Cache<Tiny> = Cache::default();
    let (g, q) = (graph.clone(), queue.clone());
    cache.on_event(move |e| {
        let mut graph = g.lock();
        let mut look = Vec::new();
        if let Event::Updated { old, new } = e
            && old.metadata.uid != new.metadata.uid
        {
            look.extend(graph.remove(&old.metadata.uid));
        }
        look.extend(match e {
            Event::Deleted(v) => graph.remove(&v.metadata.uid),
            e => graph.set(item(r, &e.object().metadata)),
        });
        drop(graph);
        look.into_iter().for_each(|uid| q.add(uid));
    });
    cache.follow(&c.tasks, &c.api, r, Selection::default());
    cache.synced().await;
    if let Some(seen) = seen.take() {
        seen();
    }
}

fn item(resource: &'static Resource, m: &ObjectMeta) -> Item {
    Item {
        resource,
        namespace: m.namespace.clone(),
        name: m.name.clone(),
        uid: m.uid.clone(),
        resource_version: m.resource_version.clone(),
        owners: m.owner_references.clone(),
        finalizers: m.finalizers.clone(),
        deleting: m.is_deleting(),
    }
}

#[async_trait]
impl Reconcile<String> for Collector {
    fn name(&self) -> &'static str {
        "garbage-collector"
    }

    async fn reconcile(&self, uid: &String) -> Result<Outcome, CallError> {
        let mut ready = self.ready.clone();
        // The sender goes only with the loops themselves.
        let _ = ready.wait_for(|r| *r).await;
        let (mut solid, mut absent) = (HashSet::new(), HashSet::new());
        for _ in 0..PLANS_MAX {
            let planned = {
                let graph = self.graph.lock();
                graph
                    .item(uid)
                    .cloned()
                    .zip(graph.plan(uid, &solid, &absent))
            };
            let Some((item, command)) = planned else {
                return Ok(Outcome::Done);
            };
            match command {
                Command::Verify(owners) => {
                    for o in owners {
                        let set = if self.exists(&item, &o).await? {
                            &mut solid
                        } else {
                            &mut absent
                        };
                        set.insert(o.uid);
                    }
                }
                command => {
                    self.execute(&item, command).await?;
                    return Ok(Outcome::Done);
                }
            }
        }
        Ok(Outcome::Done)
    }
}

impl Collector {
    async fn exists(&self, item: &Item, owner: &OwnerReference) -> Result<bool, CallError> {
        let Some(r) = catalogue::by_api_version(&owner.api_version, &owner.kind) else {
            return Ok(true);
        };
        let namespace = if r.namespaced {
            item.namespace.as_str()
        } else {
            ""
        };
        match self.client.get::<Meta>(r, namespace, &owner.name).await {
            Ok(m) => Ok(m.metadata.uid == owner.uid),
            Err(e) if e.is_not_found() => Ok(false),
            Err(e) => Err(e),
        }
    }

    async fn execute(&self, item: &Item, command: Command) -> Result<(), CallError> {
        match command {
            Command::Verify(_) => Ok(()),
            Command::Delete(policy) => {
                tracing::debug!(
                    resource = item.resource.plural,
                    namespace = item.namespace,
                    name = item.name,
                    policy,
                    "collecting"
                );
                let preconditions = Some(Preconditions {
                    uid: Some(item.uid.clone()),
                    // Whoever changes it in the meantime brings it here again.
                    resource_version: Some(item.resource_version.clone()),
                });
                let options = DeleteOptions {
                    preconditions,
                    propagation_policy: Some(policy),
                    ..DeleteOptions::default()
                };
                settled(
                    self.client
                        .delete(item.resource, &item.namespace, &item.name, &options)
                        .await,
                )
            }
            Command::Disown(uids) => self.disown(item, |o| uids.contains(&o.uid)).await,
            Command::Visit(uids) => {
                uids.into_iter().for_each(|uid| self.queue.add(uid));
                Ok(())
            }
            Command::OrphanDependents(uids) => {
                for uid in uids {
                    let dependent = self.graph.lock().item(&uid).cloned();
                    if let Some(d) = dependent {
                        self.disown(&d, |o| o.uid == item.uid).await?;
                    }
                }
                self.remove_finalizer(item, ORPHAN).await
            }
            Command::RemoveFinalizer(f) => self.remove_finalizer(item, f).await,
        }
    }

    /// Takes owners out of an object, as it is now: others may have changed it.
    async fn disown(
        &self,
        item: &Item,
        is_out: impl Fn(&OwnerReference) -> bool,
    ) -> Result<(), CallError> {
        let fresh: Meta = match self
            .client
            .get(item.resource, &item.namespace, &item.name)
            .await
        {
            Ok(m) => m,
            Err(e) if e.is_not_found() => return Ok(()),
            Err(e) => return Err(e),
        };
        let m = fresh.metadata;
        let left: Vec<&OwnerReference> = m.owner_references.iter().filter(|o| !is_out(o)).collect();
        if m.uid != item.uid || left.len() == m.owner_references.len() {
            return Ok(());
        }
        let patch = json!({"metadata": {"uid": m.uid, "resourceVersion": m.resource_version, "ownerReferences": left}});
        self.patch(item, &patch).await
    }

    async fn remove_finalizer(&self, item: &Item, finalizer: &str) -> Result<(), CallError> {
        let fresh: Meta = match self
            .client
            .get(item.resource, &item.namespace, &item.name)
            .await
        {
            Ok(m) => m,
            Err(e) if e.is_not_found() => return Ok(()),
            Err(e) => return Err(e),
        };
        let m = fresh.metadata;
        let left: Vec<&String> = m.finalizers.iter().filter(|f| *f != finalizer).collect();
        if m.uid != item.uid || left.len() == m.finalizers.len() {
            return Ok(());
        }
        let patch = json!({"metadata": {"uid": m.uid, "resourceVersion": m.resource_version, "finalizers": left}});
        self.patch(item, &patch).await
    }

    async fn patch(&self, item: &Item, patch: &serde_json::Value) -> Result<(), CallError> {
        let at = (item.namespace.as_str(), item.name.as_str());
        let result = self
            .client
            .patch(item.resource, at, "", PatchKind::Merge, patch)
            .await;
        if let Err(e) = &result {
            tracing::debug!(
                resource = item.resource.plural,
                name = item.name,
                error = chain(e),
                "the references were not changed"
            );
        }
        match result {
            Err(e) if !e.is_not_found() => Err(e),
            _ => Ok(()),
        }
    }
}

/// What is gone, or is another object by now, needs no deletion.
fn settled(result: Result<(), CallError>) -> Result<(), CallError> {
    match result {
        Err(e) if e.is_not_found() || e.is_conflict() => Ok(()),
        r => r,
    }
}
