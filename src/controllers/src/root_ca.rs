//! The cluster's CA in every namespace, as the config map that pods mount with their token.

use std::sync::Arc;

use async_trait::async_trait;
use kontiki_api::catalogue::known;
use kontiki_reconcile::{
    Cache, CallError, Client, Outcome, PatchKind, Queue, Reconcile, Selection, run,
};
use serde_json::{Value, json};

use crate::context::{Context, precondition};
use crate::replicaset::is_namespace_gone;
use crate::views::{ConfigMap, Namespace};

const WORKERS: usize = 1;
/// The config map.
pub const NAME: &str = "kube-root-ca.crt";
/// The CA's key in it.
pub const FILE: &str = "ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
const TEXT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as \
                    the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of \
                    Kubernetes clusters.";

struct RootCa {
    namespaces: Cache<Namespace>,
    maps: Cache<ConfigMap>,
    client: Client,
    ca_pem: String,
}

/// Starts the loop, which publishes this CA.
pub fn start(context: &Context, ca_pem: &str) {
    let namespaces = context.cache::<Namespace>(known::namespaces());
    let only = Selection {
        field_selector: format!("metadata.name={NAME}"),
        ..Selection::default()
    };
    let maps = context.selected::<ConfigMap>(known::configmaps(), only);
    let queue: Queue<String> = Queue::default();
    let q = queue.clone();
    namespaces.on_event(move |e| q.add(e.object().metadata.name.clone()));
    let q = queue.clone();
    maps.on_event(move |e| q.add(e.object().metadata.namespace.clone()));
    let client = context.client("root-ca-cert-publisher");
    run(
        &context.tasks,
        &queue,
        WORKERS,
        Arc::new(RootCa {
            namespaces,
            maps,
            client,
            ca_pem: ca_pem.to_owned(),
        }),
    );
}

/// What to do about a namespace.
#[derive(Debug, PartialEq)]
pub enum Command {
    /// Make the map with this data.
    Create(Value),
    /// Give the map this data.
    Update(Value),
}

/// What to do about a namespace, if anything.
pub fn plan(
    namespace: Option<&Namespace>,
    map: Option<&ConfigMap>,
    ca_pem: &str,
) -> Option<Command> {
    let data = json!({ FILE: ca_pem });
    match map {
        _ if namespace
            .is_none_or(|n| n.metadata.is_deleting() || n.status.phase == "Terminating") =>
        {
            None
        }
        None => Some(Command::Create(data)),
        Some(m) if json!(m.data) == data => None,
        Some(m) => {
            // A merge patch takes what else is in it away with null.
            let mut data = data;
            for k in m.data.keys().filter(|k| *k != FILE) {
                data[k] = Value::Null;
            }
            Some(Command::Update(data))
        }
    }
}

#[async_trait]
impl Reconcile<String> for RootCa {
    fn name(&self) -> &'static str {
        "root-ca-cert-publisher"
    }

    async fn reconcile(&self, key: &String) -> Result<Outcome, CallError> {
        tokio::join!(self.namespaces.synced(), self.maps.synced());
        let map = self.maps.get(key, NAME);
        let result = match plan(
            self.namespaces.get("", key).as_deref(),
            map.as_deref(),
            &self.ca_pem,
        ) {
            None => return Ok(Outcome::Done),
            Some(Command::Create(data)) => {
                let metadata =
                    json!({"namespace": key, "name": NAME, "annotations": {DESCRIPTION: TEXT}});
                let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data});
                self.client.create(known::configmaps(), key, &body).await
            }
            Some(Command::Update(data)) => {
                let metadata = map.map(|m| precondition(&m.metadata)).unwrap_or_default();
                let patch = json!({"metadata": metadata, "data": data});
                self.client
                    .patch(
                        known::configmaps(),
                        (key, NAME),
                        "",
                        PatchKind::Merge,
                        &patch,
                    )
                    .await
            }
        };
        match result {
            Ok(answer) => {
                self.maps.written(&answer);
                Ok(Outcome::Done)
            }
            Err(e) if e.is_already_exists() || is_namespace_gone(&e) => Ok(Outcome::Done),
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_is_made_mended_and_left_alone() {
        let ns = Namespace::default();
        assert_eq!(
            plan(Some(&ns), None, "CA"),
            Some(Command::Create(json!({FILE: "CA"})))
        );
        let mut map = ConfigMap::default();
        map.data.insert(FILE.into(), "CA".into());
        assert_eq!(plan(Some(&ns), Some(&map), "CA"), None);
        map.data.insert("x".into(), "y".into());
        assert_eq!(
            plan(Some(&ns), Some(&map), "NEW"),
            Some(Command::Update(json!({FILE: "NEW", "x": null})))
        );
        assert_eq!(plan(None, None, "CA"), None);
    }
}
