//! Requests and answers over the session, its breaks, and its end.

use std::time::Duration;

use gpulease_proto::v1::{self, session_response::Body};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{
    Scene, acquire,
    coordinator::{Coordinator, active},
};
use crate::{Client, ErrorKind, LeaseFilter, LeaseRequest, LeaseState, LostReason};

fn request(request_id: &str) -> LeaseRequest {
    LeaseRequest::memory(1 << 30).request_id(request_id)
}

fn replaced() -> Status {
    let details = ErrorDetails::with_error_info("SESSION_REPLACED", "gpulease", []);
    Status::with_error_details(Code::Aborted, "a newer session took over", details)
}

#[tokio::test]
async fn answers_find_their_callers_whatever_their_order() {
    let mut scene = Scene::new().await;
    let calls = ["a", "b", "c"].map(|id| acquire(&scene.client, request(id)));
    let mut session = scene.coordinator.welcome(vec![]).await;
    let mut asked = vec![];
    for _ in 0..3 {
        let (sequence, acquire) = session.acquire().await;
        asked.push((sequence, acquire.request_id));
    }
    for (token, (sequence, request_id)) in (1..).zip(asked.into_iter().rev()) {
        session.grant(sequence, v1::Lease { request_id, ..active(token, token) }).await;
    }
    for (call, id) in calls.into_iter().zip(["a", "b", "c"]) {
        assert_eq!(call.await.unwrap().unwrap().info().request_id, id);
    }
}

#[tokio::test]
async fn a_waiting_caller_hears_that_it_waits_and_then_that_it_holds() {
    let mut scene = Scene::new().await;
    let client = scene.client.clone();
    let call = tokio::spawn(async move {
        let mut positions = vec![];
        let lease = client.acquire_with(request("a"), |info| positions.push(info.queue_position));
        (lease.await.unwrap(), positions)
    });
    let mut session = scene.coordinator.welcome(vec![]).await;
    let (sequence, _) = session.acquire().await;
    for queue_position in [2, 1] {
        let state = v1::LeaseState::Queued as i32;
        let lease = v1::Lease { id: 7, state, queue_position, ..v1::Lease::default() };
        session.queue(sequence, lease).await;
    }
    session.grant(sequence, active(7, 1)).await;
    let (lease, positions) = call.await.unwrap();
    assert_eq!(positions, [2, 1]);
    assert_eq!((lease.id(), lease.info().state), (7, LeaseState::Active));
}

#[tokio::test]
async fn after_a_break_a_waiting_request_is_sent_again_under_its_id() {
    let mut scene = Scene::new().await;
    let call = acquire(&scene.client, LeaseRequest::slots(2));
    let mut session = scene.coordinator.welcome(vec![]).await;
    assert_eq!(
        (session.hello.service.as_str(), session.hello.holder.as_str()),
        ("tests", "holder-1")
    );
    assert_eq!(session.hello.revision_seen, 0);
    let (sequence, first) = session.acquire().await;
    let queued = v1::SessionQueued { lease: Some(v1::Lease { id: 7, ..v1::Lease::default() }) };
    session.answer_at(sequence, 41, Body::Queued(queued)).await;
    scene.advance(Duration::from_secs(5));
    session.fail(Status::unavailable("the coordinator went away")).await;

    let mut session = scene.coordinator.welcome(vec![]).await;
    assert_eq!(session.hello.revision_seen, 41, "the hello says what was seen");
    let (sequence, mut again) = session.acquire().await;
    let seconds = |wait: Option<prost_types::Duration>| wait.unwrap().seconds;
    assert_eq!((seconds(first.wait), seconds(again.wait)), (15, 10), "what is left of the wait");
    again.wait = first.wait;
    assert_eq!(again, first, "the same request but for its wait");
    session.grant(sequence, active(7, 3)).await;
    assert_eq!(call.await.unwrap().unwrap().fencing_token(), 3);
}

#[tokio::test]
async fn after_a_break_what_is_held_is_renewed_first_and_releases_are_sent_again() {
    let mut scene = Scene::new().await;
    let calls = ["a", "b"].map(|id| acquire(&scene.client, request(id)));
    let mut session = scene.coordinator.welcome(vec![]).await;
    for id in [1, 2] {
        let (sequence, _) = session.acquire().await;
        session.grant(sequence, active(id, id)).await;
    }
    let mut leases = vec![];
    for call in calls {
        leases.push(call.await.unwrap().unwrap());
    }
    let (first, second) = (leases.remove(0), leases.remove(0));
    let first_id = first.id();
    let release = tokio::spawn(first.release());
    assert_eq!(session.release().await.1.lease_id, first_id);
    drop(session);

    let mut session = scene.coordinator.welcome(vec![]).await;
    let (_, renewals) = session.renewal().await;
    assert_eq!(renewals.len(), 1, "the released one is not renewed");
    assert_eq!(renewals[0].lease_id, second.id());
    let (sequence, again) = session.release().await;
    assert_eq!((again.lease_id, again.fencing_token), (first_id, Some(first_id)));
    let ended = v1::Lease { state: v1::LeaseState::Ended as i32, ..active(first_id, first_id) };
    session.answer(sequence, Body::Released(v1::ReleaseResponse { lease: Some(ended) })).await;
    assert_eq!(release.await.unwrap().unwrap().state, LeaseState::Ended);
}

#[tokio::test]
async fn a_replaced_session_loses_its_leases_fails_its_requests_and_never_comes_back() {
    let mut scene = Scene::new().await;
    let held = acquire(&scene.client, request("held"));
    let mut session = scene.coordinator.welcome(vec![]).await;
    let (sequence, _) = session.acquire().await;
    session.grant(sequence, active(1, 1)).await;
    let lease = held.await.unwrap().unwrap();
    let waiting = acquire(&scene.client, request("waiting"));
    session.acquire().await;
    session.fail(replaced()).await;

    assert_eq!(lease.lost().await, LostReason::SessionReplaced);
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.request_id()), (ErrorKind::SessionReplaced, Some("waiting")));
    let error = scene.client.acquire(request("later")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SessionReplaced);
    assert_eq!(lease.check().unwrap_err().kind(), ErrorKind::LeaseLost);
    let error = lease.release().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SessionReplaced);
    assert!(!scene.coordinator.has_another_session());
}

#[tokio::test]
async fn dropping_a_queued_acquire_releases_its_place() {
    let mut scene = Scene::new().await;
    let call = acquire(&scene.client, request("a"));
    let mut session = scene.coordinator.welcome(vec![]).await;
    let (sequence, _) = session.acquire().await;
    session.queue(sequence, v1::Lease { id: 7, ..v1::Lease::default() }).await;
    // A second request is answered only once the client has read that the first one waits.
    let other = acquire(&scene.client, request("b"));
    let (other_sequence, _) = session.acquire().await;
    session.refuse(other_sequence, Code::ResourceExhausted, "NO_CAPACITY").await;
    other.await.unwrap().unwrap_err();
    call.abort();
    let (_, release) = session.release().await;
    assert_eq!((release.lease_id, release.fencing_token), (7, None));
}

#[tokio::test]
async fn a_grant_that_comes_after_its_caller_left_is_released() {
    let mut scene = Scene::new().await;
    let call = acquire(&scene.client, request("a"));
    let mut session = scene.coordinator.welcome(vec![]).await;
    let (sequence, _) = session.acquire().await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    session.grant(sequence, active(7, 9)).await;
    let (_, release) = session.release().await;
    assert_eq!((release.lease_id, release.fencing_token), (7, Some(9)));
}

#[tokio::test]
async fn a_grant_of_a_left_caller_that_a_new_session_shows_is_released_there() {
    let mut scene = Scene::new().await;
    let call = acquire(&scene.client, request("a"));
    let mut session = scene.coordinator.welcome(vec![]).await;
    session.acquire().await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    drop(session);
    let granted = v1::Lease { request_id: "a".to_owned(), ..active(7, 9) };
    let mut session = scene.coordinator.welcome(vec![active(6, 8), granted]).await;
    let (_, release) = session.release().await;
    assert_eq!((release.lease_id, release.fencing_token), (7, Some(9)));
}

#[tokio::test]
async fn a_refusal_that_may_pass_is_repeated_under_the_same_id() {
    let mut scene = Scene::new().await;
    let call = acquire(&scene.client, LeaseRequest::exclusive());
    let mut session = scene.coordinator.welcome(vec![]).await;
    let (sequence, first) = session.acquire().await;
    session.refuse(sequence, Code::Unavailable, "OVERLOADED").await;
    let (sequence, again) = session.acquire().await;
    assert_eq!(again, first);
    session.grant(sequence, active(1, 1)).await;
    drop(call.await.unwrap().unwrap());
}

#[tokio::test]
async fn no_capacity_is_an_answer() {
    let mut scene = Scene::new().await;
    let call = acquire(&scene.client, request("a").wait(Duration::ZERO));
    let mut session = scene.coordinator.welcome(vec![]).await;
    let (sequence, asked) = session.acquire().await;
    assert_eq!(asked.wait, Some(prost_types::Duration::default()));
    session.refuse(sequence, Code::ResourceExhausted, "NO_CAPACITY").await;
    let error = call.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::NoCapacity, "NO_CAPACITY"));
    assert_eq!(error.request_id(), Some("a"));
}

#[tokio::test]
async fn a_hello_that_is_refused_for_good_fails_the_request_at_once() {
    let mut scene = Scene::new().await;
    let call = acquire(&scene.client, request("a"));
    let session = scene.coordinator.session().await;
    session.fail(Status::permission_denied("who are you")).await;
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
}

#[tokio::test]
async fn the_stream_ends_when_the_last_handle_is_gone_and_all_is_answered() {
    let mut scene = Scene::new().await;
    let call = acquire(&scene.client, request("a"));
    let mut session = scene.coordinator.welcome(vec![]).await;
    let (sequence, _) = session.acquire().await;
    session.grant(sequence, active(1, 5)).await;
    let lease = call.await.unwrap().unwrap();
    drop(scene.client);
    drop(lease);
    let (sequence, release) = session.release().await;
    assert_eq!(release.fencing_token, Some(5));
    session.answer(sequence, Body::Released(v1::ReleaseResponse::default())).await;
    assert!(session.is_over().await);
}

#[tokio::test]
async fn nobody_at_the_endpoint_is_said_when_connecting() {
    let coordinator = Coordinator::start();
    let endpoint = coordinator.endpoint();
    coordinator.kill();
    let deadline = Duration::from_secs(5);
    // The port is closed once the killed server is dropped, which takes a moment: until then it answers.
    let error = loop {
        let client = Client::builder().endpoint(&endpoint).connect_timeout(deadline).connect();
        match client.await {
            Err(error) => break error,
            Ok(_) => tokio::task::yield_now().await,
        }
    };
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Unavailable, "UNREACHABLE"));
    assert!(error.message().contains(&endpoint), "{error}");
}

#[tokio::test]
async fn a_list_has_every_page_and_the_revision_of_the_first() {
    let scene = Scene::new().await;
    let leases = scene.client.leases(LeaseFilter::default()).await.unwrap();
    let ids: Vec<u64> = leases.items.iter().map(|lease| lease.id).collect();
    assert_eq!((ids, leases.revision), (vec![1, 2, 3], 101));
    let error = scene.client.lease(9).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_unix_socket_is_an_endpoint_and_a_client_outlives_its_coordinator() {
    let path = std::env::temp_dir().join(format!("gpulease-{}.sock", uuid::Uuid::now_v7()));
    let endpoint = format!("unix://{}", path.display());
    let (coordinator, client) = {
        let coordinator = Coordinator::start_on_socket(&path);
        (coordinator, Client::connect(&endpoint).await.unwrap())
    };
    let call = acquire(&client, LeaseRequest::slots(1));
    coordinator.kill();
    std::fs::remove_file(&path).unwrap();
    let mut coordinator = Coordinator::start_on_socket(&path);
    let mut session = coordinator.welcome(vec![]).await;
    let (sequence, _) = session.acquire().await;
    session.grant(sequence, active(1, 1)).await;
    assert_eq!(call.await.unwrap().unwrap().id(), 1);
    std::fs::remove_file(&path).unwrap();
}
