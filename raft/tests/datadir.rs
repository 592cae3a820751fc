//! Whose a data directory is: what is not ours is refused, with nothing in it touched.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use kontiki_raft::{Op, OpenError, RaftStore, Store, StoreConfig, Txn};

/// Every file with its contents.
fn contents(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else {
            let bytes = fs::read(&path).unwrap();
            files.insert(path, bytes);
        }
    }
    files
}

fn config(path: &Path) -> StoreConfig {
    StoreConfig::new(path, "mine")
}

/// The error of opening it, after which everything in it is as before.
async fn refused(config: StoreConfig) -> OpenError {
    let path = config.data_dir.clone();
    let before = contents(&path);
    let error = RaftStore::open(config).await.err().expect("it is refused");
    assert_eq!(contents(&path), before, "after: {error}");
    error
}

async fn filled(path: &Path) {
    let store = RaftStore::open(config(path)).await.unwrap();
    for n in 0..20 {
        let ops = vec![Op::Put {
            key: format!("k{n}").into(),
            value: vec![n; 1000].into(),
            ttl: None,
        }];
        let txn = Txn {
            preconditions: vec![],
            ops,
        };
        store.txn(txn).await.unwrap();
    }
    store.shutdown().await;
}

#[tokio::test]
async fn a_directory_with_something_else_in_it_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("precious"), "data").unwrap();
    let error = refused(config(directory.path())).await;
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
    assert!(error.to_string().contains("choose another"), "{error}");
}

#[tokio::test]
async fn a_damaged_marker_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path()).await;
    let marker = directory.path().join("KONTIKI");
    let good = fs::read_to_string(&marker).unwrap();
    for bad in [
        String::new(),
        "\0\0\0\0".to_owned(),
        good[..good.len() / 2].to_owned(),
        good.replace("cluster: mine", "cluster: mina"),
        good.replace("state: ready", "state: empty"),
        good.replace("kontiki", "kon-tiki"),
    ] {
        fs::write(&marker, &bad).unwrap();
        let error = refused(config(directory.path())).await;
        assert!(
            matches!(error, OpenError::CorruptMarker { .. }),
            "{bad:?}: {error}"
        );
        assert!(error.to_string().contains("restore"), "{error}");
    }
    fs::write(&marker, &good).unwrap();
    RaftStore::open(config(directory.path())).await.unwrap();
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path()).await;
    let marker = directory.path().join("KONTIKI");
    let newer = fs::read_to_string(&marker)
        .unwrap()
        .replace("format: 1", "format: 2");
    fs::write(&marker, newer).unwrap();
    let error = refused(config(directory.path())).await;
    let OpenError::NewerFormat {
        found, supported, ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!((found, supported), (2, 1));
}

#[tokio::test]
async fn another_clusters_or_nodes_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path()).await;
    let other = StoreConfig::new(directory.path(), "yours");
    let error = refused(other).await;
    assert!(
        matches!(
            error,
            OpenError::OtherOwner {
                what: "cluster",
                ..
            }
        ),
        "{error}"
    );
    let mut other = config(directory.path());
    other.node_id = 2;
    let error = refused(other).await;
    assert!(
        matches!(error, OpenError::OtherOwner { what: "node", .. }),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_in_use_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = RaftStore::open(config(directory.path())).await.unwrap();
    let error = RaftStore::open(config(directory.path()))
        .await
        .err()
        .unwrap();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    drop(store);
    RaftStore::open(config(directory.path())).await.unwrap();
}

#[tokio::test]
async fn a_database_that_lost_a_file_or_was_damaged_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path()).await;
    let good = contents(directory.path());
    let database = directory.path().join("db");
    let restore = || {
        fs::remove_dir_all(&database).unwrap();
        fs::create_dir(&database).unwrap();
        for (path, bytes) in &good {
            fs::write(path, bytes).unwrap();
        }
    };
    let mut tried = Vec::new();
    for path in good.keys().filter(|path| path.starts_with(&database)) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if name == "CURRENT" || name.starts_with("MANIFEST") {
            tried.push(name);
            fs::remove_file(path).unwrap();
            let error = refused(config(directory.path())).await;
            assert!(
                matches!(error, OpenError::CorruptDatabase { .. }),
                "{name}: {error}"
            );
            restore();
            fs::write(path, vec![b'x'; 64]).unwrap();
            let error = refused(config(directory.path())).await;
            assert!(
                matches!(error, OpenError::CorruptDatabase { .. }),
                "{name}: {error}"
            );
            restore();
        } else if name.ends_with(".log") {
            // Damage in the middle of what was acknowledged is not a torn tail.
            let mut bytes = good[path].clone();
            if bytes.len() < 10_000 {
                continue;
            }
            tried.push(name);
            let middle = bytes.len() / 2;
            for byte in &mut bytes[middle..middle + 100] {
                *byte ^= 0x55;
            }
            fs::write(path, bytes).unwrap();
            let error = refused(config(directory.path())).await;
            assert!(
                matches!(error, OpenError::CorruptDatabase { .. }),
                "{name}: {error}"
            );
            restore();
        }
    }
    assert!(tried.len() >= 3, "{tried:?}");
    let store = RaftStore::open(config(directory.path())).await.unwrap();
    assert_eq!(store.applied_revision().0, 20);
}

#[tokio::test]
async fn a_start_that_was_cut_short_is_taken_up_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/b");
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("KONTIKI.new"), "kontiki dat").unwrap();
    let store = RaftStore::open(config(&path)).await.unwrap();
    store.shutdown().await;
    drop(store);
    assert!(!path.join("KONTIKI.new").exists());
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    for change in [
        (|config: &mut StoreConfig| config.node_id = 0) as fn(&mut StoreConfig),
        |config| config.cluster.clear(),
        |config| config.cluster = "two\nlines".to_owned(),
        |config| config.compaction_interval = std::time::Duration::ZERO,
        |config| config.history_revisions_max = 1,
    ] {
        let mut config = config(&path);
        change(&mut config);
        let error = RaftStore::open(config).await.err().expect("it is refused");
        assert!(matches!(error, OpenError::InvalidConfig { .. }), "{error}");
        assert!(!path.exists());
    }
}
