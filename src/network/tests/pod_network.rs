//! The pod network against a machine and an API that are only data.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use kontiki_api::Resource;
use kontiki_base::Tasks;
use kontiki_host::{Links, Network, Sysctls};
use kontiki_network::{NetworkConfig, PodNetwork, Status, cleanup};
use kontiki_reconcile::{
    Api, CallError, ListPage, ListParams, Request, WatchEvent, WatchParams, WatchStream,
};
use tokio::sync::broadcast;

/// One node, without a range at first; changes are sent by the test.
struct OneNode {
    changes: broadcast::Sender<Bytes>,
}

fn node(revision: u32, range: &str) -> Bytes {
    let o = serde_json::json!({
        "metadata": {"name": "n1", "resourceVersion": revision.to_string()},
        "spec": if range.is_empty() { serde_json::json!({}) } else { serde_json::json!({"podCIDR": range}) },
    });
    Bytes::from(o.to_string())
}

#[async_trait]
impl Api for OneNode {
    async fn call(&self, _: Request) -> Result<Bytes, CallError> {
        panic!("the pod network writes nothing")
    }

    async fn list(&self, _: &'static Resource, p: ListParams) -> Result<ListPage, CallError> {
        assert_eq!(p.field_selector, "metadata.name=n1");
        Ok(ListPage {
            items: vec![node(1, "")],
            resource_version: "1".into(),
            continue_token: String::new(),
        })
    }

    async fn watch(&self, _: &'static Resource, _: WatchParams) -> Result<WatchStream, CallError> {
        let changes = tokio_stream::wrappers::BroadcastStream::new(self.changes.subscribe());
        Ok(changes
            .filter_map(|b| async { b.ok().map(WatchEvent::Modified) })
            .boxed())
    }
}

#[tokio::test]
async fn the_network_waits_for_its_range_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = NetworkConfig {
        cni_conf_dir: dir.path().join("net.d"),
        cni_bin_dir: dir.path().join("bin"),
        ipam_dir: dir.path().join("ipam"),
        ..NetworkConfig::new("n1")
    };
    std::fs::create_dir_all(&config.cni_bin_dir).expect("a directory");
    for plugin in ["bridge", "host-local", "portmap", "loopback"] {
        std::fs::write(config.cni_bin_dir.join(plugin), "").expect("a file");
    }
    let (host, parts) = Network::fake();
    let (changes, _keep) = broadcast::channel(8);
    let api: Arc<dyn Api> = Arc::new(OneNode {
        changes: changes.clone(),
    });
    let tasks = Tasks::default();
    let network = PodNetwork::start(config.clone(), &api, &host, &tasks);
    assert!(matches!(network.status(), Status::NotReady(r) if r.contains("no pod range yet")));

    while changes.receiver_count() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut status = network.watch();
    changes
        .send(node(2, "10.244.7.0/24"))
        .expect("the cache listens");
    let ready = status.wait_for(|s| matches!(s, Status::Ready(_)));
    tokio::time::timeout(Duration::from_secs(10), ready)
        .await
        .expect("in time")
        .expect("the loop runs");

    let file = std::fs::read_to_string(config.cni_conf_dir.join("05-kontiki.conflist"))
        .expect("it was written");
    assert!(file.contains("10.244.7.0/24"), "{file}");
    assert_eq!(
        parts.sysctls.get("net/ipv4/ip_forward").expect("there"),
        "1"
    );
    assert_eq!(
        parts
            .sysctls
            .get("net/bridge/bridge-nf-call-iptables")
            .expect("there"),
        "1"
    );
    let table = parts
        .nft
        .table("ip", "kontiki-network")
        .expect("it was made");
    let want = "ip saddr 10.244.7.0/24 ip daddr != { 10.244.0.0/16, 10.96.0.0/12, 224.0.0.0/4 } \
                oifname != \"kontiki0\" masquerade fully-random";
    assert_eq!(table.chains["postrouting"], [want]);
    tasks.stop().await;

    parts
        .links
        .ensure_bridge("kontiki0")
        .await
        .expect("as the plugin does");
    cleanup(&config, &host).await.expect("works");
    assert_eq!(parts.nft.table("ip", "kontiki-network"), None);
    assert_eq!(parts.links.link("kontiki0").await.expect("works"), None);
    assert_eq!(
        std::fs::read_dir(&config.cni_conf_dir)
            .expect("there")
            .count(),
        0
    );
}
