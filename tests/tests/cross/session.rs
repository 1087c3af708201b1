//! Sessions over the bare wire (P22): places outlive a broken stream, and a newer session replaces an older one.

use gpulease_proto::v1::{session_request::Body as Request, session_response::Body as Response};
use gpulease_tests::{
    coordinator::Coordinator,
    session::Session,
    wire::{Refusal, Wire, request, whole_devices},
};
use tonic::Code;

#[tokio::test]
async fn a_session_that_comes_back_within_the_grace_keeps_its_place() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let wire = Wire::connect(coordinator.endpoint()).await?;
    let held = wire.acquire(whole_devices("held", 1)).await?;
    let mut first = Session::open(&wire, "first").await?;
    let place = first.queue(whole_devices("first", 1)).await?;
    let mut second = Session::open(&wire, "second").await?;
    let behind = second.queue(whole_devices("second", 1)).await?;
    assert_eq!((place.queue_position, behind.queue_position), (0, 1));

    drop(first);
    let mut first = Session::open(&wire, "first").await?;
    assert_eq!(first.welcome().leases.iter().map(|lease| lease.id).collect::<Vec<_>>(), [place.id]);
    let again = first.queue(whole_devices("first", 1)).await?;
    assert_eq!((again.id, again.queue_position), (place.id, 0));
    wire.release(&held).await?;
    let granted = first.granted().await?;
    assert_eq!(granted.id, place.id);
    wire.release(&granted).await?;
    assert_eq!(second.granted().await?.id, behind.id);
    Ok(())
}

#[tokio::test]
async fn a_newer_session_of_the_same_holder_ends_the_older_and_has_its_leases() -> anyhow::Result<()>
{
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let wire = Wire::connect(coordinator.endpoint()).await?;
    let mut older = Session::open(&wire, "holder").await?;
    older.send(Request::Acquire(request("holder")))?;
    let lease = older.granted().await?;
    let newer = Session::open(&wire, "holder").await?;
    assert_eq!(newer.welcome().leases.iter().map(|lease| lease.id).collect::<Vec<_>>(), [lease.id]);
    let status = loop {
        match older.next().await {
            Ok(_) => {}
            Err(status) => break Refusal::of(&status),
        }
    };
    assert_eq!((status.code, status.reason.as_str()), (Code::Aborted, "SESSION_REPLACED"));
    Ok(())
}

#[tokio::test]
async fn a_session_hears_of_what_others_did_to_its_leases() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let wire = Wire::connect(coordinator.endpoint()).await?;
    let mut session = Session::open(&wire, "holder").await?;
    session.send(Request::Acquire(request("holder")))?;
    let lease = session.granted().await?;
    let revoke =
        gpulease_proto::v1::RevokeRequest { lease_id: lease.id, reason: "a drill".to_owned() };
    wire.leases().revoke(revoke).await?;
    let changed = session.until(|body| match body {
        Response::Changed(changed) => Some(changed),
        _ => None,
    });
    let changed = changed.await?;
    assert_eq!((changed.id, changed.end_detail.as_str()), (lease.id, "a drill"));
    Ok(())
}
