//! `leases`: how fast leases are granted and given back, beside what disk and transport alone would take.
//!
//! Everything of one table is measured in the same run, in rounds that take turns, because such machines vary by a
//! third from day to day: only ratios of one run count. Medians of the rounds are shown with least and most.

mod cycles;
mod disk;
pub(crate) mod echo;
mod goals;
mod restart;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use gpulease::Client;
use gpulease_tests::{
    checker::{Ledger, Receipts, Verdict, Watcher},
    coordinator::{Coordinator, Settings},
};
use tempfile::TempDir;

use self::{disk::Disk, echo::EchoClient, goals::Measured};
use crate::{figures, progress::Progress, simulated};

/// The requests in flight that the goal is stated for.
const IN_FLIGHT: usize = 64;
/// Rounds: an odd count has a middle one.
const ROUNDS: u32 = 7;
/// Appends, echoes and lone cycles of one round: together about a second on a common disk.
const SAMPLES: usize = 300;
/// Slots of each of the two devices: capacity is never what limits.
const SLOTS: u64 = 1_000_000;
/// Acknowledged cycles that are looked up in the stream of events.
const CHECKED: u64 = 20_000;
/// Live leases at the restart.
const LIVE: u64 = 100_000;

/// Measures acquire and release over one session, restart with many leases, and idle memory.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Which goals to hold the figures against.
    #[arg(long, value_enum, default_value_t = goals::Goals::Spine)]
    goals: goals::Goals,
    /// How long to measure cycles with many in flight, over all rounds, in seconds.
    #[arg(long, default_value_t = 14.0)]
    seconds: f64,
    /// Live leases at the restart.
    #[arg(long, default_value_t = LIVE)]
    live: u64,
    /// Where journals and the file of the bare syncs lie; by default the system's temporary directory.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Exit with 1 and name the goal when one is missed.
    #[arg(long)]
    check: bool,
    /// Print the figures as one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<bool> {
    let parent = arguments.directory.clone().unwrap_or_else(std::env::temp_dir);
    let directory = TempDir::new_in(&parent)
        .with_context(|| format!("make a temporary directory in {}", parent.display()))?;
    let scenario = directory.path().join("scenario.toml");
    simulated::write_scenario(&scenario, &[simulated::roomy(2, SLOTS)])?;
    let settings = || {
        Coordinator::settings().simulate(scenario.to_string_lossy()).data_parent(directory.path())
    };
    let mut measured = Measured { machine: machine(), ..Measured::default() };
    measure_cycles(settings(), &arguments, directory.path(), &mut measured).await?;
    let restarted = restart::with_leases(settings(), arguments.live).await?;
    measured.live = arguments.live;
    measured.restart_ready_seconds = restarted.ready.as_secs_f64();
    measured.restart_answered_seconds = restarted.answered.as_secs_f64();
    measured.memory_live_bytes = restarted.memory_bytes;
    let idle = Coordinator::settings().simulate("2x24GiB").data_parent(directory.path());
    measured.memory_idle_bytes = restart::idle_memory_bytes(idle).await?;
    report(&arguments, &measured)
}

/// Cycles, syncs and echoes in turns, then a sample that the checker follows.
async fn measure_cycles(
    settings: Settings,
    arguments: &Arguments,
    directory: &Path,
    measured: &mut Measured,
) -> anyhow::Result<()> {
    let coordinator = settings.start().await.context("start the coordinator")?;
    let client = Client::builder().endpoint(coordinator.endpoint()).service("bench");
    let client = client.holder("cycles").connect().await?;
    rounds(&client, arguments, directory, measured)
        .await
        .with_context(|| format!("the coordinator said:\n{}", coordinator.stderr_tail()))?;
    let verdict = checked_sample(&coordinator, &client).await?;
    for fault in verdict.words() {
        eprintln!("{fault}");
    }
    measured.checked = verdict.granted;
    measured.checked_clean = verdict.is_clean();
    client.close().await;
    Ok(())
}

async fn rounds(
    client: &Client,
    arguments: &Arguments,
    directory: &Path,
    measured: &mut Measured,
) -> anyhow::Result<()> {
    let progress = Progress::new(u64::from(ROUNDS), "rounds of cycles");
    let mut in_place = Disk::in_place(directory)?;
    let mut append = Disk::append(directory)?;
    let mut echo = EchoClient::start().await?;
    let crowd_duration = Duration::from_secs_f64((arguments.seconds / f64::from(ROUNDS)).max(0.1));
    // Warms caches, connections and allocators; not counted.
    cycles::crowd(client, IN_FLIGHT, Duration::from_millis(500)).await?;
    echo.round_trips(SAMPLES).await?;
    for round in 0..ROUNDS {
        measured.sync_micros.push(figures::median_micros(&in_place.syncs(SAMPLES)?));
        measured.append_micros.push(figures::median_micros(&append.syncs(SAMPLES)?));
        measured.echo_micros.push(figures::median_micros(&echo.round_trips(SAMPLES).await?));
        measured.cycle_micros.push(figures::median_micros(&cycles::alone(client, SAMPLES).await?));
        let per_second = cycles::crowd(client, IN_FLIGHT, crowd_duration).await?;
        measured.cycles_per_second.push(per_second);
        progress.at(u64::from(round) + 1, format!("{} cycles/s", figures::thousands(per_second)));
    }
    Ok(())
}

/// Every acknowledged cycle of a sample must be in the stream of events.
async fn checked_sample(coordinator: &Coordinator, client: &Client) -> anyhow::Result<Verdict> {
    let receipts = Receipts::default();
    let capacity = simulated::capacity(&[simulated::roomy(2, SLOTS)]);
    let ledger = Ledger::new(capacity, receipts.clone());
    let revision = client.status().await?.revision;
    let watcher = Watcher::start_after(coordinator.endpoint(), revision, ledger, |_| ()).await?;
    cycles::with_receipts(client, IN_FLIGHT, CHECKED, &receipts).await?;
    watcher.finish().await
}

/// How many cores there are and how much they have to do already: figures of a busy machine say little.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().and_then(|first| first.parse::<f64>().ok());
    let Some(load) = load else { return format!("{cores} cores") };
    let busy = if load > 1.0 { ": not a quiet machine" } else { "" };
    format!("{cores} cores, load average {load:.2} at the start{busy}")
}

/// Prints; whether all goals are reached.
fn report(arguments: &Arguments, measured: &Measured) -> anyhow::Result<bool> {
    let outcomes = measured.outcomes(arguments.goals);
    if arguments.json {
        println!("{}", serde_json::to_string(&measured.json(&outcomes)).context("write JSON")?);
    } else {
        print!("{}", measured.table());
        for outcome in &outcomes {
            println!("{outcome}");
        }
    }
    let missed: Vec<&str> =
        outcomes.iter().filter(|outcome| !outcome.reached).map(|outcome| outcome.name).collect();
    if missed.is_empty() {
        return Ok(true);
    }
    eprintln!("missed: {}", missed.join(", "));
    Ok(!arguments.check)
}
