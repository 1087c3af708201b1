//! What else the binary shows: HTTP for probes, its configuration, the event stream and held leases in a shell.

use gpulease::{Client, EndReason, LeaseEventKind, LeaseRequest};
use gpulease_tests::{coordinator::Coordinator, deadline::soon, events::Facts, shell::Shell};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStdout},
};

#[tokio::test]
async fn http_tells_life_readiness_and_figures() -> anyhow::Result<()> {
    let coordinator = Coordinator::settings().simulate("2x24GiB").http().start().await?;
    let lease =
        Client::connect(coordinator.endpoint()).await?.acquire(LeaseRequest::exclusive()).await?;
    assert_eq!(fetch(&coordinator, "/livez").await?.0, 200);
    assert_eq!(fetch(&coordinator, "/readyz").await?.0, 200);
    let (code, body) = fetch(&coordinator, "/status").await?;
    let status: Value = serde_json::from_str(&body)?;
    assert_eq!(
        (code, &status["serving"], &status["devices"]),
        (200, &true.into(), &2.into()),
        "{body}"
    );
    assert_eq!(fetch(&coordinator, "/nothing").await?.0, 404);
    lease.release().await?;
    Ok(())
}

#[tokio::test]
async fn the_configuration_that_is_printed_can_be_read_again() -> anyhow::Result<()> {
    let shell = Shell::at("http://127.0.0.1:1")?;
    let printed = shell.run(&["serve", "--print-config", "--listen", "127.0.0.1:0"]).await?;
    assert_eq!(printed.code(), Some(0), "{printed:?}");
    let place = tempfile::tempdir()?;
    let file = place.path().join("gpulease.toml");
    std::fs::write(&file, &printed.stdout)?;
    let again =
        shell.run(&["serve", "--print-config", "--config", &file.display().to_string()]).await?;
    assert_eq!(again.code(), Some(0), "{again:?}");
    let settings = |text: &str| {
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or("").trim().to_owned());
        lines.filter(|line| !line.is_empty()).collect::<Vec<_>>()
    };
    assert_eq!(settings(&again.stdout), settings(&printed.stdout));
    Ok(())
}

#[tokio::test]
async fn events_from_the_beginning_tell_a_leases_life_line_by_line() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let client = Client::connect(coordinator.endpoint()).await?;
    client.acquire(LeaseRequest::exclusive()).await?.release().await?;
    let shell = Shell::at(coordinator.endpoint())?;
    let (_child, mut lines) = start(&shell, &["events", "--after", "0", "--json"])?;
    let (mut kinds, mut revision) = (Vec::new(), 0);
    while kinds.last().is_none_or(|kind| kind != "ENDED") {
        let line = soon("the next event", lines.next_line()).await?.expect("the stream goes on");
        let event: Value = serde_json::from_str(&line)?;
        let next = event["revision"].as_u64().expect("an event has a revision");
        assert!(next >= revision, "{event}");
        revision = next;
        if event["type"] == "lease" {
            kinds.push(event["kind"].as_str().unwrap_or_default().to_owned());
        }
    }
    assert!(kinds.contains(&"GRANTED".to_owned()), "{kinds:?}");
    Ok(())
}

#[tokio::test]
async fn a_held_lease_lives_until_the_shell_is_interrupted_and_is_then_released()
-> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let mut facts = Facts::from_now(&Client::connect(coordinator.endpoint()).await?).await?;
    let shell = Shell::at(coordinator.endpoint())?;
    let (mut child, mut lines) = start(&shell, &["acquire", "--exclusive", "--hold", "--json"])?;
    let line = soon("the lease", lines.next_line()).await?.expect("it says what it got");
    let lease: Value = serde_json::from_str(&line)?;
    assert_eq!(lease["state"], "ACTIVE");
    let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    kill_process(id.expect("it runs"), Signal::INT)?;
    assert_eq!(soon("its end", child.wait()).await?.code(), Some(0));
    let ended = facts.leases(LeaseEventKind::Ended, 1).await;
    assert_eq!(ended[0].end_reason, Some(EndReason::Released));
    Ok(())
}

#[tokio::test]
async fn help_names_every_verb_and_completions_are_a_script() -> anyhow::Result<()> {
    let shell = Shell::at("http://127.0.0.1:1")?;
    let help = shell.run(&["--help"]).await?;
    assert_eq!(help.code(), Some(0));
    let verbs = [
        "serve",
        "devices",
        "acquire",
        "release",
        "renew",
        "revoke",
        "leases",
        "show",
        "events",
        "run",
        "completions",
    ];
    for verb in verbs {
        assert!(
            help.stdout.lines().any(|line| line.trim_start().starts_with(verb)),
            "{verb}: {}",
            help.stdout
        );
        assert_eq!(shell.run(&[verb, "--help"]).await?.code(), Some(0), "{verb}");
    }
    let script = shell.run(&["completions", "bash"]).await?;
    assert!(script.stdout.contains("gpulease") && script.code() == Some(0), "{script:?}");
    Ok(())
}

fn start(
    shell: &Shell,
    arguments: &[&str],
) -> anyhow::Result<(Child, Lines<BufReader<ChildStdout>>)> {
    let mut child = shell.command(arguments).spawn()?;
    let stdout = child.stdout.take().expect("it was piped");
    Ok((child, BufReader::new(stdout).lines()))
}

/// A path's status code and body, over one connection that is closed behind it.
pub(super) async fn fetch(coordinator: &Coordinator, path: &str) -> anyhow::Result<(u16, String)> {
    let http = coordinator.ready().http.as_deref().expect("it serves HTTP");
    let host = http.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    soon("the answer over HTTP", stream.read_to_string(&mut answer)).await?;
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    let code = head.split(' ').nth(1).expect("a status line has a code").parse()?;
    Ok((code, body.to_owned()))
}
