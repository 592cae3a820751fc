//! Endpoint slices and endpoints against an API in memory.

use kontiki_api::catalogue::known;
use kontiki_base::{Metrics, Tasks};
use kontiki_controllers::{Config, Controllers};
use kontiki_reconcile::fake::FakeApi;
use serde_json::{Value, json};

fn pod(name: &str, ip: &str, ready: bool) -> Value {
    let status = if ready { "True" } else { "False" };
    json!({"metadata": {"namespace": "ns", "name": name, "labels": {"app": "x"}},
        "spec": {"nodeName": "n", "containers": [{"ports": [{"name": "web", "containerPort": 8080, "protocol": "TCP"}]}]},
        "status": {"phase": "Running", "podIPs": [{"ip": ip}], "conditions": [{"type": "Ready", "status": status}]}})
}

#[tokio::test]
async fn a_service_follows_its_pods() {
    let (fake, tasks) = (FakeApi::default(), Tasks::default());
    let config = Config {
        which: vec![
            "endpoints-controller".into(),
            "endpointslice-controller".into(),
        ],
        ..Config::default()
    };
    Controllers::start(&config, &fake.api(), &Metrics::default(), &tasks).expect("known loops");
    let ports = json!([{"port": 80, "targetPort": "web", "protocol": "TCP"}]);
    let spec = json!({"selector": {"app": "x"}, "clusterIP": "10.96.0.1", "ports": ports});
    fake.put(
        known::services(),
        json!({"metadata": {"namespace": "ns", "name": "svc"}, "spec": spec}),
    );
    fake.put(known::pods(), pod("a", "10.1.0.1", true));
    fake.put(known::pods(), pod("b", "10.1.0.2", false));
    let ready = |want: usize| {
        move |slices: &[Value]| {
            let ready = |s: &Value| {
                s["endpoints"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter(|e| e["conditions"]["ready"] == true)
                    .count()
            };
            slices.len() == 1 && slices[0]["ports"][0]["port"] == 8080 && ready(&slices[0]) == want
        }
    };
    fake.wait_for(known::endpointslices(), "one ready endpoint", ready(1))
        .await;
    fake.put(known::pods(), pod("b", "10.1.0.2", true));
    fake.wait_for(known::endpointslices(), "two ready endpoints", ready(2))
        .await;
    let addresses = |want: usize| {
        move |e: &[Value]| {
            e.len() == 1
                && e[0]["subsets"][0]["addresses"]
                    .as_array()
                    .is_some_and(|a| a.len() == want)
        }
    };
    fake.wait_for(known::endpoints(), "two addresses", addresses(2))
        .await;
    fake.remove(known::pods(), "ns", "a");
    fake.wait_for(known::endpoints(), "one address", addresses(1))
        .await;
    fake.remove(known::services(), "ns", "svc");
    fake.wait_for(
        known::endpoints(),
        "gone with the service",
        <[Value]>::is_empty,
    )
    .await;
    tasks.stop().await;
}
