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
pub(crate) async fn serve(rounds: &mut Rounds, round: impl AsyncFn() -> Result<(), StoreError>) {
    let mut waiting = Vec::new();
    while rounds.recv_many(&mut waiting, READS_WAITING_MAX).await > 0 {
        let result = round().await;
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn readers_share_the_round_that_begins_after_they_ask() {
        let hub = Arc::new(Hub::default());
        let (readers, mut rounds) = Readers::new(Arc::clone(&hub), Arc::default());
        let begun = AtomicUsize::new(0);
        let finish = Semaphore::new(0);
        let serving = serve(&mut rounds, async || {
            begun.fetch_add(1, Ordering::SeqCst);
            finish.acquire().await.expect("it is not closed").forget();
            Ok(())
        });
        let reading = async {
            let first = readers.read_index();
            let late = async {
                while begun.load(Ordering::SeqCst) == 0 {
                    tokio::task::yield_now().await;
                }
                // Three who ask during the first round share the second.
                let release = async {
                    hub.publish(&[], Revision(5));
                    finish.add_permits(2);
                };
                let (a, b, c, ()) = tokio::join!(
                    readers.read_index(),
                    readers.read_index(),
                    readers.read_index(),
                    release
                );
                [a, b, c].map(|read| read.expect("the round succeeds"))
            };
            let (_, late) = tokio::join!(first, late);
            assert_eq!(late, [Revision(5); 3]);
        };
        tokio::select! {
            () = serving => panic!("the queue is open"),
            () = reading => {}
        }
        assert_eq!(begun.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn alone_no_round_is_needed_until_the_store_fails() {
        let hub = Arc::new(Hub::default());
        let health = Arc::new(Health::default());
        let (readers, rounds) = Readers::new(Arc::clone(&hub), Arc::clone(&health));
        readers.set_alone(true);
        hub.publish(&[], Revision(3));
        assert_eq!(readers.read_index().await.unwrap(), Revision(3));
        health.fail("a test");
        assert!(matches!(
            readers.read_index().await,
            Err(StoreError::Unavailable { .. })
        ));
        drop(rounds);
    }
}
