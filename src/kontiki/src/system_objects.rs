//! Objects that a cluster of ours has from the start, beside those of every Kubernetes: the Service of the cluster's DNS.

use std::sync::Arc;
use std::time::Duration;

use kontiki_api::catalogue::known;
use kontiki_base::{Backoff, Tasks, chain};
use kontiki_reconcile::{Api, CallError, Client};
use serde_json::{Value, json};

use crate::config::Config;

const NAMESPACE: &str = "kube-system";
const RETRY_DELAY_INITIAL: Duration = Duration::from_millis(200);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(30);

/// Creates what is missing, in the background; what is there is left as it is.
pub(crate) fn publish(config: &Config, api: &Arc<dyn Api>, tasks: &Tasks) {
    let (client, service) = (Client::new(api.clone(), "kontiki"), dns_service(config));
    let token = tasks.token().clone();
    tasks.spawn_transient("system-objects", async move {
        let mut backoff = Backoff::new(RETRY_DELAY_INITIAL, RETRY_DELAY_MAX);
        loop {
            match create(&client, &service).await {
                Ok(()) => return,
                Err(e) => tracing::warn!(
                    error = chain(&e),
                    "the Service of the cluster's DNS cannot be created yet"
                ),
            }
            tokio::select! {
                () = token.cancelled() => return,
                () = tokio::time::sleep(backoff.next_delay()) => {}
            }
        }
    });
}

async fn create(client: &Client, service: &Value) -> Result<(), CallError> {
    match client.create(known::services(), NAMESPACE, service).await {
        Err(e) if !e.is_already_exists() => Err(e),
        _ => Ok(()),
    }
}

/// The name, labels and ports are those of every cluster, as tools look for them. It has no selector: each node's agent
/// answers at the address itself.
fn dns_service(config: &Config) -> Value {
    let port = |name: &str, protocol: &str| json!({"name": name, "port": 53, "targetPort": 53, "protocol": protocol});
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kube-dns",
            "namespace": NAMESPACE,
            "labels": {
                "k8s-app": "kube-dns",
                "kubernetes.io/cluster-service": "true",
                "kubernetes.io/name": "CoreDNS",
            },
        },
        "spec": {
            "clusterIP": config.cluster_dns.to_string(),
            "ports": [port("dns", "UDP"), port("dns-tcp", "TCP")],
        },
    })
}
