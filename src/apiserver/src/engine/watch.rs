//! Watches: where they begin, what they are told, when they end.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use kontiki_api::field::{Error, Path};
use kontiki_api::{ApiError, Reason, fields, labels};
use kontiki_raft::{Range, Revision, Store};

use super::Engine;
use super::list::{parse_revision, selectors};
use crate::cache::{Delivery, Filter, Start, Subscription};
use crate::registry::Kind;
use crate::request::Query;

/// A watch whose client names no time ends after this long, and up to twice that, so that not all end together.
const WATCH_TIME_MIN: Duration = Duration::from_secs(1800);
/// Changes that are read again from the store for one watch; one that is further behind has to list.
const REPLAY_EVENTS_MAX: usize = 10_000;
/// How often a watch that wants bookmarks gets one.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);

/// What a watch asks for.
#[derive(Clone, Debug, Default)]
pub(crate) struct WatchOptions {
    pub(crate) labels: labels::Selector,
    pub(crate) fields: fields::Selector,
    /// `None` begins with the newest state.
    pub(crate) revision: Option<u64>,
    pub(crate) bookmarks: bool,
    /// Whether the state comes first, with a bookmark behind it; `None` leaves it to the revision.
    pub(crate) initial_events: Option<bool>,
    pub(crate) timeout: Option<Duration>,
}

impl WatchOptions {
    /// Reads the options of a watch from its query.
    pub(crate) fn from_query(q: &Query, kind: &Kind) -> Result<WatchOptions, ApiError> {
        let mut errors = Vec::new();
        let matching = q.get("resourceVersionMatch");
        let path = Path::new("resourceVersionMatch");
        let initial = q
            .has("sendInitialEvents")
            .then(|| q.flag("sendInitialEvents"));
        match initial {
            Some(_) if matching != "NotOlderThan" => {
                let detail =
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
                errors.push(Error::forbidden(&path, detail));
            }
            None if !matching.is_empty() => {
                let detail = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                errors.push(Error::forbidden(&path, detail));
            }
            _ => {}
        }
        if !errors.is_empty() {
            return Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", &errors));
        }
        let (labels, fields) = selectors(q, kind)?;
        let timeout = q
            .get("timeoutSeconds")
            .parse()
            .ok()
            .filter(|s| *s > 0)
            .map(Duration::from_secs);
        Ok(WatchOptions {
            labels,
            fields,
            revision: parse_revision(q.get("resourceVersion"))?,
            bookmarks: q.flag("allowWatchBookmarks"),
            initial_events: initial,
            timeout,
        })
    }
}

/// What a watcher is told next.
pub(crate) enum Told {
    /// A change.
    Change(Delivery),
    /// Nothing more happened up to this revision; `true` ends the initial state.
    Bookmark(u64, bool),
}

/// A running watch.
pub(crate) struct Watch {
    store: Arc<dyn Store>,
    subscription: Subscription,
    backlog: std::vec::IntoIter<Delivery>,
    /// The bookmark that is due behind the initial state.
    initial_end: Option<u64>,
    bookmarks: Option<tokio::time::Interval>,
    deadline: std::pin::Pin<Box<tokio::time::Sleep>>,
    sent: u64,
}

impl Engine {
    /// Begins a watch.
    pub(crate) async fn watch(
        &self,
        kind: &Kind,
        namespace: &str,
        o: WatchOptions,
    ) -> Result<Watch, ApiError> {
        let filter = Filter::new(namespace, o.labels, o.fields, !kind.resource.namespaced);
        let now = match o.revision {
            None => self.catch_up().await?,
            Some(r) => {
                self.reach(r).await?;
                self.store.applied_revision().0
            }
        };
        let start = match (o.revision, o.initial_events) {
            (_, Some(true)) | (None | Some(0), None) => Start::State,
            (None | Some(0), Some(false)) => Start::After(now),
            (Some(r), _) => Start::After(r),
        };
        let mut subscription = match (kind.cache.subscribe(filter.clone(), start, now), start) {
            (Err(e), Start::After(after)) if e.reason() == Reason::Expired => {
                self.replay(kind, &filter, after, now).ok_or(e)?
            }
            (other, _) => other?,
        };
        let backlog = std::mem::take(&mut subscription.backlog).into_iter();
        let timeout = o
            .timeout
            .unwrap_or_else(|| WATCH_TIME_MIN.mul_f64(1.0 + rand::random::<f64>()));
        let bookmarks = o.bookmarks.then(|| {
            let mut i = tokio::time::interval_at(
                tokio::time::Instant::now() + BOOKMARK_INTERVAL,
                BOOKMARK_INTERVAL,
            );
            i.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            i
        });
        let initial_end =
            (o.initial_events == Some(true) && o.bookmarks).then_some(subscription.revision);
        let sent = subscription.revision;
        let deadline = Box::pin(tokio::time::sleep(timeout));
        Ok(Watch {
            store: self.store.clone(),
            subscription,
            backlog,
            initial_end,
            bookmarks,
            deadline,
            sent,
        })
    }

    /// A watch that begins before what the cache remembers, as all do after a restart: the store remembers more.
    /// `None` if it does not, or if that would be too much.
    fn replay(&self, kind: &Kind, filter: &Filter, after: u64, now: u64) -> Option<Subscription> {
        let until = kind.cache.remembers_after();
        let range = Range::prefix(kind.cache.prefix().to_owned());
        let mut history = self.store.watch(range, Revision(after + 1)).ok()?;
        let mut subscription = kind
            .cache
            .subscribe(filter.clone(), Start::After(until), now)
            .ok()?;
        let mut past = Vec::new();
        // What is in the past comes without waiting.
        while let Some(Some(change)) = history.next().now_or_never() {
            let change = change.ok()?;
            if change.revision.0 > until {
                break;
            }
            if past.len() >= REPLAY_EVENTS_MAX {
                return None;
            }
            past.extend(
                kind.cache
                    .replayed(&change)
                    .and_then(|e| filter.delivery(&e)),
            );
        }
        past.append(&mut subscription.backlog);
        subscription.backlog = past;
        Some(subscription)
    }
}

impl Watch {
    /// What comes next; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Told> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// What comes next, without waiting.
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Told>> {
        use std::task::Poll;
        if let Some(d) = self.backlog.next() {
            return Poll::Ready(Some(Told::Change(d)));
        }
        if let Some(revision) = self.initial_end.take() {
            return Poll::Ready(Some(Told::Bookmark(revision, true)));
        }
        // Read before the queue: what the store had shown by then is in the queue or was taken from it.
        let applied = self.store.applied_revision().0;
        match self.subscription.queue.poll_recv(cx) {
            Poll::Ready(Some(d)) => {
                self.sent = self.sent.max(d.revision());
                return Poll::Ready(Some(Told::Change(d)));
            }
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => {}
        }
        if let Some(i) = &mut self.bookmarks
            && i.poll_tick(cx).is_ready()
        {
            self.sent = self.sent.max(applied);
            return Poll::Ready(Some(Told::Bookmark(self.sent, false)));
        }
        self.deadline.as_mut().poll(cx).map(|()| None)
    }
}
