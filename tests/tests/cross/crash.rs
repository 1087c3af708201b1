//! kill −9, restarts and stalls: what was acknowledged stays, whoever waits keeps the place, and nobody loses a lease.

use std::time::Duration;

use gpulease::{Client, Lease, LeaseInfo, LeaseRequest};
use gpulease_tests::{
    coordinator::Coordinator,
    deadline::soon,
    wire::{self, Wire},
};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

#[tokio::test]
async fn a_live_lease_outlives_a_killed_coordinator_and_is_renewed_on() -> anyhow::Result<()> {
    let mut coordinator = Coordinator::simulate("1x24GiB").await?;
    let holder = client(&coordinator, "holder").await?;
    let ttl = Duration::from_secs(3);
    let lease = holder.acquire(LeaseRequest::exclusive().ttl(ttl)).await?;
    coordinator.restart().await?;
    // Without renewals it would be lost and reclaimed well within this time.
    let lost = timeout(ttl * 2, lease.lost()).await;
    assert!(lost.is_err(), "{lost:?}");
    lease.check()?;
    let shown = client(&coordinator, "watcher").await?.lease(lease.id()).await?.lease;
    assert_eq!(shown.state, gpulease::LeaseState::Active);
    assert_eq!(shown.fencing_token, lease.fencing_token());
    lease.release().await?;
    Ok(())
}

#[tokio::test]
async fn waiters_reattach_with_their_place_after_a_kill() -> anyhow::Result<()> {
    let mut coordinator = Coordinator::simulate("1x24GiB").await?;
    let holder = client(&coordinator, "holder").await?;
    let held = holder.acquire(LeaseRequest::exclusive().ttl(Duration::from_secs(60))).await?;
    let (first, mut first_told) = wait_in_queue(client(&coordinator, "first").await?);
    let before = soon("the first one's place", first_told.recv()).await.expect("it waits");
    let (second, mut second_told) = wait_in_queue(client(&coordinator, "second").await?);
    let behind = soon("the second one's place", second_told.recv()).await.expect("it waits");
    assert_eq!((before.queue_position, behind.queue_position), (0, 1));

    coordinator.restart().await?;
    let again = soon("the second one's place after the restart", second_told.recv())
        .await
        .expect("it waits");
    assert_eq!((again.id, again.queue_position), (behind.id, 1));
    let again =
        soon("the first one's place after the restart", first_told.recv()).await.expect("it waits");
    assert_eq!((again.id, again.queue_position), (before.id, 0));

    held.release().await?;
    let first = soon("the first one's grant", first).await??;
    assert_eq!(first.id(), before.id);
    assert!(!second.is_finished());
    first.release().await?;
    let second = soon("the second one's grant", second).await??;
    assert_eq!(second.id(), behind.id);
    Ok(())
}

#[tokio::test]
async fn tokens_only_grow_over_kills() -> anyhow::Result<()> {
    let mut coordinator = Coordinator::simulate("1x24GiB").await?;
    let mut token = 0;
    for round in 0..4 {
        let wire = Wire::connect(coordinator.endpoint()).await?;
        let lease = wire.acquire(wire::request(&format!("round-{round}"))).await?;
        assert!(lease.fencing_token > token, "{} after {token}", lease.fencing_token);
        token = lease.fencing_token;
        coordinator.restart().await?;
        let wire = Wire::connect(coordinator.endpoint()).await?;
        assert_eq!(wire.lease(lease.id).await?.fencing_token, token);
    }
    Ok(())
}

#[tokio::test]
async fn a_repeated_request_after_a_kill_is_the_same_lease() -> anyhow::Result<()> {
    let mut coordinator = Coordinator::simulate("1x24GiB").await?;
    let lease = Wire::connect(coordinator.endpoint()).await?.acquire(wire::request("once")).await?;
    coordinator.restart().await?;
    let again = Wire::connect(coordinator.endpoint()).await?.acquire(wire::request("once")).await?;
    assert_eq!((again.id, again.fencing_token), (lease.id, lease.fencing_token));
    Ok(())
}

#[tokio::test]
async fn a_coordinator_that_stalls_for_twice_a_ttl_loses_nobodys_lease() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("2x24GiB").await?;
    let wire = Wire::connect(coordinator.endpoint()).await?;
    let short = |name| gpulease_proto::v1::AcquireRequest {
        ttl: Some(wire::seconds(2)),
        ..wire::request(name)
    };
    let first = wire.acquire(short("first")).await?;
    let second = wire.acquire(short("second")).await?;
    coordinator.stall(Duration::from_secs(4)).await?;
    for lease in [&first, &second] {
        let renewed = soon("a renewal after the stall", wire.renew(lease)).await?;
        assert_eq!(renewed.fencing_token, lease.fencing_token);
    }
    Ok(())
}

async fn client(coordinator: &Coordinator, holder: &str) -> Result<Client, gpulease::Error> {
    Client::builder().endpoint(coordinator.endpoint()).holder(holder).connect().await
}

/// Asks for the whole device and tells each time when it hears that it waits.
fn wait_in_queue(
    client: Client,
) -> (JoinHandle<Result<Lease, gpulease::Error>>, mpsc::UnboundedReceiver<LeaseInfo>) {
    let (tell, told) = mpsc::unbounded_channel();
    let request = LeaseRequest::exclusive().wait(Duration::from_secs(600));
    let waiting = tokio::spawn(async move {
        let on_queued = |info: &LeaseInfo| {
            // Whoever no longer listens needs no word.
            let _ = tell.send(info.clone());
        };
        client.acquire_with(request, on_queued).await
    });
    (waiting, told)
}
