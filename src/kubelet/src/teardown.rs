//! Takes all pods of a node down, for good: when the node is removed, not when the kubelet stops.

use std::path::Path;
use std::time::Duration;

use futures::future::join_all;
use kontiki_base::chain;
use kontiki_host::cgroups::{CgroupError, Cgroups};

use crate::cri::{Runtime, RuntimeError, v1 as cri};
use crate::pod::resources::pods_cgroup;

/// How long the processes of a group may take to die.
const GROUP_WAIT_MAX: Duration = Duration::from_secs(5);
const GROUP_RETRY: Duration = Duration::from_millis(50);

/// Stops and removes every sandbox of this runtime, which ends the containers and gives back the pods' networks.
/// One that cannot be removed is logged, and does not hold up the others.
///
/// # Errors
/// The runtime cannot be asked.
pub async fn remove_pods(socket: &Path) -> Result<(), RuntimeError> {
    let runtime = &Runtime::new(socket);
    let request = cri::ListPodSandboxRequest::default();
    let sandboxes = runtime.list_pod_sandbox(request).await?.items;
    join_all(sandboxes.into_iter().map(|s| async move {
        if let Err(e) = remove(runtime, s.id.clone()).await {
            tracing::warn!(
                sandbox = s.id,
                error = chain(&e),
                "a sandbox was left behind"
            );
        }
    }))
    .await;
    Ok(())
}

async fn remove(runtime: &Runtime, id: String) -> Result<(), RuntimeError> {
    let stop = cri::StopPodSandboxRequest {
        pod_sandbox_id: id.clone(),
    };
    runtime.stop_pod_sandbox(stop).await?;
    let remove = cri::RemovePodSandboxRequest { pod_sandbox_id: id };
    runtime.remove_pod_sandbox(remove).await.map(drop)
}

/// Removes the control groups of all pods, and their root if it was made for them. What still runs in them is killed.
///
/// # Errors
/// A group stays busy.
pub async fn remove_cgroups(cgroups: &dyn Cgroups, cgroup_root: &str) -> Result<(), CgroupError> {
    let deadline = tokio::time::Instant::now() + GROUP_WAIT_MAX;
    let group = pods_cgroup(cgroup_root);
    loop {
        match cgroups.remove(&group) {
            Err(_) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(GROUP_RETRY).await;
            }
            Err(e) => return Err(e),
            Ok(()) => break,
        }
    }
    if !cgroup_root.trim_matches('/').is_empty() {
        cgroups.remove_if_empty(cgroup_root);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use kontiki_host::cgroups::{FakeCgroups, Limits};

    use super::*;

    #[tokio::test]
    async fn the_groups_of_pods_go_and_others_stay() {
        let cgroups = FakeCgroups::default();
        for path in ["/x/kubepods/burstable/podu", "/x/other"] {
            cgroups.apply(path, &Limits::default()).expect("made");
        }
        remove_cgroups(&cgroups, "/x/").await.expect("removed");
        assert!(cgroups.children("/x/kubepods").is_empty());
        assert!(cgroups.limits("/x/other").is_some());
    }
}
