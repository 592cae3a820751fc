use futures::StreamExt;
use kontiki_api::catalogue::known;
use serde_json::json;

use super::*;
use crate::client::{Client, DeleteOptions};

fn pod(name: &str, node: &str) -> Value {
    json!({"metadata": {"namespace": "ns", "name": name, "labels": {"app": name}}, "spec": {"nodeName": node}})
}

async fn next(stream: &mut WatchStream) -> (&'static str, Value) {
    let (kind, bytes) = match stream.next().await.expect("the watch goes on") {
        WatchEvent::Added(b) => ("added", b),
        WatchEvent::Modified(b) => ("modified", b),
        WatchEvent::Deleted(b) => ("deleted", b),
        e => panic!("{e:?}"),
    };
    (kind, serde_json::from_slice(&bytes).expect("JSON"))
}

#[tokio::test]
async fn writes_conflict_and_bump_generation_and_revision() {
    let fake = FakeApi::default();
    let client = Client::new(fake.api(), "test");
    let r = known::deployments();
    let made = client
        .create(
            r,
            "ns",
            &json!({"metadata": {"name": "d"}, "spec": {"replicas": 1}}),
        )
        .await
        .expect("new");
    assert!(
        client
            .create(r, "ns", &made)
            .await
            .expect_err("twice")
            .is_already_exists()
    );
    let patch = json!({"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 2}});
    let stale = client
        .patch(r, ("ns", "d"), "", PatchKind::Merge, &patch)
        .await;
    assert!(stale.expect_err("stale").is_conflict());
    let patch = json!({"spec": {"replicas": 2}, "status": {"replicas": 9}});
    let v = client
        .patch(r, ("ns", "d"), "", PatchKind::Merge, &patch)
        .await
        .expect("patched");
    assert_eq!(
        (&v["metadata"]["generation"], &v["status"]),
        (&json!(2), &Value::Null)
    );
    let patch = json!({"spec": {"replicas": 3}, "status": {"replicas": 2}});
    let v = client
        .patch(r, ("ns", "d"), "status", PatchKind::Merge, &patch)
        .await
        .expect("patched");
    assert_eq!(
        (&v["spec"]["replicas"], &v["status"]["replicas"]),
        (&json!(2), &json!(2))
    );
    let ops = json!([{"op": "test", "path": "/spec/replicas", "value": 5}]);
    assert!(
        client
            .patch(r, ("ns", "d"), "", PatchKind::Json, &ops)
            .await
            .is_err(),
        "the test fails"
    );
}

#[tokio::test]
async fn watches_see_objects_enter_and_leave_their_selection() {
    let fake = FakeApi::default();
    let r = known::pods();
    let params = WatchParams {
        field_selector: "spec.nodeName=n".into(),
        resource_version: "1".into(),
        ..WatchParams::default()
    };
    let mut stream = fake.watch(r, params).await.expect("a watch");
    fake.put(r, pod("other", "m"));
    fake.put(r, pod("p", ""));
    let client = Client::new(fake.api(), "test");
    let binding = json!({"target": {"name": "n"}});
    client
        .create_subresource(r, ("ns", "p"), "binding", &binding)
        .await
        .expect("bound");
    assert!(
        client
            .create_subresource(r, ("ns", "p"), "binding", &binding)
            .await
            .expect_err("twice")
            .is_conflict()
    );
    let (kind, v) = next(&mut stream).await;
    assert_eq!((kind, v["metadata"]["name"].as_str()), ("added", Some("p")));
    client
        .delete(r, "ns", "p", &DeleteOptions::default())
        .await
        .expect("deleted");
    assert_eq!(
        next(&mut stream).await.0,
        "modified",
        "the pod has its grace"
    );
    let now = DeleteOptions {
        grace_period_seconds: Some(0),
        ..DeleteOptions::default()
    };
    client.delete(r, "ns", "p", &now).await.expect("deleted");
    assert_eq!(next(&mut stream).await.0, "deleted");
    fake.compact();
    let params = WatchParams {
        resource_version: "2".into(),
        ..WatchParams::default()
    };
    let first = fake.watch(r, params).await.expect("a watch").next().await;
    assert!(matches!(first, Some(WatchEvent::Error(e)) if e.reason() == Reason::Expired));
}

#[tokio::test]
async fn lists_come_in_pages_and_follow_selectors() {
    let fake = FakeApi::default();
    let r = known::pods();
    for name in ["a", "b", "c"] {
        fake.put(r, pod(name, "n"));
    }
    let mut p = ListParams {
        limit: 2,
        ..ListParams::default()
    };
    let page = fake.list(r, p.clone()).await.expect("a page");
    p.continue_token = page.continue_token;
    assert_eq!(
        (
            page.items.len(),
            fake.list(r, p).await.expect("a page").items.len()
        ),
        (2, 1)
    );
    let p = ListParams {
        label_selector: "app in (b,c)".into(),
        ..ListParams::default()
    };
    assert_eq!(fake.list(r, p).await.expect("a page").items.len(), 2);
}

#[tokio::test]
async fn finalizers_hold_objects() {
    let fake = FakeApi::default();
    let client = Client::new(fake.api(), "test");
    fake.put(known::namespaces(), json!({"metadata": {"name": "x"}}));
    client
        .delete(known::namespaces(), "", "x", &DeleteOptions::default())
        .await
        .expect("deleted");
    let ns = fake
        .object(known::namespaces(), "", "x")
        .expect("it is held");
    assert_eq!(ns["status"]["phase"], "Terminating");
    let body = json!({"spec": {"finalizers": []}});
    client
        .update(known::namespaces(), ("", "x"), "finalize", &body)
        .await
        .expect("finalized");
    assert!(fake.object(known::namespaces(), "", "x").is_none());
    fake.put(known::pods(), pod("p", ""));
    let foreground = DeleteOptions {
        propagation_policy: Some("Foreground"),
        ..DeleteOptions::default()
    };
    client
        .delete(known::pods(), "ns", "p", &foreground)
        .await
        .expect("deleted");
    let none = json!({"metadata": {"finalizers": null}});
    client
        .patch(known::pods(), ("ns", "p"), "", PatchKind::Merge, &none)
        .await
        .expect("patched");
    assert!(fake.object(known::pods(), "ns", "p").is_none());
}
