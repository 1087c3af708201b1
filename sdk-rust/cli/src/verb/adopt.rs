//! `gpulease adopt --pid PID`: a lease for a process that runs already and that gpulease did not start.
//!
//! Promises: the lease is bound to the very process that had the id in the beginning, is renewed while that lives and
//! released when it ends; the process is never ended by this program, and gets signals only where it was told to send
//! them.
//! Leaves to others: giving way (`pausing`), and whose process may be declared (the coordinator).

use std::fs;
use std::os::unix::fs::MetadataExt;

use clap::Args;
use gpulease::{Client, Lease, ProcessFilter};
use rustix::io::Errno;
use rustix::process::{Pid, geteuid};

use crate::failure::{Exit, Failure};
use crate::grant;
use crate::help::with_exit_codes;
use crate::options::Context;
use crate::output::Output;
use crate::pausing::{Outcome, PauseOptions, Pauser, Way, Worker};
use crate::request::LeaseOptions;
use crate::run::exit::ProcessExit;
use crate::run::tree::Children;
use crate::signals::Stop;
use crate::told::Teller;
use crate::{table, view};

pub(crate) const HELP: &str = with_exit_codes!(
    "For what was not started by `gpulease run`: a server under systemd, a notebook, Ollama. The\n",
    "process, and all that it starts, is declared to the coordinator over its Unix socket, which\n",
    "root may do, and the user that runs it. The lease is released when the process ends. Ctrl-C\n",
    "releases it too and leaves the process alone: its memory is then nobody's (\"foreign\").\n",
    "If it uses devices already, the lease is for those, unless --device says otherwise. Memory\n",
    "that it uses already counts as foreign until the lease is granted: lease it early.\n",
    "It gives way as under `gpulease run --help`; GPULEASE_CHILD_PID is the process. A notice that\n",
    "stays unanswered ends the lease, and the process goes on without one.\n",
    "\nExamples:\n",
    "  gpulease adopt --pid $(pidof ollama) --memory 8GiB --endpoint unix:///run/gpulease/gpulease.sock\n",
    "  gpulease adopt --pid 4711 --exclusive --name notebook\n",
    "  gpulease adopt --pid 4711 --memory 20GiB --on-pause 'curl -fsX POST localhost:8000/sleep' \\\n",
    "      --on-resume 'curl -fsX POST localhost:8000/wake_up'\n",
);

/// The options of `adopt`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The process
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pid: i32,

    #[command(flatten)]
    lease: LeaseOptions,

    #[command(flatten)]
    pauses: PauseOptions,
}

/// A process that somebody else started.
struct Stranger {
    id: Pid,
    exit: ProcessExit,
}

/// How the time with the process ended.
enum End {
    Exited,
    Interrupted,
    Over(Outcome),
}

pub(crate) async fn adopt(context: &Context, options: &Options) -> Result<(), Failure> {
    let way = options.pauses.way(options.lease.preemptible())?;
    if way == Way::End {
        return Err(Failure::usage("adopt ends no process, and so cannot take --preemptible end")
            .hint("Take --preemptible pause, with --on-pause CMD."));
    }
    check_endpoint(&context.endpoint)?;
    let mut stranger = Stranger::find(options.pid)?;
    let mut stop = Stop::listen()
        .map_err(|error| Failure::other(format!("cannot listen for signals: {error}")))?;
    let client = context.connect_as(options.lease.identity()).await?;
    let outcome = adopt_with(context, options, &way, &client, &mut stranger, &mut stop).await;
    grant::close(client).await;
    outcome
}

async fn adopt_with(
    context: &Context,
    options: &Options,
    way: &Way,
    client: &Client,
    stranger: &mut Stranger,
    stop: &mut Stop,
) -> Result<(), Failure> {
    let pid = options.pid;
    let mut lease_options = options.lease.clone();
    if lease_options.devices_named().is_empty() {
        lease_options.only_devices(devices_of(client, stranger.id).await?);
    }
    let request = lease_options.request().preemptible(way.preemptible());
    let request = request.declare_process(pid.unsigned_abs());
    let asked = (request, lease_options.wait());
    let lease = tokio::select! {
        lease = grant::acquire(client, asked, &context.output, stop) => lease?,
        () = stranger.exit.reached() => {
            return Err(Failure::other(format!("process {pid} ended before it had a lease")));
        }
    };
    say_granted(context, &lease, pid)?;
    let end = hold(context, way, &lease, stranger, stop).await;
    if !matches!(end, End::Exited) {
        warn_if_stopped(&context.output, stranger);
    }
    finish(&context.output, lease, pid, end).await
}

/// Renews and gives way until the process ends, somebody interrupts, or the lease is over.
async fn hold(
    context: &Context,
    way: &Way,
    lease: &Lease,
    stranger: &mut Stranger,
    stop: &mut Stop,
) -> End {
    let pauser = Pauser {
        context,
        way,
        lease,
        worker: stranger.worker(),
        children: Children::default(),
        what: "the process",
    };
    let teller = Teller::beside(context.output, lease.id());
    tokio::select! {
        biased;
        () = stranger.exit.reached() => End::Exited,
        outcome = pauser.give_way(lease.grant()) => End::Over(outcome),
        never = teller.follow_answers(lease) => match never {},
        _ = stop.next() => End::Interrupted,
    }
}

/// Nobody lets a process go on that stopped for its pause, once its lease is over: it may not use the devices. Whoever
/// wants it to do so anyway is told how.
fn warn_if_stopped(output: &Output, stranger: &Stranger) {
    let id = stranger.id.as_raw_pid();
    if stranger.worker().is_stopped() {
        output.warn(&format!("process {id} is stopped; to let it go on: kill -CONT {id}"));
    }
}

async fn finish(output: &Output, lease: Lease, pid: i32, end: End) -> Result<(), Failure> {
    let id = lease.id();
    let why = match end {
        End::Exited => format!("process {pid} has ended"),
        End::Interrupted => format!("process {pid} is left alone"),
        End::Over(Outcome::Lost(reason)) => {
            let message = format!("lease {id} is lost: {reason}; process {pid} is left alone");
            return Err(Failure::other(message));
        }
        End::Over(Outcome::Stuck(why)) => {
            lease.release().await?;
            let message = format!("lease {id} is released: {why}; process {pid} is left alone");
            return Err(Failure::other(message));
        }
        // Only a lease that may end is asked so, and none of these may.
        End::Over(Outcome::Asked(notice)) => format!("{notice}; process {pid} is left alone"),
    };
    let released = lease.release().await?;
    if output.json {
        return output.object(&view::Lease::from(&released));
    }
    output.note(&format!("Lease {id} released: {why}."));
    Ok(())
}

impl Stranger {
    fn find(pid: i32) -> Result<Self, Failure> {
        let none = || Failure::new(Exit::NotFound, format!("there is no process {pid}"));
        let id = Pid::from_raw(pid).ok_or_else(none)?;
        let exit = ProcessExit::of(id).map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::SRCH) => none(),
            Some(Errno::INVAL) => {
                Failure::usage(format!("{pid} is a thread, and no process: name its process"))
            }
            _ => Failure::other(format!("cannot watch process {pid}: {error}")),
        })?;
        // What its owner's files show: root's processes are root's, set-user-id programs included.
        let owner = fs::metadata(format!("/proc/{pid}")).map_err(|_| none())?.uid();
        let own = geteuid();
        if !own.is_root() && owner != own.as_raw() {
            let message =
                format!("process {pid} is user {owner}'s, and you are user {}", own.as_raw());
            return Err(Failure::other(message).hint("Adopt it as that user, or as root."));
        }
        Ok(Self { id, exit })
    }

    fn worker(&self) -> Worker {
        Worker::stranger(self.id, self.exit.clone())
    }
}

/// The coordinator can only check a process over its own socket.
fn check_endpoint(endpoint: &str) -> Result<(), Failure> {
    if endpoint.starts_with("unix://") {
        return Ok(());
    }
    let message =
        format!("cannot adopt a process over {endpoint}: nobody there can tell whose it is");
    Err(Failure::usage(message).hint(
        "Use the coordinator's Unix socket, which its first lines name, like\n    gpulease adopt --endpoint \
         unix:///run/gpulease/gpulease.sock …",
    ))
}

/// The devices that a process uses already: its memory would not move.
async fn devices_of(client: &Client, id: Pid) -> Result<Vec<String>, Failure> {
    let pid = id.as_raw_pid().unsigned_abs();
    let mut uuids: Vec<String> = client
        .processes(ProcessFilter::default())
        .await?
        .into_iter()
        .filter(|process| process.process.pid == pid)
        .map(|process| process.device_uuid)
        .collect();
    uuids.sort();
    uuids.dedup();
    Ok(uuids)
}

fn say_granted(context: &Context, lease: &Lease, pid: i32) -> Result<(), Failure> {
    let view = view::Lease::from(&lease.info());
    if context.output.json {
        return context.output.object(&view);
    }
    let devices: Vec<String> = view.devices.iter().map(table::device_line).collect();
    context
        .output
        .text(&format!("lease {}  token {}  process {pid}", view.id, view.fencing_token))?;
    context.output.text(&devices.join("\n"))?;
    context.output.note("It is released when the process ends, or on Ctrl-C.");
    Ok(())
}
