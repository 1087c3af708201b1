//! Where processes cannot be told apart: it is said why, and what is leased and was not seen in use yet is left free.

use std::fs;

use gpulease_fake_nvml::uuid;
use gpulease_proto::v1;
use gpulease_tests::{
    nvidia::{FREE_BYTES, Prepared, Program},
    shell::Shell,
    wire::{GIB, Refusal, request},
};

/// The kernel's fixed number of its first PID namespace.
const HOST_NAMESPACE: &str = "pid:[4026531836]";

#[tokio::test]
async fn without_attribution_bytes_not_seen_in_use_yet_are_not_taken_for_a_strangers()
-> anyhow::Result<()> {
    let host = Prepared::with(1)?.key("devices.attribution", "off").start().await?;
    let stranger = Program::start()?;
    host.fake.run_process(&uuid(0), stranger.pid(), 30 * GIB)?;
    let used = |device: &v1::Device| device.memory_used_bytes == Some(30 * GIB);
    let device = host.device_until(0, "the stranger is seen", used).await?;
    assert_eq!(device.attribution_off, "it is off in the configuration");
    assert_eq!(device.memory_foreign_bytes, Some(30 * GIB));
    let bytes = |name: &str, bytes| {
        let ask = Some(v1::Ask { memory_bytes: Some(bytes), ..Default::default() });
        v1::AcquireRequest { ask, ..request(name) }
    };
    host.wire.acquire(bytes("uses nothing yet", 40 * GIB)).await?;
    // All that is in use could be the lease's, so that nothing is known to be foreign; and yet its 40 GiB may come.
    let left = FREE_BYTES + GIB / 2 - 70 * GIB;
    let charged = |device: &v1::Device| device.memory_free_bytes == Some(left);
    host.device_until(0, "both are counted", charged).await?;
    let refused = host.wire.acquire(bytes("too much", 10 * GIB)).await.unwrap_err();
    assert_eq!(Refusal::of(&refused).reason, "NO_CAPACITY");
    host.wire.acquire(bytes("enough", 9 * GIB)).await?;
    let shell = Shell::at(&host.endpoint())?;
    assert!(shell.lines(&["processes"]).await?.is_empty());
    let shown = shell.run(&["processes"]).await?;
    assert!(shown.stderr.contains("off in the configuration"), "{shown:?}");
    let shown = shell.run(&["devices"]).await?;
    assert!(format!("{shown:?}").contains("off in the configuration"), "{shown:?}");
    Ok(())
}

#[tokio::test]
async fn by_itself_it_attributes_exactly_where_process_ids_are_the_hosts() -> anyhow::Result<()> {
    let host = Prepared::with(1)?.key("devices.attribution", "auto").start().await?;
    let is_hosts = fs::read_link("/proc/self/ns/pid")?.as_os_str() == HOST_NAMESPACE;
    let measured = |device: &v1::Device| device.memory_used_bytes.is_some();
    let device = host.device_until(0, "it is measured", measured).await?;
    let why = if is_hosts { "" } else { "PID namespace of its own" };
    let says = &device.attribution_off;
    assert!(says.contains(why) && says.is_empty() == is_hosts, "{says:?}");
    Ok(())
}
