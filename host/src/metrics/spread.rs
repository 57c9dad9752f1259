//! Histograms whose observations take no lock and allocate nothing.
//!
//! Those of the library lock a mutex and search its buckets for every observation, and each task is observed several times. Here an
//! observation is two additions to atomics.

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds for times of tasks, in seconds: from 1 ms to 6 h.
pub const TIMES: [f64; 22] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
    1_800.0, 3_600.0, 7_200.0, 21_600.0,
];
/// Upper bounds for sizes of batches.
pub const BATCHES: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];
/// Upper bounds for memory, in bytes.
pub const BYTES: [f64; 6] = [MIB, 4.0 * MIB, 16.0 * MIB, 64.0 * MIB, 256.0 * MIB, 1_024.0 * MIB];
const MIB: f64 = 1_048_576.0;

/// Millionths: the unit in which sums of seconds are kept.
const MILLIONTHS: f64 = 1e6;

/// A histogram with fixed bounds. A clone is the same histogram.
#[derive(Clone)]
pub struct Spread(Arc<Inner>);

struct Inner {
    bounds: Box<[f64]>,
    /// One for each bound, and one for what is above all of them.
    buckets: Box<[AtomicU64]>,
    /// Sum of all observations, times `scale`.
    sum: AtomicU64,
    scale: f64,
}

impl Spread {
    /// Nothing observed yet; `bounds` ascend. Sums are exact to a millionth.
    pub fn of_seconds(bounds: impl IntoIterator<Item = f64>) -> Spread {
        Spread::new(bounds, MILLIONTHS)
    }

    /// The same for whole numbers.
    pub fn of_numbers(bounds: impl IntoIterator<Item = f64>) -> Spread {
        Spread::new(bounds, 1.0)
    }

    fn new(bounds: impl IntoIterator<Item = f64>, scale: f64) -> Spread {
        let bounds: Box<[f64]> = bounds.into_iter().collect();
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Spread(Arc::new(Inner { bounds, buckets, sum: AtomicU64::new(0), scale }))
    }

    /// Counts one observation. A negative one counts as 0.
    pub fn observe(&self, value: f64) {
        let Inner { bounds, buckets, sum, scale } = &*self.0;
        // Casts saturate.
        sum.fetch_add((value * scale).round() as u64, Ordering::Relaxed);
        buckets[bounds.partition_point(|bound| *bound < value)].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a time.
    pub fn took(&self, time: Duration) {
        self.observe(time.as_secs_f64());
    }
}

impl fmt::Debug for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spread")
    }
}

impl EncodeMetric for Spread {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        let Inner { bounds, buckets, sum, scale } = &*self.0;
        let counts = buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        let bounds = bounds.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        // Of the same reading as the buckets, so that a scrape never contradicts itself.
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(sum.load(Ordering::Relaxed) as f64 / scale, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

impl TypedMetric for Spread {
    const TYPE: MetricType = MetricType::Histogram;
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;

    #[test]
    fn observations_are_counted_below_their_bounds_and_summed() {
        let (times, sizes) = (Spread::of_seconds([0.1, 1.0]), Spread::of_numbers([2.0]));
        [0.05, 0.1, 0.5, 7.25, -3.0].iter().for_each(|value| times.observe(*value));
        sizes.observe(3.0);
        let mut registry = Registry::default();
        registry.register("times", "Times", times);
        registry.register("sizes", "Sizes", sizes);
        let mut text = String::new();
        text::encode(&mut text, &registry).unwrap();
        for line in [
            "times_sum 7.9",
            "times_count 5",
            "times_bucket{le=\"0.1\"} 3",
            "times_bucket{le=\"1.0\"} 4",
            "times_bucket{le=\"+Inf\"} 5",
            "sizes_sum 3.0",
            "sizes_bucket{le=\"2.0\"} 0",
            "sizes_bucket{le=\"+Inf\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
