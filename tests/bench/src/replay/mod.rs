//! `replay`: a real cluster trace through the real binary and the Rust SDK, with kills and an independent checker.

mod chart;
mod clock;
mod drive;
mod kills;
mod report;
mod slice;
mod timeline;
mod trace;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use gpulease::Client;
use gpulease_tests::{
    checker::{Ledger, Receipts, Watcher},
    coordinator::Coordinator,
};
use rand::Rng as _;
use tempfile::TempDir;

use self::{
    clock::TraceClock, drive::Run, kills::Kill, report::Report, timeline::Timeline, trace::Task,
};
use crate::{figures, progress::Progress, simulated};

/// Of the longest time: from the first arrival to the last. The rest is for what then still waits and runs, for the
/// start and the last checks.
const ARRIVALS_PART: f64 = 0.62;
/// Sessions: tasks are spread over them, and all of them come back after every kill.
const CLIENTS: usize = 4;
/// A replay that hangs ends after this many times its longest time.
const PATIENCE: f64 = 2.0;

/// Replays a cluster trace: every GPU task with known times, in trace order with its real run time, time compressed.
///
/// A task that shares a device asks for gpu_milli of its 1,000 slots, any other for num_gpu whole devices of one node;
/// CPU and memory are asked of the host, gpu_spec becomes the allowed models, and the class of service the priority:
/// LS immediate, Guaranteed and Burstable normal, BE background. The nodes are an eighth of wide ones, so that every
/// task fits somewhere, and the first others of the file. The coordinator is killed with SIGKILL under load.
/// Where the files are missing it prints "skipped: no traces" and exits with 0.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The nodes: CSV with sn, cpu_milli, memory_mib, gpu, model.
    #[arg(long, value_name = "CSV")]
    nodes: PathBuf,
    /// The tasks: CSV as the openb pod lists.
    #[arg(long, value_name = "CSV")]
    pods: PathBuf,
    /// How many nodes to simulate.
    #[arg(long, default_value_t = 16)]
    nodes_limit: usize,
    /// The longest the whole may take, in seconds.
    #[arg(long, default_value_t = 300.0)]
    seconds_max: f64,
    /// How often to kill the coordinator.
    #[arg(long, default_value_t = 5)]
    kills: u32,
    /// TTL of each lease, in seconds: renewed at a third of it, longer than an outage.
    #[arg(long, default_value_t = 10.0)]
    ttl: f64,
    /// Chooses the moments of the kills; by default another one each time, printed at the end.
    #[arg(long)]
    seed: Option<u64>,
    /// Draw allocation and waiting over time into this PNG file.
    #[arg(long, value_name = "FILE")]
    png: Option<PathBuf>,
    /// Exit with 1 when anything was lost, granted twice or violated, less than a fifth waited, or it took too long.
    #[arg(long)]
    check: bool,
    /// Print the outcome as one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<bool> {
    if !arguments.nodes.is_file() || !arguments.pods.is_file() {
        println!("skipped: no traces");
        return Ok(true);
    }
    let patience = Duration::from_secs_f64(arguments.seconds_max * PATIENCE);
    let replay = tokio::time::timeout(patience, replay(&arguments)).await;
    let report = replay.with_context(|| format!("the replay hung for {patience:?}"))??;
    if arguments.json {
        println!("{}", report.json());
    } else {
        print!("{}\n{}\n", report.text(), report.line());
    }
    for fault in report.verdict.words() {
        eprintln!("{fault}");
    }
    let failures = report.failures();
    if !failures.is_empty() {
        eprintln!("failed: {}", failures.join("; "));
    }
    Ok(failures.is_empty() || !arguments.check)
}

/// The trace, cut to what is replayed.
struct Plan {
    nodes: Vec<simulated::Node>,
    tasks: Vec<Task>,
    unsatisfiable: usize,
    devices: usize,
    seed: u64,
}

impl Plan {
    fn of(arguments: &Arguments) -> anyhow::Result<Self> {
        let (tasks, untimed) = trace::read_tasks(&arguments.pods)?;
        anyhow::ensure!(!tasks.is_empty(), "{} has no task to replay", arguments.pods.display());
        let nodes =
            slice::choose(&trace::read_nodes(&arguments.nodes)?, &tasks, arguments.nodes_limit);
        let unsatisfiable = tasks.iter().filter(|task| !slice::satisfiable(&nodes, task)).count();
        let devices = nodes.iter().map(|node| node.devices).sum();
        eprintln!(
            "{} tasks ({}); {untimed} without times left out; {unsatisfiable} that no node of the slice could hold; \
             {} nodes with {devices} devices",
            tasks.len(),
            report::classes_text(&trace::by_class(&tasks)),
            nodes.len(),
        );
        let seed = arguments.seed.unwrap_or_else(|| rand::rng().random());
        Ok(Self { nodes, tasks, unsatisfiable, devices, seed })
    }
}

async fn replay(arguments: &Arguments) -> anyhow::Result<Report> {
    let begun = Instant::now();
    let plan = Plan::of(arguments)?;
    let directory = TempDir::new().context("make a temporary directory")?;
    let scenario = directory.path().join("trace.toml");
    simulated::write_scenario(&scenario, &plan.nodes)?;
    let settings = Coordinator::settings().simulate(scenario.to_string_lossy());
    let mut coordinator = settings.start().await.context("start the coordinator")?;
    let receipts = Receipts::default();
    let clients = clients(coordinator.endpoint()).await?;
    let arrivals: Vec<f64> = plan.tasks.iter().map(|task| task.arrival).collect();
    let clock = TraceClock::new(Instant::now(), &arrivals, arguments.seconds_max * ARRIVALS_PART);
    eprintln!(
        "one second of replay is {} of the trace, after {} for its quiet first {}",
        figures::seconds(clock.rate),
        figures::seconds(clock.quiet_seconds()),
        figures::seconds(clock.quiet_span()),
    );
    let ledger = Ledger::new(simulated::capacity(&plan.nodes), receipts.clone());
    let timeline = Timeline::default();
    let looking = timeline.clone();
    let watcher =
        Watcher::start(coordinator.endpoint(), ledger, move |ledger| looking.look(&clock, ledger))
            .await?;
    let run = Run::new(clock, receipts, Duration::from_secs_f64(arguments.ttl));
    let kills = drive_all(&mut coordinator, &run, &watcher, &clients, &plan, arguments.kills)
        .await
        .with_context(|| format!("the coordinator said:\n{}", coordinator.stderr_tail()))?;
    let replay_seconds = clock.elapsed();
    // The last look is at a coordinator that has recovered once more, from a graceful stop.
    coordinator.stop().await?;
    coordinator.restart().await.context("restart for the last check")?;
    let verdict = watcher.finish().await?;
    if !verdict.is_clean() {
        eprintln!("the coordinator's stderr, its end:\n{}", coordinator.stderr_tail());
    }
    let report = Report {
        verdict,
        tasks: plan.tasks.len(),
        tasks_unsatisfiable: plan.unsatisfiable,
        waits: run.waits(),
        kills,
        kills_wanted: arguments.kills,
        points: timeline.points(),
        devices: plan.devices,
        replay_seconds,
        rate: clock.rate,
        seconds: begun.elapsed().as_secs_f64(),
        seconds_max: arguments.seconds_max,
        seed: plan.seed,
    };
    picture(arguments, &report, &clock)?;
    Ok(report)
}

async fn clients(endpoint: &str) -> anyhow::Result<Vec<Client>> {
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let holder = format!("replay-{number}");
        let client = Client::builder().endpoint(endpoint).service("replay").holder(holder);
        clients.push(client.connect().await.context("connect a client")?);
    }
    Ok(clients)
}

/// All tasks from the first arrival to the last release, with the kills in between.
async fn drive_all(
    coordinator: &mut Coordinator,
    run: &Arc<Run>,
    watcher: &Watcher,
    clients: &[Client],
    plan: &Plan,
    count: u32,
) -> anyhow::Result<Vec<Kill>> {
    let progress = Progress::new(plan.tasks.len() as u64, "tasks");
    let kills: Mutex<Vec<Kill>> = Mutex::default();
    let kills_so_far = || kills.lock().unwrap_or_else(PoisonError::into_inner);
    let mut running = drive::start(run, clients, &plan.tasks);
    let last = plan.tasks.last().map_or(0.0, |task| task.arrival);
    let schedule = kills::Schedule {
        count,
        seed: plan.seed,
        from: run.clock.quiet_seconds(),
        to: run.clock.replay_seconds(last),
    };
    let killing =
        kills::perform(coordinator, run, watcher, &schedule, |kill| kills_so_far().push(kill));
    let showing = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(200));
        loop {
            ticks.tick().await;
            let (active, queued) = {
                let ledger = watcher.ledger();
                (ledger.active(), ledger.queued())
            };
            let kills = kills_so_far().len();
            let message = format!("{active} held, {queued} waiting, {kills} of {count} kills");
            progress.at(run.done() as u64, message);
        }
    };
    let finishing = async {
        while let Some(task) = running.join_next().await {
            task.context("a task panicked")?;
        }
        Ok::<(), anyhow::Error>(())
    };
    tokio::select! {
        both = async { tokio::try_join!(killing, finishing) } => both.map(|_| ())?,
        () = showing => {}
    }
    Ok(kills.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn picture(arguments: &Arguments, report: &Report, clock: &TraceClock) -> anyhow::Result<()> {
    let Some(path) = &arguments.png else { return Ok(()) };
    let picture = chart::Picture {
        points: &report.points,
        kills: &report.kills,
        end: report.replay_seconds,
        devices: f64::from(u32::try_from(report.devices).unwrap_or(u32::MAX)),
        title: format!(
            "{} tasks on {} devices, {} kills (red)",
            report.tasks,
            report.devices,
            report.kills.len()
        ),
        time_label: format!(
            "seconds of replay; from {:.0} s on, one second is {} of the trace",
            clock.quiet_seconds(),
            figures::seconds(clock.rate)
        ),
    };
    chart::draw(path, &picture)?;
    eprintln!("drew {}", path.display());
    Ok(())
}
