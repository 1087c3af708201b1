//! The coordinator that `run --local` starts for the time of its command.
//!
//! Promises: it listens on a free loopback port and keeps its journal in a temporary directory, so that it
//! meets no other coordinator; it dies with this program, and its directory goes with it.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::options::Program;
use crate::verb::exec_child_arguments;

/// The longest a coordinator may take to be ready: a driver that wakes its devices takes some seconds each.
const READY_MAX: Duration = Duration::from_secs(60);

/// The longest it may take to stop: its own bound is 5 s, and one more second to write it down.
const STOP_MAX: Duration = Duration::from_secs(6);

/// A running coordinator of one's own.
#[derive(Debug)]
pub(crate) struct LocalCoordinator {
    endpoint: String,
    child: Child,
    // Held open: a coordinator that cannot write to stdout might end.
    _stdout: BufReader<ChildStdout>,
    _data: TempDir,
}

/// The line that `serve --json` prints once it is ready; other fields are of no use here.
#[derive(Deserialize)]
struct Ready {
    endpoint: String,
    socket: Option<String>,
}

/// The longest path that a Unix socket may have, by the size of its address.
const SOCKET_PATH_BYTES_MAX: usize = 107;

impl LocalCoordinator {
    /// Starts one, with simulated devices where a SPEC is given and the host's own otherwise.
    pub(crate) async fn start(program: &Program, simulate: Option<&str>) -> anyhow::Result<Self> {
        let data = tempfile::Builder::new()
            .prefix("gpulease-local-")
            .tempdir()
            .context("cannot create a temporary directory for the local coordinator")?;
        let serve = program.restarted(serve_arguments(data.path().as_os_str(), simulate));
        let words = program.restarted(exec_child_arguments(false, &serve));
        let (first, rest) = words.split_first().context("this program cannot be started again")?;
        let mut child = Command::new(first)
            .args(rest)
            .env_remove("GPULEASE_ENDPOINT")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // Out of the terminal's reach: Ctrl-C is for the command, the coordinator ends after it.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the local coordinator")?;
        let stdout = child.stdout.take().context("the local coordinator has no stdout")?;
        let mut stdout = BufReader::new(stdout);
        let ready = timeout(READY_MAX, ready(&mut stdout)).await;
        let endpoint = ready.with_context(|| {
            format!("the local coordinator was not ready within {READY_MAX:?}")
        })??;
        Ok(Self { endpoint, child, _stdout: stdout, _data: data })
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(crate) fn process_id(&self) -> Option<Pid> {
        super::group::id_of(&self.child).ok()
    }

    /// Stops it gracefully, or not, within a bound.
    pub(crate) async fn stop(mut self) {
        if let Some(id) = self.process_id() {
            let _ = kill_process(id, Signal::TERM);
        }
        if timeout(STOP_MAX, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

async fn ready(stdout: &mut BufReader<ChildStdout>) -> anyhow::Result<String> {
    let mut line = String::new();
    if stdout.read_line(&mut line).await.context("cannot hear from the local coordinator")? == 0 {
        bail!("the local coordinator ended before it was ready; its reason stands above");
    }
    let ready: Ready = serde_json::from_str(&line)
        .with_context(|| format!("the local coordinator said {:?}", line.trim_end()))?;
    // Over the socket the coordinator can tell whose processes use the devices.
    Ok(ready.socket.map_or(ready.endpoint, |path| format!("unix://{path}")))
}

fn serve_arguments(data: &std::ffi::OsStr, simulate: Option<&str>) -> Vec<OsString> {
    let fixed =
        ["serve", "--json", "--listen", "127.0.0.1:0", "--http", "none", "--log", "warn", "--data"];
    let mut arguments: Vec<OsString> = fixed.map(OsString::from).to_vec();
    arguments.push(data.to_owned());
    let socket = Path::new(data).join("gpulease.sock");
    let fits = socket.as_os_str().len() <= SOCKET_PATH_BYTES_MAX;
    arguments.push("--socket".into());
    arguments.push(if fits { socket.into_os_string() } else { "none".into() });
    if let Some(spec) = simulate {
        arguments.extend(["--simulate".into(), spec.into()]);
    }
    arguments
}
