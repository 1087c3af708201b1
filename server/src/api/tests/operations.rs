//! Work told with renewals: counted by device and service where the renewal succeeds.

use std::time::{Duration, Instant};

use gpulease_proto::v1::{
    self, session_renewal_outcome::Outcome, session_request::Body as Ask,
    session_response::Body as Say,
};
use tonic::Code;

use super::harness::{Coordinator, check, renew, request};

fn told(lease: &v1::Lease, count: u64, busy_nanos: i32) -> v1::RenewRequest {
    let busy = Some(prost_types::Duration { seconds: 0, nanos: busy_nanos });
    v1::RenewRequest { operations: Some(v1::Operations { count, busy }), ..renew(lease) }
}

async fn totals(coordinator: &Coordinator, devices: &[&str]) -> Vec<(String, String, u64, i32)> {
    let device_uuids = devices.iter().map(|uuid| (*uuid).to_owned()).collect();
    let latest = coordinator.metrics().latest(v1::LatestRequest { device_uuids }).await.unwrap();
    let total = |it: v1::DeviceOperations| {
        let busy = it.busy_total.map_or(-1, |busy| busy.nanos);
        (it.device_uuid, it.service, it.operations_total, busy)
    };
    latest.into_inner().operations.into_iter().map(total).collect()
}

#[tokio::test]
async fn work_told_with_renewals_adds_up_for_each_device_of_the_lease() {
    let coordinator = Coordinator::start().await;
    let both = v1::Ask { devices: Some(2), memory_bytes: Some(1 << 20), ..v1::Ask::default() };
    let mut session = coordinator.session("training", "worker-1").await;
    session.send(2, Ask::Acquire(v1::AcquireRequest { ask: Some(both), ..request("both", 1) }));
    let lease = session.granted().await;
    let mut leases = coordinator.leases();
    leases.renew(told(&lease, 3, 500)).await.unwrap();
    let row = |device: &str, count, busy| (device.to_owned(), "training".to_owned(), count, busy);
    let first = [row("SIM-node-0-0", 3, 500), row("SIM-node-0-1", 3, 500)];
    assert_eq!(totals(&coordinator, &[]).await, first, "told before the reply");

    let stale = v1::RenewRequest { fencing_token: 99, ..told(&lease, 1_000, 0) };
    let status = leases.renew(stale.clone()).await.unwrap_err();
    check(&status, Code::FailedPrecondition, "STALE_TOKEN", "");
    let renewals = vec![told(&lease, 4, 1), stale, renew(&lease), told(&lease, 5, 0)];
    session.send(3, Ask::Renew(v1::SessionRenewal { leases: renewals }));
    let said = session.next().await;
    assert!(matches!(said.body, Some(Say::Renewed(_))), "{said:?}");
    let expected = [row("SIM-node-0-1", 12, 501)];
    let deadline = Instant::now() + Duration::from_secs(20);
    while totals(&coordinator, &["SIM-node-0-1"]).await != expected {
        assert!(Instant::now() < deadline, "a session's work is counted soon");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn work_out_of_bounds_refuses_its_renewal_with_field_value_and_bound() {
    let coordinator = Coordinator::start().await;
    let mut session = coordinator.session("training", "worker-1").await;
    session.send(2, Ask::Acquire(request("job", 1)));
    let lease = session.granted().await;
    let status = coordinator.leases().renew(told(&lease, 1_000_000_000_001, 0)).await.unwrap_err();
    check(&status, Code::InvalidArgument, "INVALID_FIELD", "operations.count");
    session.send(
        3,
        Ask::Renew(v1::SessionRenewal { leases: vec![told(&lease, 1, -1), renew(&lease)] }),
    );
    let said = session.next().await;
    let Some(Say::Renewed(renewed)) = said.body else { panic!("{said:?}") };
    let [first, second] = &renewed.outcomes[..] else { panic!("{renewed:?}") };
    let Some(Outcome::Error(error)) = &first.outcome else { panic!("{first:?}") };
    assert_eq!((error.reason.as_str(), error.field.as_str()), ("INVALID_FIELD", "operations.busy"));
    assert_eq!(error.metadata["bound"], "0s to 31536000s");
    assert!(matches!(second.outcome, Some(Outcome::Renewed(_))), "one by one: {second:?}");
    assert_eq!(totals(&coordinator, &[]).await, []);
}
