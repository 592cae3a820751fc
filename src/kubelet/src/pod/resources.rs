//! Requests and limits of containers, and what follows from them: QoS class, control groups, CFS shares and quotas.

use std::collections::BTreeMap;

use kontiki_api::Quantity;
use kontiki_api::meta::null_is_default;
use kontiki_host::cgroups::Limits;
use serde::Deserialize;

use super::{Amount, Container, Pod};
use crate::cri::v1 as cri;

const CPU_SHARES_MIN: i64 = 2;
const CPU_SHARES_MAX: i64 = 262_144;
const CPU_SHARES_PER_CORE: i64 = 1024;
const CPU_PERIOD_US: i64 = 100_000;
const CPU_QUOTA_US_MIN: i64 = 1_000;

/// `core/v1` ResourceRequirements.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct Resources {
    #[serde(deserialize_with = "null_is_default")]
    pub requests: BTreeMap<String, Amount>,
    #[serde(deserialize_with = "null_is_default")]
    pub limits: BTreeMap<String, Amount>,
}

impl Resources {
    /// The limit of a resource.
    pub fn limit(&self, resource: &str) -> Option<Quantity> {
        self.limits
            .get(resource)
            .map(Amount::quantity)
            .filter(|q| !q.is_zero())
    }

    /// The request of a resource; where there is none, the limit stands for it.
    pub fn request(&self, resource: &str) -> Option<Quantity> {
        self.requests
            .get(resource)
            .map(Amount::quantity)
            .or_else(|| self.limit(resource))
    }
}

/// The quality-of-service class of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the values are core/v1's")]
pub enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    /// The class of a pod, by upstream's rules.
    pub fn of(pod: &Pod) -> Qos {
        let (mut any, mut guaranteed) = (false, true);
        for c in pod.all_containers() {
            for r in ["cpu", "memory"] {
                let (request, limit) = (
                    c.resources.request(r).filter(|q| !q.is_zero()),
                    c.resources.limit(r),
                );
                any |= request.is_some() || limit.is_some();
                guaranteed &= limit.is_some() && request == limit;
            }
        }
        match (any, guaranteed) {
            (false, _) => Qos::BestEffort,
            (true, true) => Qos::Guaranteed,
            (true, false) => Qos::Burstable,
        }
    }

    /// The class as the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Qos::Guaranteed => "Guaranteed",
            Qos::Burstable => "Burstable",
            Qos::BestEffort => "BestEffort",
        }
    }

    /// The control group of the class below the root of all pods.
    fn group(self) -> &'static str {
        match self {
            Qos::Guaranteed => "",
            Qos::Burstable => "/burstable",
            Qos::BestEffort => "/besteffort",
        }
    }
}

/// The control group of all pods, as `/kubepods`.
pub fn pods_cgroup(cgroup_root: &str) -> String {
    format!("{}/kubepods", cgroup_root.trim_end_matches('/'))
}

/// The control group of a pod, as `/kubepods/burstable/pod<uid>`.
pub fn pod_cgroup(cgroup_root: &str, pod: &Pod) -> String {
    format!(
        "{}{}/pod{}",
        pods_cgroup(cgroup_root),
        Qos::of(pod).group(),
        pod.metadata.uid
    )
}

/// All places in which a pod of this uid can have its control group.
pub fn pod_cgroup_candidates(cgroup_root: &str, uid: &str) -> [String; 3] {
    [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort]
        .map(|q| format!("{}{}/pod{uid}", pods_cgroup(cgroup_root), q.group()))
}

/// CFS shares for a CPU request.
pub fn shares_of_millis(millis: i64) -> i64 {
    (millis * CPU_SHARES_PER_CORE / 1000).clamp(CPU_SHARES_MIN, CPU_SHARES_MAX)
}

/// CFS quota in each period of 100 ms for a CPU limit.
pub fn quota_of_millis(millis: i64) -> i64 {
    (millis * CPU_PERIOD_US / 1000).max(CPU_QUOTA_US_MIN)
}

/// A pod's sum of a resource: all that run at a time, or the init container that needs more.
fn pod_sum(pod: &Pod, of: impl Fn(&Container) -> Option<i64>) -> i64 {
    let main: i64 = pod.spec.containers.iter().filter_map(&of).sum();
    let (mut sidecars, mut peak) = (0, 0);
    for c in &pod.spec.init_containers {
        let n = of(c).unwrap_or(0);
        if c.is_sidecar() {
            sidecars += n;
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(sidecars + n);
        }
    }
    (main + sidecars).max(peak)
}

/// The CPU that a pod requests, in thousandths of a core.
pub fn cpu_request_millis(pod: &Pod) -> i64 {
    pod_sum(pod, |c| c.resources.request("cpu").map(Quantity::millis))
        + overhead(pod, "cpu").map_or(0, Quantity::millis)
}

/// The bytes of memory that a pod requests.
pub fn memory_request_bytes(pod: &Pod) -> i64 {
    pod_sum(pod, |c| c.resources.request("memory").map(Quantity::units))
        + overhead(pod, "memory").map_or(0, Quantity::units)
}

fn overhead(pod: &Pod, resource: &str) -> Option<Quantity> {
    pod.spec.overhead.get(resource).and_then(|q| q.parse().ok())
}

/// The limits of a pod's control group. A limit holds for the pod only if all containers have one.
pub fn pod_limits(pod: &Pod) -> Limits {
    let all_have = |r: &str| pod.all_containers().all(|c| c.resources.limit(r).is_some());
    let positive = |n: i64| u64::try_from(n).ok();
    let mut limits = Limits {
        cpu_period_us: 100_000,
        ..Limits::default()
    };
    limits.cpu_shares = positive(shares_of_millis(cpu_request_millis(pod)));
    if all_have("cpu") {
        let millis = pod_sum(pod, |c| c.resources.limit("cpu").map(Quantity::millis));
        limits.cpu_quota_us = positive(quota_of_millis(millis));
    }
    if all_have("memory") {
        limits.memory_max_bytes = positive(pod_sum(pod, |c| {
            c.resources.limit("memory").map(Quantity::units)
        }));
    }
    limits
}

/// A container's resources in the runtime's terms.
pub fn container_resources(
    pod: &Pod,
    c: &Container,
    node_memory_bytes: i64,
) -> cri::LinuxContainerResources {
    let request = c.resources.request("cpu").map_or(0, Quantity::millis);
    let quota = c
        .resources
        .limit("cpu")
        .map_or(0, |q| quota_of_millis(q.millis()));
    cri::LinuxContainerResources {
        cpu_shares: shares_of_millis(request),
        cpu_quota: quota,
        cpu_period: if quota > 0 { CPU_PERIOD_US } else { 0 },
        memory_limit_in_bytes: c.resources.limit("memory").map_or(0, Quantity::units),
        oom_score_adj: oom_score_adj(pod, c, node_memory_bytes),
    }
}

/// How willingly the kernel kills the container when memory is short, by upstream's rules.
fn oom_score_adj(pod: &Pod, c: &Container, node_memory_bytes: i64) -> i64 {
    match Qos::of(pod) {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let request = c.resources.request("memory").map_or(0, Quantity::units);
            (1000 - (1000 * request) / node_memory_bytes.max(1)).clamp(3, 999)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[allow(
        clippy::needless_pass_by_value,
        reason = "a json! reads better at the calls"
    )]
    fn pod(containers: serde_json::Value, init: serde_json::Value) -> Pod {
        let v = json!({"metadata": {"uid": "u"}, "spec": {"containers": containers, "initContainers": init}});
        serde_json::from_value(v).expect("a pod")
    }

    #[test]
    fn classes_and_groups_follow_requests_and_limits() {
        let best = pod(json!([{"name": "a"}]), json!([]));
        let both = json!({"cpu": "1", "memory": "1Gi"});
        let guaranteed = pod(
            json!([{"name": "a", "resources": {"limits": both}}]),
            json!([]),
        );
        let burst = pod(
            json!([{"name": "a", "resources": {"requests": {"cpu": 1}}}]),
            json!([]),
        );
        assert_eq!(
            [&best, &guaranteed, &burst].map(Qos::of),
            [Qos::BestEffort, Qos::Guaranteed, Qos::Burstable]
        );
        assert_eq!(pod_cgroup("/x/", &best), "/x/kubepods/besteffort/podu");
        assert_eq!(pod_cgroup("", &guaranteed), "/kubepods/podu");
        assert!(pod_cgroup_candidates("", "u").contains(&pod_cgroup("", &burst)));
    }

    #[test]
    fn a_pods_limits_hold_only_if_all_containers_have_them() {
        let l = json!({"limits": {"cpu": "500m", "memory": "64Mi"}});
        let p = pod(
            json!([{"name": "a", "resources": l}, {"name": "b", "resources": l}]),
            json!([]),
        );
        let limits = pod_limits(&p);
        assert_eq!(
            (limits.cpu_shares, limits.cpu_quota_us),
            (Some(1024), Some(100_000))
        );
        assert_eq!(limits.memory_max_bytes, Some(128 << 20));
        let p = pod(
            json!([{"name": "a", "resources": l}, {"name": "b"}]),
            json!([]),
        );
        assert_eq!(pod_limits(&p).memory_max_bytes, None);
        assert_eq!(
            container_resources(&p, &p.spec.containers[0], 1 << 30).cpu_quota,
            50_000
        );
    }

    #[test]
    fn init_containers_count_by_their_peak_and_sidecars_always() {
        let r = |cpu: &str| json!({"requests": {"cpu": cpu}});
        let main = json!([{"name": "m", "resources": r("100m")}]);
        let side = json!({"name": "s", "restartPolicy": "Always", "resources": r("50m")});
        let p = pod(
            main.clone(),
            json!([side, {"name": "i", "resources": r("400m")}]),
        );
        assert_eq!(cpu_request_millis(&p), 450);
        assert_eq!(cpu_request_millis(&pod(main, json!([side]))), 150);
    }
}
