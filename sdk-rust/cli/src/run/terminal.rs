//! Lends the terminal to the command's process group, as a shell does, so that Ctrl-C, Ctrl-Z and reading
//! from the keyboard work in it.
//!
//! Promises: does nothing where stdin is no terminal, and never takes a terminal from anybody but the two
//! groups concerned (a shell may have put the whole job into the background).

use std::io::{self, IsTerminal};
use std::thread;

use nix::sys::signal::{SigSet, Signal};
use rustix::process::{Pid, getpgrp};
use rustix::termios::{tcgetpgrp, tcsetpgrp};

/// The terminal on stdin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminal {
    own: Pid,
}

impl Terminal {
    /// The terminal, where there is one.
    pub(crate) fn on_stdin() -> Option<Self> {
        io::stdin().is_terminal().then(|| Self { own: getpgrp() })
    }

    /// Whether this program's own process group is the foreground one.
    pub(crate) fn is_own(self) -> bool {
        is_foreground(self.own)
    }

    /// Makes a process group the foreground one, in place of this program's own.
    pub(crate) fn lend(self, group: Pid) {
        if self.is_own() {
            set_foreground(group);
        }
    }

    /// Makes this program's own process group the foreground one again, in place of the group.
    pub(crate) fn take_back(self, group: Pid) {
        if is_foreground(group) {
            set_foreground(self.own);
        }
    }
}

fn is_foreground(group: Pid) -> bool {
    tcgetpgrp(io::stdin()).is_ok_and(|foreground| foreground == group)
}

/// A background process that moves the terminal is stopped by SIGTTOU unless it blocks that signal. Blocking
/// is a thread's own affair, and no mask of this one is inherited by a command, so a thread does it and ends.
fn set_foreground(group: Pid) {
    let moved = thread::spawn(move || {
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGTTOU);
        if blocked.thread_block().is_ok() {
            // A terminal that went away, or a group that ended, has nobody left to miss it.
            let _ = tcsetpgrp(io::stdin(), group);
        }
    });
    let _ = moved.join();
}
