//! The status of a pod, worked out from what the runtime has of it: a pure function.

use std::collections::HashMap;

use jiff::Timestamp;
use kontiki_api::object::time_text;
use serde_json::{Map, Value, json};

use crate::observed::{Container as Seen, Observed, State};
use crate::plan::Health;
use crate::pod::{Condition, Container, Pod, Qos, RestartPolicy};

/// Why a container does not run yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// In one word.
    pub reason: String,
    /// In a sentence.
    pub message: String,
}

/// Why the kubelet ended a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// In one word.
    pub reason: String,
    /// In a sentence.
    pub message: String,
}

/// All that a status rests on.
#[derive(Debug)]
pub struct Input<'a> {
    /// The pod, with the status that was last written.
    pub pod: &'a Pod,
    /// What the runtime has.
    pub observed: &'a Observed,
    /// What the probes say, by container id.
    pub health: &'a HashMap<String, Health>,
    /// Why containers wait, by name.
    pub waiting: &'a HashMap<String, Waiting>,
    /// Until when crashed containers wait, by name.
    pub crash_until: &'a HashMap<String, Timestamp>,
    /// The last words of ended containers, by id.
    pub messages: &'a HashMap<String, String>,
    /// Why the kubelet ended the pod, if it did.
    pub ended: Option<&'a Ended>,
    /// The node's address.
    pub host_ip: &'a str,
    /// Now.
    pub now: Timestamp,
}

/// The new status.
pub fn compute(i: &Input<'_>) -> Value {
    let spec = &i.pod.spec;
    let init: Vec<Value> = spec
        .init_containers
        .iter()
        .enumerate()
        .map(|(n, c)| container_status(i, c, Some(n)))
        .collect();
    let main: Vec<Value> = spec
        .containers
        .iter()
        .map(|c| container_status(i, c, None))
        .collect();
    let phase = phase(i);
    let mut s = Map::new();
    s.insert("phase".into(), phase.into());
    s.insert("qosClass".into(), Qos::of(i.pod).as_str().into());
    s.insert(
        "observedGeneration".into(),
        i.pod.metadata.generation.into(),
    );
    let start = i
        .pod
        .status
        .start_time
        .clone()
        .unwrap_or_else(|| time_text(i.now));
    s.insert("startTime".into(), start.into());
    s.insert("hostIP".into(), i.host_ip.into());
    s.insert("hostIPs".into(), json!([{"ip": i.host_ip}]));
    let ips: Vec<String> = if spec.host_network && !i.observed.sandboxes.is_empty() {
        vec![i.host_ip.to_owned()]
    } else {
        i.observed.ips().to_vec()
    };
    // The addresses of a pod that has ended stay as they were: its sandbox no longer tells.
    if let Some(first) = ips.first() {
        s.insert("podIP".into(), first.as_str().into());
        s.insert(
            "podIPs".into(),
            ips.iter().map(|ip| json!({"ip": ip})).collect(),
        );
    }
    s.insert(
        "conditions".into(),
        json!(conditions(i, phase, &init, &main)),
    );
    if !init.is_empty() {
        s.insert("initContainerStatuses".into(), init.into());
    }
    s.insert("containerStatuses".into(), main.into());
    let (reason, message) = match i.ended {
        Some(e) => (
            Value::from(e.reason.as_str()),
            Value::from(e.message.as_str()),
        ),
        None => (
            i.pod.status.reason.clone().into(),
            i.pod.status.message.clone().into(),
        ),
    };
    for (k, v) in [("reason", reason), ("message", message)] {
        if !v.is_null() {
            s.insert(k.into(), v);
        }
    }
    Value::Object(s)
}

fn phase(i: &Input<'_>) -> &'static str {
    match i.pod.status.phase.as_deref() {
        Some("Failed") => return "Failed",
        Some("Succeeded") => return "Succeeded",
        _ => {}
    }
    let quiet = i.observed.running().next().is_none();
    if i.ended.is_some() && quiet {
        return "Failed";
    }
    let spec = &i.pod.spec;
    let latest: Vec<Option<&Seen>> = spec
        .containers
        .iter()
        .map(|c| i.observed.latest(&c.name))
        .collect();
    let ended_for_good = |c: &Seen| {
        c.state == State::Exited
            && match spec.restart_policy {
                RestartPolicy::Always => i.pod.metadata.is_deleting(),
                RestartPolicy::OnFailure => c.exit_code == 0 || i.pod.metadata.is_deleting(),
                RestartPolicy::Never => true,
            }
    };
    let init_failed = spec.restart_policy == RestartPolicy::Never
        && spec
            .init_containers
            .iter()
            .filter(|c| !c.is_sidecar())
            .any(|c| {
                i.observed
                    .latest(&c.name)
                    .is_some_and(|s| s.state == State::Exited && s.exit_code != 0)
            });
    if init_failed && quiet {
        return "Failed";
    }
    let all: Vec<&Seen> = latest.iter().flatten().copied().collect();
    let started = |c: &&&Seen| c.state != State::Created;
    if !latest.is_empty() && all.len() == latest.len() && all.iter().all(|c| ended_for_good(c)) {
        // A pod counts as ended only when its sidecars have ended too.
        if !quiet {
            return "Running";
        }
        return if all.iter().all(|c| c.exit_code == 0) {
            "Succeeded"
        } else {
            "Failed"
        };
    }
    let all_started = !latest.is_empty() && all.iter().filter(started).count() == latest.len();
    let was_running = i.pod.status.phase.as_deref() == Some("Running");
    if all_started || was_running {
        "Running"
    } else {
        "Pending"
    }
}

fn running(c: &Seen) -> Value {
    json!({"running": {"startedAt": time_text(c.started_at.unwrap_or(c.created_at))}})
}

fn terminated(i: &Input<'_>, c: &Seen) -> Value {
    let reason = match (c.reason.as_str(), c.exit_code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (r, _) => r,
    };
    let mut t = json!({
        "exitCode": c.exit_code,
        "reason": reason,
        "startedAt": c.started_at.map(time_text),
        "finishedAt": c.finished_at.map(time_text),
        "containerID": runtime_id(&c.id),
    });
    let message = i
        .messages
        .get(&c.id)
        .filter(|m| !m.is_empty())
        .cloned()
        .unwrap_or_else(|| c.message.clone());
    if !message.is_empty() {
        t["message"] = message.into();
    }
    json!({"terminated": t})
}

fn runtime_id(id: &str) -> String {
    format!("containerd://{id}")
}

fn waiting(i: &Input<'_>, c: &Container, init_index: Option<usize>) -> Value {
    if let Some(w) = i.waiting.get(&c.name) {
        let mut v = json!({"reason": w.reason});
        if !w.message.is_empty() {
            v["message"] = w.message.as_str().into();
        }
        return json!({"waiting": v});
    }
    // Main containers wait for the init containers; all wait for volumes and network.
    let has_init = init_index.is_none() && !i.pod.spec.init_containers.is_empty();
    let reason = if has_init || init_index.is_some_and(|_| i.observed.ready_sandbox().is_some()) {
        "PodInitializing"
    } else {
        "ContainerCreating"
    };
    json!({"waiting": {"reason": reason}})
}

fn container_status(i: &Input<'_>, c: &Container, init_index: Option<usize>) -> Value {
    let seen = i
        .observed
        .latest(&c.name)
        .filter(|s| s.state != State::Created);
    let before = seen.and_then(|s| {
        i.observed
            .containers
            .iter()
            .find(|o| o.name == c.name && o.attempt < s.attempt && o.state == State::Exited)
    });
    let written = i
        .pod
        .status
        .container_statuses
        .iter()
        .chain(&i.pod.status.init_container_statuses);
    let written = written.into_iter().find(|s| s.name == c.name);
    let crash = i.crash_until.get(&c.name).filter(|until| **until > i.now);
    let mut last = before.map_or_else(|| json!({}), |b| terminated(i, b));
    let health = seen
        .and_then(|s| i.health.get(&s.id))
        .cloned()
        .unwrap_or_default();
    let mut state = match seen {
        None => waiting(i, c, init_index),
        Some(s) if s.state == State::Running => running(s),
        Some(s) if s.state == State::Unknown => json!({"terminated": {
            "exitCode": 137, "reason": "ContainerStatusUnknown", "containerID": runtime_id(&s.id),
            "message": "The container could not be located when the pod was terminated",
        }}),
        Some(s) => terminated(i, s),
    };
    // What will be started again waits, and its end is its last state.
    if let Some(s) = seen.filter(|s| s.state == State::Exited) {
        if crash.is_some() {
            let until = crash.map_or(0, |u| {
                u.duration_since(s.finished_at.unwrap_or(i.now)).as_secs()
            });
            last = state;
            state = json!({"waiting": {
                "reason": "CrashLoopBackOff",
                "message": format!("back-off {until}s restarting failed container={} pod={}_{}({})",
                    c.name, i.pod.metadata.name, i.pod.metadata.namespace, i.pod.metadata.uid),
            }});
        } else if i.waiting.contains_key(&c.name) {
            last = state;
            state = waiting(i, c, init_index);
        }
    }
    if last.as_object().is_none_or(Map::is_empty)
        && let Some(w) = written
        && w.last_state.as_object().is_some_and(|l| !l.is_empty())
        && seen.is_none_or(|s| w.restart_count == s.attempt)
    {
        last = w.last_state.clone();
    }
    let is_running = seen.is_some_and(|s| s.state == State::Running);
    let exited_well = seen.is_some_and(|s| s.state == State::Exited && s.exit_code == 0);
    let plain_init = init_index.is_some() && !c.is_sidecar();
    let ready = if plain_init {
        exited_well
    } else {
        is_running && health.started && health.ready
    };
    let mut out = json!({
        "name": c.name,
        "image": seen.map(|s| s.image.as_str()).filter(|s| !s.is_empty()).unwrap_or(&c.image),
        "imageID": seen.map(|s| s.image_ref.as_str()).unwrap_or_default(),
        "ready": ready,
        "started": is_running && (plain_init || health.started),
        "restartCount": seen.map_or_else(|| written.map_or(0, |w| w.restart_count), |s| s.attempt),
        "state": state,
        "lastState": last,
    });
    if let Some(s) = seen {
        out["containerID"] = runtime_id(&s.id).into();
    }
    out
}

fn conditions(i: &Input<'_>, phase: &str, init: &[Value], main: &[Value]) -> Vec<Condition> {
    let spec = &i.pod.spec;
    let done = matches!(phase, "Succeeded" | "Failed");
    let names_unready = |of: &[Value], ready: &dyn Fn(&Value) -> bool| -> Vec<String> {
        of.iter()
            .filter(|s| !ready(s))
            .map(|s| kontiki_api::object::text(s, &["name"]).to_owned())
            .collect()
    };
    let is_ready = |s: &Value| s["ready"].as_bool().unwrap_or(false);
    let initialized = |s: &Value| {
        let sidecar = spec
            .init_containers
            .iter()
            .any(|c| s["name"] == c.name.as_str() && c.is_sidecar());
        if sidecar {
            s["started"].as_bool().unwrap_or(false)
        } else {
            is_ready(s)
        }
    };
    let listed = |names: &[String]| format!("[{}]", names.join(" "));
    let mut out = Vec::new();
    let mut add = |kind: &str, ok: bool, reason: Option<&str>, message: Option<String>| {
        let reason = if ok && !done {
            None
        } else {
            reason.map(str::to_owned)
        };
        let message = if ok { None } else { message };
        out.push(condition(i, kind, ok, reason, message));
    };
    let has_sandbox = i.observed.ready_sandbox().is_some();
    add(
        "PodReadyToStartContainers",
        has_sandbox && !done,
        None,
        None,
    );
    let uninit = names_unready(init, &initialized);
    // Once the main containers were started, init containers may be gone.
    let main_started = spec.containers.iter().any(|c| {
        i.observed
            .latest(&c.name)
            .is_some_and(|s| s.state != State::Created)
    });
    let init_ok = uninit.is_empty() || phase == "Succeeded" || main_started;
    let message = format!("containers with incomplete status: {}", listed(&uninit));
    let reason = if init_ok {
        (phase == "Succeeded").then_some("PodCompleted")
    } else {
        Some("ContainersNotInitialized")
    };
    add("Initialized", init_ok, reason, Some(message));
    let unready = names_unready(main, &is_ready);
    let sidecars_unready = names_unready(init, &|s: &Value| {
        let sidecar = spec
            .init_containers
            .iter()
            .any(|c| s["name"] == c.name.as_str() && c.is_sidecar());
        !sidecar || is_ready(s)
    });
    let all_unready: Vec<String> = sidecars_unready.into_iter().chain(unready).collect();
    let containers_ready = all_unready.is_empty() && phase == "Running";
    let reason = match phase {
        "Succeeded" => "PodCompleted",
        "Failed" => "PodFailed",
        _ => "ContainersNotReady",
    };
    let text = |names: &[String]| format!("containers with unready status: {}", listed(names));
    let message = (!done).then(|| text(&all_unready));
    let gates: Vec<&str> = spec
        .readiness_gates
        .iter()
        .map(|g| g.condition_type.as_str())
        .filter(|g| {
            !i.pod
                .status
                .conditions
                .iter()
                .any(|c| c.kind == *g && c.status == "True")
        })
        .collect();
    let ready = containers_ready && gates.is_empty();
    let (ready_reason, ready_message) = if containers_ready && !ready {
        let missing = gates.iter().map(|g| format!("corresponding condition of pod readiness gate \"{g}\" does not exist or is not True."));
        (
            "ReadinessGatesNotReady",
            Some(missing.collect::<Vec<_>>().join(", ")),
        )
    } else {
        (reason, message.clone())
    };
    add("Ready", ready, Some(ready_reason), ready_message);
    add("ContainersReady", containers_ready, Some(reason), message);
    add("PodScheduled", true, None, None);
    // Conditions of others stay as they are.
    let ours: Vec<String> = out.iter().map(|c: &Condition| c.kind.clone()).collect();
    out.extend(
        i.pod
            .status
            .conditions
            .iter()
            .filter(|c| !ours.contains(&c.kind))
            .cloned(),
    );
    out
}

fn condition(
    i: &Input<'_>,
    kind: &str,
    ok: bool,
    reason: Option<String>,
    message: Option<String>,
) -> Condition {
    let status = if ok { "True" } else { "False" };
    let before = i.pod.status.conditions.iter().find(|c| c.kind == kind);
    let since = before
        .filter(|c| c.status == status)
        .and_then(|c| c.last_transition_time.clone());
    Condition {
        kind: kind.to_owned(),
        status: status.to_owned(),
        observed_generation: Some(i.pod.metadata.generation).filter(|g| *g > 0),
        last_heartbeat_time: None,
        last_probe_time: None,
        last_transition_time: since.or_else(|| Some(time_text(i.now))),
        reason,
        message,
    }
}

#[cfg(test)]
mod tests;
