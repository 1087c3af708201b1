//! The commands of `--on-pause` and `--on-resume`.
//!
//! Promises: a hook that is no longer waited for is killed with its whole process group; what it prints goes to
//! stderr, since stdout belongs to the command.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

use crate::environment::{DEVICE_VARIABLES, Variables};
use crate::options::Program;
use crate::run::tree::Children;
use crate::verb::exec_child_arguments;

/// A running hook.
struct Hook {
    child: Child,
    group: Option<Pid>,
    children: Children,
    over: bool,
}

/// Runs a shell command with these variables to its end.
pub(super) async fn run(
    program: &Program,
    children: &Children,
    command: &str,
    variables: &Variables,
) -> io::Result<ExitStatus> {
    let mut hook = Hook::start(program, children, command, variables)?;
    let status = hook.child.wait().await;
    // What it left running in the background may stay.
    hook.over = true;
    status
}

impl Hook {
    fn start(
        program: &Program,
        children: &Children,
        command: &str,
        variables: &Variables,
    ) -> io::Result<Self> {
        let shell = ["sh", "-c", command].map(OsString::from);
        // Through this program, so that the hook dies with it.
        let words = program.restarted(exec_child_arguments(false, &shell));
        let (first, rest) = words
            .split_first()
            .ok_or_else(|| io::Error::other("this program cannot be started again"))?;
        let mut command = Command::new(first);
        for name in DEVICE_VARIABLES {
            command.env_remove(name);
        }
        let child = command
            .args(rest)
            .envs(variables)
            .stdin(Stdio::null())
            .stdout(io::stderr().as_fd().try_clone_to_owned()?)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        children.add(group);
        Ok(Self { child, group, children: children.clone(), over: false })
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.children.remove(self.group);
        if let Some(group) = self.group.filter(|_| !self.over) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}
