//! A real coordinator as a child process: `gpulease serve` on a free port of the loopback, with a data directory
//! of its own, that can be killed, stopped, frozen and restarted on the same port and data.
//!
//! It promises that the child is gone when the value is dropped, and that whatever goes wrong is told with the end
//! of the child's stderr. Which binary it is, `binary.rs` knows.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::binary;

/// Until the ready line: a cold start takes milliseconds, a journal with 100,000 leases 2 s, a busy machine ten times that.
const READY_MAX: Duration = Duration::from_secs(30);
/// Until the end after SIGTERM: the coordinator itself allows its streams 5 s, then as much again for a busy machine.
const STOP_MAX: Duration = Duration::from_secs(10);
/// How much of stderr is shown: about 40 lines.
const TAIL_BYTES: usize = 4096;

/// How to start a coordinator.
#[derive(Debug, Default)]
#[must_use = "settings do nothing until start is called"]
pub struct Settings {
    simulate: Option<String>,
    data: Option<PathBuf>,
    data_parent: Option<PathBuf>,
    http: bool,
    socket: Option<PathBuf>,
    listen: Option<String>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

/// What the coordinator says once it serves.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Where gRPC is, such as `http://127.0.0.1:41234`.
    pub endpoint: String,
    /// Where HTTP is, if anywhere.
    pub http: Option<String>,
    /// The Unix socket, if any.
    pub socket: Option<PathBuf>,
    /// How many devices it has.
    pub devices: u64,
    /// Why there are none, or not yet.
    pub reason: Option<String>,
    /// Its revision after recovery.
    pub revision: u64,
}

/// A coordinator that ended instead of serving.
#[derive(Debug)]
pub struct StartFailed {
    /// Its exit code; `None`: a signal ended it, or it was still running and silent.
    pub code: Option<i32>,
    /// The end of what it said.
    pub stderr: String,
}

impl std::fmt::Display for StartFailed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let code =
            self.code.map_or_else(|| "no exit code".to_owned(), |code| format!("exit code {code}"));
        write!(formatter, "the coordinator did not get ready ({code}); it said:\n{}", self.stderr)
    }
}

impl std::error::Error for StartFailed {}

/// A coordinator, running or not.
#[derive(Debug)]
pub struct Coordinator {
    settings: Settings,
    directory: TempDir,
    data: PathBuf,
    running: Option<Running>,
    ready: Ready,
}

#[derive(Debug)]
struct Running {
    child: Child,
    /// Kept open: a child that writes into a closed pipe would die of it.
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Settings {
    /// Simulated devices: `2x24GiB`, `8x80GiB:H100`, or a scenario file.
    pub fn simulate(mut self, specification: impl Into<String>) -> Self {
        self.simulate = Some(specification.into());
        self
    }

    /// The data directory; by default a fresh one that is removed at the end.
    pub fn data(mut self, path: impl Into<PathBuf>) -> Self {
        self.data = Some(path.into());
        self
    }

    /// Where the fresh data directory is made; by default where the system has its temporary files.
    pub fn data_parent(mut self, path: impl Into<PathBuf>) -> Self {
        self.data_parent = Some(path.into());
        self
    }

    /// Serves HTTP too, on a free port.
    pub fn http(mut self) -> Self {
        self.http = true;
        self
    }

    /// Listens on a Unix socket too.
    pub fn socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.socket = Some(path.into());
        self
    }

    /// Listens here instead of on a free port of the loopback.
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen = Some(address.into());
        self
    }

    /// One more argument of `serve`.
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// One variable of the coordinator's environment.
    pub fn environment(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Starts the coordinator and waits until it serves.
    ///
    /// # Errors
    /// [`StartFailed`] when it ends instead (`downcast_ref` finds it), or when there is no binary to start.
    pub async fn start(self) -> anyhow::Result<Coordinator> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("gpulease-test-");
        let directory = match &self.data_parent {
            Some(parent) => builder.tempdir_in(parent),
            None => builder.tempdir(),
        }
        .context("make a temporary directory for a coordinator")?;
        let data = self.data.clone().unwrap_or_else(|| directory.path().join("data"));
        let listen = self.listen.clone().unwrap_or_else(|| "127.0.0.1:0".to_owned());
        let command = self.command(&binary::gpulease()?, &data, &listen);
        let (running, ready) = launch(command, &directory.path().join("stderr.log")).await?;
        Ok(Coordinator { settings: self, directory, data, running: Some(running), ready })
    }

    fn command(&self, program: &Path, data: &Path, listen: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("serve").arg("--json").args(["--listen", listen]);
        command.arg("--data").arg(data);
        command.args(["--http", if self.http { "127.0.0.1:0" } else { "none" }]);
        match &self.socket {
            Some(path) => command.arg("--socket").arg(path),
            None => command.args(["--socket", "none"]),
        };
        if let Some(specification) = &self.simulate {
            command.args(["--simulate", specification]);
        }
        command.args(&self.arguments);
        // The tests' own settings must not reach a coordinator that they start.
        for name in ["GPULEASE_ENDPOINT", "GPULEASE_CONFIG", "GPULEASE_DATA"] {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        command
    }
}

impl Coordinator {
    /// Settings for a coordinator.
    pub fn settings() -> Settings {
        Settings::default()
    }

    /// A coordinator with simulated devices and everything else by default.
    ///
    /// # Errors
    /// As [`Settings::start`].
    pub async fn simulate(specification: &str) -> anyhow::Result<Self> {
        Settings::default().simulate(specification).start().await
    }

    /// Where gRPC is. The same after a restart.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.ready.endpoint
    }

    /// What it said when it last became ready.
    #[must_use]
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The process, while it runs.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.running.as_ref().and_then(|running| running.child.id())
    }

    /// Kills it as `kill -9` does, and waits until it is gone.
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::KILL)?;
        self.exit().await
    }

    /// Asks it to stop, as `kill` does, and waits until it is gone.
    ///
    /// # Errors
    /// It does not run, or is still there after 10 s.
    pub async fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.exit().await
    }

    /// Waits until it is gone, which something else brings about.
    ///
    /// # Errors
    /// It does not run, or is still there after 10 s.
    pub async fn exit(&mut self) -> anyhow::Result<ExitStatus> {
        let running = self.running.as_mut().context("the coordinator does not run")?;
        match timeout(STOP_MAX, running.child.wait()).await {
            Ok(status) => {
                self.running = None;
                status.context("wait for the coordinator's end")
            }
            Err(_) => bail!(
                "the coordinator still runs {STOP_MAX:?} after it should have ended; it said:\n{}",
                self.stderr_tail()
            ),
        }
    }

    /// Stops its threads until [`Self::thaw`], as a stalled machine would.
    ///
    /// # Errors
    /// It does not run.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// It does not run.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Stops its threads for a time, as a stalled machine would. This is the one place where a test lets time pass.
    ///
    /// # Errors
    /// It does not run.
    pub async fn stall(&self, duration: Duration) -> anyhow::Result<()> {
        self.freeze()?;
        tokio::time::sleep(duration).await;
        self.thaw()
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = self.process_id().context("the coordinator does not run")?;
        let pid =
            i32::try_from(id).ok().and_then(Pid::from_raw).context("a process id is positive")?;
        kill_process(pid, signal)
            .with_context(|| format!("send {signal:?} to the coordinator, process {id}"))
    }

    /// Starts it again on the same port and data directory, and waits until it serves. Kills it first if it runs.
    ///
    /// # Errors
    /// [`StartFailed`] when it ends instead.
    pub async fn restart(&mut self) -> anyhow::Result<&Ready> {
        if self.running.is_some() {
            self.kill().await?;
        }
        let listen = self.ready.endpoint.trim_start_matches("http://").to_owned();
        let command = self.settings.command(&binary::gpulease()?, &self.data, &listen);
        let (running, ready) = launch(command, &self.stderr_path()).await?;
        self.running = Some(running);
        self.ready = ready;
        Ok(&self.ready)
    }

    /// Memory of the process that is in RAM, in bytes (`VmRSS`).
    ///
    /// # Errors
    /// It does not run, or the system does not say.
    pub fn memory_resident_bytes(&self) -> anyhow::Result<u64> {
        let id = self.process_id().context("the coordinator does not run")?;
        let path = format!("/proc/{id}/status");
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let field = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes =
            field.and_then(|field| field.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
        kibibytes.map(|kibibytes| kibibytes * 1024).with_context(|| format!("{path} has no VmRSS"))
    }

    fn stderr_path(&self) -> PathBuf {
        self.directory.path().join("stderr.log")
    }

    /// All that it wrote to stderr, over all its starts.
    #[must_use]
    pub fn stderr(&self) -> String {
        read_lossy(&self.stderr_path())
    }

    /// The end of what it wrote to stderr.
    #[must_use]
    pub fn stderr_tail(&self) -> String {
        tail(&self.stderr_path())
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = self.stderr_tail();
            // A test that fails shows what the other side saw.
            #[allow(clippy::print_stderr, reason = "this is how a failing test is explained")]
            {
                eprintln!("--- the coordinator's stderr, its end ---\n{said}\n---");
            }
        }
    }
}

/// Starts the command and reads its ready line.
async fn launch(mut command: Command, stderr: &Path) -> anyhow::Result<(Running, Ready)> {
    let log = File::options().create(true).append(true).open(stderr);
    let log =
        log.with_context(|| format!("open {} for the coordinator's stderr", stderr.display()))?;
    let mut child = command.stderr(log).spawn().context("start the coordinator")?;
    let stdout = child.stdout.take().context("the coordinator's stdout was piped")?;
    let mut lines = BufReader::new(stdout).lines();
    match timeout(READY_MAX, lines.next_line()).await {
        Ok(Ok(Some(line))) => {
            let ready = Ready::parse(&line)?;
            Ok((Running { child, _stdout: lines }, ready))
        }
        Ok(_) => {
            let status = child.wait().await.context("wait for the coordinator's end")?;
            Err(StartFailed { code: status.code(), stderr: tail(stderr) }.into())
        }
        Err(_) => Err(StartFailed { code: None, stderr: tail(stderr) }.into()),
    }
}

impl Ready {
    fn parse(line: &str) -> anyhow::Result<Self> {
        let value: serde_json::Value =
            serde_json::from_str(line).with_context(|| format!("read the ready line {line:?}"))?;
        let text =
            |key: &str| value.get(key).and_then(serde_json::Value::as_str).map(str::to_owned);
        let number = |key: &str| value.get(key).and_then(serde_json::Value::as_u64);
        if text("event").as_deref() != Some("ready") {
            bail!("the first line of serve --json is no ready line: {line:?}");
        }
        Ok(Self {
            endpoint: text("endpoint").unwrap_or_default(),
            http: text("http"),
            socket: text("socket").map(PathBuf::from),
            devices: number("devices").with_context(|| format!("no devices in {line:?}"))?,
            reason: text("reason"),
            revision: number("revision").with_context(|| format!("no revision in {line:?}"))?,
        })
    }
}

fn read_lossy(path: &Path) -> String {
    std::fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

fn tail(path: &Path) -> String {
    let text = read_lossy(path);
    let from =
        (text.len().saturating_sub(TAIL_BYTES)..text.len()).find(|at| text.is_char_boundary(*at));
    from.map_or(String::new(), |from| text[from..].to_owned())
}
