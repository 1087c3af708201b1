//! Unary calls, lists and figures.

use gpulease_core::id::LeaseId;
use gpulease_proto::v1;
use tonic::Code;

use super::harness::{Coordinator, GIB, check, of, request, waiting};
use crate::telemetry::hub::Sample;

#[tokio::test]
async fn a_lease_is_granted_renewed_shown_and_released() {
    let coordinator = Coordinator::start().await;
    let lease = coordinator.acquire("job", 8).await;
    assert_eq!((lease.state(), lease.devices.len()), (v1::LeaseState::Active, 1));
    assert_eq!(lease.devices[0].memory_bytes, 8 * GIB);
    let again = coordinator.acquire("job", 8).await;
    assert_eq!(again.id, lease.id, "repeating a request id is safe (P16)");
    let renew = v1::RenewRequest {
        lease_id: lease.id,
        fencing_token: lease.fencing_token,
        ..v1::RenewRequest::default()
    };
    let renewed = coordinator.leases().renew(renew.clone()).await.unwrap().into_inner();
    assert!(renewed.remaining.is_some_and(|left| left.seconds >= 29));
    let stranger = v1::RenewRequest {
        service: "training".to_owned(),
        holder: "somebody-else".to_owned(),
        ..renew
    };
    let status = coordinator.leases().renew(stranger).await.unwrap_err();
    check(&status, Code::PermissionDenied, "NOT_THE_HOLDER", "");
    let release = v1::ReleaseRequest {
        lease_id: lease.id,
        fencing_token: Some(lease.fencing_token),
        ..v1::ReleaseRequest::default()
    };
    let released = coordinator.leases().release(release).await.unwrap().into_inner();
    let released = released.lease.unwrap();
    assert_eq!(released.end_reason(), v1::EndReason::Released);
    let shown = coordinator.leases().get(v1::LeaseServiceGetRequest { lease_id: lease.id }).await;
    let shown = shown.unwrap().into_inner();
    let states: Vec<_> = shown.history.iter().map(v1::LeaseFact::state).collect();
    let expected = [v1::LeaseState::Queued, v1::LeaseState::Active, v1::LeaseState::Ended];
    assert_eq!(states, expected);
    assert!(shown.revision >= shown.history[2].revision);
}

#[tokio::test]
async fn refusals_carry_code_reason_and_field() {
    let coordinator = Coordinator::start().await;
    let mut leases = coordinator.leases();
    coordinator.acquire("a", 24).await;
    coordinator.acquire("b", 24).await;
    let status = leases.acquire(of("training", "worker-1", request("c", 1))).await.unwrap_err();
    check(&status, Code::ResourceExhausted, "NO_CAPACITY", "");
    let status = leases.acquire(of("training", "worker-1", request("c", 25))).await.unwrap_err();
    check(&status, Code::FailedPrecondition, "UNSATISFIABLE", "ask.memory_bytes");
    let mut three = of("training", "worker-1", request("c", 1));
    three.ask.as_mut().unwrap().devices = Some(3);
    let status = leases.acquire(three).await.unwrap_err();
    check(&status, Code::FailedPrecondition, "UNSATISFIABLE", "ask.devices");
    let status = leases.acquire(of("training", "worker-2", request("a", 24))).await.unwrap_err();
    check(&status, Code::AlreadyExists, "REQUEST_ID_TAKEN", "request_id");
    let status = leases.acquire(of("training", "worker-1", request("a", 23))).await.unwrap_err();
    check(&status, Code::InvalidArgument, "REQUEST_ID_REUSED", "request_id");
    let status = leases.get(v1::LeaseServiceGetRequest { lease_id: 999 }).await.unwrap_err();
    check(&status, Code::NotFound, "LEASE_NOT_FOUND", "");
    let long = v1::RevokeRequest { lease_id: 1, reason: "x".repeat(1_025) };
    let status = leases.revoke(long).await.unwrap_err();
    check(&status, Code::InvalidArgument, "INVALID_FIELD", "reason");
    let unknown = v1::DeviceServiceGetRequest { uuid: "SIM-9".to_owned() };
    let status = coordinator.devices().get(unknown).await.unwrap_err();
    check(&status, Code::NotFound, "DEVICE_NOT_FOUND", "");
}

#[tokio::test]
async fn a_unary_acquire_whose_caller_goes_away_leaves_its_waiter_away() {
    let coordinator = Coordinator::start().await;
    coordinator.acquire("a", 24).await;
    coordinator.acquire("b", 24).await;
    let mut leases = coordinator.leases();
    let call = tokio::spawn(async move {
        leases.acquire(of("training", "worker-1", waiting("gone", 24, 600))).await
    });
    let queued = |wanted: usize| {
        let handle = coordinator.handle.clone();
        async move {
            loop {
                let counts = handle.query(|reading| reading.scheduler.counts()).await.unwrap();
                if counts.queued == wanted {
                    return;
                }
                tokio::task::yield_now().await;
            }
        }
    };
    queued(1).await;
    call.abort();
    // Another takes up the place by the same request id, which works only where the first call left or is told so.
    let mut leases = coordinator.leases();
    let again = tokio::spawn(async move {
        leases.acquire(of("training", "worker-1", waiting("gone", 24, 600))).await
    });
    let first = coordinator
        .handle
        .query(|reading| reading.scheduler.lease(LeaseId(1)).map(|found| found.lease.token));
    let token = first.await.unwrap().unwrap();
    let release = v1::ReleaseRequest {
        lease_id: 1,
        fencing_token: Some(token.0),
        ..v1::ReleaseRequest::default()
    };
    coordinator.leases().release(release).await.unwrap();
    let granted = again.await.unwrap().unwrap().into_inner().lease.unwrap();
    assert_eq!((granted.id, granted.state()), (3, v1::LeaseState::Active));
}

#[tokio::test]
async fn lists_come_in_pages_whose_tokens_are_checked() {
    let coordinator = Coordinator::start().await;
    for number in 0..5 {
        coordinator.acquire(&format!("job-{number}"), 1).await;
    }
    let page = |page_size, page_token: &str| v1::LeaseServiceListRequest {
        page_size,
        page_token: page_token.to_owned(),
        service: "training".to_owned(),
        ..v1::LeaseServiceListRequest::default()
    };
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let answer = coordinator.leases().list(page(2, &token)).await.unwrap().into_inner();
        seen.extend(answer.leases.iter().map(|lease| lease.id));
        token = answer.next_page_token;
        if token.is_empty() {
            break;
        }
        let foreign =
            v1::LeaseServiceListRequest { service: "other".to_owned(), ..page(2, &token) };
        let status = coordinator.leases().list(foreign).await.unwrap_err();
        check(&status, Code::InvalidArgument, "INVALID_PAGE_TOKEN", "page_token");
    }
    assert_eq!(seen, [1, 2, 3, 4, 5]);
    for made_up in ["x", "l0000000000000002deadbeef", "ü000000000000000000000000"] {
        let status = coordinator.leases().list(page(2, made_up)).await.unwrap_err();
        check(&status, Code::InvalidArgument, "INVALID_PAGE_TOKEN", "page_token");
    }
    let status = coordinator.leases().list(page(1_001, "")).await.unwrap_err();
    check(&status, Code::InvalidArgument, "INVALID_FIELD", "page_size");
    let odd = v1::LeaseServiceListRequest { states: vec![42], ..page(0, "") };
    let status = coordinator.leases().list(odd).await.unwrap_err();
    check(&status, Code::InvalidArgument, "INVALID_FIELD", "states");
    let ended =
        v1::LeaseServiceListRequest { states: vec![v1::LeaseState::Ended.into()], ..page(0, "") };
    let answer = coordinator.leases().list(ended).await.unwrap().into_inner();
    assert!(answer.leases.is_empty());
}

#[tokio::test]
async fn devices_are_listed_in_pages_and_shown_with_who_holds_them() {
    let coordinator = Coordinator::start().await;
    let lease = coordinator.acquire("job", 8).await;
    let first = v1::DeviceServiceListRequest { page_size: 1, ..Default::default() };
    let one = coordinator.devices().list(first.clone()).await.unwrap().into_inner();
    let next = v1::DeviceServiceListRequest { page_token: one.next_page_token, ..first };
    let two = coordinator.devices().list(next).await.unwrap().into_inner();
    assert!(two.next_page_token.is_empty());
    let uuids: Vec<_> = one.devices.iter().chain(&two.devices).map(|d| d.uuid.as_str()).collect();
    assert_eq!(uuids, ["SIM-node-0-0", "SIM-node-0-1"]);
    let get = v1::DeviceServiceGetRequest { uuid: lease.devices[0].uuid.clone() };
    let device = coordinator.devices().get(get).await.unwrap().into_inner().device.unwrap();
    assert_eq!(device.state(), v1::DeviceState::Available);
    assert_eq!((device.memory_leased_bytes, device.lease_ids), (8 * GIB, vec![lease.id]));
    assert_eq!(device.memory_free_bytes, Some(16 * GIB));
}

#[tokio::test]
async fn status_and_configuration_tell_how_it_is() {
    let coordinator = Coordinator::start().await;
    coordinator.acquire("job", 8).await;
    let status = coordinator.admin().status(v1::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.nodes, status.devices, status.devices_available), (1, 2, 2));
    assert_eq!((status.leases_active, status.backend.as_str()), (1, "simulated"));
    let configuration = coordinator.admin().configuration(v1::ConfigurationRequest {}).await;
    assert!(configuration.unwrap().into_inner().toml.starts_with("listen"));
}

#[tokio::test]
async fn samples_are_told_as_they_come_and_unknown_figures_are_absent() {
    let coordinator = Coordinator::start().await;
    let subscribe = v1::SubscribeRequest { device_uuids: vec!["A".to_owned()], interval_min: None };
    let mut stream = coordinator.metrics().subscribe(subscribe).await.unwrap().into_inner();
    let sample = Sample { memory_used_bytes: Some(5), ..Sample::unknown("A".into()) };
    coordinator.hub.publish(vec![sample, Sample::unknown("B".into())]);
    let told = stream.message().await.unwrap().unwrap();
    assert_eq!((told.samples.len(), told.skipped), (1, 0));
    assert_eq!(told.samples[0].memory_used_bytes, Some(5));
    assert_eq!(told.samples[0].utilization_permille, None);
    let latest = coordinator.metrics().latest(v1::LatestRequest::default()).await.unwrap();
    assert_eq!(latest.into_inner().samples.len(), 2);
    let many = v1::LatestRequest { device_uuids: vec!["A".to_owned(); 1_025] };
    let status = coordinator.metrics().latest(many).await.unwrap_err();
    check(&status, Code::InvalidArgument, "INVALID_FIELD", "device_uuids");
    let slow = v1::SubscribeRequest {
        device_uuids: Vec::new(),
        interval_min: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
    };
    let status = coordinator.metrics().subscribe(slow).await.unwrap_err();
    check(&status, Code::InvalidArgument, "INVALID_FIELD", "interval_min");
    coordinator.handle.stop();
    let status = stream.message().await.unwrap_err();
    check(&status, Code::Unavailable, "SHUTTING_DOWN", "");
}
