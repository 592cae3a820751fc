//! Random transactions, compactions and restarts, held against a model that keeps every revision.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use kontiki_raft::{
    KeyValue, Op, Precondition, RaftStore, Range, Revision, Store, StoreConfig, StoreError, Txn,
    TxnOutcome, memory,
};
use proptest::prelude::*;

type Contents = BTreeMap<Bytes, KeyValue>;

#[derive(Debug, Clone)]
enum Step {
    Txn(Txn),
    /// Transactions at the same time, which share entries.
    Together(Vec<Txn>),
    Compact(u64),
    Restart,
}

/// Every state that there ever was, by revision.
struct Model {
    states: Vec<Contents>,
    compacted: u64,
}

impl Model {
    fn txn(&mut self, txn: &Txn) -> TxnOutcome {
        let now = self.states.last().unwrap().clone();
        let current = Revision(self.states.len() as u64 - 1);
        for (index, condition) in txn.preconditions.iter().enumerate() {
            let held = now.get(condition.key());
            let holds = match condition {
                Precondition::ModRevision { revision, .. } => {
                    held.map_or(0, |kv| kv.mod_revision.0) == revision.0
                }
                Precondition::Exists { .. } => held.is_some(),
                Precondition::Absent { .. } => held.is_none(),
            };
            if !holds {
                return TxnOutcome::PreconditionFailed {
                    index,
                    current: held.cloned(),
                    revision: current,
                };
            }
        }
        let mut next = now.clone();
        let mut changed = false;
        for op in &txn.ops {
            match op {
                Op::Put { key, value, .. } => {
                    changed = true;
                    let create_revision =
                        now.get(key).map_or(current.next(), |kv| kv.create_revision);
                    let kv = KeyValue {
                        key: key.clone(),
                        value: value.clone(),
                        create_revision,
                        mod_revision: current.next(),
                    };
                    next.insert(key.clone(), kv);
                }
                Op::Delete { key } => changed |= next.remove(key).is_some(),
            }
        }
        let previous = txn
            .ops
            .iter()
            .map(|op| now.get(op.key()).cloned())
            .collect();
        if changed {
            self.states.push(next);
        }
        let revision = Revision(self.states.len() as u64 - 1);
        TxnOutcome::Committed { revision, previous }
    }

    fn check(&self, store: &dyn Store) {
        let last = self.states.len() as u64 - 1;
        assert_eq!(store.applied_revision(), Revision(last));
        for at in 0..=last {
            let read = store.range(Range::all(), Some(Revision(at)), 0);
            if at < self.compacted {
                assert!(
                    matches!(read, Err(StoreError::Compacted { .. })),
                    "{read:?}"
                );
                continue;
            }
            let expected: Vec<KeyValue> = self.states[at as usize].values().cloned().collect();
            assert_eq!(read.unwrap().kvs, expected, "at revision {at}");
            for key in keys() {
                let got = store.get(&key, Some(Revision(at))).unwrap();
                assert_eq!(got.as_ref(), self.states[at as usize].get(&key));
            }
            let range = Range::between(vec![1], vec![2]);
            let page = store.range(range.clone(), Some(Revision(at)), 1).unwrap();
            let inside: Vec<&KeyValue> = expected
                .iter()
                .filter(|kv| range.contains(&kv.key))
                .collect();
            assert_eq!(page.kvs.first(), inside.first().copied());
            assert_eq!(page.remaining, inside.len().saturating_sub(1) as u64);
        }
    }

    /// The changes from each revision to the next are what a watch gives.
    async fn check_watch(&self, store: &dyn Store) {
        let last = self.states.len() as u64 - 1;
        let from = self.compacted + 1;
        let mut watch = store.watch(Range::all(), Revision(from)).unwrap();
        for at in from..=last {
            let (before, after) = (&self.states[at as usize - 1], &self.states[at as usize]);
            let mut changed: BTreeMap<Bytes, Option<&KeyValue>> = BTreeMap::new();
            for key in keys() {
                if before.get(&key) != after.get(&key) {
                    changed.insert(key.clone(), after.get(&key));
                }
            }
            while !changed.is_empty() {
                let change = watch.next().await.unwrap().unwrap();
                assert_eq!(change.revision, Revision(at));
                let expected = changed.remove(&change.key).expect("each key changes once");
                assert_eq!(change.value.as_ref(), expected.map(|kv| &kv.value));
                assert_eq!(change.previous.as_ref(), before.get(&change.key));
                let birth = expected
                    .or(before.get(&change.key))
                    .unwrap()
                    .create_revision;
                assert_eq!(change.create_revision, birth);
            }
        }
    }
}

/// Few keys, so that they meet; with bytes that are special in the database's keys.
fn keys() -> Vec<Bytes> {
    [
        &[0][..],
        &[0, 0],
        &[0, 255],
        &[1],
        &[1, 0],
        &[1, 0, 1],
        &[1, 255],
        &[2],
        &[255],
    ]
    .map(Bytes::copy_from_slice)
    .to_vec()
}

fn key() -> impl Strategy<Value = Bytes> {
    prop::sample::select(keys())
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (key(), prop::collection::vec(any::<u8>(), 0..4)).prop_map(|(key, value)| Op::Put {
            key,
            value: value.into(),
            ttl: None,
        }),
        1 => key().prop_map(|key| Op::Delete { key }),
    ]
}

fn precondition() -> impl Strategy<Value = Precondition> {
    prop_oneof![
        (key(), 0..6u64).prop_map(|(key, revision)| Precondition::ModRevision {
            key,
            revision: Revision(revision)
        }),
        key().prop_map(|key| Precondition::Exists { key }),
        key().prop_map(|key| Precondition::Absent { key }),
    ]
}

fn txn() -> impl Strategy<Value = Txn> {
    (
        prop_oneof![2 => Just(vec![]), 1 => prop::collection::vec(precondition(), 1..3)],
        prop::collection::vec(op(), 0..4),
    )
        .prop_map(|(preconditions, mut ops)| {
            ops.sort_by(|a, b| a.key().cmp(b.key()));
            ops.dedup_by(|a, b| a.key() == b.key());
            Txn { preconditions, ops }
        })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => txn().prop_map(Step::Txn),
        2 => prop::collection::vec(txn(), 2..6).prop_map(Step::Together),
        1 => (0..40u64).prop_map(Step::Compact),
        1 => Just(Step::Restart),
    ]
}

async fn open(path: &Path) -> Arc<dyn Store> {
    let mut config = StoreConfig::new(path, "model");
    config.fsync = false;
    Arc::new(RaftStore::open(config).await.unwrap())
}

/// Runs the steps; with a path on the replicated store, otherwise in memory.
async fn run(steps: Vec<Step>, path: Option<&Path>) {
    let mut store: Arc<dyn Store> = match path {
        Some(path) => open(path).await,
        None => Arc::new(memory()),
    };
    let mut model = Model {
        states: vec![Contents::new()],
        compacted: 0,
    };
    for step in steps {
        match step {
            Step::Txn(txn) => {
                assert_eq!(
                    store.txn(txn.clone()).await.unwrap(),
                    model.txn(&txn),
                    "{txn:?}"
                );
            }
            Step::Together(txns) => {
                // Polled in this order, they are queued in this order.
                let answers =
                    futures::future::join_all(txns.iter().cloned().map(|txn| store.txn(txn))).await;
                for (txn, answer) in txns.iter().zip(answers) {
                    assert_eq!(answer.unwrap(), model.txn(txn), "{txn:?}");
                }
            }
            Step::Compact(to) => {
                let result = store.compact(Revision(to)).await;
                if to < model.states.len() as u64 {
                    result.unwrap();
                    model.compacted = model.compacted.max(to);
                } else {
                    assert!(matches!(result, Err(StoreError::FutureRevision { .. })));
                }
            }
            Step::Restart => {
                if let Some(path) = path {
                    store.shutdown().await;
                    drop(store);
                    store = open(path).await;
                }
            }
        }
    }
    model.check(store.as_ref());
    model.check_watch(store.as_ref()).await;
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn the_store_in_memory_follows_the_model(steps in prop::collection::vec(step(), 0..60)) {
        runtime().block_on(run(steps, None));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(25))]
    #[test]
    fn the_replicated_store_follows_the_model(steps in prop::collection::vec(step(), 0..60)) {
        let directory = tempfile::tempdir().unwrap();
        runtime().block_on(run(steps, Some(&directory.path().join("data"))));
    }
}
