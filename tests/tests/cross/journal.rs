//! From a corrupt journal back to a coordinator that serves: the refusal, `gpulease journal check`, `export` and
//! `import --salvage`, and devices that stay closed until leases that the journal lost are over (P2).

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use gpulease_proto::v1;
use gpulease_tests::{
    coordinator::{Coordinator, Settings, StartFailed},
    deadline::soon,
    shell::{Finished, Shell},
    wire::{self, Refusal, Wire},
};
use serde_json::Value;
use tonic::Code;

/// How far an import raises the tokens.
const TOKEN_JUMP: u64 = 1 << 32;
/// The lease whose batch is damaged: those before it are known after the import, it and those behind it are lost.
const DAMAGED: usize = 3;

#[tokio::test]
async fn a_corrupt_journal_is_recovered_as_its_messages_say() -> anyhow::Result<()> {
    let mut coordinator = settings().start().await?;
    let wire = Wire::connect(coordinator.endpoint()).await?;
    let mut leases = Vec::new();
    for number in 0..6 {
        leases.push(wire.acquire(small(number)).await?);
    }
    coordinator.kill().await?;
    damage(coordinator.data(), &format!("request-{DAMAGED}"))?;
    refused_without_a_change(&mut coordinator).await?;

    let shell = Shell::at(coordinator.endpoint())?;
    let export = coordinator.data().with_file_name("journal.export");
    let data = coordinator.data().with_file_name("new");
    let first_lost = check_names_the_batch(&shell, coordinator.data()).await?;
    carry_over(&shell, [coordinator.data(), &export, &data], first_lost).await?;

    let coordinator = settings().data(&data).start().await?;
    let wire = Wire::connect(coordinator.endpoint()).await?;
    what_is_known_lives_on_and_the_rest_is_lost(&wire, &leases).await?;
    let newest = leases.iter().map(|lease| lease.fencing_token).max().context("there are six")?;
    devices_open_by_an_operator_and_by_themselves(&wire, newest).await
}

/// Short times, so that the test sees their end: TTLs of 8 s and a lock delay of 1 s.
fn settings() -> Settings {
    let settings = Coordinator::settings().simulate("2x24GiB");
    settings.environment("GPULEASE_LEASES_LOCK_DELAY", "1s")
}

fn small(number: usize) -> v1::AcquireRequest {
    v1::AcquireRequest {
        ttl: Some(wire::seconds(8)),
        ..wire::request(&format!("request-{number}"))
    }
}

/// Flips a bit in every copy of a text in the log.
fn damage(data: &Path, text: &str) -> anyhow::Result<()> {
    let path = log_of(data);
    let mut bytes = fs::read(&path)?;
    let places: Vec<usize> =
        (0..bytes.len()).filter(|at| bytes[*at..].starts_with(text.as_bytes())).collect();
    anyhow::ensure!(!places.is_empty(), "{text} is not in {}", path.display());
    places.into_iter().for_each(|at| bytes[at] ^= 1);
    Ok(fs::write(path, bytes)?)
}

fn log_of(data: &Path) -> PathBuf {
    data.join("journal/batches/db")
}

async fn refused_without_a_change(coordinator: &mut Coordinator) -> anyhow::Result<()> {
    let before = fs::read(log_of(coordinator.data()))?;
    let failed = coordinator.restart().await.map(drop).expect_err("it must not start");
    let failed = failed.downcast::<StartFailed>()?;
    assert_eq!(failed.code, Some(4), "{failed}");
    for words in ["is missing or damaged", "nothing was changed", "gpulease journal check"] {
        assert!(failed.stderr.contains(words), "{words}: {failed}");
    }
    assert!(fs::read(log_of(coordinator.data()))? == before, "a refused start changed the log");
    Ok(())
}

/// Answers with the first revision that is lost.
async fn check_names_the_batch(shell: &Shell, data: &Path) -> anyhow::Result<u64> {
    let data = data.to_str().context("a readable path")?;
    let told = shell.run(&["journal", "check", "--data", data]).await?;
    assert_eq!(told.code(), Some(4), "{told:?}");
    assert!(told.stdout.contains("gpulease journal import --from"), "{told:?}");
    let told = json(&shell.run(&["journal", "check", "--data", data, "--json"]).await?, 4)?;
    let known = told["revision"].as_u64().context("a revision")?;
    let problem = told["problems"][0].as_str().context("a problem")?;
    assert_eq!(problem, format!("batch {} is missing or damaged", known + 1));
    assert_eq!(told["leases"]["ACTIVE"], DAMAGED);
    Ok(known + 1)
}

async fn carry_over(
    shell: &Shell,
    [old, export, new]: [&Path; 3],
    first_lost: u64,
) -> anyhow::Result<()> {
    let text = |path: &Path| path.to_str().map(str::to_owned).context("a readable path");
    let (old, export, data) = (text(old)?, text(export)?, text(new)?);
    let told = shell.run(&["journal", "export", "--data", &old, "--to", &export]).await?;
    assert_eq!(told.code(), Some(4), "{told:?}");
    let import = ["journal", "import", "--from", &export, "--data", &data];
    let refused = shell.run(&import).await?;
    assert_eq!(refused.code(), Some(4), "{refused:?}");
    assert!(refused.stdout.contains(&format!("batch {first_lost}")), "{refused:?}");
    assert!(!new.exists(), "{refused:?}");
    let salvage = [&import[..], &["--salvage", "--json"]].concat();
    let mut command = shell.command(&salvage);
    command.env("GPULEASE_LEASES_LOCK_DELAY", "1s");
    let output = soon("the end of the import", command.output()).await?;
    let told: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let imported = &told["imported"];
    let tokens = [&imported["fencing_token_before"], &imported["fencing_token"]];
    let [before, after] = tokens.map(|token| token.as_u64().unwrap_or_default());
    assert_eq!((before, after - before), (6, TOKEN_JUMP), "{told}");
    assert_eq!((&imported["closed_seconds"], &imported["leases_live"]), (&9.into(), &3.into()));
    Ok(())
}

async fn what_is_known_lives_on_and_the_rest_is_lost(
    wire: &Wire,
    leases: &[v1::Lease],
) -> anyhow::Result<()> {
    let (known, lost) = leases.split_at(DAMAGED);
    for lease in known {
        assert_eq!(wire.renew(lease).await?.fencing_token, lease.fencing_token);
    }
    for lease in lost {
        let got = Refusal::of(&wire.renew(lease).await.expect_err("it is lost"));
        assert_eq!(got.reason, "LEASE_NOT_FOUND", "{got:?}");
    }
    Ok(())
}

async fn devices_open_by_an_operator_and_by_themselves(
    wire: &Wire,
    newest: u64,
) -> anyhow::Result<()> {
    let request = v1::DeviceServiceListRequest::default();
    let devices = wire.devices().list(request).await?.into_inner().devices;
    for device in &devices {
        assert_eq!(device.state(), v1::DeviceState::Closed, "{device:?}");
        assert!(device.closed_remaining.is_some_and(|left| left.seconds <= 9), "{device:?}");
    }
    let got = wire.acquire(wire::request("hasty")).await;
    let got = Refusal::of(&got.expect_err("every device is closed"));
    assert_eq!((got.code, got.reason.as_str()), (Code::ResourceExhausted, "DEVICES_CLOSED"));
    assert!(got.message.contains("2 devices") && got.message.contains("imported"), "{got:?}");

    let reason = "nothing runs there".to_owned();
    let device_uuid = devices[0].uuid.clone();
    wire.admin().open_device(v1::OpenDeviceRequest { device_uuid, reason }).await?;
    let opened = wire.acquire(wire::request("opened")).await?;
    assert_eq!(opened.devices[0].uuid, devices[0].uuid);
    assert_eq!(opened.fencing_token, newest + TOKEN_JUMP + 1);

    let patient = v1::AcquireRequest {
        constraints: Some(v1::Constraints {
            device_allow: vec![devices[1].uuid.clone()],
            ..Default::default()
        }),
        wait: Some(wire::seconds(60)),
        ..wire::request("patient")
    };
    let late = tokio::time::timeout(Duration::from_secs(60), wire.acquire(patient)).await??;
    assert!(late.fencing_token > opened.fencing_token, "{late:?}");
    Ok(())
}

/// The one JSON object that a command prints.
fn json(told: &Finished, code: i32) -> anyhow::Result<Value> {
    assert_eq!(told.code(), Some(code), "{told:?}");
    serde_json::from_str(&told.stdout).with_context(|| format!("read {told:?}"))
}
