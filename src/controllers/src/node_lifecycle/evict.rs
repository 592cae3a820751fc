//! Which pods have to leave a tainted node, and when.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kontiki_api::catalogue::known;
use kontiki_api::taints::{NO_EXECUTE, Taint, Toleration};
use kontiki_reconcile::{CallError, Client, DeleteOptions, Preconditions};

use crate::views::Pod;

/// When a pod has to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// It may stay.
    Never,
    /// Now.
    Now,
    /// After this time.
    After(Duration),
}

/// When this pod has to leave a node with these taints.
fn eviction(taints: &[&Taint], tolerations: &[Toleration], now: Timestamp) -> Eviction {
    let mut left: Option<Duration> = None;
    for taint in taints {
        let mut used = tolerations.iter().filter(|t| t.tolerates(taint)).peekable();
        if used.peek().is_none() {
            return Eviction::Now;
        }
        // Of several tolerations of a taint the shortest counts, as upstream has it.
        let Some(seconds) = used.filter_map(|t| t.toleration_seconds).min() else {
            continue;
        };
        let since: Timestamp = taint
            .time_added
            .as_deref()
            .and_then(|t| t.parse().ok())
            .unwrap_or(now);
        let passed = now.as_second() - since.as_second();
        let rest = Duration::from_secs(u64::try_from(seconds - passed).unwrap_or(0));
        left = Some(left.map_or(rest, |l| l.min(rest)));
    }
    match left {
        None => Eviction::Never,
        Some(Duration::ZERO) => Eviction::Now,
        Some(rest) => Eviction::After(rest),
    }
}

/// The pods that have to leave now, and when to look again.
pub fn evictions(
    taints: &[Taint],
    pods: &[Arc<Pod>],
    now: Timestamp,
) -> (Vec<Arc<Pod>>, Option<Duration>) {
    let taints: Vec<&Taint> = taints.iter().filter(|t| t.effect == NO_EXECUTE).collect();
    if taints.is_empty() {
        return (Vec::new(), None);
    }
    let (mut due, mut next) = (Vec::new(), None::<Duration>);
    for pod in pods.iter().filter(|p| !p.metadata.is_deleting()) {
        match eviction(&taints, &pod.tolerations, now) {
            Eviction::Never => {}
            Eviction::Now => due.push(pod.clone()),
            Eviction::After(d) => next = Some(next.map_or(d, |n| n.min(d))),
        }
    }
    (due, next)
}

/// Deletes a pod, with its own grace period; one that is gone is no error.
pub(super) async fn delete(client: &Client, pod: &Pod) -> Result<(), CallError> {
    let m = &pod.metadata;
    let options = DeleteOptions {
        preconditions: Some(Preconditions {
            uid: Some(m.uid.clone()),
            resource_version: None,
        }),
        ..DeleteOptions::default()
    };
    match client
        .delete(known::pods(), &m.namespace, &m.name, &options)
        .await
    {
        Err(e) if e.is_not_found() || e.is_conflict() => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use kontiki_api::taints::{NO_SCHEDULE, UNREACHABLE};

    use super::*;

    fn taint(effect: &str, since: i64) -> Taint {
        let time = Timestamp::from_second(since).expect("in range").to_string();
        Taint {
            key: UNREACHABLE.into(),
            effect: effect.into(),
            time_added: Some(time),
            ..Taint::default()
        }
    }

    fn pod(seconds: Option<Option<i64>>) -> Arc<Pod> {
        let tolerations = seconds
            .map(|toleration_seconds| Toleration {
                key: UNREACHABLE.into(),
                operator: "Exists".into(),
                toleration_seconds,
                ..Toleration::default()
            })
            .into_iter()
            .collect();
        Arc::new(Pod {
            tolerations,
            ..Pod::default()
        })
    }

    #[test]
    fn tolerations_say_when_a_pod_leaves() {
        let now = Timestamp::from_second(1000).expect("in range");
        let look = |effect: &str, since, p: &Arc<Pod>| {
            let (due, next) = evictions(&[taint(effect, since)], std::slice::from_ref(p), now);
            (due.len(), next.map(|d| d.as_secs()))
        };
        assert_eq!(
            look(NO_EXECUTE, 1000, &pod(None)),
            (1, None),
            "not tolerated"
        );
        assert_eq!(
            look(NO_EXECUTE, 1000, &pod(Some(None))),
            (0, None),
            "tolerated for ever"
        );
        assert_eq!(look(NO_EXECUTE, 900, &pod(Some(Some(300)))), (0, Some(200)));
        assert_eq!(
            look(NO_EXECUTE, 700, &pod(Some(Some(300)))),
            (1, None),
            "long enough"
        );
        assert_eq!(
            look(NO_SCHEDULE, 0, &pod(None)),
            (0, None),
            "NoSchedule lets pods be"
        );
    }
}
