//! Keep-alive, validity, and how a lease is lost.

use std::time::Duration;

use gpulease_proto::v1::{self, session_renewal_outcome::Outcome, session_response::Body};
use tonic::Code;

use super::{
    Scene, TTL, acquire,
    coordinator::{FakeSession, active, refusal},
    settle,
};
use crate::{EndReason, ErrorKind, Lease, LeaseRequest, LostReason};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

async fn held(scene: &mut Scene, leases: Vec<v1::Lease>) -> (FakeSession, Vec<Lease>) {
    let calls: Vec<_> =
        leases.iter().map(|_| acquire(&scene.client, LeaseRequest::slots(1))).collect();
    let mut session = scene.coordinator.welcome(vec![]).await;
    for lease in leases {
        let (sequence, _) = session.acquire().await;
        session.grant(sequence, lease).await;
    }
    let mut guards = vec![];
    for call in calls {
        guards.push(call.await.unwrap().unwrap());
    }
    guards.sort_by_key(Lease::id);
    (session, guards)
}

async fn one(scene: &mut Scene) -> (FakeSession, Lease) {
    let (session, mut leases) = held(scene, vec![active(7, 3)]).await;
    (session, leases.remove(0))
}

fn renewed(lease_id: u64, fencing_token: u64) -> Outcome {
    let remaining = Some(prost_types::Duration { seconds: 30, nanos: 0 });
    let renewed = v1::RenewResponse { lease_id, fencing_token, remaining, ..Default::default() };
    Outcome::Renewed(renewed)
}

#[tokio::test]
async fn a_lease_that_is_never_renewed_is_lost_when_its_ttl_is_over_and_not_before() {
    let mut scene = Scene::new().await;
    let (_session, lease) = one(&mut scene).await;
    assert_eq!(lease.remaining(), TTL);
    scene.advance(TTL - Duration::from_nanos(1));
    assert!(!lease.is_lost());
    lease.check().unwrap();
    scene.advance(Duration::from_nanos(1));
    assert!(lease.is_lost(), "by the clock alone, before any task has looked");
    assert_eq!(lease.check().unwrap_err().kind(), ErrorKind::LeaseLost);
    assert_eq!(lease.lost().await, LostReason::ValidityOver);
    assert_eq!(lease.remaining(), Duration::ZERO);
}

#[tokio::test]
async fn a_renewal_goes_out_at_a_third_of_the_ttl_and_counts_from_its_send_time() {
    let mut scene = Scene::new().await;
    let (mut session, lease) = one(&mut scene).await;
    scene.advance(seconds(10));
    let (sequence, renewals) = session.renewal().await;
    assert_eq!((renewals[0].lease_id, renewals[0].fencing_token), (7, 3));
    scene.advance(seconds(5));
    session.renewed(sequence, vec![renewed(7, 3)]).await;
    settle(&scene, &mut session).await;
    assert_eq!(lease.remaining(), seconds(25), "30 s from when it was sent, 5 s ago");
    scene.advance(seconds(5));
    let (_, renewals) = session.renewal().await;
    assert_eq!(renewals.len(), 1, "the next one is a third of the TTL after the last was sent");
}

#[tokio::test]
async fn renewals_that_are_due_together_travel_in_one_message() {
    let mut scene = Scene::new().await;
    let leases = (1..=5).map(|id| active(id, id)).collect();
    let (mut session, guards) = held(&mut scene, leases).await;
    scene.advance(seconds(10));
    let (sequence, renewals) = session.renewal().await;
    let ids: Vec<u64> = renewals.iter().map(|renewal| renewal.lease_id).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5]);
    let stale = Outcome::Error(refusal(Code::FailedPrecondition, "STALE_TOKEN"));
    let ended = Outcome::Error(refusal(Code::FailedPrecondition, "LEASE_ENDED"));
    let busy = Outcome::Error(refusal(Code::Unavailable, "OVERLOADED"));
    let outcomes = vec![renewed(1, 1), stale, ended, busy, renewed(5, 50)];
    session.renewed(sequence, outcomes).await;
    assert_eq!(guards[1].lost().await, LostReason::StaleToken);
    assert!(matches!(guards[2].lost().await, LostReason::Ended { .. }));
    settle(&scene, &mut session).await;
    assert!(!guards[0].is_lost() && !guards[3].is_lost() && !guards[4].is_lost());
    assert_eq!(guards[4].fencing_token(), 50, "a new token is used from now on");
    scene.advance(seconds(1));
    let (_, renewals) = session.renewal().await;
    assert_eq!(renewals.len(), 1);
    assert_eq!(renewals[0].lease_id, 4, "a refusal that may pass is repeated");
}

#[tokio::test]
async fn a_lease_that_the_coordinator_ends_is_lost_at_once_with_the_reason() {
    let mut scene = Scene::new().await;
    let (session, lease) = one(&mut scene).await;
    let revoked = v1::Lease {
        state: v1::LeaseState::Reclaiming as i32,
        end_reason: v1::EndReason::Revoked as i32,
        end_detail: "maintenance".to_owned(),
        ..active(7, 3)
    };
    session.answer(0, Body::Changed(revoked)).await;
    let reason = Some(EndReason::Revoked);
    let expected = LostReason::Ended { reason, detail: "maintenance".to_owned() };
    assert_eq!(lease.lost().await, expected);
}

#[tokio::test]
async fn a_break_that_outlasts_the_ttl_loses_the_lease_and_a_shorter_one_does_not() {
    let mut scene = Scene::new().await;
    let (session, mut leases) = held(&mut scene, vec![active(1, 1), active(2, 2)]).await;
    let (second, first) = (leases.remove(1), leases.remove(0));
    drop(session);
    let mut session = scene.coordinator.welcome(vec![]).await;
    let (sequence, renewals) = session.renewal().await;
    assert_eq!(renewals.len(), 2, "at once, although none is due");
    scene.advance(seconds(20));
    let ended = Outcome::Error(refusal(Code::NotFound, "LEASE_NOT_FOUND"));
    session.renewed(sequence, vec![renewed(1, 1), ended]).await;
    assert!(matches!(second.lost().await, LostReason::Ended { .. }));
    assert_eq!(first.remaining(), seconds(10));
    drop(session);
    scene.advance(seconds(10));
    assert_eq!(first.lost().await, LostReason::ValidityOver);
}

#[tokio::test]
async fn a_lease_whose_validity_is_over_is_not_revived_by_a_welcome() {
    let mut scene = Scene::new().await;
    let (session, lease) = one(&mut scene).await;
    drop(session);
    let session = scene.coordinator.session().await;
    // No task is told of the time that passed: only the clock says that it is lost.
    *scene.now.lock().unwrap() += TTL;
    assert!(lease.is_lost());
    let leases = vec![active(7, 3)];
    let welcome = v1::SessionWelcome { leases, ..v1::SessionWelcome::default() };
    session.answer(0, Body::Welcome(welcome)).await;
    assert_eq!(lease.lost().await, LostReason::ValidityOver);
}

#[tokio::test]
async fn work_told_by_a_renewal_without_an_answer_is_told_again_on_the_next_session() {
    let mut scene = Scene::new().await;
    let (mut session, lease) = one(&mut scene).await;
    lease.record_operation(5, seconds(3));
    scene.advance(seconds(10));
    session.renewal().await;
    drop(session);
    let mut session = scene.coordinator.welcome(vec![active(7, 3)]).await;
    let (_, renewals) = session.renewal().await;
    assert_eq!(renewals[0].operations.as_ref().map(|work| work.count), Some(5));
}

#[tokio::test]
async fn a_dropped_guard_releases_and_a_detached_one_does_not() {
    let mut scene = Scene::new().await;
    let (mut session, mut leases) = held(&mut scene, vec![active(1, 10), active(2, 20)]).await;
    let (second, first) = (leases.remove(1), leases.remove(0));
    assert_eq!(first.detach(), (1, 10));
    drop(second);
    let (_, release) = session.release().await;
    assert_eq!((release.lease_id, release.fencing_token), (2, Some(20)));
    scene.advance(seconds(10));
    settle(&scene, &mut session).await;
}

#[tokio::test]
async fn a_release_that_a_stopping_coordinator_refuses_is_sent_again() {
    let mut scene = Scene::new().await;
    let (mut session, lease) = one(&mut scene).await;
    let release = tokio::spawn(lease.release());
    let (sequence, _) = session.release().await;
    session.refuse(sequence, Code::Unavailable, "SHUTTING_DOWN").await;
    settle(&scene, &mut session).await;
    scene.advance(seconds(1));
    let (sequence, again) = session.release().await;
    assert_eq!((again.lease_id, again.fencing_token), (7, Some(3)));
    let ended = v1::Lease { state: v1::LeaseState::Ended as i32, ..active(7, 3) };
    session.answer(sequence, Body::Released(v1::ReleaseResponse { lease: Some(ended) })).await;
    release.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_lost_lease_is_still_released_when_its_guard_is_dropped() {
    let mut scene = Scene::new().await;
    let (mut session, lease) = one(&mut scene).await;
    scene.advance(TTL);
    assert_eq!(lease.lost().await, LostReason::ValidityOver);
    drop(lease);
    let (_, release) = session.release().await;
    assert_eq!((release.lease_id, release.fencing_token), (7, Some(3)));
}

#[tokio::test]
async fn closing_the_client_loses_its_leases_and_cancels_what_waits() {
    let mut scene = Scene::new().await;
    let (mut session, lease) = one(&mut scene).await;
    let waiting = acquire(&scene.client, LeaseRequest::slots(1));
    let (sequence, _) = session.acquire().await;
    let close = tokio::spawn(scene.client.clone().close());
    assert_eq!(lease.lost().await, LostReason::ClientClosed);
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
    session.grant(sequence, active(8, 4)).await;
    let (sequence, release) = session.release().await;
    assert_eq!(release.lease_id, 8, "the grant that came too late is given back");
    session.answer(sequence, Body::Released(v1::ReleaseResponse::default())).await;
    close.await.unwrap();
    let error = scene.client.acquire(LeaseRequest::slots(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}
