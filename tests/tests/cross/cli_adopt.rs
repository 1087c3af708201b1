//! `gpulease adopt`: a lease for a process that somebody else started.

use std::{path::Path, time::Duration};

use gpulease::{Client, EndReason, LeaseRequest, Priority};
use gpulease_fake_nvml::uuid;
use gpulease_tests::{
    coordinator::Coordinator,
    deadline::soon,
    nvidia::{NvidiaHost, Program},
    shell::Shell,
    skip::skipped_optional,
    started::Started,
    wire::GIB,
};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// A coordinator with a socket, and a shell at it.
async fn at_socket() -> anyhow::Result<(Coordinator, Shell, TempDir)> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("g.sock");
    let coordinator = Coordinator::settings().simulate("1x24GiB").socket(&socket).start().await?;
    Ok((coordinator, Shell::at(&endpoint(&socket))?, folder))
}

fn endpoint(socket: &Path) -> String {
    format!("unix://{}", socket.display())
}

/// A process that gpulease did not start.
fn stranger() -> anyhow::Result<(Child, String)> {
    let child = Command::new("sleep").arg("600").kill_on_drop(true).spawn()?;
    let id = child.id().map(|id| id.to_string()).unwrap_or_default();
    Ok((child, id))
}

#[tokio::test]
async fn an_adopted_process_has_its_lease_until_it_ends() -> anyhow::Result<()> {
    let (coordinator, shell, _folder) = at_socket().await?;
    let (mut child, id) = stranger()?;
    let mut adopt = Started::of(&shell, &["adopt", "--json", "--pid", &id, "--memory", "8GiB"])?;
    let granted = adopt.object().await?;
    assert_eq!(granted["state"], "ACTIVE", "{granted}");
    assert_eq!(granted["process"]["pid"].to_string(), id, "{granted}");
    child.kill().await?;
    let released = adopt.object().await?;
    assert_eq!(released["end_reason"], "RELEASED", "{released}");
    assert_eq!(adopt.end().await?.code(), Some(0));
    let client = Client::connect(coordinator.endpoint()).await?;
    let lease = client.lease(granted["id"].as_str().unwrap_or_default().parse()?).await?.lease;
    assert_eq!(lease.end_reason, Some(EndReason::Released));
    Ok(())
}

#[tokio::test]
async fn an_interrupt_releases_the_lease_and_leaves_the_process_alone() -> anyhow::Result<()> {
    let (_coordinator, shell, _folder) = at_socket().await?;
    let (mut child, id) = stranger()?;
    let mut adopt = Started::of(&shell, &["adopt", "--json", "--pid", &id, "--exclusive"])?;
    adopt.object().await?;
    adopt.signal(Signal::INT)?;
    assert_eq!(adopt.object().await?["end_reason"], "RELEASED");
    assert_eq!(adopt.end().await?.code(), Some(0));
    assert!(child.try_wait()?.is_none(), "it still runs");
    Ok(())
}

#[tokio::test]
async fn an_adopted_process_gives_way_by_its_hooks() -> anyhow::Result<()> {
    let (coordinator, shell, _folder) = at_socket().await?;
    let (_child, id) = stranger()?;
    let options = ["--on-pause", "test $GPULEASE_CHILD_PID = $0", "--on-resume", "true"];
    let options = options.map(|word| word.replace("$0", &id));
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let fixed = ["adopt", "--json", "--pid", &id, "--exclusive", "--priority", "background"];
    let mut adopt = Started::of(&shell, &[&fixed[..], &options].concat())?;
    adopt.object().await?;
    let client = Client::connect(coordinator.endpoint()).await?;
    let wait = Duration::from_secs(60);
    let request = LeaseRequest::exclusive().priority(Priority::Immediate).wait(wait);
    let theirs = soon("the urgent grant", client.acquire(request)).await?;
    adopt.event("paused").await?;
    theirs.release().await?;
    adopt.event("resumed").await?;
    Ok(())
}

#[tokio::test]
async fn the_lease_is_for_the_device_that_the_process_uses_already() -> anyhow::Result<()> {
    let host = NvidiaHost::with(2).await?;
    let program = Program::start()?;
    host.fake.run_process(&uuid(1), program.pid(), 2 * GIB)?;
    host.process_until(program.pid(), "it is seen", |process| process.lease_id == 0).await?;
    let shell = Shell::at(&host.endpoint())?;
    let id = program.pid().to_string();
    let mut adopt = Started::of(&shell, &["adopt", "--json", "--pid", &id, "--memory", "8GiB"])?;
    let granted = adopt.object().await?;
    assert_eq!(granted["devices"][0]["uuid"], uuid(1), "{granted}");
    let lease: u64 = granted["id"].as_str().unwrap_or_default().parse()?;
    let theirs = |process: &gpulease_proto::v1::DeviceProcess| process.lease_id == lease;
    host.process_until(program.pid(), "its memory is its lease's", theirs).await?;
    Ok(())
}

#[tokio::test]
async fn a_process_that_ends_in_the_queue_needs_no_lease_any_more() -> anyhow::Result<()> {
    let (_coordinator, shell, _folder) = at_socket().await?;
    shell.json(&["acquire", "--exclusive", "--ttl", "5m"]).await?;
    let (mut child, id) = stranger()?;
    let arguments = ["adopt", "--json", "--pid", &id, "--exclusive", "--wait", "10m"];
    let mut adopt = Started::of(&shell, &arguments)?;
    let queued = adopt.event("queued").await?;
    child.kill().await?;
    assert_eq!(adopt.end().await?.code(), Some(1));
    let shown = shell.json(&["show", queued["id"].as_str().unwrap_or_default()]).await?;
    assert_eq!(shown["end_reason"], "CANCELLED", "{shown}");
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_adopted_is_refused_with_the_reason() -> anyhow::Result<()> {
    let (coordinator, shell, _folder) = at_socket().await?;
    let (mut child, id) = stranger()?;
    let refused = async |shell: &Shell, more: &[&str], code: i32, word: &str| {
        let arguments = [&["adopt", "--memory", "1GiB"], more].concat();
        let (exit, told) = shell.failure(&arguments).await?;
        assert_eq!(exit, code, "{told}");
        let message = told["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(word), "{message}");
        anyhow::Ok(())
    };
    let tcp = Shell::at(coordinator.endpoint())?;
    refused(&tcp, &["--pid", &id], 2, "over http://").await?;
    refused(&shell, &["--pid", &id, "--preemptible", "end"], 2, "ends no process").await?;
    child.kill().await?;
    child.wait().await?;
    refused(&shell, &["--pid", &id], 5, "there is no process").await?;
    if geteuid().is_root() {
        skipped_optional("adopting another user's process", "a user other than root");
        return Ok(());
    }
    refused(&shell, &["--pid", "1"], 1, "process 1 is user 0's").await
}

#[tokio::test]
async fn a_lost_lease_leaves_the_process_alone() -> anyhow::Result<()> {
    let (_coordinator, shell, _folder) = at_socket().await?;
    let (mut child, id) = stranger()?;
    let mut adopt = Started::of(&shell, &["adopt", "--json", "--pid", &id, "--exclusive"])?;
    let granted = adopt.object().await?;
    let lease = granted["id"].as_str().unwrap_or_default();
    shell.json(&["revoke", lease, "--reason", "the test says so"]).await?;
    assert_eq!(adopt.end().await?.code(), Some(1));
    assert!(child.try_wait()?.is_none(), "it still runs");
    let pid = Pid::from_raw(id.parse()?).expect("a positive id");
    kill_process(pid, Signal::KILL)?;
    Ok(())
}
