//! Pods that nobody needs any more: over and too many, on nodes that are gone, or going away without ever having had one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kontiki_api::catalogue::known;
use kontiki_base::chain;
use kontiki_reconcile::{Cache, CallError, Client, DeleteOptions, PatchKind, Preconditions};
use serde_json::json;

use crate::context::Context;
use crate::views::{Node, Pod};

/// How often the loop looks.
const INTERVAL: Duration = Duration::from_secs(20);
/// Pods that are over may be so many before the oldest go.
pub const TERMINATED_PODS_MAX: usize = 12_500;
/// A node has to be gone for so long, in looks, before its pods go: a cache may be ahead of another.
const LOOKS_GONE_MIN: u32 = 2;

/// Starts the loop.
pub fn start(context: &Context) {
    let (pods, nodes) = (context.cache::<Pod>(known::pods()), context.cache::<Node>(known::nodes()));
    let (client, token) = (context.client("pod-garbage-collector"), context.tasks.token().clone());
    context.tasks.spawn_restarting("pod-gc", move || {
        let (pods, nodes, client, token) = (pods.clone(), nodes.clone(), client.clone(), token.clone());
        async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = look_again_and_again(&pods, &nodes, &client) => {}
            }
        }
    });
}

async fn look_again_and_again(pods: &Cache<Pod>, nodes: &Cache<Node>, client: &Client) {
    tokio::join!(pods.synced(), nodes.synced());
    let mut missing = std::collections::HashMap::<String, u32>::new();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let pods = pods.list();
        let known: BTreeSet<String> = nodes.list().iter().map(|n| n.metadata.name.clone()).collect();
        missing.retain(|n, _| !known.contains(n));
        let names: BTreeSet<&str> = pods.iter().map(|p| p.node_name.as_str()).filter(|n| !n.is_empty() && !known.contains(*n)).collect();
        for n in names {
            *missing.entry(n.to_owned()).or_default() += 1;
        }
        let gone = missing.iter().filter(|(_, looks)| **looks >= LOOKS_GONE_MIN).map(|(n, _)| n.clone()).collect();
        for command in plan(&pods, &gone, TERMINATED_PODS_MAX) {
            if let Err(e) = execute(client, &command).await {
                tracing::warn!(pod = command.pod.metadata.key(), error = chain(&e), "the pod was not collected");
            }
        }
    }
}

/// A pod to delete.
#[derive(Clone, Debug)]
pub struct Command {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Whether its phase has to be set to `Failed` before, as nobody else will end it.
    pub fail_first: bool,
}

/// The pods that go now.
pub fn plan(pods: &[Arc<Pod>], nodes_gone: &BTreeSet<String>, terminated_max: usize) -> Vec<Command> {
    let mut out = Vec::new();
    let mut terminated: Vec<_> = pods.iter().filter(|p| p.is_terminated() && !p.metadata.is_deleting()).collect();
    let excess = terminated.len().saturating_sub(terminated_max);
    terminated.sort_by_key(|p| p.metadata.creation_timestamp.clone());
    out.extend(terminated.iter().take(excess).map(|p| Command { pod: (*p).clone(), fail_first: false }));
    let orphaned = pods.iter().filter(|p| nodes_gone.contains(&p.node_name));
    let unscheduled = pods.iter().filter(|p| p.node_name.is_empty() && p.metadata.is_deleting());
    out.extend(orphaned.chain(unscheduled).map(|p| Command { pod: p.clone(), fail_first: !p.is_terminated() }));
    out
}

async fn execute(client: &Client, command: &Command) -> Result<(), CallError> {
    let m = &command.pod.metadata;
    let missing_is_fine = |r: Result<(), CallError>| match r {
        Err(e) if e.is_not_found() || e.is_conflict() => Ok(()),
        r => r,
    };
    if command.fail_first {
        let patch = json!({"metadata": {"uid": m.uid}, "status": {"phase": "Failed"}});
        let at = (m.namespace.as_str(), m.name.as_str());
        missing_is_fine(client.patch(known::pods(), at, "status", PatchKind::Merge, &patch).await.map(drop))?;
    }
    let preconditions = Some(Preconditions { uid: Some(m.uid.clone()), resource_version: None });
    let options = DeleteOptions { grace_period_seconds: Some(0), preconditions, ..DeleteOptions::default() };
    missing_is_fine(client.delete(known::pods(), &m.namespace, &m.name, &options).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, node: &str, phase: &str, deleting: bool) -> Arc<Pod> {
        let mut p = Pod { node_name: node.into(), phase: phase.into(), ..Pod::default() };
        p.metadata.name = name.into();
        p.metadata.creation_timestamp = Some(name.into());
        p.metadata.deletion_timestamp = deleting.then(|| "t".into());
        Arc::new(p)
    }

    #[test]
    fn only_what_nobody_needs_goes() {
        let pods = [
            pod("1", "n", "Succeeded", false),
            pod("2", "n", "Failed", false),
            pod("3", "n", "Running", false),
            pod("4", "gone", "Running", false),
            pod("5", "", "Pending", true),
            pod("6", "", "Pending", false),
        ];
        let got = plan(&pods, &["gone".to_owned()].into(), 1);
        let shown: Vec<_> = got.iter().map(|c| (c.pod.metadata.name.as_str(), c.fail_first)).collect();
        assert_eq!(shown, [("1", false), ("4", true), ("5", true)]);
    }
}
