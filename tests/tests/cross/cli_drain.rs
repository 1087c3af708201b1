//! The operator's verbs: cordon, drain, open, explain, processes; and answering notices by number.

use gpulease_tests::{coordinator::Coordinator, shell::Shell, started::Started};
use serde_json::{Value, json};

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The one device that a test has.
async fn device(shell: &Shell) -> anyhow::Result<Value> {
    Ok(shell.lines(&["devices"]).await?.remove(0))
}

fn place(device: &Value) -> String {
    format!("{}/{}", text(&device["node"]), device["index"])
}

#[tokio::test]
async fn a_drain_waits_until_nobody_holds_anything_there() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let shell = Shell::at(coordinator.endpoint())?;
    let stays = shell.json(&["acquire", "--memory", "1GiB", "--ttl", "5m"]).await?;
    let pause = ["--preemptible", "pause", "--ttl", "5m"];
    let goes = shell.json(&[&["acquire", "--memory", "1GiB"][..], &pause].concat()).await?;
    let node = text(&device(&shell).await?["node"]).to_owned();
    let arguments = ["drain", &node, "--reason", "a new riser", "--wait", "--json"];
    let mut drain = Started::of(&shell, &arguments)?;
    let drained = drain.object().await?;
    assert_eq!(drained["staying"], json!([stays["id"]]), "{drained}");
    assert_eq!(drained["noticed"], json!([goes["id"]]), "{drained}");
    let shown = device(&shell).await?;
    assert_eq!(shown["cordon"], json!({"node": true, "drain": true, "reason": "a new riser"}));
    assert_eq!(shown["state"], "CORDONED");

    let renewed = shell.json(&["renew", text(&goes["id"])]).await?;
    assert_eq!(renewed["state"], "PAUSING", "{renewed}");
    let notice = text(&renewed["notice"]["id"]);
    let extend = ["extend", text(&goes["id"]), "--notice", notice, "--by", "20s"];
    let left = shell.json(&extend).await?["notice"]["remaining_seconds"].as_f64();
    assert!(left.is_some_and(|left| left > 40.0), "{left:?}");
    let answered = shell.json(&["acknowledge", text(&goes["id"]), "--notice", notice]).await?;
    assert_eq!(answered["state"], "PAUSED", "{answered}");
    shell.json(&["release", text(&stays["id"])]).await?;
    assert_eq!(drain.end().await?.code(), Some(0));

    shell.json(&["uncordon", &node]).await?;
    let renewed = shell.json(&["renew", text(&goes["id"])]).await?;
    assert_eq!(renewed["resumed"]["devices"][0]["node"], json!(node), "{renewed}");
    // The new token is kept: the old one is no longer good once the new one was used.
    let again = shell.json(&["renew", text(&goes["id"])]).await?;
    assert_eq!(again["resumed"], Value::Null);
    assert_eq!(again["fencing_token"], renewed["fencing_token"]);
    Ok(())
}

#[tokio::test]
async fn a_cordoned_device_gets_no_new_grants_until_it_is_uncordoned() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let shell = Shell::at(coordinator.endpoint())?;
    let place = place(&device(&shell).await?);
    let held = shell.json(&["acquire", "--memory", "1GiB", "--ttl", "5m"]).await?;
    let cordoned = shell.json(&["cordon", &place, "--reason", "a loud fan"]).await?;
    assert_eq!(cordoned["staying"], json!([held["id"]]));
    let table = shell.run(&["devices"]).await?.stdout;
    assert!(table.contains("CORDONED"), "{table}");
    assert!(table.contains(&format!("{place}: cordoned: a loud fan")), "{table}");
    let (code, _) = shell.failure(&["acquire", "--memory", "1GiB", "--wait", "0"]).await?;
    assert_eq!(code, 4);
    let opened = shell.json(&["uncordon", &place]).await?;
    assert_eq!(opened["devices_still_cordoned"], 0);
    shell.json(&["acquire", "--memory", "1GiB", "--wait", "0", "--ttl", "5m"]).await?;
    Ok(())
}

#[tokio::test]
async fn what_is_not_there_is_not_found() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let shell = Shell::at(coordinator.endpoint())?;
    for arguments in [
        &["drain", "nowhere"][..],
        &["cordon", "nowhere/7"],
        &["uncordon", "nowhere"],
        &["open", "nowhere/7", "--reason", "none"],
        &["processes", "--device", "nowhere/7"],
        &["processes", "--node", "nowhere"],
        &["explain", "99"],
        &["acknowledge", "99", "--notice", "1", "--token", "1"],
    ] {
        let (code, told) = shell.failure(arguments).await?;
        assert_eq!(code, 5, "{arguments:?}: {told}");
    }
    Ok(())
}

#[tokio::test]
async fn a_waiter_is_explained_by_what_is_in_its_way_and_when_that_ends() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let shell = Shell::at(coordinator.endpoint())?;
    let held = ["acquire", "--exclusive", "--ttl", "5m", "--expected-duration", "2m"];
    let held = shell.json(&held).await?;
    let arguments = ["acquire", "--exclusive", "--wait", "10m", "--json"];
    let mut waiter = Started::of(&shell, &arguments)?;
    let queued = waiter.event("queued").await?;
    let explained = shell.json(&["explain", text(&queued["id"])]).await?;
    let waiting = &explained["waiting"];
    assert_eq!(waiting["devices_suitable"], 1, "{explained}");
    assert_eq!(waiting["devices_fitting"], 0, "{explained}");
    assert_eq!(waiting["blocking"][0]["lease_id"], held["id"], "{explained}");
    let forecast = waiting["forecast_seconds"].as_f64();
    assert!(forecast.is_some_and(|left| (60.0..=120.0).contains(&left)), "{explained}");
    let told = shell.run(&["explain", text(&queued["id"])]).await?.stdout;
    assert!(told.contains("In its way:") && told.contains("at the earliest"), "{told}");
    let granted = shell.json(&["explain", text(&held["id"])]).await?;
    assert_eq!(granted["granted"]["devices_fitting"], 1, "{granted}");
    Ok(())
}

#[tokio::test]
async fn simulated_devices_are_used_by_no_process() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let shell = Shell::at(coordinator.endpoint())?;
    let place = place(&device(&shell).await?);
    let finished = shell.run(&["processes", "--device", &place]).await?;
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    assert!(finished.stdout.is_empty(), "{finished:?}");
    assert!(finished.stderr.contains("No process"), "{finished:?}");
    assert!(shell.lines(&["processes"]).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_holder_by_hand_is_told_of_notices_and_resumes() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let shell = Shell::at(coordinator.endpoint())?;
    let place = place(&device(&shell).await?);
    let arguments = ["acquire", "--exclusive", "--preemptible", "pause", "--hold", "--json"];
    let mut hold = Started::of(&shell, &arguments)?;
    let granted = hold.object().await?;
    let id = text(&granted["id"]);
    shell.json(&["drain", &place]).await?;
    let noticed = hold.object().await?;
    assert_eq!((&noticed["event"], &noticed["id"]), (&json!("noticed"), &json!(id)));
    let notice = text(&noticed["notice"]["id"]);
    shell.json(&["acknowledge", id, "--notice", notice]).await?;
    assert_eq!(hold.object().await?["event"], "paused");
    let status = shell.run(&["status"]).await?.stdout;
    assert!(status.contains("0 active, 0 pausing, 1 paused"), "{status}");
    shell.json(&["uncordon", &place]).await?;
    let resumed = hold.object().await?;
    assert_eq!(resumed["event"], "resumed", "{resumed}");
    assert_eq!(resumed["fencing_token"], 2, "{resumed}");
    shell.json(&["release", id]).await?;
    Ok(())
}
