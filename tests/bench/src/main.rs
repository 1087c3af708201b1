//! `gpulease-bench`: replays a cluster trace, measures leases, and kills coordinators, always through the real
//! binary and the public Rust SDK; and replays the published placement experiment on the core alone.
//!
//! It promises that figures come with what they are to be compared with, that every run is checked by the
//! independent checker of `gpulease-tests`, and that `--check` turns a missed goal into exit code 1.
//! Data goes to stdout, progress to stderr.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line speaks to its user")]

mod figures;
mod kill;
mod leases;
mod placement;
mod preemption;
mod progress;
mod replay;
mod simulated;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Benchmarks and replays of gpulease through its real interfaces.
///
/// Each command but `placement`, which needs none, starts the `gpulease` binary that lies beside this one (or
/// GPULEASE_BINARY, or builds it once) with simulated devices on a free port and a temporary data directory; no GPU and
/// no configuration is needed.
#[derive(Debug, Parser)]
#[command(name = "gpulease-bench", version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Replay(replay::Arguments),
    Leases(leases::Arguments),
    Kill(kill::Arguments),
    Placement(placement::Arguments),
    Preemption(preemption::Arguments),
    /// Echoes session messages, for the comparison in `leases`.
    #[command(hide = true)]
    Echo,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&anyhow::Error::new(error).context("start the runtime")),
    };
    let outcome = runtime.block_on(async {
        match arguments.command {
            Command::Replay(arguments) => replay::run(arguments).await,
            Command::Leases(arguments) => leases::run(arguments).await,
            Command::Kill(arguments) => kill::run(arguments).await,
            Command::Placement(arguments) => placement::run(&arguments),
            Command::Preemption(arguments) => preemption::run(arguments).await,
            Command::Echo => leases::echo::serve().await.map(|()| true),
        }
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("gpulease-bench: {error:#}");
    ExitCode::FAILURE
}
