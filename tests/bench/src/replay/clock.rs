//! The trace's clock: it runs fast through the long quiet start of a trace and evenly through the rest.
//!
//! The openb trace lasts 149 days, and 97 of 100 tasks arrive in its last 32. One even rate would spend most of
//! the replay on nothing. So the clock has two rates: up to the moment at which arrivals lag most behind an even
//! flow, and from there on. Run times are real on this clock: a task that is granted at trace time t and ran for d
//! gives its lease back at t + d.

use std::time::{Duration, Instant};

/// The quiet start takes this part of the arrivals' replay time.
const QUIET_PART: f64 = 0.05;

/// Trace time from replay time, and back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct TraceClock {
    begun: Instant,
    first: f64,
    quiet_end: f64,
    quiet_seconds: f64,
    /// Trace seconds in one second of replay, after the quiet start.
    pub(super) rate: f64,
}

impl TraceClock {
    /// A clock that takes `seconds` from the first of these arrivals, which are in order, to the last.
    pub(super) fn new(begun: Instant, arrivals: &[f64], seconds: f64) -> Self {
        let first = arrivals.first().copied().unwrap_or(0.0);
        let last = arrivals.last().copied().unwrap_or(first).max(first + 1.0);
        let quiet_end = quiet_end(arrivals, first, last).min(last - 1.0);
        let quiet_seconds = seconds * QUIET_PART;
        let rate = (last - quiet_end) / (seconds - quiet_seconds);
        Self { begun, first, quiet_end, quiet_seconds, rate }
    }

    /// Seconds of replay at which a trace time comes.
    pub(super) fn replay_seconds(&self, trace: f64) -> f64 {
        if trace >= self.quiet_end {
            return self.quiet_seconds + (trace - self.quiet_end) / self.rate;
        }
        let span = (self.quiet_end - self.first).max(f64::MIN_POSITIVE);
        self.quiet_seconds * (trace - self.first).max(0.0) / span
    }

    fn trace_seconds(&self, replay: f64) -> f64 {
        if replay >= self.quiet_seconds {
            return self.quiet_end + (replay - self.quiet_seconds) * self.rate;
        }
        self.first + (self.quiet_end - self.first) * replay / self.quiet_seconds
    }

    /// The moment at which a trace time comes.
    pub(super) fn moment(&self, trace: f64) -> Instant {
        self.begun + Duration::from_secs_f64(self.replay_seconds(trace))
    }

    /// The trace time now.
    pub(super) fn now(&self) -> f64 {
        self.trace_seconds(self.elapsed())
    }

    /// Seconds of replay so far.
    pub(super) fn elapsed(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// When the quiet start ends, in seconds of replay.
    pub(super) fn quiet_seconds(&self) -> f64 {
        self.quiet_seconds
    }

    /// How long the quiet start is in the trace, in seconds.
    pub(super) fn quiet_span(&self) -> f64 {
        self.quiet_end - self.first
    }
}

/// The arrival at which the part of the time that is over most exceeds the part of the arrivals that came.
fn quiet_end(arrivals: &[f64], first: f64, last: f64) -> f64 {
    let mut best = (0.0, first);
    let mut came = 0.0;
    for arrival in arrivals {
        let lag = (arrival - first) / (last - first) - came;
        if lag > best.0 {
            best = (lag, *arrival);
        }
        came += 1.0 / f64::from(u32::try_from(arrivals.len()).unwrap_or(u32::MAX));
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One arrival a day for 80 days, then one an hour.
    fn arrivals() -> Vec<f64> {
        let quiet = (0..80).map(|day| f64::from(day) * 86_400.0);
        let busy = (0..480).map(|hour| 80.0 * 86_400.0 + f64::from(hour) * 3_600.0);
        quiet.chain(busy).collect()
    }

    #[test]
    fn the_quiet_start_ends_where_the_flow_begins() {
        let clock = TraceClock::new(Instant::now(), &arrivals(), 100.0);
        assert!((clock.quiet_end - 80.0 * 86_400.0).abs() < 1.0, "{clock:?}");
        assert!((clock.replay_seconds(80.0 * 86_400.0) - 5.0).abs() < 1e-6);
    }

    #[test]
    fn both_ways_agree_and_the_last_arrival_comes_when_it_was_asked_to() {
        let arrivals = arrivals();
        let clock = TraceClock::new(Instant::now(), &arrivals, 100.0);
        for arrival in &arrivals {
            let back = clock.trace_seconds(clock.replay_seconds(*arrival));
            assert!((back - arrival).abs() < 1e-3, "{arrival} became {back}");
        }
        let last = arrivals.last().copied().unwrap();
        assert!((clock.replay_seconds(last) - 100.0).abs() < 1e-6);
    }
}
