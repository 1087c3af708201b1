//! The verbs. One arm, one call: what a verb does stands in its own file.

mod acquire;
mod completions;
mod devices;
mod events;
mod exec_child;
mod leases;
mod release;
mod renew;
mod revoke;
mod run;
mod show;
mod status;

pub(crate) use exec_child::arguments as exec_child_arguments;

use std::process::ExitCode;

use clap::Subcommand;

use crate::failure::Failure;
use crate::options::Context;

/// A client verb with its options.
#[derive(Debug, Subcommand)]
#[non_exhaustive]
pub enum Verb {
    /// Show the devices: what they are, how much is leased, by whom
    #[command(after_help = devices::HELP)]
    Devices(devices::Options),
    /// Acquire a lease and print its id, token, devices and environment
    #[command(after_help = acquire::HELP)]
    Acquire(acquire::Options),
    /// Release a lease, or leave the queue
    #[command(after_help = release::HELP)]
    Release(release::Options),
    /// Renew a lease: it lives for its whole TTL again
    #[command(after_help = renew::HELP)]
    Renew(renew::Options),
    /// End anybody's lease, for a reason that its holder is told
    #[command(after_help = revoke::HELP)]
    Revoke(revoke::Options),
    /// Show the leases: state, holder, devices, time left
    #[command(after_help = leases::HELP)]
    Leases(leases::Options),
    /// Show one lease with its whole history and causes
    #[command(after_help = show::HELP)]
    Show(show::Options),
    /// Follow the events: everything that happens to leases, devices and nodes
    #[command(after_help = events::HELP)]
    Events(events::Options),
    /// Run a command on leased devices: acquire, run, renew, release
    #[command(after_help = run::HELP)]
    Run(Box<run::Options>),
    /// Show how the coordinator is, in figures
    #[command(after_help = status::HELP)]
    Status(status::Options),
    /// Print the completion script of a shell
    #[command(after_help = completions::HELP)]
    Completions(completions::Options),
    /// Become a command that dies with its parent; used by `run`
    #[command(hide = true)]
    ExecChild(exec_child::Options),
}

pub(crate) async fn dispatch(context: &Context, verb: Verb) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Devices(options) => devices::devices(context, &options).await,
        Verb::Acquire(options) => acquire::acquire(context, &options).await,
        Verb::Release(options) => release::release(context, &options).await,
        Verb::Renew(options) => renew::renew(context, &options).await,
        Verb::Revoke(options) => revoke::revoke(context, &options).await,
        Verb::Leases(options) => leases::leases(context, &options).await,
        Verb::Show(options) => show::show(context, &options).await,
        Verb::Events(options) => events::events(context, &options).await,
        Verb::Run(options) => return run::run(context, &options).await,
        Verb::Status(options) => status::status(context, &options).await,
        Verb::Completions(options) => completions::completions(context, &options),
        Verb::ExecChild(options) => return Err(exec_child::exec_child(&options)),
    }
    .map(|()| ExitCode::SUCCESS)
}
