//! The verbs. One arm, one call: what a verb does stands in its own file.

mod acknowledge;
mod acquire;
mod adopt;
mod completions;
mod cordon;
mod devices;
mod drain;
mod events;
mod exec_child;
mod explain;
mod extend;
mod guard;
mod leases;
mod open;
mod plan;
mod processes;
mod queue;
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
    /// Answer a notice: the work has stopped, the devices are given back
    #[command(after_help = acknowledge::HELP)]
    Acknowledge(acknowledge::Options),
    /// Ask for more time to answer a notice
    #[command(after_help = extend::HELP)]
    Extend(extend::Options),
    /// End anybody's lease, for a reason that its holder is told
    #[command(after_help = revoke::HELP)]
    Revoke(revoke::Options),
    /// Show the leases: state, holder, devices, time left
    #[command(after_help = leases::HELP)]
    Leases(leases::Options),
    /// Show one lease with its whole history and causes
    #[command(after_help = show::HELP)]
    Show(show::Options),
    /// Show the queue: who waits, in which order, and what every service uses
    #[command(after_help = queue::HELP)]
    Queue(queue::Options),
    /// Explain why a lease waits, or why it got its devices
    #[command(after_help = explain::HELP)]
    Explain(explain::Options),
    /// Plan where many pipelines go, one device or node for each, and lease it all at once
    #[command(after_help = plan::HELP)]
    Plan(Box<plan::Options>),
    /// Show the processes that use devices, each with the lease that explains it
    #[command(after_help = processes::HELP)]
    Processes(processes::Options),
    /// Follow the events: everything that happens to leases, devices and nodes
    #[command(after_help = events::HELP)]
    Events(events::Options),
    /// Run a command on leased devices: acquire, run, renew, release
    #[command(after_help = run::HELP)]
    Run(Box<run::Options>),
    /// No new grants on a device or node; holders keep what they have
    #[command(after_help = cordon::HELP)]
    Cordon(cordon::Options),
    /// Take a cordon or drain back
    #[command(after_help = cordon::UNCORDON_HELP)]
    Uncordon(cordon::UncordonOptions),
    /// No new grants on a device or node, and notices to its holders
    #[command(after_help = drain::HELP)]
    Drain(drain::Options),
    /// Open a device that former leases closed, on your word that it is safe
    #[command(after_help = open::HELP)]
    Open(open::Options),
    /// Lease for a process that runs already, until it ends
    #[command(after_help = adopt::HELP)]
    Adopt(Box<adopt::Options>),
    /// Show how the coordinator is, in figures
    #[command(after_help = status::HELP)]
    Status(status::Options),
    /// Print the completion script of a shell
    #[command(after_help = completions::HELP)]
    Completions(completions::Options),
    /// Become a command that dies with its parent; used by `run`
    #[command(hide = true)]
    ExecChild(exec_child::Options),
    /// End a process group when its keeper is gone; used by `run`
    #[command(hide = true)]
    Guard(guard::Options),
}

pub(crate) async fn dispatch(context: &Context, verb: Verb) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Devices(options) => devices::devices(context, &options).await,
        Verb::Acquire(options) => acquire::acquire(context, &options).await,
        Verb::Release(options) => release::release(context, &options).await,
        Verb::Renew(options) => renew::renew(context, &options).await,
        Verb::Acknowledge(options) => acknowledge::acknowledge(context, &options).await,
        Verb::Extend(options) => extend::extend(context, &options).await,
        Verb::Revoke(options) => revoke::revoke(context, &options).await,
        Verb::Leases(options) => leases::leases(context, &options).await,
        Verb::Show(options) => show::show(context, &options).await,
        Verb::Explain(options) => explain::explain(context, &options).await,
        Verb::Queue(options) => queue::queue(context, &options).await,
        Verb::Plan(options) => plan::plan(context, &options).await,
        Verb::Processes(options) => processes::processes(context, &options).await,
        Verb::Events(options) => events::events(context, &options).await,
        Verb::Run(options) => return run::run(context, &options).await,
        Verb::Cordon(options) => cordon::cordon(context, &options).await,
        Verb::Uncordon(options) => cordon::uncordon(context, &options).await,
        Verb::Drain(options) => drain::drain(context, &options).await,
        Verb::Open(options) => open::open(context, &options).await,
        Verb::Adopt(options) => adopt::adopt(context, &options).await,
        Verb::Status(options) => status::status(context, &options).await,
        Verb::Completions(options) => completions::completions(context, &options),
        Verb::Guard(options) => guard::guard(&options).await,
        Verb::ExecChild(options) => return Err(exec_child::exec_child(&options)),
    }
    .map(|()| ExitCode::SUCCESS)
}
