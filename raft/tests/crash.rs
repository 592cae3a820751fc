//! A store that is killed at any moment keeps what it acknowledged, and nothing by halves.
//!
//! A child process writes and says what it begins and what was acknowledged; it is killed, by the
//! clock or at a named point of a write, and then the directory is opened and held against what it
//! said. The directory goes through all the crashes of a test.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use kontiki_raft::{
    Op, Precondition, RaftStore, Range, Revision, Store, StoreConfig, Txn, TxnOutcome,
};

/// Set for a child: the data directory.
const DIRECTORY: &str = "KONTIKI_CRASH_DIRECTORY";
/// The point at which the child dies, and at which hit.
const POINT: &str = "KONTIKI_CRASH_POINT";
const HIT: &str = "KONTIKI_CRASH_HIT";
/// How big the values are.
const VALUE_BYTES: &str = "KONTIKI_CRASH_VALUE_BYTES";
/// The name of the test that a child runs.
const CHILD: &str = "child_that_writes_until_it_is_killed";
const WRITERS: u64 = 8;
/// A child that does not die when it should is a failure after this.
const CHILD_MAX: Duration = Duration::from_secs(60);

fn config(path: &Path) -> StoreConfig {
    StoreConfig::new(path, "crash")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn put(key: String, value: Bytes) -> Op {
    Op::Put {
        key: key.into(),
        value,
        ttl: None,
    }
}

/// Not a test of its own: what the other tests run in a process that they kill.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Ok(directory) = std::env::var(DIRECTORY) else {
        return;
    };
    let value_bytes: usize = std::env::var(VALUE_BYTES).unwrap().parse().unwrap();
    if let Ok(point) = std::env::var(POINT) {
        let hit: u64 = std::env::var(HIT).unwrap().parse().unwrap();
        let hits = AtomicU64::new(0);
        fail::cfg_callback(point, move || {
            if hits.fetch_add(1, Ordering::SeqCst) + 1 == hit {
                let own = rustix::process::getpid();
                rustix::process::kill_process(own, rustix::process::Signal::KILL).unwrap();
                // The signal ends all threads; this one does nothing more until it does.
                loop {
                    std::thread::park();
                }
            }
        })
        .unwrap();
    }
    runtime().block_on(async {
        let store = Arc::new(
            RaftStore::open(config(Path::new(&directory)))
                .await
                .unwrap(),
        );
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let store = Arc::clone(&store);
            writers.spawn(async move {
                let last = store
                    .get(format!("last/{writer}").as_bytes(), None)
                    .unwrap();
                let mut number = last.map_or(0, |kv| {
                    std::str::from_utf8(&kv.value).unwrap().parse().unwrap()
                });
                loop {
                    number += 1;
                    write(store.as_ref(), writer, number, value_bytes).await;
                }
            });
        }
        writers.spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(20)).await;
                let to = store.applied_revision().0.saturating_sub(50);
                store.compact(Revision(to)).await.unwrap();
            }
        });
        writers.join_all().await;
    });
}

/// One transaction of three keys, announced before and after.
async fn write(store: &RaftStore, writer: u64, number: u64, value_bytes: usize) {
    say(&format!("begin {writer} {number}"));
    let digits = Bytes::from(number.to_string());
    let mut value = digits.to_vec();
    value.resize(value_bytes.max(digits.len()), b'.');
    let each = format!("each/{writer}/{number}");
    let txn = Txn {
        preconditions: vec![Precondition::Absent {
            key: each.clone().into(),
        }],
        ops: vec![
            put(each, digits.clone()),
            put(format!("last/{writer}"), digits),
            put(format!("big/{writer}"), value.into()),
        ],
    };
    match store.txn(txn).await {
        Ok(TxnOutcome::Committed { revision, .. }) => {
            say(&format!("ack {writer} {number} {revision}"));
        }
        other => panic!("writer {writer} number {number}: {other:?}"),
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // One write for one line: what is said is said completely.
    out.write_all(format!("\n{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

enum Death {
    /// At the nth hit of a point.
    At(&'static str, u64),
    /// Some time after the first word.
    After(Duration),
}

/// All that children have said.
#[derive(Default)]
struct Said {
    /// Who wrote what, with the revision if it was acknowledged.
    writes: BTreeMap<(u64, u64), Option<u64>>,
}

impl Said {
    fn hear(&mut self, line: &str) {
        let mut words = line.split(' ');
        let kind = words.next();
        let numbers: Option<Vec<u64>> = words.map(|word| word.parse().ok()).collect();
        match (kind, numbers.as_deref()) {
            (Some("begin"), Some([writer, number])) => {
                self.writes.entry((*writer, *number)).or_default();
            }
            (Some("ack"), Some([writer, number, revision])) => {
                self.writes.insert((*writer, *number), Some(*revision));
            }
            // The test harness says things too.
            _ => {}
        }
    }

    /// Runs a child until it dies as it should.
    fn child(&mut self, path: &Path, death: &Death, value_bytes: usize) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", CHILD, "--nocapture", "--test-threads=1"])
            .env(DIRECTORY, path)
            .env(VALUE_BYTES, value_bytes.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Death::At(point, hit) = death {
            command.env(POINT, point).env(HIT, hit.to_string());
        }
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (heard, hearing) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                heard.send(line).unwrap();
            }
        });
        let mut deadline = Instant::now() + CHILD_MAX;
        let mut waiting_for_first = true;
        let mut overdue = false;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match hearing.recv_timeout(left) {
                Ok(line) => {
                    self.hear(&line);
                    if waiting_for_first && line.starts_with("begin") {
                        waiting_for_first = false;
                        if let Death::After(time) = death {
                            deadline = Instant::now() + *time;
                        }
                    }
                }
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                    overdue = waiting_for_first || matches!(death, Death::At(..));
                    child.kill().unwrap();
                    deadline = Instant::now() + CHILD_MAX;
                }
            }
        }
        reader.join().unwrap();
        let status = child.wait().unwrap();
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        assert_eq!(signal, Some(9), "the child ended by itself: {status}");
        if let Death::At(point, hit) = death {
            assert!(!overdue, "{point} was not hit {hit} times in {CHILD_MAX:?}");
        }
    }

    /// Opens the directory and holds it against what was said.
    fn check(&mut self, path: &Path) {
        runtime().block_on(async {
            let store = RaftStore::open(config(path)).await.unwrap();
            self.check_store(&store).await;
            store.shutdown().await;
        });
    }

    async fn check_store(&mut self, store: &RaftStore) {
        let revision = store.applied_revision();
        let mut by_revision = BTreeMap::new();
        for ((writer, number), acknowledged) in &mut self.writes {
            let each = store
                .get(format!("each/{writer}/{number}").as_bytes(), None)
                .unwrap();
            match (&each, &acknowledged) {
                (Some(kv), Some(revision)) => assert_eq!(kv.mod_revision.0, *revision),
                (None, Some(revision)) => {
                    panic!("lost: {writer}/{number}, acknowledged at revision {revision}")
                }
                _ => {}
            }
            // What is there now was written, acknowledged or not, and stays.
            *acknowledged = each.as_ref().map(|kv| kv.mod_revision.0);
            if let Some(kv) = each {
                assert_eq!(kv.value, number.to_string());
                let twice = by_revision.insert(kv.mod_revision.0, (*writer, *number));
                assert_eq!(twice, None, "two writes have revision {}", kv.mod_revision);
            }
        }
        self.writes.retain(|_, written| written.is_some());
        for writer in 0..WRITERS {
            let numbers: Vec<u64> = self
                .writes
                .keys()
                .filter(|(by, _)| *by == writer)
                .map(|(_, number)| *number)
                .collect();
            let last = numbers.last().copied().unwrap_or(0);
            assert_eq!(
                numbers,
                (1..=last).collect::<Vec<_>>(),
                "writer {writer} has gaps"
            );
            // The three keys of a transaction come together or not at all.
            for name in ["last", "big"] {
                let kv = store
                    .get(format!("{name}/{writer}").as_bytes(), None)
                    .unwrap();
                let text = kv.map_or("0".to_owned(), |kv| {
                    String::from_utf8_lossy(&kv.value)
                        .trim_end_matches('.')
                        .to_owned()
                });
                assert_eq!(text, last.to_string(), "{name}/{writer}");
            }
        }
        // Every transaction took one revision, and there are no others.
        let revisions: Vec<u64> = by_revision.into_keys().collect();
        assert_eq!(revisions, (1..=revision.0).collect::<Vec<_>>());
        let from = store.compacted_revision().next();
        let mut watch = store.watch(Range::all(), from).unwrap();
        for at in from.0..=revision.0 {
            for _ in 0..3 {
                assert_eq!(watch.next().await.unwrap().unwrap().revision.0, at);
            }
        }
        let at = Some(store.compacted_revision());
        store.range(Range::all(), at, 0).unwrap();
    }
}

#[test]
fn killed_at_random_moments() {
    let mut seed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_nanos() as u64
        | 1;
    eprintln!("seed {seed}");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    let mut said = Said::default();
    for round in 0..12 {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let time = Duration::from_micros((seed >> 33) % 150_000);
        let value_bytes = if round % 3 == 2 { 50_000 } else { 100 };
        said.child(&path, &Death::After(time), value_bytes);
        said.check(&path);
    }
    assert!(said.writes.len() > 100, "only {} writes", said.writes.len());
}

#[test]
fn killed_at_every_durable_write() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    let mut said = Said::default();
    for (point, hit, value_bytes) in [
        ("log-before-write", 20, 100),
        ("log-before-sync", 21, 100),
        ("log-after-sync", 22, 100),
        ("state-before-write", 23, 100),
        ("state-after-write", 24, 100),
        ("collect-before-write", 2, 100),
        ("collect-after-write", 2, 100),
        ("snapshot-before-write", 1, 200_000),
        ("purge-before-write", 1, 200_000),
        ("purge-before-write", 3, 200_000),
        ("log-before-sync", 200, 200_000),
    ] {
        said.child(&path, &Death::At(point, hit), value_bytes);
        said.check(&path);
    }
}

#[test]
fn killed_during_the_first_start() {
    for (point, hits) in [
        ("marker-before-rename", 1..=2),
        ("marker-after-rename", 1..=2),
        ("log-before-write", 1..=4),
        ("log-before-sync", 1..=4),
        ("log-after-sync", 1..=4),
        ("state-before-write", 1..=2),
        ("state-after-write", 1..=2),
    ] {
        for hit in hits {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("data");
            let mut said = Said::default();
            said.child(&path, &Death::At(point, hit), 100);
            said.check(&path);
        }
    }
}
