//! The status of a deployment: counts, availability, progress.

use std::sync::Arc;

use jiff::Timestamp;
use kontiki_api::object::time_text;

use super::limits::limits;
use crate::conditions;
use crate::views::{Condition, Deployment, DeploymentStatus, ReplicaSet};

pub(super) const AVAILABLE: &str = "Available";
pub(super) const PROGRESSING: &str = "Progressing";
pub(super) const REPLICA_FAILURE: &str = "ReplicaFailure";
const COMPLETE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

/// A condition that begins now.
pub(super) fn condition(
    kind: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) -> Condition {
    let time = Some(time_text(now));
    let (kind, status, reason) = (kind.to_owned(), status.to_owned(), reason.to_owned());
    Condition {
        kind,
        status,
        reason,
        message,
        last_update_time: time.clone(),
        last_transition_time: time,
    }
}

/// The progress deadline in seconds, if there is one: the largest number stands for none.
pub(super) fn deadline(d: &Deployment) -> Option<i32> {
    d.spec.progress_deadline_seconds.filter(|s| *s != i32::MAX)
}

/// The counts, and whether enough pods are available.
pub(super) fn counted(
    d: &Deployment,
    all: &[Arc<ReplicaSet>],
    new: Option<&ReplicaSet>,
    now: Timestamp,
) -> DeploymentStatus {
    let sum = |of: &dyn Fn(&ReplicaSet) -> i32| all.iter().map(|s| of(s)).sum::<i32>();
    let available = sum(&|s| s.status.available_replicas);
    let mut conditions = d.status.conditions.clone();
    let enough = available >= d.replicas() - limits(d).unavailable;
    let (status, reason, text) = if enough {
        (
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        )
    } else {
        (
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        )
    };
    conditions::set(
        &mut conditions,
        condition(AVAILABLE, status, reason, text.into(), now),
    );
    DeploymentStatus {
        observed_generation: d.metadata.generation,
        replicas: sum(&|s| s.status.replicas),
        updated_replicas: new.map_or(0, |s| s.status.replicas),
        ready_replicas: sum(&|s| s.status.ready_replicas),
        available_replicas: available,
        unavailable_replicas: (sum(&ReplicaSet::replicas) - available).max(0),
        terminating_replicas: Some(sum(&|s| s.status.terminating_replicas.unwrap_or(0))),
        collision_count: d.status.collision_count,
        conditions,
    }
}

/// Whether every pod is there, available and of the new template.
pub(super) fn is_complete(d: &Deployment, s: &DeploymentStatus) -> bool {
    let want = d.replicas();
    s.updated_replicas == want && s.replicas == want && s.available_replicas == want
}

fn has_progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    new.updated_replicas > old.updated_replicas
        || new.replicas - new.updated_replicas < old.replicas - old.updated_replicas
        || new.ready_replicas > old.ready_replicas
        || new.available_replicas > old.available_replicas
}

/// Seconds until the deadline of a rollout that does not progress; negative past it, `None` where nothing is waited for.
fn seconds_left(d: &Deployment, s: &DeploymentStatus, now: Timestamp) -> Option<i64> {
    let (deadline, progress) = (deadline(d)?, conditions::find(&s.conditions, PROGRESSING)?);
    if progress.reason == COMPLETE
        || progress.status != "True" && progress.reason != "DeploymentResumed"
    {
        return None;
    }
    let since: Timestamp = progress.last_update_time.as_deref()?.parse().ok()?;
    Some(since.as_second() + i64::from(deadline) - now.as_second())
}

/// The status during a rollout, and the seconds after which the deadline is to be looked at.
pub(super) fn rollout(
    d: &Deployment,
    all: &[Arc<ReplicaSet>],
    new: Option<&ReplicaSet>,
    now: Timestamp,
) -> (DeploymentStatus, Option<i64>) {
    let mut s = counted(d, all, new, now);
    let subject = new.map_or_else(
        || format!("Deployment {:?}", d.metadata.name),
        |n| format!("ReplicaSet {:?}", n.metadata.name),
    );
    let current = conditions::find(&d.status.conditions, PROGRESSING).cloned();
    let was_complete =
        s.replicas == s.updated_replicas && current.as_ref().is_some_and(|c| c.reason == COMPLETE);
    if deadline(d).is_none() {
        conditions::remove(&mut s.conditions, PROGRESSING);
    } else if !was_complete {
        if is_complete(d, &s) {
            let text = format!("{subject} has successfully progressed.");
            conditions::set(
                &mut s.conditions,
                condition(PROGRESSING, "True", COMPLETE, text, now),
            );
        } else if has_progressed(&d.status, &s) {
            let mut c = condition(
                PROGRESSING,
                "True",
                "ReplicaSetUpdated",
                format!("{subject} is progressing."),
                now,
            );
            // The time of the last progress is written anew even if the reason stays.
            if let Some(old) = current.filter(|o| o.status == "True") {
                c.last_transition_time = old.last_transition_time;
            }
            conditions::remove(&mut s.conditions, PROGRESSING);
            s.conditions.push(c);
        } else if seconds_left(d, &s, now).is_some_and(|left| left < 0) {
            let text = format!("{subject} has timed out progressing.");
            conditions::set(
                &mut s.conditions,
                condition(PROGRESSING, "False", TIMED_OUT, text, now),
            );
        }
    }
    let failure = new
        .into_iter()
        .chain(all.iter().map(|s| &**s))
        .find_map(|s| conditions::find(&s.status.conditions, REPLICA_FAILURE).cloned());
    match failure {
        Some(c) => {
            let c = condition(REPLICA_FAILURE, &c.status, &c.reason, c.message, now);
            conditions::set(&mut s.conditions, c);
        }
        None => conditions::remove(&mut s.conditions, REPLICA_FAILURE),
    }
    let left = if is_complete(d, &s) {
        None
    } else {
        seconds_left(d, &s, now)
    };
    (s, left.map(|l| l.max(0) + 1))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(status: &serde_json::Value) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "d", "generation": 2},
            "spec": {"replicas": 2, "progressDeadlineSeconds": 60, "strategy": {"type": "RollingUpdate"}},
            "status": status
        }))
        .expect("a deployment")
    }

    fn set(replicas: i32, available: i32) -> Arc<ReplicaSet> {
        let status = json!({"replicas": replicas, "readyReplicas": available, "availableReplicas": available});
        let v =
            json!({"metadata": {"name": "d-1"}, "spec": {"replicas": replicas}, "status": status});
        Arc::new(serde_json::from_value(v).expect("a set"))
    }

    fn at(s: i64) -> Timestamp {
        Timestamp::from_second(s).expect("in range")
    }

    fn progress(s: &DeploymentStatus) -> (&str, &str) {
        let c = conditions::find(&s.conditions, PROGRESSING).expect("it says how it goes");
        (&c.reason, &c.message)
    }

    #[test]
    fn a_rollout_progresses_and_completes() {
        let d = deployment(&json!({}));
        let (one, left) = rollout(&d, &[set(2, 1)], Some(&set(2, 1)), at(100));
        assert_eq!(
            progress(&one),
            ("ReplicaSetUpdated", "ReplicaSet \"d-1\" is progressing.")
        );
        assert_eq!((one.unavailable_replicas, left), (1, Some(61)));
        assert_eq!(
            conditions::find(&one.conditions, AVAILABLE).map(|c| c.status.as_str()),
            Some("False")
        );
        let mut d = d;
        d.status = one;
        let (two, left) = rollout(&d, &[set(2, 2)], Some(&set(2, 2)), at(110));
        assert_eq!(
            progress(&two),
            (COMPLETE, "ReplicaSet \"d-1\" has successfully progressed.")
        );
        assert_eq!((left, two.observed_generation), (None, 2));
    }

    #[test]
    fn a_rollout_that_stands_still_times_out() {
        let mut d = deployment(&json!({}));
        d.status = rollout(&d, &[set(2, 1)], Some(&set(2, 1)), at(100)).0;
        let (still, left) = rollout(&d, &[set(2, 1)], Some(&set(2, 1)), at(130));
        assert_eq!((progress(&still).0, left), ("ReplicaSetUpdated", Some(31)));
        let (late, left) = rollout(&d, &[set(2, 1)], Some(&set(2, 1)), at(161));
        assert_eq!((progress(&late).0, left), (TIMED_OUT, None));
    }

    #[test]
    fn the_failure_of_a_set_is_that_of_the_deployment() {
        let d = deployment(&json!({}));
        let mut failing = (*set(2, 0)).clone();
        failing.status.conditions = vec![condition(
            REPLICA_FAILURE,
            "True",
            "FailedCreate",
            "no".into(),
            at(1),
        )];
        let (s, _) = rollout(&d, &[Arc::new(failing)], None, at(100));
        assert_eq!(
            conditions::find(&s.conditions, REPLICA_FAILURE).map(|c| c.reason.as_str()),
            Some("FailedCreate")
        );
    }
}
