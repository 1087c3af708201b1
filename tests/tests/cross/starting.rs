//! What keeps a coordinator from starting: each case has its exit code, and a message that names the way out.

use std::{fs, path::Path};

use gpulease_tests::{
    coordinator::{Coordinator, Settings, StartFailed},
    shell::Shell,
    skip::skipped_optional,
    wire::{self, Wire, refusal},
};
use tempfile::tempdir;
use tonic::Code;

use crate::disk::Mount;

/// Why it did not start.
async fn failure(settings: Settings) -> StartFailed {
    let error = settings.start().await.expect_err("it should not have started");
    error.downcast::<StartFailed>().expect("it ended by itself")
}

fn check(failed: &StartFailed, code: i32, words: &[&str]) {
    assert_eq!(failed.code, Some(code), "{failed}");
    let missing: Vec<_> = words.iter().filter(|word| !failed.stderr.contains(**word)).collect();
    assert!(missing.is_empty(), "{missing:?} are not in: {failed}");
}

#[tokio::test]
async fn a_second_coordinator_on_the_same_data_is_refused_and_the_first_serves_on()
-> anyhow::Result<()> {
    let first = Coordinator::simulate("1x24GiB").await?;
    let second = failure(Coordinator::settings().simulate("1x24GiB").data(first.data())).await;
    let pid = first.process_id().expect("it runs").to_string();
    check(&second, 3, &[&first.data().display().to_string(), &pid, "another data directory"]);
    Wire::connect(first.endpoint()).await?.acquire(wire::request("still")).await?;
    Ok(())
}

#[tokio::test]
async fn a_damaged_journal_never_starts_with_less_than_was_acknowledged() -> anyhow::Result<()> {
    let mut coordinator = Coordinator::simulate("1x24GiB").await?;
    let wire = Wire::connect(coordinator.endpoint()).await?;
    let mut leases = Vec::new();
    for number in 0..8 {
        leases.push(wire.acquire(wire::request(&format!("request-{number}"))).await?);
    }
    coordinator.stop().await?;
    let whole = tempdir()?;
    copy(coordinator.data(), whole.path())?;
    let database = Path::new("journal").join("batches").join("db");
    let bytes = fs::read(whole.path().join(&database))?;
    let used: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    let mut refused = 0;
    for eighth in 1..8 {
        let at = used[used.len() * eighth / 8];
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x5a;
        copy(whole.path(), coordinator.data())?;
        fs::write(coordinator.data().join(&database), &damaged)?;
        match coordinator.restart().await {
            Err(error) => {
                let failed = error.downcast::<StartFailed>()?;
                check(&failed, 4, &["corrupt", "a copy of the data directory", "granted twice"]);
                refused += 1;
            }
            Ok(_) => {
                let wire = Wire::connect(coordinator.endpoint()).await?;
                for lease in &leases {
                    assert_eq!(
                        wire.lease(lease.id).await?.fencing_token,
                        lease.fencing_token,
                        "byte {at}"
                    );
                }
                coordinator.kill().await?;
            }
        }
    }
    assert!(refused > 0, "no damage of {} used bytes was noticed", used.len());
    Ok(())
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_written_is_refused_by_name() -> anyhow::Result<()> {
    let test = "a data directory that cannot be written";
    let place = tempdir()?;
    let data = place.path().join("data");
    let (_mount, word) = if rustix::process::getuid().is_root() {
        let Some(mount) = Mount::read_only(place.path()) else {
            skipped_optional(test, "root may write everywhere, and may not mount here");
            return Ok(());
        };
        (Some(mount), "read-only")
    } else {
        fs::set_permissions(place.path(), std::os::unix::fs::PermissionsExt::from_mode(0o500))?;
        (None, "permission denied")
    };
    let failed = failure(Coordinator::settings().simulate("1x24GiB").data(&data)).await;
    check(&failed, 1, &[&data.display().to_string(), word, "choose another"]);
    Ok(())
}

#[tokio::test]
async fn a_port_in_use_is_named_with_what_to_do() -> anyhow::Result<()> {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let failed = failure(Coordinator::settings().simulate("1x24GiB").listen(&address)).await;
    check(&failed, 1, &[&address, "--listen"]);
    Ok(())
}

#[tokio::test]
async fn a_malformed_configuration_is_named_by_file_line_key_and_nearest_key() -> anyhow::Result<()>
{
    let place = tempdir()?;
    let file = place.path().join("gpulease.toml");
    let name = file.display().to_string();
    let rows: [(&str, &[&str]); 5] = [
        (
            "[leases]\n\nlock_dely = \"3s\"\n",
            &[":3:", "leases.lock_dely", "did you mean", "leases.lock_delay"],
        ),
        ("[leases]\nlock_delay = \"soon\"\n", &[":2:", "leases.lock_delay", "soon", "must be"]),
        ("[leases]\nlock_delay = \"-3s\"\n", &[":2:", "leases.lock_delay", "-3s", "must be"]),
        ("listen = 7475\n", &[":1:", "listen", "7475"]),
        ("[leases\nlock_delay = 3\n", &[":1:", "no TOML"]),
    ];
    for (text, words) in rows {
        fs::write(&file, text)?;
        let settings = Coordinator::settings().simulate("1x24GiB");
        let failed = failure(settings.argument("--config").argument(&name)).await;
        check(&failed, 2, &[&[name.as_str()][..], words].concat());
    }
    Ok(())
}

#[tokio::test]
async fn a_missing_configuration_file_and_a_wrong_simulation_are_usage_errors() -> anyhow::Result<()>
{
    let missing = "/nowhere/gpulease.toml";
    let settings = Coordinator::settings().simulate("1x24GiB");
    check(&failure(settings.argument("--config").argument(missing)).await, 2, &[missing]);
    check(&failure(Coordinator::settings().simulate("2x")).await, 2, &["2x", "24GiB"]);
    let settings = Coordinator::settings().environment("GPULEASE_LEASES_LOCK_DELAY", "soon");
    let failed = failure(settings.simulate("1x24GiB")).await;
    check(&failed, 2, &["GPULEASE_LEASES_LOCK_DELAY", "soon"]);
    Ok(())
}

#[tokio::test]
async fn without_a_driver_it_starts_says_so_and_grants_nothing() -> anyhow::Result<()> {
    if Path::new("/dev/nvidiactl").exists() || Path::new("/dev/kfd").exists() {
        skipped_optional("without a driver", "this host has one");
        return Ok(());
    }
    let coordinator = Coordinator::settings().start().await?;
    assert_eq!(coordinator.ready().devices, 0);
    let wire = Wire::connect(coordinator.endpoint()).await?;
    let got = refusal(wire.leases().acquire(wire::request("nothing")).await);
    let expected =
        [(Code::Unavailable, "INVENTORY_UNKNOWN"), (Code::FailedPrecondition, "UNSATISFIABLE")];
    assert!(expected.contains(&(got.code, got.reason.as_str())), "{got:?}");
    let shell = Shell::at(coordinator.endpoint())?;
    assert!(shell.lines(&["devices"]).await?.is_empty());
    Ok(())
}

/// Copies a directory with everything in it; what lies in the way is replaced.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
