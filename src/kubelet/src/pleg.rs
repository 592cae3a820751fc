//! Notices what changes in the runtime: by its events where it has them, and by looking at everything now and then.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kontiki_api::ObjectMeta;
use kontiki_base::{Tasks, chain};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::cri::{RuntimeError, v1 as cri};
use crate::manager::Manager;
use crate::sandbox::{POD_NAME_LABEL, POD_NAMESPACE_LABEL, POD_UID_LABEL};

/// How often everything is looked at while events come.
const RELIST_WITH_EVENTS: Duration = Duration::from_secs(15);
/// How often without events.
const RELIST_WITHOUT_EVENTS: Duration = Duration::from_secs(1);
/// Events that come together are looked after together.
const SETTLE: Duration = Duration::from_millis(5);
/// How soon a broken stream of events is opened again.
const EVENTS_RETRY: Duration = Duration::from_secs(1);

/// The state of each sandbox and container, by id, with the uid of its pod.
type States = HashMap<String, (String, i32)>;

/// Starts to notice.
pub fn start(manager: &Manager, tasks: &Tasks) {
    let wake = Arc::new(Notify::new());
    let live = Arc::new(AtomicBool::new(false));
    let (m, w, l, token) = (
        manager.clone(),
        wake.clone(),
        live.clone(),
        tasks.token().clone(),
    );
    tasks.spawn("pleg-events", async move {
        let follow = async {
            loop {
                let result =
                    m.0.runtime
                        .follow_events(|| {
                            l.store(true, Ordering::Relaxed);
                            w.notify_one();
                        })
                        .await;
                l.store(false, Ordering::Relaxed);
                w.notify_one();
                if let Err(e) = &result {
                    if e.is_unimplemented() {
                        tracing::info!("the runtime has no events, it is looked at every second");
                        return std::future::pending().await;
                    }
                    tracing::debug!(error = chain(e), "the runtime's events broke off");
                }
                tokio::time::sleep(EVENTS_RETRY).await;
            }
        };
        tokio::select! {
            () = token.cancelled() => {}
            () = follow => {}
        }
    });
    let (m, token) = (manager.clone(), tasks.token().clone());
    tasks.spawn("pleg", async move {
        let (mut before, mut swept) = (States::new(), false);
        let relist = async {
            loop {
                let interval = if live.load(Ordering::Relaxed) {
                    RELIST_WITH_EVENTS
                } else {
                    RELIST_WITHOUT_EVENTS
                };
                // A change that comes while we look wakes us again: the permit is kept.
                if tokio::time::timeout(interval, wake.notified())
                    .await
                    .is_ok()
                {
                    tokio::time::sleep(SETTLE).await;
                }
                if let Err(e) = look(&m, &mut before, &mut swept).await {
                    tracing::debug!(error = chain(&e), "the runtime does not answer");
                }
            }
        };
        tokio::select! {
            () = token.cancelled() => {}
            () = relist => {}
        }
    });
}

async fn look(
    manager: &Manager,
    before: &mut States,
    swept: &mut bool,
) -> Result<(), RuntimeError> {
    let i = &manager.0;
    let begun = Instant::now();
    let sandboxes = i
        .runtime
        .list_pod_sandbox(cri::ListPodSandboxRequest::default())
        .await?
        .items;
    let containers = i
        .runtime
        .list_containers(cri::ListContainersRequest::default())
        .await?
        .containers;
    i.metrics
        .relist_seconds
        .observe(begun.elapsed().as_secs_f64());
    let up = sandboxes
        .iter()
        .filter(|s| s.state() == cri::PodSandboxState::SandboxReady)
        .count();
    let running = containers
        .iter()
        .filter(|c| c.state() == cri::ContainerState::ContainerRunning)
        .count();
    i.metrics
        .running_pods
        .set(i64::try_from(up).unwrap_or(i64::MAX));
    i.metrics
        .running_containers
        .set(i64::try_from(running).unwrap_or(i64::MAX));
    let of_sandboxes = sandboxes.into_iter().map(|s| (s.id, s.state, s.labels));
    let of_containers = containers.into_iter().map(|c| (c.id, c.state, c.labels));
    let mut now = States::new();
    let mut owners: HashMap<String, ObjectMeta> = HashMap::new();
    for (id, state, labels) in of_sandboxes.chain(of_containers) {
        let label = |k: &str| labels.get(k).cloned().unwrap_or_default();
        let uid = label(POD_UID_LABEL);
        if uid.is_empty() {
            // Not a pod's: somebody else uses the runtime too.
            continue;
        }
        owners.entry(uid.clone()).or_insert_with(|| ObjectMeta {
            name: label(POD_NAME_LABEL),
            namespace: label(POD_NAMESPACE_LABEL),
            uid: uid.clone(),
            ..ObjectMeta::default()
        });
        now.insert(id, (uid, state));
    }
    let mut changed = differences(before, &now);
    // Until the API's pods are known, nothing can be said about pods that it does not know.
    if i.pods.is_synced() {
        if !std::mem::replace(swept, true) {
            // Pods that went while no kubelet looked, and of which files alone are left.
            for uid in i.volumes.uids() {
                let left = ObjectMeta {
                    uid: uid.clone(),
                    ..ObjectMeta::default()
                };
                owners.entry(uid).or_insert(left);
            }
        }
        let records = i.records.lock();
        changed.extend(owners.keys().filter(|u| !records.contains_key(*u)).cloned());
        changed.retain(|u| owners.contains_key(u) || records.contains_key(u));
    }
    changed.sort();
    changed.dedup();
    let changed: Vec<(String, ObjectMeta)> = changed
        .into_iter()
        .map(|u| {
            let m = owners.get(&u).cloned().unwrap_or_default();
            (u, m)
        })
        .collect();
    *before = now;
    manager.on_runtime(&changed);
    Ok(())
}

/// The pods of which something appeared, vanished or changed its state.
fn differences(before: &States, now: &States) -> Vec<String> {
    let new = now.iter().filter(|(id, s)| before.get(*id) != Some(*s));
    let gone = before.iter().filter(|(id, _)| !now.contains_key(*id));
    new.chain(gone).map(|(_, (uid, _))| uid.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_with_changes_are_told() {
        let states = |of: &[(&str, &str, i32)]| -> States {
            of.iter()
                .map(|(id, uid, s)| ((*id).to_owned(), ((*uid).to_owned(), *s)))
                .collect()
        };
        let before = states(&[("a", "p1", 1), ("b", "p2", 1), ("c", "p3", 1)]);
        let now = states(&[("a", "p1", 1), ("b", "p2", 2), ("d", "p4", 1)]);
        let mut changed = differences(&before, &now);
        changed.sort();
        assert_eq!(changed, ["p2", "p3", "p4"]);
    }
}
