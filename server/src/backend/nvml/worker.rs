//! The driver's thread, seen from outside: asked for one pass at a time, and never waited for longer than said.
//!
//! It promises that a call of the driver that hangs keeps this thread alone. The thread ends once nobody asks any more
//! and its last call has returned; nobody waits for that.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use super::reader::{Passed, Reader, Wanted};
use crate::backend::BackendError;

/// The thread, and the pass that it is at.
#[derive(Debug)]
pub(super) struct Worker {
    /// Room for one: there is never more than one pass asked for.
    wanted: SyncSender<Wanted>,
    passed: Receiver<Passed>,
    busy: bool,
}

/// What became of a pass.
#[derive(Debug)]
pub(super) enum Answer {
    Passed(Box<Passed>),
    /// It is still at it.
    Late,
    /// The thread is gone: a defect, for it ends by itself only after this value.
    Gone,
}

impl Worker {
    /// Starts the thread.
    pub(super) fn start(mut reader: Reader) -> Result<Self, BackendError> {
        let (wanted, orders) = sync_channel::<Wanted>(1);
        let (results, passed) = sync_channel(1);
        std::thread::Builder::new()
            .name("nvml".to_owned())
            .spawn(move || {
                for order in orders {
                    if results.send(reader.pass(&order)).is_err() {
                        return;
                    }
                }
            })
            .map_err(|source| BackendError::Thread { backend: "nvml", source })?;
        Ok(Self { wanted, passed, busy: false })
    }

    /// Whether a pass was asked for and is not answered yet.
    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Asks for a pass; the last one must have been answered.
    pub(super) fn ask(&mut self, wanted: Wanted) {
        match self.wanted.try_send(wanted) {
            // A thread that is gone says so at the answer.
            Ok(()) | Err(TrySendError::Disconnected(_)) => self.busy = true,
            Err(TrySendError::Full(_)) => debug_assert!(false, "two passes at a time"),
        }
    }

    /// Waits for the answer, at most so long.
    pub(super) fn answer(&mut self, wait: Duration) -> Answer {
        match self.passed.recv_timeout(wait) {
            Ok(passed) => {
                self.busy = false;
                Answer::Passed(Box::new(passed))
            }
            Err(RecvTimeoutError::Timeout) => Answer::Late,
            Err(RecvTimeoutError::Disconnected) => Answer::Gone,
        }
    }
}
