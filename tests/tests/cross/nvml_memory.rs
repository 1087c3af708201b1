//! Whose the memory of devices is (P8): strangers' programs, holders that use more than they leased, desktops, and what
//! is declared over the Unix socket.

use gpulease::ProcessFilter;
use gpulease_fake_nvml::uuid;
use gpulease_proto::v1;
use gpulease_tests::{
    deadline::soon,
    nvidia::{FREE_BYTES, NvidiaHost, Program},
    shell::Shell,
    wire::{GIB, Refusal, Wire, request, whole_devices},
};
use tokio::io::{AsyncBufReadExt as _, BufReader};

/// What is kept back of each device, which foreign memory uses up first.
const RESERVE: u64 = 512 << 20;

fn bytes(name: &str, bytes: u64) -> v1::AcquireRequest {
    let ask = v1::Ask { memory_bytes: Some(bytes), ..Default::default() };
    v1::AcquireRequest { ask: Some(ask), ..request(name) }
}

async fn refused(wire: &Wire, request: v1::AcquireRequest) -> String {
    match wire.acquire(request).await {
        Ok(lease) => panic!("this should have been refused: {lease:?}"),
        Err(status) => Refusal::of(&status).reason,
    }
}

#[tokio::test]
async fn a_strangers_program_that_grows_takes_from_what_can_be_granted_and_is_shown_as_foreign()
-> anyhow::Result<()> {
    let host = NvidiaHost::with(1).await?;
    assert_eq!(host.device(0).await?.memory_free_bytes, Some(FREE_BYTES));
    let stranger = Program::start()?;
    for used in [300 << 20, 10 * GIB, 70 * GIB] {
        host.fake.run_process(&uuid(0), stranger.pid(), used)?;
        let left = FREE_BYTES - used.saturating_sub(RESERVE);
        let shrunk = |device: &v1::Device| {
            (device.memory_foreign_bytes, device.memory_free_bytes) == (Some(used), Some(left))
        };
        host.device_until(0, "what can be granted shrinks", shrunk).await?;
    }
    let grown = |process: &v1::DeviceProcess| process.memory_bytes == 70 * GIB;
    let shown = host.process_until(stranger.pid(), "it is shown", grown).await?;
    assert_eq!((shown.lease_id, shown.root, &shown.command[..]), (0, None, "sleep 600"));
    let shell = Shell::at(&host.endpoint())?;
    let lines = shell.lines(&["processes"]).await?;
    assert_eq!(lines[0]["pid"], stranger.pid());
    assert!(lines[0]["lease_id"].is_null(), "{lines:?}");

    assert_eq!(refused(&host.wire, bytes("too much", 12 * GIB)).await, "NO_CAPACITY");
    host.wire.acquire(bytes("enough", 9 * GIB)).await?;
    Ok(())
}

#[tokio::test]
async fn what_a_holder_uses_above_its_lease_is_taken_from_what_can_be_granted_and_is_its_leases()
-> anyhow::Result<()> {
    let host = NvidiaHost::with(1).await?;
    let program = Program::start()?;
    let process = program.declared();
    let modest = v1::AcquireRequest { process, ..bytes("modest", 8 * GIB) };
    let lease = host.wire.acquire(modest).await?;
    assert_eq!(host.device(0).await?.memory_free_bytes, Some(FREE_BYTES - 8 * GIB));
    host.fake.run_process(&uuid(0), program.pid(), 12 * GIB)?;
    let above = |device: &v1::Device| {
        let free = device.memory_free_bytes;
        (device.memory_foreign_bytes, free) == (Some(0), Some(FREE_BYTES - 12 * GIB))
    };
    host.device_until(0, "the excess counts, and is not foreign", above).await?;
    let theirs = |process: &v1::DeviceProcess| process.lease_id == lease.id;
    let shown = host.process_until(program.pid(), "it is its lease's", theirs).await?;
    assert_eq!(shown.memory_bytes, 12 * GIB);
    assert_eq!(refused(&host.wire, bytes("too much", 68 * GIB)).await, "NO_CAPACITY");
    host.wire.acquire(bytes("enough", 66 * GIB)).await?;
    Ok(())
}

#[tokio::test]
async fn a_desktops_few_hundred_mebibytes_do_not_keep_a_device_from_whole_grants_and_more_does()
-> anyhow::Result<()> {
    let host = NvidiaHost::with(1).await?;
    let (desktop, program) = (Program::start()?, Program::start()?);
    host.fake.run_process(&uuid(0), desktop.pid(), 400 << 20)?;
    let shown = |used: u64| move |device: &v1::Device| device.memory_foreign_bytes == Some(used);
    host.device_until(0, "the desktop is there", shown(400 << 20)).await?;
    let whole = v1::AcquireRequest { process: program.declared(), ..whole_devices("game", 1) };
    let lease = host.wire.acquire(v1::AcquireRequest { wait: None, ..whole }).await?;
    assert!(lease.devices[0].exclusive);
    host.wire.release(&lease).await?;
    host.fake.run_process(&uuid(0), desktop.pid(), GIB + 1)?;
    host.device_until(0, "the desktop grew", shown(GIB + 1)).await?;
    assert_eq!(host.whole_refused("another game").await.reason, "NO_CAPACITY");
    host.fake.run_process(&uuid(0), desktop.pid(), GIB)?;
    soon("a whole device", host.wire.acquire(whole_devices("next game", 1))).await?;
    Ok(())
}

#[tokio::test]
async fn a_command_under_run_and_what_it_starts_are_its_leases() -> anyhow::Result<()> {
    let host = NvidiaHost::with(1).await?;
    let shell = Shell::at(&host.endpoint())?;
    let script = "sleep 600 & echo $GPULEASE_LEASE_ID $!; read line; kill $!";
    let mut command = shell.command(&["run", "--memory", "8GiB", "--", "sh", "-c", script]);
    let mut child = command.stdin(std::process::Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().expect("it was piped")).lines();
    let line = soon("the command's word", lines.next_line()).await?.expect("it speaks");
    let (id, pid) = line.split_once(' ').expect("a lease and a process");
    let (id, pid): (u64, u32) = (id.parse()?, pid.parse()?);
    let declared = host.wire.lease(id).await?.process.expect("it is declared by default");
    assert_eq!(Some(declared.pid), child.id());
    host.fake.run_process(&uuid(0), pid, 6 * GIB)?;
    let theirs = |process: &v1::DeviceProcess| process.lease_id == id;
    let shown = host.process_until(pid, "it is its lease's", theirs).await?;
    assert_eq!((shown.memory_bytes, shown.root), (6 * GIB, Some(declared)));
    let client = host.client("somebody").await?;
    let by_the_sdk = client.processes(ProcessFilter::default().device(uuid(0))).await?;
    assert_eq!(by_the_sdk[0].lease_id, Some(id));
    host.fake.end_process(&uuid(0), pid)?;
    // The end of its stdin is the command's.
    drop(child.stdin.take());
    assert!(soon("the end of gpulease run", child.wait()).await?.success());
    Ok(())
}
