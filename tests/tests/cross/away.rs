//! A coordinator that is away, and networks that break: what holders make of it, and that nothing is held twice.

use std::{path::Path, time::Duration};

use gpulease::{
    Change, Client, ErrorKind, Lease, LeaseChanges, LeaseRequest, LeaseState, LeaseStatus,
    LostReason, WhileUnreachable,
};
use gpulease_tests::{coordinator::Coordinator, deadline::soon, proxy::Proxy, wire::Wire};

/// Short, so that a test outlasts it soon.
const TTL: Duration = Duration::from_secs(2);

async fn client(endpoint: &str, holder: &str) -> Result<Client, gpulease::Error> {
    Client::builder().endpoint(endpoint).holder(holder).connect().await
}

async fn change(changes: &mut LeaseChanges, what: &str) -> Change {
    soon(what, changes.next()).await.expect("there are more changes")
}

/// Whole devices, of which there is one; nobody waits for it.
fn now(ttl: Duration) -> LeaseRequest {
    LeaseRequest::exclusive().ttl(ttl).wait(Duration::ZERO)
}

#[tokio::test]
async fn away_for_longer_than_a_ttl_a_holder_is_lost_by_its_own_clock() -> anyhow::Result<()> {
    let mut coordinator = Coordinator::simulate("1x24GiB").await?;
    let holder = client(coordinator.endpoint(), "holder").await?;
    let lease = holder.acquire(now(TTL)).await?;
    let mut changes = lease.changes();
    coordinator.kill().await?;
    let uncertain = change(&mut changes, "the word that nobody answers").await;
    assert!(matches!(uncertain, Change::Uncertain { .. }), "{uncertain:?}");
    lease.check()?;
    let reason = soon("the loss", lease.lost()).await;
    assert_eq!(reason, LostReason::ValidityOver);
    assert_eq!(lease.check().unwrap_err().kind(), ErrorKind::LeaseLost);

    coordinator.restart().await?;
    // The guard is lost for good; its late release gives the device back before the TTL would.
    let token = lease.fencing_token();
    drop(lease);
    let again = holder.acquire(LeaseRequest::exclusive()).await?;
    assert!(again.fencing_token() > token);
    Ok(())
}

/// A coordinator on a socket, and a lease that is kept while it is gone.
async fn kept(socket: &Path) -> anyhow::Result<(Coordinator, Client, Lease)> {
    let settings = Coordinator::settings().simulate("1x24GiB").socket(socket);
    let coordinator = settings.start().await?;
    let holder = client(&format!("unix://{}", socket.display()), "holder").await?;
    let lease = holder.acquire(now(TTL).while_unreachable(WhileUnreachable::Keep)).await?;
    Ok((coordinator, holder, lease))
}

/// Waits until the lease is past its validity, and kept.
async fn outlast_the_ttl(lease: &Lease, changes: &mut LeaseChanges) {
    let uncertain = change(changes, "the word that nobody answers").await;
    assert!(matches!(uncertain, Change::Uncertain { .. }), "{uncertain:?}");
    // Half a TTL is left when it becomes uncertain: this would end it.
    let lost = tokio::time::timeout(TTL * 2, lease.lost()).await;
    assert!(lost.is_err(), "{lost:?}");
    assert!(matches!(lease.status(), LeaseStatus::Uncertain { .. }), "{:?}", lease.status());
}

#[tokio::test]
async fn a_lease_kept_over_the_socket_outlives_a_coordinator_that_is_gone() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("gpulease.sock");
    let (mut coordinator, holder, lease) = kept(&socket).await?;
    let mut changes = lease.changes();
    coordinator.kill().await?;
    outlast_the_ttl(&lease, &mut changes).await;
    lease.check()?;
    coordinator.restart().await?;
    assert_eq!(change(&mut changes, "an answer").await, Change::Certain);
    lease.check()?;
    let shown = holder.lease(lease.id()).await?.lease;
    assert_eq!((shown.state, shown.fencing_token), (LeaseState::Active, lease.fencing_token()));
    lease.release().await?;
    Ok(())
}

#[tokio::test]
async fn a_kept_lease_that_the_coordinator_no_longer_knows_is_lost() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("gpulease.sock");
    let (mut coordinator, _holder, lease) = kept(&socket).await?;
    let mut changes = lease.changes();
    coordinator.kill().await?;
    outlast_the_ttl(&lease, &mut changes).await;
    // Another one, with a journal of its own, at the same socket.
    let settings = Coordinator::settings().simulate("1x24GiB").socket(&socket);
    let _other = settings.start().await?;
    let reason = soon("the loss", lease.lost()).await;
    assert!(matches!(reason, LostReason::Ended { .. }), "{reason:?}");
    Ok(())
}

#[tokio::test]
async fn leases_are_not_kept_over_tcp() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let keeping = Client::builder().endpoint(coordinator.endpoint());
    let keeping = keeping.while_unreachable(WhileUnreachable::Keep).connect().await;
    assert_eq!(keeping.unwrap_err().reason(), "NEEDS_SOCKET");
    Ok(())
}

#[tokio::test]
async fn a_cut_that_is_healed_within_the_ttl_costs_nothing() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let proxy = Proxy::to(coordinator.endpoint()).await?;
    let holder = client(proxy.endpoint(), "holder").await?;
    let lease = holder.acquire(now(TTL * 2)).await?;
    let mut changes = lease.changes();
    proxy.cut();
    let uncertain = change(&mut changes, "the word that nobody answers").await;
    assert!(matches!(uncertain, Change::Uncertain { .. }), "{uncertain:?}");
    proxy.heal();
    assert_eq!(change(&mut changes, "an answer").await, Change::Certain);
    lease.check()?;
    lease.release().await?;
    Ok(())
}

#[tokio::test]
async fn a_network_that_stalls_past_the_ttl_loses_the_lease_before_anybody_else_gets_the_device()
-> anyhow::Result<()> {
    let coordinator = Coordinator::settings()
        .simulate("1x24GiB")
        .environment("GPULEASE_LEASES_LOCK_DELAY", "500ms")
        .start()
        .await?;
    let proxy = Proxy::to(coordinator.endpoint()).await?;
    let holder = client(proxy.endpoint(), "holder").await?;
    let lease = holder.acquire(now(TTL)).await?;
    let other = client(coordinator.endpoint(), "other").await?;
    proxy.stall();
    let next = other.acquire(LeaseRequest::exclusive().wait(Duration::from_secs(60)));
    let next = soon("the device", next).await?;
    // The other has it: by now the holder must know that it has lost it, by its own clock alone.
    assert_eq!(lease.check().unwrap_err().kind(), ErrorKind::LeaseLost);
    assert!(next.fencing_token() > lease.fencing_token());
    let wire = Wire::connect(coordinator.endpoint()).await?;
    let stale = holder_of(&lease);
    let refused = wire.renew(&stale).await.unwrap_err();
    assert_eq!(gpulease_tests::wire::Refusal::of(&refused).reason, "LEASE_ENDED");
    proxy.heal();
    next.release().await?;
    drop(lease);
    let again = soon("a new lease over the healed network", holder.acquire(now(TTL))).await?;
    again.check()?;
    Ok(())
}

/// The lease on the wire, as its holder knows it.
fn holder_of(lease: &Lease) -> gpulease_proto::v1::Lease {
    gpulease_proto::v1::Lease {
        id: lease.id(),
        fencing_token: lease.fencing_token(),
        ..Default::default()
    }
}
