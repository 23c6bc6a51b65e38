//! A histogram of latencies: logarithmic, eight steps to a doubling, so a percentile is told to within
//! 12.5 per cent, from a nanosecond to centuries, in 4 KiB.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

const STEPS: u64 = 8;
const BUCKETS: usize = 64 * STEPS as usize;

/// Counts of latencies by their size. Any thread may record and any may look, without lock; who looks
/// while others record may miss what they are about to count.
#[derive(Debug)]
pub struct Histogram {
    counts: Box<[AtomicU64; BUCKETS]>,
    max_ns: AtomicU64,
}

/// Percentiles in microseconds; all zero without a single value.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Percentiles {
    /// Half of the values are at most this.
    pub p50: f64,
    /// 99 of 100 values are at most this.
    pub p99: f64,
    /// The largest value, exact.
    pub max: f64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        let counts = Box::new([const { AtomicU64::new(0) }; BUCKETS]);
        Histogram { counts, max_ns: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Counts one latency.
    pub fn record(&self, ns: u64) {
        self.counts[bucket(ns)].fetch_add(1, Ordering::Relaxed);
        if ns > self.max_ns.load(Ordering::Relaxed) {
            self.max_ns.fetch_max(ns, Ordering::Relaxed);
        }
    }

    /// The percentiles of what was counted.
    #[must_use]
    pub fn percentiles(&self) -> Percentiles {
        let counts: Vec<u64> = self.counts.iter().map(|n| n.load(Ordering::Relaxed)).collect();
        let max_ns = self.max_ns.load(Ordering::Relaxed);
        let micros = |share| quantile(&counts, share).min(max_ns) as f64 / 1000.0;
        Percentiles { p50: micros(0.50), p99: micros(0.99), max: max_ns as f64 / 1000.0 }
    }
}

/// The end of the bucket in which this share of all values is reached.
fn quantile(counts: &[u64], share: f64) -> u64 {
    let total: u64 = counts.iter().sum();
    let rank = (total as f64 * share).ceil() as u64;
    let mut below = 0;
    let found = counts.iter().position(|&count| {
        below += count;
        below >= rank && count > 0
    });
    found.map_or(0, upper_bound)
}

fn bucket(ns: u64) -> usize {
    if ns < STEPS {
        return ns as usize;
    }
    let doubling = u64::from(ns.ilog2()) - 3;
    (STEPS * (doubling + 1) + (ns >> doubling) - STEPS) as usize
}

/// The largest value that is counted in a bucket.
fn upper_bound(index: usize) -> u64 {
    let index = index as u64;
    if index < STEPS {
        return index;
    }
    let doubling = index / STEPS - 1;
    ((u128::from(index % STEPS + STEPS + 1) << doubling) - 1).min(u128::from(u64::MAX)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_the_bucket_that_ends_nearest_above_it() {
        for ns in (0..5000).chain([1 << 20, (1 << 40) + 12345, u64::MAX]) {
            let index = bucket(ns);
            assert!(upper_bound(index) >= ns, "{ns} in {index}");
            assert!(index == 0 || upper_bound(index - 1) < ns, "{ns} in {index}");
        }
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_values_within_an_eighth() {
        let histogram = Histogram::default();
        (1..=1000).for_each(|us| histogram.record(us * 1000));
        let told = histogram.percentiles();
        assert!((500.0..=562.5).contains(&told.p50), "{told:?}");
        assert!((990.0..=1000.0).contains(&told.p99), "{told:?}");
        assert_eq!(told.max, 1000.0);
        assert_eq!(Histogram::default().percentiles(), Percentiles::default());
    }
}
