//! The signals that people and supervisors send to a command line program.
//!
//! Promises: from the moment this is made, none of the signals ends the process by itself.
//! Leaves to others: what a signal means: `acquire` stops, `run` passes it on.

use std::io;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// The signals that ask a program to end.
#[derive(Debug)]
pub(crate) struct Stop {
    interrupt: Stream,
    terminate: Stream,
    hangup: Stream,
    quit: Stream,
}

impl Stop {
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    /// The number of the next signal.
    pub(crate) async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.hangup.recv() => SignalKind::hangup(),
            _ = self.quit.recv() => SignalKind::quit(),
        }
        .as_raw_value()
    }
}

/// The signals that `run` passes on to its command, and the word that a child of it changed.
#[derive(Debug)]
pub(crate) struct Forwarded {
    stop: Stop,
    user_1: Stream,
    user_2: Stream,
}

impl Forwarded {
    /// Adds the user signals to those that ask to stop.
    pub(crate) fn from_stop(stop: Stop) -> io::Result<Self> {
        Ok(Self {
            stop,
            user_1: signal(SignalKind::user_defined1())?,
            user_2: signal(SignalKind::user_defined2())?,
        })
    }

    /// The number of the next signal.
    pub(crate) async fn next(&mut self) -> i32 {
        tokio::select! {
            number = self.stop.next() => number,
            _ = self.user_1.recv() => SignalKind::user_defined1().as_raw_value(),
            _ = self.user_2.recv() => SignalKind::user_defined2().as_raw_value(),
        }
    }
}
