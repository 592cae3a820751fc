//! Pod garbage collection: pods whose node is gone, pods that end before they were ever bound, and too many ended pods.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kontiki_api::catalogue::known;
use kontiki_base::chain;
use kontiki_reconcile::{Cache, Client, DeleteOptions, Preconditions};

use crate::context::Context;
use crate::views::{Node, Pod};

/// How often the loop looks (upstream's `gcCheckPeriod`).
const INTERVAL: Duration = Duration::from_secs(20);
/// How long a node has to be missing before its pods go (upstream's `quarantineTime`).
const QUARANTINE: Duration = Duration::from_secs(40);
/// Ended pods that are kept (kube-controller-manager's `--terminated-pod-gc-threshold`).
pub const TERMINATED_PODS_MAX: usize = 12_500;

/// Since when each node is missing that pods name.
pub type Missing = BTreeMap<String, Timestamp>;

/// The pods to delete, and the nodes that are missing now.
pub fn plan(
    pods: &[Arc<Pod>],
    nodes: &BTreeSet<&str>,
    missing: &Missing,
    now: Timestamp,
) -> (Vec<Arc<Pod>>, Missing) {
    let mut still_missing = Missing::new();
    for pod in pods {
        if !pod.node_name.is_empty() && !nodes.contains(pod.node_name.as_str()) {
            let since = missing.get(&pod.node_name).copied().unwrap_or(now);
            still_missing.insert(pod.node_name.clone(), since);
        }
    }
    let long_gone = |node: &str| {
        still_missing.get(node).is_some_and(|since| {
            now.duration_since(*since) >= QUARANTINE.try_into().unwrap_or_default()
        })
    };
    let never_bound = |p: &Pod| p.node_name.is_empty() && p.metadata.is_deleting();
    let mut doomed: Vec<Arc<Pod>> = pods
        .iter()
        .filter(|p| long_gone(&p.node_name) || never_bound(p))
        .cloned()
        .collect();
    let mut ended: Vec<&Arc<Pod>> = pods
        .iter()
        .filter(|p| p.is_terminated() && !p.metadata.is_deleting())
        .collect();
    if let Some(excess) = ended
        .len()
        .checked_sub(TERMINATED_PODS_MAX)
        .filter(|n| *n > 0)
    {
        ended.sort_by(|a, b| {
            a.metadata
                .creation_timestamp
                .cmp(&b.metadata.creation_timestamp)
        });
        doomed.extend(ended.into_iter().take(excess).cloned());
    }
    (doomed, still_missing)
}

/// Starts the loop.
pub fn start(context: &Context) {
    let (pods, nodes) = (
        context.cache::<Pod>(known::pods()),
        context.cache::<Node>(known::nodes()),
    );
    let (client, clock, token) = (
        context.client("pod-garbage-collector"),
        context.clock.clone(),
        context.tasks.token().clone(),
    );
    context
        .tasks
        .spawn_restarting("pod-garbage-collector", move || {
            let (pods, nodes, client, clock, token) = (
                pods.clone(),
                nodes.clone(),
                client.clone(),
                clock.clone(),
                token.clone(),
            );
            async move {
                let mut missing = Missing::new();
                loop {
                    tokio::select! {
                        () = token.cancelled() => return,
                        () = tokio::time::sleep(INTERVAL) => {}
                    }
                    tokio::join!(pods.synced(), nodes.synced());
                    let doomed;
                    (doomed, missing) = look(&pods, &nodes, &missing, clock.now());
                    for pod in doomed {
                        delete(&client, &pod).await;
                    }
                }
            }
        });
}

fn look(
    pods: &Cache<Pod>,
    nodes: &Cache<Node>,
    missing: &Missing,
    now: Timestamp,
) -> (Vec<Arc<Pod>>, Missing) {
    let nodes = nodes.list();
    let names = nodes.iter().map(|n| n.metadata.name.as_str()).collect();
    plan(&pods.list(), &names, missing, now)
}

async fn delete(client: &Client, pod: &Pod) {
    let m = &pod.metadata;
    let options = DeleteOptions {
        grace_period_seconds: Some(0),
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
        Err(e) if !e.is_not_found() => {
            tracing::warn!(
                pod = m.key(),
                error = chain(&e),
                "a pod that nobody runs cannot be deleted, trying again"
            );
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use kontiki_api::ObjectMeta;

    use super::*;

    fn pod(name: &str, node: &str, phase: &str) -> Arc<Pod> {
        let metadata = ObjectMeta {
            name: name.into(),
            ..ObjectMeta::default()
        };
        Arc::new(Pod {
            metadata,
            node_name: node.into(),
            phase: phase.into(),
            ..Pod::default()
        })
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn names(doomed: &[Arc<Pod>]) -> Vec<&str> {
        doomed.iter().map(|p| p.metadata.name.as_str()).collect()
    }

    #[test]
    fn pods_of_a_vanished_node_go_after_the_quarantine() {
        let pods = [
            pod("a", "gone", "Running"),
            pod("b", "here", "Running"),
            pod("c", "", "Pending"),
        ];
        let nodes = BTreeSet::from(["here"]);
        let (doomed, missing) = plan(&pods, &nodes, &Missing::new(), at(0));
        assert!(doomed.is_empty(), "the node may only be late in the cache");
        let (doomed, missing) = plan(&pods, &nodes, &missing, at(39));
        assert!(doomed.is_empty());
        let (doomed, _) = plan(&pods, &nodes, &missing, at(40));
        assert_eq!(names(&doomed), ["a"]);
        let (_, missing) = plan(&pods, &BTreeSet::from(["here", "gone"]), &missing, at(41));
        assert!(missing.is_empty(), "a node that came back is forgotten");
    }

    #[test]
    fn a_pod_that_is_deleted_before_it_was_bound_goes() {
        let mut leaving = Pod::clone(&pod("a", "", "Pending"));
        leaving.metadata.deletion_timestamp = Some("2026-01-01T00:00:00Z".into());
        let (doomed, _) = plan(
            &[Arc::new(leaving)],
            &BTreeSet::new(),
            &Missing::new(),
            at(0),
        );
        assert_eq!(names(&doomed), ["a"]);
    }

    #[test]
    fn the_oldest_ended_pods_over_the_threshold_go() {
        let pods: Vec<Arc<Pod>> = (0..TERMINATED_PODS_MAX + 2)
            .map(|i| {
                let mut p = Pod::clone(&pod(&format!("p{i}"), "", "Succeeded"));
                p.metadata.creation_timestamp =
                    Some(format!("2026-01-01T00:00:00.{:06}Z", 999_999 - i));
                Arc::new(p)
            })
            .collect();
        let (doomed, _) = plan(&pods, &BTreeSet::new(), &Missing::new(), at(0));
        let last = TERMINATED_PODS_MAX + 1;
        assert_eq!(
            names(&doomed),
            [format!("p{last}"), format!("p{}", last - 1)]
        );
    }
}
