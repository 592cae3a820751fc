//! What pods and the machine use, and which pods there are: as the runtime and the kernel say it, and nothing more.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use kontiki_api::ApiError;
use serde_json::{Value, json};

use super::respond::runtime_error;
use crate::cri::{Runtime, v1 as cri};
use crate::pod::{ContainerStatusView, Pod};
use crate::sandbox::{CONTAINER_NAME_LABEL, POD_NAME_LABEL, POD_NAMESPACE_LABEL, POD_UID_LABEL};

/// The unit of `/proc/stat` as the kernel shows it to programs, on every architecture.
const TICKS_PER_SECOND: u64 = 100;

fn container_status(s: &ContainerStatusView) -> Value {
    json!({
        "name": s.name, "restartCount": s.restart_count, "ready": s.ready, "started": s.started,
        "containerID": s.container_id, "state": s.state, "lastState": s.last_state,
    })
}

/// The pods of this node, with the fields that the node reads.
pub(super) fn pod_list(pods: &[Arc<Pod>]) -> Value {
    let item = |p: &Arc<Pod>| {
        let containers = |list: &[crate::pod::Container]| -> Vec<Value> {
            list.iter()
                .map(|c| json!({"name": c.name, "image": c.image}))
                .collect()
        };
        let statuses =
            |list: &[ContainerStatusView]| list.iter().map(container_status).collect::<Vec<_>>();
        let mut spec =
            json!({"nodeName": p.spec.node_name, "containers": containers(&p.spec.containers)});
        if !p.spec.init_containers.is_empty() {
            spec["initContainers"] = containers(&p.spec.init_containers).into();
        }
        json!({
            "metadata": p.metadata,
            "spec": spec,
            "status": {
                "phase": p.status.phase, "podIP": p.status.pod_ip, "startTime": p.status.start_time,
                "conditions": p.status.conditions,
                "containerStatuses": statuses(&p.status.container_statuses),
                "initContainerStatuses": statuses(&p.status.init_container_statuses),
            },
        })
    };
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods.iter().map(item).collect::<Vec<_>>()})
}

/// The pods that the runtime has something running of.
pub(super) async fn running_pods(runtime: &Runtime) -> Result<Value, ApiError> {
    let all = runtime
        .list_containers(cri::ListContainersRequest::default())
        .await
        .map_err(|e| runtime_error(&e))?;
    let mut pods: BTreeMap<[String; 3], Vec<Value>> = BTreeMap::new();
    for c in all
        .containers
        .iter()
        .filter(|c| c.state() == cri::ContainerState::ContainerRunning)
    {
        let image = c.image.as_ref().map_or("", |i| i.image.as_str());
        let label = |k: &str| c.labels.get(k).cloned().unwrap_or_default();
        let pod = [
            label(POD_NAMESPACE_LABEL),
            label(POD_NAME_LABEL),
            label(POD_UID_LABEL),
        ];
        pods.entry(pod)
            .or_default()
            .push(json!({"name": label(CONTAINER_NAME_LABEL), "image": image, "resources": {}}));
    }
    let item = |([namespace, name, uid], containers): ([String; 3], Vec<Value>)| {
        json!({
            "metadata": {"name": name, "namespace": namespace, "uid": uid, "creationTimestamp": null},
            "spec": {"containers": containers}, "status": {},
        })
    };
    let items: Vec<Value> = pods.into_iter().map(item).collect();
    Ok(json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

/// What a container uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    namespace: String,
    pod: String,
    uid: String,
    container: String,
    started_nanos: i64,
    measured_nanos: i64,
    cpu_nanos: Option<u64>,
    cpu_nano_cores: Option<u64>,
    working_set_bytes: Option<u64>,
    usage_bytes: Option<u64>,
    rss_bytes: Option<u64>,
    rootfs_bytes: Option<u64>,
    rootfs_inodes: Option<u64>,
}

fn usage_of(stats: cri::ContainerStats, started_nanos: i64) -> Option<Usage> {
    let attributes = stats.attributes?;
    let label = |k: &str| attributes.labels.get(k).cloned().unwrap_or_default();
    let value = |v: Option<cri::UInt64Value>| v.map(|v| v.value);
    let (cpu, memory, rootfs) = (
        stats.cpu?,
        stats.memory?,
        stats.writable_layer.unwrap_or_default(),
    );
    Some(Usage {
        namespace: label(POD_NAMESPACE_LABEL),
        pod: label(POD_NAME_LABEL),
        uid: label(POD_UID_LABEL),
        container: label(CONTAINER_NAME_LABEL),
        started_nanos,
        measured_nanos: cpu.timestamp,
        cpu_nanos: value(cpu.usage_core_nano_seconds),
        cpu_nano_cores: value(cpu.usage_nano_cores),
        working_set_bytes: value(memory.working_set_bytes),
        usage_bytes: value(memory.usage_bytes),
        rss_bytes: value(memory.rss_bytes),
        rootfs_bytes: value(rootfs.used_bytes),
        rootfs_inodes: value(rootfs.inodes_used),
    })
}

/// The usage of all containers that run, by pod.
pub(super) async fn usage(runtime: &Runtime) -> Result<Vec<Usage>, ApiError> {
    let stats = runtime.list_container_stats(cri::ListContainerStatsRequest::default());
    let containers = runtime.list_containers(cri::ListContainersRequest::default());
    let (stats, containers) = tokio::try_join!(stats, containers).map_err(|e| runtime_error(&e))?;
    let made: BTreeMap<String, i64> = containers
        .containers
        .into_iter()
        .map(|c| (c.id, c.created_at))
        .collect();
    let mut all: Vec<Usage> = stats
        .stats
        .into_iter()
        .filter_map(|s| {
            let started = made.get(&s.attributes.as_ref()?.id).copied()?;
            usage_of(s, started)
        })
        .collect();
    all.sort_by(|a, b| {
        (&a.namespace, &a.pod, &a.uid, &a.container).cmp(&(
            &b.namespace,
            &b.pod,
            &b.uid,
            &b.container,
        ))
    });
    Ok(all)
}

/// What the machine uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    measured_nanos: i64,
    booted_nanos: i64,
    cpu_nanos: u64,
    memory_bytes: u64,
    available_bytes: u64,
    fs_bytes: u64,
    fs_available_bytes: u64,
    fs_inodes: u64,
    fs_inodes_free: u64,
}

/// The value of a line such as `MemTotal:  16 kB`, or of `btime 123`.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|l| l.strip_prefix(name));
    line.and_then(|l| l.split_whitespace().next())
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}

impl Node {
    /// Measures the machine, and the file system of this directory.
    pub(super) fn read(root_dir: &Path) -> Node {
        let file = |p: &str| std::fs::read_to_string(p).unwrap_or_default();
        let now = i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
        let mut node = Node {
            measured_nanos: now,
            ..Node::of(&file("/proc/stat"), &file("/proc/meminfo"))
        };
        if let Ok(fs) = rustix::fs::statvfs(root_dir) {
            node.fs_bytes = fs.f_blocks * fs.f_frsize;
            node.fs_available_bytes = fs.f_bavail * fs.f_frsize;
            (node.fs_inodes, node.fs_inodes_free) = (fs.f_files, fs.f_ffree);
        }
        node
    }

    fn of(stat: &str, meminfo: &str) -> Node {
        // user nice system idle iowait irq softirq steal: all but the two in which nothing is done.
        let cpu = stat
            .lines()
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(1)
            .take(8);
        let busy = cpu
            .enumerate()
            .filter(|(i, _)| !matches!(i, 3 | 4))
            .filter_map(|(_, n)| n.parse::<u64>().ok());
        Node {
            booted_nanos: i64::try_from(field(stat, "btime "))
                .unwrap_or(0)
                .saturating_mul(1_000_000_000),
            cpu_nanos: busy.sum::<u64>() * (1_000_000_000 / TICKS_PER_SECOND),
            memory_bytes: field(meminfo, "MemTotal:") * 1024,
            available_bytes: field(meminfo, "MemAvailable:") * 1024,
            ..Node::default()
        }
    }

    fn working_set_bytes(&self) -> u64 {
        self.memory_bytes.saturating_sub(self.available_bytes)
    }
}

fn time(nanos: i64) -> String {
    let t = Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{t:.0}")
}

/// Leaves out what is not known.
fn known(pairs: &[(&str, Option<u64>)]) -> Value {
    pairs
        .iter()
        .filter_map(|(k, v)| Some(((*k).to_owned(), Value::from((*v)?))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn timed(nanos: i64, pairs: &[(&str, Option<u64>)]) -> Value {
    let mut v = known(pairs);
    v["time"] = time(nanos).into();
    v
}

fn sum(all: &[&Usage], of: impl Fn(&Usage) -> Option<u64>) -> Option<u64> {
    all.iter().map(|u| of(u)).sum()
}

fn by_pod(usage: &[Usage]) -> BTreeMap<[&str; 3], Vec<&Usage>> {
    let mut pods: BTreeMap<[&str; 3], Vec<&Usage>> = BTreeMap::new();
    for u in usage {
        pods.entry([&u.namespace, &u.pod, &u.uid])
            .or_default()
            .push(u);
    }
    pods
}

/// The `Summary` of the stats API.
pub(super) fn summary(node_name: &str, usage: &[Usage], n: &Node) -> Value {
    let container = |u: &&Usage| {
        json!({
            "name": u.container,
            "startTime": time(u.started_nanos),
            "cpu": timed(u.measured_nanos, &[("usageNanoCores", u.cpu_nano_cores), ("usageCoreNanoSeconds", u.cpu_nanos)]),
            "memory": timed(u.measured_nanos, &[
                ("workingSetBytes", u.working_set_bytes), ("usageBytes", u.usage_bytes), ("rssBytes", u.rss_bytes),
            ]),
            "rootfs": timed(u.measured_nanos, &[("usedBytes", u.rootfs_bytes), ("inodesUsed", u.rootfs_inodes)]),
        })
    };
    let pod = |([namespace, name, uid], all): ([&str; 3], Vec<&Usage>)| {
        let measured = all.iter().map(|u| u.measured_nanos).max().unwrap_or(0);
        json!({
            "podRef": {"name": name, "namespace": namespace, "uid": uid},
            "startTime": time(all.iter().map(|u| u.started_nanos).min().unwrap_or(0)),
            "containers": all.iter().map(container).collect::<Vec<_>>(),
            "cpu": timed(measured, &[
                ("usageNanoCores", sum(&all, |u| u.cpu_nano_cores)), ("usageCoreNanoSeconds", sum(&all, |u| u.cpu_nanos)),
            ]),
            "memory": timed(measured, &[
                ("workingSetBytes", sum(&all, |u| u.working_set_bytes)), ("usageBytes", sum(&all, |u| u.usage_bytes)),
            ]),
        })
    };
    let used = n.fs_bytes.saturating_sub(n.fs_available_bytes);
    json!({
        "node": {
            "nodeName": node_name,
            "startTime": time(n.booted_nanos),
            "cpu": timed(n.measured_nanos, &[("usageCoreNanoSeconds", Some(n.cpu_nanos))]),
            "memory": timed(n.measured_nanos, &[
                ("availableBytes", Some(n.available_bytes)), ("workingSetBytes", Some(n.working_set_bytes())),
            ]),
            "fs": timed(n.measured_nanos, &[
                ("availableBytes", Some(n.fs_available_bytes)), ("capacityBytes", Some(n.fs_bytes)), ("usedBytes", Some(used)),
                ("inodes", Some(n.fs_inodes)), ("inodesFree", Some(n.fs_inodes_free)),
            ]),
        },
        "pods": by_pod(usage).into_iter().map(pod).collect::<Vec<_>>(),
    })
}

#[expect(
    clippy::cast_precision_loss,
    reason = "metrics are floating-point numbers"
)]
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// The value of a metric for a container, if it is known.
type Reading = fn(&Usage) -> Option<String>;

/// The metrics that the metrics server asks for.
pub(super) fn resource_metrics(usage: &[Usage], n: &Node) -> String {
    let mut t = String::new();
    let mut write = |line: std::fmt::Arguments<'_>| {
        t.write_fmt(line)
            .expect("writing to a String does not fail");
    };
    let millis = |nanos: i64| nanos / 1_000_000;
    let metrics: [(&str, &str, Reading); 2] = [
        ("cpu_usage_seconds_total", "counter", |u| {
            Some(seconds(u.cpu_nanos?).to_string())
        }),
        ("memory_working_set_bytes", "gauge", |u| {
            Some(u.working_set_bytes?.to_string())
        }),
    ];
    let node = [
        seconds(n.cpu_nanos).to_string(),
        n.working_set_bytes().to_string(),
    ];
    for ((name, kind, value), of_node) in metrics.into_iter().zip(node) {
        write(format_args!(
            "# TYPE node_{name} {kind}\nnode_{name} {of_node} {}\n",
            millis(n.measured_nanos)
        ));
        write(format_args!("# TYPE container_{name} {kind}\n"));
        for u in usage {
            let Some(v) = value(u) else { continue };
            let (c, ns, p) = (&u.container, &u.namespace, &u.pod);
            let at = millis(u.measured_nanos);
            write(format_args!(
                "container_{name}{{container=\"{c}\",namespace=\"{ns}\",pod=\"{p}\"}} {v} {at}\n"
            ));
        }
    }
    write(format_args!("# TYPE container_start_time_seconds gauge\n"));
    for u in usage {
        let (c, ns, p) = (&u.container, &u.namespace, &u.pod);
        let at = seconds(u64::try_from(u.started_nanos).unwrap_or(0));
        write(format_args!(
            "container_start_time_seconds{{container=\"{c}\",namespace=\"{ns}\",pod=\"{p}\"}} {at}\n"
        ));
    }
    t
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(pod: &str, container: &str) -> Usage {
        Usage {
            namespace: "n".into(),
            pod: pod.into(),
            uid: "u".into(),
            container: container.into(),
            started_nanos: 1_000_000_000,
            measured_nanos: 9_000_000_000,
            cpu_nanos: Some(1_500_000_000),
            working_set_bytes: Some(4096),
            ..Usage::default()
        }
    }

    #[test]
    fn a_pod_uses_what_its_containers_do_and_what_is_unknown_is_left_out() {
        let s = summary(
            "node1",
            &[usage("p", "a"), usage("p", "b")],
            &Node::default(),
        );
        let p = &s["pods"][0];
        assert_eq!(
            (
                s["node"]["nodeName"].as_str(),
                s["pods"].as_array().map(Vec::len)
            ),
            (Some("node1"), Some(1))
        );
        assert_eq!(
            p["cpu"],
            json!({"time": "1970-01-01T00:00:09Z", "usageCoreNanoSeconds": 3_000_000_000_u64})
        );
        assert_eq!(p["memory"]["workingSetBytes"], 8192);
        assert_eq!(p["containers"][1]["name"], "b");
        assert_eq!(p["containers"][1]["startTime"], "1970-01-01T00:00:01Z");
        assert!(p["containers"][0]["memory"].get("rssBytes").is_none());
    }

    #[test]
    fn the_machine_is_read_from_the_kernels_files() {
        let n = Node::of(
            "cpu  1 2 3 100 100 4 5 6 50 50\ncpu0 1\nbtime 7\n",
            "MemTotal: 100 kB\nMemAvailable: 40 kB\n",
        );
        assert_eq!(
            (n.cpu_nanos, n.booted_nanos),
            (21 * 10_000_000, 7_000_000_000)
        );
        assert_eq!((n.memory_bytes, n.working_set_bytes()), (102_400, 61_440));
        let here = Node::read(Path::new("/"));
        assert!(here.cpu_nanos > 0 && here.fs_bytes > 0 && here.booted_nanos > 0);
    }

    #[test]
    fn metrics_have_their_labels_and_time() {
        let t = resource_metrics(&[usage("p", "a")], &Node::default());
        assert!(t.contains("container_cpu_usage_seconds_total{container=\"a\",namespace=\"n\",pod=\"p\"} 1.5 9000\n"), "{t}");
        assert!(t.contains("node_memory_working_set_bytes 0 0\n"), "{t}");
    }
}
