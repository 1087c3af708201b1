//! `gpulease exec-child`, hidden: becomes a command that the kernel kills when its parent dies.
//!
//! The parent-death signal must be set between fork and exec. Doing that in the parent's fork needs unsafe
//! code; a process that sets it on itself and then becomes the command does not. The signal outlives exec,
//! except where the command is set-user-id or has capabilities of its own.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::Command;

use clap::Args;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use crate::failure::{Exit, Failure};

/// The options of `exec-child`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The process to die with
    #[arg(long, value_name = "PID")]
    parent: i32,

    /// What to become
    #[arg(required = true, last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// The arguments that make this program become a command; under `json` it says so in JSON where it cannot.
pub(crate) fn arguments(json: bool, command: &[OsString]) -> Vec<OsString> {
    let parent = rustix::process::getpid().as_raw_pid();
    let words = ["exec-child".into(), format!("--parent={parent}").into()];
    let json = json.then(|| "--json".into());
    let end_of_options = std::iter::once("--".into());
    words.into_iter().chain(json).chain(end_of_options).chain(command.iter().cloned()).collect()
}

/// Becomes the command; returns only if it cannot.
pub(crate) fn exec_child(options: &Options) -> Failure {
    let Some((program, arguments)) = options.command.split_first() else {
        return Failure::usage("there is no command to run");
    };
    let tied = set_parent_process_death_signal(Some(Signal::KILL));
    if tied.is_ok() && getppid().map(Pid::as_raw_pid) != Some(options.parent) {
        return Failure::new(Exit::NoLease, "the process that started this one is gone");
    }
    // One that cannot be tied still runs: its lease is renewed and released all the same.
    let error = Command::new(program).args(arguments).exec();
    let exit = match error.kind() {
        ErrorKind::NotFound => Exit::CommandNotFound,
        _ => Exit::CannotRun,
    };
    Failure::new(exit, format!("cannot run {}: {error}", program.to_string_lossy()))
}
