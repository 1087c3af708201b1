//! Holders that fail: stopped, replaced, deaf to a notice, late with an answer, or releasing as they expire.

use std::{collections::BTreeSet, time::Duration};

use gpulease::{
    Client, EndReason, ErrorKind, LeaseEventKind, LeaseRequest, LeaseStatus, LostReason,
    Preemptible, Priority,
};
use gpulease_proto::v1::{
    self, session_request::Body as Request, session_response::Body as Response,
};
use gpulease_tests::{
    coordinator::Coordinator,
    deadline::soon,
    events::Facts,
    holder::HolderProcess,
    session::Session,
    wire::{self, Refusal, Wire},
};
use tonic::Code;

const HOLDER: &str = env!("CARGO_BIN_EXE_gpulease-test-holder");
/// The shortest there is.
const TTL: Duration = Duration::from_secs(2);
const WAIT: Duration = Duration::from_secs(60);

/// One device, and times short enough to wait for.
async fn coordinator() -> anyhow::Result<Coordinator> {
    Coordinator::settings()
        .simulate("1x24GiB")
        .environment("GPULEASE_LEASES_LOCK_DELAY", "500ms")
        .environment("GPULEASE_LEASES_NOTICE", "2s")
        .environment("GPULEASE_LEASES_NOTICE_MAX", "4s")
        .start()
        .await
}

async fn client(coordinator: &Coordinator, holder: &str) -> Result<Client, gpulease::Error> {
    Client::builder().endpoint(coordinator.endpoint()).holder(holder).connect().await
}

fn background() -> LeaseRequest {
    LeaseRequest::exclusive().priority(Priority::Background).preemptible(Preemptible::Pause)
}

fn urgent() -> LeaseRequest {
    LeaseRequest::exclusive().priority(Priority::Immediate).wait(WAIT)
}

#[tokio::test]
async fn a_holder_stopped_past_its_ttl_says_lost_at_its_next_check_and_its_token_is_refused()
-> anyhow::Result<()> {
    let coordinator = coordinator().await?;
    let operator = client(&coordinator, "operator").await?;
    let mut facts = Facts::from_now(&operator).await?;
    let mut holder = HolderProcess::start(HOLDER, coordinator.endpoint(), "stopped", TTL).await?;
    assert_eq!(holder.check().await?, "held");
    holder.freeze()?;
    let gone = facts.leases(LeaseEventKind::Reclaiming, 1).await;
    assert_eq!(gone[0].lease_id, holder.lease_id);
    let next = soon("the device", operator.acquire(urgent())).await?;
    assert!(next.fencing_token() > holder.fencing_token);
    holder.thaw()?;
    assert_eq!(holder.check().await?, "LEASE_LOST");
    let refused = operator.renew(holder.lease_id, holder.fencing_token).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LeaseEnded);
    let refused = operator.renew(next.id(), holder.fencing_token).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::StaleToken);
    Ok(())
}

#[tokio::test]
async fn a_second_session_of_a_holder_takes_its_leases_over() -> anyhow::Result<()> {
    let coordinator = coordinator().await?;
    let request = || background().request_id("the one").ttl(WAIT);
    let older = client(&coordinator, "twin").await?.acquire(request()).await?;
    let newer = client(&coordinator, "twin").await?.acquire(request()).await?;
    assert_eq!((newer.id(), newer.fencing_token()), (older.id(), older.fencing_token()));
    let reason = soon("the older session's loss", older.lost()).await;
    assert_eq!(reason, LostReason::SessionReplaced);
    // The older guard's end is not the lease's.
    drop(older);
    newer.check()?;
    let released = newer.release().await?;
    assert_eq!(released.end_reason, Some(EndReason::Released));
    Ok(())
}

#[tokio::test]
async fn a_holder_that_never_acknowledges_loses_its_devices_at_the_deadline() -> anyhow::Result<()>
{
    let coordinator = coordinator().await?;
    let deaf = client(&coordinator, "deaf").await?.acquire(background()).await?;
    let other = client(&coordinator, "other").await?;
    let mut facts = Facts::from_now(&other).await?;
    let waiting = tokio::spawn(async move { other.acquire(urgent()).await });
    let notice = soon("a notice", deaf.noticed()).await?;
    assert!(notice.remaining <= Duration::from_secs(2), "{notice}");
    deaf.check()?;
    soon("the loss", deaf.lost()).await;
    assert_eq!(deaf.acknowledge(&notice).await.unwrap_err().kind(), ErrorKind::LeaseLost);
    let reclaimed = facts.leases(LeaseEventKind::Reclaiming, 1).await;
    assert_eq!(reclaimed[0].lease_id, deaf.id());
    assert_eq!(reclaimed[0].end_reason, Some(EndReason::Revoked));
    let next = soon("the device", waiting).await??;
    assert!(next.fencing_token() > deaf.fencing_token());
    Ok(())
}

/// Over the bare wire, since the SDK knows the deadline itself.
#[tokio::test]
async fn an_acknowledgement_behind_the_deadline_is_refused_and_the_device_goes_on_anyway()
-> anyhow::Result<()> {
    let coordinator = coordinator().await?;
    let wire = Wire::connect(coordinator.endpoint()).await?;
    let mut late = Session::open(&wire, "late").await?;
    late.send(Request::Acquire(v1::AcquireRequest {
        preemptible: v1::Preemptible::Pause.into(),
        priority: v1::Priority::Background.into(),
        ..wire::whole_devices("late", 1)
    }))?;
    let lease = late.granted().await?;
    let other = client(&coordinator, "other").await?;
    let waiting = tokio::spawn(async move { other.acquire(urgent()).await });
    let notice = late.until(|body| noticed(&body)).await?;
    late.until(|body| match body {
        Response::Changed(lease) => (lease.state() == v1::LeaseState::Reclaiming).then_some(()),
        _ => None,
    })
    .await?;
    late.send(Request::Acknowledge(v1::AcknowledgeRequest {
        lease_id: lease.id,
        fencing_token: lease.fencing_token,
        notice_id: notice.id,
        ..Default::default()
    }))?;
    let refused = late
        .until(|body| match body {
            Response::Error(error) => Some(error),
            _ => None,
        })
        .await?;
    assert_eq!((refused.code, refused.reason.as_str()), (9, "LEASE_ENDED"));
    let next = soon("the device", waiting).await??;
    assert!(next.fencing_token() > lease.fencing_token);
    Ok(())
}

fn noticed(body: &Response) -> Option<v1::Notice> {
    match body {
        Response::Changed(lease) => lease.notice.clone(),
        _ => None,
    }
}

#[tokio::test]
async fn a_notice_can_be_extended_once_and_is_withdrawn_with_its_cause() -> anyhow::Result<()> {
    let coordinator = coordinator().await?;
    let lease = client(&coordinator, "holder").await?.acquire(background()).await?;
    let other = client(&coordinator, "other").await?;
    let waiting = tokio::spawn(async move { other.acquire(urgent()).await });
    let notice = soon("a notice", lease.noticed()).await?;
    let longer = lease.extend_notice(&notice, Duration::from_secs(60)).await?;
    assert!(longer.remaining > Duration::from_secs(2), "at most doubled: {longer}");
    assert!(longer.remaining <= Duration::from_secs(4), "{longer}");
    let again = lease.extend_notice(&notice, Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::NoticeOver);
    waiting.abort();
    let grant = soon("the withdrawal", lease.resumed()).await?;
    assert_eq!(grant.fencing_token, lease.fencing_token());
    assert_eq!(lease.acknowledge(&notice).await?, LeaseStatus::Active, "go on");
    lease.check()?;
    Ok(())
}

/// Releases a lease so long after its grant: the time is what the race is about. Whether it was in time.
async fn release_after(wire: Wire, lease: v1::Lease, pause: Duration) -> anyhow::Result<bool> {
    let due = tokio::time::Instant::now() + pause;
    tokio::time::interval_at(due, TTL).tick().await;
    match wire.release(&lease).await {
        Ok(lease) => {
            assert!(lease.end_reason() != v1::EndReason::Unspecified);
            Ok(lease.end_reason() == v1::EndReason::Released)
        }
        Err(status) => {
            let refusal = Refusal::of(&status);
            assert_eq!(
                (refusal.code, refusal.reason.as_str()),
                (Code::FailedPrecondition, "LEASE_ENDED")
            );
            Ok(false)
        }
    }
}

/// Twenty leases, the first released 100 ms before its TTL is over and each further one 10 ms later, and the same again
/// until some were in time and some were not: each round ends 100 ms later, for a TTL is only a lower bound.
#[tokio::test]
async fn a_release_that_races_an_expiry_ends_the_lease_once_and_frees_its_memory_once()
-> anyhow::Result<()> {
    let coordinator = coordinator().await?;
    let wire = Wire::connect(coordinator.endpoint()).await?;
    let operator = client(&coordinator, "operator").await?;
    let (mut leases, mut outcomes) = (vec![], BTreeSet::new());
    for round in 0..10 {
        let mut releases = vec![];
        for number in 0..20 {
            let ttl = Some(wire::seconds(2));
            let name = format!("racer-{round}-{number}");
            let lease = wire.acquire(v1::AcquireRequest { ttl, ..wire::request(&name) }).await?;
            let pause =
                TTL - Duration::from_millis(100) + Duration::from_millis(10 + 5 * round) * number;
            releases.push(tokio::spawn(release_after(wire.clone(), lease.clone(), pause)));
            leases.push(lease);
        }
        for release in releases {
            outcomes.insert(release.await??);
        }
        if outcomes.len() == 2 {
            break;
        }
    }
    assert_eq!(outcomes.len(), 2, "only one side ever won: {outcomes:?}");
    // Nothing of it is held any more, by any of them.
    let whole = soon("the whole device", operator.acquire(urgent())).await?;
    let newest = leases.iter().map(|lease| lease.fencing_token).max();
    assert!(Some(whole.fencing_token()) > newest);
    let ended = operator.leases(gpulease::LeaseFilter::all()).await?.items;
    let over = ended.iter().filter(|lease| lease.id != whole.id());
    for lease in over {
        let reason = lease.end_reason;
        assert!(matches!(reason, Some(EndReason::Released | EndReason::Expired)), "{lease:?}");
    }
    whole.release().await?;
    let device = operator.devices().await?.items.remove(0);
    assert_eq!((device.memory_leased_bytes, device.memory_closed_bytes), (0, 0));
    Ok(())
}
