//! What the scheduler counts, under upstream's names.

use std::time::Duration;

use kontiki_base::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

type Labels = [(&'static str, &'static str); 1];

#[derive(Clone, Debug)]
pub(crate) struct SchedulerMetrics {
    attempts: Family<Labels, Counter>,
    seconds: Histogram,
    pending: Family<Labels, Gauge>,
}

impl SchedulerMetrics {
    pub(crate) fn register(metrics: &Metrics) -> SchedulerMetrics {
        let seconds = Histogram::new(exponential_buckets(0.0005, 2.0, 14));
        SchedulerMetrics {
            attempts: metrics.register(
                "scheduler_schedule_attempts",
                "Attempts to schedule pods, by result.",
                Family::default(),
            ),
            seconds: metrics.register(
                "scheduler_scheduling_attempt_duration_seconds",
                "Time from the decision's begin to the binding's answer.",
                seconds,
            ),
            pending: metrics.register(
                "scheduler_pending_pods",
                "Pods without a node, by queue.",
                Family::default(),
            ),
        }
    }

    pub(crate) fn attempt(&self, result: &'static str, took: Duration) {
        self.attempts.get_or_create(&[("result", result)]).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn pending(&self, (ready, backoff, unschedulable): (usize, usize, usize)) {
        for (queue, n) in [
            ("active", ready),
            ("backoff", backoff),
            ("unschedulable", unschedulable),
        ] {
            self.pending
                .get_or_create(&[("queue", queue)])
                .set(i64::try_from(n).unwrap_or(i64::MAX));
        }
    }
}
