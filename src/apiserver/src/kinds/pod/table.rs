//! How `kubectl get pods` shows a pod.

use jiff::Timestamp;
use kontiki_api::object::{get, int, list, name, text};
use serde_json::Value;

use crate::kinds::columns::{AGE, NAME, age, human_duration, or_none, string, wide};
use crate::strategy::Column;

pub(super) static COLUMNS: [Column; 9] = [
    NAME,
    string(
        "Ready",
        "The aggregate readiness state of this pod for accepting traffic.",
    ),
    string(
        "Status",
        "The aggregate status of the containers in this pod.",
    ),
    string(
        "Restarts",
        "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
    ),
    AGE,
    wide(
        "IP",
        "podIP address allocated to the pod. Routable at least within the cluster. Empty if not yet allocated.",
    ),
    wide(
        "Node",
        "NodeName indicates in which node this pod is scheduled. If empty, this pod is a candidate for scheduling by the scheduler defined in schedulerName. Once this field is set, the kubelet for this node becomes responsible for the lifecycle of this pod. This field should not be used to express a desire for the pod to be scheduled on a specific node. https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#nodename",
    ),
    wide(
        "Nominated Node",
        "nominatedNodeName is set only when this pod preempts other pods on the node, but it cannot be scheduled right away as preemption victims receive their graceful termination periods. This field does not guarantee that the pod will be scheduled on this node. Scheduler may decide to place the pod elsewhere if other nodes become available sooner. Scheduler may also decide to give the resources on this node to a higher priority pod that is created after preemption. As a result, this field may be different than PodSpec.nodeName when the pod is scheduled.",
    ),
    wide(
        "Readiness Gates",
        "If specified, all readiness gates will be evaluated for pod readiness. A pod is ready when all its containers are ready AND all conditions specified in the readiness gates have status equal to \"True\" More info: https://git.k8s.io/enhancements/keps/sig-network/580-pod-readiness-gates",
    ),
];

/// What the containers of a pod add up to.
struct Summary {
    reason: String,
    ready: usize,
    restarts: Restarts,
}

/// How often containers were restarted, and when the last of them was.
#[derive(Clone, Copy, Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += int(status, &["restartCount"]).unwrap_or_default();
        let ended = text(status, &["lastState", "terminated", "finishedAt"])
            .parse()
            .ok();
        self.last = self.last.max(ended);
    }
}

/// The cells of a pod.
pub(super) fn row(pod: &Value, now: Timestamp) -> Vec<Value> {
    let init = list(pod, &["spec", "initContainers"]);
    let total =
        list(pod, &["spec", "containers"]).len() + init.iter().filter(|c| is_sidecar(c)).count();
    let s = summary(pod, init);
    let restarts = match s.restarts.last {
        Some(t) => format!(
            "{} ({} ago)",
            s.restarts.count,
            human_duration(now.as_second() - t.as_second())
        ),
        None => s.restarts.count.to_string(),
    };
    vec![
        name(pod).into(),
        format!("{}/{total}", s.ready).into(),
        s.reason.into(),
        restarts.into(),
        age(pod, now),
        or_none(text(pod, &["status", "podIP"])),
        or_none(text(pod, &["spec", "nodeName"])),
        or_none(text(pod, &["status", "nominatedNodeName"])),
        gates(pod),
    ]
}

fn is_sidecar(c: &Value) -> bool {
    text(c, &["restartPolicy"]) == "Always"
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    list(pod, &["status", "conditions"])
        .iter()
        .find(|c| text(c, &["type"]) == kind)
}

fn is_true(pod: &Value, kind: &str) -> bool {
    condition(pod, kind).is_some_and(|c| text(c, &["status"]) == "True")
}

fn gates(pod: &Value) -> Value {
    let all = list(pod, &["spec", "readinessGates"]);
    if all.is_empty() {
        return "<none>".into();
    }
    let met = all
        .iter()
        .filter(|g| is_true(pod, text(g, &["conditionType"])))
        .count();
    format!("{met}/{}", all.len()).into()
}

fn summary(pod: &Value, init: &[Value]) -> Summary {
    let status_reason = text(pod, &["status", "reason"]);
    let phase = text(pod, &["status", "phase"]);
    let mut reason = if status_reason.is_empty() {
        phase
    } else {
        status_reason
    }
    .to_owned();
    if condition(pod, "PodScheduled").is_some_and(|c| text(c, &["reason"]) == "SchedulingGated") {
        reason = "SchedulingGated".into();
    }
    let (mut all, mut sidecars, mut ready) = (Restarts::default(), Restarts::default(), 0);
    let mut initializing = None;
    for (i, s) in list(pod, &["status", "initContainerStatuses"])
        .iter()
        .enumerate()
    {
        all.add(s);
        let sidecar = init
            .iter()
            .any(|c| text(c, &["name"]) == text(s, &["name"]) && is_sidecar(c));
        if sidecar {
            sidecars.add(s);
        }
        match init_state(s, i, init.len(), sidecar) {
            Init::Done => {}
            Init::Running { is_ready } => ready += usize::from(is_ready),
            Init::Waiting(r) => {
                initializing = Some(r);
                break;
            }
        }
    }
    let is_initializing = initializing.is_some();
    if let Some(r) = initializing {
        reason = r;
    }
    if !is_initializing || is_true(pod, "Initialized") {
        all = sidecars;
        let mut running = false;
        for s in list(pod, &["status", "containerStatuses"]).iter().rev() {
            all.add(s);
            match container_reason(s) {
                Some(r) => reason = r,
                None if s.get("ready") == Some(&Value::Bool(true))
                    && get(s, &["state", "running"]).is_some() =>
                {
                    running = true;
                    ready += 1;
                }
                None => {}
            }
        }
        if reason == "Completed" && running {
            // One container has ended, but another still runs.
            reason = if is_true(pod, "Ready") {
                "Running"
            } else {
                "NotReady"
            }
            .into();
        }
    }
    if get(pod, &["metadata", "deletionTimestamp"]).is_some() {
        if status_reason == "NodeLost" {
            reason = "Unknown".into();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            reason = "Terminating".into();
        }
    }
    Summary {
        reason,
        ready,
        restarts: all,
    }
}

/// How far an init container has come.
enum Init {
    Done,
    Running { is_ready: bool },
    Waiting(String),
}

fn init_state(s: &Value, index: usize, total: usize, sidecar: bool) -> Init {
    let ended = get(s, &["state", "terminated"]);
    if ended.is_some_and(|t| int(t, &["exitCode"]).unwrap_or_default() == 0) {
        return Init::Done;
    }
    if sidecar && s.get("started") == Some(&Value::Bool(true)) {
        return Init::Running {
            is_ready: s.get("ready") == Some(&Value::Bool(true)),
        };
    }
    let waiting = text(s, &["state", "waiting", "reason"]);
    Init::Waiting(match ended {
        Some(t) => format!("Init:{}", exit(t)),
        None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
        None => format!("Init:{index}/{total}"),
    })
}

/// Why a container waits or has ended.
fn container_reason(s: &Value) -> Option<String> {
    let waiting = text(s, &["state", "waiting", "reason"]);
    if !waiting.is_empty() {
        return Some(waiting.to_owned());
    }
    get(s, &["state", "terminated"]).map(exit)
}

fn exit(terminated: &Value) -> String {
    let reason = text(terminated, &["reason"]);
    if !reason.is_empty() {
        return reason.to_owned();
    }
    match int(terminated, &["signal"]).unwrap_or_default() {
        0 => format!(
            "ExitCode:{}",
            int(terminated, &["exitCode"]).unwrap_or_default()
        ),
        signal => format!("Signal:{signal}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cells(status: Value, deleted: bool) -> (String, String, String) {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}],
            "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]}, "status": status});
        if deleted {
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        let row = row(&pod, "2026-01-01T00:10:00Z".parse().expect("a time"));
        let text = |i: usize| row[i].as_str().expect("text").to_owned();
        (text(1), text(2), text(3))
    }

    fn is(status: Value, want: (&str, &str, &str)) {
        let got = cells(status, false);
        assert_eq!((got.0.as_str(), got.1.as_str(), got.2.as_str()), want);
    }

    #[test]
    fn the_status_is_the_most_telling_reason() {
        let running = json!({"ready": true, "restartCount": 1, "state": {"running": {}}});
        is(json!({"phase": "Pending"}), ("0/3", "Pending", "0"));
        is(
            json!({"phase": "Running", "containerStatuses": [running, running]}),
            ("2/3", "Running", "2"),
        );
        is(
            json!({"phase": "Running", "containerStatuses": [running, {"restartCount": 3, "state": {"waiting":
                {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"finishedAt": "2026-01-01T00:09:00Z"}}}]}),
            ("1/3", "CrashLoopBackOff", "4 (60s ago)"),
        );
        is(
            json!({"phase": "Running", "containerStatuses": [{"state": {"terminated": {"reason": "Completed"}}}, running]}),
            ("1/3", "NotReady", "1"),
        );
        is(
            json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 1}}}]}),
            ("0/3", "ExitCode:1", "0"),
        );
        is(
            json!({"phase": "Failed", "reason": "Evicted"}),
            ("0/3", "Evicted", "0"),
        );
    }

    #[test]
    fn init_containers_come_first() {
        let done = json!({"name": "i", "state": {"terminated": {"exitCode": 0}}});
        is(
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}),
            ("0/3", "Init:0/2", "0"),
        );
        is(
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 2, "signal": 9}}}]}),
            ("0/3", "Init:Signal:9", "0"),
        );
        let side = json!({"name": "s", "started": true, "ready": true, "restartCount": 1, "state": {"running": {}}});
        is(
            json!({"phase": "Running", "initContainerStatuses": [done, side]}),
            ("1/3", "Running", "1"),
        );
    }

    #[test]
    fn a_deleted_one_is_terminating() {
        assert_eq!(cells(json!({"phase": "Running"}), true).1, "Terminating");
        assert_eq!(cells(json!({"phase": "Failed"}), true).1, "Failed");
        assert_eq!(
            cells(json!({"phase": "Running", "reason": "NodeLost"}), true).1,
            "Unknown"
        );
    }
}
