//! The proxy's metrics, under upstream's names.

use kontiki_base::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// What the proxy counts and times.
#[derive(Clone, Debug)]
pub(crate) struct ProxyMetrics {
    pub(crate) sync_seconds: Histogram,
    pub(crate) programming_seconds: Histogram,
    pub(crate) failures: Counter,
    backend: Family<Vec<(String, String)>, Gauge>,
}

impl ProxyMetrics {
    pub(crate) fn new(metrics: &Metrics) -> ProxyMetrics {
        let histogram = |first| Histogram::new(exponential_buckets(first, 2.0, 16));
        ProxyMetrics {
            sync_seconds: metrics.register(
                "kubeproxy_sync_proxy_rules_duration_seconds",
                "Time to bring the kernel to a changed plan.",
                histogram(0.001),
            ),
            programming_seconds: metrics.register(
                "kubeproxy_network_programming_duration_seconds",
                "Time from the change of a pod to the rules for it.",
                histogram(0.01),
            ),
            failures: metrics.register(
                "kubeproxy_sync_proxy_rules_failures",
                "Attempts to change the kernel that failed.",
                Counter::default(),
            ),
            backend: metrics.register(
                "kubeproxy_backend",
                "The backend that programs services; the value is 1.",
                Family::default(),
            ),
        }
    }

    pub(crate) fn backend_is(&self, name: &str) {
        self.backend
            .get_or_create(&vec![("backend".to_owned(), name.to_owned())])
            .set(1);
    }
}
