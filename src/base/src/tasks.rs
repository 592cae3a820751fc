//! Supervised tasks: each has a name, its end and its panic are noticed and acted on.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::Backoff;

/// How long [`Tasks::stop`] waits for tasks to see the cancellation before it aborts them.
const STOP_GRACE: Duration = Duration::from_secs(10);
const RESTART_DELAY_INITIAL: Duration = Duration::from_millis(100);
const RESTART_DELAY_MAX: Duration = Duration::from_secs(30);

/// A group of supervised tasks. Clones are the same group.
///
/// When an essential task ends without having been asked to, or panics, the whole group is cancelled and
/// [`Tasks::failed`] says which one it was: a component that lost a part of itself is not left running by halves.
#[derive(Clone, Debug)]
pub struct Tasks {
    inner: Arc<Inner>,
    token: CancellationToken,
}

#[derive(Debug, Default)]
struct Inner {
    set: Mutex<JoinSet<()>>,
    names: Mutex<Vec<(Id, String)>>,
    failure: Mutex<Option<String>>,
}

impl Default for Tasks {
    fn default() -> Self {
        Tasks::new(CancellationToken::new())
    }
}

impl Tasks {
    /// A group that ends when the token is cancelled.
    pub fn new(token: CancellationToken) -> Tasks {
        Tasks {
            inner: Arc::default(),
            token,
        }
    }

    /// The token that asks the tasks to end; tasks select on it.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Runs an essential task: it ends only when the group does.
    pub fn spawn<F: Future<Output = ()> + Send + 'static>(
        &self,
        name: impl Into<String>,
        future: F,
    ) {
        let (name, inner, token) = (name.into(), self.inner.clone(), self.token.clone());
        let shown = name.clone();
        self.start(name, async move {
            let guard = Unfinished {
                name: shown,
                inner,
                token,
            };
            future.await;
            guard.ended();
        });
    }

    /// Runs a task that may end by itself, such as the service of one connection. A panic is logged and ends nothing else.
    pub fn spawn_transient<F: Future<Output = ()> + Send + 'static>(
        &self,
        name: impl Into<String>,
        future: F,
    ) {
        self.start(name.into(), future);
    }

    /// Runs a task that is started again, after a backoff, when it ends or panics before the group does.
    pub fn spawn_restarting<F, Fut>(&self, name: impl Into<String>, mut make: F)
    where
        F: FnMut() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let (name, token) = (name.into(), self.token.clone());
        let shown = name.clone();
        self.start(name, async move {
            let mut backoff = Backoff::new(RESTART_DELAY_INITIAL, RESTART_DELAY_MAX);
            while !token.is_cancelled() {
                let started = tokio::time::Instant::now();
                match tokio::spawn(make()).await {
                    Ok(()) if token.is_cancelled() => return,
                    Ok(()) => tracing::warn!(task = shown, "task ended, starting it again"),
                    Err(e) if e.is_cancelled() => return,
                    Err(e) => tracing::error!(task = shown, panic = %panic_text(e), "task panicked, starting it again"),
                }
                if started.elapsed() > RESTART_DELAY_MAX {
                    backoff.reset();
                }
                tokio::select! {
                    () = token.cancelled() => return,
                    () = tokio::time::sleep(backoff.next_delay()) => {}
                }
            }
        });
    }

    fn start<F: Future<Output = ()> + Send + 'static>(&self, name: String, future: F) {
        let mut set = self.inner.set.lock();
        // Ended tasks are reaped here, so that a group that serves connections does not grow.
        while let Some(ended) = set.try_join_next_with_id() {
            self.inner.reap(ended);
        }
        let handle = set.spawn(future);
        self.inner.names.lock().push((handle.id(), name));
    }

    /// Why the group ended by itself, if it did.
    pub fn failed(&self) -> Option<String> {
        self.inner.failure.lock().clone()
    }

    /// Cancels the group and waits for its tasks; what is still there after ten seconds is aborted.
    pub async fn stop(&self) {
        self.token.cancel();
        let mut set = std::mem::take(&mut *self.inner.set.lock());
        let inner = self.inner.clone();
        let all = async {
            while let Some(ended) = set.join_next_with_id().await {
                inner.reap(ended);
            }
        };
        if tokio::time::timeout(STOP_GRACE, all).await.is_err() {
            let names = self
                .inner
                .names
                .lock()
                .iter()
                .map(|(_, n)| n.as_str())
                .collect::<Vec<_>>()
                .join(", ");
            tracing::warn!(tasks = names, "tasks did not stop in time, aborting them");
            set.shutdown().await;
        }
    }
}

impl Inner {
    fn reap(&self, ended: Result<(Id, ()), JoinError>) {
        let (id, error) = match ended {
            Ok((id, ())) => (id, None),
            Err(e) => (e.id(), Some(e)),
        };
        let mut names = self.names.lock();
        let name = names
            .iter()
            .position(|(i, _)| *i == id)
            .map(|at| names.swap_remove(at).1)
            .unwrap_or_default();
        drop(names);
        if let Some(e) = error.filter(JoinError::is_panic) {
            tracing::error!(task = name, panic = %panic_text(e), "task panicked");
        }
    }
}

fn panic_text(e: JoinError) -> String {
    match e.try_into_panic() {
        Ok(p) => p
            .downcast_ref::<&str>()
            .map(|s| (*s).to_owned())
            .or_else(|| p.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a panic without text".into()),
        Err(e) => e.to_string(),
    }
}

/// Dropped by a panic's unwinding as well as by an early return: either way the group has lost an essential task.
struct Unfinished {
    name: String,
    inner: Arc<Inner>,
    token: CancellationToken,
}

impl Unfinished {
    fn ended(self) {
        drop(self);
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.token.is_cancelled() {
            let how = if std::thread::panicking() {
                "panicked"
            } else {
                "ended"
            };
            let text = format!("task {} {how}", self.name);
            tracing::error!("{text}, stopping its component");
            self.inner.failure.lock().get_or_insert(text);
            self.token.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn the_panic_of_an_essential_task_ends_its_group() {
        let tasks = Tasks::default();
        tasks.spawn("good", {
            let token = tasks.token().clone();
            async move { token.cancelled().await }
        });
        tasks.spawn("bad", async { panic!("on purpose") });
        tasks.token().cancelled().await;
        tasks.stop().await;
        assert_eq!(tasks.failed().as_deref(), Some("task bad panicked"));
    }

    #[tokio::test]
    async fn a_transient_task_may_end_or_panic() {
        let tasks = Tasks::default();
        tasks.spawn_transient("short", async {});
        tasks.spawn_transient("bad", async { panic!("on purpose") });
        tokio::task::yield_now().await;
        assert!(!tasks.token().is_cancelled());
        tasks.stop().await;
        assert_eq!(tasks.failed(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_restarting_task_comes_back_after_a_panic() {
        let tasks = Tasks::default();
        let runs = Arc::new(AtomicU32::new(0));
        let (seen, token) = (runs.clone(), tasks.token().clone());
        tasks.spawn_restarting("flaky", move || {
            let (n, token) = (seen.fetch_add(1, Ordering::SeqCst), token.clone());
            async move {
                assert!(n >= 2, "fails twice on purpose");
                token.cancelled().await;
            }
        });
        while runs.load(Ordering::SeqCst) < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tasks.stop().await;
        assert_eq!(tasks.failed(), None);
    }
}
