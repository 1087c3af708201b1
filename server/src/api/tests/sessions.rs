//! Sessions (P22).

use gpulease_core::policy::Policy;
use gpulease_proto::v1::{
    self, session_renewal_outcome::Outcome, session_request::Body as Ask,
    session_response::Body as Say,
};
use tonic::Code;

use super::harness::{Coordinator, check, hello, observe, policy, release, request, waiting};
use crate::actor::OUTBOX_MESSAGES_MAX;
use crate::api::limits::{IN_FLIGHT_MAX, MESSAGE_BYTES_MAX};
use crate::journal::memory::Disk;

#[tokio::test]
async fn many_in_flight_are_answered_each_under_its_own_number() {
    let coordinator = Coordinator::start().await;
    let mut session = coordinator.session("training", "worker-1").await;
    for number in 0..40_u64 {
        session.send(1_000 + number, Ask::Acquire(request(&format!("job-{number}"), 1)));
    }
    let mut leases = Vec::new();
    for number in 0..40 {
        let said = session.next().await;
        assert_eq!(said.sequence, 1_000 + number, "in the order they were asked");
        let Some(Say::Granted(granted)) = said.body else { panic!("{said:?}") };
        let lease = granted.lease.unwrap();
        assert_eq!(lease.request_id, format!("job-{number}"));
        leases.push(lease);
    }
    leases.iter().for_each(|lease| session.send(lease.id, release(lease)));
    for lease in &leases {
        let said = session.next().await;
        assert_eq!(said.sequence, lease.id);
        assert!(matches!(said.body, Some(Say::Released(_))), "{said:?}");
    }
}

#[tokio::test]
async fn the_order_of_a_sessions_messages_is_kept() {
    let coordinator = Coordinator::start().await;
    let mut session = coordinator.session("training", "worker-1").await;
    session.send(2, Ask::Acquire(request("first", 24)));
    let first = session.granted().await;
    session.send(3, Ask::Acquire(request("second", 24)));
    let second = session.granted().await;
    session.send(4, Ask::Acquire(request("too-early", 24)));
    session.send(5, release(&first));
    session.send(6, Ask::Acquire(request("in-time", 24)));
    session.send(7, release(&second));
    let mut said = Vec::new();
    for _ in 0..4 {
        let response = session.next().await;
        said.push((response.sequence, matches!(response.body, Some(Say::Error(_)))));
    }
    said.sort_unstable();
    assert_eq!(said, [(4, true), (5, false), (6, false), (7, false)]);
}

#[tokio::test]
async fn a_request_that_waits_is_told_so_and_then_granted() {
    let coordinator = Coordinator::start().await;
    let mut session = coordinator.session("training", "worker-1").await;
    let whole = v1::Ask { devices: Some(2), exclusive: true, ..v1::Ask::default() };
    session.send(2, Ask::Acquire(v1::AcquireRequest { ask: Some(whole), ..request("all", 1) }));
    let all = session.granted().await;
    assert_eq!(all.devices.len(), 2);
    session.send(3, Ask::Acquire(waiting("later", 1, 600)));
    let said = session.next().await;
    let Some(Say::Queued(queued)) = said.body else { panic!("{said:?}") };
    let queued = queued.lease.unwrap();
    assert_eq!((said.sequence, queued.state()), (3, v1::LeaseState::Queued));
    assert!(queued.remaining.is_some_and(|left| left.seconds >= 590));
    session.send(4, release(&all));
    let mut said = [session.next().await, session.next().await];
    said.sort_by_key(|said| said.sequence);
    assert!(matches!(&said[0].body, Some(Say::Granted(_))), "{said:?}");
    assert!(matches!(&said[1].body, Some(Say::Released(_))), "{said:?}");
}

#[tokio::test]
async fn renewals_of_a_batch_fail_one_by_one() {
    let coordinator = Coordinator::start().await;
    let mut session = coordinator.session("training", "worker-1").await;
    session.send(2, Ask::Acquire(request("job", 1)));
    let lease = session.granted().await;
    let renewal = |lease_id, fencing_token| v1::RenewRequest {
        lease_id,
        fencing_token,
        ..v1::RenewRequest::default()
    };
    let leases = vec![
        renewal(lease.id, lease.fencing_token),
        renewal(lease.id, lease.fencing_token + 7),
        renewal(lease.id + 100, 1),
        renewal(lease.id, lease.fencing_token),
    ];
    session.send(3, Ask::Renew(v1::SessionRenewal { leases }));
    let said = session.next().await;
    let Some(Say::Renewed(renewed)) = said.body else { panic!("{said:?}") };
    let told = renewed.outcomes.iter().map(|outcome| match &outcome.outcome {
        Some(Outcome::Renewed(renewed)) => {
            assert!(renewed.remaining.is_some_and(|left| left.seconds >= 29));
            format!("renewed {}", renewed.lease_id == lease.id)
        }
        Some(Outcome::Error(error)) => error.reason.clone(),
        None => "nothing".to_owned(),
    });
    let told: Vec<_> = told.collect();
    assert_eq!(told, ["renewed true", "STALE_TOKEN", "LEASE_NOT_FOUND", "renewed true"]);

    session.send(4, Ask::Renew(v1::SessionRenewal { leases: Vec::new() }));
    assert_eq!(session.error().await.field, "renew.leases");
    session.send(5, Ask::Renew(v1::SessionRenewal { leases: vec![renewal(1, 1); 1_001] }));
    let error = session.error().await;
    assert!(
        error.message.contains("1001 entries") && error.message.contains("1 to 1000"),
        "{error:?}"
    );
}

#[tokio::test]
async fn without_a_hello_first_there_is_no_session() {
    let coordinator = Coordinator::start().await;
    let mut early = coordinator.stream().await;
    early.send(1, Ask::Acquire(request("job", 1)));
    let status = early.end().await.unwrap_err();
    check(&status, Code::InvalidArgument, "NO_HELLO", "hello");

    let mut nameless = coordinator.stream().await;
    nameless.send(1, hello("training", ""));
    let status = nameless.end().await.unwrap_err();
    check(&status, Code::InvalidArgument, "INVALID_FIELD", "hello.holder");

    let mut endless = coordinator.stream().await;
    endless.send(1, hello(&"x".repeat(1 << 20), "worker-1"));
    let status = endless.end().await.unwrap_err();
    check(&status, Code::InvalidArgument, "INVALID_FIELD", "hello.service");
    assert!(status.message().contains("1048576 bytes long"), "{status:?}");
}

#[tokio::test]
async fn a_message_that_says_nothing_or_hello_again_is_refused_and_the_session_goes_on() {
    let coordinator = Coordinator::start().await;
    let mut session = coordinator.session("training", "worker-1").await;
    session.send_nothing(2);
    assert_eq!(session.error().await.field, "body");
    session.send(3, hello("training", "worker-1"));
    assert_eq!(session.error().await.field, "hello");
    session.send(4, Ask::Acquire(v1::AcquireRequest { priority: 99, ..request("job", 1) }));
    let error = session.error().await;
    assert_eq!((error.code, error.reason.as_str()), (3, "INVALID_FIELD"));
    assert!(error.message.contains("priority is 99"), "{}", error.message);
    session.send(5, Ask::Acquire(request("job", 1)));
    session.granted().await;
}

#[tokio::test]
async fn a_newer_session_of_the_holder_replaces_the_older_and_is_told_its_leases() {
    let coordinator = Coordinator::start().await;
    let mut older = coordinator.session("training", "worker-1").await;
    older.send(2, Ask::Acquire(request("job", 1)));
    let lease = older.granted().await;
    let mut newer = coordinator.stream().await;
    newer.send(9, hello("training", "worker-1"));
    let said = newer.next().await;
    let Some(Say::Welcome(welcome)) = said.body else { panic!("{said:?}") };
    assert_eq!((said.sequence, welcome.leases.len()), (9, 1));
    assert_eq!(welcome.leases[0].id, lease.id);
    assert_eq!(welcome.session_grace.map(|grace| grace.seconds), Some(10));
    let status = older.end().await.unwrap_err();
    check(&status, Code::Aborted, "SESSION_REPLACED", "");
}

#[tokio::test]
async fn over_the_bound_in_flight_a_message_is_refused_and_the_others_are_served() {
    let coordinator = Coordinator::start().await;
    let mut session = coordinator.session("training", "worker-1").await;
    let whole = v1::Ask { devices: Some(2), exclusive: true, ..v1::Ask::default() };
    session.send(2, Ask::Acquire(v1::AcquireRequest { ask: Some(whole), ..request("all", 1) }));
    session.granted().await;
    for number in 0..=IN_FLIGHT_MAX as u64 {
        session.send(100 + number, Ask::Acquire(waiting(&format!("job-{number}"), 1, 600)));
    }
    let (mut queued, mut refused) = (0, Vec::new());
    while queued + refused.len() <= IN_FLIGHT_MAX {
        let said = session.next().await;
        match said.body {
            Some(Say::Queued(_)) => queued += 1,
            Some(Say::Error(error)) => refused.push((said.sequence, error.reason)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(refused, [(100 + IN_FLIGHT_MAX as u64, "TOO_MANY_IN_FLIGHT".to_owned())]);
}

#[tokio::test]
async fn a_message_over_the_bound_ends_the_session_with_its_reason() {
    let coordinator = Coordinator::start().await;
    let mut session = coordinator.session("training", "worker-1").await;
    session.send(2, Ask::Acquire(request(&"x".repeat(MESSAGE_BYTES_MAX), 1)));
    let status = session.end().await.unwrap_err();
    check(&status, Code::ResourceExhausted, "MESSAGE_TOO_LARGE", "");
}

#[tokio::test]
async fn a_half_closed_session_is_answered_to_the_end() {
    let coordinator = Coordinator::start().await;
    let session = coordinator.session("training", "worker-1").await;
    session.send(2, Ask::Acquire(request("job", 1)));
    let mut inbound = session.close();
    let said = inbound.message().await.unwrap().unwrap();
    assert!(matches!(said.body, Some(Say::Granted(_))), "{said:?}");
    assert!(inbound.message().await.unwrap().is_none(), "then it ends with OK");
}

#[tokio::test]
async fn a_graceful_stop_says_goodbye_with_the_revision_to_resume_from() {
    let coordinator = Coordinator::start().await;
    let mut session = coordinator.session("training", "worker-1").await;
    session.send(2, Ask::Acquire(request("job", 1)));
    session.granted().await;
    coordinator.handle.stop();
    let said = session.next().await;
    let Some(Say::Goodbye(goodbye)) = said.body else { panic!("{said:?}") };
    assert!(goodbye.revision >= 1);
    session.end().await.unwrap();
    let status = coordinator.leases().acquire(request("late", 1)).await.unwrap_err();
    assert_ne!(status.code(), Code::Ok);
    drop(session);
    coordinator.stop().await;
}

#[tokio::test]
async fn a_session_that_never_reads_costs_nobody_else_anything() {
    let coordinator = Coordinator::start().await;
    let deaf = coordinator.session("training", "deaf").await;
    for number in 0..20_000_u64 {
        deaf.send(number, Ask::Acquire(v1::AcquireRequest { priority: 99, ..request("job", 1) }));
    }
    let mut other = coordinator.session("training", "worker-1").await;
    for number in 0..50 {
        other.send(number, Ask::Acquire(request(&format!("job-{number}"), 1)));
        let lease = match other.next().await.body {
            Some(Say::Granted(granted)) => granted.lease.unwrap(),
            said => panic!("{said:?}"),
        };
        other.send(number, release(&lease));
        assert!(matches!(other.next().await.body, Some(Say::Released(_))));
    }
}

#[tokio::test]
async fn a_session_with_more_to_read_than_may_wait_ends_and_can_be_opened_again() {
    // The loss in one batch: of several the session takes one out of the outbox before the next is there.
    let policy = Policy { batch_events_max: 1 << 20, ..policy() };
    let coordinator = Coordinator::start_with(Disk::new(), policy, None).await;
    let mut session = coordinator.session("training", "worker-1").await;
    // All on the first device, by best fit: 24 GiB hold 24,576 of them.
    let small = |id: &str| {
        let ask = v1::Ask { memory_bytes: Some(1 << 20), ..v1::Ask::default() };
        Ask::Acquire(v1::AcquireRequest { ask: Some(ask), ..request(id, 1) })
    };
    let count = OUTBOX_MESSAGES_MAX + 1;
    for burst in 0..count.div_ceil(1_000) {
        let ids = burst * 1_000..count.min((burst + 1) * 1_000);
        ids.clone().for_each(|id| session.send(0, small(&id.to_string())));
        for _ in ids {
            session.granted().await;
        }
    }
    observe(&coordinator.handle, Some("fell off the bus"));
    let status = session.end().await.unwrap_err();
    check(&status, Code::ResourceExhausted, "SLOW_READER", "");
    let mut again = coordinator.stream().await;
    again.send(1, hello("training", "worker-1"));
    let said = again.next().await;
    let Some(Say::Welcome(welcome)) = said.body else { panic!("no welcome") };
    assert!(!welcome.leases.is_empty() && welcome.leases.len() <= 10_000);
}
