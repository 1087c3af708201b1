//! The gpulease binary: `serve` and `journal` from this crate, every other verb from `gpulease-cli`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use gpulease_cli::{GlobalOptions, Program, Verb};
use gpulease_server::{config::ServeArgs, offline, serve};
use tokio::runtime::Runtime;

/// Two threads serve gRPC; the actor, the backend and the snapshots have their own. More would only move the same
/// work between caches: the actor is the bottleneck, and connections are cheap.
const WORKERS: usize = 2;
/// Threads for what blocks (watchers that read past events): each reads at most 4 MiB at a time.
const BLOCKING_THREADS_MAX: usize = 8;
/// The stack of each thread: requests are shallow, and idle memory counts.
const STACK_BYTES: usize = 1 << 20;

/// Leases on GPUs: who may use which device, when, and for how long.
#[derive(Parser)]
#[command(name = "gpulease", version, subcommand_required = true, arg_required_else_help = true)]
struct Line {
    #[command(flatten)]
    globals: GlobalOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a coordinator: own the devices of this host and lease them out
    Serve(Box<ServeArgs>),
    /// Check, export or import the journal of a coordinator that does not run
    Journal(offline::JournalArgs),
    #[command(flatten)]
    Client(Verb),
}

fn main() -> ExitCode {
    let line = Line::parse();
    match start(line) {
        Ok(code) => code,
        Err(error) => {
            // Nobody may read stderr any more.
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("gpulease: cannot start: {error}\n"),
            );
            ExitCode::FAILURE
        }
    }
}

fn start(line: Line) -> std::io::Result<ExitCode> {
    let runtime = runtime()?;
    let code = match line.command {
        Command::Serve(args) => runtime.block_on(serve::run(&args, line.globals.json)),
        Command::Journal(args) => offline::run(&args, line.globals.json),
        Command::Client(verb) => {
            let program = Program::of_this_executable(Line::command())?;
            runtime.block_on(gpulease_cli::execute(program, line.globals, verb))
        }
    };
    // What still reads or waits is cut off: everything that matters has ended by now.
    runtime.shutdown_background();
    Ok(code)
}

fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Line::command().debug_assert();
    }

    #[test]
    fn serve_takes_json_before_and_after_the_verb() {
        for line in
            ["gpulease serve --json --simulate 2x24GiB", "gpulease --json serve --simulate 2x24GiB"]
        {
            let line = Line::try_parse_from(line.split_whitespace()).expect("it parses");
            assert!(line.globals.json);
            assert!(
                matches!(line.command, Command::Serve(args) if args.simulate.as_deref() == Some("2x24GiB"))
            );
        }
    }
}
