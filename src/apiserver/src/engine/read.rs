//! Reading one object.

use std::sync::Arc;
use std::time::Duration;

use kontiki_api::{ApiError, Cause, Reason};
use kontiki_raft::Revision;

use super::{Engine, Target};
use crate::cache::Entry;

/// How long a reader waits for a revision that this master has not seen yet.
const FUTURE_REVISION_WAIT_MAX: Duration = Duration::from_secs(3);
const FUTURE_REVISION_POLL: Duration = Duration::from_millis(20);

impl Engine {
    /// The object, not older than `revision` (`None`: than now).
    pub(crate) async fn get(
        &self,
        t: Target<'_>,
        revision: Option<u64>,
    ) -> Result<Arc<Entry>, ApiError> {
        match revision {
            None => drop(self.catch_up().await?),
            Some(r) => self.reach(r).await?,
        }
        t.kind
            .cache
            .get(t.namespace, t.name)
            .ok_or_else(|| ApiError::not_found(t.kind.resource, t.name))
    }

    /// Waits until this master has seen the revision.
    pub(crate) async fn reach(&self, revision: u64) -> Result<(), ApiError> {
        let deadline = tokio::time::Instant::now() + FUTURE_REVISION_WAIT_MAX;
        loop {
            let current = self.store.applied_revision();
            if current >= Revision(revision) {
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(too_large(revision, current.0));
            }
            tokio::time::sleep(FUTURE_REVISION_POLL).await;
        }
    }
}

/// The answer to a revision that has not happened.
pub(super) fn too_large(revision: u64, current: u64) -> ApiError {
    let message = format!("Too large resource version: {revision}, current: {current}");
    let mut e = ApiError::new(Reason::Timeout, format!("Timeout: {message}"));
    e.0.retry_after_seconds = 1;
    e.0.causes = vec![Cause {
        reason: "ResourceVersionTooLarge".into(),
        message: "Too large resource version".into(),
        field: String::new(),
    }];
    e
}
