//! Drivers that cannot be used when the coordinator starts.

use gpulease_fake_nvml::Code;
use gpulease_proto::v1::DeviceState;
use gpulease_tests::{
    deadline::soon,
    nvidia::Prepared,
    wire::{refusal, request, whole_devices},
};

async fn comes_later(code: Code, advice: &str) -> anyhow::Result<()> {
    let prepared = Prepared::with(1)?;
    let fault = prepared.fake.fail("nvmlInit_v2", code)?;
    let host = prepared.start().await?;
    let ready = host.coordinator.ready();
    let reason = ready.reason.as_deref().unwrap_or_default();
    assert!(ready.devices == 0 && reason.contains(advice), "{ready:?}");
    let refused = refusal(host.wire.leases().acquire(request("too early")).await);
    assert_eq!(refused.reason, "INVENTORY_UNKNOWN", "{refused:?}");
    let wire = host.wire.clone();
    let waiting = tokio::spawn(async move { wire.acquire(whole_devices("waits", 1)).await });
    host.fake.lift(fault)?;
    soon("a grant on a device of the driver that came", waiting).await??;
    assert_eq!(host.device(0).await?.state(), DeviceState::Available);
    let log = host.coordinator.stderr();
    assert!(log.contains("the NVIDIA driver can be used"), "{log}");
    Ok(())
}

#[tokio::test]
async fn a_driver_that_is_not_loaded_at_the_start_is_said_and_waited_for() -> anyhow::Result<()> {
    comes_later(Code::DRIVER_NOT_LOADED, "modprobe").await
}

#[tokio::test]
async fn a_driver_that_was_changed_under_its_library_is_said_and_waited_for() -> anyhow::Result<()>
{
    comes_later(Code::VERSION_MISMATCH, "restart this host").await
}
