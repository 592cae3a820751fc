use kontiki_api::{fields, labels};
use kontiki_raft::{Op, Range, Store, Txn};
use serde_json::{Value, json};

use super::*;
use crate::stored;

struct Plain;
impl Strategy for Plain {
    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.nodeName"]
    }
    fn field<'a>(&self, object: &'a Value, _field: &str) -> Option<std::borrow::Cow<'a, str>> {
        Some(kontiki_api::object::text(object, &["spec", "nodeName"]).into())
    }
}

fn object(name: &str, app: &str, node: &str) -> bytes::Bytes {
    let meta = json!({"name": name, "namespace": "ns", "labels": {"app": app}});
    stored::encode(
        &json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"nodeName": node}}),
    )
}

async fn write(store: &dyn Store, name: &str, value: Option<bytes::Bytes>) {
    let key = keys::object("/registry/core/pods/", "ns", name);
    let op = match value {
        Some(value) => Op::Put {
            key,
            value,
            ttl: None,
        },
        None => Op::Delete { key },
    };
    store
        .txn(Txn {
            preconditions: vec![],
            ops: vec![op],
        })
        .await
        .expect("written");
}

fn filter(labels: &str, fields: &str) -> Filter {
    let l = labels::Selector::parse(labels).expect("labels");
    Filter::new(
        "ns",
        l,
        fields::Selector::parse(fields).expect("fields"),
        false,
    )
}

fn drain(s: &mut Subscription) -> Vec<(EventKind, String, u64)> {
    let mut out = Vec::new();
    while let Ok(d) = s.queue.try_recv() {
        let v: Value = serde_json::from_slice(&d.object()).expect("JSON");
        let frame: Value = serde_json::from_slice(&d.frame()).expect("JSON");
        assert_eq!(frame, json!({"type": d.kind.as_str(), "object": v}));
        assert_eq!(v["metadata"]["resourceVersion"], d.revision().to_string());
        out.push((
            d.kind,
            v["metadata"]["name"].as_str().expect("named").to_owned(),
            d.revision(),
        ));
    }
    out
}

#[tokio::test]
async fn watchers_see_objects_come_and_go_as_their_selectors_say() {
    let store = kontiki_raft::memory();
    let cache = Arc::new(Cache::new("/registry/core/pods/".into(), &Plain));
    write(&store, "a", Some(object("a", "x", ""))).await;
    let feed = Arc::new(Feed::new([cache.clone()]));
    let _observation = store
        .observe(Range::prefix("/registry/"), feed)
        .expect("observed");

    let mut by_label = cache
        .subscribe(filter("app=x", ""), Start::State, 1)
        .expect("watch");
    let mut by_node = cache
        .subscribe(filter("", "spec.nodeName=n1"), Start::State, 1)
        .expect("watch");
    let mut by_name = cache
        .subscribe(filter("", "metadata.name=b"), Start::After(1), 1)
        .expect("watch");
    assert_eq!(by_label.backlog.len(), 1);
    assert_eq!(by_node.backlog.len(), 0);

    write(&store, "a", Some(object("a", "x", "n1"))).await;
    write(&store, "a", Some(object("a", "y", "n1"))).await;
    write(&store, "a", Some(object("a", "y", "n2"))).await;
    write(&store, "b", Some(object("b", "x", "n2"))).await;
    write(&store, "b", None).await;

    use EventKind::{Added, Deleted, Modified};
    let name = |k, n: &str, r| (k, n.to_owned(), r);
    assert_eq!(
        drain(&mut by_label),
        [
            name(Modified, "a", 2),
            name(Deleted, "a", 3),
            name(Added, "b", 5),
            name(Deleted, "b", 6)
        ]
    );
    assert_eq!(
        drain(&mut by_node),
        [
            name(Added, "a", 2),
            name(Modified, "a", 3),
            name(Deleted, "a", 4)
        ]
    );
    assert_eq!(
        drain(&mut by_name),
        [name(Added, "b", 5), name(Deleted, "b", 6)]
    );
    assert_eq!(cache.len(), 1);
    assert_eq!(cache.watchers(), 3);
    drop(by_label);
    assert_eq!(cache.watchers(), 2);

    let late = cache
        .subscribe(filter("", ""), Start::After(3), 6)
        .expect("watch");
    assert_eq!(
        late.backlog
            .iter()
            .map(Delivery::revision)
            .collect::<Vec<_>>(),
        [4, 5, 6]
    );
    assert!(
        cache.subscribe(filter("", ""), Start::After(0), 6).is_err(),
        "history before the start is gone"
    );
}

#[tokio::test]
async fn a_watcher_that_falls_behind_is_ended_and_the_ring_is_bounded() {
    let store = kontiki_raft::memory();
    let cache = Arc::new(Cache::new("/registry/core/pods/".into(), &Plain));
    let _observation = store
        .observe(
            Range::prefix("/registry/"),
            Arc::new(Feed::new([cache.clone()])),
        )
        .expect("observed");
    let mut slow = cache
        .subscribe(filter("", ""), Start::State, 0)
        .expect("watch");
    for _ in 0..=RING_EVENTS_MAX {
        write(&store, "a", Some(object("a", "x", ""))).await;
    }
    assert_eq!(drain(&mut slow).len(), WATCHER_QUEUE_EVENTS_MAX);
    assert!(slow.queue.recv().await.is_none(), "the queue was closed");
    assert_eq!(cache.inner.read().ring.len(), RING_EVENTS_MAX);
    assert!(cache.subscribe(filter("", ""), Start::After(0), 0).is_err());
}
