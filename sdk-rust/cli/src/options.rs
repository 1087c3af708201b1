//! The options that every verb takes, and what a verb runs with.
//!
//! Promises: an endpoint at which nobody answers ends in a message with the exact command that starts a
//! coordinator there.
//! Leaves to others: what the program that embeds this is called and how it is started again (`Program`).

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use gpulease::{Client, ENDPOINT_DEFAULT};

use crate::failure::{Exit, Failure};
use crate::output::{ColorChoice, Output};

/// How long a verb tries to reach the coordinator: a local one answers within milliseconds, and a person
/// at a prompt waits no longer than this for the news that there is none.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Options that every verb takes, before or after its name.
#[derive(Args, Clone, Debug)]
pub struct GlobalOptions {
    /// Where the coordinator is: http://HOST:PORT or unix:///PATH
    #[arg(
        long,
        global = true,
        env = "GPULEASE_ENDPOINT",
        value_name = "URL",
        default_value = ENDPOINT_DEFAULT,
        help_heading = "Global options"
    )]
    pub endpoint: String,

    /// Print JSON, one object per line: data on stdout, errors on stderr
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,

    /// When to colour tables; auto: on a terminal, unless NO_COLOR is set
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "WHEN",
        default_value_t,
        help_heading = "Global options"
    )]
    pub color: ColorChoice,
}

/// The program that the verbs are part of: `run` starts it again, `completions` describes it.
#[derive(Clone, Debug)]
pub struct Program {
    command: clap::Command,
    restart: Vec<OsString>,
}

impl Program {
    /// A program with this command line, which starts again by its own executable: the `gpulease` binary.
    ///
    /// # Errors
    /// When the operating system cannot tell where the executable is.
    pub fn of_this_executable(command: clap::Command) -> std::io::Result<Self> {
        Ok(Self { command, restart: vec![std::env::current_exe()?.into_os_string()] })
    }

    /// A program that starts again with these words in front of its arguments, such as
    /// `["python3", "-m", "gpulease"]`.
    #[must_use]
    pub fn started_by(command: clap::Command, restart: Vec<OsString>) -> Self {
        Self { command, restart }
    }

    pub(crate) fn command(&self) -> &clap::Command {
        &self.command
    }

    /// The words that start this program again with the arguments, program first.
    pub(crate) fn restarted(&self, arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
        self.restart.iter().cloned().chain(arguments).collect()
    }
}

/// What every verb runs with.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) program: Program,
    pub(crate) endpoint: String,
    pub(crate) output: Output,
}

/// Who speaks to the coordinator; what is not given, the SDK chooses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identity {
    pub(crate) service: Option<String>,
    pub(crate) holder: Option<String>,
}

impl Context {
    pub(crate) fn new(program: Program, globals: GlobalOptions) -> Self {
        let output = Output::new(globals.json, globals.color);
        Self { program, endpoint: globals.endpoint, output }
    }

    /// The same, at another endpoint.
    pub(crate) fn at(&self, endpoint: &str) -> Self {
        Self { program: self.program.clone(), endpoint: endpoint.to_owned(), output: self.output }
    }

    /// Connects as nobody in particular: for verbs that hold nothing.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        self.connect_as(Identity::default()).await
    }

    pub(crate) async fn connect_as(&self, identity: Identity) -> Result<Client, Failure> {
        let mut builder =
            Client::builder().endpoint(&self.endpoint).connect_timeout(CONNECT_TIMEOUT);
        if let Some(service) = &identity.service {
            builder = builder.service(service);
        }
        if let Some(holder) = &identity.holder {
            builder = builder.holder(holder);
        }
        builder.connect().await.map_err(|error| {
            let failure = Failure::from(error);
            if failure.is(Exit::Unreachable) {
                return failure.hint(unreachable_hint(&self.endpoint));
            }
            failure
        })
    }
}

/// What to do where nobody answers.
fn unreachable_hint(endpoint: &str) -> String {
    let serve = serve_command(endpoint);
    format!(
        "The command that starts one there:\n    {serve}\nwith simulated devices, to try it without \
         a GPU:\n    {serve} --simulate 2x24GiB"
    )
}

/// The command that starts a coordinator at an endpoint.
fn serve_command(endpoint: &str) -> String {
    if endpoint == ENDPOINT_DEFAULT {
        return "gpulease serve".to_owned();
    }
    if let Some(path) = endpoint.strip_prefix("unix://") {
        return format!("gpulease serve --socket {}", crate::format::shell_word(path));
    }
    let address = endpoint.split_once("://").map_or(endpoint, |(_, address)| address);
    let address = address.trim_end_matches('/');
    match address.rsplit_once(':') {
        Some(("localhost", port)) => format!("gpulease serve --listen 127.0.0.1:{port}"),
        Some((host, port)) if !is_address(host) => {
            format!("gpulease serve --listen 0.0.0.0:{port}")
        }
        _ => format!("gpulease serve --listen {address}"),
    }
}

fn is_address(host: &str) -> bool {
    host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_serve_command_fits_the_endpoint() {
        let rows = [
            (ENDPOINT_DEFAULT, "gpulease serve"),
            ("http://127.0.0.1:9000", "gpulease serve --listen 127.0.0.1:9000"),
            ("http://localhost:9000/", "gpulease serve --listen 127.0.0.1:9000"),
            ("http://[::1]:9000", "gpulease serve --listen [::1]:9000"),
            ("http://gpu-box:7475", "gpulease serve --listen 0.0.0.0:7475"),
            ("unix:///run/g.sock", "gpulease serve --socket /run/g.sock"),
        ];
        for (endpoint, expected) in rows {
            assert_eq!(serve_command(endpoint), expected, "{endpoint}");
        }
    }
}
