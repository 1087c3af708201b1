//! The command of `run`, in a process group of its own.
//!
//! Promises: the command dies with this program where the kernel allows (`verb::exec_child`); signals reach
//! the whole group; nothing of the group that can be ended is left when `end` returns.
//! Leaves to others: when to send what (`verb::run`).

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, test_kill_process_group,
    waitid,
};
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tokio::time::{sleep, timeout};

use super::terminal::Terminal;
use crate::environment::{DEVICE_VARIABLES, Variables};
use crate::failure::exit_of_signal;

/// How long the group may take to end by itself after SIGTERM before SIGKILL: the lock delay (15 s) that
/// keeps its devices closed is longer, so nobody else is on them yet.
const END_MAX: Duration = Duration::from_secs(10);

/// How often a group without a leader is looked at: there is no event for its end.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A running command.
#[derive(Debug)]
pub(crate) struct Group {
    child: Child,
    id: Pid,
    terminal: Option<Terminal>,
    children_changed: Stream,
}

impl Group {
    /// Starts a command line, program first.
    pub(crate) fn start(words: &[OsString], variables: &Variables) -> io::Result<Self> {
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
        let id = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw)
            .ok_or_else(|| io::Error::other("the command has no process id"))?;
        let group = Self { child, id, terminal, children_changed };
        group.to_foreground();
        Ok(group)
    }

    /// Waits for the command to end. While it is stopped from the terminal (Ctrl-Z), so is this program.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            tokio::select! {
                status = self.child.wait() => return status,
                _ = self.children_changed.recv() => self.stop_along(),
            }
        }
    }

    /// Sends a signal, by its number, to the whole group.
    pub(crate) fn signal(&self, number: i32) {
        if let Some(signal) = Signal::from_named_raw(number) {
            // A group that is gone needs no signal.
            let _ = kill_process_group(self.id, signal);
        }
    }

    /// Ends the whole group: politely, then not. Returns when nothing of it is left.
    pub(crate) async fn end(&mut self) {
        let _ = kill_process_group(self.id, Signal::TERM);
        // A stopped process gets its SIGTERM when it goes on.
        let _ = kill_process_group(self.id, Signal::CONT);
        if timeout(END_MAX, self.gone()).await.is_err() {
            let _ = kill_process_group(self.id, Signal::KILL);
            let _ = self.child.wait().await;
        }
        self.leave_terminal();
    }

    /// Takes the terminal back, once the command is over.
    pub(crate) fn leave_terminal(&mut self) {
        if let Some(terminal) = self.terminal.take() {
            terminal.take_back(self.id);
        }
    }

    async fn gone(&mut self) {
        let _ = self.child.wait().await;
        while is_alive(self.id) {
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
        if !status.stopped() {
            return;
        }
        if !terminal.is_own() {
            terminal.take_back(self.id);
            let _ = kill_process(rustix::process::getpid(), Signal::STOP);
        }
        self.to_foreground();
    }
}

/// Whether a process of the group still runs. One that has ended and waits for its parent's attention does
/// not: in a container nobody may ever pay it.
fn is_alive(group: Pid) -> bool {
    if test_kill_process_group(group).is_err() {
        return false;
    }
    let Ok(processes) = std::fs::read_dir("/proc") else { return true };
    processes.flatten().any(|process| {
        let stat = std::fs::read_to_string(process.path().join("stat"));
        stat.is_ok_and(|stat| runs_in(&stat, group))
    })
}

/// Whether a line of `/proc/PID/stat` is of a running process of the group: behind the name, which is in
/// parentheses and may hold anything, stand the state, the parent and the group.
fn runs_in(stat: &str, group: Pid) -> bool {
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let mut fields = fields.split_whitespace();
    let running = fields.next().is_some_and(|state| !matches!(state, "Z" | "X"));
    running && fields.nth(1).and_then(|id| id.parse().ok()) == Some(group.as_raw_pid())
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

    fn shell(script: &str) -> Vec<OsString> {
        ["sh", "-c", script].map(OsString::from).to_vec()
    }

    #[test]
    fn an_ended_process_does_not_run_in_its_group() {
        let group = Pid::from_raw(77).unwrap();
        for (stat, runs) in [
            ("80 (sleep) S 1 77 77 0", true),
            ("80 (a) b) R 1 77 77 0", true),
            ("80 (sleep) Z 1 77 77 0", false),
            ("80 (sleep) S 77 78 77 0", false),
            ("", false),
        ] {
            assert_eq!(runs_in(stat, group), runs, "{stat}");
        }
    }

    async fn code_of(script: &str) -> u8 {
        let variables = Variables::from([("GPULEASE_LEASE_ID".to_owned(), "7".to_owned())]);
        let mut group = Group::start(&shell(script), &variables).unwrap();
        exit_code(group.wait().await.unwrap())
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
        let mut group = Group::start(&shell("exec sleep 600"), &Variables::new()).unwrap();
        group.signal(2);
        assert_eq!(exit_code(group.wait().await.unwrap()), 130);
    }

    #[tokio::test]
    async fn ending_takes_the_whole_group_along() {
        let script = "sleep 600 & sleep 600 & wait";
        let mut group = Group::start(&shell(script), &Variables::new()).unwrap();
        group.end().await;
        assert!(!is_alive(group.id));
    }
}
