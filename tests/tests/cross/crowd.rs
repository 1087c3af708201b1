//! Crowds and slow readers: callers that vanish at once, and streams that nobody reads.

use std::time::Duration;

use gpulease::{Client, EndReason, LeaseEventKind, LeaseRequest};
use gpulease_proto::v1;
use gpulease_tests::{
    coordinator::Coordinator,
    deadline::soon,
    events::Facts,
    wire::{Wire, request, whole_devices},
};
use tokio::task::JoinSet;

const CALLERS: usize = 1_000;

#[tokio::test]
async fn a_thousand_waiting_callers_that_vanish_at_once_leave_the_queue_after_the_grace()
-> anyhow::Result<()> {
    let coordinator = Coordinator::settings()
        .simulate("1x24GiB")
        .environment("GPULEASE_LEASES_SESSION_GRACE", "1s")
        .start()
        .await?;
    let client = Client::connect(coordinator.endpoint()).await?;
    let wire = Wire::connect(coordinator.endpoint()).await?;
    let held = wire.acquire(whole_devices("held", 1)).await?;
    let mut facts = Facts::from_now(&client).await?;
    let crowd = Wire::connect(coordinator.endpoint()).await?;
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        let crowd = crowd.clone();
        callers.spawn(
            async move { crowd.acquire(whole_devices(&format!("caller-{number}"), 1)).await },
        );
    }
    facts.leases(LeaseEventKind::Requested, CALLERS).await;
    assert_eq!(client.status().await?.leases_queued, CALLERS as u64);

    callers.shutdown().await;
    drop(crowd);
    let ended = facts.leases(LeaseEventKind::Ended, CALLERS).await;
    assert!(ended.iter().all(|lease| lease.end_reason == Some(EndReason::Cancelled)));
    assert_eq!(client.status().await?.leases_queued, 0);
    wire.release(&held).await?;
    let fresh = soon("a fresh grant", wire.acquire(whole_devices("fresh", 1))).await?;
    assert_eq!(fresh.state(), v1::LeaseState::Active);
    Ok(())
}

#[tokio::test]
async fn a_caller_that_comes_back_within_the_grace_gets_the_same_lease() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let wire = Wire::connect(coordinator.endpoint()).await?;
    let held = wire.acquire(whole_devices("held", 1)).await?;
    let mut facts = Facts::from_now(&Client::connect(coordinator.endpoint()).await?).await?;
    let mut callers = JoinSet::new();
    let ask = |callers: &mut JoinSet<_>| {
        let wire = wire.clone();
        callers.spawn(async move { wire.acquire(whole_devices("again", 1)).await });
    };
    ask(&mut callers);
    let requested = facts.leases(LeaseEventKind::Requested, 1).await;
    callers.shutdown().await;
    ask(&mut callers);
    wire.release(&held).await?;
    let granted = soon("the grant", callers.join_next()).await.expect("it waits")??;
    assert_eq!(granted.id, requested[0].lease_id);
    Ok(())
}

/// Acquires and releases at once in flight.
const IN_FLIGHT: usize = 64;
/// Each of them two events at least, grant and end: 20,000 in all.
const CYCLES_EACH: usize = 10_000 / IN_FLIGHT + 1;
/// What 20,000 events may cost the coordinator: its records of 10,000 ended leases (about 1 KiB each), the history in
/// memory that watchers resume from, and the allocator's slack. Without a bound on streams it would be twice that.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

#[tokio::test]
async fn readers_that_never_read_cost_neither_memory_nor_anybody_elses_time() -> anyhow::Result<()>
{
    let coordinator = Coordinator::simulate("2x24GiB").await?;
    let stuck = Wire::connect(coordinator.endpoint()).await?;
    let _watch = stuck
        .events()
        .watch(v1::WatchRequest { after_revision: Some(0), ..Default::default() })
        .await?;
    let every = v1::SubscribeRequest {
        interval_min: Some(prost_types::Duration::default()),
        ..Default::default()
    };
    let _samples = stuck.metrics().subscribe(every).await?;

    let client = Client::connect(coordinator.endpoint()).await?;
    let mut facts = Facts::from_now(&client).await?;
    let before = coordinator.memory_resident_bytes()?;
    let mut cycles = JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let client = client.clone();
        cycles.spawn(async move {
            for _ in 0..CYCLES_EACH {
                let lease = client
                    .acquire(LeaseRequest::memory(1 << 20).ttl(Duration::from_secs(60)))
                    .await?;
                lease.release().await?;
            }
            Ok::<_, gpulease::Error>(())
        });
    }
    // The reader that does read sees every one of them.
    let ended = facts.leases(LeaseEventKind::Ended, IN_FLIGHT * CYCLES_EACH).await;
    assert!(ended.iter().all(|lease| lease.end_reason == Some(EndReason::Released)));
    while let Some(done) = cycles.join_next().await {
        done??;
    }
    let growth = coordinator.memory_resident_bytes()?.saturating_sub(before);
    assert!(growth < GROWTH_BYTES_MAX, "grew by {} KiB", growth >> 10);
    let other = Wire::connect(coordinator.endpoint()).await?;
    soon("a grant for somebody else", other.acquire(request("other"))).await?;
    Ok(())
}
