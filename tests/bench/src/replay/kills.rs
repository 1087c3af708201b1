//! Kills under load: the coordinator dies at moments of chance, spread over the busy part of the trace, right after
//! a client was told of a grant, and comes back on the same port and data.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use gpulease_tests::{checker::Watcher, coordinator::Coordinator};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::time::{sleep, sleep_until};

use super::drive::Run;

/// Where a kill falls within its share of the time: not at its edges.
const WITHIN: std::ops::Range<f64> = 0.15..0.6;
/// How often the load is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// One kill.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kill {
    /// Seconds of replay.
    pub(super) at: f64,
    /// From the kill to the next ready line.
    pub(super) outage: Duration,
    pub(super) active: usize,
    pub(super) queued: usize,
}

/// What a kill waits for: somebody holds, somebody waits, and a grant was told a moment ago.
pub(super) struct Schedule {
    pub(super) count: u32,
    pub(super) seed: u64,
    /// The busy part, in seconds of replay.
    pub(super) from: f64,
    pub(super) to: f64,
}

/// Kills and restarts; `on_kill` is told of each.
pub(super) async fn perform(
    coordinator: &mut Coordinator,
    run: &Run,
    watcher: &Watcher,
    schedule: &Schedule,
    mut on_kill: impl FnMut(Kill),
) -> anyhow::Result<()> {
    let mut chance = StdRng::seed_from_u64(schedule.seed);
    let share = (schedule.to - schedule.from) / f64::from(schedule.count.max(1));
    for number in 0..schedule.count {
        let start = schedule.from + share * f64::from(number);
        let moment = start + share * chance.random_range(WITHIN);
        let pause = Duration::from_secs_f64((moment - run.clock.elapsed()).max(0.0));
        sleep_until((Instant::now() + pause).into()).await;
        until_loaded(run, watcher, start + share).await;
        let (active, queued) = {
            let ledger = watcher.ledger();
            (ledger.active(), ledger.queued())
        };
        let (at, begun) = (run.clock.elapsed(), Instant::now());
        coordinator.kill().await?;
        coordinator
            .restart()
            .await
            .with_context(|| format!("restart after kill {}", number + 1))?;
        on_kill(Kill { at, outage: begun.elapsed(), active, queued });
    }
    Ok(())
}

/// Waits for a waiting request and then for the next grant that is told, at most until `end`.
async fn until_loaded(run: &Run, watcher: &Watcher, end: f64) {
    while watcher.ledger().queued() == 0 && run.clock.elapsed() < end {
        sleep(LOOK_EVERY).await;
    }
    let told = run.receipts.granted_count();
    while run.receipts.granted_count() == told && run.clock.elapsed() < end {
        sleep(LOOK_EVERY).await;
    }
}
