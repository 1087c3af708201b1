//! `gpulease run`: the environment, the exit code, signals, and the release behind all of them.

use gpulease::{Client, EndReason, LeaseEventKind};
use gpulease_tests::{coordinator::Coordinator, deadline::soon, events::Facts, shell::Shell};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout},
};

#[tokio::test]
async fn the_command_sees_its_devices_and_its_exit_code_is_the_verbs() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("2x24GiB").await?;
    let shell = Shell::at(coordinator.endpoint())?;
    let script = "echo $CUDA_VISIBLE_DEVICES $CUDA_DEVICE_ORDER $GPULEASE_LEASE_ID $GPULEASE_FENCING_TOKEN \
                  $GPULEASE_ENDPOINT; exit 7";
    let finished = shell.run(&["run", "--devices", "2", "--", "sh", "-c", script]).await?;
    assert_eq!(finished.code(), Some(7), "{finished:?}");
    let words: Vec<_> = finished.stdout.split_whitespace().collect();
    let [devices, order, id, token, endpoint] = words[..] else { panic!("{finished:?}") };
    let client = Client::connect(coordinator.endpoint()).await?;
    let known: Vec<_> =
        client.devices().await?.items.into_iter().map(|device| device.uuid).collect();
    assert_eq!(devices, known.join(","));
    assert_eq!((order, endpoint), ("PCI_BUS_ID", coordinator.endpoint()));
    let lease = client.lease(id.parse()?).await?.lease;
    assert_eq!(lease.fencing_token.to_string(), token);
    assert_eq!(lease.end_reason, Some(EndReason::Released));
    Ok(())
}

#[tokio::test]
async fn commands_that_cannot_run_and_leases_that_cannot_be_had_have_their_own_codes()
-> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let shell = Shell::at(coordinator.endpoint())?;
    let memory = ["run", "--memory", "1GiB", "--wait", "0", "--"];
    let code = async |command: &[&str]| {
        shell.run(&[&memory[..], command].concat()).await.map(|end| end.code())
    };
    assert_eq!(code(&["no-such-program-anywhere"]).await?, Some(127));
    assert_eq!(code(&["/dev/null"]).await?, Some(126));
    assert_eq!(code(&["sh", "-c", "kill -9 $$"]).await?, Some(128 + 9));
    shell.json(&["acquire", "--exclusive", "--ttl", "300s"]).await?;
    assert_eq!(code(&["true"]).await?, Some(125));
    Ok(())
}

#[tokio::test]
async fn a_signal_reaches_the_command_and_the_lease_is_released_behind_it() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let client = Client::connect(coordinator.endpoint()).await?;
    let mut facts = Facts::from_now(&client).await?;
    let (mut child, _stdout) = start_and_wait(&coordinator, "trap 'exit 9' TERM").await?;
    let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    kill_process(id.expect("it runs"), Signal::TERM)?;
    let status = soon("the end of gpulease run", child.wait()).await?;
    assert_eq!(status.code(), Some(9));
    let ended = facts.leases(LeaseEventKind::Ended, 1).await;
    assert_eq!(ended[0].end_reason, Some(EndReason::Released));
    Ok(())
}

#[tokio::test]
async fn a_lost_lease_stops_the_command_with_a_code_of_its_own() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let client = Client::connect(coordinator.endpoint()).await?;
    let mut facts = Facts::from_now(&client).await?;
    let (mut child, _stdout) = start_and_wait(&coordinator, ":").await?;
    let granted = facts.leases(LeaseEventKind::Granted, 1).await;
    client.revoke(granted[0].lease_id, "the test says so").await?;
    let status = soon("the end of gpulease run", child.wait()).await?;
    assert_eq!(status.code(), Some(124));
    Ok(())
}

#[tokio::test]
async fn local_starts_a_coordinator_for_the_time_of_the_command() -> anyhow::Result<()> {
    let shell = Shell::at("http://127.0.0.1:1")?;
    let arguments = ["run", "--local-simulate", "2x24GiB", "--memory", "1GiB", "--"];
    let script = "gpulease=$GPULEASE_ENDPOINT; test -n \"$gpulease\" && echo $CUDA_VISIBLE_DEVICES";
    let finished = shell.run(&[&arguments[..], &["sh", "-c", script]].concat()).await?;
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    assert!(finished.stdout.starts_with("SIM-"), "{finished:?}");
    Ok(())
}

#[tokio::test]
async fn local_without_a_driver_names_the_way_to_try_it() -> anyhow::Result<()> {
    let shell = Shell::at("http://127.0.0.1:1")?;
    let mut command = shell.command(&["run", "--local", "--memory", "1GiB", "--", "true"]);
    // The coordinator that it starts has this environment too.
    let ended = command.env("GPULEASE_DEVICES_DRIVER", "none").output();
    let ended = soon("the end of gpulease run", ended).await?;
    assert_eq!(ended.status.code(), Some(125), "{ended:?}");
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert!(stderr.contains("--local-simulate 2x24GiB"), "{stderr}");
    Ok(())
}

/// Starts a command under `run` that says "ready" and then waits for a signal; returns when it said so.
async fn start_and_wait(
    coordinator: &Coordinator,
    first: &str,
) -> anyhow::Result<(Child, Lines<BufReader<ChildStdout>>)> {
    let shell = Shell::at(coordinator.endpoint())?;
    let script = format!("{first}; echo ready; sleep 600 & wait");
    let arguments = ["run", "--memory", "1GiB", "--", "sh", "-c", &script];
    let mut child = shell.command(&arguments).spawn()?;
    let stdout = child.stdout.take().expect("it was piped");
    let mut lines = BufReader::new(stdout).lines();
    assert_eq!(soon("the command's word", lines.next_line()).await?.as_deref(), Some("ready"));
    Ok((child, lines))
}
