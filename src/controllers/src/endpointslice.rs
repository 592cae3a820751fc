//! Endpoint slices: where the pods of a service can be reached.

pub mod plan;

use std::sync::Arc;

use async_trait::async_trait;
use kontiki_api::catalogue::known;
use kontiki_reconcile::{
    Cache, CallError, Client, DeleteOptions, Event, ObjectRef, Outcome, PatchKind, Preconditions,
    Queue, Reconcile, Recorder, Selection, run,
};
use serde_json::{Value, json};

use crate::context::{Context, Key, key_of, precondition};
use crate::replicaset::is_namespace_gone;
use crate::views::{EndpointSlice, Node, Pod, Service};

use plan::{Command, MANAGED_BY, MANAGER, SERVICE_NAME, is_endpoint, labels, zone};

const WORKERS: usize = 5;
/// The index of slices by namespace and service.
const BY_SERVICE: &str = "service";

struct EndpointSlices {
    services: Cache<Service>,
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    slices: Cache<EndpointSlice>,
    client: Client,
    recorder: Recorder,
}

/// Starts the loop.
pub fn start(context: &Context) {
    let services = context.cache::<Service>(known::services());
    let pods = context.cache::<Pod>(known::pods());
    let nodes = context.cache::<Node>(known::nodes());
    let ours = Selection {
        label_selector: format!("{MANAGED_BY}={MANAGER}"),
        ..Selection::default()
    };
    let slices = context.selected::<EndpointSlice>(known::endpointslices(), ours);
    slices.add_index(BY_SERVICE, |s| {
        service_of(s)
            .map(|(ns, name)| format!("{ns}/{name}"))
            .into_iter()
            .collect()
    });
    let queue: Queue<Key> = Queue::default();
    let q = queue.clone();
    services.on_event(move |e| q.add(key_of(&e.object().metadata)));
    let q = queue.clone();
    slices.on_event(move |e| q.add(service_of(e.object()).unwrap_or_default()));
    wake_by_pods(&queue, &services, &pods);
    // The zone of an endpoint is that of its node.
    let (q, p, s) = (queue.clone(), pods.clone(), services.clone());
    nodes.on_event(move |e| {
        if let Event::Updated { old, new } = e
            && zone(old) != zone(new)
        {
            for pod in p.list().iter().filter(|p| p.node_name == new.metadata.name) {
                wake_services(&q, &s, pod);
            }
        }
    });
    let what = EndpointSlices {
        services,
        pods,
        nodes,
        slices,
        client: context.client("endpointslice-controller"),
        recorder: context.recorder("endpoint-slice-controller"),
    };
    run(&context.tasks, &queue, WORKERS, Arc::new(what));
}

/// Wakes the services that select a pod when something changes that its endpoints show.
pub(crate) fn wake_by_pods(queue: &Queue<Key>, services: &Cache<Service>, pods: &Cache<Pod>) {
    let (q, s) = (queue.clone(), services.clone());
    pods.on_event(move |e| {
        if let Event::Updated { old, new } = e {
            let same = is_endpoint(old) == is_endpoint(new)
                && old.ready == new.ready
                && old.ips == new.ips
                && old.node_name == new.node_name
                && old.metadata.is_deleting() == new.metadata.is_deleting()
                && old.metadata.labels == new.metadata.labels
                && old.metadata.uid == new.metadata.uid;
            if same {
                return;
            }
            wake_services(&q, &s, old);
        }
        wake_services(&q, &s, e.object());
    });
}

fn wake_services(queue: &Queue<Key>, services: &Cache<Service>, pod: &Pod) {
    for s in services.in_namespace(&pod.metadata.namespace) {
        if selects(&s, pod) {
            queue.add(key_of(&s.metadata));
        }
    }
}

/// Whether a service has a selector that matches the pod.
pub(crate) fn selects(service: &Service, pod: &Pod) -> bool {
    let selector = &service.spec.selector;
    !selector.is_empty()
        && selector
            .iter()
            .all(|(k, v)| pod.metadata.labels.get(k) == Some(v))
}

/// Whether slices are made for a service: it has a selector, and is more than another name.
pub(crate) fn has_endpoints(service: &Service) -> bool {
    !service.spec.selector.is_empty()
        && service.spec.kind != "ExternalName"
        && !service.metadata.is_deleting()
}

fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.metadata.labels.get(SERVICE_NAME)?;
    Some((slice.metadata.namespace.clone(), name.clone()))
}

#[async_trait]
impl Reconcile<Key> for EndpointSlices {
    fn name(&self) -> &'static str {
        "endpointslice"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, CallError> {
        tokio::join!(
            self.services.synced(),
            self.pods.synced(),
            self.nodes.synced(),
            self.slices.synced()
        );
        let slices = self
            .slices
            .by_index(BY_SERVICE, &format!("{}/{}", key.0, key.1));
        let service = self
            .services
            .get(&key.0, &key.1)
            .filter(|s| has_endpoints(s));
        let Some(service) = service else {
            // Of a service that is gone the garbage collector takes the slices; one that lost its selector keeps them,
            // as they are then the user's to care for.
            return Ok(Outcome::Done);
        };
        let pods = self.pods.in_namespace(&key.0);
        let pods: Vec<_> = pods
            .into_iter()
            .filter(|p| selects(&service, p) && is_endpoint(p))
            .collect();
        let zone_of = |node: &str| self.nodes.get("", node).as_deref().and_then(zone);
        for command in plan::plan(&service, &pods, &zone_of, &slices) {
            match self.execute(&service, command).await {
                Ok(()) => {}
                Err(e) if is_namespace_gone(&e) => return Ok(Outcome::Done),
                Err(e) => {
                    if !e.is_conflict() {
                        let about = ObjectRef::new(known::services(), &service.metadata);
                        let text = format!(
                            "Error updating Endpoint Slices for Service {}: {e}",
                            service.metadata.key()
                        );
                        self.recorder
                            .warning(about, "FailedToUpdateEndpointSlices", text);
                    }
                    return Err(e);
                }
            }
        }
        Ok(Outcome::Done)
    }
}

impl EndpointSlices {
    async fn execute(&self, service: &Service, command: Command) -> Result<(), CallError> {
        let r = known::endpointslices();
        match command {
            Command::Create {
                address_type,
                ports,
                endpoints,
            } => {
                let slice = json!({
                    "apiVersion": r.api_version(), "kind": r.kind,
                    "metadata": {
                        "generateName": format!("{}-", service.metadata.name), "namespace": service.metadata.namespace,
                        "labels": labels(service), "ownerReferences": [owner(service)],
                    },
                    "addressType": address_type, "ports": ports, "endpoints": endpoints,
                });
                let answer = self
                    .client
                    .create(r, &service.metadata.namespace, &slice)
                    .await?;
                self.slices.written(&answer);
            }
            Command::Update { slice, endpoints } => {
                let mut metadata = precondition(&slice.metadata);
                let mut all = json!(labels(service));
                // A merge patch takes a label away with null.
                for key in slice
                    .metadata
                    .labels
                    .keys()
                    .filter(|k| all.get(k.as_str()).is_none())
                    .collect::<Vec<_>>()
                {
                    all[key] = Value::Null;
                }
                metadata["labels"] = all;
                let at = (
                    slice.metadata.namespace.as_str(),
                    slice.metadata.name.as_str(),
                );
                let patch = json!({"metadata": metadata, "endpoints": endpoints});
                let answer = self
                    .client
                    .patch(r, at, "", PatchKind::Merge, &patch)
                    .await?;
                self.slices.written(&answer);
            }
            Command::Delete(slice) => {
                let m = &slice.metadata;
                let preconditions = Some(Preconditions {
                    uid: Some(m.uid.clone()),
                    resource_version: None,
                });
                let options = DeleteOptions {
                    preconditions,
                    ..DeleteOptions::default()
                };
                match self.client.delete(r, &m.namespace, &m.name, &options).await {
                    Err(e) if !e.is_not_found() => return Err(e),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

fn owner(service: &Service) -> Value {
    let r = known::services();
    json!({
        "apiVersion": r.api_version(), "kind": r.kind, "name": service.metadata.name, "uid": service.metadata.uid,
        "controller": true, "blockOwnerDeletion": true,
    })
}
