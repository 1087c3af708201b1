//! Coordinators of their own: one with 100,000 live leases that is killed and comes back, one that idles.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use gpulease::{Client, LeaseState};
use gpulease_tests::coordinator::{Coordinator, Settings};

use super::cycles;
use crate::progress::Progress;

/// Leases live on through the measurement, whatever the machine.
const TTL: Duration = Duration::from_secs(3_600);
/// In flight while they are made: enough to share one sync among many.
const IN_FLIGHT: usize = 256;
/// A coordinator idles for so long before its memory is read: allocators and start-up work are through.
const SETTLE: Duration = Duration::from_secs(2);

/// What a restart took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Restarted {
    /// From the start of the process to its ready line.
    pub(super) ready: Duration,
    /// To the first answered Get.
    pub(super) answered: Duration,
    /// Memory after it, in bytes.
    pub(super) memory_bytes: u64,
}

/// Makes so many leases, kills the coordinator, starts it again, and asks for one of them.
pub(super) async fn with_leases(settings: Settings, count: u64) -> anyhow::Result<Restarted> {
    let mut coordinator = settings.start().await?;
    let client = Client::builder().endpoint(coordinator.endpoint()).service("bench");
    let client = client.holder("pile").connect().await?;
    let last = pile_up(&client, count).await.map_err(|error| told(error, &coordinator))?;
    client.close().await;
    coordinator.kill().await?;
    let begun = Instant::now();
    coordinator.restart().await.context("restart with live leases")?;
    let ready = begun.elapsed();
    let client = Client::connect(coordinator.endpoint()).await?;
    let detail = client.lease(last).await.context("get a lease after the restart")?;
    let answered = begun.elapsed();
    anyhow::ensure!(
        detail.lease.state == LeaseState::Active,
        "lease {last} is {}",
        detail.lease.state
    );
    let live = client.status().await?.leases_active;
    anyhow::ensure!(live == count, "{live} leases live after the restart, not {count}");
    Ok(Restarted { ready, answered, memory_bytes: coordinator.memory_resident_bytes()? })
}

fn told(error: anyhow::Error, coordinator: &Coordinator) -> anyhow::Error {
    error.context(format!("the coordinator said:\n{}", coordinator.stderr_tail()))
}

async fn pile_up(client: &Client, count: u64) -> anyhow::Result<u64> {
    let progress = Progress::new(count, "live leases");
    let taken = Arc::new(AtomicU64::new(0));
    let work = cycles::pile_up(client, IN_FLIGHT, count, TTL, Arc::clone(&taken));
    tokio::pin!(work);
    let mut ticks = tokio::time::interval(Duration::from_millis(250));
    loop {
        tokio::select! {
            last = &mut work => return last,
            _ = ticks.tick() => progress.at(taken.load(Ordering::Relaxed), String::new()),
        }
    }
}

/// Memory of a fresh coordinator that nobody asks anything, in bytes.
pub(super) async fn idle_memory_bytes(settings: Settings) -> anyhow::Result<u64> {
    let coordinator = settings.start().await?;
    tokio::time::sleep(SETTLE).await;
    coordinator.memory_resident_bytes()
}
