//! A holder in a process of its own (`src/bin/holder.rs`), that a test can stop, let go on, and kill.

use std::{process::Stdio, time::Duration};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::deadline::soon;

/// A holder of one whole device, in a process group of its own. Dropping it kills the group.
#[derive(Debug)]
pub struct HolderProcess {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
    /// The id of its process, and of its group.
    pub pid: u32,
    /// Its lease.
    pub lease_id: u64,
    /// The token of its grant.
    pub fencing_token: u64,
}

impl HolderProcess {
    /// Starts the program at a path and waits until it holds.
    ///
    /// # Errors
    /// It cannot be started, or got no lease.
    pub async fn start(
        program: &str,
        endpoint: &str,
        name: &str,
        ttl: Duration,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.args([endpoint, name, &ttl.as_secs().to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("start {program}"))?;
        let stdin = child.stdin.take().context("its stdin was piped")?;
        let stdout = child.stdout.take().context("its stdout was piped")?;
        let mut stdout = BufReader::new(stdout).lines();
        let line = soon("the holder's lease", stdout.next_line()).await?;
        let line = line.context("the holder ended without a lease")?;
        let (lease_id, token) = line.split_once(' ').context("an id and a token")?;
        let (lease_id, fencing_token) = (lease_id.parse()?, token.parse()?);
        let pid = child.id().context("the holder is gone")?;
        Ok(Self { child, stdin, stdout, pid, lease_id, fencing_token })
    }

    /// What it says when it checks its lease: `held`, or the reason of the error.
    ///
    /// # Errors
    /// It is gone.
    pub async fn check(&mut self) -> anyhow::Result<String> {
        self.ask("check\n").await
    }

    /// Lets it start a child, which outlives it; the child's id.
    ///
    /// # Errors
    /// It is gone, or there is no `sleep`.
    pub async fn start_child(&mut self) -> anyhow::Result<u32> {
        self.ask("child\n").await?.parse().context("the id of the holder's child")
    }

    async fn ask(&mut self, line: &str) -> anyhow::Result<String> {
        self.stdin.write_all(line.as_bytes()).await.context("ask the holder")?;
        let line = soon("the holder's answer", self.stdout.next_line()).await?;
        line.context("the holder is gone")
    }

    /// Stops its threads, as SIGSTOP does.
    ///
    /// # Errors
    /// It is gone.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// It is gone.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Kills it as `kill -9` does.
    ///
    /// # Errors
    /// It is gone.
    pub fn kill(&self) -> anyhow::Result<()> {
        self.signal(Signal::KILL)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = self.child.id().context("the holder is gone")?;
        let pid = i32::try_from(id).ok().and_then(Pid::from_raw).context("an id is positive")?;
        kill_process(pid, signal).with_context(|| format!("send {signal:?} to process {id}"))
    }
}

impl Drop for HolderProcess {
    fn drop(&mut self) {
        let group = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        // Nobody may be left in it.
        let _ = group.map(|group| kill_process_group(group, Signal::KILL));
    }
}
