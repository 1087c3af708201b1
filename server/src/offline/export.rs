//! `gpulease journal export`: a journal, or what is left of one, as a plain file.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use super::{
    Told, account::Account, args::ExportArgs, configuration, error::OfflineError, report, source,
};
use crate::journal::{portable::Writer, sled::Remains};

/// Writes the file and tells.
pub(super) fn run(args: &ExportArgs, json: bool) -> Result<Told, OfflineError> {
    let data = configuration(&args.place)?.data;
    let remains = source::of_directory(&data)?;
    let account = Account::of(&remains)?;
    let file = create(&args.to)?;
    if let Err(error) = write(&remains, file, &args.to) {
        // Half an export is worth nothing, and its space may be what is missing.
        let _ = fs::remove_file(&args.to);
        return Err(error);
    }
    let text = if json {
        let mut told = report::json(&data, &account);
        told["export"] = args.to.to_string_lossy().into();
        format!("{told}\n")
    } else {
        told(&data, &args.to, &account)
    };
    Ok(Told { text, whole: account.is_whole() })
}

/// Makes a file that is its owner's alone, since tokens are in it.
fn create(path: &Path) -> Result<File, OfflineError> {
    let created = File::options().write(true).create_new(true).mode(0o600).open(path);
    created.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => OfflineError::Exists { path: path.to_path_buf() },
        _ => OfflineError::file("create", path, error),
    })
}

fn write(remains: &Remains, file: File, path: &Path) -> Result<(), OfflineError> {
    let failed = |error| OfflineError::file("write", path, error);
    let mut to = BufWriter::new(file);
    let mut writer = Writer::begin(&mut to)?;
    if let Some(revision) = remains.acknowledged() {
        writer.acknowledged(revision)?;
    }
    for what in remains.damage() {
        writer.damage(what)?;
    }
    if let Some(snapshot) = remains.snapshot() {
        writer.snapshot(snapshot)?;
    }
    for revision in remains.revisions() {
        writer.batch(&remains.batch(revision)?)?;
    }
    writer.finish()?;
    to.flush().map_err(failed)?;
    to.get_ref().sync_all().map_err(failed)
}

fn told(data: &Path, to: &Path, account: &Account) -> String {
    let mut lines = report::of_account(data, account);
    lines.push(("export", to.display().to_string()));
    let mut text = report::lines(&lines);
    if account.is_whole() {
        return text + "The export is whole.\n";
    }
    text += &report::list("The export has what is left, and lacks something:", &account.problems);
    if let Some(lost) = report::lost(account) {
        text += &format!("Lost: {lost}.\n");
    }
    text + "Next: gpulease journal import with --salvage goes on without it.\n"
}
