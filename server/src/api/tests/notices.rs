//! Notices, answers, pauses and resumes, over a session and over unary calls (P14, P15, P17).

use gpulease_proto::v1::{
    self, LeaseState as State, session_renewal_outcome::Outcome, session_request::Body as Ask,
    session_response::Body as Say,
};
use tonic::Code;

use super::harness::{
    Coordinator, Session, acknowledge, check, device, of, pausable, renew, request, urgent,
};

const FIRST: &str = "SIM-node-0-0";

/// What a session says to its own renewal.
async fn renewed(
    session: &mut Session,
    wire: v1::RenewRequest,
) -> Result<v1::RenewResponse, String> {
    session.send(77, Ask::Renew(v1::SessionRenewal { leases: vec![wire] }));
    let said = session.next().await;
    let Some(Say::Renewed(mut renewed)) = said.body else { panic!("{said:?}") };
    match renewed.outcomes.remove(0).outcome {
        Some(Outcome::Renewed(renewed)) => Ok(renewed),
        Some(Outcome::Error(error)) => Err(error.reason),
        None => panic!("no outcome"),
    }
}

fn seconds(duration: Option<&prost_types::Duration>) -> i64 {
    duration.map_or(0, |duration| duration.seconds)
}

#[tokio::test]
async fn a_notice_is_told_on_the_session_answered_and_the_lease_resumed_with_a_new_token() {
    let coordinator = Coordinator::start().await;
    let mut session = coordinator.session("training", "worker-1").await;
    session.send(2, Ask::Acquire(pausable("job", 24)));
    let lease = session.granted().await;
    assert_eq!((lease.state(), lease.preemptible()), (State::Active, v1::Preemptible::Pause));
    let urgent = coordinator.wait(urgent("now", 24));

    let pausing = session.changed().await;
    assert_eq!((pausing.id, pausing.state()), (lease.id, State::Pausing));
    assert_eq!((pausing.fencing_token, &pausing.devices), (lease.fencing_token, &lease.devices));
    let notice = pausing.notice.clone().unwrap();
    assert_eq!(notice.causes.len(), 1);
    assert_eq!(notice.causes[0].kind(), v1::NoticeCauseKind::Preemption);
    assert!(notice.causes[0].lease_id > lease.id);
    assert!((28..=30).contains(&seconds(notice.remaining.as_ref())), "{notice:?}");
    assert!((28..=30).contains(&seconds(notice.extension_max.as_ref())), "{notice:?}");
    assert!(notice.deadline_time.is_some());

    session.send(3, Ask::Acknowledge(acknowledge(&pausing)));
    let said = session.next().await;
    let Some(Say::Acknowledged(answered)) = said.body else { panic!("{said:?}") };
    let paused = answered.lease.unwrap();
    assert_eq!((said.sequence, paused.state()), (3, State::Paused));
    assert!(paused.devices.is_empty() && paused.notice.is_none() && paused.pause_took.is_some());
    assert_eq!(paused.preemptions, 1);
    assert!(paused.remaining.is_some(), "a paused lease is renewed like an active one");
    let urgent = urgent.await.unwrap();
    assert_eq!(urgent.state(), State::Active);

    let release = v1::ReleaseRequest {
        lease_id: urgent.id,
        fencing_token: Some(urgent.fencing_token),
        ..v1::ReleaseRequest::default()
    };
    coordinator.leases().release(release).await.unwrap();
    let resumed = session.changed().await;
    assert_eq!((resumed.id, resumed.state()), (lease.id, State::Active));
    assert!(resumed.fencing_token > urgent.fencing_token);
    assert_eq!(resumed.devices, lease.devices);
}

#[tokio::test]
async fn every_renewal_tells_the_notice_on_a_session_and_by_unary_calls() {
    let coordinator = Coordinator::start().await;
    let mut session = coordinator.session("training", "worker-1").await;
    session.send(2, Ask::Acquire(pausable("told", 8)));
    let told = session.granted().await;
    let other = coordinator.grant(of("training", "unary", pausable("unary", 8))).await;
    for wire in [renew(&told), renew(&other)] {
        let renewed = coordinator.leases().renew(wire).await.unwrap().into_inner();
        assert_eq!((renewed.state(), renewed.notice), (State::Active, None));
    }
    let drain = v1::DrainRequest { target: device(FIRST), reason: "fan".to_owned() };
    coordinator.admin().drain(drain).await.unwrap();
    let notice = session.changed().await.notice.unwrap();
    assert_eq!(notice.causes[0].kind(), v1::NoticeCauseKind::Drain);
    assert_eq!(notice.causes[0].device_uuid, FIRST);
    assert_eq!(notice.causes[0].node, "node-0");
    for _ in 0..3 {
        let by_session = renewed(&mut session, renew(&told)).await.unwrap();
        assert_eq!(by_session.state(), State::Pausing);
        assert_eq!(by_session.notice.unwrap().id, notice.id);
        let by_call = coordinator.leases().renew(renew(&other)).await.unwrap().into_inner();
        assert_eq!(by_call.state(), State::Pausing);
        let notice = by_call.notice.unwrap();
        assert!(seconds(notice.remaining.as_ref()) <= 30 && notice.deadline_time.is_some());
        assert_eq!(notice.causes[0].device_uuid, FIRST);
    }
}

#[tokio::test]
async fn after_a_resume_the_token_before_serves_until_the_new_one_is_used() {
    let coordinator = Coordinator::start().await;
    let lease = coordinator.grant(of("training", "unary", pausable("job", 24))).await;
    // Spoken for by unary calls, so that renewals show that its holder is there.
    coordinator.leases().renew(renew(&lease)).await.unwrap();
    let urgent = coordinator.wait(urgent("now", 24));
    let pausing = coordinator.lease_when(lease.id, |it| it.state() == State::Pausing).await;
    let answered = coordinator.leases().acknowledge(acknowledge(&pausing)).await.unwrap();
    assert_eq!(answered.into_inner().lease.unwrap().state(), State::Paused);
    let urgent = urgent.await.unwrap();
    let release = v1::ReleaseRequest {
        lease_id: urgent.id,
        fencing_token: Some(urgent.fencing_token),
        ..v1::ReleaseRequest::default()
    };
    coordinator.leases().release(release).await.unwrap();

    let resumed = coordinator.leases().renew(renew(&lease)).await.unwrap().into_inner();
    assert_eq!(resumed.state(), State::Active);
    assert!(resumed.fencing_token > lease.fencing_token, "the reply carries the new token");
    let told = resumed.resumed.expect("and the lease as it is");
    assert_eq!((told.id, told.fencing_token), (lease.id, resumed.fencing_token));
    assert_eq!(told.devices, lease.devices);
    let again = coordinator.leases().renew(renew(&lease)).await.unwrap().into_inner();
    assert!(again.resumed.is_some(), "the first reply may have been lost");

    let newest = coordinator.leases().renew(renew(&told)).await.unwrap().into_inner();
    assert_eq!((newest.fencing_token, newest.resumed), (told.fencing_token, None));
    let status = coordinator.leases().renew(renew(&lease)).await.unwrap_err();
    check(&status, Code::FailedPrecondition, "STALE_TOKEN", "");
}

#[tokio::test]
async fn an_answer_may_be_repeated_and_one_to_another_notice_changes_nothing() {
    let coordinator = Coordinator::start().await;
    let mut leases = coordinator.leases();
    let lease = coordinator.grant(of("training", "unary", pausable("job", 24))).await;
    let ending = v1::AcquireRequest {
        preemptible: v1::Preemptible::End.into(),
        ..of("training", "unary", request("ends", 24))
    };
    let ending = coordinator.grant(ending).await;
    let drain = |uuid: &str| v1::DrainRequest { target: device(uuid), reason: String::new() };
    coordinator.admin().drain(drain(FIRST)).await.unwrap();
    coordinator.admin().drain(drain("SIM-node-0-1")).await.unwrap();

    let pausing = coordinator.lease(lease.id).await;
    let other = v1::AcknowledgeRequest { notice_id: 999, ..acknowledge(&pausing) };
    let unmoved = leases.acknowledge(other).await.unwrap().into_inner().lease.unwrap();
    assert_eq!((unmoved.state(), unmoved.notice.unwrap().id), (State::Pausing, 1));
    for _ in 0..2 {
        let answered = leases.acknowledge(acknowledge(&pausing)).await.unwrap().into_inner();
        assert_eq!(answered.lease.unwrap().state(), State::Paused);
    }
    let pausing = coordinator.lease(ending.id).await;
    for _ in 0..2 {
        let ended = leases.acknowledge(acknowledge(&pausing)).await.unwrap().into_inner();
        let ended = ended.lease.unwrap();
        assert_eq!((ended.state(), ended.end_reason()), (State::Ended, v1::EndReason::Revoked));
    }
    let wrong = v1::AcknowledgeRequest { fencing_token: 99, ..acknowledge(&pausing) };
    check(
        &leases.acknowledge(wrong).await.unwrap_err(),
        Code::FailedPrecondition,
        "STALE_TOKEN",
        "",
    );
    let stranger = v1::AcknowledgeRequest {
        service: "training".to_owned(),
        holder: "stranger".to_owned(),
        ..acknowledge(&pausing)
    };
    let status = leases.acknowledge(stranger).await.unwrap_err();
    check(&status, Code::PermissionDenied, "NOT_THE_HOLDER", "");
    let unknown = v1::AcknowledgeRequest { lease_id: 999, ..acknowledge(&pausing) };
    check(&leases.acknowledge(unknown).await.unwrap_err(), Code::NotFound, "LEASE_NOT_FOUND", "");
}

#[tokio::test]
async fn a_notice_is_extended_once_and_the_bounds_are_told() {
    let coordinator = Coordinator::start().await;
    let mut session = coordinator.session("training", "worker-1").await;
    session.send(2, Ask::Acquire(pausable("job", 8)));
    let lease = session.granted().await;
    let unnoticed = extend(&lease, 1, 10);
    session.send(3, Ask::ExtendNotice(unnoticed.clone()));
    assert_eq!(session.error().await.reason, "NOTICE_OVER");
    let status = coordinator.leases().extend_notice(unnoticed).await.unwrap_err();
    check(&status, Code::FailedPrecondition, "NOTICE_OVER", "");
    let drain = v1::DrainRequest { target: device(FIRST), reason: String::new() };
    coordinator.admin().drain(drain).await.unwrap();
    let notice = session.changed().await.notice.unwrap();

    session.send(4, Ask::ExtendNotice(extend(&lease, notice.id, 0)));
    assert_eq!(session.error().await.field, "extension");
    session.send(5, Ask::ExtendNotice(extend(&lease, notice.id, 20)));
    let said = session.next().await;
    let Some(Say::NoticeExtended(extended)) = said.body else { panic!("{said:?}") };
    let longer = extended.lease.unwrap().notice.unwrap();
    assert_eq!((said.sequence, longer.id), (5, notice.id));
    assert!((48..=50).contains(&seconds(longer.remaining.as_ref())), "{longer:?}");
    assert_eq!(longer.extension_max, None);
    session.send(6, Ask::ExtendNotice(extend(&lease, notice.id, 20)));
    let error = session.error().await;
    assert_eq!(
        (error.reason.as_str(), error.metadata["notice_max"].as_str()),
        ("NOTICE_AT_BOUND", "120s")
    );
    let status =
        coordinator.leases().extend_notice(extend(&lease, notice.id, 20)).await.unwrap_err();
    check(&status, Code::FailedPrecondition, "NOTICE_AT_BOUND", "");
}

fn extend(lease: &v1::Lease, notice_id: u64, secs: i64) -> v1::ExtendNoticeRequest {
    v1::ExtendNoticeRequest {
        lease_id: lease.id,
        fencing_token: lease.fencing_token,
        notice_id,
        extension: Some(prost_types::Duration { seconds: secs, nanos: 0 }),
        ..v1::ExtendNoticeRequest::default()
    }
}

#[tokio::test]
async fn a_welcome_tells_the_notice_that_stands_and_what_was_resumed() {
    let coordinator = Coordinator::start().await;
    let lease = coordinator.grant(of("training", "worker-1", pausable("job", 8))).await;
    let drain = v1::DrainRequest { target: device(FIRST), reason: String::new() };
    coordinator.admin().drain(drain).await.unwrap();
    let mut session = coordinator.stream().await;
    session.send(1, super::harness::hello("training", "worker-1"));
    let said = session.next().await;
    let Some(Say::Welcome(welcome)) = said.body else { panic!("{said:?}") };
    let [pausing] = &welcome.leases[..] else { panic!("{welcome:?}") };
    assert_eq!((pausing.id, pausing.state()), (lease.id, State::Pausing));
    session.send(2, Ask::Acknowledge(acknowledge(pausing)));
    let said = session.next().await;
    assert!(matches!(said.body, Some(Say::Acknowledged(_))), "{said:?}");
    let uncordon = v1::UncordonRequest { target: device(FIRST) };
    coordinator.admin().uncordon(uncordon).await.unwrap();
    let resumed = session.changed().await;
    assert_eq!(resumed.state(), State::Active);
    assert!(resumed.fencing_token > lease.fencing_token);
}
