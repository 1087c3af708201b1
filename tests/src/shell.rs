//! The command line as a user has it: the real binary at a coordinator's endpoint, with a state directory of its own.

use std::{
    path::PathBuf,
    process::{ExitStatus, Stdio},
};

use anyhow::{Context as _, bail};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{binary, deadline::soon};

/// A shell with `GPULEASE_ENDPOINT` set.
#[derive(Debug)]
pub struct Shell {
    endpoint: String,
    program: PathBuf,
    state: TempDir,
}

/// A command that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How.
    pub status: ExitStatus,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Finished {
    /// Its exit code; `None`: a signal ended it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

impl Shell {
    /// A shell at an endpoint.
    ///
    /// # Errors
    /// There is no binary, or no place for its state.
    pub fn at(endpoint: &str) -> anyhow::Result<Self> {
        let state = tempfile::tempdir().context("make a directory for the command line's state")?;
        Ok(Self { endpoint: endpoint.to_owned(), program: binary::gpulease()?, state })
    }

    /// The command, ready to start.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("GPULEASE_ENDPOINT", &self.endpoint);
        command.env("XDG_STATE_HOME", self.state.path());
        for name in
            ["GPULEASE_SERVICE", "GPULEASE_HOLDER", "GPULEASE_LEASE_ID", "GPULEASE_FENCING_TOKEN"]
        {
            command.env_remove(name);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn run(&self, arguments: &[&str]) -> anyhow::Result<Finished> {
        let what = format!("the end of gpulease {}", arguments.join(" "));
        let output = soon(&what, self.command(arguments).output()).await.context(what)?;
        Ok(Finished {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// The JSON objects that it prints with `--json`, one for each line; it must succeed.
    ///
    /// # Errors
    /// It fails, or prints something else.
    pub async fn lines(&self, arguments: &[&str]) -> anyhow::Result<Vec<serde_json::Value>> {
        let arguments = [arguments, &["--json"]].concat();
        let finished = self.run(&arguments).await?;
        if !finished.status.success() {
            bail!(
                "gpulease {} ended with {}: {}",
                arguments.join(" "),
                finished.status,
                finished.stderr
            );
        }
        let read =
            |line| serde_json::from_str(line).with_context(|| format!("read {line:?} as JSON"));
        finished.stdout.lines().map(read).collect()
    }

    /// The one JSON object that it prints with `--json`; it must succeed.
    ///
    /// # Errors
    /// It fails, or prints something else.
    pub async fn json(&self, arguments: &[&str]) -> anyhow::Result<serde_json::Value> {
        let lines = self.lines(arguments).await?;
        let [line] = &lines[..] else {
            bail!("one object expected of {arguments:?}, not {lines:?}")
        };
        Ok(line.clone())
    }

    /// What it reports with `--json` when it fails, and its exit code.
    ///
    /// # Errors
    /// It succeeds, or reports no JSON.
    pub async fn failure(&self, arguments: &[&str]) -> anyhow::Result<(i32, serde_json::Value)> {
        let arguments = [arguments, &["--json"]].concat();
        let finished = self.run(&arguments).await?;
        let code = finished.code().filter(|code| *code != 0);
        let code =
            code.with_context(|| format!("{arguments:?} should have failed: {finished:?}"))?;
        let last = finished.stderr.lines().last().unwrap_or("");
        let report =
            serde_json::from_str(last).with_context(|| format!("read {last:?} as JSON"))?;
        Ok((code, report))
    }
}
