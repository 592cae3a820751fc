//! Deployments: a replica set for each template, and the way from one to the next.

mod limits;
mod plan;
mod revision;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kontiki_api::catalogue::known;
use kontiki_api::{ObjectMeta, OwnerReference, object};
use kontiki_reconcile::{
    Cache, CallError, Client, DeleteOptions, Event, ObjectRef, Outcome, PatchKind, Preconditions,
    Queue, Reconcile, Recorder, run,
};
use serde_json::{Value, json};

use crate::context::{Context, Key, key_of, precondition};
use crate::replicaset::{index_pods, is_namespace_gone, pods_of};
use crate::views::{Deployment, Pod, ReplicaSet};

pub use plan::{Command, Plan, plan};
use revision::{POD_TEMPLATE_HASH, REVISION, find_new};

const WORKERS: usize = 5;

struct Deployments {
    deployments: Cache<Deployment>,
    sets: Cache<ReplicaSet>,
    pods: Cache<Pod>,
    client: Client,
    recorder: Recorder,
    context: Context,
}

/// Starts the loop.
pub fn start(context: &Context) {
    let deployments = context.cache::<Deployment>(known::deployments());
    let sets = context.cache::<ReplicaSet>(known::replicasets());
    let pods = context.cache::<Pod>(known::pods());
    index_pods(&pods);
    let queue: Queue<Key> = Queue::default();
    let q = queue.clone();
    deployments.on_event(move |e| q.add(key_of(&e.object().metadata)));
    let (q, d) = (queue.clone(), deployments.clone());
    sets.on_event(move |e| {
        if let Event::Updated { old, .. } = e {
            wake(&q, &d, &old.metadata, false);
        }
        wake(
            &q,
            &d,
            &e.object().metadata,
            !matches!(e, Event::Deleted(_)),
        );
    });
    // With Recreate, the last old pod to go lets the new ones come.
    let (q, s) = (queue.clone(), sets.clone());
    pods.on_event(move |e| {
        let pod = e.object();
        if !matches!(e, Event::Deleted(_)) && !pod.is_terminated() {
            return;
        }
        let owner = pod.metadata.controller().filter(|o| o.kind == "ReplicaSet");
        let set = owner.and_then(|o| s.get(&pod.metadata.namespace, &o.name));
        if let Some(d) = set.as_ref().and_then(|s| s.metadata.controller()) {
            q.add((pod.metadata.namespace.clone(), d.name.clone()));
        }
    });
    let what = Deployments {
        deployments,
        sets,
        pods,
        client: context.client("deployment-controller"),
        recorder: context.recorder("deployment-controller"),
        context: context.clone(),
    };
    run(&context.tasks, &queue, WORKERS, Arc::new(what));
}

fn wake(
    queue: &Queue<Key>,
    deployments: &Cache<Deployment>,
    set: &ObjectMeta,
    match_orphans: bool,
) {
    match set.controller() {
        Some(o) if o.kind == "Deployment" => queue.add((set.namespace.clone(), o.name.clone())),
        None if match_orphans && !set.labels.is_empty() => {
            for d in deployments.in_namespace(&set.namespace) {
                if d.selector().matches(&set.labels) {
                    queue.add(key_of(&d.metadata));
                }
            }
        }
        _ => {}
    }
}

#[async_trait]
impl Reconcile<Key> for Deployments {
    fn name(&self) -> &'static str {
        "deployment"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, CallError> {
        tokio::join!(
            self.deployments.synced(),
            self.sets.synced(),
            self.pods.synced()
        );
        let Some(d) = self.deployments.get(&key.0, &key.1) else {
            return Ok(Outcome::Done);
        };
        if d.selector().is_everything() {
            let about = ObjectRef::new(known::deployments(), &d.metadata);
            let text = "This deployment is selecting all pods. A non-empty selector is required.";
            self.recorder.warning(about, "SelectingAll", text);
            return Ok(Outcome::Done);
        }
        let sets = self.claim(&d).await?;
        let step = plan(
            &d,
            &sets,
            |new| self.old_pods_run(&sets, new),
            self.context.clock.now(),
        );
        let mut current = (*d).clone();
        for command in step.commands {
            self.execute(&mut current, command).await?;
        }
        Ok(step.look_again_seconds.map_or(Outcome::Done, |s| {
            Outcome::After(Duration::from_secs(u64::try_from(s).unwrap_or(1)))
        }))
    }
}

impl Deployments {
    /// The sets of a deployment; those that match and have no owner are taken on, those that do not match let go.
    async fn claim(&self, d: &Deployment) -> Result<Vec<Arc<ReplicaSet>>, CallError> {
        let selector = d.selector();
        let mut own = Vec::new();
        for set in self.sets.in_namespace(&d.metadata.namespace) {
            let matches = selector.matches(&set.metadata.labels);
            let owner = set.metadata.controller().map(|o| o.uid.as_str());
            let mut owners = set.metadata.owner_references.clone();
            match owner {
                Some(uid) if uid == d.metadata.uid && (matches || d.metadata.is_deleting()) => {
                    own.push(set);
                    continue;
                }
                Some(uid) if uid == d.metadata.uid => owners.retain(|o| o.uid != d.metadata.uid),
                None if matches && !d.metadata.is_deleting() && !set.metadata.is_deleting() => {
                    let m = &d.metadata;
                    let fresh: Deployment = self
                        .client
                        .get(known::deployments(), &m.namespace, &m.name)
                        .await?;
                    if fresh.metadata.uid != m.uid || fresh.metadata.is_deleting() {
                        continue;
                    }
                    owners.push(owner_reference(m));
                }
                _ => continue,
            }
            let mut metadata = precondition(&set.metadata);
            metadata["ownerReferences"] = json!(owners);
            self.patch_set(&set, &json!({ "metadata": metadata }))
                .await?;
            own.extend(
                self.sets
                    .get(&set.metadata.namespace, &set.metadata.name)
                    .filter(|_| matches),
            );
        }
        Ok(own)
    }

    /// Whether pods of sets other than the new one are there.
    fn old_pods_run(&self, sets: &[Arc<ReplicaSet>], new: Option<&ReplicaSet>) -> bool {
        sets.iter()
            .filter(|s| new.is_none_or(|n| n.metadata.uid != s.metadata.uid))
            .any(|s| {
                s.status.replicas > 0
                    || pods_of(&self.pods, &s.metadata.uid)
                        .iter()
                        .any(|p| !p.is_terminated())
            })
    }

    async fn execute(&self, d: &mut Deployment, command: Command) -> Result<(), CallError> {
        match command {
            Command::Create {
                hash,
                replicas,
                annotations,
            } => self.create(d, &hash, replicas, &annotations).await,
            Command::Scale {
                set,
                replicas,
                annotations,
            } => {
                let mut metadata = precondition(&set.metadata);
                metadata["annotations"] = json!(annotations);
                self.patch_set(
                    &set,
                    &json!({"metadata": metadata, "spec": {"replicas": replicas}}),
                )
                .await?;
                if replicas != set.replicas() {
                    self.tell_scaled(d, &set.metadata.name, set.replicas(), replicas);
                }
                Ok(())
            }
            Command::Adjust { set, annotations } => {
                let mut metadata = precondition(&set.metadata);
                metadata["annotations"] = json!(annotations);
                let spec = json!({"minReadySeconds": d.spec.min_ready_seconds});
                self.patch_set(&set, &json!({"metadata": metadata, "spec": spec}))
                    .await
            }
            Command::Delete(set) => {
                let m = &set.metadata;
                let preconditions = Some(Preconditions {
                    uid: Some(m.uid.clone()),
                    resource_version: Some(m.resource_version.clone()),
                });
                let options = DeleteOptions {
                    preconditions,
                    ..DeleteOptions::default()
                };
                match self
                    .client
                    .delete(known::replicasets(), &m.namespace, &m.name, &options)
                    .await
                {
                    Err(e) if !e.is_not_found() => Err(e),
                    _ => Ok(()),
                }
            }
            Command::Revision(number) => {
                let mut metadata = precondition(&d.metadata);
                metadata["annotations"] = json!({ REVISION: number });
                self.patch_deployment(d, "", &json!({ "metadata": metadata }))
                    .await
            }
            Command::Status(s) => {
                let patch = json!({"metadata": precondition(&d.metadata), "status": s});
                self.patch_deployment(d, "status", &patch).await
            }
        }
    }

    async fn create(
        &self,
        d: &mut Deployment,
        hash: &str,
        replicas: i32,
        annotations: &BTreeMap<String, String>,
    ) -> Result<(), CallError> {
        let set = set_object(d, hash, replicas, annotations);
        match self
            .client
            .create(known::replicasets(), &d.metadata.namespace, &set)
            .await
        {
            Ok(answer) => {
                self.sets.written(&answer);
                if replicas > 0 {
                    self.tell_scaled(d, object::name(&answer), 0, replicas);
                }
                Ok(())
            }
            Err(e) if e.is_already_exists() => {
                self.resolve_collision(d, object::name(&set), e).await
            }
            Err(e) if is_namespace_gone(&e) => Ok(()),
            Err(e) => {
                let about = ObjectRef::new(known::deployments(), &d.metadata);
                let text = format!(
                    "Failed to create new replica set {:?}: {e}",
                    object::name(&set)
                );
                self.recorder.warning(about, "ReplicaSetCreateError", text);
                Err(e)
            }
        }
    }

    /// A set of the name is there. If it is ours and of our template, we only have not seen it yet; otherwise two
    /// templates have the same hash, and the next is made with another one.
    async fn resolve_collision(
        &self,
        d: &mut Deployment,
        name: &str,
        e: CallError,
    ) -> Result<(), CallError> {
        let there: Value = self
            .client
            .get(known::replicasets(), &d.metadata.namespace, name)
            .await?;
        if let Ok(set) = serde_json::from_value::<ReplicaSet>(there.clone()) {
            let ours = set
                .metadata
                .controller()
                .is_some_and(|o| o.uid == d.metadata.uid);
            if ours && find_new(d, &[Arc::new(set)]).is_some() {
                self.sets.written(&there);
                return Ok(());
            }
        }
        let count = d.status.collision_count.unwrap_or(0) + 1;
        let patch =
            json!({"metadata": precondition(&d.metadata), "status": {"collisionCount": count}});
        self.patch_deployment(d, "status", &patch).await?;
        Err(e)
    }

    async fn patch_set(&self, set: &ReplicaSet, patch: &Value) -> Result<(), CallError> {
        let at = (set.metadata.namespace.as_str(), set.metadata.name.as_str());
        let answer = self
            .client
            .patch(known::replicasets(), at, "", PatchKind::Merge, patch)
            .await?;
        self.sets.written(&answer);
        Ok(())
    }

    /// Patches the deployment, and takes its new revision for the next patch.
    async fn patch_deployment(
        &self,
        d: &mut Deployment,
        subresource: &'static str,
        patch: &Value,
    ) -> Result<(), CallError> {
        let at = (d.metadata.namespace.as_str(), d.metadata.name.as_str());
        let answer = self
            .client
            .patch(
                known::deployments(),
                at,
                subresource,
                PatchKind::Merge,
                patch,
            )
            .await?;
        object::text(&answer, &["metadata", "resourceVersion"])
            .clone_into(&mut d.metadata.resource_version);
        self.deployments.written(&answer);
        Ok(())
    }

    fn tell_scaled(&self, d: &Deployment, set: &str, from: i32, to: i32) {
        let direction = if to > from { "up" } else { "down" };
        let text = format!("Scaled {direction} replica set {set} from {from} to {to}");
        self.recorder.normal(
            ObjectRef::new(known::deployments(), &d.metadata),
            "ScalingReplicaSet",
            text,
        );
    }
}

fn owner_reference(m: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: known::deployments().api_version(),
        kind: known::deployments().kind.to_owned(),
        name: m.name.clone(),
        uid: m.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The set of a deployment's current template.
fn set_object(
    d: &Deployment,
    hash: &str,
    replicas: i32,
    annotations: &BTreeMap<String, String>,
) -> Value {
    let mut template = d.template();
    object::map_mut(&mut template, &["metadata", "labels"])
        .insert(POD_TEMPLATE_HASH.into(), hash.into());
    let mut selector = json!(d.spec.selector);
    object::map_mut(&mut selector, &["matchLabels"]).insert(POD_TEMPLATE_HASH.into(), hash.into());
    json!({
        "apiVersion": known::replicasets().api_version(), "kind": known::replicasets().kind,
        "metadata": {
            "namespace": d.metadata.namespace, "name": format!("{}-{hash}", d.metadata.name),
            "labels": template["metadata"]["labels"], "annotations": annotations,
            "ownerReferences": [owner_reference(&d.metadata)],
        },
        "spec": {
            "replicas": replicas, "minReadySeconds": d.spec.min_ready_seconds,
            "selector": selector, "template": template,
        },
    })
}
