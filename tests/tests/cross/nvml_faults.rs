//! Devices that vanish and return (P12), drivers that hang, and drivers that are let go on purpose.

use std::time::{Duration, Instant};

use gpulease::{Change, EndReason, LeaseRequest, LeaseState, Preemptible};
use gpulease_fake_nvml::{control::Calls, uuid};
use gpulease_proto::v1::{self, DeviceState};
use gpulease_tests::{
    deadline::{soon, until},
    nvidia::{NvidiaHost, Prepared},
    wire::{GIB, request, seconds, whole_devices},
};

use super::surface::fetch;

/// The contract's bound of a stop, and two seconds for a busy machine.
const STOP_MAX: Duration = Duration::from_secs(7);

fn is(state: DeviceState) -> impl Fn(&v1::Device) -> bool {
    move |device| device.state() == state
}

fn on(number: u32, name: &str) -> v1::AcquireRequest {
    let constraints = v1::Constraints { device_allow: vec![uuid(number)], ..Default::default() };
    v1::AcquireRequest { constraints: Some(constraints), ..request(name) }
}

#[tokio::test]
async fn a_device_that_vanishes_ends_its_leases_alone_and_is_granted_again_when_it_returns()
-> anyhow::Result<()> {
    let host = Prepared::with(2)?.key("leases.lock_delay", "500ms").start().await?;
    let lost = host.wire.acquire(on(0, "there")).await?;
    let kept = host.wire.acquire(on(1, "elsewhere")).await?;
    host.fake.lose(&uuid(0))?;
    host.device_until(0, "it is lost", is(DeviceState::Unavailable)).await?;
    let ended = host.lease_until(lost.id, v1::LeaseState::Ended).await?;
    assert_eq!(ended.end_reason(), v1::EndReason::DeviceLost);
    assert!(ended.end_detail.contains("fell off the bus"), "{ended:?}");
    assert_eq!(host.device(1).await?.state(), DeviceState::Available);
    assert_eq!(host.wire.renew(&kept).await?.state(), v1::LeaseState::Active);
    host.wire.acquire(on(1, "beside")).await?;
    let wait = Some(seconds(600));
    let wire = host.wire.clone();
    let waiting = tokio::spawn(async move {
        wire.acquire(v1::AcquireRequest { wait, ..on(0, "waits for it") }).await
    });
    host.fake.restore(&uuid(0))?;
    let back = soon("the device's return", waiting).await??;
    assert!(back.fencing_token > kept.fencing_token);
    Ok(())
}

#[tokio::test]
async fn a_lease_that_may_pause_outlives_its_device_on_another_or_until_that_returns()
-> anyhow::Result<()> {
    let host = Prepared::with(2)?.key("leases.lock_delay", "500ms").start().await?;
    let client = host.client("engine").await?;
    let wanted = LeaseRequest::exclusive().preemptible(Preemptible::Pause);
    let lease = client.acquire(wanted).await?;
    let mut changes = lease.changes();
    let mut resumed = async || loop {
        match changes.next().await {
            Some(Change::Resumed(grant)) => return grant,
            Some(_) => {}
            None => panic!("the lease is over"),
        }
    };
    let (first, token) = (lease.devices()[0].uuid.clone(), lease.fencing_token());
    host.fake.lose(&first)?;
    let second = soon("another device", resumed()).await;
    assert_ne!(second.devices[0].uuid, first);
    assert!(second.fencing_token > token);
    host.fake.lose(&second.devices[0].uuid)?;
    until("the lease pauses: there is no third", async || {
        let state = client.lease(lease.id()).await?.lease.state;
        Ok(if state == LeaseState::Paused { Ok(()) } else { Err(format!("{state:?}")) })
    })
    .await?;
    host.fake.restore(&first)?;
    let third = soon("the first device's return", resumed()).await;
    assert_eq!(third.devices[0].uuid, first);
    assert!(third.fencing_token > second.fencing_token);
    let end = lease.release().await?;
    assert_eq!(end.end_reason, Some(EndReason::Released));
    Ok(())
}

#[tokio::test]
async fn a_driver_that_hangs_stops_grants_and_neither_renewals_nor_health_nor_the_stop()
-> anyhow::Result<()> {
    let host = Prepared::with(2)?.http().start().await?;
    let lease = host.wire.acquire(request("holder")).await?;
    let fault = host.fake.hang(Calls::about(&uuid(1)))?;
    for number in 0..2 {
        host.device_until(number, "it is stale", is(DeviceState::Stale)).await?;
    }
    assert_eq!(host.whole_refused("in vain").await.reason, "NO_CAPACITY");
    assert_eq!(host.wire.renew(&lease).await?.state(), v1::LeaseState::Active);
    assert_eq!(fetch(&host.coordinator, "/readyz").await?.0, 200);
    host.fake.lift(fault)?;
    for number in 0..2 {
        host.device_until(number, "it is measured", is(DeviceState::Available)).await?;
    }
    let again = host.wire.acquire(request("again")).await?;
    assert!(again.fencing_token > lease.fencing_token);

    host.fake.hang(Calls::all())?;
    host.device_until(0, "it is stale again", is(DeviceState::Stale)).await?;
    let NvidiaHost { mut coordinator, .. } = host;
    let began = Instant::now();
    assert!(coordinator.stop().await?.success());
    assert!(began.elapsed() < STOP_MAX, "{:?}", began.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_quiesced_driver_is_let_go_while_holders_keep_theirs_and_is_taken_up_again()
-> anyhow::Result<()> {
    let host = NvidiaHost::with(1).await?;
    let lease = host.wire.acquire(request("holder")).await?;
    let open = || -> anyhow::Result<usize> {
        Ok(host.fake.calls("nvmlInit_v2")? - host.fake.calls("nvmlShutdown")?)
    };
    assert_eq!(open()?, 1);
    let operator = host.client("operator").await?;
    let node = operator.devices().await?.items[0].node.clone();
    operator.quiesce_driver(&node, true).await?;
    host.device_until(0, "it is quiesced", is(DeviceState::Quiesced)).await?;
    until("no handle is open", async || {
        let open = open()?;
        Ok(if open == 0 { Ok(()) } else { Err(open.to_string()) })
    })
    .await?;
    assert_eq!(host.whole_refused("in vain").await.reason, "NO_CAPACITY");
    assert_eq!(host.wire.renew(&lease).await?.state(), v1::LeaseState::Active);
    let wire = host.wire.clone();
    let next = tokio::spawn(async move { wire.acquire(whole_devices("next", 1)).await });
    host.wire.release(&lease).await?;
    operator.quiesce_driver(&node, false).await?;
    let device = host.device_until(0, "it is back", is(DeviceState::Available)).await?;
    assert_eq!(device.memory_total_bytes, 80 * GIB);
    soon("the grant behind it", next).await??;
    assert_eq!(open()?, 1);
    Ok(())
}
