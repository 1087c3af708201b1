//! Acquire and release, one after the other or many at once, over one session of the Rust SDK.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use gpulease::{Client, LeaseRequest};
use gpulease_tests::checker::{HostShare, Receipts};
use tokio::task::JoinSet;

/// Cycles one after the other: the time of each.
pub(super) async fn alone(client: &Client, count: usize) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let begun = Instant::now();
        let lease = client.acquire(LeaseRequest::slots(1)).await.context("acquire")?;
        lease.release().await.context("release")?;
        times.push(begun.elapsed());
    }
    Ok(times)
}

/// Cycles for so long with so many in flight: how many in a second.
pub(super) async fn crowd(
    client: &Client,
    in_flight: usize,
    duration: Duration,
) -> anyhow::Result<f64> {
    let done = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let end = begun + duration;
    let mut workers = JoinSet::new();
    for _ in 0..in_flight {
        let (client, done) = (client.clone(), Arc::clone(&done));
        workers.spawn(async move {
            while Instant::now() < end {
                let lease = client.acquire(LeaseRequest::slots(1)).await?;
                lease.release().await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<(), gpulease::Error>(())
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker.context("a worker panicked")?.context("acquire or release")?;
    }
    let count = u32::try_from(done.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
    Ok(f64::from(count) / begun.elapsed().as_secs_f64())
}

/// So many cycles with receipts, for the checker.
pub(super) async fn with_receipts(
    client: &Client,
    in_flight: usize,
    count: u64,
    receipts: &Receipts,
) -> anyhow::Result<()> {
    let next = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..in_flight {
        let (client, next, receipts) = (client.clone(), Arc::clone(&next), receipts.clone());
        workers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Ok::<(), gpulease::Error>(());
                }
                let request_id = format!("sample-{number}");
                receipts.asked(&request_id, HostShare::default());
                let lease = client.acquire(LeaseRequest::slots(1).request_id(request_id)).await?;
                receipts.granted(&lease.info());
                let id = lease.id();
                receipts.releasing(id);
                lease.release().await?;
                receipts.released(id);
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker.context("a worker panicked")?.context("acquire or release")?;
    }
    Ok(())
}

/// Takes so many leases that nobody renews; the last one's id.
pub(super) async fn pile_up(
    client: &Client,
    in_flight: usize,
    count: u64,
    ttl: Duration,
    taken: Arc<AtomicU64>,
) -> anyhow::Result<u64> {
    let next = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..in_flight {
        let (client, next, taken) = (client.clone(), Arc::clone(&next), Arc::clone(&taken));
        workers.spawn(async move {
            let mut last = 0;
            while next.fetch_add(1, Ordering::Relaxed) < count {
                let lease = client.acquire(LeaseRequest::slots(1).ttl(ttl)).await?;
                taken.fetch_add(1, Ordering::Relaxed);
                last = lease.detach().0;
            }
            Ok::<u64, gpulease::Error>(last)
        });
    }
    let mut last = 0;
    while let Some(worker) = workers.join_next().await {
        last = last.max(worker.context("a worker panicked")?.context("acquire")?);
    }
    Ok(last)
}
