//! A store whose disk fails says so, and does not pretend that it knows what became of a write.

use kontiki_raft::{
    Op, RaftStore, Range, Revision, Store, StoreConfig, StoreError, Txn, WriteFate,
};

fn put(key: &str) -> Txn {
    Txn {
        preconditions: vec![],
        ops: vec![Op::Put {
            key: bytes::Bytes::copy_from_slice(key.as_bytes()),
            value: "x".into(),
            ttl: None,
        }],
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_cannot_be_written_stops_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let config = StoreConfig::new(directory.path().join("data"), "failure");
    let store = RaftStore::open(config.clone()).await.unwrap();
    store.txn(put("before")).await.unwrap();
    let mut watch = store.watch(Range::all(), Revision(2)).unwrap();

    fail::cfg("log-write-fails", "return").unwrap();
    let error = store.txn(put("during")).await.unwrap_err();
    assert_eq!(error.fate(), WriteFate::Unknown, "{error}");
    assert!(error.to_string().contains("writing the log"), "{error}");
    let error = watch.next().await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Closed), "{error}");
    fail::remove("log-write-fails");

    // It stays stopped, even if the disk comes back: what is on it is not known any more.
    let error = store.txn(put("after")).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    assert_eq!(error.fate(), WriteFate::NotWritten);
    let error = store.read_index().await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    store.shutdown().await;
    drop(store);

    let store = RaftStore::open(config).await.unwrap();
    assert!(store.get(b"before", None).unwrap().is_some());
    assert!(store.get(b"after", None).unwrap().is_none());
    store.txn(put("again")).await.unwrap();
}
