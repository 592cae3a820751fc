//! What the kubelet counts.

use kontiki_base::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// The kubelet's metrics, under the names that dashboards know.
#[derive(Clone, Debug)]
pub struct KubeletMetrics {
    /// Containers that run.
    pub running_containers: Gauge,
    /// Sandboxes that are up.
    pub running_pods: Gauge,
    /// Containers that were started.
    pub started_containers: Counter,
    /// Containers that could not be started.
    pub started_containers_errors: Counter,
    /// Sandboxes that were started.
    pub started_pods: Counter,
    /// Sandboxes that could not be started.
    pub started_pods_errors: Counter,
    /// Looks at the whole runtime.
    pub relist_seconds: Histogram,
    /// From the first sight of a pod to its sandbox.
    pub sandbox_seconds: Histogram,
}

impl KubeletMetrics {
    /// Registers them.
    pub fn new(m: &Metrics) -> KubeletMetrics {
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 16));
        KubeletMetrics {
            running_containers: m.register(
                "kubelet_running_containers",
                "Containers that run.",
                Gauge::default(),
            ),
            running_pods: m.register(
                "kubelet_running_pods",
                "Pod sandboxes that are up.",
                Gauge::default(),
            ),
            started_containers: m.register(
                "kubelet_started_containers",
                "Containers started.",
                Counter::default(),
            ),
            started_containers_errors: m.register(
                "kubelet_started_containers_errors",
                "Containers that could not be started.",
                Counter::default(),
            ),
            started_pods: m.register(
                "kubelet_started_pods",
                "Pod sandboxes started.",
                Counter::default(),
            ),
            started_pods_errors: m.register(
                "kubelet_started_pods_errors",
                "Pod sandboxes that could not be started.",
                Counter::default(),
            ),
            relist_seconds: m.register(
                "kubelet_pleg_relist_duration_seconds",
                "Duration of looks at the runtime.",
                seconds(),
            ),
            sandbox_seconds: m.register(
                "kubelet_run_podsandbox_duration_seconds",
                "Duration of sandbox starts.",
                seconds(),
            ),
        }
    }
}
