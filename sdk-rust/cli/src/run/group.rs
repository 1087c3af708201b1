//! The command of `run`, in a process group of its own, with everything that it starts.
//!
//! Promises: the command dies with this program where the kernel allows (`verb::exec_child`), and its group with it
//! (`verb::guard`); signals reach the whole group; nothing below this program that can be ended is left when `end`
//! returns, which it does in bounded time, and it says what could not be ended.
//! Leaves to others: when to send what (`verb::run`).

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid,
};
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tokio::time::{sleep, timeout};

use super::terminal::Terminal;
use super::tree::{self, Children};
use crate::environment::{DEVICE_VARIABLES, Variables};
use crate::failure::exit_of_signal;
use crate::pausing::Worker;

/// How long the group may take to end by itself after SIGTERM before SIGKILL: the lock delay (15 s) that
/// keeps its devices closed is longer, so nobody else is on them yet.
pub(crate) const END_MAX: Duration = Duration::from_secs(10);

/// How long what was sent SIGKILL may take to be gone. The kernel ends a process at once unless that waits for a device
/// or a file server, which may take any time.
const KILL_MAX: Duration = Duration::from_secs(5);

/// How often what is to end is looked at: there is no event for the end of a process that is nobody's child.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A running command.
#[derive(Debug)]
pub(crate) struct Group {
    child: Child,
    id: Pid,
    terminal: Option<Terminal>,
    children_changed: Stream,
    children: Children,
    /// What is not the command's: helpers of this program.
    spared: Vec<Pid>,
    /// Killed when dropped.
    _guard: Option<Child>,
    /// A pause stops it: that is no reason for this program to stop as well.
    set_aside: Arc<AtomicBool>,
}

impl Group {
    /// Starts a command line, program first, beside the other children of this program.
    pub(crate) fn start(
        words: &[OsString],
        variables: &Variables,
        children: Children,
    ) -> io::Result<Self> {
        let (program, arguments) = words
            .split_first()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "there is no command"))?;
        let children_changed = signal(SignalKind::child())?;
        let mut command = Command::new(program);
        command.args(arguments).process_group(0);
        for name in DEVICE_VARIABLES {
            command.env_remove(name);
        }
        command.envs(variables);
        let terminal = Terminal::on_stdin();
        let child = command.spawn()?;
        let id = id_of(&child)?;
        children.add(Some(id));
        let group = Self {
            child,
            id,
            terminal,
            children_changed,
            children,
            spared: Vec::new(),
            _guard: None,
            set_aside: Arc::default(),
        };
        group.to_foreground();
        Ok(group)
    }

    /// A helper of this program, which is no part of the command and does not end with it.
    pub(crate) fn spare(&mut self, helper: Option<Pid>) {
        self.children.add(helper);
        self.spared.extend(helper);
    }

    /// Starts the program that ends the group should this one be killed. Doing without it is no failure.
    pub(crate) fn guard_with(&mut self, words: &[OsString]) {
        let Some((program, arguments)) = words.split_first() else { return };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Ok(guard) = command.process_group(0).kill_on_drop(true).spawn() {
            self.spare(id_of(&guard).ok());
            self._guard = Some(guard);
        }
    }

    /// The command's process, and its group's id.
    pub(crate) fn id(&self) -> Pid {
        self.id
    }

    /// The children that this program waits for.
    pub(crate) fn children(&self) -> &Children {
        &self.children
    }

    /// The command as what gives way to a notice.
    pub(crate) fn worker(&self) -> Worker {
        Worker::leader(self.id, self.terminal, Arc::clone(&self.set_aside))
    }

    /// Waits for the command to end. While it is stopped from the terminal (Ctrl-Z), so is this program.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            tokio::select! {
                status = self.child.wait() => return status,
                _ = self.children_changed.recv() => {
                    self.children.reap_orphans();
                    self.stop_along();
                }
            }
        }
    }

    /// Sends a signal, by its number, to the whole group. One that asks a paused command to stop reaches it even if
    /// its pause stopped it.
    pub(crate) fn signal(&self, number: i32) {
        if let Some(signal) = Signal::from_named_raw(number) {
            // A group that is gone needs no signal.
            let _ = kill_process_group(self.id, signal);
            let user = matches!(signal, Signal::USR1 | Signal::USR2);
            if self.set_aside.load(Ordering::Acquire) && !user {
                let _ = kill_process_group(self.id, Signal::CONT);
            }
        }
    }

    /// Ends the command and all that it started: politely, then, when the patience is over, not. Returns what is left
    /// of it: processes of other users, and such as the kernel does not end.
    #[must_use = "what is left may still use the devices"]
    pub(crate) async fn end(&mut self, patience: impl Future<Output = ()>) -> Vec<Pid> {
        let outside = self.children.outside(self.id, &self.spared);
        // Once each: a second SIGTERM means "at once" to many programs. A stopped process gets it when it goes on.
        for signal in [Signal::TERM, Signal::CONT] {
            let _ = kill_process_group(self.id, signal);
            tree::signal(&outside, signal);
        }
        let is_gone = tokio::select! {
            biased;
            () = self.gone() => true,
            () = patience => false,
        };
        if !is_gone {
            let _ = timeout(KILL_MAX, self.killed()).await;
        }
        self.children.reap_orphans();
        self.leave_terminal();
        self.left()
    }

    /// Kills until nothing is left that can be killed.
    async fn killed(&mut self) {
        loop {
            // One that forks as fast as it is killed is caught by the next look.
            let left = self.left();
            if tree::kill(&left).len() == left.len() {
                break;
            }
            sleep(LOOK_INTERVAL).await;
        }
        if !self.left().contains(&self.id) {
            let _ = self.child.wait().await;
        }
    }

    /// Takes the terminal back, once the command is over.
    pub(crate) fn leave_terminal(&mut self) {
        if let Some(terminal) = self.terminal.take() {
            terminal.take_back(self.id);
        }
    }

    fn left(&self) -> Vec<Pid> {
        self.children.running(self.id, &self.spared)
    }

    async fn gone(&mut self) {
        let _ = self.child.wait().await;
        while !self.left().is_empty() {
            sleep(LOOK_INTERVAL).await;
        }
    }

    fn to_foreground(&self) {
        if let Some(terminal) = self.terminal {
            terminal.lend(self.id);
            // It may have been stopped for reading before the terminal was its own.
            let _ = kill_process_group(self.id, Signal::CONT);
        }
    }

    /// If the command was stopped: either it wanted the terminal before it was its own, or somebody stopped
    /// it (Ctrl-Z). Then this program stops as well, so that the shell has its prompt, and goes on with it.
    fn stop_along(&self) {
        let Some(terminal) = self.terminal else { return };
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        let Ok(Some(status)) = waitid(WaitId::Pid(self.id), options) else { return };
        if !status.stopped() || self.set_aside.load(Ordering::Acquire) {
            return;
        }
        if !terminal.is_own() {
            terminal.take_back(self.id);
            let _ = kill_process(rustix::process::getpid(), Signal::STOP);
        }
        self.to_foreground();
    }
}

/// The id of a child that was just started.
pub(crate) fn id_of(child: &Child) -> io::Result<Pid> {
    let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    id.ok_or_else(|| io::Error::other("the command has no process id"))
}

/// A command's exit code as a shell gives it: its own, or 128 and the signal that ended it.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code).unwrap_or(u8::MAX),
        (None, signal) => signal.map_or(u8::MAX, exit_of_signal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(script: &str, variables: &Variables) -> Group {
        let words = ["sh", "-c", script].map(OsString::from);
        Group::start(&words, variables, Children::default()).unwrap()
    }

    async fn code_of(script: &str) -> u8 {
        let variables = Variables::from([("GPULEASE_LEASE_ID".to_owned(), "7".to_owned())]);
        exit_code(started(script, &variables).wait().await.unwrap())
    }

    #[tokio::test]
    async fn the_exit_code_is_the_commands_own() {
        for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143)] {
            assert_eq!(code_of(script).await, code, "{script}");
        }
    }

    #[tokio::test]
    async fn the_command_sees_the_leases_environment() {
        assert_eq!(code_of("test \"$GPULEASE_LEASE_ID\" = 7").await, 0);
    }

    #[tokio::test]
    async fn the_command_leads_a_group_of_its_own() {
        let script = "test \"$(cut -d' ' -f5 /proc/$$/stat)\" = $$";
        assert_eq!(code_of(script).await, 0);
    }

    #[tokio::test]
    async fn a_signal_reaches_the_command() {
        let mut group = started("exec sleep 600", &Variables::new());
        group.signal(2);
        assert_eq!(exit_code(group.wait().await.unwrap()), 130);
    }

    #[tokio::test]
    async fn ending_takes_the_whole_group_along() {
        let mut group = started("sleep 600 & sleep 600 & wait", &Variables::new());
        assert_eq!(group.end(sleep(END_MAX)).await, Vec::<Pid>::new());
    }

    #[tokio::test]
    async fn what_does_not_listen_is_killed_when_patience_is_over() {
        let mut group = started("trap '' TERM; sleep 600 & wait; sleep 600", &Variables::new());
        assert_eq!(group.end(std::future::ready(())).await, Vec::<Pid>::new());
    }
}
