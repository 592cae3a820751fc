//! What the leader does from time to time: expire keys, compact history, cut the log.
//!
//! Each is decided by a function of plain data and sleeps until it is due: an idle store wakes once
//! in a compaction interval.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::machine::Signals;
use super::{Raft, propose};
use crate::command::Command;
use crate::hub::Hub;
use crate::limits::{COLLECT_ROWS_MAX, EXPIRE_INTERVAL_MIN, EXPIRE_KEYS_MAX};
use crate::record::now_ms;
use crate::rocks::state::State;
use crate::{Revision, StoreError};

/// How long to wait before trying again what failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// What the upkeep works with.
pub(crate) struct Upkeep {
    pub(crate) state: Arc<State>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) compaction_interval: Duration,
    pub(crate) history_revisions_max: u64,
}

impl Upkeep {
    /// Runs until it is dropped.
    pub(crate) async fn run(&self, raft: &Raft) {
        let mut compact_at = Instant::now() + self.compaction_interval;
        let mut expire_at = Instant::now();
        let mut before = self.hub.published();
        loop {
            let expiry = expiry_delay(self.signals.deadline_ms.load(Ordering::Acquire), now_ms())
                .map(|delay| (Instant::now() + delay).max(expire_at));
            let next = expiry.map_or(compact_at, |expiry| expiry.min(compact_at));
            tokio::select! {
                () = self.signals.wake.notified() => {}
                () = tokio::time::sleep_until(next) => {}
            }
            let now = Instant::now();
            let aged = now >= compact_at;
            if aged {
                compact_at = now + self.compaction_interval;
            }
            if let Err(error) = self.once(raft, &mut before, aged, now >= expire_at).await {
                tracing::warn!(%error, "the store's upkeep will be tried again");
                tokio::time::sleep(RETRY_INTERVAL).await;
                continue;
            }
            if now >= expire_at {
                expire_at = now + EXPIRE_INTERVAL_MIN;
            }
        }
    }

    async fn once(
        &self,
        raft: &Raft,
        before: &mut Revision,
        aged: bool,
        may_expire: bool,
    ) -> Result<(), StoreError> {
        if may_expire && self.signals.deadline_ms.load(Ordering::Acquire) <= now_ms() {
            let command = Command::Expire {
                time_ms: now_ms(),
                keys_max: EXPIRE_KEYS_MAX,
            };
            propose::command(raft, command).await?;
            self.find_deadline()?;
        }
        let now = self.hub.published();
        let compacted = self.state.compacted();
        let target = compaction(
            now,
            compacted,
            aged.then_some(*before),
            self.history_revisions_max,
        );
        if aged {
            *before = now;
        }
        if let Some(to) = target {
            propose::command(raft, Command::Compact { to }).await?;
        }
        while self.state.collect(COLLECT_ROWS_MAX)? {
            tokio::task::yield_now().await;
        }
        if self.signals.log_is_long() {
            raft.trigger()
                .snapshot()
                .await
                .map_err(|fatal| StoreError::storage("cutting the log", fatal))?;
            self.signals.log_was_cut();
        }
        Ok(())
    }

    /// Looks up the next deadline. A key that gets an earlier one meanwhile is not missed: both
    /// are taken together with the earlier one winning.
    fn find_deadline(&self) -> Result<(), StoreError> {
        self.signals.deadline_ms.store(u64::MAX, Ordering::Release);
        if let Some(first) = self.state.first_deadline_ms()? {
            self.signals.deadline_ms.fetch_min(first, Ordering::AcqRel);
        }
        Ok(())
    }
}

/// How long until the next time to live ends.
fn expiry_delay(deadline_ms: u64, now_ms: u64) -> Option<Duration> {
    (deadline_ms != u64::MAX).then(|| Duration::from_millis(deadline_ms.saturating_sub(now_ms)))
}

/// Up to which revision to compact. By age: to where the store was one interval ago, so that every
/// change can be read for at least an interval. By size: down to three quarters of the limit, so
/// that it is not hit again at once.
fn compaction(
    now: Revision,
    compacted: Revision,
    aged: Option<Revision>,
    history_revisions_max: u64,
) -> Option<Revision> {
    let by_size = (now.0 - compacted.0 > history_revisions_max)
        .then(|| Revision(now.0 - history_revisions_max / 4 * 3));
    aged.max(by_size).filter(|to| *to > compacted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_compacts_to_one_interval_ago() {
        let at = |aged| compaction(Revision(50), Revision(10), aged, 100);
        assert_eq!(at(Some(Revision(30))), Some(Revision(30)));
        assert_eq!(at(Some(Revision(10))), None);
        assert_eq!(at(None), None);
    }

    #[test]
    fn size_compacts_below_the_limit() {
        let at = |now, aged| compaction(Revision(now), Revision(10), aged, 100);
        assert_eq!(at(110, None), None);
        assert_eq!(at(111, None), Some(Revision(36)));
        assert_eq!(at(111, Some(Revision(20))), Some(Revision(36)));
        assert_eq!(at(111, Some(Revision(40))), Some(Revision(40)));
    }

    #[test]
    fn without_a_deadline_there_is_nothing_to_wait_for() {
        assert_eq!(expiry_delay(u64::MAX, 5), None);
        assert_eq!(expiry_delay(5, 8), Some(Duration::ZERO));
        assert_eq!(expiry_delay(8, 5), Some(Duration::from_millis(3)));
    }
}
