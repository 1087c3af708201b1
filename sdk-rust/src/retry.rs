//! When to try again: 100 ms × 1.5 each time, ±20 %, at most 5 s apart, 10 tries or the deadline.
//!
//! Only what [`Error::is_retryable`] says is tried again. Every mutating call is safe to repeat, because a request
//! id, or a lease id with its token, names the same thing each time.

use std::{future::Future, time::Duration};

use rand::Rng as _;

use crate::error::Error;

/// The pause before the second try.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Each pause is so much longer than the one before.
const GROWTH: f64 = 1.5;
/// Each pause is spread by so much to either side, so that many clients do not come back at once.
const SPREAD: f64 = 0.2;
/// Tries in all. Nine pauses are 100 ms × (1.5⁹ − 1) / 0.5 ≈ 7.5 s together.
pub(crate) const TRIES_MAX: u32 = 10;

/// The pauses between tries of one thing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// As it is after so many failures.
    pub(crate) const fn after(failures: u32) -> Self {
        Self { failures }
    }

    /// The pause after one more failure; the coordinator's own wish is a lower bound.
    pub(crate) fn pause(&mut self, retry_after: Option<Duration>) -> Duration {
        let spread = rand::rng().random_range(1.0 - SPREAD..=1.0 + SPREAD);
        let pause = pause_mean(self.failures).mul_f64(spread).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        pause.max(retry_after.unwrap_or_default())
    }

    /// Like [`Self::pause`], but `None` once all tries are used up.
    pub(crate) fn next(&mut self, retry_after: Option<Duration>) -> Option<Duration> {
        (self.failures + 1 < TRIES_MAX).then(|| self.pause(retry_after))
    }

    /// Forgets the failures.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// The pause after so many earlier failures, before the spread.
fn pause_mean(failures: u32) -> Duration {
    let factor = GROWTH.powi(i32::try_from(failures.min(64)).unwrap_or(64));
    Duration::try_from_secs_f64(PAUSE_FIRST.as_secs_f64() * factor)
        .map_or(PAUSE_MAX, |pause| pause.min(PAUSE_MAX))
}

/// Runs `call` until it succeeds, fails for good, or the tries are used up.
pub(crate) async fn repeat<T, F>(mut call: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut backoff = Backoff::default();
    loop {
        let error = match call().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if !error.is_retryable() {
            return Err(error);
        }
        let Some(pause) = backoff.next(error.retry_after()) else { return Err(error) };
        tracing::debug!(%error, ?pause, "call failed, trying again");
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_by_half_up_to_five_seconds() {
        let expected_milliseconds =
            [100, 150, 225, 337, 506, 759, 1_139, 1_708, 2_562, 3_844, 5_000, 5_000];
        for (failures, expected) in (0_u32..).zip(expected_milliseconds) {
            assert_eq!(pause_mean(failures).as_millis(), expected, "after {failures} failures");
        }
        assert_eq!(pause_mean(u32::MAX), PAUSE_MAX);
    }

    #[test]
    fn every_pause_stays_within_a_fifth_of_its_mean_and_below_the_longest() {
        for failures in 0..20 {
            for _ in 0..50 {
                let pause = Backoff { failures }.pause(None);
                let mean = pause_mean(failures);
                assert!(pause >= mean.mul_f64(0.799), "{pause:?} after {failures} failures");
                assert!(pause <= mean.mul_f64(1.201).min(PAUSE_MAX), "{pause:?}");
            }
        }
    }

    #[test]
    fn ten_tries_are_made_and_no_more() {
        let mut backoff = Backoff::default();
        let pauses = std::iter::from_fn(|| backoff.next(None)).count();
        assert_eq!(pauses + 1, TRIES_MAX as usize);
    }

    #[test]
    fn the_coordinators_wish_is_a_lower_bound() {
        let wish = Duration::from_secs(30);
        assert_eq!(Backoff::default().pause(Some(wish)), wish);
    }
}
