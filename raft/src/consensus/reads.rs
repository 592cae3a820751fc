//! Linearizable reads: one round with the quorum serves all readers that wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};
use tokio::sync::{mpsc, oneshot};

use super::{Health, Raft};
use crate::hub::Hub;
use crate::limits::READS_WAITING_MAX;
use crate::{Revision, StoreError};

type Waiting = oneshot::Sender<Result<(), StoreError>>;

/// Where rounds are asked for.
pub(crate) type Rounds = mpsc::Receiver<Waiting>;

/// Where readers ask.
pub(crate) struct Readers {
    queue: mpsc::Sender<Waiting>,
    hub: Arc<Hub>,
    health: Arc<Health>,
    /// Whether this node is the only voter and leads. Then nobody else can have committed
    /// anything, a write is answered only when it is applied here, and a round would say nothing.
    alone: AtomicBool,
}

impl Readers {
    pub(crate) fn new(hub: Arc<Hub>, health: Arc<Health>) -> (Readers, Rounds) {
        let (queue, rounds) = mpsc::channel(READS_WAITING_MAX);
        let readers = Readers {
            queue,
            hub,
            health,
            alone: AtomicBool::new(false),
        };
        (readers, rounds)
    }

    pub(crate) fn set_alone(&self, alone: bool) {
        self.alone.store(alone, Ordering::Release);
    }

    pub(crate) async fn read_index(&self) -> Result<Revision, StoreError> {
        if let Some(reason) = self.health.failure() {
            return Err(StoreError::Unavailable {
                reason: reason.to_owned(),
            });
        }
        if self.queue.is_closed() {
            return Err(StoreError::Closed);
        }
        if !self.alone.load(Ordering::Acquire) {
            let (waiting, confirmed) = oneshot::channel();
            self.queue
                .send(waiting)
                .await
                .map_err(|_| StoreError::Closed)?;
            confirmed.await.unwrap_or(Err(StoreError::Closed))?;
        }
        Ok(self.hub.published())
    }
}

/// Serves readers until the store closes. Who asks during a round waits for the next one: the
/// running one may have begun before something that the reader knows of was committed.
pub(crate) async fn serve(raft: &Raft, rounds: &mut Rounds) {
    let mut waiting = Vec::new();
    while rounds.recv_many(&mut waiting, READS_WAITING_MAX).await > 0 {
        let result = confirm(raft).await;
        for reader in waiting.drain(..) {
            // A reader that is gone does not wait for its answer.
            drop(reader.send(result.clone()));
        }
    }
}

/// One round: returns when a quorum has confirmed that this node leads, and everything that was
/// committed before is applied.
pub(crate) async fn confirm(raft: &Raft) -> Result<(), StoreError> {
    match raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
        Ok(_) => Ok(()),
        Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
            Err(StoreError::NotLeader {
                leader: forward.leader_id,
            })
        }
        Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(error))) => {
            Err(StoreError::Unavailable {
                reason: error.to_string(),
            })
        }
        Err(RaftError::Fatal(fatal)) => Err(StoreError::Unavailable {
            reason: fatal.to_string(),
        }),
    }
}
