//! The thread that Raft runs on, from the start to the shutdown.
//!
//! Consensus, the state machine, the proposer and the upkeep share one thread with a runtime of its
//! own: they hand work to each other without waking other threads, and nothing that the rest of the
//! program does can hold them up. Only the log's fsync happens on another thread.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::{BasicNode, Config, ServerState, SnapshotPolicy};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::log::Log;
use super::machine::Machine;
use super::network::OneVoter;
use super::propose::{DRAIN_MAX, Requests, propose};
use super::reads::{self, Readers, Rounds};
use super::upkeep::Upkeep;
use super::{Health, Raft};
use crate::OpenError;
use crate::hub::Hub;
use crate::limits::LOG_ENTRIES_KEPT;
use crate::metrics::Counters;

/// How long a node may take to become the leader of a cluster in which it is alone.
const START_MAX: Duration = Duration::from_secs(30);
/// Heartbeats and elections between several voters. One voter elects itself when it is told to.
const HEARTBEAT_INTERVAL_MS: u64 = 250;
const ELECTION_TIMEOUT_MIN_MS: u64 = 1000;
const ELECTION_TIMEOUT_MAX_MS: u64 = 2000;

/// Who is told when the node leads, or why it does not.
pub(crate) type Started = oneshot::Sender<Result<Raft, OpenError>>;

/// Everything that runs on the thread.
pub(crate) struct Node {
    pub(crate) node_id: u64,
    pub(crate) cluster: String,
    pub(crate) log: Log,
    pub(crate) requests: Requests,
    pub(crate) rounds: Rounds,
    pub(crate) readers: Arc<Readers>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) upkeep: Upkeep,
    pub(crate) counters: Arc<Counters>,
    pub(crate) health: Arc<Health>,
    pub(crate) stop: CancellationToken,
}

impl Node {
    /// Runs the node until it is stopped. `started` is told when it leads, or why it does not.
    pub(crate) fn run(self, machine: Machine, started: Started) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        match runtime {
            Ok(runtime) => runtime.block_on(self.work(machine, started)),
            Err(error) => drop(started.send(Err(start_error(error)))),
        }
    }

    async fn work(mut self, machine: Machine, started: Started) {
        let raft = match self.start(machine).await {
            Ok(raft) => raft,
            Err(error) => {
                drop(started.send(Err(error)));
                return;
            }
        };
        let alone = raft.voter_ids().eq([self.node_id]);
        self.readers.set_alone(alone);
        // The opener may have given up waiting; then it has also asked us to stop.
        drop(started.send(Ok(raft.clone())));
        let drained = async {
            self.stop.cancelled().await;
            tokio::time::sleep(DRAIN_MAX).await;
        };
        tokio::select! {
            () = propose(&raft, &mut self.requests, &self.counters, &self.stop) => {}
            () = reads::serve(&mut self.rounds, || reads::confirm(&raft)) => {}
            () = self.health.failed() => {}
            () = self.upkeep.run(&raft) => {}
            () = drained => tracing::warn!("closing the store before its last writes are answered"),
        }
        if !self.stop.is_cancelled() {
            self.health.fail("replication has ended");
        }
        self.readers.set_alone(false);
        self.requests.close();
        self.hub.close();
        if let Err(error) = raft.shutdown().await {
            tracing::error!(%error, "replication did not end cleanly");
        }
    }

    async fn start(&self, machine: Machine) -> Result<Raft, OpenError> {
        let config = Config {
            cluster_name: self.cluster.clone(),
            heartbeat_interval: HEARTBEAT_INTERVAL_MS,
            election_timeout_min: ELECTION_TIMEOUT_MIN_MS,
            election_timeout_max: ELECTION_TIMEOUT_MAX_MS,
            // The log is cut by its bytes, not by its entries: see `upkeep`.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: LOG_ENTRIES_KEPT,
            enable_pre_vote: Some(true),
            // A single voter has nobody to send heartbeats to and nobody to lose the leadership to:
            // its idle clock does not tick.
            enable_tick: false,
            ..Config::default()
        };
        let config = config.validate().map_err(start_error)?;
        let raft = Raft::new(
            self.node_id,
            Arc::new(config),
            OneVoter,
            self.log.clone(),
            machine,
        )
        .await
        .map_err(start_error)?;
        if !raft.is_initialized().await.map_err(start_error)? {
            let members = BTreeMap::from([(self.node_id, BasicNode::default())]);
            raft.initialize(members).await.map_err(start_error)?;
        }
        raft.trigger().elect(false).await.map_err(start_error)?;
        raft.wait(Some(START_MAX))
            .state(ServerState::Leader, "leading the cluster of one")
            .await
            .map_err(start_error)?;
        // Everything that was acknowledged before a crash is applied when this returns.
        tokio::time::timeout(START_MAX, reads::confirm(&raft))
            .await
            .map_err(start_error)?
            .map_err(start_error)?;
        Ok(raft)
    }
}

fn start_error(error: impl std::fmt::Display) -> OpenError {
    OpenError::Start {
        reason: error.to_string(),
    }
}

/// Starts the thread.
pub(crate) fn spawn(
    node: Node,
    machine: Machine,
    started: Started,
) -> io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new()
        .name("raft".to_owned())
        .spawn(move || node.run(machine, started))
}
