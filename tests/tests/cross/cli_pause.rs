//! `gpulease run` gives way: hooks, signals, deadlines, and what becomes of the command.

use std::{fs, path::Path, time::Duration};

use gpulease::{Client, EndReason, Lease, LeaseRequest, Priority};
use gpulease_tests::{coordinator::Coordinator, deadline::soon, shell::Shell, started::Started};
use rustix::process::Signal;
use tokio::task::JoinHandle;

const WAIT: Duration = Duration::from_secs(60);

/// Runs a shell script under a whole device in the background, told in JSON; returns when it said "ready PID".
async fn background(
    shell: &Shell,
    options: &[&str],
    script: &str,
) -> anyhow::Result<(Started, String)> {
    let fixed = ["run", "--json", "--exclusive", "--priority", "background"];
    let script = format!("{script}\necho ready $$\nsleep 600 & while :; do wait $!; done");
    let arguments = [&fixed[..], options, &["--", "sh", "-c", &script]].concat();
    let mut run = Started::of(shell, &arguments)?;
    let line = run.line().await?.expect("it runs");
    let pid = line.strip_prefix("ready ").expect("its word").to_owned();
    Ok((run, pid))
}

/// Asks for the same device at once.
async fn urgent(
    coordinator: &Coordinator,
) -> anyhow::Result<JoinHandle<Result<Lease, gpulease::Error>>> {
    let client = Client::connect(coordinator.endpoint()).await?;
    let request = LeaseRequest::exclusive().priority(Priority::Immediate).wait(WAIT);
    Ok(tokio::spawn(async move { client.acquire(request).await }))
}

/// What a hook saw of its environment.
fn variable(file: &Path, name: &str) -> anyhow::Result<Option<String>> {
    let text = fs::read_to_string(file)?;
    let value = text.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
    Ok(value.map(str::to_owned))
}

#[tokio::test]
async fn a_background_run_pauses_for_an_urgent_request_and_goes_on_behind_it() -> anyhow::Result<()>
{
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let shell = Shell::at(coordinator.endpoint())?;
    let seen = tempfile::tempdir()?;
    let (paused, resumed) = (seen.path().join("paused"), seen.path().join("resumed"));
    let on_pause = format!("env > {}", paused.display());
    let on_resume = format!("echo seen; env > {}", resumed.display());
    let options = ["--on-pause", &on_pause, "--on-resume", &on_resume];
    let (mut run, pid) = background(&shell, &options, "").await?;
    let urgent = urgent(&coordinator).await?;
    let noticed = run.event("noticed").await?;
    let told = run.event("paused").await?;
    assert!(told["took_seconds"].as_f64().is_some_and(|took| took < 30.0), "{told}");
    let theirs = soon("the urgent grant", urgent).await??;
    theirs.release().await?;
    let told = run.event("resumed").await?;
    assert_eq!(told["fencing_token"], 3, "{told}");
    assert!(told["paused_seconds"].is_number(), "{told}");
    let expected = [
        ("GPULEASE_LEASE_ID", noticed["id"].as_str()),
        ("GPULEASE_NOTICE_ID", noticed["notice"]["id"].as_str()),
        ("GPULEASE_FENCING_TOKEN", Some("1")),
        ("GPULEASE_CHILD_PID", Some(&pid)),
        ("GPULEASE_ENDPOINT", Some(coordinator.endpoint())),
        ("CUDA_VISIBLE_DEVICES", told["devices"][0]["uuid"].as_str()),
    ];
    for (name, value) in expected {
        assert_eq!(variable(&paused, name)?.as_deref(), value, "{name}");
    }
    let left = variable(&paused, "GPULEASE_NOTICE_SECONDS")?.and_then(|text| text.parse().ok());
    assert!(left.is_some_and(|left: u64| left < 30), "{left:?}");
    // The event comes before the hook: it has run when the next one comes.
    let next = self::urgent(&coordinator).await?;
    run.event("paused").await?;
    assert_eq!(variable(&resumed, "GPULEASE_FENCING_TOKEN")?.as_deref(), Some("3"));
    assert_eq!(variable(&resumed, "GPULEASE_NOTICE_ID")?, None);
    soon("the second urgent grant", next).await??.release().await?;
    run.event("resumed").await?;
    run.signal(Signal::TERM)?;
    assert_eq!(run.end().await?.code(), Some(128 + 15));
    assert_eq!(run.line().await?, None, "stdout is the command's alone");
    Ok(())
}

#[tokio::test]
async fn a_missed_deadline_ends_the_command_and_serves_the_other() -> anyhow::Result<()> {
    let coordinator = Coordinator::settings()
        .simulate("1x24GiB")
        .environment("GPULEASE_LEASES_NOTICE", "500ms")
        .environment("GPULEASE_LEASES_LOCK_DELAY", "1s")
        .start()
        .await?;
    let shell = Shell::at(coordinator.endpoint())?;
    let (mut run, _) = background(&shell, &["--on-pause", "sleep 600"], "").await?;
    let urgent = urgent(&coordinator).await?;
    let noticed = run.event("noticed").await?;
    let failed = run.told(|value| value["error"].is_object()).await?;
    assert_eq!(failed["exit_code"], 124, "{failed}");
    let message = failed["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("not acknowledged by the deadline"), "{message}");
    assert_eq!(run.end().await?.code(), Some(124));
    assert_eq!(run.line().await?, None, "the whole group is gone, and so is the hook");
    let theirs = soon("the urgent grant", urgent).await??;
    let id = noticed["id"].as_str().unwrap_or_default().parse()?;
    let client = Client::connect(coordinator.endpoint()).await?;
    let ended = client.lease(id).await?.lease;
    assert_eq!(ended.end_reason, Some(EndReason::Revoked), "{ended:?}");
    theirs.release().await?;
    Ok(())
}

#[tokio::test]
async fn a_hook_that_fails_answers_nothing_and_a_withdrawn_notice_lets_the_command_go_on()
-> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let shell = Shell::at(coordinator.endpoint())?;
    // What hooks print goes to stderr.
    let on_resume = "echo '{\"event\":\"hook\"}'";
    let options = ["--on-pause", "exit 3", "--on-resume", on_resume];
    let (mut run, _) = background(&shell, &options, "").await?;
    let urgent = urgent(&coordinator).await?;
    let warned = run.told(|value| value["warning"].is_string()).await?;
    let warning = warned["warning"].as_str().unwrap_or_default();
    assert!(
        warning.contains("stays unanswered") && warning.contains("exit status: 3"),
        "{warning}"
    );
    // Whoever needed the devices needs them no longer.
    urgent.abort();
    run.event("notice_withdrawn").await?;
    run.event("hook").await?;
    run.signal(Signal::TERM)?;
    assert_eq!(run.end().await?.code(), Some(128 + 15));
    Ok(())
}

#[tokio::test]
async fn a_command_that_handles_the_signal_pauses_by_stopping_itself() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let shell = Shell::at(coordinator.endpoint())?;
    let script = "trap 'echo freed; kill -STOP $$; echo on' USR1";
    let (mut run, _) = background(&shell, &["--pause-signal", "USR1"], script).await?;
    let urgent = urgent(&coordinator).await?;
    run.event("paused").await?;
    assert_eq!(run.line().await?.as_deref(), Some("freed"));
    soon("the urgent grant", urgent).await??.release().await?;
    run.event("resumed").await?;
    assert_eq!(run.line().await?.as_deref(), Some("on"));
    run.signal(Signal::TERM)?;
    assert_eq!(run.end().await?.code(), Some(128 + 15));
    Ok(())
}

#[tokio::test]
async fn a_signal_that_the_command_does_not_handle_is_not_sent() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let shell = Shell::at(coordinator.endpoint())?;
    let (mut run, pid) = background(&shell, &["--pause-signal", "USR1"], "").await?;
    let urgent = urgent(&coordinator).await?;
    let warned = run.told(|value| value["warning"].is_string()).await?;
    let expected = format!("process {pid} does not handle SIGUSR1");
    assert!(warned["warning"].as_str().is_some_and(|text| text.contains(&expected)), "{warned}");
    urgent.abort();
    run.event("notice_withdrawn").await?;
    // USR1 would have ended it.
    run.signal(Signal::TERM)?;
    assert_eq!(run.end().await?.code(), Some(128 + 15));
    Ok(())
}

#[tokio::test]
async fn a_paused_command_can_still_be_stopped() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let shell = Shell::at(coordinator.endpoint())?;
    let script = "trap 'kill -STOP $$' USR1; trap 'exit 9' INT";
    let (mut run, _) = background(&shell, &["--pause-signal", "USR1"], script).await?;
    let urgent = urgent(&coordinator).await?;
    run.event("paused").await?;
    let theirs = soon("the urgent grant", urgent).await??;
    run.signal(Signal::INT)?;
    assert_eq!(run.end().await?.code(), Some(9));
    theirs.release().await?;
    Ok(())
}

#[tokio::test]
async fn other_devices_than_it_was_started_with_stop_a_command_that_cannot_be_told()
-> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("2x24GiB").await?;
    let shell = Shell::at(coordinator.endpoint())?;
    let (mut run, _) = background(&shell, &["--on-pause", "true"], "").await?;
    shell.json(&["drain", devices(&shell).await?[0].as_str()]).await?;
    run.event("resumed").await?;
    let failed = run.told(|value| value["error"].is_object()).await?;
    let message = failed["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("other devices") && message.contains("--on-resume"), "{message}");
    assert_eq!(run.end().await?.code(), Some(124));
    Ok(())
}

#[tokio::test]
async fn a_drained_command_that_can_be_told_goes_on_elsewhere() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("2x24GiB").await?;
    let shell = Shell::at(coordinator.endpoint())?;
    let seen = tempfile::tempdir()?;
    let fifo = seen.path().join("devices");
    let on_resume =
        format!("echo $CUDA_VISIBLE_DEVICES > {}; kill -USR2 $GPULEASE_CHILD_PID", fifo.display());
    let script = format!("trap 'cat {}' USR2", fifo.display());
    let options = ["--on-pause", "true", "--on-resume", &on_resume];
    let (mut run, _) = background(&shell, &options, &script).await?;
    let uuids = devices(&shell).await?;
    shell.json(&["drain", &uuids[0]]).await?;
    assert_eq!(run.line().await?.as_ref(), Some(&uuids[1]), "its command read the new device");
    run.signal(Signal::TERM)?;
    assert_eq!(run.end().await?.code(), Some(128 + 15));
    Ok(())
}

#[tokio::test]
async fn a_lease_that_may_only_end_stops_its_command_on_a_notice() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let shell = Shell::at(coordinator.endpoint())?;
    let script = "trap 'echo saved; exit 0' TERM";
    let (mut run, _) = background(&shell, &["--preemptible", "end"], script).await?;
    let urgent = urgent(&coordinator).await?;
    assert_eq!(run.line().await?.as_deref(), Some("saved"));
    assert_eq!(run.end().await?.code(), Some(124));
    let theirs = soon("the urgent grant", urgent).await??;
    let client = Client::connect(coordinator.endpoint()).await?;
    let ended = client.lease(1).await?.lease;
    assert_eq!(ended.end_reason, Some(EndReason::Revoked), "{ended:?}");
    theirs.release().await?;
    Ok(())
}

#[tokio::test]
async fn pausing_without_a_way_to_free_memory_is_refused_before_anything_is_asked_for()
-> anyhow::Result<()> {
    let shell = Shell::at("http://127.0.0.1:1")?;
    let run = ["run", "--preemptible", "pause"];
    for (more, word) in [
        (&[][..], "--on-pause CMD"),
        (&["--pause-signal", "STOP"][..], "no process can handle it"),
        (&["--on-resume", "true"][..], "frees no device memory"),
    ] {
        let arguments = [&run[..], more, &["--", "true"]].concat();
        let finished = shell.run(&arguments).await?;
        assert_eq!(finished.code(), Some(2), "{finished:?}");
        assert!(finished.stderr.contains(word), "{finished:?}");
    }
    Ok(())
}

/// The devices' UUIDs, in order.
async fn devices(shell: &Shell) -> anyhow::Result<Vec<String>> {
    let devices = shell.lines(&["devices"]).await?;
    let uuid = |device: &serde_json::Value| device["uuid"].as_str().unwrap_or_default().to_owned();
    Ok(devices.iter().map(uuid).collect())
}
