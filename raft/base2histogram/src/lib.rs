//! Histograms by powers of two: what openraft needs to count its batches, and no more.
//!
//! openraft depends on a crate of this name for statistics that we do not compile in, and makes its histograms all the
//! same. The published one computes tables for sixteen resolutions when the first histogram is made: 28 MB that stay, and
//! 50 ms of a start. The workspace puts this one in its place (`[patch.crates-io]`).
//!
//! Entry point: [`Histogram`]. It must never know what it counts.

use std::fmt;
use std::marker::PhantomData;

/// One bucket for zero and one for each power of two.
const BUCKETS: usize = 65;

/// Counts values by their highest bit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: Box<[u64; BUCKETS]>,
    slot: PhantomData<T>,
}

impl<T> Histogram<T> {
    /// A histogram that has seen nothing.
    pub fn new() -> Histogram<T> {
        Histogram {
            counts: Box::new([0; BUCKETS]),
            slot: PhantomData,
        }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value this many times.
    pub fn record_n(&mut self, value: u64, times: u64) {
        self.counts[bucket(value)] += times;
    }

    /// How many values were counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The smallest value of the bucket in which this share of the values (0 to 1) is reached; 0 if there are none.
    pub fn percentile(&self, share: f64) -> u64 {
        let wanted = (self.total() as f64 * share).max(1.0);
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen as f64 >= wanted {
                return lowest(at);
            }
        }
        0
    }

    /// The usual percentiles.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total(),
            p0_1: self.percentile(0.001),
            p1: self.percentile(0.01),
            p5: self.percentile(0.05),
            p10: self.percentile(0.1),
            p50: self.percentile(0.5),
            p90: self.percentile(0.9),
            p99: self.percentile(0.99),
            p99_9: self.percentile(0.999),
        }
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

fn bucket(value: u64) -> usize {
    (u64::BITS - value.leading_zeros()) as usize
}

fn lowest(bucket: usize) -> u64 {
    match bucket {
        0 => 0,
        n => 1 << (n - 1),
    }
}

/// Percentiles of a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of the fields are their words")]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "n={} p50={} p90={} p99={} p99.9={}",
            self.samples, self.p50, self.p90, self.p99, self.p99_9
        )
    }
}

/// Several histograms, one line each.
#[derive(Clone, Debug, Default)]
pub struct AsciiChart {
    series: Vec<(String, Histogram)>,
}

impl AsciiChart {
    /// A chart without lines.
    pub fn new() -> AsciiChart {
        AsciiChart::default()
    }

    /// Adds a line.
    pub fn add(mut self, name: impl Into<String>, histogram: Histogram) -> AsciiChart {
        self.series.push((name.into(), histogram));
        self
    }

    /// The chart as text.
    pub fn detailed(&self) -> impl fmt::Display {
        self.series
            .iter()
            .map(|(name, h)| format!("{name}: {}\n", h.percentile_stats()))
            .collect::<String>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_the_bucket_of_their_highest_bit() {
        for (value, low) in [
            (0, 0),
            (1, 1),
            (2, 2),
            (3, 2),
            (4, 4),
            (1023, 512),
            (u64::MAX, 1 << 63),
        ] {
            let mut h = Histogram::<()>::new();
            h.record(value);
            assert_eq!(h.percentile(0.5), low, "{value}");
        }
    }

    #[test]
    fn percentiles_count_from_below() {
        let mut h = Histogram::<()>::new();
        assert_eq!(h.percentile_stats().p99, 0);
        h.record_n(1, 9);
        h.record(64);
        let p = h.percentile_stats();
        assert_eq!((p.samples, p.p50, p.p90, p.p99), (10, 1, 1, 64));
        let chart = AsciiChart::new().add("a", h).detailed().to_string();
        assert_eq!(chart, "a: n=10 p50=1 p90=1 p99=64 p99.9=64\n");
    }
}
