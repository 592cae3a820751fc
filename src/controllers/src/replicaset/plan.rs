//! What a replica set has to do, decided on plain data.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::BURST_PODS_MAX;
use crate::views::{Pod, ReplicaSet, ReplicaSetStatus};

/// The pods that concern a set.
#[derive(Debug)]
pub struct Observed<'a> {
    /// Those that it controls.
    pub own: &'a [Arc<Pod>],
    /// Those of its namespace that nobody controls.
    pub orphans: &'a [Arc<Pod>],
    /// Those of the other sets of its deployment.
    pub siblings: &'a [Arc<Pod>],
    /// Uids of those whose deletion was asked for already.
    pub leaving: &'a HashSet<String>,
}

/// One thing to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// Take on a pod that matches and has no owner.
    Adopt(Arc<Pod>),
    /// Let go of a pod that does not match any more.
    Release(Arc<Pod>),
    /// Make so many pods.
    Create(usize),
    /// Delete these pods.
    Delete(Vec<Arc<Pod>>),
}

/// What to do, and when to look again even if nothing happens.
#[derive(Debug, Default)]
pub struct Plan {
    /// In this order.
    pub commands: Vec<Command>,
    /// A pod becomes available then.
    pub look_again: Option<Duration>,
}

/// What a set has to do.
pub fn plan(set: &ReplicaSet, observed: &Observed<'_>, now: Timestamp) -> Plan {
    let selector = set.selector();
    let (mut commands, mut active) = (Vec::new(), Vec::new());
    let counts = |p: &Pod| p.is_active() && !observed.leaving.contains(&p.metadata.uid);
    for pod in observed.own.iter().filter(|p| counts(p)) {
        if selector.matches(&pod.metadata.labels) {
            active.push(pod.clone());
        } else if !set.metadata.is_deleting() {
            commands.push(Command::Release(pod.clone()));
        }
    }
    if set.metadata.is_deleting() {
        return Plan {
            commands,
            look_again: None,
        };
    }
    for pod in observed
        .orphans
        .iter()
        .filter(|p| counts(p) && selector.matches(&p.metadata.labels))
    {
        commands.push(Command::Adopt(pod.clone()));
        active.push(pod.clone());
    }
    let want = usize::try_from(set.replicas()).unwrap_or(0);
    match active.len().cmp(&want) {
        Ordering::Less => commands.push(Command::Create((want - active.len()).min(BURST_PODS_MAX))),
        Ordering::Greater => {
            let n = (active.len() - want).min(BURST_PODS_MAX);
            commands.push(Command::Delete(first_to_go(
                &active,
                observed.siblings,
                n,
                now,
            )));
        }
        Ordering::Equal => {}
    }
    let min_ready = i64::from(set.spec.min_ready_seconds);
    let waiting = active
        .iter()
        .filter(|p| p.ready && !p.is_available(min_ready, now));
    let due = waiting
        .filter_map(|p| p.ready_since)
        .map(|since| since.as_second() + min_ready - now.as_second())
        .min();
    Plan {
        commands,
        look_again: due.map(|s| Duration::from_secs(u64::try_from(s.max(1)).unwrap_or(1))),
    }
}

/// The pods that go first when a set shrinks: those that do least, then those that would be missed least.
fn first_to_go(
    active: &[Arc<Pod>],
    siblings: &[Arc<Pod>],
    n: usize,
    now: Timestamp,
) -> Vec<Arc<Pod>> {
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for p in active
        .iter()
        .chain(siblings.iter().filter(|p| p.is_active()))
    {
        *on_node.entry(p.node_name.as_str()).or_default() += 1;
    }
    let phase = |p: &Pod| match p.phase.as_str() {
        "Pending" | "" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    // Ages count by their order of magnitude, so that it is not always the youngest zone that shrinks.
    let magnitude = |t: Option<Timestamp>| {
        let age = t.map_or(0, |t| (now.as_second() - t.as_second()).max(0));
        u64::try_from(age)
            .unwrap_or(0)
            .checked_ilog2()
            .map_or(0, |m| m + 1)
    };
    let created = |p: &Pod| {
        p.metadata
            .creation_timestamp
            .as_deref()
            .and_then(|t| t.parse().ok())
    };
    let mut sorted = active.to_vec();
    sorted.sort_by(|a, b| {
        let crowd = |p: &Pod| on_node.get(p.node_name.as_str()).copied().unwrap_or(0);
        (!a.node_name.is_empty())
            .cmp(&!b.node_name.is_empty())
            .then_with(|| phase(a).cmp(&phase(b)))
            .then_with(|| a.ready.cmp(&b.ready))
            .then_with(|| a.deletion_cost.cmp(&b.deletion_cost))
            .then_with(|| crowd(b).cmp(&crowd(a)))
            .then_with(|| {
                if a.ready && b.ready {
                    magnitude(a.ready_since).cmp(&magnitude(b.ready_since))
                } else {
                    Ordering::Equal
                }
            })
            .then_with(|| b.restarts.cmp(&a.restarts))
            .then_with(|| magnitude(created(a)).cmp(&magnitude(created(b))))
            .then_with(|| a.metadata.uid.cmp(&b.metadata.uid))
    });
    sorted.truncate(n);
    sorted
}

/// The status that the set should have, conditions as they are.
pub(super) fn status(
    set: &ReplicaSet,
    own: &[Arc<Pod>],
    leaving: &HashSet<String>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let (selector, template) = (set.selector(), set.template());
    let wanted = template["metadata"]["labels"].as_object();
    let is_leaving = |p: &Pod| p.metadata.is_deleting() || leaving.contains(&p.metadata.uid);
    let matching = || {
        own.iter()
            .filter(|p| selector.matches(&p.metadata.labels) && !p.is_terminated())
    };
    let active: Vec<_> = matching().filter(|p| !is_leaving(p)).collect();
    let count = |keep: &dyn Fn(&Pod) -> bool| {
        i32::try_from(active.iter().filter(|p| keep(p)).count()).unwrap_or(i32::MAX)
    };
    let labelled = |p: &Pod| {
        wanted.is_none_or(|w| {
            w.iter()
                .all(|(k, v)| p.metadata.labels.get(k).map(String::as_str) == v.as_str())
        })
    };
    let terminating = matching().filter(|p| is_leaving(p)).count();
    ReplicaSetStatus {
        replicas: count(&|_| true),
        fully_labeled_replicas: count(&labelled),
        ready_replicas: count(&|p| p.ready),
        available_replicas: count(&|p| p.is_available(i64::from(set.spec.min_ready_seconds), now)),
        terminating_replicas: Some(i32::try_from(terminating).unwrap_or(i32::MAX)),
        observed_generation: set.metadata.generation.max(set.status.observed_generation),
        conditions: set.status.conditions.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(replicas: i32) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "name": "rs", "uid": "rs", "generation": 3},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "x"}},
                     "template": {"metadata": {"labels": {"app": "x", "v": "1"}}}}
        }))
        .expect("a set")
    }

    fn pod(name: &str, change: impl FnOnce(&mut Pod)) -> Arc<Pod> {
        let mut p = Pod {
            node_name: "n".into(),
            phase: "Running".into(),
            ready: true,
            ..Pod::default()
        };
        p.metadata.name = name.into();
        p.metadata.uid = name.into();
        p.metadata.labels.insert("app".into(), "x".into());
        change(&mut p);
        Arc::new(p)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn planned(
        set: &ReplicaSet,
        own: &[Arc<Pod>],
        orphans: &[Arc<Pod>],
        leaving: &[&str],
    ) -> Vec<String> {
        let leaving = leaving.iter().map(|u| (*u).to_owned()).collect();
        let observed = Observed {
            own,
            orphans,
            siblings: &[],
            leaving: &leaving,
        };
        let names = |p: &[Arc<Pod>]| {
            p.iter()
                .map(|p| p.metadata.name.clone())
                .collect::<Vec<_>>()
                .join(" ")
        };
        let commands = plan(set, &observed, at(1000)).commands;
        let show = |c| match c {
            Command::Adopt(p) => format!("adopt {}", p.metadata.name),
            Command::Release(p) => format!("release {}", p.metadata.name),
            Command::Create(n) => format!("create {n}"),
            Command::Delete(p) => format!("delete {}", names(&p)),
        };
        commands.into_iter().map(show).collect()
    }

    #[test]
    fn missing_pods_are_made_and_those_on_their_way_out_do_not_count() {
        assert_eq!(planned(&set(3), &[], &[], &[]), ["create 3"]);
        let failed = pod("f", |p| p.phase = "Failed".into());
        let going = pod("g", |p| p.metadata.deletion_timestamp = Some("t".into()));
        let own = [pod("a", |_| {}), failed, going, pod("l", |_| {})];
        assert_eq!(planned(&set(2), &own, &[], &["l"]), ["create 1"]);
        assert_eq!(planned(&set(10_000), &[], &[], &[]), ["create 500"]);
    }

    #[test]
    fn pods_are_adopted_and_released_by_their_labels() {
        let own = [pod("a", |p| p.metadata.labels.clear())];
        let orphans = [
            pod("o", |_| {}),
            pod("other", |p| p.metadata.labels.clear()),
        ];
        assert_eq!(
            planned(&set(1), &own, &orphans, &[]),
            ["release a", "adopt o"]
        );
        let mut dying = set(1);
        dying.metadata.deletion_timestamp = Some("t".into());
        assert!(planned(&dying, &own, &orphans, &[]).is_empty());
    }

    #[test]
    fn those_that_do_least_go_first() {
        let own = [
            pod("1-unassigned", |p| p.node_name.clear()),
            pod("2-pending", |p| p.phase = "Pending".into()),
            pod("3-not-ready", |p| p.ready = false),
            pod("4-cheap", |p| p.deletion_cost = -1),
            pod("6-young", |p| p.ready_since = Some(at(999))),
            pod("7-restarted", |p| {
                (p.restarts, p.ready_since, p.node_name) = (5, Some(at(1)), "m".into());
            }),
            pod("8-old", |p| {
                (p.ready_since, p.node_name) = (Some(at(1)), "m".into());
            }),
            pod("5-crowded", |p| p.ready_since = Some(at(1000))),
        ];
        for n in 1..own.len() {
            let got = planned(
                &set(i32::try_from(own.len() - n).expect("small")),
                &own,
                &[],
                &[],
            );
            let count = got[0].split(' ').count() - 1;
            let last = got[0]
                .rsplit(' ')
                .next()
                .expect("a name")
                .chars()
                .next()
                .expect("a digit");
            assert_eq!(
                (count, last.to_digit(10)),
                (n, u32::try_from(n).ok()),
                "{got:?}"
            );
        }
    }

    #[test]
    fn the_status_counts_and_waits_for_availability() {
        let mut s = set(2);
        s.spec.min_ready_seconds = 30;
        let own = [
            pod("a", |p| p.ready_since = Some(at(960))),
            pod("b", |p| {
                (p.ready_since, p.metadata.labels) = (
                    Some(at(990)),
                    [("app".into(), "x".into()), ("v".into(), "1".into())].into(),
                );
            }),
            pod("g", |p| p.metadata.deletion_timestamp = Some("t".into())),
        ];
        let got = status(&s, &own, &HashSet::new(), at(1000));
        let counts = (
            got.replicas,
            got.fully_labeled_replicas,
            got.ready_replicas,
            got.available_replicas,
        );
        assert_eq!(
            (counts, got.terminating_replicas, got.observed_generation),
            ((2, 1, 2, 1), Some(1), 3)
        );
        let observed = Observed {
            own: &own,
            orphans: &[],
            siblings: &[],
            leaving: &HashSet::new(),
        };
        assert_eq!(
            plan(&s, &observed, at(1000)).look_again,
            Some(Duration::from_secs(20))
        );
    }
}
