//! Who is served when (P10), as the wire shows it: priority, then arrival; devices kept for whoever is first.

use gpulease::{Client, LeaseEventKind};
use gpulease_proto::v1::{self, Priority};
use gpulease_tests::{
    coordinator::Coordinator,
    deadline::soon,
    events::Facts,
    wire::{Wire, refusal, request, whole_devices},
};
use tokio::task::JoinSet;
use tonic::Code;

#[tokio::test]
async fn higher_priority_goes_first_and_arrival_decides_among_equals() -> anyhow::Result<()> {
    let (coordinator, wire, held, mut facts) = start("1x24GiB").await?;
    let mut waiting = JoinSet::new();
    let arrivals = [
        ("background", Priority::Background),
        ("normal-1", Priority::Normal),
        ("immediate-1", Priority::Immediate),
        ("normal-2", Priority::Normal),
        ("immediate-2", Priority::Immediate),
    ];
    for (name, priority) in arrivals {
        let message = v1::AcquireRequest { priority: priority.into(), ..whole_devices(name, 1) };
        wait_for(&mut waiting, &wire, message);
        facts.leases(LeaseEventKind::Requested, 1).await;
    }
    wire.release(&held).await?;
    let mut order = Vec::new();
    while let Some(granted) = soon("the next grant", waiting.join_next()).await {
        let lease = granted??;
        wire.release(&lease).await?;
        order.push(lease.request_id);
    }
    assert_eq!(order, ["immediate-1", "immediate-2", "normal-1", "normal-2", "background"]);
    drop(coordinator);
    Ok(())
}

#[tokio::test]
async fn devices_are_kept_for_the_first_that_does_not_fit_and_nobody_overtakes_it()
-> anyhow::Result<()> {
    let (coordinator, wire, held, mut facts) = start("2x24GiB").await?;
    let mut waiting = JoinSet::new();
    wait_for(&mut waiting, &wire, whole_devices("both", 2));
    let kept = facts.leases(LeaseEventKind::Kept, 1).await;
    assert_eq!(kept[0].kept_devices.len(), 2);

    // One device is free, and kept: neither a request that may not wait nor one that may gets it.
    let got = refusal(wire.leases().acquire(request("now")).await);
    assert_eq!((got.code, got.reason.as_str()), (Code::ResourceExhausted, "NO_CAPACITY"));
    let requested = whole_devices("small", 1);
    wait_for(&mut waiting, &wire, requested);
    facts.leases(LeaseEventKind::Requested, 1).await;
    let waiter = wire.lease(kept[0].lease_id).await?;
    assert_eq!(waiter.state(), v1::LeaseState::Queued);
    assert_eq!(waiter.kept_devices, kept[0].kept_devices);

    wire.release(&held).await?;
    let first = soon("the first grant", waiting.join_next()).await.expect("two wait")??;
    assert_eq!((first.request_id.as_str(), first.devices.len()), ("both", 2));
    wire.release(&first).await?;
    let second = soon("the second grant", waiting.join_next()).await.expect("one waits")??;
    assert_eq!(second.request_id, "small");
    drop(coordinator);
    Ok(())
}

#[tokio::test]
async fn an_earlier_request_takes_the_kept_devices_over() -> anyhow::Result<()> {
    let (coordinator, wire, held, mut facts) = start("2x24GiB").await?;
    let mut waiting = JoinSet::new();
    wait_for(&mut waiting, &wire, whole_devices("both", 2));
    facts.leases(LeaseEventKind::Kept, 1).await;
    let urgent =
        v1::AcquireRequest { priority: Priority::Immediate.into(), ..whole_devices("urgent", 1) };
    let urgent = soon("a grant on the kept device", wire.acquire(urgent)).await?;
    assert_eq!(urgent.state(), v1::LeaseState::Active);
    wire.release(&held).await?;
    wire.release(&urgent).await?;
    let both = soon("the grant of both", waiting.join_next()).await.expect("one waits")??;
    assert_eq!(both.devices.len(), 2);
    drop(coordinator);
    Ok(())
}

/// A coordinator of which one device is held, and what happens from then on.
async fn start(devices: &str) -> anyhow::Result<(Coordinator, Wire, v1::Lease, Facts)> {
    let coordinator = Coordinator::simulate(devices).await?;
    let wire = Wire::connect(coordinator.endpoint()).await?;
    let held = wire.acquire(whole_devices("held", 1)).await?;
    let facts = Facts::from_now(&Client::connect(coordinator.endpoint()).await?).await?;
    Ok((coordinator, wire, held, facts))
}

type Waiting = JoinSet<Result<v1::Lease, tonic::Status>>;

fn wait_for(waiting: &mut Waiting, wire: &Wire, message: v1::AcquireRequest) {
    let wire = wire.clone();
    waiting.spawn(async move { wire.acquire(message).await });
}
