//! The thread that steps a backend when it is due, or when something was asked of it.
//!
//! It promises that stopping takes at most [`STOP_MAX`], whatever the backend does: a step that hangs in a driver is
//! left behind with its thread, and no report passes the sink once `stop` has returned, the one that is just being
//! delivered excepted.
//! It leaves to the core to notice that a backend went silent.

use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gpulease_core::{input::Input, time::Time};

use super::{Asked, Backend, BackendError, Handle, Measurement, Sink, Summary};

/// How long [`Running::stop`] waits for the thread. A step takes microseconds, or milliseconds with a driver; 1 s
/// leaves four of the five seconds of a graceful stop to everything else.
pub const STOP_MAX: Duration = Duration::from_secs(1);

/// A backend at work. Dropping it stops it too, without waiting.
#[derive(Debug)]
pub struct Running {
    summary: Summary,
    shared: Arc<Shared>,
}

/// How a stop went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The thread has ended.
    Ended,
    /// A step did not return in time, and its thread was left behind.
    LeftBehind,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    /// Since the last step.
    asked: Asked,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Running,
    Stopping,
    Ended,
}

/// Starts a thread that steps `backend` from now on, and brings it what is asked through the handle.
///
/// # Errors
/// `Thread` if the system gives none.
pub(super) fn run(
    mut backend: Box<dyn Backend>,
    sink: Box<dyn Sink>,
    handle: &Handle,
) -> Result<Running, BackendError> {
    let summary = backend.summary();
    let shared = handle.shared.clone();
    let ending = Ending(shared.clone());
    std::thread::Builder::new()
        .name(format!("backend-{}", summary.name))
        .spawn(move || {
            let mut gate = Gate { sink, shared: ending.0.clone() };
            ending.0.pace(&mut *backend, &mut gate);
        })
        .map_err(|source| BackendError::Thread { backend: summary.name, source })?;
    Ok(Running { summary, shared })
}

impl Running {
    /// What runs.
    #[must_use]
    pub fn summary(&self) -> Summary {
        self.summary
    }

    /// Stops it, waiting at most [`STOP_MAX`].
    pub fn stop(self) -> Stopped {
        self.stop_within(STOP_MAX)
    }

    fn stop_within(self, bound: Duration) -> Stopped {
        self.shared.ask_to_stop();
        let waited = self
            .shared
            .changed
            .wait_timeout_while(self.shared.lock(), bound, |state| state.phase != Phase::Ended);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.phase == Phase::Ended { Stopped::Ended } else { Stopped::LeftBehind }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.ask_to_stop();
    }
}

impl Shared {
    /// No change of it can panic half way, so that it is whole whatever happened elsewhere.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask_to_stop(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Running {
            state.phase = Phase::Stopping;
        }
        self.changed.notify_all();
    }

    /// Adds to what waits for the next step, and wakes the thread for it.
    pub(super) fn ask(&self, add: impl FnOnce(&mut Asked)) {
        let mut state = self.lock();
        if state.phase == Phase::Running {
            add(&mut state.asked);
            self.changed.notify_all();
        }
    }

    fn pace(&self, backend: &mut dyn Backend, sink: &mut dyn Sink) {
        let started = Instant::now();
        loop {
            let asked = mem::take(&mut self.lock().asked);
            if !asked.is_empty() {
                backend.ask(asked);
            }
            backend.step(time_since(started), sink);
            let pause = backend.due_at().since(time_since(started)).as_duration();
            let waited = self.changed.wait_timeout_while(self.lock(), pause, |state| {
                state.phase == Phase::Running && state.asked.is_empty()
            });
            if waited.unwrap_or_else(PoisonError::into_inner).0.phase != Phase::Running {
                return;
            }
        }
    }
}

fn time_since(started: Instant) -> Time {
    Time::from_millis(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX))
}

/// Says that the thread has ended, by a panic too: it is dropped with the thread's closure.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.lock().phase = Phase::Ended;
        self.0.changed.notify_all();
    }
}

/// Lets nothing pass once a stop was asked for.
struct Gate {
    sink: Box<dyn Sink>,
    shared: Arc<Shared>,
}

impl Sink for Gate {
    fn report(&mut self, input: Input) {
        if self.shared.lock().phase == Phase::Running {
            self.sink.report(input);
        }
    }

    fn measured(&mut self, measurements: Vec<Measurement>) {
        if self.shared.lock().phase == Phase::Running {
            self.sink.measured(measurements);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Says when a step begins, and may hang in it until it is let go.
    struct Probe {
        stepped: Sender<Time>,
        hang: Option<Receiver<()>>,
        due: Time,
    }

    impl Backend for Probe {
        fn summary(&self) -> Summary {
            Summary { name: "probe", nodes: 0, devices: 0 }
        }

        fn step(&mut self, now: Time, sink: &mut dyn Sink) {
            // The test may have stopped listening.
            let _ = self.stepped.send(now);
            if let Some(hang) = &self.hang {
                let _ = hang.recv();
            }
            sink.report(Input::Tick);
        }

        fn due_at(&self) -> Time {
            self.due
        }
    }

    struct Counting(Sender<Input>);

    impl Sink for Counting {
        fn report(&mut self, input: Input) {
            let _ = self.0.send(input);
        }

        fn measured(&mut self, _: Vec<Measurement>) {}
    }

    fn started(
        hang: Option<Receiver<()>>,
        due: Time,
    ) -> (Running, Receiver<Time>, Receiver<Input>) {
        let (stepped, steps) = channel();
        let (reported, reports) = channel();
        let probe = Probe { stepped, hang, due };
        let running =
            run(Box::new(probe), Box::new(Counting(reported)), &Handle::default()).unwrap();
        (running, steps, reports)
    }

    #[test]
    fn a_backend_that_is_never_due_again_stops_at_once() {
        let (running, steps, reports) = started(None, Time::NEVER);
        steps.recv().unwrap();
        assert_eq!(running.stop(), Stopped::Ended);
        assert!(steps.try_recv().is_err(), "it was stepped again");
        assert!(reports.into_iter().count() <= 1, "the sink is dropped with the thread");
    }

    #[test]
    fn a_backend_that_is_overdue_is_stepped_again_and_again() {
        let (running, steps, _reports) = started(None, Time::ZERO);
        let times: Vec<Time> = steps.iter().take(5).collect();
        assert!(times.is_sorted(), "{times:?}");
        assert_eq!(running.stop(), Stopped::Ended);
    }

    #[test]
    fn what_is_asked_wakes_a_backend_that_is_never_due() {
        struct Asks(Sender<Asked>);
        impl Backend for Asks {
            fn summary(&self) -> Summary {
                Summary { name: "asks", nodes: 0, devices: 0 }
            }
            fn ask(&mut self, asked: Asked) {
                let _ = self.0.send(asked);
            }
            fn step(&mut self, _: Time, _: &mut dyn Sink) {}
            fn due_at(&self) -> Time {
                Time::NEVER
            }
        }
        let (sender, asked) = channel();
        let handle = Handle::default();
        handle.check("a".into(), 2);
        let running =
            run(Box::new(Asks(sender)), Box::new(Counting(channel().0)), &handle).unwrap();
        assert_eq!(asked.recv().unwrap().checks["a"], 2, "what was asked before it ran");
        for number in [3, 4] {
            handle.check("a".into(), number);
            assert_eq!(asked.recv().unwrap().checks["a"], number);
        }
        assert_eq!(running.stop(), Stopped::Ended);
        handle.check("a".into(), 5);
        assert!(asked.recv().is_err(), "asked after the stop");
    }

    #[test]
    fn a_step_that_hangs_is_left_behind_and_reports_no_more() {
        let (release, hang) = channel();
        let (running, steps, reports) = started(Some(hang), Time::NEVER);
        steps.recv().unwrap();
        assert_eq!(running.stop_within(Duration::from_millis(1)), Stopped::LeftBehind);
        drop(release);
        assert_eq!(reports.into_iter().count(), 0, "a late report passed the gate");
    }

    #[test]
    fn dropping_a_running_backend_stops_it() {
        let (running, steps, _reports) = started(None, Time::ZERO);
        drop(running);
        // The steps end only when the thread does.
        steps.into_iter().for_each(drop);
    }

    #[test]
    fn a_step_that_panics_ends_the_thread_and_a_stop_sees_it() {
        struct Panics;
        impl Backend for Panics {
            fn summary(&self) -> Summary {
                Summary { name: "panics", nodes: 0, devices: 0 }
            }
            fn step(&mut self, _: Time, _: &mut dyn Sink) {
                panic!("this panic is part of the test");
            }
            fn due_at(&self) -> Time {
                Time::NEVER
            }
        }
        let sink = Box::new(Counting(channel().0));
        let running = run(Box::new(Panics), sink, &Handle::default()).unwrap();
        assert_eq!(running.stop(), Stopped::Ended);
    }
}
