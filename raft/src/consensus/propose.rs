//! Collects concurrent transactions into Raft entries.
//!
//! A few entries are on their way at a time. What arrives meanwhile waits and shares the next one:
//! the more writers there are, the more of them share an entry and its fsync.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::errors::{ClientWriteError, RaftError};
use openraft::raft::ClientWriteResult;
use tokio::sync::mpsc::{self, error::SendTimeoutError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Health, Raft, Reply, Types};
use crate::command::{Answer, Command};
use crate::limits::{
    BATCH_BYTES_MAX, BATCH_TXNS_MAX, ENTRIES_IN_FLIGHT_MAX, QUEUE_KIB_MAX, QUEUE_TXNS_MAX,
    QUEUE_WAIT_MAX, check_txn,
};
use crate::metrics::Counters;
use crate::record::now_ms;
use crate::{StoreError, Txn, TxnOutcome};

type TxnResult = Result<TxnOutcome, StoreError>;

/// A transaction that waits to be proposed.
pub(crate) struct Request {
    txn: Txn,
    bytes: usize,
    answer: oneshot::Sender<TxnResult>,
    /// Its share of the queue, given back when it is answered.
    room: OwnedSemaphorePermit,
}

/// Where writers hand in their transactions.
pub(crate) struct Writers {
    queue: mpsc::Sender<Request>,
    room: Arc<Semaphore>,
    counters: Arc<Counters>,
    health: Arc<Health>,
}

/// Where the proposer takes them.
pub(crate) type Requests = mpsc::Receiver<Request>;

impl Writers {
    pub(crate) fn new(counters: Arc<Counters>, health: Arc<Health>) -> (Writers, Requests) {
        let (queue, requests) = mpsc::channel(QUEUE_TXNS_MAX);
        let writers = Writers {
            queue,
            room: Arc::new(Semaphore::new(QUEUE_KIB_MAX)),
            counters,
            health,
        };
        (writers, requests)
    }

    /// Hands in a transaction and waits for its answer.
    pub(crate) async fn write(&self, txn: Txn) -> TxnResult {
        let bytes = check_txn(&txn)?;
        if let Some(reason) = self.health.failure() {
            return Err(StoreError::Unavailable {
                reason: reason.to_owned(),
            });
        }
        if self.queue.is_closed() {
            return Err(StoreError::Closed);
        }
        self.counters.txns.fetch_add(1, Ordering::Relaxed);
        let room = self.room(bytes).await?;
        let (answer, answered) = oneshot::channel();
        let request = Request {
            txn,
            bytes,
            answer,
            room,
        };
        match self.queue.send_timeout(request, QUEUE_WAIT_MAX).await {
            Ok(()) => {}
            Err(SendTimeoutError::Closed(_)) => return Err(StoreError::Closed),
            Err(SendTimeoutError::Timeout(_)) => return Err(self.overloaded()),
        }
        answered.await.unwrap_or_else(|_| Err(self.lost()))
    }

    async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, StoreError> {
        let kib = u32::try_from(bytes.div_ceil(1024)).expect("a transaction's size is limited");
        if let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(kib) {
            return Ok(room);
        }
        let wait = Arc::clone(&self.room).acquire_many_owned(kib);
        match tokio::time::timeout(QUEUE_WAIT_MAX, wait).await {
            Ok(Ok(room)) => Ok(room),
            Ok(Err(_)) => Err(StoreError::Closed),
            Err(_) => Err(self.overloaded()),
        }
    }

    fn overloaded(&self) -> StoreError {
        self.counters.overloaded.fetch_add(1, Ordering::Relaxed);
        StoreError::Overloaded {
            waited: QUEUE_WAIT_MAX,
        }
    }

    /// A transaction that was taken, and whose answer will never come.
    fn lost(&self) -> StoreError {
        StoreError::OutcomeUnknown {
            reason: self
                .health
                .failure()
                .unwrap_or("the store was closed while it was being written")
                .to_owned(),
        }
    }
}

/// Takes transactions from the queue and proposes them. Once it is told to stop it takes no new
/// ones, and returns when those that it has taken are answered.
pub(crate) async fn propose(
    raft: &Raft,
    requests: &mut Requests,
    counters: &Counters,
    stop: &CancellationToken,
) {
    let in_flight = Arc::new(Semaphore::new(ENTRIES_IN_FLIGHT_MAX));
    let mut waiting: Vec<Request> = Vec::new();
    loop {
        let slot = Arc::clone(&in_flight)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        if waiting.is_empty() {
            let received = tokio::select! {
                received = requests.recv_many(&mut waiting, BATCH_TXNS_MAX) => received,
                () = stop.cancelled(), if !requests.is_closed() => {
                    requests.close();
                    continue;
                }
            };
            if received == 0 {
                drop(slot);
                let all = u32::try_from(ENTRIES_IN_FLIGHT_MAX).expect("few entries are in flight");
                drop(in_flight.acquire_many(all).await);
                return;
            }
            // Writers that were answered by the same entry come back at the same time: those who
            // are about to hand in their next transaction get to share this one's.
            tokio::task::yield_now().await;
        }
        while waiting.len() < BATCH_TXNS_MAX {
            let Ok(request) = requests.try_recv() else {
                break;
            };
            waiting.push(request);
        }
        let count = fitting(waiting.iter().map(|request| request.bytes));
        let batch: Vec<Request> = waiting.drain(..count).collect();
        counters.batch_txns.record(count as f64);
        let mut txns = Vec::with_capacity(count);
        let mut answers = Vec::with_capacity(count);
        for request in batch {
            txns.push(request.txn);
            answers.push((request.answer, request.room));
        }
        let command = Command::Txns {
            time_ms: now_ms(),
            txns,
        };
        let reply = Reply(Box::new(move |result: ClientWriteResult<Types>| {
            drop(slot);
            answer_all(answers, result);
        }));
        if let Err(fatal) = raft.client_write_ff(Arc::new(command), Some(reply)).await {
            // The reply is dropped, and with it every writer's answer: its fate is unknown.
            tracing::error!(%fatal, "proposing failed");
            return;
        }
    }
}

/// How many of these, from the first on, go into one entry: at least one, even if it is too big.
fn fitting(bytes: impl Iterator<Item = usize>) -> usize {
    let mut sum = 0;
    bytes
        .take(BATCH_TXNS_MAX)
        .take_while(|bytes| {
            let fits = sum == 0 || sum + bytes <= BATCH_BYTES_MAX;
            sum += bytes;
            fits
        })
        .count()
}

fn answer_all(
    answers: Vec<(oneshot::Sender<TxnResult>, OwnedSemaphorePermit)>,
    result: ClientWriteResult<Types>,
) {
    match result.map(|response| response.data) {
        Ok(Answer::Txns(outcomes)) => {
            assert_eq!(
                outcomes.len(),
                answers.len(),
                "each transaction has its own answer"
            );
            for ((answer, _room), outcome) in answers.into_iter().zip(outcomes) {
                // A writer that is gone does not wait for its answer.
                drop(answer.send(Ok(outcome)));
            }
        }
        Ok(other) => panic!("an entry with transactions was answered with {other:?}"),
        Err(error) => {
            let error = write_error(&error);
            for (answer, _room) in answers {
                drop(answer.send(Err(error.clone())));
            }
        }
    }
}

/// What Raft's refusal means for a writer.
fn write_error(error: &ClientWriteError<Types>) -> StoreError {
    match error {
        ClientWriteError::ForwardToLeader(forward) => StoreError::NotLeader {
            leader: forward.leader_id,
        },
        other => StoreError::OutcomeUnknown {
            reason: other.to_string(),
        },
    }
}

/// Proposes a command of the store's own and waits until it is applied.
pub(crate) async fn command(raft: &Raft, command: Command) -> Result<Answer, StoreError> {
    match raft.client_write(Arc::new(command)).await {
        Ok(response) => Ok(response.data),
        Err(RaftError::APIError(error)) => Err(write_error(&error)),
        Err(RaftError::Fatal(fatal)) => Err(StoreError::OutcomeUnknown {
            reason: fatal.to_string(),
        }),
    }
}

/// How long the last transactions may take when the store closes.
pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_takes_what_fits_and_at_least_one() {
        assert_eq!(fitting([10, 10].into_iter()), 2);
        assert_eq!(fitting([BATCH_BYTES_MAX * 2, 1].into_iter()), 1);
        assert_eq!(fitting([1, BATCH_BYTES_MAX, 1].into_iter()), 1);
        assert_eq!(fitting([BATCH_BYTES_MAX / 2; 5].into_iter()), 2);
        assert_eq!(
            fitting(std::iter::repeat_n(1, BATCH_TXNS_MAX * 2)),
            BATCH_TXNS_MAX
        );
    }
}
