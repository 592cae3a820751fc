//! Both stores do what every store does.

use std::sync::atomic::{AtomicUsize, Ordering};

use kontiki_raft::{RaftStore, StoreConfig, conformance, memory};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_in_memory_conforms() {
    conformance::all(|| async { memory() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_replicated_store_conforms() {
    let directory = tempfile::tempdir().unwrap();
    let count = AtomicUsize::new(0);
    conformance::all(|| async {
        let name = count.fetch_add(1, Ordering::Relaxed).to_string();
        let config = StoreConfig::new(directory.path().join(name), "test");
        RaftStore::open(config).await.unwrap()
    })
    .await;
}
