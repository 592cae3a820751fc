//! The proxy on a machine that is only data: what it does when the packet filter fails or is emptied.

use std::time::Duration;

use kontiki_api::catalogue::known;
use kontiki_base::{Metrics, Tasks};
use kontiki_host::{Network, Nft};
use kontiki_proxy::{Proxy, ProxyConfig};
use kontiki_reconcile::fake::FakeApi;
use serde_json::json;

fn put_service(api: &FakeApi, name: &str, ip: &str) {
    api.put(
        known::services(),
        json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"type": "ClusterIP", "clusterIP": ip, "ports": [{"port": 80}]}}),
    );
}

/// Waits until this holds; the clock is the test's, and runs ahead while all wait.
async fn until(mut holds: impl FnMut() -> bool) {
    let all = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(600), all)
        .await
        .expect("in time");
}

#[tokio::test(start_paused = true)]
async fn failed_changes_are_made_up_for_and_removed_rules_come_back() {
    let (host, parts) = Network::fake();
    let (api, tasks, metrics) = (FakeApi::default(), Tasks::default(), Metrics::default());
    put_service(&api, "a", "10.96.0.20");
    let config = ProxyConfig::new("n1", [192, 0, 2, 1].into());
    let proxy = Proxy::start(config, &api.api(), &host, &tasks, &metrics)
        .await
        .expect("it starts");
    let refused = |ip: &str| {
        let table = parts.nft.table("ip", "kontiki-proxy");
        table.is_some_and(|t| t.maps["refused-ips"].contains_key(&format!("{ip} . tcp . 80")))
    };
    proxy.synced().await;
    assert!(refused("10.96.0.20"));

    parts.nft.fail_next(3);
    put_service(&api, "b", "10.96.0.21");
    until(|| !proxy.is_synced()).await;
    until(|| proxy.is_synced()).await;
    assert!(refused("10.96.0.20") && refused("10.96.0.21"));
    assert!(
        metrics
            .encode()
            .contains("kubeproxy_sync_proxy_rules_failures_total 3"),
        "{}",
        metrics.encode()
    );

    parts
        .nft
        .run("delete table ip kontiki-proxy")
        .await
        .expect("as another program might");
    until(|| refused("10.96.0.21")).await;
    tasks.stop().await;
    assert_eq!(tasks.failed(), None);
    assert!(refused("10.96.0.21"), "what is programmed stays");
}

#[tokio::test]
async fn it_does_not_start_where_it_cannot_refuse() {
    let (host, parts) = Network::fake();
    let (api, tasks) = (FakeApi::default(), Tasks::default());
    parts.nft.fail_next(1);
    let config = ProxyConfig::new("n1", [192, 0, 2, 1].into());
    let result = Proxy::start(config, &api.api(), &host, &tasks, &Metrics::default()).await;
    assert!(result.is_err());
    assert!(
        kontiki_host::Links::link(&*parts.links, "kontiki-svc")
            .await
            .expect("works")
            .is_none(),
        "no route either"
    );
    tasks.stop().await;
}
