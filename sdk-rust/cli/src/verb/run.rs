//! `gpulease run -- COMMAND`: acquires, runs the command on the devices, renews meanwhile, releases.
//!
//! Promises: the exit code is the command's; a lost lease ends the command's whole process group before
//! anybody else can be on its devices; what the command leaves running ends before the lease is released.
//! Leaves to others: the process group (`run::group`), the environment (`environment`).

use std::ffi::OsString;
use std::io;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use clap::Args;
use gpulease::{Client, Lease, LostReason};
use tokio::time::timeout;

use super::exec_child;
use crate::environment::{self, Grant, Variables};
use crate::failure::{Exit, Failure};
use crate::grant;
use crate::options::Context;
use crate::request::LeaseOptions;
use crate::run::group::{self, Group};
use crate::run::local::LocalCoordinator;
use crate::signals::{Forwarded, Stop};
use crate::view;

pub(crate) const HELP: &str = "\
COMMAND runs in a process group of its own, with these variables set:
  CUDA_VISIBLE_DEVICES    the devices, by UUID    CUDA_DEVICE_ORDER  PCI_BUS_ID
  HIP_VISIBLE_DEVICES     AMD devices, by index   GPULEASE_ENDPOINT  the coordinator
  GPULEASE_LEASE_ID       the lease               GPULEASE_FENCING_TOKEN
Signals (INT, TERM, HUP, QUIT, USR1, USR2) go to that group. A lost lease stops the whole group:
SIGTERM, 10 s later SIGKILL. What is left of the group when COMMAND ends is stopped as well; then
the lease is released. If this program is killed, the kernel kills COMMAND (not what it started),
and the lease ends with its TTL. Ctrl-Z stops this program too: the lease is not renewed meanwhile.

Examples:
  gpulease run --memory 8GiB -- python train.py
  gpulease run --devices 2 --same-node --wait 2h -- torchrun --nproc-per-node 2 train.py
  gpulease run --local-simulate 2x24GiB --memory 1GiB -- env

Exit codes:
  COMMAND's own; 128 + N when signal N ended it; and
  2    bad usage
  124  the lease was lost, and COMMAND was stopped for it
  125  the lease could not be had: no coordinator, no capacity, refused
  126  COMMAND cannot be run
  127  COMMAND was not found
";

/// The longest a release may take: a coordinator that is away ends the lease by its TTL.
const RELEASE_MAX: Duration = Duration::from_secs(5);

/// The options of `run`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    lease: LeaseOptions,

    /// Start a coordinator for the time of COMMAND, with this host's devices and a temporary journal
    #[arg(long, help_heading = "Where to get it")]
    local: bool,

    /// Start a coordinator for the time of COMMAND, with simulated devices, like 2x24GiB or 8x80GiB:H100
    #[arg(long, value_name = "SPEC", conflicts_with = "local", help_heading = "Where to get it")]
    local_simulate: Option<String>,

    /// What to run, with its arguments
    #[arg(required = true, last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// How the time with the command ended.
enum End {
    Exited(io::Result<ExitStatus>),
    Lost(LostReason),
}

pub(crate) async fn run(context: &Context, options: &Options) -> Result<ExitCode, Failure> {
    let listening = |error| Failure::other(format!("cannot listen for signals: {error}"));
    let stop = Stop::listen().map_err(listening)?;
    let local = start_local(context, options).await?;
    let endpoint = local.as_ref().map_or(context.endpoint.as_str(), LocalCoordinator::endpoint);
    let outcome = run_at(&context.at(endpoint), options, stop).await;
    if let Some(local) = local {
        local.stop().await;
    }
    outcome.map(ExitCode::from)
}

async fn start_local(
    context: &Context,
    options: &Options,
) -> Result<Option<LocalCoordinator>, Failure> {
    if !options.local && options.local_simulate.is_none() {
        return Ok(None);
    }
    let simulate = options.local_simulate.as_deref();
    LocalCoordinator::start(&context.program, simulate)
        .await
        .map(Some)
        .map_err(|error| Failure::new(Exit::NoLease, format!("{error:#}")))
}

async fn run_at(context: &Context, options: &Options, mut stop: Stop) -> Result<u8, Failure> {
    let no_lease = |failure: Failure| failure.exiting(Exit::NoLease);
    let client = match context.connect_as(options.lease.identity()).await {
        Ok(client) => client,
        Err(failure) if failure.is(Exit::Unreachable) => {
            let local = "or for the time of this command: gpulease run --local … -- COMMAND";
            return Err(no_lease(failure.also_hint(local)));
        }
        Err(failure) => return Err(no_lease(failure)),
    };
    let acquired = grant::acquire(
        &client,
        (options.lease.request(), options.lease.wait()),
        &context.output,
        &mut stop,
    )
    .await;
    let outcome = match acquired {
        Ok(lease) => run_holding(context, options, &client, lease, stop).await,
        Err(failure) => Err(no_lease(failure)),
    };
    grant::close(client).await;
    outcome
}

async fn run_holding(
    context: &Context,
    options: &Options,
    client: &Client,
    lease: Lease,
    stop: Stop,
) -> Result<u8, Failure> {
    let started = Forwarded::from_stop(stop).and_then(|signals| {
        let words = context.program.restarted(exec_child::arguments(&options.command));
        let group = Group::start(&words, &variables(client.endpoint(), &lease))?;
        Ok((signals, group))
    });
    match started {
        Ok((mut signals, mut group)) => {
            let end = supervise(&mut group, &mut signals, &lease).await;
            finish(context, lease, group, end).await
        }
        Err(error) => {
            release(context, lease).await;
            let command = options.command.first().map(|word| word.to_string_lossy());
            let message = format!("cannot run {}: {error}", command.unwrap_or_default());
            Err(Failure::new(Exit::CannotRun, message))
        }
    }
}

/// Ends what is left of the group, and only then the lease.
async fn finish(
    context: &Context,
    lease: Lease,
    mut group: Group,
    end: End,
) -> Result<u8, Failure> {
    let id = lease.id();
    if let End::Lost(reason) = &end {
        context.output.note(&format!("gpulease: lease {id} is lost ({reason}): stopping COMMAND"));
    }
    group.end().await;
    match end {
        End::Lost(reason) => {
            let message = format!("lease {id} was lost, the command was stopped for it: {reason}");
            Err(Failure::new(Exit::LeaseLost, message))
        }
        End::Exited(status) => {
            release(context, lease).await;
            let status = status
                .map_err(|error| Failure::other(format!("cannot wait for the command: {error}")))?;
            Ok(group::exit_code(status))
        }
    }
}

/// Passes signals on until the command ended or the lease is lost.
async fn supervise(group: &mut Group, signals: &mut Forwarded, lease: &Lease) -> End {
    loop {
        let number = tokio::select! {
            biased;
            status = group.wait() => return End::Exited(status),
            reason = lease.lost() => return End::Lost(reason),
            number = signals.next() => number,
        };
        group.signal(number);
    }
}

/// Releases the lease. One that cannot be released ends by its TTL: that is said, and no failure.
async fn release(context: &Context, lease: Lease) {
    let id = lease.id();
    let why = match timeout(RELEASE_MAX, lease.release()).await {
        Ok(Ok(_)) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {RELEASE_MAX:?}"),
    };
    context.output.warn(&format!("lease {id} is not released and ends with its TTL: {why}"));
}

fn variables(endpoint: &str, lease: &Lease) -> Variables {
    let devices: Vec<view::DeviceShare> = lease.devices().iter().map(Into::into).collect();
    let grant = Grant {
        endpoint,
        lease_id: lease.id(),
        fencing_token: lease.fencing_token(),
        devices: &devices,
    };
    environment::variables(&grant, &environment::host_name())
}
