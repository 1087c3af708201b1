//! The process that gives way: what is sent to it, and whether it has stopped.
//!
//! Promises: a signal that the process does not handle is never sent alone: it would end the process, or stop it with
//! its memory in place.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use rustix::process::{Pid, kill_process, kill_process_group};
use tokio::time::{sleep, timeout};

use crate::run::exit::ProcessExit;
use crate::run::terminal::Terminal;

/// How often a process is looked at that is to stop: nobody but its parent is told when it does.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// How long a process may take to stop by a signal that stops it: the kernel needs no such time, a handler might.
const STOP_MAX: Duration = Duration::from_secs(2);

/// The process that gives way.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    id: Pid,
    /// Where somebody else started it: it gets signals, and nobody that has its id afterwards. Else it leads a process
    /// group of its own, which was started for it.
    stranger: Option<ProcessExit>,
    terminal: Option<Terminal>,
    set_aside: Arc<AtomicBool>,
}

impl Worker {
    /// The leader of a process group that this program started.
    pub(crate) fn leader(id: Pid, terminal: Option<Terminal>, set_aside: Arc<AtomicBool>) -> Self {
        Self { id, stranger: None, terminal, set_aside }
    }

    /// A process that somebody else started.
    pub(crate) fn stranger(id: Pid, process: ProcessExit) -> Self {
        Self { id, stranger: Some(process), terminal: None, set_aside: Arc::default() }
    }

    pub(crate) fn id(&self) -> Pid {
        self.id
    }

    /// From now on a stop of it is part of its pause.
    pub(crate) fn set_aside(&self) {
        self.set_aside.store(true, Ordering::Release);
    }

    /// It has paused. While it is stopped it cannot take a Ctrl-C: this program does.
    pub(crate) fn paused(&self) {
        if let Some(terminal) = self.terminal.filter(|_| self.is_stopped()) {
            terminal.take_back(self.id);
        }
    }

    /// It goes on.
    pub(crate) fn bring_back(&self) {
        self.set_aside.store(false, Ordering::Release);
        if let Some(terminal) = self.terminal {
            terminal.lend(self.id);
        }
    }

    /// Sends it a signal; SIGCONT to its whole group, since stopping may have stopped all of that.
    pub(crate) fn signal(&self, signal: Signal) {
        let Some(signal) = rustix::process::Signal::from_named_raw(signal as i32) else { return };
        // One that is gone needs no signal.
        let _ = match (&self.stranger, signal) {
            (Some(process), _) => process.signal(signal),
            (None, rustix::process::Signal::CONT) => kill_process_group(self.id, signal),
            (None, _) => kill_process(self.id, signal),
        };
    }

    /// Sends it a signal that it handles by freeing its device memory and stopping itself; returns when it has.
    pub(crate) async fn stop_by(&self, signal: Signal) -> Result<(), String> {
        if !self.handles(signal) {
            return Err(format!(
                "process {} does not handle {signal}: it was not sent, since nothing would free the device memory",
                self.id.as_raw_pid()
            ));
        }
        let was_stopped = self.is_stopped();
        self.signal(signal);
        if was_stopped {
            // Stopped before, and for another reason: it takes the signal only when it goes on.
            self.signal(Signal::SIGCONT);
        }
        self.stopped().await;
        Ok(())
    }

    /// Waits until it has stopped, or has not for so long that it handles the signal in another way.
    pub(crate) async fn has_stopped(&self) {
        let _ = timeout(STOP_MAX, self.stopped()).await;
    }

    async fn stopped(&self) {
        while !self.is_stopped() {
            sleep(LOOK_INTERVAL).await;
        }
    }

    fn handles(&self, signal: Signal) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id.as_raw_pid()));
        status.is_ok_and(|status| catches(&status, signal as i32))
    }

    pub(crate) fn is_stopped(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id.as_raw_pid()));
        // Behind the name, which is in parentheses and may hold anything, stands the state.
        let state = |stat: String| stat.rsplit_once(") ").map(|(_, rest)| rest.starts_with('T'));
        stat.ok().and_then(state).unwrap_or(false)
    }
}

/// Whether a process catches a signal, by its `/proc/PID/status`: bit N - 1 of a hexadecimal mask stands for signal N.
fn catches(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    let bit = u32::try_from(signal - 1).ok().and_then(|shift| 1_u64.checked_shl(shift));
    bit.is_some_and(|bit| mask & bit != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stop_is_waited_for() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let id = Pid::from_child(&child);
        let worker = Worker::stranger(id, ProcessExit::of(id).unwrap());
        worker.signal(Signal::SIGSTOP);
        worker.has_stopped().await;
        assert!(worker.is_stopped());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_caught_signal_is_a_bit_of_the_mask() {
        let status = "Name:\tpython\nSigIgn:\t0000000001001000\nSigCgt:\t0000000000000202\n";
        for (signal, caught) in [(2, true), (10, true), (13, false), (15, false), (0, false)] {
            assert_eq!(catches(status, signal), caught, "{signal}");
        }
        assert!(!catches("Name:\tpython\n", 10));
    }
}
