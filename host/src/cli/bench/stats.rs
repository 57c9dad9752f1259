//! Percentiles and histograms of measured times.

use serde_json::{Value, json};
use std::time::Duration;

/// Times in order.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    /// Sorts them.
    pub fn new(mut times: Vec<Duration>) -> Times {
        times.sort_unstable();
        Times(times)
    }

    /// The smallest time that at least this share of all does not exceed (nearest rank); `None` without any.
    pub fn percentile(&self, share: f64) -> Option<Duration> {
        let rank = (share.clamp(0.0, 1.0) * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.clamp(1, self.0.len().max(1)) - 1).copied()
    }

    /// The arithmetic mean.
    pub fn mean(&self) -> Option<Duration> {
        let all: Duration = self.0.iter().sum();
        u32::try_from(self.0.len()).ok().filter(|n| *n > 0).map(|n| all / n)
    }

    /// The named percentiles in milliseconds.
    pub fn json(&self) -> Value {
        let at = |share| self.percentile(share).map(milliseconds);
        json!({
            "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p99_9": at(0.999), "max": at(1.0),
            "mean": self.mean().map(milliseconds),
        })
    }

    /// Counts between bounds that grow by a constant factor, from the smallest to the largest time: upper bound in
    /// milliseconds, and count.
    pub fn histogram(&self, per_decade: u32) -> Vec<(f64, u64)> {
        let step = 10_f64.powf(1.0 / f64::from(per_decade));
        let slot = |time: &Duration| (milliseconds(*time).max(0.001).log10() * f64::from(per_decade)).floor() as i32;
        let (Some(first), Some(last)) = (self.0.first().map(slot), self.0.last().map(slot)) else { return Vec::new() };
        let mut counts = vec![0_u64; (last - first + 1) as usize];
        for time in &self.0 {
            counts[(slot(time) - first) as usize] += 1;
        }
        counts.into_iter().zip(first..).map(|(count, slot)| (step.powi(slot + 1), count)).collect()
    }
}

/// For a person and for JSON: three digits after the point.
pub fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(milliseconds: impl IntoIterator<Item = u64>) -> Times {
        Times::new(milliseconds.into_iter().map(Duration::from_millis).collect())
    }

    #[test]
    fn percentiles_are_the_nearest_rank() {
        let times = times((1..=1_000).rev());
        for (share, expected) in [(0.0, 1), (0.5, 500), (0.9, 900), (0.99, 990), (0.999, 999), (1.0, 1_000)] {
            assert_eq!(times.percentile(share), Some(Duration::from_millis(expected)), "{share}");
        }
        assert_eq!(times.json()["p99_9"], 999.0);
    }

    #[test]
    fn percentiles_of_few_times_and_of_none() {
        assert_eq!(times([7]).percentile(0.999), Some(Duration::from_millis(7)));
        assert_eq!(times([]).percentile(0.5), None);
        assert_eq!((times([]).mean(), times([1, 3]).mean()), (None, Some(Duration::from_millis(2))));
        assert!(times([]).json()["p50"].is_null());
    }

    #[test]
    fn a_histogram_counts_every_time_once() {
        let times = times([1, 1, 2, 50, 900]);
        let histogram = times.histogram(10);
        assert_eq!(histogram.iter().map(|(_, count)| count).sum::<u64>(), 5);
        assert_eq!(histogram[0].1, 2);
        let (bound, count) = histogram.last().unwrap();
        assert!(*bound > 900.0 && *count == 1, "{histogram:?}");
        assert!(Times::default().histogram(10).is_empty());
    }
}
