//! A process that need not be a child of this one: its end, and signals to it.
//!
//! Promises: what is waited for and signalled is the very process that was there in the beginning, whoever gets its id afterwards.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::watch;

/// The end of a process.
#[derive(Clone, Debug)]
pub(crate) struct ProcessExit {
    over: watch::Receiver<bool>,
    process: Arc<OwnedFd>,
}

impl ProcessExit {
    /// Watches a process, which must be there now.
    pub(crate) fn of(id: Pid) -> io::Result<Self> {
        let process = Arc::new(pidfd_open(id, PidfdFlags::empty())?);
        let watched = Arc::clone(&process);
        let (tell, over) = watch::channel(false);
        // A thread of its own, since the descriptor can only be polled; it ends with the process, or with this one.
        thread::Builder::new().name("process-exit".to_owned()).spawn(move || {
            wait(&watched);
            tell.send_replace(true);
        })?;
        Ok(Self { over, process })
    }

    /// Sends it a signal; nobody gets it once it has ended.
    pub(crate) fn signal(&self, signal: Signal) -> rustix::io::Result<()> {
        pidfd_send_signal(&*self.process, signal)
    }

    /// Waits until it has ended.
    pub(crate) async fn reached(&mut self) {
        // An error would mean that the thread is gone without a word, and it always says one.
        let _ = self.over.wait_for(|over| *over).await;
    }
}

/// Returns when the process has ended.
fn wait(process: &OwnedFd) {
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    while poll(&mut fds, None) == Err(Errno::INTR) {}
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[tokio::test]
    async fn the_end_of_a_process_is_told() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let id = Pid::from_child(&child);
        let mut exit = ProcessExit::of(id).unwrap();
        exit.signal(Signal::KILL).unwrap();
        exit.reached().await;
        child.wait().unwrap();
        assert_eq!(exit.signal(Signal::KILL), Err(Errno::SRCH));
        assert!(ProcessExit::of(id).is_err());
    }
}
