//! Notices, acknowledgements, pauses and resumes: pushed, told by renewals, and made up for after a break.

use std::time::Duration;

use gpulease_proto::v1::{self, session_renewal_outcome::Outcome, session_response::Body};
use tonic::Code;

use super::{
    Scene, acquire,
    coordinator::{FakeSession, active, refusal},
    settle,
};
use crate::{
    Change, ErrorKind, Grant, Lease, LeaseRequest, LeaseStatus, LostReason, NoticeCause,
    Preemptible,
};

pub(super) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A lease whose devices are asked back within 20 s.
pub(super) fn pausing(id: u64, fencing_token: u64, notice_id: u64) -> v1::Lease {
    let cause = v1::NoticeCause {
        kind: v1::NoticeCauseKind::Preemption as i32,
        lease_id: 99,
        ..v1::NoticeCause::default()
    };
    let notice = v1::Notice {
        id: notice_id,
        remaining: Some(prost_types::Duration { seconds: 20, nanos: 0 }),
        causes: vec![cause],
        ..v1::Notice::default()
    };
    let state = v1::LeaseState::Pausing as i32;
    v1::Lease { state, notice: Some(notice), ..active(id, fencing_token) }
}

pub(super) fn paused(id: u64, fencing_token: u64) -> v1::Lease {
    v1::Lease { state: v1::LeaseState::Paused as i32, ..active(id, fencing_token) }
}

fn on_device(lease: v1::Lease, uuid: &str) -> v1::Lease {
    let device = v1::LeasedDevice { uuid: uuid.to_owned(), ..v1::LeasedDevice::default() };
    v1::Lease { devices: vec![device], ..lease }
}

fn uuids(grant: &Grant) -> Vec<&str> {
    grant.devices.iter().map(|device| device.uuid.as_str()).collect()
}

pub(super) async fn held(scene: &mut Scene) -> (FakeSession, Lease) {
    let request = LeaseRequest::slots(1).preemptible(Preemptible::Pause).minimum_hold(seconds(5));
    let call = acquire(&scene.client, request);
    let mut session = scene.coordinator.welcome(vec![]).await;
    let (sequence, asked) = session.acquire().await;
    assert_eq!(asked.preemptible(), v1::Preemptible::Pause);
    assert_eq!(asked.minimum_hold.unwrap().seconds, 5);
    assert_eq!(asked.process, None, "over TCP no process is declared");
    session.grant(sequence, on_device(active(7, 3), "A")).await;
    (session, call.await.unwrap().unwrap())
}

pub(super) async fn push(session: &FakeSession, lease: v1::Lease) {
    session.answer(0, Body::Changed(lease)).await;
}

/// Reads an acknowledgement and answers with the lease as it is then.
pub(super) async fn acknowledged(session: &mut FakeSession, notice_id: u64, lease: v1::Lease) {
    let (sequence, asked) = session.acknowledge().await;
    assert_eq!((asked.lease_id, asked.notice_id), (7, notice_id));
    let answer = v1::AcknowledgeResponse { lease: Some(lease) };
    session.answer(sequence, Body::Acknowledged(answer)).await;
}

#[tokio::test]
async fn a_notice_is_told_acknowledged_and_followed_by_a_resume_elsewhere() {
    let mut scene = Scene::new().await;
    let (mut session, lease) = held(&mut scene).await;
    let mut changes = lease.changes();
    push(&session, pausing(7, 3, 11)).await;
    let notice = lease.noticed().await.unwrap();
    assert_eq!((notice.id, notice.remaining), (11, seconds(20)));
    assert_eq!(notice.causes, [NoticeCause::Preemption { lease_id: 99 }]);
    scene.advance(seconds(5));
    assert_eq!(lease.notice().unwrap().remaining, seconds(15));
    assert!(matches!(lease.status(), LeaseStatus::Pausing(_)));
    lease.check().unwrap();

    let answering = async { lease.acknowledge(&notice).await.unwrap() };
    let (status, ()) = tokio::join!(answering, acknowledged(&mut session, 11, paused(7, 3)));
    assert_eq!(status, LeaseStatus::Paused);
    assert_eq!(lease.check().unwrap_err().kind(), ErrorKind::LeasePaused);
    assert!(lease.devices().is_empty());

    push(&session, on_device(active(7, 4), "B")).await;
    let grant = lease.resumed().await.unwrap();
    assert_eq!((grant.fencing_token, uuids(&grant)), (4, vec!["B"]));
    assert_eq!(lease.fencing_token(), 4);
    lease.check().unwrap();
    let (_, renewals) = session.renewal().await;
    assert_eq!(renewals[0].fencing_token, 4, "the new token is used at once");
    assert!(matches!(changes.next().await, Some(Change::Noticed(told)) if told.id == 11));
    assert_eq!(changes.next().await, Some(Change::Paused));
    assert_eq!(changes.next().await, Some(Change::Resumed(grant)));
}

#[tokio::test]
async fn a_deadline_that_passes_unanswered_loses_the_lease_and_an_acknowledged_one_does_not() {
    let mut scene = Scene::new().await;
    let (mut session, lease) = held(&mut scene).await;
    push(&session, pausing(7, 3, 11)).await;
    let notice = lease.noticed().await.unwrap();
    assert_eq!(lease.remaining(), seconds(20), "the deadline comes before the validity's end");
    scene.advance(seconds(19));
    lease.check().unwrap();
    scene.advance(seconds(1));
    assert_eq!(lease.check().unwrap_err().kind(), ErrorKind::LeaseLost);
    assert_eq!(lease.lost().await, LostReason::NoticeOver);
    let error = lease.acknowledge(&notice).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LeaseLost);
    drop(lease);
    loop {
        // Renewals that went out meanwhile come first.
        if let (_, v1::session_request::Body::Release(release)) = session.next().await {
            assert_eq!((release.lease_id, release.fencing_token), (7, Some(3)));
            break;
        }
    }

    let (mut session, lease) = {
        let call = acquire(&scene.client, LeaseRequest::slots(1));
        let (sequence, _) = session.acquire().await;
        session.grant(sequence, active(8, 5)).await;
        (session, call.await.unwrap().unwrap())
    };
    push(&session, pausing(8, 5, 12)).await;
    let notice = lease.noticed().await.unwrap();
    let answering = tokio::spawn(async move { (lease.acknowledge(&notice).await, lease) });
    let (sequence, _) = session.acknowledge().await;
    scene.advance(seconds(25));
    session.renewal().await;
    settle(&scene, &mut session).await;
    let answer = v1::AcknowledgeResponse { lease: Some(paused(8, 5)) };
    session.answer(sequence, Body::Acknowledged(answer)).await;
    let (status, lease) = answering.await.unwrap();
    assert_eq!(status.unwrap(), LeaseStatus::Paused);
    assert!(!lease.is_lost());
}

#[tokio::test]
async fn a_withdrawn_notice_lets_its_holder_go_on_and_a_newer_one_is_answered_at_once() {
    let mut scene = Scene::new().await;
    let (mut session, lease) = held(&mut scene).await;
    let mut changes = lease.changes();
    push(&session, pausing(7, 3, 11)).await;
    let notice = lease.noticed().await.unwrap();
    let back = on_device(active(7, 3), "A");
    let answering = async { lease.acknowledge(&notice).await.unwrap() };
    let (status, ()) = tokio::join!(answering, acknowledged(&mut session, 11, back));
    assert_eq!(status, LeaseStatus::Active, "withdrawn: go on");
    lease.check().unwrap();

    push(&session, pausing(7, 3, 12)).await;
    let notice = lease.noticed().await.unwrap();
    let answering = async { lease.acknowledge(&notice).await.unwrap() };
    let answers = async {
        acknowledged(&mut session, 12, pausing(7, 3, 13)).await;
        acknowledged(&mut session, 13, paused(7, 3)).await;
    };
    let (status, ()) = tokio::join!(answering, answers);
    assert_eq!(status, LeaseStatus::Paused);
    let mut ids = vec![];
    while ids.len() < 3 {
        match changes.next().await.unwrap() {
            Change::Noticed(notice) => ids.push(notice.id),
            Change::NoticeWithdrawn => assert_eq!(ids, [11]),
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(ids, [11, 12, 13]);
}

#[tokio::test]
async fn an_extension_moves_the_deadline() {
    let mut scene = Scene::new().await;
    let (mut session, lease) = held(&mut scene).await;
    push(&session, pausing(7, 3, 11)).await;
    let notice = lease.noticed().await.unwrap();
    let asking = async { lease.extend_notice(&notice, seconds(7)).await.unwrap() };
    let answering = async {
        let (sequence, body) = session.next().await;
        let v1::session_request::Body::ExtendNotice(asked) = body else { panic!("{body:?}") };
        assert_eq!((asked.notice_id, asked.extension.unwrap().seconds), (11, 7));
        let mut extended = pausing(7, 3, 11);
        let remaining = Some(prost_types::Duration { seconds: 27, nanos: 0 });
        extended.notice = extended.notice.map(|notice| v1::Notice { remaining, ..notice });
        let answer = v1::ExtendNoticeResponse { lease: Some(extended) };
        session.answer(sequence, Body::NoticeExtended(answer)).await;
    };
    let (extended, ()) = tokio::join!(asking, answering);
    assert_eq!(extended.remaining, seconds(27));
    scene.advance(seconds(26));
    lease.check().unwrap();
    scene.advance(seconds(1));
    assert_eq!(lease.lost().await, LostReason::NoticeOver);
}

#[tokio::test]
async fn renewals_tell_of_notices_and_resumes_and_nothing_is_told_twice() {
    let mut scene = Scene::new().await;
    let (mut session, lease) = held(&mut scene).await;
    let mut changes = lease.changes();
    scene.advance(seconds(10));
    let (sequence, _) = session.renewal().await;
    let remaining = Some(prost_types::Duration { seconds: 30, nanos: 0 });
    let told = pausing(7, 3, 11);
    let renewed = v1::RenewResponse {
        lease_id: 7,
        fencing_token: 3,
        remaining,
        state: told.state,
        notice: told.notice.clone(),
        resumed: None,
    };
    session.renewed(sequence, vec![Outcome::Renewed(renewed)]).await;
    assert_eq!(lease.noticed().await.unwrap().id, 11);
    push(&session, told).await;
    push(&session, paused(7, 3)).await;
    lease.paused().await.unwrap();
    scene.advance(seconds(10));
    let (sequence, renewals) = session.renewal().await;
    assert_eq!(renewals[0].fencing_token, 3, "a paused lease is renewed");
    let renewed = v1::RenewResponse {
        lease_id: 7,
        fencing_token: 4,
        remaining,
        state: v1::LeaseState::Active as i32,
        notice: None,
        resumed: Some(Box::new(on_device(active(7, 4), "B"))),
    };
    session.renewed(sequence, vec![Outcome::Renewed(renewed)]).await;
    push(&session, on_device(active(7, 4), "B")).await;
    let grant = lease.resumed().await.unwrap();
    let (_, renewals) = session.renewal().await;
    assert_eq!(renewals[0].fencing_token, 4);
    settle(&scene, &mut session).await;
    assert!(matches!(changes.next().await, Some(Change::Noticed(_))));
    assert_eq!(changes.next().await, Some(Change::Paused));
    assert_eq!(changes.next().await, Some(Change::Resumed(grant)));
    drop(lease);
    let last = changes.next().await;
    assert!(matches!(last, Some(Change::Ended { .. })), "nothing more was told: {last:?}");
    assert_eq!(changes.next().await, None);
}

#[tokio::test]
async fn what_happened_during_a_break_is_told_by_the_welcome() {
    let mut scene = Scene::new().await;
    let (session, lease) = held(&mut scene).await;
    let mut changes = lease.changes();
    drop(session);
    let session = scene.coordinator.welcome(vec![pausing(7, 3, 11)]).await;
    assert_eq!(lease.noticed().await.unwrap().id, 11);
    drop(session);
    // The notice again, with nothing new about it; then a whole pause that nobody was there for.
    let session = scene.coordinator.welcome(vec![pausing(7, 3, 11)]).await;
    drop(session);
    let _session = scene.coordinator.welcome(vec![on_device(active(7, 9), "C")]).await;
    assert_eq!(lease.resumed().await.unwrap().fencing_token, 9);
    assert!(matches!(changes.next().await, Some(Change::Noticed(_))));
    assert_eq!(changes.next().await, Some(Change::Paused), "its devices were others' meanwhile");
    assert!(matches!(changes.next().await, Some(Change::Resumed(grant)) if uuids(&grant) == ["C"]));
}

#[tokio::test]
async fn an_acknowledgement_without_an_answer_is_sent_again_on_the_next_session() {
    let mut scene = Scene::new().await;
    let (mut session, lease) = held(&mut scene).await;
    push(&session, pausing(7, 3, 11)).await;
    let notice = lease.noticed().await.unwrap();
    let answering =
        tokio::spawn(async move { lease.acknowledge(&notice).await.map(|status| (status, lease)) });
    session.acknowledge().await;
    drop(session);
    let mut session = scene.coordinator.welcome(vec![pausing(7, 3, 11)]).await;
    session.renewal().await;
    acknowledged(&mut session, 11, paused(7, 3)).await;
    let (status, _lease) = answering.await.unwrap().unwrap();
    assert_eq!(status, LeaseStatus::Paused);
}

#[tokio::test]
async fn an_acknowledgement_sent_again_with_the_token_before_a_resume_loses_nothing() {
    let mut scene = Scene::new().await;
    let (mut session, lease) = held(&mut scene).await;
    push(&session, pausing(7, 3, 11)).await;
    let notice = lease.noticed().await.unwrap();
    let answering =
        tokio::spawn(async move { lease.acknowledge(&notice).await.map(|status| (status, lease)) });
    session.acknowledge().await;
    drop(session);
    let mut session = scene.coordinator.welcome(vec![on_device(active(7, 9), "B")]).await;
    session.renewal().await;
    let (sequence, again) = session.acknowledge().await;
    assert_eq!(again.fencing_token, 3, "as it was asked");
    session.refuse(sequence, Code::FailedPrecondition, "STALE_TOKEN").await;
    let (status, lease) = answering.await.unwrap().unwrap();
    assert_eq!((status, lease.fencing_token()), (LeaseStatus::Active, 9));
    lease.check().unwrap();
}

#[tokio::test]
async fn an_acknowledgement_with_the_newest_token_that_is_stale_loses_the_lease() {
    let mut scene = Scene::new().await;
    let (mut session, lease) = held(&mut scene).await;
    push(&session, pausing(7, 3, 11)).await;
    let notice = lease.noticed().await.unwrap();
    let answering = async { lease.acknowledge(&notice).await.unwrap_err() };
    let refusing = async {
        let (sequence, _) = session.acknowledge().await;
        session.refuse(sequence, Code::FailedPrecondition, "STALE_TOKEN").await;
    };
    let (error, ()) = tokio::join!(answering, refusing);
    assert_eq!(error.kind(), ErrorKind::StaleToken);
    assert_eq!(lease.lost().await, LostReason::StaleToken);
}

#[tokio::test]
async fn a_withdrawn_notice_that_is_acknowledged_all_the_same_leaves_the_lease_usable() {
    let mut scene = Scene::new().await;
    let (mut session, lease) = held(&mut scene).await;
    push(&session, pausing(7, 3, 11)).await;
    let notice = lease.noticed().await.unwrap();
    push(&session, on_device(active(7, 3), "A")).await;
    lease.resumed().await.unwrap();
    // As where the withdrawal comes between the look at the notice and the answer to it.
    let (client, (parts, _)) = (scene.client.session_for_tests(), lease.parts());
    let answering = async { client.acknowledge(&parts, notice.id).await.unwrap() };
    let answer = async {
        let (sequence, _) = session.acknowledge().await;
        lease.check().unwrap();
        let lease = Some(on_device(active(7, 3), "A"));
        session.answer(sequence, Body::Acknowledged(v1::AcknowledgeResponse { lease })).await;
    };
    tokio::join!(answering, answer);
    assert_eq!(lease.status(), LeaseStatus::Active);
    lease.check().unwrap();
}

#[tokio::test]
async fn a_renewal_sent_before_a_notice_was_heard_does_not_withdraw_it_but_is_repeated() {
    let mut scene = Scene::new().await;
    let (mut session, lease) = held(&mut scene).await;
    let mut changes = lease.changes();
    scene.advance(seconds(10));
    let (sequence, _) = session.renewal().await;
    scene.advance(seconds(1));
    push(&session, pausing(7, 3, 11)).await;
    lease.noticed().await.unwrap();
    let still_active = || {
        let remaining = Some(prost_types::Duration { seconds: 30, nanos: 0 });
        let state = v1::LeaseState::Active as i32;
        let (lease_id, fencing_token) = (7, 3);
        Outcome::Renewed(v1::RenewResponse {
            lease_id,
            fencing_token,
            remaining,
            state,
            ..Default::default()
        })
    };
    session.renewed(sequence, vec![still_active()]).await;
    let repeated = tokio::time::timeout(seconds(10), session.renewal()).await;
    let (sequence, _) = repeated.expect("a renewal is sent at once");
    assert!(matches!(lease.status(), LeaseStatus::Pausing(_)), "that answer may be old");
    session.renewed(sequence, vec![still_active()]).await;
    settle(&scene, &mut session).await;
    assert_eq!(lease.status(), LeaseStatus::Active, "this one is not");
    assert!(matches!(changes.next().await, Some(Change::Noticed(_))));
    assert_eq!(changes.next().await, Some(Change::NoticeWithdrawn));
}

#[tokio::test]
async fn an_acknowledgement_that_came_too_late_says_that_the_lease_is_lost() {
    let mut scene = Scene::new().await;
    let (mut session, lease) = held(&mut scene).await;
    push(&session, pausing(7, 3, 11)).await;
    let notice = lease.noticed().await.unwrap();
    let answering = async { lease.acknowledge(&notice).await.unwrap_err() };
    let refusing = async {
        let (sequence, _) = session.acknowledge().await;
        session.refuse(sequence, Code::FailedPrecondition, "LEASE_ENDED").await;
    };
    let (error, ()) = tokio::join!(answering, refusing);
    assert_eq!(error.kind(), ErrorKind::LeaseEnded);
    assert!(matches!(lease.lost().await, LostReason::Ended { .. }));
}

#[tokio::test]
async fn a_lease_that_may_only_end_is_over_once_its_notice_is_acknowledged() {
    let mut scene = Scene::new().await;
    let (mut session, lease) = held(&mut scene).await;
    push(&session, pausing(7, 3, 11)).await;
    let notice = lease.noticed().await.unwrap();
    let ended = v1::Lease {
        state: v1::LeaseState::Ended as i32,
        end_reason: v1::EndReason::Revoked as i32,
        ..active(7, 3)
    };
    let answering = async { lease.acknowledge(&notice).await.unwrap() };
    let (status, ()) = tokio::join!(answering, acknowledged(&mut session, 11, ended));
    assert!(matches!(status, LeaseStatus::Ended { reason: Some(crate::EndReason::Revoked), .. }));
    drop(lease);
    settle(&scene, &mut session).await;
}

#[tokio::test]
async fn renewals_without_an_answer_make_a_lease_uncertain_and_an_answer_makes_it_certain() {
    let mut scene = Scene::new().await;
    let (mut session, lease) = held(&mut scene).await;
    let mut changes = lease.changes();
    scene.advance(seconds(10));
    let (sequence, _) = session.renewal().await;
    scene.advance(seconds(4));
    assert_eq!(lease.status(), LeaseStatus::Active);
    scene.advance(seconds(1));
    assert_eq!(lease.status(), LeaseStatus::Uncertain { remaining: seconds(15) });
    assert_eq!(changes.next().await, Some(Change::Uncertain { remaining: seconds(15) }));
    let first = lease.changes().next().await;
    assert_eq!(first, Some(Change::Uncertain { remaining: seconds(15) }), "whoever asks later");
    let remaining = Some(prost_types::Duration { seconds: 30, nanos: 0 });
    let renewed =
        v1::RenewResponse { lease_id: 7, fencing_token: 3, remaining, ..Default::default() };
    session.renewed(sequence, vec![Outcome::Renewed(renewed)]).await;
    assert_eq!(changes.next().await, Some(Change::Certain));
    assert_eq!(lease.status(), LeaseStatus::Active);
}

#[tokio::test]
async fn a_repeated_request_takes_a_paused_lease_up_again() {
    let mut scene = Scene::new().await;
    let call = acquire(&scene.client, LeaseRequest::slots(1).request_id("mine"));
    let mut session = scene.coordinator.welcome(vec![]).await;
    let (sequence, _) = session.acquire().await;
    session.grant(sequence, paused(7, 3)).await;
    let lease = call.await.unwrap().unwrap();
    assert_eq!(lease.status(), LeaseStatus::Paused);
    assert_eq!(lease.changes().next().await, Some(Change::Paused));
    push(&session, active(7, 4)).await;
    assert_eq!(lease.resumed().await.unwrap().fencing_token, 4);
}

#[tokio::test]
async fn work_travels_with_the_next_renewal_or_before_the_release_and_comes_back_when_refused() {
    let mut scene = Scene::new().await;
    let (mut session, lease) = held(&mut scene).await;
    lease.record_operation(2, seconds(1));
    lease.record_operation(3, seconds(2));
    scene.advance(seconds(10));
    let (sequence, renewals) = session.renewal().await;
    let told = |renewal: &v1::RenewRequest| {
        renewal.operations.as_ref().map(|work| (work.count, work.busy.unwrap().seconds))
    };
    assert_eq!(told(&renewals[0]), Some((5, 3)));
    let refused = Outcome::Error(refusal(Code::Unavailable, "OVERLOADED"));
    session.renewed(sequence, vec![refused]).await;
    settle(&scene, &mut session).await;
    lease.record_operation(1, seconds(1));
    drop(lease);
    let (_, renewals) = session.renewal().await;
    assert_eq!(told(&renewals[0]), Some((6, 4)));
    session.release().await;
    assert_eq!(scene.client.counters().operations, 6);
}
