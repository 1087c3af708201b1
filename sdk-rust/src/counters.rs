//! What a client has been through, in figures: how often it asked, what it got, how long that took.
//!
//! | figure | is |
//! |---|---|
//! | success rate | grants ÷ requests that had an end; requests that asked nobody, because GPUs are disabled, left out |
//! | GPU rate | grants ÷ bodies that ran, on a GPU or on the CPU |
//! | fallback rate | fallbacks to the CPU that nobody chose ÷ requests that had an end |
//! | latency | from the request to its grant, waiting included |
//!
//! Each client counts for itself; its clones share the figures.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Latencies are sorted into buckets whose bounds grow by √2 from 1 µs: 64 of them reach past an hour, and a quantile
/// is at most 42 % above the truth.
const BUCKETS: usize = 64;

/// A client's figures since it was made.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Counters {
    /// Requests for a lease that had an end.
    pub requests: u64,
    /// Of these, granted.
    pub granted: u64,
    /// Of these, answered with the CPU because no GPU could be had.
    pub fallbacks: u64,
    /// Of these, failed: the caller got an error.
    pub failed: u64,
    /// Times that the CPU was chosen because GPUs are disabled; not among the requests.
    pub disabled: u64,
    /// How often the circuit breaker opened.
    pub circuit_opened: u64,
    /// Operations that the holders of this client's leases told of.
    pub operations: u64,
    /// How long they took together.
    pub operations_busy: Duration,
    /// The mean time from a request to its grant.
    pub latency_mean: Option<Duration>,
    /// The time within which half of the grants came.
    pub latency_p50: Option<Duration>,
    /// The time within which 95 of 100 grants came.
    pub latency_p95: Option<Duration>,
    /// The time within which 99 of 100 grants came.
    pub latency_p99: Option<Duration>,
}

impl Counters {
    /// Grants among the requests that had an end; `None` before the first.
    #[must_use]
    pub fn success_rate(&self) -> Option<f64> {
        rate(self.granted, self.requests)
    }

    /// Bodies that ran on a GPU among all that ran; `None` before the first.
    #[must_use]
    pub fn gpu_rate(&self) -> Option<f64> {
        rate(self.granted, self.granted + self.fallbacks + self.disabled)
    }

    /// Fallbacks that nobody chose among the requests that had an end; `None` before the first.
    #[must_use]
    pub fn fallback_rate(&self) -> Option<f64> {
        rate(self.fallbacks, self.requests)
    }
}

#[allow(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
fn rate(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending {
    Granted(Duration),
    Fallback,
    Failed,
    Disabled,
}

/// The figures while they grow.
#[derive(Debug)]
pub(crate) struct Tally {
    granted: AtomicU64,
    fallbacks: AtomicU64,
    failed: AtomicU64,
    disabled: AtomicU64,
    operations: AtomicU64,
    operations_busy_nanos: AtomicU64,
    latency_nanos: AtomicU64,
    latencies: [AtomicU64; BUCKETS],
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            granted: AtomicU64::default(),
            fallbacks: AtomicU64::default(),
            failed: AtomicU64::default(),
            disabled: AtomicU64::default(),
            operations: AtomicU64::default(),
            operations_busy_nanos: AtomicU64::default(),
            latency_nanos: AtomicU64::default(),
            latencies: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }
}

impl Tally {
    pub(crate) fn ended(&self, ending: Ending) {
        let counter = match ending {
            Ending::Granted(latency) => {
                self.latency_nanos.fetch_add(nanos(latency), Ordering::Relaxed);
                self.latencies[bucket(latency)].fetch_add(1, Ordering::Relaxed);
                &self.granted
            }
            Ending::Fallback => &self.fallbacks,
            Ending::Failed => &self.failed,
            Ending::Disabled => &self.disabled,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn worked(&self, count: u64, busy: Duration) {
        self.operations.fetch_add(count, Ordering::Relaxed);
        self.operations_busy_nanos.fetch_add(nanos(busy), Ordering::Relaxed);
    }

    pub(crate) fn read(&self, circuit_opened: u64) -> Counters {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (granted, fallbacks, failed) =
            (load(&self.granted), load(&self.fallbacks), load(&self.failed));
        let latencies: Vec<u64> = self.latencies.iter().map(load).collect();
        let mean = load(&self.latency_nanos).checked_div(granted).map(Duration::from_nanos);
        Counters {
            requests: granted + fallbacks + failed,
            granted,
            fallbacks,
            failed,
            disabled: load(&self.disabled),
            circuit_opened,
            operations: load(&self.operations),
            operations_busy: Duration::from_nanos(load(&self.operations_busy_nanos)),
            latency_mean: mean,
            latency_p50: quantile(&latencies, 50),
            latency_p95: quantile(&latencies, 95),
            latency_p99: quantile(&latencies, 99),
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The upper bound of a bucket: 1 µs × √2 to the power of its number.
fn bound(bucket: usize) -> Duration {
    let factor = 2_f64.powf(f64::from(u32::try_from(bucket).unwrap_or(u32::MAX)) / 2.0);
    Duration::from_secs_f64(1e-6 * factor)
}

fn bucket(latency: Duration) -> usize {
    (0..BUCKETS - 1).find(|index| latency <= bound(*index)).unwrap_or(BUCKETS - 1)
}

/// The upper bound of the bucket that the quantile falls into.
fn quantile(latencies: &[u64], percent: u64) -> Option<Duration> {
    let count: u64 = latencies.iter().sum();
    let rank = (count * percent).div_ceil(100).max(1);
    let mut seen = 0;
    latencies.iter().enumerate().find_map(|(index, in_bucket)| {
        seen += in_bucket;
        (count > 0 && seen >= rank).then(|| bound(index))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_unknown_before_there_is_anything_to_count() {
        let counters = Tally::default().read(0);
        assert_eq!(counters, Counters::default());
        assert_eq!((counters.success_rate(), counters.gpu_rate()), (None, None));
    }

    #[test]
    fn rates_count_what_their_table_says() {
        let tally = Tally::default();
        for _ in 0..6 {
            tally.ended(Ending::Granted(Duration::from_millis(10)));
        }
        tally.ended(Ending::Fallback);
        tally.ended(Ending::Failed);
        tally.ended(Ending::Disabled);
        let counters = tally.read(2);
        assert_eq!((counters.requests, counters.circuit_opened), (8, 2));
        assert_eq!(counters.success_rate(), Some(0.75));
        assert_eq!(counters.gpu_rate(), Some(0.75));
        assert_eq!(counters.fallback_rate(), Some(0.125));
        assert_eq!(counters.latency_mean, Some(Duration::from_millis(10)));
    }

    #[test]
    fn a_quantile_is_never_below_the_truth_and_at_most_42_percent_above() {
        let tally = Tally::default();
        for milliseconds in 1..=100 {
            tally.ended(Ending::Granted(Duration::from_millis(milliseconds)));
        }
        let counters = tally.read(0);
        let check = |read: Option<Duration>, milliseconds: u64| {
            let (read, truth) = (read.unwrap(), Duration::from_millis(milliseconds));
            assert!(read >= truth && read <= truth.mul_f64(1.42), "{read:?} for {truth:?}");
        };
        check(counters.latency_p50, 50);
        check(counters.latency_p95, 95);
        check(counters.latency_p99, 99);
    }

    #[test]
    fn a_latency_beyond_the_last_bucket_is_in_the_last() {
        assert_eq!(bucket(Duration::from_secs(1_000_000)), BUCKETS - 1);
        assert!(bound(BUCKETS - 1) > Duration::from_secs(3_000));
    }
}
