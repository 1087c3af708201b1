//! `gpulease run -- COMMAND`: acquires, runs the command on the devices, renews meanwhile, gives way to others where
//! it may be preempted, releases.
//!
//! Promises: the exit code is the command's; a lost lease ends the command and all that it started before anybody
//! else can be on its devices; what the command leaves running ends before the lease is released.
//! Leaves to others: the processes (`run::group`), giving way (`pausing`), the environment (`environment`).

use std::ffi::OsString;
use std::io;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use clap::Args;
use gpulease::{Client, Grant, Lease, LeaseRequest, LeaseStatus, LostReason, Notice};
use rustix::process::Pid;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{exec_child, guard};
use crate::environment::{self, Variables};
use crate::failure::{Exit, Failure};
use crate::grant;
use crate::options::Context;
use crate::pausing::{Outcome, PauseOptions, Pauser, Way};
use crate::request::LeaseOptions;
use crate::run::group::{self, END_MAX, Group};
use crate::run::local::LocalCoordinator;
use crate::run::tree::Children;
use crate::signals::{Forwarded, Stop};
use crate::told::Teller;
use crate::view;

pub(crate) const HELP: &str = "\
COMMAND runs in a process group of its own, with these variables set:
  CUDA_VISIBLE_DEVICES    the devices, by UUID    CUDA_DEVICE_ORDER  PCI_BUS_ID
  HIP_VISIBLE_DEVICES     AMD devices, by index   GPULEASE_ENDPOINT  the coordinator
  GPULEASE_LEASE_ID       the lease               GPULEASE_FENCING_TOKEN
Signals (INT, TERM, HUP, QUIT, USR1, USR2) go to that group. A lost lease stops COMMAND and all that
it started: SIGTERM, 10 s later SIGKILL. What is left of them when COMMAND ends is stopped as well;
then the lease is released; where some cannot be ended (another user's) it ends with its TTL. If
this program is killed, the kernel kills COMMAND, and a helper its process group (not what has left
the group), and the lease ends with its TTL. Ctrl-Z stops this program too: the lease is not
renewed meanwhile. Over the coordinator's Unix socket (--endpoint unix:///PATH) this program
declares itself: memory of all that it starts is told from others'.

Giving way (--preemptible pause): others that may have the devices send a notice with a deadline.
  with --on-pause      CMD runs; when it exits 0, --pause-signal is sent if given, and the devices
                       are given back. Anything else leaves the notice unanswered.
  with --pause-signal  alone: COMMAND's process must handle the signal by freeing its device memory
                       and stopping itself (raise SIGSTOP). A signal it does not handle is not sent.
An unanswered notice stops COMMAND at its deadline, as a lost lease does. When there are devices
again, --resume-signal is sent (SIGCONT to the whole group, others to COMMAND's process), then
--on-resume runs. COMMAND's own environment cannot change: where it is to go on with other devices
--on-resume must tell it (CUDA_VISIBLE_DEVICES there names the new ones); without --on-resume other
devices stop COMMAND (--device UUID waits for the same). Hooks see COMMAND's variables as they are
by then, and GPULEASE_CHILD_PID, on a pause GPULEASE_NOTICE_ID and GPULEASE_NOTICE_SECONDS. A hook
that needs longer: gpulease extend $GPULEASE_LEASE_ID --notice $GPULEASE_NOTICE_ID
With --preemptible end a notice sends COMMAND SIGTERM, and SIGKILL at the deadline.

Examples:
  gpulease run --memory 8GiB -- python train.py
  gpulease run --devices 2 --same-node --wait 2h -- torchrun --nproc-per-node 2 train.py
  gpulease run --memory 20GiB --on-pause 'curl -fsX POST localhost:8000/sleep?level=2' \\
      --on-resume 'curl -fsX POST localhost:8000/wake_up' -- vllm serve … --enable-sleep-mode
  gpulease run --memory 8GiB --on-pause 'cuda-checkpoint --toggle --pid $GPULEASE_CHILD_PID' \\
      --on-resume 'cuda-checkpoint --toggle --pid $GPULEASE_CHILD_PID' -- ./simulate
  gpulease run --local-simulate 2x24GiB --memory 1GiB -- env

Exit codes:
  COMMAND's own; 128 + N when signal N ended it; and
  2    bad usage
  124  the lease was lost or taken back, or COMMAND could not go on with it, and was stopped
  125  the lease could not be had: no coordinator, no capacity, refused
  126  COMMAND cannot be run
  127  COMMAND was not found
";

/// The longest a release may take: a coordinator that is away ends the lease by its TTL.
const RELEASE_MAX: Duration = Duration::from_secs(5);

/// What of a notice's time is kept for answering it once the command is gone.
const ANSWER_TIME: Duration = Duration::from_millis(500);

/// The options of `run`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    lease: LeaseOptions,

    #[command(flatten)]
    pauses: PauseOptions,

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
    /// It is to be stopped, for this.
    Over(Outcome),
}

/// One run: what it was asked for, and where.
struct Run<'a> {
    context: &'a Context,
    options: &'a Options,
    way: Way,
    local: Option<Pid>,
}

pub(crate) async fn run(context: &Context, options: &Options) -> Result<ExitCode, Failure> {
    let way = options.pauses.way(options.lease.preemptible())?;
    let listening = |error| Failure::other(format!("cannot listen for signals: {error}"));
    let stop = Stop::listen().map_err(listening)?;
    let local = start_local(context, options).await?;
    let endpoint = local.as_ref().map_or(context.endpoint.as_str(), LocalCoordinator::endpoint);
    let context = context.at(endpoint);
    let local_id = local.as_ref().and_then(LocalCoordinator::process_id);
    let run = Run { context: &context, options, way, local: local_id };
    let outcome = run.to_its_end(stop).await;
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

impl Run<'_> {
    async fn to_its_end(&self, mut stop: Stop) -> Result<u8, Failure> {
        let no_lease = |failure: Failure| failure.exiting(Exit::NoLease);
        let client = match self.context.connect_as(self.options.lease.identity()).await {
            Ok(client) => client,
            Err(failure) if failure.is(Exit::Unreachable) => {
                let local = "or for the time of this command: gpulease run --local … -- COMMAND";
                return Err(no_lease(failure.also_hint(local)));
            }
            Err(failure) => return Err(no_lease(failure)),
        };
        let outcome = match self.acquired(&client, &mut stop).await {
            Ok((lease, grant)) => self.holding(lease, grant, stop).await,
            Err(failure) => Err(no_lease(failure)),
        };
        grant::close(client).await;
        outcome
    }

    /// The lease with devices that nobody asks for: while nothing runs on them, notices are answered at once.
    async fn acquired(&self, client: &Client, stop: &mut Stop) -> Result<(Lease, Grant), Failure> {
        if self.options.local && client.status().await?.backend == "none" {
            let message = "no lease can be had: no usable driver was found on this host";
            return Err(Failure::other(message).hint(
                "To try it with simulated devices: gpulease run --local-simulate 2x24GiB … -- COMMAND",
            ));
        }
        let asked = (self.request(), self.options.lease.wait());
        let lease = grant::acquire(client, asked, &self.context.output, stop).await?;
        let turn = tokio::select! {
            turn = lease.turn() => turn.map_err(Failure::from),
            signal = stop.next() => Err(Failure::interrupted(signal)),
        };
        match turn {
            Ok(turn) => Ok((lease, turn.grant().clone())),
            Err(failure) => {
                self.release(lease).await;
                Err(failure)
            }
        }
    }

    fn request(&self) -> LeaseRequest {
        self.options.lease.request().preemptible(self.way.preemptible())
    }

    async fn holding(&self, lease: Lease, grant: Grant, stop: Stop) -> Result<u8, Failure> {
        let started = Forwarded::from_stop(stop).and_then(|signals| {
            let group = self.start(&lease, &grant)?;
            Ok((signals, group))
        });
        match started {
            Ok((mut signals, mut group)) => {
                let end = self.supervise(&mut group, &mut signals, &lease, grant).await;
                self.finish(lease, group, end).await
            }
            Err(error) => {
                self.release(lease).await;
                let command = self.options.command.first().map(|word| word.to_string_lossy());
                let message = format!("cannot run {}: {error}", command.unwrap_or_default());
                Err(Failure::new(Exit::CannotRun, message))
            }
        }
    }

    fn start(&self, lease: &Lease, grant: &Grant) -> io::Result<Group> {
        let program = &self.context.program;
        let json = self.context.output.json;
        let words = program.restarted(exec_child::arguments(json, &self.options.command));
        let variables = self.variables(lease, grant);
        let mut group = Group::start(&words, &variables, Children::adopting_orphans())?;
        group.spare(self.local);
        group.guard_with(&program.restarted(guard::arguments(group.id())));
        Ok(group)
    }

    /// Passes signals on and gives way until the command ended or is to be stopped.
    async fn supervise(
        &self,
        group: &mut Group,
        signals: &mut Forwarded,
        lease: &Lease,
        grant: Grant,
    ) -> End {
        let pauser = Pauser {
            context: self.context,
            way: &self.way,
            lease,
            worker: group.worker(),
            children: group.children().clone(),
            what: "COMMAND",
        };
        let giving_way = pauser.give_way(grant);
        let teller = Teller::beside(self.context.output, lease.id());
        let told = teller.follow_answers(lease);
        tokio::pin!(giving_way, told);
        loop {
            let number = tokio::select! {
                biased;
                status = group.wait() => return End::Exited(status),
                outcome = &mut giving_way => return End::Over(outcome),
                never = &mut told => match never {},
                number = signals.next() => number,
            };
            group.signal(number);
        }
    }

    /// Ends what is left of the command, and only then the lease.
    async fn finish(&self, lease: Lease, mut group: Group, end: End) -> Result<u8, Failure> {
        let id = lease.id();
        let note = |why: &str| self.context.output.note(&format!("gpulease: lease {id} {why}"));
        let stopped = |why: String| {
            let message = format!("lease {id} {why}: the command was stopped for it");
            Err(Failure::new(Exit::LeaseLost, message))
        };
        match end {
            End::Exited(status) => {
                let left = group.end(sleep(END_MAX)).await;
                if let Some(lease) = self.unless_used(lease, &left) {
                    self.release(lease).await;
                }
                let status = status.map_err(|error| {
                    Failure::other(format!("cannot wait for the command: {error}"))
                })?;
                Ok(group::exit_code(status))
            }
            End::Over(Outcome::Lost(reason)) => {
                note(&format!("is lost ({reason}): stopping COMMAND"));
                let left = group.end(sleep(END_MAX)).await;
                drop(self.unless_used(lease, &left));
                stopped(lost(&reason))
            }
            End::Over(Outcome::Asked(notice)) => {
                note(&format!("is taken back ({notice}): stopping COMMAND"));
                let left = group.end(time_of(&lease, &notice)).await;
                if let Some(lease) = self.unless_used(lease, &left) {
                    self.answer(lease, &notice).await;
                }
                stopped(format!("was taken back: {notice}"))
            }
            End::Over(Outcome::Stuck(why)) => {
                note(&format!("cannot be used ({why}): stopping COMMAND"));
                let left = group.end(sleep(END_MAX)).await;
                if let Some(lease) = self.unless_used(lease, &left) {
                    self.release(lease).await;
                }
                stopped(format!("could not be used any more: {why}"))
            }
        }
    }

    /// The lease, unless something is left of the command that may use its devices: then it is not given back, and the
    /// devices stay closed to others for what its TTL and the lock delay leave.
    fn unless_used(&self, lease: Lease, left: &[Pid]) -> Option<Lease> {
        if left.is_empty() {
            return Some(lease);
        }
        // So many are named; the rest is counted.
        const NAMED_MAX: usize = 16;
        let named = left.iter().take(NAMED_MAX).map(|id| id.as_raw_pid().to_string());
        let named = named.collect::<Vec<_>>().join(" ");
        let more = match left.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        self.context.output.warn(&format!(
            "lease {} is not released and ends with its TTL: processes of COMMAND could not be ended, since they are \
             another user's or wait in the kernel, and may still use its devices: {named}{more}",
            lease.id()
        ));
        let _ = lease.detach();
        None
    }

    /// Answers the notice of a lease that ends with it; one that was withdrawn meanwhile is released.
    async fn answer(&self, lease: Lease, notice: &Notice) {
        let answer = timeout(RELEASE_MAX, lease.acknowledge(notice)).await;
        if !matches!(answer, Ok(Ok(LeaseStatus::Ended { .. }))) && !lease.is_lost() {
            self.release(lease).await;
        }
    }

    /// Releases the lease. One that cannot be released ends by its TTL: that is said, and no failure.
    async fn release(&self, lease: Lease) {
        let id = lease.id();
        let why = match timeout(RELEASE_MAX, lease.release()).await {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {RELEASE_MAX:?}"),
        };
        self.context
            .output
            .warn(&format!("lease {id} is not released and ends with its TTL: {why}"));
    }

    fn variables(&self, lease: &Lease, grant: &Grant) -> Variables {
        let devices: Vec<view::DeviceShare> = grant.devices.iter().map(Into::into).collect();
        let grant = environment::Grant {
            endpoint: &self.context.endpoint,
            lease_id: lease.id(),
            fencing_token: grant.fencing_token,
            devices: &devices,
        };
        environment::variables(&grant, &environment::host_name())
    }
}

/// Waits until the time is over that a notice leaves for ending the command, as it stands by then. Where the lease is
/// lost, or no notice stands any more, no more is waited than what ending takes without one.
async fn time_of(lease: &Lease, notice: &Notice) {
    let mut changes = lease.changes();
    let time = |notice: &Notice| Instant::now() + notice.remaining.saturating_sub(ANSWER_TIME);
    let mut until = time(notice);
    let lost = lease.lost();
    tokio::pin!(lost);
    loop {
        let standing = lease.notice().filter(|_| !lease.is_lost());
        let Some(standing) = standing else { break };
        until = time(&standing);
        tokio::select! {
            () = sleep_until(until) => return,
            _ = &mut lost => break,
            change = changes.next() => if change.is_none() { break },
        }
    }
    sleep_until(until.min(Instant::now() + END_MAX)).await;
}

fn lost(reason: &LostReason) -> String {
    format!("was lost ({reason})")
}
