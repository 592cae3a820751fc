//! Endpoints: the older form of what endpoint slices say, for clients that still read it.

use std::sync::Arc;

use async_trait::async_trait;
use kontiki_api::catalogue::known;
use kontiki_reconcile::{
    Cache, CallError, Client, DeleteOptions, Outcome, PatchKind, Preconditions, Queue, Reconcile,
    run,
};
use serde_json::{Value, json};

use crate::context::{Context, Key, key_of, precondition};
use crate::endpointslice::plan::{HEADLESS, by_ports, is_endpoint};
use crate::endpointslice::{has_endpoints, selects, wake_by_pods};
use crate::replicaset::is_namespace_gone;
use crate::views::{Endpoint, Endpoints, Pod, Service};

const WORKERS: usize = 5;
/// Addresses in an Endpoints object at most; further ones are left out, and an annotation says so.
pub const ADDRESSES_MAX: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// The label that names who cares for an Endpoints object.
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";

struct EndpointsLoop {
    services: Cache<Service>,
    pods: Cache<Pod>,
    endpoints: Cache<Endpoints>,
    client: Client,
}

/// Starts the loop.
pub fn start(context: &Context) {
    let services = context.cache::<Service>(known::services());
    let pods = context.cache::<Pod>(known::pods());
    let endpoints = context.cache::<Endpoints>(known::endpoints());
    let queue: Queue<Key> = Queue::default();
    let q = queue.clone();
    services.on_event(move |e| q.add(key_of(&e.object().metadata)));
    let q = queue.clone();
    endpoints.on_event(move |e| q.add(key_of(&e.object().metadata)));
    wake_by_pods(&queue, &services, &pods);
    let what = EndpointsLoop {
        services,
        pods,
        endpoints,
        client: context.client(MANAGER),
    };
    run(&context.tasks, &queue, WORKERS, Arc::new(what));
}

/// The subsets that a service's Endpoints should have, and whether some addresses were left out.
pub fn subsets(service: &Service, pods: &[Arc<Pod>]) -> (Vec<Value>, bool) {
    let (mut out, mut room, mut truncated) = (Vec::new(), ADDRESSES_MAX, false);
    for (ports, mut endpoints) in by_ports(service, pods) {
        // Ready ones first, should there not be room for all.
        endpoints.sort_by_key(|(e, ready)| (!ready, e.addresses.clone()));
        truncated |= endpoints.len() > room;
        endpoints.truncate(room);
        room -= endpoints.len();
        if endpoints.is_empty() || (ports.is_empty() && !service.is_headless()) {
            continue;
        }
        let list = |want: bool| {
            endpoints
                .iter()
                .filter(|(_, r)| *r == want)
                .map(|(e, _)| address(e))
                .collect::<Vec<_>>()
        };
        let mut subset = json!({});
        for (field, addresses) in [
            ("addresses", list(true)),
            ("notReadyAddresses", list(false)),
        ] {
            if !addresses.is_empty() {
                subset[field] = addresses.into();
            }
        }
        if !ports.is_empty() {
            let port = |p: &crate::views::EndpointPort| {
                let mut v = json!({"port": p.port, "protocol": p.protocol});
                if let Some(name) = p.name.as_ref().filter(|n| !n.is_empty()) {
                    v["name"] = name.as_str().into();
                }
                if let Some(app) = &p.app_protocol {
                    v["appProtocol"] = app.as_str().into();
                }
                v
            };
            subset["ports"] = ports.iter().map(port).collect();
        }
        out.push(subset);
    }
    (out, truncated)
}

fn address(e: &Endpoint) -> Value {
    let mut v = json!({"ip": e.addresses.first(), "targetRef": e.target_ref});
    for (field, value) in [("hostname", &e.hostname), ("nodeName", &e.node_name)] {
        if let Some(text) = value {
            v[field] = text.as_str().into();
        }
    }
    v
}

#[async_trait]
impl Reconcile<Key> for EndpointsLoop {
    fn name(&self) -> &'static str {
        "endpoints"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, CallError> {
        tokio::join!(
            self.services.synced(),
            self.pods.synced(),
            self.endpoints.synced()
        );
        let there = self.endpoints.get(&key.0, &key.1);
        let r = known::endpoints();
        let Some(service) = self.services.get(&key.0, &key.1) else {
            // Endpoints live and die with the service of their name, if we made them.
            if let Some(e) = there.filter(|e| {
                e.metadata
                    .labels
                    .get(MANAGED_BY)
                    .is_some_and(|m| m == MANAGER)
            }) {
                let preconditions = Some(Preconditions {
                    uid: Some(e.metadata.uid.clone()),
                    resource_version: None,
                });
                let options = DeleteOptions {
                    preconditions,
                    ..DeleteOptions::default()
                };
                return match self.client.delete(r, &key.0, &key.1, &options).await {
                    Err(e) if !e.is_not_found() => Err(e),
                    _ => Ok(Outcome::Done),
                };
            }
            return Ok(Outcome::Done);
        };
        if !has_endpoints(&service) {
            return Ok(Outcome::Done);
        }
        let pods = self.pods.in_namespace(&key.0);
        let pods: Vec<_> = pods
            .into_iter()
            .filter(|p| selects(&service, p) && is_endpoint(p))
            .collect();
        let (subsets, truncated) = subsets(&service, &pods);
        let mut labels = service.metadata.labels.clone();
        labels.insert(MANAGED_BY.into(), MANAGER.into());
        labels.remove(HEADLESS);
        if service.is_headless() {
            labels.insert(HEADLESS.into(), String::new());
        }
        let over = truncated.then_some("truncated");
        let written = match there {
            None => {
                let mut metadata = json!({"namespace": key.0, "name": key.1, "labels": labels});
                if let Some(over) = over {
                    metadata["annotations"] = json!({OVER_CAPACITY: over});
                }
                let body = json!({"apiVersion": "v1", "kind": r.kind, "metadata": metadata, "subsets": subsets});
                self.client.create(r, &key.0, &body).await
            }
            Some(e) => {
                let has_over = e
                    .metadata
                    .annotations
                    .get(OVER_CAPACITY)
                    .map(String::as_str);
                if e.subsets == subsets && e.metadata.labels == labels && has_over == over {
                    return Ok(Outcome::Done);
                }
                let mut metadata = precondition(&e.metadata);
                let mut all = json!(labels);
                for k in e
                    .metadata
                    .labels
                    .keys()
                    .filter(|k| !labels.contains_key(*k))
                {
                    all[k] = Value::Null;
                }
                metadata["labels"] = all;
                metadata["annotations"] = json!({OVER_CAPACITY: over});
                let patch = json!({"metadata": metadata, "subsets": subsets});
                self.client
                    .patch(r, (&key.0, &key.1), "", PatchKind::Merge, &patch)
                    .await
            }
        };
        match written {
            Ok(answer) => {
                self.endpoints.written(&answer);
                Ok(Outcome::Done)
            }
            Err(e) if is_namespace_gone(&e) => Ok(Outcome::Done),
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(n: usize, ready: bool) -> Arc<Pod> {
        let mut p = Pod {
            phase: "Running".into(),
            ready,
            ..Pod::default()
        };
        p.metadata.name = format!("p{n}");
        p.metadata.uid = format!("u{n}");
        p.ips = vec![format!("10.1.{}.{}", n / 250, n % 250)];
        Arc::new(p)
    }

    #[test]
    fn ready_and_other_addresses_are_told_apart_and_the_limit_is_kept() {
        let v = json!({"metadata": {"name": "svc"}, "spec": {"ports": [{"port": 80, "protocol": "TCP"}]}});
        let service: Service = serde_json::from_value(v).expect("a service");
        let (got, truncated) = subsets(&service, &[pod(1, true), pod(2, false)]);
        assert!(!truncated);
        assert_eq!(
            (
                &got[0]["addresses"][0]["ip"],
                &got[0]["notReadyAddresses"][0]["ip"]
            ),
            (&json!("10.1.0.1"), &json!("10.1.0.2"))
        );
        assert_eq!(got[0]["ports"], json!([{"port": 80, "protocol": "TCP"}]));
        let many: Vec<_> = (0..1200).map(|n| pod(n, n >= 300)).collect();
        let (got, truncated) = subsets(&service, &many);
        let count = |f: &str| got[0][f].as_array().map_or(0, Vec::len);
        assert_eq!(
            (truncated, count("addresses"), count("notReadyAddresses")),
            (true, 900, 100)
        );
    }
}
