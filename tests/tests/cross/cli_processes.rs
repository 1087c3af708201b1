//! What `gpulease run` starts: nothing of it is left behind, whoever is killed.
//!
//! A process that has ended can no longer hold a pipe open: the end of the command's stdout tells that nobody is left.

use gpulease::{Client, EndReason, LeaseEventKind};
use gpulease_tests::{
    coordinator::Coordinator, deadline::soon, events::Facts, shell::Shell, started::Started,
};
use rustix::process::{Pid, Signal, kill_process};

#[tokio::test]
async fn what_left_the_commands_process_group_ends_with_it() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let shell = Shell::at(coordinator.endpoint())?;
    // A session of its own, and an orphan at once; the command ends when it is up.
    let script =
        "(setsid sh -c 'sleep 600 & touch $0; wait' $0 &); while ! test -e $0; do :; done; exit 7";
    let folder = tempfile::tempdir()?;
    let up = folder.path().join("up").display().to_string();
    let mut run = Started::of(&shell, &["run", "--memory", "1GiB", "--", "sh", "-c", script, &up])?;
    assert_eq!(run.end().await?.code(), Some(7));
    assert_eq!(run.line().await?, None, "nobody is left");
    Ok(())
}

#[tokio::test]
async fn a_killed_run_takes_its_commands_process_group_along() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let shell = Shell::at(coordinator.endpoint())?;
    let script = "sleep 600 & echo ready; wait";
    let mut run = Started::of(&shell, &["run", "--memory", "1GiB", "--", "sh", "-c", script])?;
    assert_eq!(run.line().await?.as_deref(), Some("ready"));
    run.signal(Signal::KILL)?;
    run.end().await?;
    assert_eq!(run.line().await?, None, "the child of the command is gone too");
    Ok(())
}

#[tokio::test]
async fn orphans_below_a_command_leave_no_zombies() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let shell = Shell::at(coordinator.endpoint())?;
    // The orphan tells its id, then ends; the command ends once the system has forgotten it.
    let script =
        "id=$(sh -c 'sh -c \"echo \\$\\$\" &'); while test -e /proc/$id; do :; done; echo $id";
    let mut run = Started::of(&shell, &["run", "--memory", "1GiB", "--", "sh", "-c", script])?;
    assert!(run.line().await?.is_some_and(|line| line.parse::<i32>().is_ok()));
    assert_eq!(run.end().await?.code(), Some(0));
    Ok(())
}

#[tokio::test]
async fn over_the_socket_a_run_declares_itself_and_its_lease_is_open_once_it_is_gone()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("g.sock");
    let coordinator = Coordinator::settings().simulate("1x24GiB").socket(&socket).start().await?;
    let shell = Shell::at(&format!("unix://{}", socket.display()))?;
    let script = "echo $GPULEASE_LEASE_ID $PPID; sleep 600 & wait";
    let mut run = Started::of(&shell, &["run", "--memory", "1GiB", "--", "sh", "-c", script])?;
    let line = run.line().await?.unwrap_or_default();
    let (lease, parent) = line.split_once(' ').expect("an id and a pid");
    let shown = shell.json(&["show", lease]).await?;
    assert_eq!(shown["process"]["pid"].to_string(), parent, "{shown}");
    assert_eq!(run.process_id()?.as_raw_pid().to_string(), parent);
    run.signal(Signal::TERM)?;
    run.end().await?;
    let client = Client::connect(coordinator.endpoint()).await?;
    let ended = client.lease(lease.parse()?).await?.lease;
    assert_eq!(ended.end_reason, Some(EndReason::Released));
    Ok(())
}

#[tokio::test]
async fn an_acquired_lease_is_bound_to_no_process_unless_one_is_named() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("g.sock");
    let _coordinator = Coordinator::settings().simulate("1x24GiB").socket(&socket).start().await?;
    let shell = Shell::at(&format!("unix://{}", socket.display()))?;
    let memory = ["acquire", "--memory", "1GiB", "--ttl", "5m"];
    let lease = shell.json(&memory).await?;
    assert!(lease["process"].is_null(), "the process that acquires it is gone by now: {lease}");
    let own = std::process::id().to_string();
    let lease = shell.json(&[&memory[..], &["--process", &own]].concat()).await?;
    assert_eq!(lease["process"]["pid"].to_string(), own, "{lease}");
    Ok(())
}

#[tokio::test]
async fn what_a_command_cannot_be_told_is_an_object_under_json() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let shell = Shell::at(coordinator.endpoint())?;
    for (command, code) in [("no-such-program-anywhere", 127), ("/dev/null", 126)] {
        let arguments = ["run", "--json", "--memory", "1GiB", "--", command];
        let finished = shell.run(&arguments).await?;
        assert_eq!(finished.code(), Some(code), "{finished:?}");
        let told: serde_json::Value = serde_json::from_str(finished.stderr.trim())?;
        assert_eq!(told["exit_code"], code, "{told}");
        assert!(told["error"]["message"].as_str().is_some_and(|text| text.contains(command)));
    }
    Ok(())
}

/// The command ends by itself and leaves a child that takes its time.
#[tokio::test]
async fn a_lease_is_released_only_when_nothing_of_its_command_runs() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let client = Client::connect(coordinator.endpoint()).await?;
    let mut facts = Facts::from_now(&client).await?;
    let shell = Shell::at(coordinator.endpoint())?;
    let script = "sh -c 'trap \"echo asked; read go < $0; exit 0\" TERM; echo $$; sleep 600 & while :; do wait; done' \
                  \"$0\" & read go < \"$0\"";
    let folder = tempfile::tempdir()?;
    let fifo = folder.path().join("go");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status()?;
    assert!(made.success());
    let fifo_name = fifo.display().to_string();
    let arguments = ["run", "--memory", "1GiB", "--", "sh", "-c", script, &fifo_name];
    let mut run = Started::of(&shell, &arguments)?;
    let child = run.line().await?.unwrap_or_default().parse::<i32>()?;
    let go = || std::fs::write(&fifo, "go\n");
    go()?;
    assert_eq!(run.line().await?.as_deref(), Some("asked"));
    let lease_id = facts.leases(LeaseEventKind::Granted, 1).await[0].lease_id;
    assert_eq!(client.lease(lease_id).await?.lease.end_reason, None, "its child still runs");
    let child = Pid::from_raw(child).expect("a positive id");
    kill_process(child, Signal::KILL)?;
    soon("the end", run.end()).await?;
    let ended = facts.leases(LeaseEventKind::Ended, 1).await;
    assert_eq!(ended[0].end_reason, Some(EndReason::Released));
    Ok(())
}
