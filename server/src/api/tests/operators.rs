//! What operators do: cordon, uncordon, drain, open; and explain, which anybody may ask.

use gpulease_core::{policy::Policy, time::Span};
use gpulease_proto::v1::{self, DeviceState, LeaseState as State};
use tonic::Code;

use super::harness::{
    Coordinator, check, device, node, of, pausable, policy, renew, request, urgent, waiting,
};
use crate::journal::memory::Disk;

const FIRST: &str = "SIM-node-0-0";

async fn shown(coordinator: &Coordinator, uuid: &str) -> v1::Device {
    let get = v1::DeviceServiceGetRequest { uuid: uuid.to_owned() };
    coordinator.devices().get(get).await.unwrap().into_inner().device.unwrap()
}

#[tokio::test]
async fn a_cordon_stops_grants_and_is_shown_with_its_reason_until_it_is_taken_back() {
    let coordinator = Coordinator::start().await;
    let held = coordinator.grant(of("training", "w", pausable("held", 1))).await;
    let cordon = v1::CordonRequest { target: node("node-0"), reason: "inspection".to_owned() };
    for _ in 0..2 {
        let met = coordinator.admin().cordon(cordon.clone()).await.unwrap().into_inner();
        assert_eq!(met.lease_ids, [held.id]);
    }
    let status = coordinator.leases().acquire(of("training", "w", request("new", 1))).await;
    check(&status.unwrap_err(), Code::ResourceExhausted, "NO_CAPACITY", "");
    let told = shown(&coordinator, FIRST).await;
    let cordon = told.cordon.clone().unwrap();
    assert_eq!((told.state(), cordon.node, cordon.drain), (DeviceState::Cordoned, true, false));
    assert_eq!((cordon.reason.as_str(), told.lease_count), ("inspection", 1));
    coordinator.leases().renew(renew(&held)).await.expect("holders keep what they have");
    for _ in 0..2 {
        let uncordon = v1::UncordonRequest { target: node("node-0") };
        coordinator.admin().uncordon(uncordon).await.unwrap();
    }
    assert_eq!(shown(&coordinator, FIRST).await.cordon, None);
    coordinator.grant(of("training", "w", request("new", 1))).await;
}

#[tokio::test]
async fn a_drain_names_who_was_noticed_who_will_be_and_who_stays() {
    let coordinator = Coordinator::start().await;
    let noticed = coordinator.grant(of("training", "w", pausable("noticed", 1))).await;
    let later = v1::AcquireRequest {
        minimum_hold: Some(prost_types::Duration { seconds: 600, nanos: 0 }),
        ..of("training", "w", pausable("later", 1))
    };
    let later = coordinator.grant(later).await;
    let never = v1::AcquireRequest { preemptible: 0, ..of("training", "w", pausable("never", 1)) };
    let staying = coordinator.grant(never).await;
    let drain = v1::DrainRequest { target: device(FIRST), reason: "fan".to_owned() };
    let met = coordinator.admin().drain(drain).await.unwrap().into_inner();
    assert_eq!(met.noticed_lease_ids, [noticed.id]);
    assert_eq!(met.later_lease_ids, [later.id]);
    assert_eq!(met.staying_lease_ids, [staying.id]);
    let told = shown(&coordinator, FIRST).await;
    assert!(told.cordon.is_some_and(|cordon| cordon.drain && !cordon.node));
    assert_eq!(coordinator.lease(noticed.id).await.state(), State::Pausing);
    assert_eq!(coordinator.lease(later.id).await.state(), State::Active);
    let status = coordinator.admin().status(v1::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.leases_pausing, status.leases_active, status.devices_available), (1, 2, 1));
}

#[tokio::test]
async fn targets_that_are_not_there_and_reasons_that_are_too_long_are_refused() {
    let coordinator = Coordinator::start().await;
    let mut admin = coordinator.admin();
    let cordon = |target| v1::CordonRequest { target, reason: String::new() };
    check(
        &admin.cordon(cordon(device("no"))).await.unwrap_err(),
        Code::NotFound,
        "DEVICE_NOT_FOUND",
        "",
    );
    check(
        &admin.cordon(cordon(node("no"))).await.unwrap_err(),
        Code::NotFound,
        "NODE_NOT_FOUND",
        "",
    );
    check(
        &admin.cordon(cordon(None)).await.unwrap_err(),
        Code::InvalidArgument,
        "INVALID_FIELD",
        "target",
    );
    let status = admin.cordon(cordon(device(""))).await.unwrap_err();
    check(&status, Code::InvalidArgument, "INVALID_FIELD", "target.device_uuid");
    let status =
        admin.uncordon(v1::UncordonRequest { target: node(&"x".repeat(257)) }).await.unwrap_err();
    check(&status, Code::InvalidArgument, "INVALID_FIELD", "target.node");
    let drain = v1::DrainRequest { target: node("node-0"), reason: "x".repeat(1_025) };
    let status = admin.drain(drain).await.unwrap_err();
    check(&status, Code::InvalidArgument, "INVALID_FIELD", "reason");
    assert!(status.message().starts_with("cannot drain node-0"), "{status:?}");
    let open =
        |uuid: &str| v1::OpenDeviceRequest { device_uuid: uuid.to_owned(), reason: String::new() };
    check(
        &admin.open_device(open("no")).await.unwrap_err(),
        Code::NotFound,
        "DEVICE_NOT_FOUND",
        "",
    );
    let status = admin.open_device(open("")).await.unwrap_err();
    check(&status, Code::InvalidArgument, "INVALID_FIELD", "device_uuid");
}

#[tokio::test]
async fn an_operator_opens_what_an_unclean_end_closed() {
    let patient = Policy { lock_delay: Span::from_minutes(60), ..policy() };
    let coordinator = Coordinator::start_with(Disk::new(), patient, None).await;
    let lease = coordinator.grant(of("training", "w", pausable("job", 24))).await;
    let revoke = v1::RevokeRequest { lease_id: lease.id, reason: "runaway".to_owned() };
    coordinator.leases().revoke(revoke).await.unwrap();
    let told = shown(&coordinator, FIRST).await;
    assert_eq!((told.closed_by, told.closed_by_count), (vec![lease.id], 1));
    assert_eq!(coordinator.lease(lease.id).await.state(), State::Reclaiming);
    let open = v1::OpenDeviceRequest { device_uuid: FIRST.to_owned(), reason: "killed".to_owned() };
    let opened = coordinator.admin().open_device(open.clone()).await.unwrap().into_inner();
    assert_eq!(opened.lease_ids, [lease.id]);
    let ended = coordinator.lease(lease.id).await;
    assert_eq!((ended.state(), ended.end_reason()), (State::Ended, v1::EndReason::Revoked));
    let again = coordinator.admin().open_device(open).await.unwrap().into_inner();
    assert!(again.lease_ids.is_empty(), "opening an open device is no error");
}

#[tokio::test]
async fn a_waiting_lease_is_explained_by_who_is_in_its_way_and_a_granted_one_by_why_it_got_them() {
    let coordinator = Coordinator::start().await;
    let first = coordinator.grant(of("training", "w", pausable("first", 24))).await;
    let staying =
        v1::AcquireRequest { preemptible: 0, ..of("training", "w", request("second", 24)) };
    let second = coordinator.grant(staying).await;
    let waiter = coordinator.wait(of("training", "x", waiting("waits", 24, 600)));
    let explain = async |lease_id| {
        coordinator.leases().explain(v1::ExplainRequest { lease_id }).await.unwrap().into_inner()
    };
    let queued = loop {
        if let Ok(told) = coordinator.leases().explain(v1::ExplainRequest { lease_id: 3 }).await {
            break told.into_inner();
        }
        tokio::task::yield_now().await;
    };
    let why = queued.waiting.unwrap();
    assert_eq!(
        (why.queue_position, why.devices_known, why.devices_suitable, why.devices_fitting),
        (0, 2, 2, 0)
    );
    let blocking: Vec<_> = why.blocking.iter().map(|it| (it.lease_id, it.state())).collect();
    assert_eq!(blocking.len(), 2, "{why:?}");
    // The one in the lower class has to give way, and was told so.
    assert_eq!(blocking, [(first.id, State::Pausing), (second.id, State::Active)]);
    assert_eq!(why.blocking[0].preemption, "was given notice for it");
    assert!(why.forecast.is_some_and(|forecast| forecast.seconds <= 30), "{why:?}");
    let never = why.blocking.iter().find(|it| it.lease_id == second.id).unwrap();
    assert_eq!(
        (never.preemption.as_str(), never.service.as_str()),
        ("may never be preempted", "training")
    );
    assert!(!why.forecast_basis.is_empty());
    assert_eq!(why.excluded.iter().map(|it| it.devices).sum::<u32>(), 2);
    assert_eq!(queued.granted, None);

    let granted = explain(first.id).await;
    let why = granted.granted.unwrap();
    assert!(why.devices_fitting >= 1 && !why.reason.is_empty());
    assert_eq!((granted.waiting, granted.lease.unwrap().id), (None, first.id));
    assert!(granted.revision >= 1);
    let status =
        coordinator.leases().explain(v1::ExplainRequest { lease_id: 99 }).await.unwrap_err();
    check(&status, Code::NotFound, "LEASE_NOT_FOUND", "");
    assert!(status.message().starts_with("cannot explain lease 99"), "{status:?}");
    waiter.abort();
}

#[tokio::test]
async fn a_paused_lease_is_explained_like_one_that_waits() {
    let coordinator = Coordinator::start().await;
    let lease = coordinator.grant(of("training", "w", pausable("job", 24))).await;
    let urgent = coordinator.wait(urgent("now", 24));
    let pausing = coordinator.lease_when(lease.id, |it| it.state() == State::Pausing).await;
    let answer = super::harness::acknowledge(&pausing);
    coordinator.leases().acknowledge(answer).await.unwrap();
    let urgent = urgent.await.unwrap();
    let explain = v1::ExplainRequest { lease_id: lease.id };
    let told = coordinator.leases().explain(explain).await.unwrap().into_inner();
    let why = told.waiting.unwrap();
    assert_eq!(why.blocking.iter().map(|it| it.lease_id).collect::<Vec<_>>(), [urgent.id]);
    assert!(told.granted.is_some(), "and why it had what it had");
}
