//! A command of the command line that runs beside the test: what it prints, line by line, and how it ends.

use std::process::ExitStatus;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout},
};

use crate::{deadline::soon, shell::Shell};

/// A running command. Dropping it kills it.
#[derive(Debug)]
pub struct Started {
    what: String,
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: Lines<BufReader<ChildStderr>>,
}

impl Started {
    /// Starts `gpulease` with these arguments.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn of(shell: &Shell, arguments: &[&str]) -> anyhow::Result<Self> {
        let what = format!("gpulease {}", arguments.join(" "));
        let mut child = shell.command(arguments).spawn().with_context(|| what.clone())?;
        let stdout = child.stdout.take().context("its stdout was piped")?;
        let stderr = child.stderr.take().context("its stderr was piped")?;
        let (stdout, stderr) = (BufReader::new(stdout).lines(), BufReader::new(stderr).lines());
        Ok(Self { what, child, stdout, stderr })
    }

    /// Its process.
    ///
    /// # Errors
    /// It has ended.
    pub fn process_id(&self) -> anyhow::Result<Pid> {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        id.with_context(|| format!("{} has ended", self.what))
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill_process(self.process_id()?, signal)?)
    }

    /// The next line of its stdout; `None`: everyone who could write to it is gone.
    ///
    /// # Errors
    /// It is no text.
    pub async fn line(&mut self) -> anyhow::Result<Option<String>> {
        let what = format!("a line of {}", self.what);
        Ok(soon(&what, self.stdout.next_line()).await?)
    }

    /// The next line of its stdout, as JSON.
    ///
    /// # Errors
    /// There is none, or it is no JSON.
    pub async fn object(&mut self) -> anyhow::Result<Value> {
        let line = self.line().await?.with_context(|| format!("{} says no more", self.what))?;
        serde_json::from_str(&line).with_context(|| format!("read {line:?} as JSON"))
    }

    /// The next object on its stderr for which `is_it` holds; what comes before is passed over.
    ///
    /// # Errors
    /// There is none.
    pub async fn told(&mut self, is_it: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let what = format!("what is waited for on the stderr of {}", self.what);
        let mut heard = Vec::new();
        loop {
            let Some(line) = soon(&what, self.stderr.next_line()).await? else {
                anyhow::bail!("{} ended without it; it said: {heard:#?}", self.what);
            };
            if let Ok(value) = serde_json::from_str(&line)
                && is_it(&value)
            {
                return Ok(value);
            }
            heard.push(line);
        }
    }

    /// The next event of this name on its stderr.
    ///
    /// # Errors
    /// There is none.
    pub async fn event(&mut self, name: &str) -> anyhow::Result<Value> {
        self.told(|value| value["event"] == name).await
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// The system does not say how.
    pub async fn end(&mut self) -> anyhow::Result<ExitStatus> {
        let what = format!("the end of {}", self.what);
        Ok(soon(&what, self.child.wait()).await?)
    }
}
