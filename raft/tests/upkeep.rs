//! What the replicated store does by itself: compaction by size and age, expiry after a restart, cutting the log.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kontiki_raft::{Op, RaftStore, Revision, Store, StoreConfig, Txn};

const WAIT_MAX: Duration = Duration::from_secs(20);

fn config(path: &Path) -> StoreConfig {
    StoreConfig::new(path.join("data"), "upkeep")
}

async fn put(store: &RaftStore, key: &str, value: Bytes, ttl: Option<Duration>) {
    let key = Bytes::copy_from_slice(key.as_bytes());
    let txn = Txn {
        preconditions: vec![],
        ops: vec![Op::Put { key, value, ttl }],
    };
    store.txn(txn).await.unwrap();
}

/// Waits until something holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(
            begun.elapsed() < WAIT_MAX,
            "not within {WAIT_MAX:?}: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_bounded_by_revisions() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path());
    config.history_revisions_max = 100;
    let store = RaftStore::open(config).await.unwrap();
    for n in 0..350 {
        put(&store, "k", n.to_string().into(), None).await;
    }
    until("a history of at most 100 revisions", || {
        store.compacted_revision() >= Revision(250)
    })
    .await;
    assert!(store.compacted_revision() <= Revision(275));
    assert!(store.get(b"k", Some(Revision(300))).unwrap().is_some());
    let kept = store.get(b"k", Some(store.compacted_revision())).unwrap();
    assert_eq!(kept.unwrap().mod_revision, store.compacted_revision());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_bounded_by_age() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path());
    config.compaction_interval = Duration::from_secs(1);
    let begun = Instant::now();
    let store = RaftStore::open(config).await.unwrap();
    for n in 0..5 {
        put(&store, "k", n.to_string().into(), None).await;
    }
    until("a compaction", || store.compacted_revision() == Revision(5)).await;
    assert!(
        begun.elapsed() >= Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_expire_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let store = RaftStore::open(config.clone()).await.unwrap();
    let ttl = Some(Duration::from_millis(50));
    put(&store, "short", "x".into(), ttl).await;
    put(&store, "long", "x".into(), Some(Duration::from_secs(3600))).await;
    store.shutdown().await;
    drop(store);
    tokio::time::sleep(Duration::from_millis(60)).await;
    let store = RaftStore::open(config).await.unwrap();
    until("the expiry", || {
        store.get(b"short", None).unwrap().is_none()
    })
    .await;
    assert!(store.get(b"long", None).unwrap().is_some());
    assert!(store.applied_revision() >= Revision(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_cut_and_the_state_stays() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let store = RaftStore::open(config.clone()).await.unwrap();
    let value = Bytes::from(vec![b'x'; 200_000]);
    for n in 0..120 {
        put(&store, &n.to_string(), value.clone(), None).await;
    }
    // 120 entries of 0.2 MB are more than the log keeps.
    until("a shorter log", || store.metrics().log_entries < 60).await;
    store.shutdown().await;
    drop(store);
    let store = RaftStore::open(config).await.unwrap();
    assert_eq!(store.applied_revision(), Revision(120));
    let page = store.range(kontiki_raft::Range::all(), None, 0).unwrap();
    assert_eq!(page.kvs.len(), 120);
    put(&store, "again", "x".into(), None).await;
    let metrics = store.metrics();
    assert_eq!((metrics.applied_revision, metrics.txns_total), (121, 1));
    assert!(metrics.fsync_seconds.count >= 1 && metrics.batch_txns.count == 1);
}
