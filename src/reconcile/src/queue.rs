//! A queue of keys: each key at most once, never worked on twice at a time, with delays and per-key backoff.
//!
//! The semantics are those of client-go's rate-limited work queue.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use kontiki_base::Backoff;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Delay after a key's first failure; it doubles with each further one.
const RETRY_DELAY_INITIAL: Duration = Duration::from_millis(10);
/// The longest delay between tries of a failing key.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(60);

/// A queue of keys to reconcile. Clones are the same queue.
pub struct Queue<K>(Arc<Inner<K>>);

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Queue(self.0.clone())
    }
}

struct Inner<K> {
    state: Mutex<State<K>>,
    changed: Notify,
}

struct State<K> {
    ready: VecDeque<K>,
    /// Keys that are in `ready`, or are to be looked at again when their worker is done.
    dirty: HashSet<K>,
    working: HashSet<K>,
    delayed: BTreeMap<(Instant, u64), K>,
    delayed_until: HashMap<K, (Instant, u64)>,
    failures: HashMap<K, Backoff>,
    serial: u64,
}

impl<K: Clone + Eq + Hash> Default for Queue<K> {
    fn default() -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            working: HashSet::new(),
            delayed: BTreeMap::new(),
            delayed_until: HashMap::new(),
            failures: HashMap::new(),
            serial: 0,
        };
        Queue(Arc::new(Inner {
            state: Mutex::new(state),
            changed: Notify::new(),
        }))
    }
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// Adds a key; one that is waiting already stays where it is.
    pub fn add(&self, key: K) {
        let mut s = self.0.state.lock();
        if s.dirty.insert(key.clone()) && !s.working.contains(&key) {
            s.ready.push_back(key);
            drop(s);
            self.0.changed.notify_one();
        }
    }

    /// Adds a key after a delay; of several delays for a key the shortest counts.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let mut s = self.0.state.lock();
        let due = Instant::now() + delay;
        if let Some(&at) = s.delayed_until.get(&key) {
            if at.0 <= due {
                return;
            }
            s.delayed.remove(&at);
        }
        s.serial += 1;
        let at = (due, s.serial);
        s.delayed.insert(at, key.clone());
        s.delayed_until.insert(key, at);
        drop(s);
        self.0.changed.notify_one();
    }

    /// Adds a key that failed, after its backoff.
    pub fn add_failed(&self, key: K) {
        let delay = {
            let mut s = self.0.state.lock();
            let fresh = || Backoff::new(RETRY_DELAY_INITIAL, RETRY_DELAY_MAX);
            s.failures
                .entry(key.clone())
                .or_insert_with(fresh)
                .next_delay()
        };
        self.add_after(key, delay);
    }

    /// Forgets a key's failures.
    pub fn forget(&self, key: &K) {
        self.0.state.lock().failures.remove(key);
    }

    /// The next key to work on; [`Queue::done`] must follow.
    pub async fn next(&self) -> K {
        loop {
            let changed = self.0.changed.notified();
            let wake_at = {
                let mut s = self.0.state.lock();
                let now = Instant::now();
                while let Some(entry) = s.delayed.first_entry() {
                    if entry.key().0 > now {
                        break;
                    }
                    let key = entry.remove();
                    s.delayed_until.remove(&key);
                    if s.dirty.insert(key.clone()) && !s.working.contains(&key) {
                        s.ready.push_back(key);
                    }
                }
                if let Some(key) = s.ready.pop_front() {
                    s.dirty.remove(&key);
                    s.working.insert(key.clone());
                    if !s.ready.is_empty() {
                        self.0.changed.notify_one();
                    }
                    return key;
                }
                s.delayed.first_key_value().map(|((at, _), _)| *at)
            };
            match wake_at {
                Some(at) => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => changed.await,
            }
        }
    }

    /// Ends the work on a key; if it was added in the meantime, it is ready again.
    pub fn done(&self, key: &K) {
        let mut s = self.0.state.lock();
        s.working.remove(key);
        if s.dirty.contains(key) {
            s.ready.push_back(key.clone());
            drop(s);
            self.0.changed.notify_one();
        }
    }

    /// How many keys are ready.
    pub fn len(&self) -> usize {
        self.0.state.lock().ready.len()
    }

    /// Whether no key is ready.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_once_and_is_never_worked_on_twice_at_a_time() {
        let q = Queue::default();
        q.add("a");
        q.add("a");
        assert_eq!(q.len(), 1);
        assert_eq!(q.next().await, "a");
        q.add("a");
        assert!(q.is_empty(), "it is being worked on");
        q.done(&"a");
        assert_eq!(q.next().await, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn delays_are_kept_and_the_shortest_counts() {
        let q = Queue::default();
        let start = Instant::now();
        q.add_after("a", Duration::from_secs(5));
        q.add_after("a", Duration::from_secs(2));
        q.add_after("a", Duration::from_secs(9));
        assert_eq!(q.next().await, "a");
        assert_eq!(start.elapsed().as_secs(), 2);
        q.done(&"a");
        assert!(
            tokio::time::timeout(Duration::from_secs(60), q.next())
                .await
                .is_err(),
            "only once"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn failures_back_off_until_forgotten() {
        let q = Queue::default();
        let mut last = Duration::ZERO;
        for _ in 0..5 {
            let start = Instant::now();
            q.add_failed(1);
            q.next().await;
            q.done(&1);
            assert!(start.elapsed() >= last, "delays grow");
            last = start.elapsed();
        }
        q.forget(&1);
        let start = Instant::now();
        q.add_failed(1);
        q.next().await;
        assert!(start.elapsed() <= RETRY_DELAY_INITIAL * 2);
    }
}
