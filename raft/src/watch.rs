//! A stream of changes that begins in the past and goes on live.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use futures::Stream;
use tokio::sync::mpsc;

use crate::hub::{History, Hub};
use crate::limits::{CATCH_UP_ROWS_MAX, WATCH_QUEUE_CHANGES_MAX};
use crate::{Change, Range, Revision, StoreError};

/// The changes of a range, in order, each exactly once. It ends after its first error.
pub struct WatchStream {
    /// Let go of once the watch is live: it keeps the store's files open.
    history: Option<Arc<dyn History>>,
    range: Range,
    /// The next revision to read from history.
    next: Revision,
    /// Changes after this revision come through the queue, those up to it from history.
    live_after: Revision,
    past: VecDeque<Arc<Change>>,
    live: mpsc::Receiver<Arc<Change>>,
    lagged: Arc<AtomicBool>,
    ended: bool,
    hub: Arc<Hub>,
    id: u64,
}

impl WatchStream {
    #[expect(clippy::too_many_arguments, reason = "called once, by the hub")]
    pub(crate) fn new(
        history: Arc<dyn History>,
        range: Range,
        from: Revision,
        live_after: Revision,
        live: mpsc::Receiver<Arc<Change>>,
        lagged: Arc<AtomicBool>,
        hub: Arc<Hub>,
        id: u64,
    ) -> WatchStream {
        WatchStream {
            history: Some(history),
            range,
            next: from,
            live_after,
            past: VecDeque::new(),
            live,
            lagged,
            ended: false,
            hub,
            id,
        }
    }

    /// The next change, or `None` after the error that ended the watch.
    pub async fn next(&mut self) -> Option<Result<Arc<Change>, StoreError>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    fn end(&mut self, error: StoreError) -> Poll<Option<Result<Arc<Change>, StoreError>>> {
        self.ended = true;
        self.history = None;
        Poll::Ready(Some(Err(error)))
    }
}

impl Stream for WatchStream {
    type Item = Result<Arc<Change>, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            if let Some(change) = self.past.pop_front() {
                return Poll::Ready(Some(Ok(change)));
            }
            if let Some(history) = &self.history {
                if self.next > self.live_after {
                    self.history = None;
                    continue;
                }
                let read =
                    history.changes(&self.range, self.next, self.live_after, CATCH_UP_ROWS_MAX);
                match read {
                    Ok(past) => {
                        self.past.extend(past.changes);
                        self.next = past.next;
                    }
                    Err(error) => return self.end(error),
                }
                continue;
            }
            return match ready!(self.live.poll_recv(cx)) {
                Some(change) => Poll::Ready(Some(Ok(change))),
                None if self.lagged.load(Ordering::Acquire) => self.end(StoreError::Lagged {
                    limit: WATCH_QUEUE_CHANGES_MAX,
                }),
                None => self.end(StoreError::Closed),
            };
        }
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        self.hub.forget_watcher(self.id);
    }
}

impl std::fmt::Debug for WatchStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WatchStream")
            .field("range", &self.range)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}
