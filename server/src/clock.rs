//! Time at the edge: coordinator time for decisions, wall time for display.
//!
//! Promises: coordinator time only grows, at the pace of the monotonic clock, and goes on from where the journal
//! stood (P5); a jump of the wall clock moves no deadline. Wall time is made from it at the moment of display.
//! [`FakeClock`] moves only when a test says so.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime},
};

use gpulease_core::time::{Span, Time};

/// What tells the time.
pub trait Clock: Send + Sync {
    /// Coordinator time.
    fn now(&self) -> Time;

    /// Wall time, for display.
    fn wall_now(&self) -> SystemTime;

    /// The wall time of a moment of coordinator time, for display. Of a moment before the last start it is too late
    /// by as long as the coordinator was down, for coordinator time stands still then.
    fn wall(&self, at: Time) -> SystemTime {
        let (now, wall) = (self.now(), self.wall_now());
        let past = wall.checked_sub(now.since(at).as_duration());
        past.and_then(|past| past.checked_add(at.since(now).as_duration())).unwrap_or(wall)
    }
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    origin: Time,
    started: Instant,
}

impl SystemClock {
    /// A clock that stands at `origin` now: the time of the last committed batch.
    #[must_use]
    pub fn starting_at(origin: Time) -> Self {
        Self { origin, started: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Time {
        // Rounded down: a deadline is never early.
        let millis = self.started.elapsed().as_millis();
        self.origin.after(Span::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)))
    }

    fn wall_now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// A clock that a test moves.
#[derive(Debug, Default)]
pub struct FakeClock {
    now_millis: AtomicU64,
}

impl FakeClock {
    /// A clock that stands at `now`.
    #[must_use]
    pub fn at(now: Time) -> Self {
        Self { now_millis: AtomicU64::new(now.as_millis()) }
    }

    /// Lets time pass.
    pub fn advance(&self, span: Span) {
        self.now_millis.fetch_add(span.as_millis(), Ordering::Relaxed);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Time {
        Time::from_millis(self.now_millis.load(Ordering::Relaxed))
    }

    /// The first moment is the start of 1970.
    fn wall_now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.now().as_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinator_time_goes_on_from_where_the_journal_stood() {
        let clock = SystemClock::starting_at(Time::from_millis(5_000));
        let (first, second) = (clock.now(), clock.now());
        assert!(first >= Time::from_millis(5_000) && second >= first);
    }

    #[test]
    fn wall_time_of_a_moment_is_as_far_from_now_as_the_moment() {
        let clock = FakeClock::at(Time::from_millis(10_000));
        clock.advance(Span::from_secs(5));
        let epoch = SystemTime::UNIX_EPOCH;
        assert_eq!(clock.wall(Time::from_millis(3_000)), epoch + Duration::from_secs(3));
        assert_eq!(clock.wall(Time::from_millis(20_000)), epoch + Duration::from_secs(20));
    }
}
