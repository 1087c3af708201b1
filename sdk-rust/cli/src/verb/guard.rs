//! `gpulease guard`, hidden: waits for the end of `run` and kills what is left of its command's process group.
//!
//! `run` ends its command itself, and stops its guard before it ends. Killed (`kill -9`, out of memory) it cannot; the
//! kernel kills the command then, but not what the command started.
//!
//! Promises: kills nothing while `run` lives. Leaves out what has left the command's process group.

use std::ffi::OsString;

use clap::Args;
use rustix::process::{Pid, Signal, getpid, getppid, kill_process_group, setsid};

use crate::failure::Failure;
use crate::run::exit::ProcessExit;

/// The options of `guard`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The process to outlive
    #[arg(long, value_name = "PID")]
    parent: i32,

    /// The process group to end then
    #[arg(long, value_name = "PID")]
    group: i32,
}

/// The arguments that make this program the guard of a group.
pub(crate) fn arguments(group: Pid) -> [OsString; 3] {
    let (parent, group) = (getpid().as_raw_pid(), group.as_raw_pid());
    ["guard".into(), format!("--parent={parent}").into(), format!("--group={group}").into()]
}

pub(crate) async fn guard(options: &Options) -> Result<(), Failure> {
    let id = |id| Pid::from_raw(id).ok_or_else(|| Failure::usage("a process id is positive"));
    let (parent, group) = (id(options.parent)?, id(options.group)?);
    // Out of the terminal's reach. It fails where this leads a group already: that will do.
    let _ = setsid();
    let watched = ProcessExit::of(parent);
    // Looked at after the watch began: what is the parent now is what is watched.
    if getppid() == Some(parent) {
        let mut exit = watched.map_err(|error| {
            Failure::other(format!("cannot watch process {}: {error}", options.parent))
        })?;
        exit.reached().await;
    }
    let _ = kill_process_group(group, Signal::KILL);
    Ok(())
}
