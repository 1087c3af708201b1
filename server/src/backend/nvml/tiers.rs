//! When to read what: three tiers, each with a period of its own, and checks in between.
//!
//! Promises: a kind of pass that takes over a fifth of its period comes less often, until it takes a fifth again or
//! its bound is reached; what was missed is skipped.

use std::time::Duration;

use gpulease_core::time::{Span, Time};

use super::super::SAMPLE_PERIOD;

/// One kind of pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tier {
    period: Span,
    period_max: Span,
    next: Time,
}

impl Tier {
    /// Figures that are cheap. Backing off ends before the 3 s after which a device is stale: a driver that is slower
    /// than that makes its devices stale in any case.
    pub(super) fn samples() -> Self {
        Self::every(SAMPLE_PERIOD, Span::from_millis(2_500))
    }

    /// Processes: a call that takes a thousand times as long.
    pub(super) fn processes() -> Self {
        Self::every(Span::from_secs(5), Span::from_secs(60))
    }

    /// What there is.
    pub(super) fn inventory() -> Self {
        Self::every(Span::from_secs(30), Span::from_secs(600))
    }

    fn every(period: Span, period_max: Span) -> Self {
        Self { period, period_max, next: Time::ZERO }
    }

    pub(super) fn due_at(&self) -> Time {
        self.next
    }

    pub(super) fn is_due(&self, now: Time) -> bool {
        self.next <= now
    }

    /// A pass that began then took so long.
    pub(super) fn took(&mut self, began: Time, took: Duration) {
        let long = Span::from(took).times(BACK_OFF);
        self.next = began.after(self.period.max(long).min(self.period_max.max(self.period)));
    }
}

/// One part in so many of the time, at most, is spent on one kind of pass.
const BACK_OFF: u64 = 5;

/// The longest that a check waits for the one before it: within the 2 s that a release waits for its check.
const CHECK_PAUSE_MAX: Span = Span::from_millis(500);

/// When the next check may begin, after one that began then and took so long: checks come when they are asked for, but
/// a storm of releases must not hold the driver's lock all the time.
pub(super) fn next_check(began: Time, took: Duration) -> Time {
    began.after(Span::from(took).times(BACK_OFF).min(CHECK_PAUSE_MAX))
}

/// The time from one try to open the driver to the next: a second, then twice as long each time, up to a minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backoff {
    failures: u32,
    retry_at: Time,
}

impl Backoff {
    pub(super) fn is_over(&self, now: Time) -> bool {
        self.retry_at <= now
    }

    pub(super) fn failed(&mut self, now: Time) {
        let pause = Span::from_secs(1 << self.failures.min(6)).min(Span::from_secs(60));
        self.failures = self.failures.saturating_add(1);
        self.retry_at = now.after(pause);
    }

    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(mut tier: Tier, took_millis: u64) -> u64 {
        tier.took(Time::from_millis(10_000), Duration::from_millis(took_millis));
        tier.due_at().as_millis() - 10_000
    }

    #[test]
    fn a_quick_pass_keeps_its_period_and_a_slow_one_comes_less_often() {
        assert_eq!(
            [0, 200, 300, 5_000].map(|took| next(Tier::samples(), took)),
            [1_000, 1_000, 1_500, 2_500]
        );
        assert_eq!(
            [900, 2_000, 60_000].map(|took| next(Tier::processes(), took)),
            [5_000, 10_000, 60_000]
        );
    }

    #[test]
    fn checks_leave_the_driver_four_fifths_of_the_time() {
        let next = |took| next_check(Time::ZERO, Duration::from_millis(took)).as_millis();
        assert_eq!([0, 5, 1_000].map(next), [0, 25, 500]);
    }

    #[test]
    fn a_driver_that_stays_away_is_tried_ever_less_often() {
        let mut backoff = Backoff::default();
        let mut now = Time::ZERO;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert!(backoff.is_over(now));
            backoff.failed(now);
            pauses.push(backoff.retry_at.since(now).as_millis() / 1_000);
            now = backoff.retry_at;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        backoff.succeeded();
        assert!(backoff.is_over(Time::ZERO));
    }
}
