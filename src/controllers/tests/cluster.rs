//! Namespaces, owners and nodes against an API in memory.

use kontiki_api::catalogue::known;
use kontiki_base::{Metrics, Tasks};
use kontiki_controllers::{Config, Controllers};
use kontiki_reconcile::fake::FakeApi;
use kontiki_reconcile::{Client, DeleteOptions};
use serde_json::{Value, json};

fn start(fake: &FakeApi, which: &[&str]) -> (Tasks, Client) {
    let tasks = Tasks::default();
    let which = which.iter().map(|w| (*w).to_owned()).collect();
    let config = Config {
        which,
        root_ca_pem: "CA".into(),
        ..Config::default()
    };
    Controllers::start(&config, &fake.api(), &Metrics::default(), &tasks).expect("known loops");
    (tasks, Client::new(fake.api(), "test"))
}

#[tokio::test]
async fn a_namespace_is_furnished_and_goes_with_everything_in_it() {
    let fake = FakeApi::default();
    let loops = [
        "namespace-controller",
        "serviceaccount-controller",
        "root-ca-certificate-publisher-controller",
    ];
    let (tasks, client) = start(&fake, &loops);
    fake.put(known::namespaces(), json!({"metadata": {"name": "x"}}));
    fake.wait_for(known::serviceaccounts(), "the default account", |s| {
        s.len() == 1 && s[0]["metadata"]["name"] == "default"
    })
    .await;
    fake.wait_for(known::configmaps(), "the CA", |m| {
        m.len() == 1 && m[0]["data"]["ca.crt"] == "CA"
    })
    .await;
    fake.put(
        known::secrets(),
        json!({"metadata": {"namespace": "x", "name": "held", "finalizers": ["example.com/f"]}}),
    );
    client
        .delete(known::namespaces(), "", "x", &DeleteOptions::default())
        .await
        .expect("deleted");
    let remaining = |n: &[Value]| {
        let conditions = n[0]["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        conditions
            .iter()
            .any(|c| c["type"] == "NamespaceFinalizersRemaining" && c["status"] == "True")
    };
    fake.wait_for(known::namespaces(), "told what holds it", remaining)
        .await;
    assert!(
        fake.objects(known::configmaps()).is_empty()
            && fake.objects(known::serviceaccounts()).is_empty()
    );
    fake.remove(known::secrets(), "x", "held");
    fake.wait_for(known::namespaces(), "gone", <[Value]>::is_empty)
        .await;
    tasks.stop().await;
}

fn owned(name: &str, owner: &Value, r: &str) -> Value {
    let reference = json!({"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true});
    json!({"metadata": {"namespace": "ns", "name": name, "ownerReferences": [reference]}, "kind": r})
}

#[tokio::test]
async fn what_is_owned_goes_with_its_owner_or_is_let_go() {
    let fake = FakeApi::default();
    let d = fake.put(
        known::deployments(),
        json!({"metadata": {"namespace": "ns", "name": "d"}}),
    );
    let set = fake.put(known::replicasets(), owned("rs", &d, "ReplicaSet"));
    fake.put(known::pods(), owned("p", &set, "Pod"));
    fake.put(
        known::pods(),
        json!({"metadata": {"namespace": "ns", "name": "free"}}),
    );
    let (tasks, client) = start(&fake, &["garbage-collector-controller"]);
    client
        .delete(known::deployments(), "ns", "d", &DeleteOptions::default())
        .await
        .expect("deleted");
    fake.wait_for(known::pods(), "only the free one", |p| {
        p.len() == 1 && p[0]["metadata"]["name"] == "free"
    })
    .await;
    assert!(fake.objects(known::replicasets()).is_empty());

    let set = fake.put(
        known::replicasets(),
        json!({"metadata": {"namespace": "ns", "name": "rs2"}}),
    );
    fake.put(known::pods(), owned("q", &set, "Pod"));
    let foreground = DeleteOptions {
        propagation_policy: Some("Foreground"),
        ..DeleteOptions::default()
    };
    client
        .delete(known::replicasets(), "ns", "rs2", &foreground)
        .await
        .expect("deleted");
    fake.wait_for(
        known::replicasets(),
        "gone after its pod",
        <[Value]>::is_empty,
    )
    .await;
    assert_eq!(fake.objects(known::pods()).len(), 1);

    let set = fake.put(
        known::replicasets(),
        json!({"metadata": {"namespace": "ns", "name": "rs3"}}),
    );
    fake.put(known::pods(), owned("r", &set, "Pod"));
    let orphan = DeleteOptions {
        propagation_policy: Some("Orphan"),
        ..DeleteOptions::default()
    };
    // The collector has to know the pod before it lets it go.
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    client
        .delete(known::replicasets(), "ns", "rs3", &orphan)
        .await
        .expect("deleted");
    fake.wait_for(known::replicasets(), "gone", <[Value]>::is_empty)
        .await;
    let r = fake.object(known::pods(), "ns", "r").expect("it stays");
    assert!(
        r["metadata"]["ownerReferences"]
            .as_array()
            .is_none_or(Vec::is_empty)
    );
    tasks.stop().await;
}

fn node(name: &str, ready: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {}, "status": {"conditions": [{"type": "Ready", "status": ready}]}})
}

#[tokio::test]
async fn nodes_get_ranges_and_taints_and_lose_their_pods() {
    let fake = FakeApi::default();
    let (tasks, _) = start(
        &fake,
        &["node-lifecycle-controller", "node-ipam-controller"],
    );
    fake.put(known::nodes(), node("good", "True"));
    fake.put(known::nodes(), node("bad", "True"));
    fake.wait_for(known::nodes(), "ranges", |n| {
        let mut ranges: Vec<_> = n
            .iter()
            .filter_map(|n| n["spec"]["podCIDR"].as_str())
            .collect();
        ranges.sort_unstable();
        ranges == ["10.244.0.0/24", "10.244.1.0/24"]
    })
    .await;
    let pod = |name: &str, tolerations: &Value| {
        json!({"metadata": {"namespace": "ns", "name": name}, "spec": {"nodeName": "bad", "tolerations": tolerations},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}})
    };
    fake.put(known::pods(), pod("shy", &json!([])));
    fake.put(known::pods(), pod("bold", &json!([{"operator": "Exists"}])));
    let mut bad = fake.object(known::nodes(), "", "bad").expect("it is there");
    bad["status"]["conditions"][0]["status"] = "False".into();
    fake.put(known::nodes(), bad.clone());
    let shy = |p: &[Value]| {
        p.iter()
            .find(|p| p["metadata"]["name"] == "shy")
            .cloned()
            .unwrap_or_default()
    };
    fake.wait_for(known::pods(), "sent the shy one away", |p| {
        !shy(p)["metadata"]["deletionTimestamp"].is_null()
    })
    .await;
    let not_ready = |p: &[Value]| {
        p.iter()
            .all(|p| p["status"]["conditions"][0]["status"] == "False")
    };
    fake.wait_for(known::pods(), "not ready", not_ready).await;
    let bold = fake.object(known::pods(), "ns", "bold").expect("it stays");
    assert!(bold["metadata"]["deletionTimestamp"].is_null());
    let mut bad = fake.object(known::nodes(), "", "bad").expect("it is there");
    assert_eq!(bad["spec"]["taints"].as_array().map(Vec::len), Some(2));
    bad["status"]["conditions"][0]["status"] = "True".into();
    fake.put(known::nodes(), bad);
    let clean = |n: &[Value]| {
        n.iter()
            .all(|n| n["spec"]["taints"].as_array().is_none_or(Vec::is_empty))
    };
    fake.wait_for(known::nodes(), "clean again", clean).await;
    tasks.stop().await;
}
