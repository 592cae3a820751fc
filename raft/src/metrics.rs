//! Numbers that the store keeps about itself, as a plain snapshot that others export.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets for durations, in seconds; one more bucket takes the rest.
pub const SECONDS_BUCKETS: [f64; 12] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0,
];
/// Upper bounds of the buckets for counts; one more bucket takes the rest.
pub const COUNT_BUCKETS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// A distribution, as Prometheus knows it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HistogramSnapshot {
    /// Pairs of an upper bound and the number of values at or below it and above the previous
    /// bound. The last bound is infinite.
    pub buckets: Vec<(f64, u64)>,
    /// The sum of all values.
    pub sum: f64,
    /// How many values there were.
    pub count: u64,
}

/// What the store says about itself.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StoreMetrics {
    /// The newest revision applied on this master.
    pub applied_revision: u64,
    /// The newest revision whose changes are gone.
    pub compacted_revision: u64,
    /// Raft entries in the log.
    pub log_entries: u64,
    /// Bytes written to the log since the start.
    pub log_bytes_total: u64,
    /// Transactions that asked to be written since the start.
    pub txns_total: u64,
    /// Transactions that were refused because the queue was full.
    pub overloaded_total: u64,
    /// Watches that are open.
    pub watchers: u64,
    /// Watches that were ended because they fell behind.
    pub watchers_lagged_total: u64,
    /// Keys whose time to live ran out.
    pub expired_total: u64,
    /// Transactions per Raft entry.
    pub batch_txns: HistogramSnapshot,
    /// The time of one write to the log with its fsync.
    pub fsync_seconds: HistogramSnapshot,
}

/// A histogram that threads add to without a lock.
pub(crate) struct Histogram {
    bounds: &'static [f64],
    counts: Vec<AtomicU64>,
    /// The sum in millionths, so that it fits an integer.
    sum_micros: AtomicU64,
}

impl Histogram {
    pub(crate) fn new(bounds: &'static [f64]) -> Histogram {
        Histogram {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum_micros: AtomicU64::new(0),
        }
    }

    pub(crate) fn record(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_micros
            .fetch_add((value * 1e6) as u64, Ordering::Relaxed);
    }

    pub(crate) fn record_duration(&self, value: Duration) {
        self.record(value.as_secs_f64());
    }

    pub(crate) fn snapshot(&self) -> HistogramSnapshot {
        let counts: Vec<u64> = self
            .counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .collect();
        HistogramSnapshot {
            count: counts.iter().sum(),
            sum: self.sum_micros.load(Ordering::Relaxed) as f64 / 1e6,
            buckets: self
                .bounds
                .iter()
                .copied()
                .chain([f64::INFINITY])
                .zip(counts)
                .collect(),
        }
    }
}

/// The counters that the parts of the replicated store share.
pub(crate) struct Counters {
    pub(crate) txns: AtomicU64,
    pub(crate) overloaded: AtomicU64,
    pub(crate) log_bytes: AtomicU64,
    pub(crate) expired: AtomicU64,
    pub(crate) batch_txns: Histogram,
    pub(crate) fsync_seconds: Histogram,
}

impl Default for Counters {
    fn default() -> Counters {
        Counters {
            txns: AtomicU64::new(0),
            overloaded: AtomicU64::new(0),
            log_bytes: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            batch_txns: Histogram::new(&COUNT_BUCKETS),
            fsync_seconds: Histogram::new(&SECONDS_BUCKETS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_falls_into_the_first_bucket_that_holds_it() {
        let histogram = Histogram::new(&COUNT_BUCKETS);
        for value in [1.0, 2.0, 3.0, 513.0] {
            histogram.record(value);
        }
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.buckets[0], (1.0, 1));
        assert_eq!(snapshot.buckets[1], (2.0, 1));
        assert_eq!(snapshot.buckets[2], (4.0, 1));
        assert_eq!(snapshot.buckets[10], (f64::INFINITY, 1));
        assert_eq!(snapshot.count, 4);
        assert!((snapshot.sum - 519.0).abs() < 1e-6);
    }
}
