//! `kill`: `kill -9` under load, again and again, with the checker at the end.
//!
//! A few clients with a few workers each take and give back leases on two devices that are always wanted by more
//! than fit. In each cycle the coordinator serves until some grants were told, is killed at a moment of chance, and
//! starts again on the same port and data.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use gpulease::{Client, LeaseRequest};
use gpulease_tests::{
    checker::{Fault, HostShare, Ledger, Receipts, Watcher},
    coordinator::Coordinator,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::{figures, progress::Progress, simulated};

/// Sessions, so that their order and their coming back matter.
const CLIENTS: usize = 4;
/// Workers of each: 64 in all, as many as the benchmark has in flight.
const WORKERS_PER_CLIENT: usize = 16;
/// Slots of each of the two devices: 64 workers ask for 1 to 40 of them, 5 or 6 fit at once on each.
const SLOTS: u64 = 100;
/// The most slots that a worker asks for.
const SLOTS_ASKED_MAX: u32 = 40;
/// A kill may come once this many grants were told since the start: the load is back.
const GRANTS_BEFORE_KILL: usize = 64;
/// And then within this time.
const KILL_WITHIN: Duration = Duration::from_millis(150);
/// The load must be back by then: clients come back within a second, grants take milliseconds.
const LOAD_BACK_MAX: Duration = Duration::from_secs(30);
/// Longer than all outages in a row can last, short enough that leases are renewed.
const TTL: Duration = Duration::from_secs(15);
/// Nobody waits in vain.
const WAIT: Duration = Duration::from_secs(600);

/// Kills the coordinator with SIGKILL under load, again and again, and checks that nothing acknowledged is lost.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many kills.
    #[arg(long, default_value_t = 200)]
    cycles: u32,
    /// Chooses the moments and the requests; by default another one each time, printed at the end.
    #[arg(long)]
    seed: Option<u64>,
    /// Exit with 1 when anything was lost, granted twice or violated.
    #[arg(long)]
    check: bool,
    /// Print the outcome as one JSON object.
    #[arg(long)]
    json: bool,
}

/// What workers share.
struct Load {
    receipts: Receipts,
    stopping: AtomicBool,
    in_flight: AtomicU64,
    next: AtomicU64,
    seed: u64,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<bool> {
    let seed = arguments.seed.unwrap_or_else(|| rand::rng().random());
    let directory = TempDir::new().context("make a temporary directory")?;
    let scenario = directory.path().join("scenario.toml");
    let nodes = [simulated::roomy(2, SLOTS)];
    simulated::write_scenario(&scenario, &nodes)?;
    let started = Coordinator::settings().simulate(scenario.to_string_lossy()).start().await;
    let mut coordinator = started.context("start the coordinator")?;
    let receipts = Receipts::default();
    let ledger = Ledger::new(simulated::capacity(&nodes), receipts.clone());
    let watcher = Watcher::start(coordinator.endpoint(), ledger, |_| ()).await?;
    let load = Arc::new(Load {
        receipts,
        stopping: AtomicBool::new(false),
        in_flight: AtomicU64::new(0),
        next: AtomicU64::new(0),
        seed,
    });
    let begun = Instant::now();
    let mut workers = start_workers(coordinator.endpoint(), &load).await?;
    let kills = kill_all(&mut coordinator, &load, &mut workers, arguments.cycles).await;
    let kills = kills.map_err(|error| said(error, &coordinator))?;
    load.stopping.store(true, Ordering::Relaxed);
    while let Some(worker) = workers.join_next().await {
        worker.context("a worker panicked")?;
    }
    let verdict = watcher.finish().await.map_err(|error| said(error, &coordinator))?;
    for fault in verdict.words() {
        eprintln!("{fault}");
    }
    if !verdict.is_clean() {
        eprintln!("the coordinator's stderr, its end:\n{}", coordinator.stderr_tail());
    }
    let line = format!(
        "{} kills survived in {}, {} requests in flight at a kill on average, {} leases granted and released; \
         {verdict}; seed {seed}",
        arguments.cycles,
        figures::seconds(begun.elapsed().as_secs_f64()),
        kills.in_flight / u64::from(arguments.cycles.max(1)),
        verdict.granted,
    );
    if arguments.json {
        println!(
            "{}",
            json!({
                "kills": arguments.cycles, "granted": verdict.granted, "released": verdict.released,
                "restart_longest_seconds": kills.restart_longest.as_secs_f64(), "seed": seed,
                "grants_lost": verdict.count(Fault::GrantLost),
                "double_grants": verdict.count(Fault::DoubleGrant),
                "violations": verdict.count(Fault::Invariant), "not_once": verdict.count(Fault::NotOnce),
            })
        );
    } else {
        println!("longest restart {}", figures::seconds(kills.restart_longest.as_secs_f64()));
        println!("{line}");
    }
    Ok(!arguments.check || verdict.is_clean())
}

fn said(error: anyhow::Error, coordinator: &Coordinator) -> anyhow::Error {
    error.context(format!("the coordinator said:\n{}", coordinator.stderr_tail()))
}

async fn start_workers(endpoint: &str, load: &Arc<Load>) -> anyhow::Result<JoinSet<()>> {
    let mut workers = JoinSet::new();
    for client in 0..CLIENTS {
        let holder = format!("worker-{client}");
        let client = Client::builder().endpoint(endpoint).service("kill").holder(holder);
        let client = client.connect().await.context("connect a client")?;
        for _ in 0..WORKERS_PER_CLIENT {
            workers.spawn(work(client.clone(), Arc::clone(load)));
        }
    }
    Ok(workers)
}

/// Takes a lease, holds it for a moment, gives it back; until told to stop.
async fn work(client: Client, load: Arc<Load>) {
    while !load.stopping.load(Ordering::Relaxed) {
        let number = load.next.fetch_add(1, Ordering::Relaxed);
        let mut chance = StdRng::seed_from_u64(load.seed ^ number);
        let request_id = format!("kill-{number}");
        load.receipts.asked(&request_id, HostShare::default());
        let request = if number.is_multiple_of(16) {
            LeaseRequest::exclusive()
        } else {
            LeaseRequest::slots(chance.random_range(1..=SLOTS_ASKED_MAX))
        };
        let request = request.request_id(&request_id).ttl(TTL).wait(WAIT);
        load.in_flight.fetch_add(1, Ordering::Relaxed);
        let granted = client.acquire(request).await;
        load.in_flight.fetch_sub(1, Ordering::Relaxed);
        match granted {
            Ok(lease) => {
                load.receipts.granted(&lease.info());
                tokio::time::sleep(Duration::from_micros(chance.random_range(0..5_000))).await;
                give_back(lease, &load).await;
            }
            Err(error) => load.receipts.complain(format!("request {request_id} failed: {error}")),
        }
    }
}

async fn give_back(lease: gpulease::Lease, load: &Load) {
    let id = lease.id();
    if let Err(error) = lease.check() {
        load.receipts.complain(format!("lease {id} was lost while held: {error}"));
    }
    load.receipts.releasing(id);
    load.in_flight.fetch_add(1, Ordering::Relaxed);
    match lease.release().await {
        Ok(_) => load.receipts.released(id),
        Err(error) => load.receipts.complain(format!("lease {id} could not be released: {error}")),
    }
    load.in_flight.fetch_sub(1, Ordering::Relaxed);
}

/// What is known of the kills afterwards.
struct Kills {
    in_flight: u64,
    restart_longest: Duration,
}

async fn kill_all(
    coordinator: &mut Coordinator,
    load: &Load,
    workers: &mut JoinSet<()>,
    cycles: u32,
) -> anyhow::Result<Kills> {
    let progress = Progress::new(u64::from(cycles), "kills");
    let mut chance = StdRng::seed_from_u64(load.seed);
    let mut kills = Kills { in_flight: 0, restart_longest: Duration::ZERO };
    for cycle in 0..cycles {
        let told = load.receipts.granted_count();
        until_loaded(load, told + GRANTS_BEFORE_KILL, workers).await?;
        tokio::time::sleep(KILL_WITHIN.mul_f64(chance.random())).await;
        kills.in_flight += load.in_flight.load(Ordering::Relaxed);
        coordinator.kill().await?;
        let begun = Instant::now();
        coordinator.restart().await.with_context(|| format!("restart after kill {}", cycle + 1))?;
        kills.restart_longest = kills.restart_longest.max(begun.elapsed());
        progress.at(u64::from(cycle) + 1, format!("{told} grants told"));
    }
    Ok(kills)
}

async fn until_loaded(load: &Load, goal: usize, workers: &mut JoinSet<()>) -> anyhow::Result<()> {
    let begun = Instant::now();
    while load.receipts.granted_count() < goal {
        if begun.elapsed() > LOAD_BACK_MAX {
            let told = load.receipts.granted_count();
            bail!(
                "only {told} grants were told, {LOAD_BACK_MAX:?} after a restart; {goal} were expected"
            );
        }
        if let Some(Err(error)) = workers.try_join_next() {
            bail!("a worker panicked: {error}");
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}
