//! What every [`Store`] does, as checks that a test runs against it.
//!
//! Each check takes an empty store and panics, with what it saw, when the store behaves differently.
//! [`all`] runs them one after the other, each on a store of its own.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    Change, KeyValue, Observer, Op, Precondition, Range, Revision, Store, StoreError, Txn,
    TxnOutcome, WriteFate,
};

/// How long something that must happen may take.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// Runs every check, each on an empty store that `make` makes.
pub async fn all<S, F>(make: impl Fn() -> F)
where
    S: Store,
    F: Future<Output = S>,
{
    transactions_take_revisions(&make().await).await;
    preconditions_guard_transactions(&make().await).await;
    earlier_revisions_can_be_read(&make().await).await;
    ranges_are_read_in_pages(&make().await).await;
    compaction_removes_history(&make().await).await;
    watches_begin_in_the_past_and_go_on(&make().await).await;
    a_watch_that_falls_behind_is_ended(&make().await).await;
    observers_keep_up_with_writers(&make().await).await;
    starts_during_writes_leave_no_gap(Arc::new(make().await)).await;
    keys_expire(&make().await).await;
    limits_are_held(&make().await).await;
    concurrent_writers_leave_no_gaps(Arc::new(make().await)).await;
    a_closed_store_says_so(&make().await).await;
}

fn put(key: &str, value: &str) -> Op {
    Op::Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        ttl: None,
    }
}

fn delete(key: &str) -> Op {
    Op::Delete {
        key: Bytes::copy_from_slice(key.as_bytes()),
    }
}

fn unguarded(ops: Vec<Op>) -> Txn {
    Txn {
        preconditions: Vec::new(),
        ops,
    }
}

async fn commit(store: &impl Store, ops: Vec<Op>) -> Revision {
    match store.txn(unguarded(ops)).await {
        Ok(TxnOutcome::Committed { revision, .. }) => revision,
        other => panic!("a transaction without preconditions is committed, not {other:?}"),
    }
}

fn value(kv: Option<KeyValue>) -> Option<Bytes> {
    kv.map(|kv| kv.value)
}

fn pairs(kvs: &[KeyValue]) -> Vec<(String, String)> {
    kvs.iter()
        .map(|kv| {
            (
                String::from_utf8_lossy(&kv.key).into_owned(),
                String::from_utf8_lossy(&kv.value).into_owned(),
            )
        })
        .collect()
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(WAIT_MAX, future)
        .await
        .unwrap_or_else(|_| panic!("{what} takes longer than {WAIT_MAX:?}"))
}

/// A transaction that changes something takes the next revision; others take none.
pub async fn transactions_take_revisions(store: &impl Store) {
    assert_eq!(store.applied_revision(), Revision::ZERO);
    assert_eq!(store.read_index().await.unwrap(), Revision::ZERO);
    assert_eq!(commit(store, vec![]).await, Revision::ZERO);
    assert_eq!(commit(store, vec![delete("a")]).await, Revision::ZERO);

    assert_eq!(
        commit(store, vec![put("a", "1"), put("b", "1")]).await,
        Revision(1)
    );
    assert_eq!(commit(store, vec![put("a", "2")]).await, Revision(2));
    let a = store.get(b"a", None).unwrap().expect("it was put");
    assert_eq!(
        (a.create_revision, a.mod_revision),
        (Revision(1), Revision(2))
    );
    assert_eq!((a.key.as_ref(), a.value.as_ref()), (&b"a"[..], &b"2"[..]));

    let outcome = store
        .txn(unguarded(vec![delete("a"), delete("x"), put("b", "2")]))
        .await
        .unwrap();
    let TxnOutcome::Committed { revision, previous } = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(revision, Revision(3));
    let held: Vec<Option<Bytes>> = previous.into_iter().map(value).collect();
    assert_eq!(held, [Some("2".into()), None, Some("1".into())]);
    assert_eq!(store.get(b"a", None).unwrap(), None);

    // A key that comes back is a new one.
    assert_eq!(commit(store, vec![put("a", "3")]).await, Revision(4));
    let a = store.get(b"a", None).unwrap().expect("it was put");
    assert_eq!(a.create_revision, Revision(4));
    // Writing the same value is a change.
    assert_eq!(commit(store, vec![put("a", "3")]).await, Revision(5));
    assert_eq!(store.applied_revision(), Revision(5));
    assert_eq!(store.read_index().await.unwrap(), Revision(5));
}

/// A transaction is applied only if its preconditions hold, and names the first one that does not.
pub async fn preconditions_guard_transactions(store: &impl Store) {
    let key = |name: &str| Bytes::copy_from_slice(name.as_bytes());
    let at = |name: &str, revision| Precondition::ModRevision {
        key: key(name),
        revision: Revision(revision),
    };
    let exists = |name: &str| Precondition::Exists { key: key(name) };
    let absent = |name: &str| Precondition::Absent { key: key(name) };
    commit(store, vec![put("a", "1")]).await;
    commit(store, vec![put("b", "1")]).await;

    for (preconditions, failing) in [
        (vec![at("a", 1), at("b", 2), at("c", 0)], None),
        (vec![exists("a"), absent("c")], None),
        (vec![at("a", 2)], Some(0)),
        (vec![at("a", 0)], Some(0)),
        (vec![at("c", 1)], Some(0)),
        (vec![exists("a"), exists("c")], Some(1)),
        (
            vec![absent("c"), exists("a"), absent("b"), exists("c")],
            Some(2),
        ),
    ] {
        let failed_key = failing.map(|index: usize| preconditions[index].key().clone());
        let txn = Txn {
            preconditions: preconditions.clone(),
            ops: vec![],
        };
        match (store.txn(txn).await.unwrap(), failing) {
            (TxnOutcome::Committed { revision, .. }, None) => assert_eq!(revision, Revision(2)),
            (
                TxnOutcome::PreconditionFailed {
                    index,
                    current,
                    revision,
                },
                Some(failing),
            ) => {
                assert_eq!((index, revision), (failing, Revision(2)));
                let held = store.get(&failed_key.expect("one fails"), None).unwrap();
                assert_eq!(current, held);
            }
            (outcome, _) => panic!("{preconditions:?} gave {outcome:?}"),
        }
    }

    let refused = Txn {
        preconditions: vec![absent("a")],
        ops: vec![put("a", "9"), put("d", "9")],
    };
    let outcome = store.txn(refused).await.unwrap();
    assert!(matches!(outcome, TxnOutcome::PreconditionFailed { .. }));
    assert_eq!(value(store.get(b"a", None).unwrap()), Some("1".into()));
    assert_eq!(store.get(b"d", None).unwrap(), None);
    assert_eq!(store.applied_revision(), Revision(2));
}

/// Every revision since the last compaction can be read as it was.
pub async fn earlier_revisions_can_be_read(store: &impl Store) {
    commit(store, vec![put("a", "1"), put("b", "1")]).await;
    commit(store, vec![put("a", "2")]).await;
    commit(store, vec![delete("b"), put("c", "3")]).await;
    commit(store, vec![put("b", "4"), put("a\0", "4")]).await;
    let expected: [&[(&str, &str)]; 5] = [
        &[],
        &[("a", "1"), ("b", "1")],
        &[("a", "2"), ("b", "1")],
        &[("a", "2"), ("c", "3")],
        &[("a", "2"), ("a\0", "4"), ("b", "4"), ("c", "3")],
    ];
    for (revision, expected) in expected.iter().enumerate() {
        let at = Some(Revision(revision as u64));
        let page = store.range(Range::all(), at, 0).unwrap();
        let expected: Vec<(String, String)> = expected
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        assert_eq!(pairs(&page.kvs), expected, "at revision {revision}");
        assert_eq!(Some(page.revision), at);
        for key in ["a", "a\0", "b", "c"] {
            let got = store.get(key.as_bytes(), at).unwrap();
            let listed = page.kvs.iter().find(|kv| kv.key == key).cloned();
            assert_eq!(got, listed, "{key:?} at revision {revision}");
        }
    }
    let now = store.range(Range::all(), None, 0).unwrap();
    assert_eq!(
        now.kvs,
        store.range(Range::all(), Some(Revision(4)), 0).unwrap().kvs
    );
    for error in [
        store.get(b"a", Some(Revision(5))).unwrap_err(),
        store.range(Range::all(), Some(Revision(5)), 0).unwrap_err(),
    ] {
        let StoreError::FutureRevision { requested, current } = error else {
            panic!("{error}");
        };
        assert_eq!((requested, current), (Revision(5), Revision(4)));
    }
}

/// A range is read in pages of one revision, whatever is written meanwhile.
pub async fn ranges_are_read_in_pages(store: &impl Store) {
    for n in 0..7 {
        commit(
            store,
            vec![put(&format!("/p/{n}"), "old"), put(&format!("/q/{n}"), "q")],
        )
        .await;
    }
    let range = Range::prefix("/p/");
    let first = store.range(range.clone(), None, 3).unwrap();
    assert_eq!((first.more, first.remaining), (true, 4));
    commit(
        store,
        vec![delete("/p/4"), put("/p/5", "new"), put("/p/31", "new")],
    )
    .await;

    let mut keys: Vec<Bytes> = first.kvs.iter().map(|kv| kv.key.clone()).collect();
    let mut page = first;
    while page.more {
        let last = page
            .kvs
            .last()
            .expect("a page with more is not empty")
            .key
            .clone();
        page = store
            .range(range.after(&last), Some(page.revision), 3)
            .unwrap();
        assert!(page.kvs.iter().all(|kv| kv.value == "old"), "{page:?}");
        keys.extend(page.kvs.iter().map(|kv| kv.key.clone()));
        assert_eq!(page.remaining as usize, 7 - keys.len());
    }
    let expected: Vec<String> = (0..7).map(|n| format!("/p/{n}")).collect();
    assert_eq!(keys, expected);

    let now = store.range(range, None, 0).unwrap();
    assert_eq!((now.kvs.len(), now.more, now.remaining), (7, false, 0));
    let between = store
        .range(Range::between("/p/2", "/p/4"), None, 0)
        .unwrap();
    assert_eq!(between.kvs.len(), 3);
    assert!(
        store
            .range(Range::between("b", "a"), None, 0)
            .unwrap()
            .kvs
            .is_empty()
    );
    let at = Some(Revision(1));
    assert!(
        store
            .range(Range::between("b", "a"), at, 0)
            .unwrap()
            .kvs
            .is_empty()
    );
}

/// Compaction removes what came before a revision, and keeps the state at it.
pub async fn compaction_removes_history(store: &impl Store) {
    for n in 1..=6 {
        commit(
            store,
            vec![put("a", &n.to_string()), put(&format!("k{n}"), "x")],
        )
        .await;
    }
    commit(store, vec![delete("k1")]).await;
    let error = store.compact(Revision(8)).await.unwrap_err();
    assert!(
        matches!(error, StoreError::FutureRevision { .. }),
        "{error}"
    );
    store.compact(Revision(4)).await.unwrap();
    store.compact(Revision(2)).await.unwrap();
    assert_eq!(store.compacted_revision(), Revision(4));
    assert_eq!(store.applied_revision(), Revision(7));

    assert_eq!(
        value(store.get(b"a", Some(Revision(4))).unwrap()),
        Some("4".into())
    );
    assert_eq!(
        store
            .range(Range::prefix("k"), Some(Revision(4)), 0)
            .unwrap()
            .kvs
            .len(),
        4
    );
    for error in [
        store.get(b"a", Some(Revision(3))).unwrap_err(),
        store.range(Range::all(), Some(Revision(3)), 0).unwrap_err(),
        store.watch(Range::all(), Revision(4)).unwrap_err(),
    ] {
        let StoreError::Compacted { compacted, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(compacted, Revision(4));
    }
    let mut watch = store.watch(Range::prefix("a"), Revision(5)).unwrap();
    let change = within("a change", watch.next()).await.unwrap().unwrap();
    assert_eq!(
        (change.revision, change.value.as_deref()),
        (Revision(5), Some(&b"5"[..]))
    );
    assert_eq!(value(change.previous.clone()), Some("4".into()));

    store.compact(Revision(7)).await.unwrap();
    assert_eq!(store.get(b"k1", None).unwrap(), None);
    assert_eq!(
        store
            .range(Range::all(), Some(Revision(7)), 0)
            .unwrap()
            .kvs
            .len(),
        6
    );
    assert_eq!(commit(store, vec![put("k1", "again")]).await, Revision(8));
    assert_eq!(store.get(b"k1", Some(Revision(7))).unwrap(), None);
}

/// A watch gives the changes since a revision and then the new ones, each once, in order.
pub async fn watches_begin_in_the_past_and_go_on(store: &impl Store) {
    commit(store, vec![put("/a/1", "1"), put("/b/1", "1")]).await;
    commit(store, vec![put("/a/1", "2")]).await;
    commit(store, vec![delete("/a/1"), put("/a/2", "3")]).await;
    let mut since_2 = store.watch(Range::prefix("/a/"), Revision(2)).unwrap();
    let mut everything = store.watch(Range::all(), Revision(1)).unwrap();
    let mut future = store.watch(Range::all(), Revision(6)).unwrap();
    commit(store, vec![put("/a/3", "4"), put("/b/1", "4")]).await;
    commit(store, vec![put("/b/1", "5")]).await;
    commit(store, vec![delete("/a/3")]).await;

    let first = within("a change", since_2.next()).await.unwrap().unwrap();
    assert_eq!(
        *first,
        Change {
            revision: Revision(2),
            key: "/a/1".into(),
            value: Some("2".into()),
            previous: Some(KeyValue {
                key: "/a/1".into(),
                value: "1".into(),
                create_revision: Revision(1),
                mod_revision: Revision(1),
            }),
            create_revision: Revision(1),
        }
    );
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let change = within("a change", since_2.next()).await.unwrap().unwrap();
        let key = String::from_utf8_lossy(&change.key).into_owned();
        seen.push((change.revision.0, key, change.value.is_some()));
    }
    seen[..2].sort();
    let expected = [
        (3, "/a/1", false),
        (3, "/a/2", true),
        (4, "/a/3", true),
        (6, "/a/3", false),
    ];
    assert_eq!(
        seen,
        expected.map(|(revision, key, put)| (revision, key.to_owned(), put))
    );

    let mut revisions = Vec::new();
    while revisions.len() < 9 {
        revisions.push(
            within("a change", everything.next())
                .await
                .unwrap()
                .unwrap()
                .revision
                .0,
        );
    }
    assert_eq!(revisions, [1, 1, 2, 3, 3, 4, 4, 5, 6]);
    let change = within("a change", future.next()).await.unwrap().unwrap();
    assert_eq!(change.revision, Revision(6));
    assert_eq!(change.create_revision, Revision(4));

    drop((since_2, everything));
    assert_eq!(store.metrics().watchers, 1);
}

/// A watcher that does not take its changes is cut off, after those that it was given room for.
pub async fn a_watch_that_falls_behind_is_ended(store: &impl Store) {
    let mut slow = store.watch(Range::all(), Revision(1)).unwrap();
    let per_txn = crate::limits::TXN_OPS_MAX;
    for _ in 0..=crate::WATCH_QUEUE_CHANGES_MAX / per_txn {
        let ops = (0..per_txn).map(|n| put(&n.to_string(), "x")).collect();
        commit(store, ops).await;
    }
    let mut taken = 0;
    let error = loop {
        match within("a change", slow.next())
            .await
            .expect("an error comes first")
        {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Lagged { .. }), "{error}");
    assert_eq!(taken, crate::WATCH_QUEUE_CHANGES_MAX);
    assert!(slow.next().await.is_none());
    assert_eq!(store.metrics().watchers_lagged_total, 1);
}

#[derive(Default)]
struct Notes {
    start: Mutex<Vec<KeyValue>>,
    start_revision: Mutex<Option<Revision>>,
    changes: Mutex<Vec<Arc<Change>>>,
}

impl Observer for Notes {
    fn start(&self, kvs: &mut dyn Iterator<Item = KeyValue>, revision: Revision) {
        assert!(self.start_revision.lock().replace(revision).is_none());
        self.start.lock().extend(kvs);
    }

    fn applied(&self, changes: &[Arc<Change>]) {
        assert!(!changes.is_empty());
        self.changes.lock().extend(changes.iter().cloned());
    }
}

impl Notes {
    fn revisions(&self) -> Vec<u64> {
        self.changes
            .lock()
            .iter()
            .map(|change| change.revision.0)
            .collect()
    }
}

/// An observer starts from a consistent state and has seen a change before its writer is answered.
pub async fn observers_keep_up_with_writers(store: &impl Store) {
    commit(
        store,
        vec![put("/a/1", "1"), put("/a/2", "1"), put("/b/1", "1")],
    )
    .await;
    commit(store, vec![delete("/a/2")]).await;
    let own = Arc::new(Notes::default());
    let all = Arc::new(Notes::default());
    let own_guard = store.observe(Range::prefix("/a/"), own.clone()).unwrap();
    let _all_guard = store.observe(Range::all(), all.clone()).unwrap();
    assert_eq!(
        pairs(&own.start.lock()),
        [("/a/1".to_owned(), "1".to_owned())]
    );
    assert_eq!(*own.start_revision.lock(), Some(Revision(2)));
    assert_eq!(all.start.lock().len(), 2);

    for n in 3..=20u64 {
        let key = if n % 2 == 0 { "/a/1" } else { "/b/1" };
        let revision = commit(store, vec![put(key, &n.to_string())]).await;
        assert_eq!(
            all.revisions().last(),
            Some(&revision.0),
            "seen before the answer"
        );
        assert!(store.applied_revision() >= revision);
    }
    assert_eq!(all.revisions(), (3..=20).collect::<Vec<_>>());
    assert_eq!(
        own.revisions(),
        (3..=20).filter(|n| n % 2 == 0).collect::<Vec<_>>()
    );
    drop(own_guard);
    commit(store, vec![put("/a/1", "x")]).await;
    assert_eq!(own.revisions().last(), Some(&20));
    assert_eq!(all.revisions().last(), Some(&21));
}

/// Whoever starts to observe or to watch while others write misses nothing and gets nothing twice.
pub async fn starts_during_writes_leave_no_gap<S: Store>(store: Arc<S>) {
    const WRITERS: usize = 4;
    const WRITES: usize = 150;
    const STARTS_MAX: usize = 32;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            for n in 0..WRITES {
                commit(
                    store.as_ref(),
                    vec![put(&format!("k{writer}"), &n.to_string())],
                )
                .await;
            }
        });
    }
    let mut observers = Vec::new();
    let mut watches = Vec::new();
    let last = (WRITERS * WRITES) as u64;
    while store.applied_revision().0 < last && observers.len() < STARTS_MAX {
        let notes = Arc::new(Notes::default());
        let guard = store.observe(Range::all(), notes.clone()).unwrap();
        observers.push((notes, guard));
        let from = Revision(store.applied_revision().0 / 2 + 1);
        watches.push((from.0, store.watch(Range::all(), from).unwrap()));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    within("writing", writers.join_all()).await;
    for (notes, _guard) in &observers {
        let start = notes.start_revision.lock().expect("it was started").0;
        assert_eq!(notes.revisions(), (start + 1..=last).collect::<Vec<_>>());
        let newest = notes.start.lock().iter().map(|kv| kv.mod_revision.0).max();
        assert_eq!(newest.unwrap_or(0), start);
    }
    for (from, watch) in &mut watches {
        for revision in *from..=last {
            let change = within("a change", watch.next()).await.unwrap().unwrap();
            assert_eq!(change.revision.0, revision);
        }
    }
}

/// A key with a time to live is deleted by a change of its own when it has run out.
pub async fn keys_expire(store: &impl Store) {
    let with_ttl = |key: &str, ttl_ms| Op::Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: "x".into(),
        ttl: Some(Duration::from_millis(ttl_ms)),
    };
    let mut watch = store.watch(Range::all(), Revision(5)).unwrap();
    let begun = Instant::now();
    commit(store, vec![with_ttl("long", 3_600_000)]).await;
    commit(
        store,
        vec![with_ttl("short", 300), with_ttl("renewed", 300)],
    )
    .await;
    commit(store, vec![with_ttl("kept", 300)]).await;
    commit(
        store,
        vec![put("kept", "for good"), with_ttl("renewed", 3_600_000)],
    )
    .await;

    let change = within("an expiry", watch.next()).await.unwrap().unwrap();
    assert!(
        begun.elapsed() >= Duration::from_millis(300),
        "after {:?}",
        begun.elapsed()
    );
    assert_eq!(
        (change.key.as_ref(), change.revision),
        (&b"short"[..], Revision(5))
    );
    assert_eq!(
        (change.value.clone(), change.create_revision),
        (None, Revision(2))
    );
    assert_eq!(value(change.previous.clone()), Some("x".into()));
    assert_eq!(store.get(b"short", None).unwrap(), None);
    assert!(store.get(b"short", Some(Revision(4))).unwrap().is_some());
    commit(store, vec![with_ttl("again", 1)]).await;
    let change = within("a change", watch.next()).await.unwrap().unwrap();
    assert_eq!(change.revision, Revision(6));
    let change = within("an expiry", watch.next()).await.unwrap().unwrap();
    assert_eq!(
        (change.key.as_ref(), change.revision),
        (&b"again"[..], Revision(7))
    );
    for key in ["long", "renewed", "kept"] {
        assert!(store.get(key.as_bytes(), None).unwrap().is_some(), "{key}");
    }
    assert_eq!(store.metrics().expired_total, 2);
}

/// What breaks a limit is refused before anything is written.
pub async fn limits_are_held(store: &impl Store) {
    use crate::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
    let big = |bytes| Op::Put {
        key: "big".into(),
        value: Bytes::from(vec![7; bytes]),
        ttl: None,
    };
    for ops in [
        vec![put("", "x")],
        vec![put(&"k".repeat(KEY_BYTES_MAX + 1), "x")],
        vec![big(VALUE_BYTES_MAX + 1)],
        vec![put("a", "1"), delete("a")],
    ] {
        let error = store.txn(unguarded(ops)).await.unwrap_err();
        assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
        assert_eq!(error.fate(), WriteFate::NotWritten);
    }
    assert_eq!(commit(store, vec![big(VALUE_BYTES_MAX)]).await, Revision(1));
    let kv = store.get(b"big", None).unwrap().expect("it was put");
    assert_eq!(kv.value.len(), VALUE_BYTES_MAX);
    let odd = Bytes::from(vec![0xff; KEY_BYTES_MAX]);
    let op = Op::Put {
        key: odd.clone(),
        value: Bytes::new(),
        ttl: None,
    };
    assert_eq!(commit(store, vec![op]).await, Revision(2));
    assert_eq!(
        store.range(Range::prefix(odd), None, 0).unwrap().kvs.len(),
        1
    );
}

/// Writers at the same time get revisions without gaps, and only one of two who collide wins.
pub async fn concurrent_writers_leave_no_gaps<S: Store>(store: Arc<S>) {
    const WRITERS: usize = 16;
    const WRITES: usize = 25;
    let mut watch = store.watch(Range::all(), Revision(1)).unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            let mut revisions = Vec::new();
            for _ in 0..WRITES {
                // Everybody counts the same counter up, guarded by what was read.
                loop {
                    let held = store.get(b"counter", None).unwrap();
                    let count: u64 = held.as_ref().map_or(0, |kv| {
                        std::str::from_utf8(&kv.value).unwrap().parse().unwrap()
                    });
                    let txn = Txn {
                        preconditions: vec![Precondition::ModRevision {
                            key: "counter".into(),
                            revision: held.map_or(Revision::ZERO, |kv| kv.mod_revision),
                        }],
                        ops: vec![
                            put("counter", &(count + 1).to_string()),
                            put(&format!("by/{writer}"), &count.to_string()),
                        ],
                    };
                    match store.txn(txn).await.unwrap() {
                        TxnOutcome::Committed { revision, .. } => {
                            revisions.push(revision.0);
                            break;
                        }
                        TxnOutcome::PreconditionFailed { .. } => tokio::task::yield_now().await,
                    }
                }
            }
            revisions
        });
    }
    let mut revisions: Vec<u64> = within("writing", writers.join_all()).await.concat();
    revisions.sort_unstable();
    let total = (WRITERS * WRITES) as u64;
    assert_eq!(revisions, (1..=total).collect::<Vec<_>>());
    let counter = store
        .get(b"counter", None)
        .unwrap()
        .expect("it was counted");
    assert_eq!(counter.value, total.to_string());
    for revision in 1..=total {
        for _ in 0..2 {
            let change = within("a change", watch.next()).await.unwrap().unwrap();
            assert_eq!(change.revision, Revision(revision));
        }
    }
}

/// After the shutdown nothing is written, and whoever waits is told.
pub async fn a_closed_store_says_so(store: &impl Store) {
    commit(store, vec![put("a", "1")]).await;
    let mut watch = store.watch(Range::all(), Revision(2)).unwrap();
    within("the shutdown", store.shutdown()).await;
    let error = within("the end", watch.next()).await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Closed), "{error}");
    let error = store.txn(unguarded(vec![put("a", "2")])).await.unwrap_err();
    assert!(matches!(error, StoreError::Closed), "{error}");
    assert_eq!(error.fate(), WriteFate::NotWritten);
    assert!(matches!(store.read_index().await, Err(StoreError::Closed)));
    assert!(matches!(
        store.compact(Revision(1)).await,
        Err(StoreError::Closed)
    ));
    assert!(matches!(
        store.watch(Range::all(), Revision(1)),
        Err(StoreError::Closed)
    ));
    within("the second shutdown", store.shutdown()).await;
}
