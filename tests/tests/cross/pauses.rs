//! Pauses with the real SDK and the real coordinator: a background holder gives way, waits, and goes on.

use std::time::Duration;

use gpulease::{
    Change, Client, ErrorKind, Grant, LeaseRequest, LeaseState, LeaseStatus, LostReason,
    PauseHandler, PauseReason, Preemptible, Priority, Target,
};
use gpulease_tests::{binary, coordinator::Coordinator, deadline::soon};
use tokio::{process::Command, sync::mpsc};

const WAIT: Duration = Duration::from_secs(60);

async fn client(coordinator: &Coordinator, holder: &str) -> Result<Client, gpulease::Error> {
    Client::builder().endpoint(coordinator.endpoint()).holder(holder).connect().await
}

fn background() -> LeaseRequest {
    LeaseRequest::exclusive().priority(Priority::Background).preemptible(Preemptible::Pause)
}

fn urgent() -> LeaseRequest {
    LeaseRequest::exclusive().priority(Priority::Immediate).wait(WAIT)
}

#[tokio::test]
async fn a_background_holder_gives_way_to_an_urgent_one_and_gets_its_turn_again()
-> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let lease = client(&coordinator, "trainer").await?.acquire(background()).await?;
    let first = lease.turn().await?;
    let other = client(&coordinator, "urgent").await?;
    let waiting = tokio::spawn(async move { other.acquire(urgent()).await });
    let reason = soon("the word to stop", first.stop_asked()).await;
    assert!(matches!(reason, Ok(PauseReason::Notice(_))), "{reason:?}");
    first.check()?;
    // Whoever asks for the next turn uses nothing now.
    let next = tokio::spawn(async move { (lease.turn().await, lease) });
    let theirs = soon("the urgent one's grant", waiting).await??;
    assert!(theirs.fencing_token() > first.fencing_token());
    assert_eq!(first.check().unwrap_err().kind(), ErrorKind::LeasePaused);
    assert!(!next.is_finished());
    theirs.release().await?;
    let (second, lease) = soon("the next turn", next).await?;
    let second = second?;
    assert!(second.fencing_token() > first.fencing_token());
    assert_eq!(second.devices(), first.devices(), "there is but one");
    second.check()?;
    assert_eq!(lease.info().preemptions, 1);
    Ok(())
}

#[tokio::test]
async fn a_lease_that_may_only_end_is_over_when_its_notice_is_acknowledged() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let request = background().preemptible(Preemptible::End);
    let lease = client(&coordinator, "batch").await?.acquire(request).await?;
    let other = client(&coordinator, "urgent").await?;
    let waiting = tokio::spawn(async move { other.acquire(urgent()).await });
    let notice = soon("a notice", lease.noticed()).await?;
    let status = lease.acknowledge(&notice).await?;
    assert!(matches!(status, LeaseStatus::Ended { .. }), "{status}");
    soon("the urgent one's grant", waiting).await??.release().await?;
    Ok(())
}

struct Hooks(mpsc::UnboundedSender<String>);

impl PauseHandler for Hooks {
    type Error = anyhow::Error;

    async fn pause(&mut self, _: &PauseReason) -> anyhow::Result<()> {
        Ok(self.0.send("pause".to_owned())?)
    }

    async fn resume(&mut self, grant: &Grant) -> anyhow::Result<()> {
        Ok(self.0.send(format!("resume on {}", grant.devices[0].uuid))?)
    }
}

#[tokio::test]
async fn a_drained_device_is_left_and_the_work_goes_on_elsewhere() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("2x24GiB").await?;
    let operator = client(&coordinator, "operator").await?;
    let lease = client(&coordinator, "engine").await?.acquire(background()).await?;
    let uuids: Vec<String> =
        operator.devices().await?.items.into_iter().map(|device| device.uuid).collect();
    let from = lease.devices()[0].uuid.clone();
    let to = uuids.iter().find(|uuid| **uuid != from).expect("there are two").clone();
    let id = lease.id();
    let (said, mut heard) = mpsc::unbounded_channel();
    let answering = tokio::spawn(async move { lease.answer_notices(&mut Hooks(said)).await });
    let drained = operator.drain(&Target::Device(from.clone()), "a new fan").await?;
    assert_eq!(drained.noticed, [id]);
    assert_eq!(soon("the pause", heard.recv()).await.as_deref(), Some("pause"));
    let resumed = soon("the resume", heard.recv()).await;
    assert_eq!(resumed, Some(format!("resume on {to}")));
    operator.uncordon(&Target::Device(from)).await?;
    operator.revoke(id, "enough").await?;
    let end = soon("the end", answering).await??;
    assert!(matches!(end, LostReason::Ended { .. }), "{end:?}");
    Ok(())
}

/// Notices and pauses outlive the coordinator, and nothing is told twice.
#[tokio::test]
async fn a_pausing_and_a_paused_holder_outlive_a_killed_coordinator() -> anyhow::Result<()> {
    let mut coordinator = Coordinator::simulate("1x24GiB").await?;
    let lease = client(&coordinator, "trainer").await?.acquire(background()).await?;
    let mut changes = lease.changes();
    let other = client(&coordinator, "urgent").await?;
    let waiting = tokio::spawn(async move { other.acquire(urgent()).await });
    let notice = soon("a notice", lease.noticed()).await?;
    coordinator.restart().await?;
    assert_eq!(lease.acknowledge(&notice).await?, LeaseStatus::Paused);
    let theirs = soon("the urgent one's grant", waiting).await??;
    let token = theirs.fencing_token();
    coordinator.restart().await?;
    assert_eq!(lease.status(), LeaseStatus::Paused);
    theirs.release().await?;
    let grant = soon("the resume", lease.resumed()).await?;
    assert!(grant.fencing_token > token);
    let mut told = vec![];
    while !matches!(told.last(), Some(Change::Resumed(_))) {
        told.push(soon("a change", changes.next()).await.expect("there are more"));
    }
    let pauses = told.iter().filter(|change| matches!(change, Change::Paused)).count();
    let notices = told.iter().filter(|change| matches!(change, Change::Noticed(_))).count();
    assert_eq!((notices, pauses), (1, 1), "{told:?}");
    Ok(())
}

#[tokio::test]
async fn a_holder_on_the_socket_declares_its_process() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("gpulease.sock");
    let settings = Coordinator::settings().simulate("1x24GiB").socket(&socket);
    let coordinator = settings.start().await?;
    let endpoint = format!("unix://{}", socket.display());
    let local = Client::connect(&endpoint).await?;
    let lease = local.acquire(LeaseRequest::slots(1)).await?;
    let process = lease.info().process.expect("it is declared by default");
    assert_eq!(process.pid, std::process::id());
    assert!(process.started_ticks.is_some());
    lease.release().await?;
    // Whoever repeats a request by its id gets the lease, be it another process: so that one declares none.
    let named = async || -> Result<_, gpulease::Error> {
        let holder = Client::builder().endpoint(&endpoint).holder("named").connect().await?;
        holder.acquire(LeaseRequest::memory(1 << 30).request_id("repeated")).await
    };
    let (first, second) = (named().await?, named().await?);
    assert_eq!((first.id(), first.info().process), (second.id(), None));
    let remote = client(&coordinator, "remote").await?;
    let lease = remote.acquire(LeaseRequest::memory(1 << 30)).await?;
    assert_eq!((lease.info().process, lease.info().state), (None, LeaseState::Active));
    Ok(())
}

/// Each against a coordinator of its own, and the owner's without any too.
#[tokio::test]
async fn the_examples_run_and_end_by_themselves() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let run = async |name: &str, endpoint: &str| -> anyhow::Result<String> {
        let mut command = Command::new(binary::example(name)?);
        command.env("GPULEASE_ENDPOINT", endpoint).env("GPU_REQUEST_TIMEOUT", "1");
        let output = soon(name, command.kill_on_drop(true).output()).await?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        anyhow::ensure!(output.status.success(), "{name}: {output:?}");
        Ok(said)
    };
    let endpoint = coordinator.endpoint();
    assert!(run("acquire_release", endpoint).await?.contains("is ENDED"));
    let trainer = run("background_trainer", endpoint).await?;
    for line in ["trainer: paused", "transcription: done", "trainer: resumed with token 4"] {
        assert!(trainer.contains(line), "no {line:?} in:\n{trainer}");
    }
    assert!(run("transcription_owner", endpoint).await?.contains("100 % on a GPU"));
    assert!(run("metrics_subscriber", endpoint).await?.contains("is AVAILABLE"));
    let nobody = run("transcription_owner", "http://127.0.0.1:1").await?;
    assert!(nobody.contains("100 % fell back"), "{nobody}");
    Ok(())
}
