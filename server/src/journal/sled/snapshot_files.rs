//! Snapshots as plain files, beside sled because a log-structured tree would write 100 MB several times over.
//!
//! `snapshot.<revision>`: a header with its own checksum (magic, revision, length), then chunks of 1 MiB, each behind
//! its crc32. A snapshot is written aside, synced, renamed, and the directory synced; then older ones are removed.
//! So the newest complete name is always a durable file, and the one before it stays until then.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::super::{JournalError, Revision, Snapshot};
use super::directory;

const MAGIC: &[u8; 20] = b"gpulease-snapshot 1\n";
const HEADER_BYTES: usize = 20 + 8 + 8 + 4;
const PREFIX: &str = "snapshot.";
const PARTIAL_SUFFIX: &str = ".partial";

/// How many bytes one checksum covers: what is written at once, small against a snapshot of 100 MB.
const CHUNK_BYTES: usize = 1 << 20;

/// The snapshots of one journal.
pub(super) struct SnapshotFiles {
    directory: PathBuf,
    newest: Option<Revision>,
}

impl SnapshotFiles {
    /// Finds the newest snapshot and removes what a crash left: unfinished files and older snapshots.
    pub(super) fn open(directory: PathBuf) -> Result<Self, JournalError> {
        let mut files = SnapshotFiles { directory, newest: None };
        files.newest = files.complete()?.into_iter().map(|(revision, _)| revision).max();
        files.remove_all_but_newest()?;
        Ok(files)
    }

    /// The newest snapshot's revision; zero if there is none.
    pub(super) fn newest_revision(&self) -> Revision {
        self.newest.unwrap_or(Revision::ZERO)
    }

    /// Writes a snapshot and makes it the newest.
    pub(super) fn store(&mut self, revision: Revision, bytes: &[u8]) -> Result<(), JournalError> {
        let path = self.path(revision);
        let partial = path.with_added_extension(&PARTIAL_SUFFIX[1..]);
        let written = write(&partial, revision, bytes)
            .and_then(|()| fs::rename(&partial, &path))
            .map_err(|error| JournalError::io("write the snapshot", &path, error))
            .and_then(|()| directory::sync(&self.directory));
        if let Err(error) = written {
            // The space matters more than a second error; the next opening removes what stays.
            let _ = fs::remove_file(&partial);
            return Err(error);
        }
        self.newest = Some(revision);
        self.remove_all_but_newest()
    }

    /// Reads the newest snapshot and verifies every checksum.
    pub(super) fn read_newest(&self) -> Result<Option<Snapshot>, JournalError> {
        self.newest.map(|revision| read(&self.path(revision), revision)).transpose()
    }

    fn path(&self, revision: Revision) -> PathBuf {
        self.directory.join(format!("{PREFIX}{:020}", revision.0))
    }

    fn complete(&self) -> Result<Vec<(Revision, PathBuf)>, JournalError> {
        let paths = directory::entries(&self.directory)?;
        Ok(paths.into_iter().filter_map(|path| Some((complete_revision(&path)?, path))).collect())
    }

    fn remove_all_but_newest(&self) -> Result<(), JournalError> {
        for path in directory::entries(&self.directory)? {
            let is_newest = self.newest.is_some() && complete_revision(&path) == self.newest;
            let is_ours =
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
            if is_ours && !is_newest {
                fs::remove_file(&path)
                    .map_err(|error| JournalError::io("remove the old snapshot", &path, error))?;
            }
        }
        Ok(())
    }
}

/// The revision of the newest snapshot in a directory, by its name; zero if there is none.
pub(super) fn newest_revision(directory: &Path) -> Result<Revision, JournalError> {
    let files = SnapshotFiles { directory: directory.to_path_buf(), newest: None };
    Ok(files.complete()?.into_iter().map(|(revision, _)| revision).max().unwrap_or_default())
}

/// The snapshots in a directory that nobody uses.
#[derive(Default)]
pub(super) struct Found {
    /// The revision of the newest, whole or not; zero if there is none.
    pub(super) newest: Revision,
    /// The newest that is whole.
    pub(super) best: Option<Snapshot>,
    /// What is wrong with those that are newer.
    pub(super) damage: Vec<String>,
}

/// Reads the newest snapshot that is whole. Nothing is changed.
pub(super) fn read_best(directory: &Path) -> Result<Found, JournalError> {
    let files = SnapshotFiles { directory: directory.to_path_buf(), newest: None };
    let mut found = Found::default();
    let mut complete = match files.complete() {
        Ok(complete) => complete,
        Err(JournalError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            found.damage.push(format!("{} is missing", directory.display()));
            return Ok(found);
        }
        Err(error) => return Err(error),
    };
    complete.sort_unstable_by_key(|(revision, _)| std::cmp::Reverse(*revision));
    found.newest = complete.first().map(|(revision, _)| *revision).unwrap_or_default();
    for (revision, path) in complete {
        match read(&path, revision) {
            Ok(snapshot) => {
                found.best = Some(snapshot);
                break;
            }
            Err(JournalError::Corrupt { what }) => found.damage.push(what),
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The revision in a complete snapshot's name; `None` for unfinished and foreign files.
fn complete_revision(path: &Path) -> Option<Revision> {
    path.file_name()?.to_str()?.strip_prefix(PREFIX)?.parse().ok().map(Revision)
}

fn header(revision: Revision, length: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..20].copy_from_slice(MAGIC);
    header[20..28].copy_from_slice(&revision.0.to_le_bytes());
    header[28..36].copy_from_slice(&length.to_le_bytes());
    let checksum = crc32fast::hash(&header[..36]);
    header[36..].copy_from_slice(&checksum.to_le_bytes());
    header
}

fn write(path: &Path, revision: Revision, bytes: &[u8]) -> io::Result<()> {
    let length = u64::try_from(bytes.len()).expect("a slice's length fits in 64 bits");
    let mut file = File::create(path)?;
    file.write_all(&header(revision, length))?;
    for chunk in bytes.chunks(CHUNK_BYTES) {
        file.write_all(&crc32fast::hash(chunk).to_le_bytes())?;
        file.write_all(chunk)?;
    }
    file.sync_all()
}

fn read(path: &Path, revision: Revision) -> Result<Snapshot, JournalError> {
    let failed = |error| JournalError::io("read the snapshot", path, error);
    let damaged =
        |what: &str| JournalError::corrupt(format!("the snapshot {} {what}", path.display()));
    let mut stored = Vec::new();
    File::open(path).and_then(|mut file| file.read_to_end(&mut stored)).map_err(failed)?;
    let (found, mut rest) =
        stored.split_first_chunk::<HEADER_BYTES>().ok_or_else(|| damaged("is cut short"))?;
    let mut length = [0; 8];
    length.copy_from_slice(&found[28..36]);
    if *found != header(revision, u64::from_le_bytes(length)) {
        return Err(damaged("has a damaged header, or one of another format or revision"));
    }
    let mut bytes = Vec::with_capacity(rest.len());
    while let Some((checksum, chunk_and_rest)) = rest.split_first_chunk::<4>() {
        let (chunk, after) = chunk_and_rest.split_at(chunk_and_rest.len().min(CHUNK_BYTES));
        if crc32fast::hash(chunk) != u32::from_le_bytes(*checksum) {
            return Err(damaged("has a wrong checksum"));
        }
        bytes.extend_from_slice(chunk);
        rest = after;
    }
    if u64::try_from(bytes.len()).ok() != Some(u64::from_le_bytes(length)) || !rest.is_empty() {
        return Err(damaged("has another length than its header says"));
    }
    Ok(Snapshot { revision, bytes })
}
