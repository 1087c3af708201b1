//! The circuit breaker: a coordinator that keeps failing is left alone for a while, so that work goes on without it.
//!
//! | state | event | then |
//! |---|---|---|
//! | closed | enough failures in a row, enough calls in all | open |
//! | open | the cooldown is over | half-open: the next request asks the health service first |
//! | half-open | enough health checks succeed | closed |
//! | any | the session of a held lease opens | closed |
//! | half-open | one fails | open |
//!
//! Failures are: unavailable, no connection, no answer in time. Every other answer is a success, refusals included.
//! While a lease may still be valid nothing is refused: its holder needs the coordinator more than anything else.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::error::{Error, ErrorKind};

/// When the circuit opens and closes.
///
/// Counted is each try to open the session and each answer to an acquire, its own repetitions included: a failure is
/// that the coordinator is unavailable, cannot be connected to, or says nothing in time; anything else that it answers,
/// be it a refusal, is a success. Renewals, releases and reading calls do not count.
///
/// ```
/// use gpulease::BreakerSettings;
/// use std::time::Duration;
/// let settings = BreakerSettings::default().failures(5).cooldown(Duration::from_secs(5));
/// # let _ = settings;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "settings do nothing until they are passed to ClientBuilder::breaker"]
pub struct BreakerSettings {
    pub(crate) failures: u32,
    pub(crate) cooldown: Duration,
    pub(crate) successes: u32,
    pub(crate) calls_min: u32,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self { failures: 15, cooldown: Duration::from_secs(20), successes: 3, calls_min: 10 }
    }
}

impl BreakerSettings {
    /// So many failures in a row open it, at least one. Default: 15.
    pub fn failures(mut self, failures: u32) -> Self {
        self.failures = failures.max(1);
        self
    }

    /// So long it stays open. Default: 20 s.
    pub fn cooldown(mut self, cooldown: Duration) -> Self {
        self.cooldown = cooldown;
        self
    }

    /// So many health checks in a row close it, at least one. Default: 3.
    pub fn successes(mut self, successes: u32) -> Self {
        self.successes = successes.max(1);
        self
    }

    /// It does not open before so many calls. Default: 10.
    pub fn calls_min(mut self, calls: u32) -> Self {
        self.calls_min = calls;
        self
    }
}

/// Where the circuit breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BreakerState {
    /// Requests go to the coordinator.
    Closed,
    /// Requests fail at once.
    Open,
    /// The next request asks the health service whether it is worth while.
    HalfOpen,
}

#[derive(Debug)]
enum Circuit {
    Closed {
        failures: u32,
    },
    Open {
        until: Duration,
    },
    /// Somebody asks the health service now.
    Probing,
}

/// What a request may do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Go to the coordinator.
    Go,
    /// Ask the health service so often, and say what came of it.
    Probe(u32),
    /// Fail at once; it may help to come back after this.
    Refuse(Duration),
}

/// One client's circuit breaker.
#[derive(Debug)]
pub(crate) struct Breaker {
    settings: BreakerSettings,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    circuit: Circuit,
    calls: u32,
    /// How often it opened.
    opened: u64,
}

impl Breaker {
    pub(crate) fn new(settings: BreakerSettings) -> Self {
        let inner = Inner { circuit: Circuit::Closed { failures: 0 }, calls: 0, opened: 0 };
        Self { settings, inner: Mutex::new(inner) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request may go to the coordinator. `holds`: a lease of the client's may still be valid.
    pub(crate) fn admit(&self, holds: bool, now: Duration) -> Admission {
        let mut inner = self.inner();
        match inner.circuit {
            _ if holds => Admission::Go,
            Circuit::Closed { .. } => Admission::Go,
            Circuit::Open { until } if now < until => Admission::Refuse(until.saturating_sub(now)),
            Circuit::Open { .. } => {
                inner.circuit = Circuit::Probing;
                Admission::Probe(self.settings.successes)
            }
            Circuit::Probing => Admission::Refuse(Duration::ZERO),
        }
    }

    /// The coordinator answered.
    pub(crate) fn answered(&self) {
        let mut inner = self.inner();
        inner.calls = inner.calls.saturating_add(1);
        if let Circuit::Closed { failures } = &mut inner.circuit {
            *failures = 0;
        }
    }

    /// A session is open: better than any health check.
    pub(crate) fn reached(&self) {
        self.inner().circuit = Circuit::Closed { failures: 0 };
    }

    /// A call to the coordinator failed: counted where it means that the coordinator does.
    pub(crate) fn failed(&self, error: &Error, now: Duration) {
        if !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::DeadlineExceeded) {
            return self.answered();
        }
        let mut inner = self.inner();
        inner.calls = inner.calls.saturating_add(1);
        let enough_calls = inner.calls >= self.settings.calls_min;
        let Circuit::Closed { failures } = &mut inner.circuit else { return };
        *failures = failures.saturating_add(1);
        if *failures >= self.settings.failures && enough_calls {
            self.open(&mut inner, now);
        }
    }

    fn open(&self, inner: &mut Inner, now: Duration) {
        let until = now.saturating_add(self.settings.cooldown);
        tracing::warn!(cooldown = ?self.settings.cooldown, "the coordinator keeps failing: circuit open");
        inner.circuit = Circuit::Open { until };
        inner.opened = inner.opened.saturating_add(1);
    }

    /// What came of asking the health service.
    pub(crate) fn probed(&self, healthy: bool, now: Duration) {
        let mut inner = self.inner();
        if !matches!(inner.circuit, Circuit::Probing) {
            return;
        }
        if healthy {
            tracing::info!("the coordinator serves again: circuit closed");
            (inner.circuit, inner.calls) = (Circuit::Closed { failures: 0 }, 0);
        } else {
            self.open(&mut inner, now);
        }
    }

    pub(crate) fn state(&self, now: Duration) -> BreakerState {
        match self.inner().circuit {
            Circuit::Closed { .. } => BreakerState::Closed,
            Circuit::Open { until } if now < until => BreakerState::Open,
            Circuit::Open { .. } | Circuit::Probing => BreakerState::HalfOpen,
        }
    }

    /// How often it opened.
    pub(crate) fn opened(&self) -> u64 {
        self.inner().opened
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);
    const COOLDOWN: Duration = Duration::from_secs(20);

    fn breaker(failures: u32) -> Breaker {
        let breaker = Breaker::new(BreakerSettings::default());
        fail(&breaker, failures);
        breaker
    }

    fn fail(breaker: &Breaker, times: u32) {
        for _ in 0..times {
            breaker.failed(&Error::new(ErrorKind::Unavailable, "UNREACHABLE", ""), NOW);
        }
    }

    #[test]
    fn fifteen_failures_in_a_row_open_it_for_twenty_seconds() {
        let breaker = breaker(14);
        assert_eq!(breaker.admit(false, NOW), Admission::Go);
        fail(&breaker, 1);
        assert_eq!(breaker.admit(false, NOW), Admission::Refuse(COOLDOWN));
        assert_eq!(breaker.state(NOW), BreakerState::Open);
        assert_eq!(breaker.state(NOW + COOLDOWN), BreakerState::HalfOpen);
        assert_eq!(breaker.opened(), 1);
    }

    #[test]
    fn an_answer_between_failures_starts_the_count_anew_and_a_refusal_is_an_answer() {
        let breaker = breaker(14);
        breaker.failed(&Error::new(ErrorKind::NoCapacity, "NO_CAPACITY", ""), NOW);
        fail(&breaker, 14);
        assert_eq!(breaker.state(NOW), BreakerState::Closed);
    }

    #[test]
    fn it_does_not_open_before_the_least_number_of_calls() {
        let breaker = Breaker::new(BreakerSettings::default().failures(2));
        fail(&breaker, 9);
        assert_eq!(breaker.state(NOW), BreakerState::Closed);
        fail(&breaker, 1);
        assert_eq!(breaker.state(NOW), BreakerState::Open);
    }

    #[test]
    fn while_a_lease_may_be_valid_nothing_is_refused() {
        assert_eq!(breaker(15).admit(true, NOW), Admission::Go);
    }

    #[test]
    fn one_request_probes_and_the_outcome_decides() {
        let breaker = breaker(15);
        let later = NOW + COOLDOWN;
        assert_eq!(breaker.admit(false, later), Admission::Probe(3));
        assert_eq!(breaker.admit(false, later), Admission::Refuse(Duration::ZERO));
        breaker.probed(false, later);
        assert_eq!(breaker.admit(false, later), Admission::Refuse(COOLDOWN));
        assert_eq!(breaker.admit(false, later + COOLDOWN), Admission::Probe(3));
        breaker.probed(true, later + COOLDOWN);
        assert_eq!(breaker.admit(false, later + COOLDOWN), Admission::Go);
    }
}
