//! Where the `gpulease` binary is: beside the running executable, or built once when it is not there yet.
//!
//! `GPULEASE_BINARY` names another one, such as an installed package's. A binary that is already there is taken as
//! it is: `cargo build --release` before the tests keeps it current.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
};

use anyhow::{Context as _, bail};

/// One build at a time in this process, and none where an earlier one already made the file.
static BUILDING: Mutex<()> = Mutex::new(());

/// The path of the `gpulease` binary.
///
/// # Errors
/// `GPULEASE_BINARY` names no file, or the binary is missing and `cargo build` fails.
pub fn gpulease() -> anyhow::Result<PathBuf> {
    if let Some(path) = env::var_os("GPULEASE_BINARY").map(PathBuf::from) {
        if path.is_file() {
            return Ok(path);
        }
        bail!("GPULEASE_BINARY is {}, which is no file", path.display());
    }
    let path = profile_directory()?.join(format!("gpulease{}", env::consts::EXE_SUFFIX));
    let _building = BUILDING.lock().map_err(|_| anyhow::anyhow!("an earlier build panicked"))?;
    if !path.is_file() {
        build(&path, &["--package", "gpulease-server", "--bin", "gpulease"])?;
    }
    Ok(path)
}

/// The path of one of the SDK's examples.
///
/// # Errors
/// It is missing, and `cargo build` fails.
pub fn example(name: &str) -> anyhow::Result<PathBuf> {
    let directory = profile_directory()?.join("examples");
    let path = directory.join(format!("{name}{}", env::consts::EXE_SUFFIX));
    let _building = BUILDING.lock().map_err(|_| anyhow::anyhow!("an earlier build panicked"))?;
    if !path.is_file() {
        build(&path, &["--package", "gpulease", "--example", name])?;
    }
    Ok(path)
}

/// `target/release`: where the running executable is, or one above for tests, which cargo puts into `deps`.
fn profile_directory() -> anyhow::Result<PathBuf> {
    let executable = env::current_exe().context("find the running executable")?;
    let directory = executable.parent().context("the running executable has no directory")?;
    let in_deps = directory.file_name().is_some_and(|name| name == "deps" || name == "examples");
    let profile = if in_deps { directory.parent().unwrap_or(directory) } else { directory };
    Ok(profile.to_owned())
}

fn build(path: &Path, what: &[&str]) -> anyhow::Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release"])
        .args(what)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("run cargo build for {}", path.display()))?;
    if !status.success() || !path.is_file() {
        bail!(
            "cargo build ({status}) made no {}: build with `cargo build --release`, or set GPULEASE_BINARY",
            path.display()
        );
    }
    Ok(())
}
