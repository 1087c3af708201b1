//! What leases leave behind on devices that are read through a driver: by an unclean end (P6) and by a release (P7).

use std::time::{Duration, Instant};

use gpulease_fake_nvml::uuid;
use gpulease_proto::v1::{self, LeaseState};
use gpulease_tests::{
    deadline::soon,
    holder::HolderProcess,
    nvidia::{Prepared, Program},
    wire::{GIB, request, seconds, whole_devices},
};
use rustix::process::{Pid, Signal, kill_process};

const HOLDER: &str = env!("CARGO_BIN_EXE_gpulease-test-holder");
/// What takes about a second on an idle machine, on one with ten times as much to do as it can.
const PROMPTLY: Duration = Duration::from_secs(5);

/// A request for a whole device by a program, which does not wait.
fn whole(name: &str, program: &Program) -> v1::AcquireRequest {
    let process = program.declared();
    v1::AcquireRequest { process, wait: None, ..whole_devices(name, 1) }
}

#[tokio::test]
async fn a_killed_holders_device_stays_closed_while_its_child_lives_and_opens_when_that_is_gone()
-> anyhow::Result<()> {
    // What opens it is no delay.
    let host = Prepared::with(1)?.key("leases.lock_delay", "600s").start().await?;
    let ttl = Duration::from_secs(2);
    let mut holder = HolderProcess::start(HOLDER, &host.endpoint(), "trainer", ttl).await?;
    let child = holder.start_child().await?;
    host.fake.run_process(&uuid(0), child, 20 * GIB)?;
    holder.kill()?;
    let lease = host.lease_until(holder.lease_id, LeaseState::Reclaiming).await?;
    assert_eq!(lease.end_reason(), v1::EndReason::Expired);
    let by_its_root = |process: &v1::DeviceProcess| {
        process.root.as_ref().is_some_and(|root| root.pid == holder.pid)
    };
    let shown = host.process_until(child, "the child in the holder's tree", by_its_root).await?;
    assert_eq!((shown.memory_bytes, shown.lease_id), (20 * GIB, 0));
    assert_eq!(host.device(0).await?.closed_by, [holder.lease_id]);
    assert_eq!(host.whole_refused("too early").await.reason, "NO_CAPACITY");

    let wire = host.wire.clone();
    let next = tokio::spawn(async move { wire.acquire(whole_devices("next", 1)).await });
    host.fake.end_process(&uuid(0), child)?;
    let pid = i32::try_from(child).ok().and_then(Pid::from_raw).expect("an id is positive");
    kill_process(pid, Signal::KILL)?;
    let gone = Instant::now();
    let next = soon("the grant behind the child's end", next).await??;
    assert!(gone.elapsed() < PROMPTLY, "{:?}", gone.elapsed());
    assert!(next.fencing_token > holder.fencing_token);
    host.lease_until(holder.lease_id, LeaseState::Ended).await?;
    Ok(())
}

#[tokio::test]
async fn a_tree_that_outlives_the_lock_delay_is_foreign_and_keeps_its_device_from_whole_grants()
-> anyhow::Result<()> {
    let host = Prepared::with(1)?.key("leases.lock_delay", "500ms").start().await?;
    let (program, small) = (Program::start()?, GIB / 2);
    let lease = host.wire.acquire(whole("trainer", &program)).await?;
    host.fake.run_process(&uuid(0), program.pid(), small)?;
    host.revoke(lease.id).await?;
    host.lease_until(lease.id, LeaseState::Ended).await?;
    // So little foreign memory would not keep anybody else's program from it.
    let is_foreign = |device: &v1::Device| device.memory_foreign_bytes == Some(small);
    let device = host.device_until(0, "what it uses is foreign", is_foreign).await?;
    assert!(device.closed_by.is_empty(), "{device:?}");
    assert_eq!(host.whole_refused("beside it").await.reason, "NO_CAPACITY");
    let part = host.wire.acquire(request("a part")).await?;
    host.fake.end_process(&uuid(0), program.pid())?;
    drop(program);
    // The release is looked after, and the look shows that it is gone.
    host.wire.release(&part).await?;
    soon("a whole device", host.wire.acquire(whole_devices("behind it", 1))).await?;
    Ok(())
}

#[tokio::test]
async fn a_released_device_opens_at_the_look_that_shows_its_memory_free() -> anyhow::Result<()> {
    let host = Prepared::with(1)?.key("leases.release_check_max", "60s").start().await?;
    let program = Program::start()?;
    let lease = host.wire.acquire(whole("first", &program)).await?;
    host.fake.run_process(&uuid(0), program.pid(), 20 * GIB)?;
    host.process_until(program.pid(), "it is seen", |shown| shown.lease_id == lease.id).await?;
    let wire = host.wire.clone();
    let next = tokio::spawn(async move { wire.acquire(whole_devices("next", 1)).await });
    host.fake.end_process(&uuid(0), program.pid())?;
    host.wire.release(&lease).await?;
    let released = Instant::now();
    soon("the next grant", next).await??;
    assert!(released.elapsed() < PROMPTLY, "{:?}", released.elapsed());
    Ok(())
}

#[tokio::test]
async fn what_a_released_leases_program_still_uses_is_closed_at_first_and_then_foreign()
-> anyhow::Result<()> {
    let host = Prepared::with(1)?.key("leases.release_check_max", "1s").start().await?;
    let program = Program::start()?;
    let lease = host.wire.acquire(whole("first", &program)).await?;
    host.fake.run_process(&uuid(0), program.pid(), 20 * GIB)?;
    let released = Instant::now();
    host.wire.release(&lease).await?;
    let device = host.device(0).await?;
    if released.elapsed() < Duration::from_secs(1) {
        assert_eq!((&device.closed_by[..], device.memory_free_bytes), (&[lease.id][..], Some(0)));
    }
    let is_foreign = |device: &v1::Device| device.memory_foreign_bytes == Some(20 * GIB);
    let device = host.device_until(0, "it is foreign", is_foreign).await?;
    assert!(device.closed_by.is_empty(), "{device:?}");
    assert!(released.elapsed() >= Duration::from_secs(1), "{:?}", released.elapsed());
    assert_eq!(host.whole_refused("beside it").await.reason, "NO_CAPACITY");
    let ask = Some(v1::Ask { memory_bytes: Some(50 * GIB), ..Default::default() });
    host.wire.acquire(v1::AcquireRequest { ask, ..request("what is left") }).await?;
    Ok(())
}

/// The holder says at last that it is done, and a look agrees.
#[tokio::test]
async fn a_late_release_opens_the_device_once_its_memory_is_free() -> anyhow::Result<()> {
    let host = Prepared::with(1)?.key("leases.lock_delay", "600s").start().await?;
    let program = Program::start()?;
    let ttl = Some(seconds(2));
    let lease = host.wire.acquire(v1::AcquireRequest { ttl, ..whole("slow", &program) }).await?;
    host.fake.run_process(&uuid(0), program.pid(), 20 * GIB)?;
    host.lease_until(lease.id, LeaseState::Reclaiming).await?;
    assert_eq!(host.whole_refused("too early").await.reason, "NO_CAPACITY");
    host.fake.end_process(&uuid(0), program.pid())?;
    host.wire.release(&lease).await?;
    // Its program lives on, and uses nothing.
    soon("the next grant", host.wire.acquire(whole_devices("next", 1))).await?;
    Ok(())
}
