//! The controller runtime: workers that take keys from a queue and reconcile them.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kontiki_base::{Tasks, chain};

use crate::queue::Queue;
use crate::source::CallError;

/// What a reconciliation asks for next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing, until something changes.
    Done,
    /// Another look after this time.
    After(Duration),
}

/// One loop: brings what belongs to a key to its desired state.
#[async_trait]
pub trait Reconcile<K>: Send + Sync + 'static {
    /// The loop's name, as in `deployment`.
    fn name(&self) -> &'static str;

    /// Reconciles one key. A conflict is not a failure to report: the change that caused it brings the key again.
    async fn reconcile(&self, key: &K) -> Result<Outcome, CallError>;
}

/// Runs a loop with a number of workers until the group ends. A failed key comes again after its backoff.
#[allow(
    clippy::needless_pass_by_value,
    reason = "callers make the loop in the call"
)]
pub fn run<K>(tasks: &Tasks, queue: &Queue<K>, workers: usize, what: Arc<dyn Reconcile<K>>)
where
    K: Clone + Eq + Hash + Send + Sync + std::fmt::Debug + 'static,
{
    for i in 0..workers {
        let (queue, what, token) = (queue.clone(), what.clone(), tasks.token().clone());
        tasks.spawn_restarting(format!("{}-{i}", what.name()), move || {
            let (queue, what, token) = (queue.clone(), what.clone(), token.clone());
            async move {
                loop {
                    let key = tokio::select! {
                        () = token.cancelled() => return,
                        key = queue.next() => key,
                    };
                    // Given back even if the loop panics, or the key would never be looked at again.
                    let working = Working {
                        queue: &queue,
                        key: &key,
                        settled: false,
                    };
                    let result = what.reconcile(&key).await;
                    working.settle();
                    match result {
                        Ok(outcome) => {
                            queue.forget(&key);
                            if let Outcome::After(delay) = outcome {
                                queue.add_after(key, delay);
                            }
                        }
                        Err(e) => {
                            if e.is_conflict() {
                                tracing::debug!(
                                    controller = what.name(),
                                    ?key,
                                    "conflict, trying again"
                                );
                            } else {
                                tracing::warn!(
                                    controller = what.name(),
                                    ?key,
                                    error = chain(&e),
                                    "reconciling failed, trying again"
                                );
                            }
                            queue.add_failed(key);
                        }
                    }
                }
            }
        });
    }
}

struct Working<'a, K: Clone + Eq + Hash> {
    queue: &'a Queue<K>,
    key: &'a K,
    settled: bool,
}

impl<K: Clone + Eq + Hash> Working<'_, K> {
    fn settle(mut self) {
        self.settled = true;
    }
}

impl<K: Clone + Eq + Hash> Drop for Working<'_, K> {
    fn drop(&mut self) {
        self.queue.done(self.key);
        if !self.settled {
            self.queue.add_failed(self.key.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    struct Flaky(AtomicU32);

    #[async_trait]
    impl Reconcile<&'static str> for Flaky {
        fn name(&self) -> &'static str {
            "flaky"
        }

        async fn reconcile(&self, _: &&'static str) -> Result<Outcome, CallError> {
            match self.0.fetch_add(1, Ordering::SeqCst) {
                0 => panic!("on purpose"),
                1 => Err(CallError::Malformed("on purpose".into())),
                2 => Ok(Outcome::After(Duration::from_secs(1))),
                _ => Ok(Outcome::Done),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_comes_again_after_panic_failure_and_delay() {
        let (tasks, queue) = (Tasks::default(), Queue::default());
        let flaky = Arc::new(Flaky(AtomicU32::new(0)));
        run(&tasks, &queue, 2, flaky.clone());
        queue.add("k");
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(flaky.0.load(Ordering::SeqCst), 4);
        tasks.stop().await;
    }
}
