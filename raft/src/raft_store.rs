//! The replicated store: puts its parts together, and serves the interface from them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::command::{Answer, Command};
use crate::consensus::log::{Log, read_meta};
use crate::consensus::log_thread::LogThread;
use crate::consensus::machine::{Applied, Machine, Parts, Signals};
use crate::consensus::node::{self, Node};
use crate::consensus::propose::{self, Writers};
use crate::consensus::reads::Readers;
use crate::consensus::upkeep::Upkeep;
use crate::consensus::{Health, Raft};
use crate::datadir::{DataDir, Owner};
use crate::hub::{Hub, Observation};
use crate::judge;
use crate::metrics::Counters;
use crate::rocks::state::State;
use crate::rocks::{Db, keys};
use crate::watch::WatchStream;
use crate::{
    KeyValue, Observer, OpenError, Range, RangePage, Revision, Store, StoreError, StoreMetrics,
    Txn, TxnOutcome,
};

/// History that is kept at most, in revisions.
const HISTORY_REVISIONS_MAX: u64 = 500_000;
/// How often history is compacted; a change stays readable for one to two of these.
const COMPACTION_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// How a replicated store is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// Where everything is kept. It is made if it does not exist.
    pub data_dir: PathBuf,
    /// The cluster's name: a data directory belongs to one cluster.
    pub cluster: String,
    /// This node's id in the cluster, which it keeps for good.
    pub node_id: u64,
    /// Whether a write is forced to the disk before it is acknowledged. Without it, a crash of the
    /// machine (not of the program) can lose acknowledged writes: for tests.
    pub fsync: bool,
    /// How often history is compacted. A change stays readable for one to two intervals.
    pub compaction_interval: Duration,
    /// How many revisions of history are kept at most, whatever their age.
    pub history_revisions_max: u64,
}

impl StoreConfig {
    /// The defaults, for a data directory and a cluster.
    pub fn new(data_dir: impl Into<PathBuf>, cluster: impl Into<String>) -> StoreConfig {
        StoreConfig {
            data_dir: data_dir.into(),
            cluster: cluster.into(),
            node_id: 1,
            fsync: true,
            compaction_interval: COMPACTION_INTERVAL,
            history_revisions_max: HISTORY_REVISIONS_MAX,
        }
    }

    fn check(&self) -> Result<(), OpenError> {
        let invalid = |reason: &str| {
            Err(OpenError::InvalidConfig {
                reason: reason.to_owned(),
            })
        };
        if self.node_id == 0 {
            return invalid("the node id is 0: ids start at 1");
        }
        if self.compaction_interval < Duration::from_secs(1) {
            return invalid("the compaction interval is under a second");
        }
        if self.history_revisions_max < 100 {
            return invalid("history_revisions_max is under 100");
        }
        Ok(())
    }
}

/// The [`Store`] that is replicated by Raft and kept in RocksDB.
///
/// Its files are closed when it is dropped.
pub struct RaftStore {
    raft: Raft,
    writers: Writers,
    readers: Arc<Readers>,
    shared: Shared,
    stop: CancellationToken,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Locked until the store is dropped.
    _data_dir: DataDir,
}

/// What the store's interface and the thread that Raft runs on both use.
#[derive(Clone)]
struct Shared {
    state: Arc<State>,
    hub: Arc<Hub>,
    log: Log,
    signals: Arc<Signals>,
    counters: Arc<Counters>,
    health: Arc<Health>,
}

/// An opened directory, before anything runs.
struct Opened {
    config: StoreConfig,
    data_dir: DataDir,
    applied: Applied,
    shared: Shared,
}

impl RaftStore {
    /// Opens the store in its data directory, which is made if there is none, and returns when it
    /// can be written: with everything in it that was ever acknowledged.
    ///
    /// # Errors
    /// Whatever makes the directory unusable; then nothing in it has been changed.
    pub async fn open(config: StoreConfig) -> Result<RaftStore, OpenError> {
        config.check()?;
        // This reads and writes files, for many milliseconds: not on the caller's threads.
        let opened = blocking(move || Opened::open(config)).await?;
        opened.start().await
    }
}

impl Opened {
    fn open(config: StoreConfig) -> Result<Opened, OpenError> {
        let owner = Owner {
            cluster: config.cluster.clone(),
            node_id: config.node_id,
        };
        let data_dir = DataDir::open(&config.data_dir, &owner)?;
        let path = data_dir.database();
        let db = Db::open(&path, !data_dir.is_ready())
            .map_err(|error| database_error(&path, error.into_string()))?;
        let db = Arc::new(db);
        let corrupt = |error: &dyn std::fmt::Display| database_error(&path, error.to_string());
        let counters = Arc::new(Counters::default());
        let health = Arc::new(Health::default());
        let applied: Applied = read_meta(&db, keys::META_APPLIED)
            .map_err(|error| corrupt(&error))?
            .unwrap_or_default();
        let state = State::new(Arc::clone(&db), applied.progress.compacted)
            .map_err(|error| corrupt(&error))?;
        let deadline_ms = state.first_deadline_ms().map_err(|error| corrupt(&error))?;
        let hub = Arc::new(Hub::default());
        hub.publish(&[], applied.progress.revision);
        let thread = LogThread::start(
            Arc::clone(&db),
            config.fsync,
            Arc::clone(&counters),
            Arc::clone(&health),
        )
        .map_err(|error| start_error(&error))?;
        let log = Log::open(db, thread).map_err(|error| corrupt(&error))?;
        let signals = Signals::new(
            config.history_revisions_max,
            deadline_ms,
            Arc::clone(&counters),
        );
        Ok(Opened {
            config,
            data_dir,
            applied,
            shared: Shared {
                state: Arc::new(state),
                hub,
                log,
                signals: Arc::new(signals),
                counters,
                health,
            },
        })
    }

    async fn start(self) -> Result<RaftStore, OpenError> {
        let Opened {
            config,
            mut data_dir,
            applied,
            shared,
        } = self;
        let (writers, requests) =
            Writers::new(Arc::clone(&shared.counters), Arc::clone(&shared.health));
        let (readers, rounds) = Readers::new(Arc::clone(&shared.hub), Arc::clone(&shared.health));
        let readers = Arc::new(readers);
        let stop = CancellationToken::new();
        let machine = Machine::new(
            Parts {
                state: Arc::clone(&shared.state),
                hub: Arc::clone(&shared.hub),
                log: shared.log.clone(),
                signals: Arc::clone(&shared.signals),
                counters: Arc::clone(&shared.counters),
                health: Arc::clone(&shared.health),
            },
            applied,
        );
        let node = Node {
            node_id: config.node_id,
            cluster: config.cluster,
            log: shared.log.clone(),
            requests,
            rounds,
            readers: Arc::clone(&readers),
            hub: Arc::clone(&shared.hub),
            upkeep: Upkeep {
                state: Arc::clone(&shared.state),
                hub: Arc::clone(&shared.hub),
                signals: Arc::clone(&shared.signals),
                compaction_interval: config.compaction_interval,
                history_revisions_max: config.history_revisions_max,
            },
            counters: Arc::clone(&shared.counters),
            health: Arc::clone(&shared.health),
            stop: stop.clone(),
        };
        let (started, starting) = oneshot::channel();
        let thread = node::spawn(node, machine, started).map_err(|error| start_error(&error))?;
        // If the caller stops waiting, the thread ends.
        let guard = stop.clone().drop_guard();
        // The database is complete: that is noted while the node takes the lead.
        let ready = blocking(move || data_dir.set_ready().map(|()| data_dir));
        let (raft, data_dir) = tokio::join!(starting, ready);
        let raft = raft.map_err(|_| start_error(&"the Raft thread has ended"))??;
        let data_dir = data_dir?;
        guard.disarm();
        Ok(RaftStore {
            raft,
            writers,
            readers,
            shared,
            stop,
            thread: Mutex::new(Some(thread)),
            _data_dir: data_dir,
        })
    }
}

/// Does blocking work on a thread for it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, OpenError> + Send + 'static,
) -> Result<T, OpenError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| start_error(&error))?
}

fn start_error(error: &dyn std::fmt::Display) -> OpenError {
    OpenError::Start {
        reason: error.to_string(),
    }
}

/// What RocksDB's refusal to open means.
fn database_error(path: &Path, reason: String) -> OpenError {
    let path = path.to_owned();
    if reason.contains("lock") && reason.contains("LOCK") {
        return OpenError::InUse { path };
    }
    for (text, kind) in [
        ("No space left", io::ErrorKind::StorageFull),
        ("Permission denied", io::ErrorKind::PermissionDenied),
        ("Too many open files", io::ErrorKind::Other),
    ] {
        if reason.contains(text) {
            return OpenError::Io {
                operation: "open the database in",
                path,
                source: io::Error::new(kind, reason),
            };
        }
    }
    OpenError::CorruptDatabase { path, reason }
}

#[async_trait]
impl Store for RaftStore {
    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        self.writers.write(txn).await
    }

    async fn read_index(&self) -> Result<Revision, StoreError> {
        self.readers.read_index().await
    }

    fn applied_revision(&self) -> Revision {
        self.shared.hub.published()
    }

    fn compacted_revision(&self) -> Revision {
        self.shared.state.compacted()
    }

    fn get(&self, key: &[u8], at: Option<Revision>) -> Result<Option<KeyValue>, StoreError> {
        let record = match at {
            None => self.shared.state.current(key)?,
            Some(at) => self.shared.state.get_at(key, at)?,
        };
        Ok(judge::key_value(key, record))
    }

    fn range(
        &self,
        range: Range,
        at: Option<Revision>,
        limit: usize,
    ) -> Result<RangePage, StoreError> {
        self.shared.state.range(&range, at, limit)
    }

    fn observe(
        &self,
        range: Range,
        observer: Arc<dyn Observer>,
    ) -> Result<Observation, StoreError> {
        self.shared
            .hub
            .observe(self.shared.state.as_ref(), range, observer)
    }

    fn watch(&self, range: Range, from: Revision) -> Result<WatchStream, StoreError> {
        let history: Arc<State> = Arc::clone(&self.shared.state);
        self.shared.hub.watch(history, range, from)
    }

    async fn compact(&self, to: Revision) -> Result<(), StoreError> {
        if self.stop.is_cancelled() {
            return Err(StoreError::Closed);
        }
        let current = self.applied_revision();
        if to > current {
            return Err(StoreError::FutureRevision {
                requested: to,
                current,
            });
        }
        let answer = propose::command(&self.raft, Command::Compact { to }).await?;
        debug_assert!(matches!(answer, Answer::Compacted(compacted) if compacted >= to));
        self.shared.signals.wake.notify_one();
        Ok(())
    }

    fn metrics(&self) -> StoreMetrics {
        let Shared {
            hub, counters, log, ..
        } = &self.shared;
        StoreMetrics {
            applied_revision: self.applied_revision().0,
            compacted_revision: self.compacted_revision().0,
            log_entries: log.len(),
            log_bytes_total: counters.log_bytes.load(Ordering::Relaxed),
            txns_total: counters.txns.load(Ordering::Relaxed),
            overloaded_total: counters.overloaded.load(Ordering::Relaxed),
            watchers: hub.watchers(),
            watchers_lagged_total: hub.lagged_total(),
            expired_total: counters.expired.load(Ordering::Relaxed),
            batch_txns: counters.batch_txns.snapshot(),
            fsync_seconds: counters.fsync_seconds.snapshot(),
        }
    }

    async fn shutdown(&self) {
        self.stop.cancel();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let joined = tokio::task::spawn_blocking(move || join(thread)).await;
            if let Err(error) = joined {
                tracing::error!(%error, "waiting for the Raft thread failed");
            }
        }
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("the Raft thread panicked");
    }
}

impl Drop for RaftStore {
    fn drop(&mut self) {
        self.stop.cancel();
        // An observer that owns the store may be what lets it go, on that very thread.
        if let Some(thread) = self.thread.lock().take()
            && thread.thread().id() != std::thread::current().id()
        {
            join(thread);
        }
    }
}
