//! Pods that wait for a node: ready ones by priority and age, failed ones after a backoff, unschedulable ones until
//! something happens that may help.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::plugins::Plugin;
use crate::pod::Pod;

/// Wait after the first failure; it doubles with each further one.
pub const BACKOFF_INITIAL: Duration = Duration::from_secs(1);
/// The longest wait after a failure.
pub const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// After so long an unschedulable pod is tried again even if nothing happened.
pub const UNSCHEDULABLE_MAX: Duration = Duration::from_secs(300);

/// Something that may help a pod that could not be scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Help {
    /// A node came, or changed in what counts.
    Node,
    /// A pod on a node is gone or over.
    PodGone,
    /// A pod came to a node, or its labels changed.
    PodPlaced,
}

impl Help {
    fn helps(self, plugin: Plugin) -> bool {
        match self {
            Help::Node => true,
            Help::PodGone => matches!(
                plugin,
                Plugin::NodeResourcesFit
                    | Plugin::NodePorts
                    | Plugin::PodTopologySpread
                    | Plugin::InterPodAffinity
            ),
            Help::PodPlaced => {
                matches!(plugin, Plugin::PodTopologySpread | Plugin::InterPodAffinity)
            }
        }
    }
}

type Rank = (Reverse<i32>, String, u64);

#[derive(Debug)]
enum Place {
    Ready(Rank),
    Backoff((Instant, u64)),
    Unschedulable {
        since: Instant,
        plugins: BTreeSet<Plugin>,
    },
    /// Being decided on, or bound; what happened in the meantime.
    InFlight(Vec<Help>),
}

#[derive(Debug)]
struct Entry {
    pod: Arc<Pod>,
    serial: u64,
    failures: u32,
    place: Place,
}

/// The queue. Times come in with the calls.
#[derive(Debug, Default)]
pub struct Queue {
    entries: HashMap<String, Entry>,
    ready: BTreeMap<Rank, String>,
    backoff: BTreeMap<(Instant, u64), String>,
    serial: u64,
}

impl Queue {
    /// Takes in a pod that has no node, or what became of it. Its wait ends only if its spec or labels changed.
    pub fn set(&mut self, pod: Arc<Pod>, now: Instant) {
        let uid = pod.metadata.uid.clone();
        let Some(e) = self.entries.get_mut(&uid) else {
            self.serial += 1;
            let entry = Entry {
                pod,
                serial: self.serial,
                failures: 0,
                place: Place::InFlight(Vec::new()),
            };
            self.entries.insert(uid.clone(), entry);
            return self.make_ready(&uid);
        };
        let changed = e.pod.spec != pod.spec || e.pod.metadata.labels != pod.metadata.labels;
        e.pod = pod;
        if changed {
            match &mut e.place {
                Place::Ready(_) | Place::Unschedulable { .. } => self.wake(&uid, now),
                Place::InFlight(seen) => seen.push(Help::Node),
                Place::Backoff(_) => {}
            }
        }
    }

    /// Forgets a pod that has a node, or is gone.
    pub fn remove(&mut self, uid: &str) {
        self.unlist(uid);
        self.entries.remove(uid);
    }

    /// The next pod to decide on; [`Queue::failed`] or [`Queue::remove`] must follow.
    pub fn pop(&mut self, now: Instant) -> Option<Arc<Pod>> {
        while let Some((&(due, serial), _)) = self.backoff.first_key_value()
            && due <= now
        {
            let uid = self.backoff.remove(&(due, serial)).unwrap_or_default();
            self.make_ready(&uid);
        }
        let stale = self.entries.iter().filter_map(|(uid, e)| match &e.place {
            Place::Unschedulable { since, .. }
                if now.duration_since(*since) >= UNSCHEDULABLE_MAX =>
            {
                Some(uid.clone())
            }
            _ => None,
        });
        for uid in stale.collect::<Vec<_>>() {
            self.make_ready(&uid);
        }
        let (_, uid) = self.ready.pop_first()?;
        let e = self.entries.get_mut(&uid)?;
        e.place = Place::InFlight(Vec::new());
        Some(e.pod.clone())
    }

    /// Takes back a pod that was not bound: for these plugins' reasons, or (if there are none) for an error.
    pub fn failed(&mut self, uid: &str, plugins: BTreeSet<Plugin>, now: Instant) {
        let Some(e) = self.entries.get_mut(uid) else {
            return;
        };
        e.failures += 1;
        let helped = match &e.place {
            Place::InFlight(seen) => seen.iter().any(|h| plugins.iter().any(|p| h.helps(*p))),
            _ => return,
        };
        if plugins.is_empty() || helped {
            let place = (now + backoff(e.failures), e.serial);
            e.place = Place::Backoff(place);
            self.backoff.insert(place, uid.to_owned());
        } else {
            e.place = Place::Unschedulable {
                since: now,
                plugins,
            };
        }
    }

    /// Something happened: pods that it may help are tried again, after their backoff.
    pub fn happened(&mut self, what: Help, now: Instant) {
        let mut woken = Vec::new();
        for (uid, e) in &mut self.entries {
            match &mut e.place {
                // A pod that found no node at all waits for a node: no plugin had a say.
                Place::Unschedulable { plugins, .. } if plugins.iter().any(|p| what.helps(*p)) => {
                    woken.push(uid.clone());
                }
                Place::InFlight(seen) if !seen.contains(&what) => seen.push(what),
                _ => {}
            }
        }
        for uid in woken {
            self.wake(&uid, now);
        }
    }

    /// When the next wait ends.
    pub fn next_due(&self) -> Option<Instant> {
        let backoff = self.backoff.first_key_value().map(|((due, _), _)| *due);
        let stale = self.entries.values().filter_map(|e| match e.place {
            Place::Unschedulable { since, .. } => Some(since + UNSCHEDULABLE_MAX),
            _ => None,
        });
        backoff.into_iter().chain(stale.min()).min()
    }

    /// How many pods are ready, in backoff, and unschedulable.
    pub fn lengths(&self) -> (usize, usize, usize) {
        let unschedulable = self
            .entries
            .values()
            .filter(|e| matches!(e.place, Place::Unschedulable { .. }));
        (self.ready.len(), self.backoff.len(), unschedulable.count())
    }

    fn wake(&mut self, uid: &str, now: Instant) {
        self.unlist(uid);
        let Some(e) = self.entries.get_mut(uid) else {
            return;
        };
        let since = match e.place {
            Place::Unschedulable { since, .. } => since,
            _ => return self.make_ready(uid),
        };
        let due = since + backoff(e.failures);
        if due <= now {
            return self.make_ready(uid);
        }
        let place = (due, e.serial);
        e.place = Place::Backoff(place);
        self.backoff.insert(place, uid.to_owned());
    }

    fn make_ready(&mut self, uid: &str) {
        let Some(e) = self.entries.get_mut(uid) else {
            return;
        };
        let created = e
            .pod
            .metadata
            .creation_timestamp
            .clone()
            .unwrap_or_default();
        let rank = (Reverse(e.pod.spec.priority), created, e.serial);
        e.place = Place::Ready(rank.clone());
        self.ready.insert(rank, uid.to_owned());
    }

    fn unlist(&mut self, uid: &str) {
        match self.entries.get(uid).map(|e| &e.place) {
            Some(Place::Ready(rank)) => drop(self.ready.remove(rank)),
            Some(Place::Backoff(place)) => drop(self.backoff.remove(place)),
            _ => {}
        }
    }
}

fn backoff(failures: u32) -> Duration {
    BACKOFF_INITIAL
        .saturating_mul(
            1_u32
                .checked_shl(failures.saturating_sub(1))
                .unwrap_or(u32::MAX),
        )
        .min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, priority: i32, created: &str) -> Arc<Pod> {
        let mut p = Pod::default();
        p.metadata.uid = uid.into();
        p.metadata.creation_timestamp = Some(created.into());
        p.spec.priority = priority;
        Arc::new(p)
    }

    fn pop(q: &mut Queue, now: Instant) -> Option<String> {
        q.pop(now).map(|p| p.metadata.uid.clone())
    }

    #[test]
    fn priority_comes_first_then_age() {
        let (mut q, now) = (Queue::default(), Instant::now());
        for (uid, priority, created) in [
            ("young", 0, "2"),
            ("old", 0, "1"),
            ("vip", 9, "3"),
            ("gone", 99, "0"),
        ] {
            q.set(pod(uid, priority, created), now);
        }
        q.remove("gone");
        assert_eq!(
            std::array::from_fn(|_| pop(&mut q, now)),
            ["vip", "old", "young"].map(|s| Some(s.to_owned()))
        );
        assert_eq!(pop(&mut q, now), None);
    }

    #[test]
    fn an_unschedulable_pod_waits_for_help_and_its_backoff() {
        let (mut q, start) = (Queue::default(), Instant::now());
        let fit: BTreeSet<Plugin> = [Plugin::NodeResourcesFit].into();
        q.set(pod("p", 0, "1"), start);
        pop(&mut q, start);
        q.failed("p", fit.clone(), start);
        let later = start + Duration::from_secs(60);
        q.happened(Help::PodPlaced, later);
        assert_eq!(pop(&mut q, later), None, "that is no help");
        q.happened(Help::PodGone, later);
        assert_eq!(pop(&mut q, later).as_deref(), Some("p"));
        q.failed("p", fit.clone(), later);
        q.happened(Help::Node, later);
        assert_eq!(
            q.next_due(),
            Some(later + BACKOFF_INITIAL * 2),
            "the second failure waits twice as long"
        );
        assert_eq!(pop(&mut q, later + BACKOFF_INITIAL), None);
        assert!(pop(&mut q, later + BACKOFF_INITIAL * 2).is_some());
        q.failed("p", fit, later);
        assert!(
            pop(&mut q, later + UNSCHEDULABLE_MAX).is_some(),
            "it is not forgotten"
        );
    }

    #[test]
    fn help_that_comes_while_the_pod_is_decided_on_is_not_lost() {
        let (mut q, now) = (Queue::default(), Instant::now());
        q.set(pod("p", 0, "1"), now);
        pop(&mut q, now);
        q.happened(Help::PodGone, now);
        q.failed("p", [Plugin::NodeResourcesFit].into(), now);
        assert!(pop(&mut q, now + BACKOFF_INITIAL).is_some());
    }

    #[test]
    fn only_a_changed_spec_ends_the_wait() {
        let (mut q, now) = (Queue::default(), Instant::now());
        q.set(pod("p", 0, "1"), now);
        pop(&mut q, now);
        q.failed("p", [Plugin::NodeAffinity].into(), now);
        let later = now + BACKOFF_MAX;
        q.set(pod("p", 0, "1"), later);
        assert_eq!(pop(&mut q, later), None);
        q.set(pod("p", 1, "1"), later);
        assert!(pop(&mut q, later).is_some());
    }

    #[test]
    fn backoff_doubles_up_to_its_limit() {
        assert_eq!(
            [1, 2, 3, 4, 5, 40].map(|n| backoff(n).as_secs()),
            [1, 2, 4, 8, 10, 10]
        );
    }
}
