//! A disk that fills up while the coordinator runs: nothing more is acknowledged, health says so, the exit code names
//! the journal, and with space again everything acknowledged is there.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use gpulease_proto::v1;
use gpulease_tests::{
    coordinator::Coordinator,
    deadline::soon,
    skip::skipped_optional,
    wire::{self, Refusal, Wire},
};
use tempfile::tempdir;
use tonic::{Code, Streaming};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
};

/// Small enough to be full after some seconds, large enough for an empty journal.
const DISK_MIB: u64 = 16;
/// More than fit: each request journals some hundred bytes.
const REQUESTS_MAX: usize = 200_000;

#[tokio::test]
async fn a_full_disk_stops_the_coordinator_and_loses_nothing_acknowledged() -> anyhow::Result<()> {
    let place = tempdir()?;
    let Some(mount) = Mount::small(place.path()) else {
        skipped_optional("a full disk", "no right to mount a small file system here");
        return Ok(());
    };
    let settings = Coordinator::settings().simulate("1x80GiB").data(mount.path().join("data"));
    let mut coordinator = settings.start().await?;
    let wire = Wire::connect(coordinator.endpoint()).await?;
    let mut health = wire.health().watch(HealthCheckRequest::default()).await?.into_inner();
    let ballast = mount.path().join("ballast");
    fill(&ballast)?;
    let (acknowledged, refused) = acquire_until_refused(&wire).await;
    assert_eq!(
        (refused.code, refused.reason.as_str()),
        (Code::Unavailable, "JOURNAL_FAILED"),
        "{refused:?}"
    );
    let status = coordinator.exit().await?;
    assert_eq!(status.code(), Some(5), "{}", coordinator.stderr_tail());
    assert!(coordinator.stderr_tail().contains("no space"), "{}", coordinator.stderr_tail());
    assert_eq!(last_health(&mut health).await, ServingStatus::NotServing);

    std::fs::remove_file(&ballast)?;
    coordinator.restart().await?;
    let wire = Wire::connect(coordinator.endpoint()).await?;
    for lease in &acknowledged {
        let now = wire.lease(lease.id).await?;
        assert_eq!((now.fencing_token, now.state()), (lease.fencing_token, v1::LeaseState::Active));
    }
    let next = wire.acquire(small("after")).await?;
    assert!(acknowledged.iter().all(|lease| lease.fencing_token < next.fencing_token));
    // The mount outlives the process that uses it.
    coordinator.kill().await?;
    drop(mount);
    Ok(())
}

fn small(name: &str) -> v1::AcquireRequest {
    let ask = v1::Ask { memory_bytes: Some(1 << 20), ..Default::default() };
    v1::AcquireRequest { ask: Some(ask), ttl: Some(wire::seconds(3_600)), ..wire::request(name) }
}

/// Takes all space that is left, to the last byte.
fn fill(path: &Path) -> anyhow::Result<()> {
    let mut file = File::create(path)?;
    for size in [1 << 16, 1 << 10, 1] {
        while file.write_all(&vec![1; size]).and_then(|()| file.sync_data()).is_ok() {}
    }
    Ok(())
}

/// Acquires until the coordinator cannot; what it acknowledged, and the refusal.
async fn acquire_until_refused(wire: &Wire) -> (Vec<v1::Lease>, Refusal) {
    let mut acknowledged = Vec::new();
    for number in 0..REQUESTS_MAX {
        match soon("an answer", wire.acquire(small(&format!("request-{number}")))).await {
            Ok(lease) => acknowledged.push(lease),
            Err(status) if status.code() == Code::ResourceExhausted => {
                while let Some(lease) = acknowledged.pop() {
                    if let Err(status) = wire.release(&lease).await {
                        return (acknowledged, Refusal::of(&status));
                    }
                }
            }
            Err(status) => return (acknowledged, Refusal::of(&status)),
        }
    }
    panic!("{REQUESTS_MAX} requests fitted on a disk of {DISK_MIB} MiB");
}

async fn last_health(health: &mut Streaming<HealthCheckResponse>) -> ServingStatus {
    let mut last = ServingStatus::Unknown;
    while let Ok(Some(told)) = soon("the end of health", health.message()).await {
        last = told.status();
    }
    last
}

/// A file system in memory, mounted for a test and gone with it.
pub(crate) struct Mount {
    path: PathBuf,
}

impl Mount {
    /// A small one; `None` where that is not allowed.
    pub(crate) fn small(path: &Path) -> Option<Self> {
        Self::with(path, &format!("size={DISK_MIB}m"))
    }

    /// One that cannot be written.
    pub(crate) fn read_only(path: &Path) -> Option<Self> {
        Self::with(path, "ro,size=1m")
    }

    fn with(path: &Path, options: &str) -> Option<Self> {
        let mut command = Command::new("mount");
        let output =
            command.args(["-t", "tmpfs", "-o", options, "gpulease-test"]).arg(path).output();
        output.is_ok_and(|output| output.status.success()).then(|| Self { path: path.to_owned() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a process that just died may still be leaving.
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).status();
    }
}
