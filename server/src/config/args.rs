//! The flags of `gpulease serve`: the few keys that are changed often, and what is no key.

use std::path::PathBuf;

use clap::Args;

/// Exit codes and examples, below the flags in `--help`.
const AFTER_HELP: &str = "\
Every other setting is a key of the configuration file, or a variable such as GPULEASE_LEASES_LOCK_DELAY;
--print-config shows all of them with their meaning, unit and default.

Exit codes: 0 stopped on request, 1 failed, 2 bad usage or configuration, 3 the data directory is in use by
another coordinator, 4 the journal is corrupt, 5 the journal failed while running.

Examples:
  gpulease serve --simulate 2x24GiB
  gpulease serve --listen 0.0.0.0:7475 --data /srv/gpulease
  gpulease serve --print-config > gpulease.toml";

/// How `gpulease serve` was called.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = AFTER_HELP)]
pub struct ServeArgs {
    /// Simulate devices: a number and a size such as 2x24GiB, with a model as in 8x80GiB:H100, or a scenario file
    #[arg(long, value_name = "SPEC")]
    pub simulate: Option<String>,
    /// Serve gRPC at this address, or none; port 0 picks a free one [default: 127.0.0.1:7475]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Serve health and status over HTTP at this address, or none [default: 127.0.0.1:7476]
    #[arg(long, value_name = "ADDRESS")]
    pub http: Option<String>,
    /// Serve gRPC on this Unix socket, or none
    #[arg(long, value_name = "PATH")]
    pub socket: Option<String>,
    /// Keep the journal in this directory
    #[arg(long, value_name = "DIRECTORY")]
    pub data: Option<String>,
    /// Read this configuration file [environment: GPULEASE_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the configuration in force as a commented file, and exit
    #[arg(long)]
    pub print_config: bool,
    /// Log at this level: error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<String>,
    /// Log as text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

impl ServeArgs {
    /// The flags that were given, each with its key and text.
    pub(super) fn values(&self) -> impl Iterator<Item = (&'static str, &'static str, &str)> {
        let flags = [
            ("--simulate", "simulate", &self.simulate),
            ("--listen", "listen", &self.listen),
            ("--http", "http", &self.http),
            ("--socket", "socket", &self.socket),
            ("--data", "data", &self.data),
            ("--log", "log.level", &self.log),
            ("--log-format", "log.format", &self.log_format),
        ];
        flags.into_iter().filter_map(|(flag, key, text)| Some((flag, key, text.as_deref()?)))
    }
}
