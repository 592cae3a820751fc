//! The Node object: registration, status, and the lease that says that the node lives.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use kontiki_api::catalogue::known;
use kontiki_api::object::{micro_time_text, time_text};
use kontiki_api::{ObjectMeta, Quantity};
use kontiki_base::{Backoff, Tasks, chain};
use kontiki_reconcile::{CallError, PatchKind};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::Config;
use crate::cri::v1 as cri;
use crate::machine::Machine;
use crate::manager::Manager;
use crate::pod::Condition;

/// How often the status is written although nothing has changed.
const STATUS_INTERVAL: Duration = Duration::from_secs(300);
/// How often it is looked whether something has changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// How often while the node is not ready yet.
const LOOK_INTERVAL_UNREADY: Duration = Duration::from_millis(100);
const RETRY_DELAY_INITIAL: Duration = Duration::from_millis(100);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(7);
const LEASE_SECONDS: u32 = 40;
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// The most images that the status names.
const IMAGES_MAX: usize = 50;

/// What is read of the Node object: what others own stays theirs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeView {
    metadata: ObjectMeta,
    status: NodeStatusView,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeStatusView {
    #[serde(deserialize_with = "kontiki_api::meta::null_is_default")]
    conditions: Vec<Condition>,
}

/// What was seen of the runtime.
#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    /// Why the node is not ready, if it is not.
    trouble: Option<String>,
    version: String,
    images: Vec<(Vec<String>, u64)>,
}

/// Starts to register, to tell the status and to renew the lease.
pub(crate) fn start(manager: &Manager, kubelet_port: u16, tasks: &Tasks) {
    let (m, token) = (manager.clone(), tasks.token().clone());
    tasks.spawn("node-status", async move {
        tokio::select! {
            () = token.cancelled() => {}
            () = keep_status(&m, kubelet_port) => {}
        }
    });
    let (m, token) = (manager.clone(), tasks.token().clone());
    tasks.spawn("node-lease", async move {
        tokio::select! {
            () = token.cancelled() => {}
            () = keep_lease(&m) => {}
        }
    });
}

fn labels(c: &Config, machine: &Machine) -> BTreeMap<String, String> {
    let arch = machine.architecture;
    let mut out: BTreeMap<String, String> = [
        ("kubernetes.io/hostname", c.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", arch),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into();
    out.extend(c.node_labels.iter().cloned());
    out
}

/// The node's status, but for its conditions.
fn status(c: &Config, machine: &Machine, seen: &Seen, kubelet_port: u16) -> Value {
    let disk = machine.disk_bytes;
    let resources = |cpu_millis: i64, memory_bytes: i64, disk: i64| {
        json!({
            "cpu": Quantity::from_millis(cpu_millis).to_string(),
            "memory": format!("{}Ki", memory_bytes / 1024),
            "ephemeral-storage": disk.to_string(),
            "pods": c.pods_max.to_string(),
            "hugepages-1Gi": "0",
            "hugepages-2Mi": "0",
        })
    };
    let images: Vec<Value> = seen
        .images
        .iter()
        .map(|(names, size)| json!({"names": names, "sizeBytes": size}))
        .collect();
    json!({
        "capacity": resources(i64::from(machine.cpus) * 1000, machine.memory_bytes, disk),
        // A tenth of the disk is kept for the system, as upstream's eviction threshold keeps it.
        "allocatable": resources(machine.allocatable_cpu_millis(c), machine.allocatable_memory_bytes(c), disk / 10 * 9),
        "addresses": [
            {"type": "InternalIP", "address": c.node_ip.to_string()},
            {"type": "Hostname", "address": c.node_name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet_port}},
        "nodeInfo": {
            "machineID": machine.machine_id,
            "systemUUID": machine.system_uuid,
            "bootID": machine.boot_id,
            "kernelVersion": machine.kernel,
            "osImage": machine.os_image,
            "containerRuntimeVersion": seen.version,
            "kubeletVersion": c.version,
            "kubeProxyVersion": c.version,
            "operatingSystem": "linux",
            "architecture": machine.architecture,
        },
        "images": images,
    })
}

fn conditions(before: &[Condition], trouble: Option<&str>, now: Timestamp) -> Vec<Condition> {
    let fine = |kind: &'static str, reason: &'static str, message: &'static str| {
        (kind, false, reason, message)
    };
    let ready = match trouble {
        None => (
            "Ready",
            true,
            "KubeletReady",
            "kubelet is posting ready status",
        ),
        Some(why) => ("Ready", false, "KubeletNotReady", why),
    };
    let ours = [
        fine(
            "MemoryPressure",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
        ),
        fine(
            "DiskPressure",
            "KubeletHasNoDiskPressure",
            "kubelet has no disk pressure",
        ),
        fine(
            "PIDPressure",
            "KubeletHasSufficientPID",
            "kubelet has sufficient PID available",
        ),
        ready,
    ];
    let now = time_text(now);
    let mut out: Vec<Condition> = ours
        .into_iter()
        .map(|(kind, on, reason, message)| {
            let status = if on { "True" } else { "False" };
            let same = before.iter().find(|c| c.kind == kind && c.status == status);
            Condition {
                kind: kind.to_owned(),
                status: status.to_owned(),
                last_heartbeat_time: Some(now.clone()),
                last_transition_time: same
                    .and_then(|c| c.last_transition_time.clone())
                    .or_else(|| Some(now.clone())),
                reason: Some(reason.to_owned()),
                message: Some(message.to_owned()),
                ..Condition::default()
            }
        })
        .collect();
    let others = before.iter().filter(|c| !ours_kind(&c.kind)).cloned();
    out.extend(others);
    out
}

fn ours_kind(kind: &str) -> bool {
    matches!(
        kind,
        "Ready" | "MemoryPressure" | "DiskPressure" | "PIDPressure"
    )
}

async fn look(manager: &Manager) -> Seen {
    let i = &manager.0;
    let mut seen = Seen::default();
    let trouble = match i
        .runtime
        .status(cri::StatusRequest { verbose: false })
        .await
    {
        Ok(answer) => {
            let conditions = answer.status.map(|s| s.conditions).unwrap_or_default();
            let bad = conditions.into_iter().find(|c| {
                !c.status && matches!(c.r#type.as_str(), "RuntimeReady" | "NetworkReady")
            });
            bad.map(|c| format!("container runtime {}: {} {}", c.r#type, c.reason, c.message))
        }
        Err(e) => Some(format!("container runtime is down: {}", chain(&e))),
    };
    seen.trouble = trouble;
    if let Ok(v) = i
        .runtime
        .version(cri::VersionRequest {
            version: "v1".into(),
        })
        .await
    {
        seen.version = format!("{}://{}", v.runtime_name, v.runtime_version);
    }
    if let Ok(list) = i
        .runtime
        .list_images(cri::ListImagesRequest::default())
        .await
    {
        seen.images = list
            .images
            .into_iter()
            .map(|image| {
                (
                    image
                        .repo_digests
                        .into_iter()
                        .chain(image.repo_tags)
                        .collect::<Vec<_>>(),
                    image.size,
                )
            })
            .filter(|(names, _)| !names.is_empty())
            .collect();
        seen.images
            .sort_by_key(|(names, size)| (std::cmp::Reverse(*size), names.clone()));
        seen.images.truncate(IMAGES_MAX);
    }
    seen
}

async fn keep_status(manager: &Manager, kubelet_port: u16) {
    let i = &manager.0;
    let mut backoff = Backoff::new(RETRY_DELAY_INITIAL, RETRY_DELAY_MAX);
    let mut told: Option<(Seen, tokio::time::Instant)> = None;
    loop {
        let seen = look(manager).await;
        let due = told
            .as_ref()
            .is_none_or(|(before, at)| *before != seen || at.elapsed() >= STATUS_INTERVAL);
        if due {
            if let Err(e) = tell(manager, &seen, kubelet_port).await {
                tracing::debug!(error = chain(&e), "the node's status could not be written");
                tokio::time::sleep(backoff.next_delay()).await;
                continue;
            }
            backoff.reset();
            if seen.trouble.is_none()
                && told
                    .as_ref()
                    .is_none_or(|(before, _)| before.trouble.is_some())
            {
                tracing::info!(node = i.config.node_name, "the node is ready");
                let about = crate::events::node(&i.config.node_name);
                i.recorder.normal(
                    about,
                    "NodeReady",
                    format!("Node {} status is now: NodeReady", i.config.node_name),
                );
            }
            told = Some((seen.clone(), tokio::time::Instant::now()));
        }
        tokio::time::sleep(if seen.trouble.is_some() {
            LOOK_INTERVAL_UNREADY
        } else {
            LOOK_INTERVAL
        })
        .await;
    }
}

async fn tell(manager: &Manager, seen: &Seen, kubelet_port: u16) -> Result<(), CallError> {
    let i = &manager.0;
    let (c, r) = (&i.config, known::nodes());
    let node = match i.client.get::<NodeView>(r, "", &c.node_name).await {
        Ok(n) => n,
        Err(e) if e.is_not_found() => {
            let taints: Vec<Value> = c
                .node_taints
                .iter()
                .map(|(key, value, effect)| json!({"key": key, "value": value, "effect": effect}))
                .collect();
            let annotations: BTreeMap<&String, &String> =
                c.node_annotations.iter().map(|(k, v)| (k, v)).collect();
            let mut object = json!({
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": c.node_name, "labels": labels(c, &i.machine), "annotations": annotations},
                "spec": {},
            });
            if !taints.is_empty() {
                object["spec"]["taints"] = taints.into();
            }
            match i.client.create(r, "", &object).await {
                Ok(_) => tracing::info!(node = c.node_name, "the node is registered"),
                Err(e) if e.is_already_exists() => {}
                Err(e) => return Err(e),
            }
            i.client.get::<NodeView>(r, "", &c.node_name).await?
        }
        Err(e) => return Err(e),
    };
    let missing: BTreeMap<String, String> = labels(c, &i.machine)
        .into_iter()
        .filter(|(k, v)| node.metadata.labels.get(k) != Some(v))
        .collect();
    let mut revision = node.metadata.resource_version.clone();
    if !missing.is_empty() {
        let patch = json!({"metadata": {"labels": missing}});
        let answer = i
            .client
            .patch(r, ("", &c.node_name), "", PatchKind::Merge, &patch)
            .await?;
        kontiki_api::object::text(&answer, &["metadata", "resourceVersion"])
            .clone_into(&mut revision);
    }
    let mut status = status(c, &i.machine, seen, kubelet_port);
    status["conditions"] = json!(conditions(
        &node.status.conditions,
        seen.trouble.as_deref(),
        i.clock.now()
    ));
    // The conditions hold those of others as they were read, hence the resourceVersion.
    let patch = json!({"metadata": {"resourceVersion": revision}, "status": status});
    i.client
        .patch(r, ("", &c.node_name), "status", PatchKind::Merge, &patch)
        .await
        .map(drop)
}

async fn keep_lease(manager: &Manager) {
    let mut backoff = Backoff::new(RETRY_DELAY_INITIAL, RETRY_DELAY_MAX);
    loop {
        match renew(manager).await {
            Ok(()) => {
                backoff.reset();
                tokio::time::sleep(manager.0.config.lease_renew_interval).await;
            }
            Err(e) => {
                tracing::debug!(error = chain(&e), "the node's lease could not be renewed");
                tokio::time::sleep(backoff.next_delay()).await;
            }
        }
    }
}

async fn renew(manager: &Manager) -> Result<(), CallError> {
    let i = &manager.0;
    let (name, r) = (i.config.node_name.as_str(), known::leases());
    let spec = json!({
        "holderIdentity": name,
        "leaseDurationSeconds": LEASE_SECONDS,
        "renewTime": micro_time_text(i.clock.now()),
    });
    let patch = json!({"spec": spec});
    match i
        .client
        .patch(r, (LEASE_NAMESPACE, name), "", PatchKind::Merge, &patch)
        .await
    {
        Err(e) if e.is_not_found() => {}
        other => return other.map(drop),
    }
    // Owned by the node, so that it goes with it.
    let node = i.client.get::<NodeView>(known::nodes(), "", name).await?;
    let object = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": LEASE_NAMESPACE, "ownerReferences": [
            {"apiVersion": "v1", "kind": "Node", "name": name, "uid": node.metadata.uid}]},
        "spec": spec,
    });
    match i.client.create(r, LEASE_NAMESPACE, &object).await {
        Err(e) if e.is_already_exists() => Ok(()),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn conditions_keep_their_times_and_those_of_others() {
        let t = |s| Timestamp::from_second(s).expect("in range");
        let first = conditions(&[], Some("no network"), t(100));
        let ready = |of: &[Condition]| {
            of.iter()
                .find(|c| c.kind == "Ready")
                .cloned()
                .expect("there")
        };
        assert_eq!(
            (
                ready(&first).status.as_str(),
                ready(&first).message.as_deref()
            ),
            ("False", Some("no network"))
        );
        let other = Condition {
            kind: "NetworkUnavailable".into(),
            status: "False".into(),
            ..Condition::default()
        };
        let before: Vec<Condition> = first.into_iter().chain([other.clone()]).collect();
        let second = conditions(&before, None, t(200));
        assert_eq!(
            ready(&second).last_transition_time.as_deref(),
            Some("1970-01-01T00:03:20Z")
        );
        let third = conditions(&second, None, t(300));
        assert_eq!(
            ready(&third).last_transition_time,
            ready(&second).last_transition_time
        );
        assert_eq!(third.last(), Some(&other));
    }

    #[test]
    fn the_status_tells_what_pods_may_use() {
        let mut c = testing::config();
        (c.reserved_cpu_millis, c.reserved_memory_bytes) = (100, 1 << 20);
        let m = Machine {
            cpus: 2,
            memory_bytes: 3 << 20,
            disk_bytes: 1000,
            ..Machine::default()
        };
        let s = status(&c, &m, &Seen::default(), 10250);
        assert_eq!(
            (&s["capacity"]["cpu"], &s["allocatable"]["cpu"]),
            (&json!("2"), &json!("1900m"))
        );
        assert_eq!(
            (&s["capacity"]["memory"], &s["allocatable"]["memory"]),
            (&json!("3072Ki"), &json!("2048Ki"))
        );
        assert_eq!(s["allocatable"]["pods"], "110");
    }
}
