//! What the runtime has of a pod: its sandboxes and containers, as they are.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::container::{
    GRACE_ANNOTATION, HASH_ANNOTATION, MESSAGE_PATH_ANNOTATION, MESSAGE_POLICY_ANNOTATION,
};
use crate::cri::{Runtime, RuntimeError, v1 as cri};
use crate::sandbox::{CONTAINER_NAME_LABEL, POD_UID_LABEL};

/// A sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// Its id.
    pub id: String,
    /// The how-manieth sandbox of its pod, from 0.
    pub attempt: u32,
    /// Whether it is up.
    pub ready: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its addresses; none in the machine's network.
    pub ips: Vec<String>,
}

/// The state of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the states are CRI's")]
pub enum State {
    #[default]
    Created,
    Running,
    Exited,
    Unknown,
}

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// The sandbox that it is in.
    pub sandbox_id: String,
    /// Its name in the pod.
    pub name: String,
    /// The how-manieth container of this name, from 0.
    pub attempt: u32,
    /// Its state.
    pub state: State,
    /// The hash of what it was made from.
    pub hash: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was started, if it was.
    pub started_at: Option<Timestamp>,
    /// When it ended, if it did.
    pub finished_at: Option<Timestamp>,
    /// Its exit code.
    pub exit_code: i32,
    /// Why it ended, in one word.
    pub reason: String,
    /// What the runtime has to say.
    pub message: String,
    /// The image as the pod names it.
    pub image: String,
    /// The image's digest or id.
    pub image_ref: String,
    /// The file with its last words, on the machine.
    pub message_file: Option<String>,
    /// Whether the log stands in for last words after a failure.
    pub message_from_log: bool,
    /// The log file.
    pub log_path: String,
    /// Seconds that the pod gets to end.
    pub grace_seconds: i64,
}

/// What the runtime has of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Its sandboxes, the newest first.
    pub sandboxes: Vec<Sandbox>,
    /// Its containers, the newest first.
    pub containers: Vec<Container>,
}

impl Observed {
    /// The newest sandbox, if it is up.
    pub fn ready_sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first().filter(|s| s.ready)
    }

    /// The newest container of this name, in whichever sandbox.
    pub fn latest(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// The newest container of this name in a sandbox.
    pub fn latest_in(&self, sandbox_id: &str, name: &str) -> Option<&Container> {
        self.containers
            .iter()
            .find(|c| c.name == name && c.sandbox_id == sandbox_id)
    }

    /// The containers that run, or may.
    pub fn running(&self) -> impl Iterator<Item = &Container> {
        self.containers
            .iter()
            .filter(|c| matches!(c.state, State::Running | State::Unknown))
    }

    /// The addresses of the pod.
    pub fn ips(&self) -> &[String] {
        self.sandboxes.first().map_or(&[], |s| &s.ips)
    }
}

/// What was seen of sandboxes and containers that cannot change any more, so that it is not asked for again.
#[derive(Debug, Default)]
pub struct Seen {
    sandboxes: HashMap<String, Vec<String>>,
    containers: HashMap<String, Container>,
}

fn time(nanos: i64) -> Option<Timestamp> {
    // The runtime writes "never" as 0, or as the year 1.
    (nanos > 0)
        .then(|| Timestamp::from_nanosecond(nanos.into()).ok())
        .flatten()
}

/// Looks at a pod's sandboxes and containers.
///
/// # Errors
/// The runtime does not answer.
pub async fn observe(
    runtime: &Runtime,
    uid: &str,
    seen: &mut Seen,
) -> Result<Observed, RuntimeError> {
    let selector = HashMap::from([(POD_UID_LABEL.to_owned(), uid.to_owned())]);
    let filter = cri::PodSandboxFilter {
        id: String::new(),
        label_selector: selector.clone(),
    };
    let sandboxes = runtime
        .list_pod_sandbox(cri::ListPodSandboxRequest {
            filter: Some(filter),
        })
        .await?;
    let filter = cri::ContainerFilter {
        label_selector: selector,
        ..cri::ContainerFilter::default()
    };
    let containers = runtime
        .list_containers(cri::ListContainersRequest {
            filter: Some(filter),
        })
        .await?;
    let mut out = Observed::default();
    for s in sandboxes.items {
        let ready = s.state() == cri::PodSandboxState::SandboxReady;
        let attempt = s.metadata.as_ref().map_or(0, |m| m.attempt);
        let ips = match seen.sandboxes.get(&s.id) {
            Some(ips) => ips.clone(),
            None if ready => sandbox_ips(runtime, &s.id).await?,
            None => Vec::new(),
        };
        if !ips.is_empty() {
            seen.sandboxes.insert(s.id.clone(), ips.clone());
        }
        out.sandboxes.push(Sandbox {
            ready,
            attempt,
            ips,
            created_at: time(s.created_at).unwrap_or_default(),
            id: s.id,
        });
    }
    for c in containers.containers {
        if let Some(known) = seen.containers.get(&c.id) {
            out.containers.push(known.clone());
            continue;
        }
        let request = cri::ContainerStatusRequest {
            container_id: c.id.clone(),
            verbose: false,
        };
        let status = match runtime.container_status(request).await {
            Ok(answer) => answer.status,
            // Removed since it was listed.
            Err(e) if e.is_not_found() => continue,
            Err(e) => return Err(e),
        };
        let Some(status) = status else { continue };
        let found = container(c.pod_sandbox_id, status);
        if found.state == State::Exited {
            seen.containers.insert(found.id.clone(), found.clone());
        }
        out.containers.push(found);
    }
    seen.containers
        .retain(|id, _| out.containers.iter().any(|c| c.id == *id));
    seen.sandboxes
        .retain(|id, _| out.sandboxes.iter().any(|s| s.id == *id));
    out.sandboxes
        .sort_by_key(|s| std::cmp::Reverse((s.attempt, s.created_at)));
    out.containers
        .sort_by_key(|c| std::cmp::Reverse((c.attempt, c.created_at)));
    Ok(out)
}

async fn sandbox_ips(runtime: &Runtime, id: &str) -> Result<Vec<String>, RuntimeError> {
    let request = cri::PodSandboxStatusRequest {
        pod_sandbox_id: id.to_owned(),
        verbose: false,
    };
    let network = match runtime.pod_sandbox_status(request).await {
        Ok(answer) => answer.status.and_then(|s| s.network),
        Err(e) if e.is_not_found() => None,
        Err(e) => return Err(e),
    };
    let Some(n) = network else {
        return Ok(Vec::new());
    };
    let all = std::iter::once(n.ip).chain(n.additional_ips.into_iter().map(|a| a.ip));
    Ok(all.filter(|ip| !ip.is_empty()).collect())
}

fn container(sandbox_id: String, s: cri::ContainerStatus) -> Container {
    let state = match s.state() {
        cri::ContainerState::ContainerCreated => State::Created,
        cri::ContainerState::ContainerRunning => State::Running,
        cri::ContainerState::ContainerExited => State::Exited,
        cri::ContainerState::ContainerUnknown => State::Unknown,
    };
    let note = |k: &str| s.annotations.get(k).cloned().unwrap_or_default();
    let message_path = note(MESSAGE_PATH_ANNOTATION);
    let metadata = s.metadata.clone().unwrap_or_default();
    Container {
        sandbox_id,
        name: s
            .labels
            .get(CONTAINER_NAME_LABEL)
            .cloned()
            .unwrap_or(metadata.name),
        attempt: metadata.attempt,
        state,
        hash: note(HASH_ANNOTATION),
        created_at: time(s.created_at).unwrap_or_default(),
        started_at: time(s.started_at),
        finished_at: time(s.finished_at),
        exit_code: s.exit_code,
        image: s
            .image
            .map(|i| {
                if i.user_specified_image.is_empty() {
                    i.image
                } else {
                    i.user_specified_image
                }
            })
            .unwrap_or_default(),
        image_ref: s.image_ref,
        message_file: s
            .mounts
            .iter()
            .find(|m| m.container_path == message_path)
            .map(|m| m.host_path.clone()),
        message_from_log: note(MESSAGE_POLICY_ANNOTATION) == "FallbackToLogsOnError",
        grace_seconds: note(GRACE_ANNOTATION).parse().unwrap_or(30),
        reason: s.reason,
        message: s.message,
        log_path: s.log_path,
        id: s.id,
    }
}
