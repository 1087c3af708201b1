//! What reaches the disk, as the kernel sees it: one fdatasync for each commit (strace tells).

use std::{fs, path::Path, process::Stdio};

use gpulease_tests::{
    coordinator::Coordinator,
    deadline::soon,
    skip::skipped,
    wire::{Wire, request},
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::tempdir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

const CYCLES: usize = 25;

#[tokio::test]
async fn each_commit_is_one_fdatasync_of_the_journal() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let wire = Wire::connect(coordinator.endpoint()).await?;
    let place = tempdir()?;
    let trace = place.path().join("trace");
    let mut strace = match attach(&coordinator, &trace).await {
        Ok(strace) => strace,
        Err(why) => {
            skipped("one fdatasync for each commit", &format!("strace: {why}"));
            return Ok(());
        }
    };
    let before = wire.status().await?.revision;
    for number in 0..CYCLES {
        let lease = wire.acquire(request(&format!("request-{number}"))).await?;
        wire.release(&lease).await?;
    }
    let commits = wire.status().await?.revision - before;
    let id = strace.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    kill_process(id.expect("it runs"), Signal::INT)?;
    soon("the end of strace", strace.wait()).await?;

    let text = fs::read_to_string(&trace)?;
    let database = coordinator.data().join("journal").join("batches").join("db");
    let synced =
        |line: &&str| line.contains("fdatasync(") && line.contains(&database.display().to_string());
    let syncs = text.lines().filter(synced).count() as u64;
    assert!(commits >= 2 * CYCLES as u64, "{commits} commits of {CYCLES} cycles");
    assert_eq!(syncs, commits, "{text}");
    Ok(())
}

/// Follows every thread of the coordinator; why not, where that is not possible.
async fn attach(coordinator: &Coordinator, trace: &Path) -> Result<Child, String> {
    let id = coordinator.process_id().expect("it runs").to_string();
    let mut command = Command::new("strace");
    // -y names the file behind each descriptor.
    command
        .args(["-f", "-y", "-e", "trace=fdatasync,fsync,sync_file_range", "-p", &id, "-o"])
        .arg(trace);
    command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut strace = command.spawn().map_err(|error| error.to_string())?;
    let said = strace.stderr.take().ok_or("no stderr")?;
    let mut lines = BufReader::new(said).lines();
    let first = soon("strace's word that it follows", lines.next_line())
        .await
        .map_err(|error| error.to_string())?;
    match first {
        Some(line) if line.contains("attached") => {
            // Keep reading, or strace may block on a full pipe.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            Ok(strace)
        }
        said => Err(said.unwrap_or_else(|| "it ended".to_owned())),
    }
}
