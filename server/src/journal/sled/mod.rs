//! The journal on a local disk: batches in sled 0.34.7, snapshots as plain files beside it.
//!
//! It promises the port's durability on the facts about sled that the head of `store` lists: a commit is one insert,
//! one flush and one fdatasync. One process holds the directory, and damage or an unknown format refuses to open.
//! `directory` owns the layout and the lock, `record` the bytes of a batch, `store` commits and reads, `snapshot_files`
//! the snapshots, `high_water_mark` notices an end that went missing; `remains` and `scan` read what is left of a
//! damaged journal without opening it. After a failed commit nothing here writes or syncs again: the process has to
//! stop (house rule 4).

mod directory;
mod guard;
mod high_water_mark;
mod record;
mod remains;
mod scan;
mod snapshot_files;
mod store;

use std::path::Path;
use std::sync::Arc;

use super::{Archive, Journal, JournalError, Opened, Revision};
use store::Store;

pub use record::RECORD_BYTES_MAX;
pub use remains::{Remains, remains};

/// Opens the journal in a data directory, which is created if it is not there.
///
/// # Errors
/// `InUse`, `NotADirectory`, `PermissionDenied`, `ReadOnly`, `StorageFull` or `Io` for what the file system refuses;
/// `UnknownFormat` and `Corrupt` for what must not be started on.
pub fn open(path: impl AsRef<Path>) -> Result<Opened<SledJournal>, JournalError> {
    open_with_segments_of(path, record::SEGMENT_BYTES)
}

/// `open` with sled segments of another size, for tests that have to fill, recycle and tear many of them. With small
/// segments a batch must be small too: see `RECORD_BYTES_MAX`.
#[doc(hidden)]
pub fn open_with_segments_of(
    path: impl AsRef<Path>,
    segment_bytes: usize,
) -> Result<Opened<SledJournal>, JournalError> {
    let directory = directory::Directory::open(path.as_ref(), segment_bytes)?;
    Opened::from_journal(SledJournal { store: Arc::new(Store::open(directory)?) })
}

/// `open` without a risk to what is in a damaged journal: see `guard`. `revision_of` says of which revision a batch is
/// that begins with these bytes.
///
/// # Errors
/// As `open`.
pub fn open_guarded(
    path: impl AsRef<Path>,
    revision_of: fn(&[u8]) -> Option<Revision>,
) -> Result<Opened<SledJournal>, JournalError> {
    open_guarded_with_segments_of(path, record::SEGMENT_BYTES, revision_of)
}

/// `open_guarded` as `open_with_segments_of` opens.
///
/// # Errors
/// As `open`.
#[doc(hidden)]
pub fn open_guarded_with_segments_of(
    path: impl AsRef<Path>,
    segment_bytes: usize,
    revision_of: fn(&[u8]) -> Option<Revision>,
) -> Result<Opened<SledJournal>, JournalError> {
    let guard = guard::Guard::of(path.as_ref(), revision_of)?;
    match open_with_segments_of(path, segment_bytes) {
        Ok(opened) => {
            guard.release();
            Ok(opened)
        }
        Err(error) => Err(guard.rescue(error)),
    }
}

/// Makes a journal in an empty data directory and has it filled; it appears whole or not at all.
///
/// # Errors
/// `NotEmpty` if there is anything already; otherwise as `open`, and what `fill` gives.
pub fn create(
    path: impl AsRef<Path>,
    fill: impl FnOnce(&mut dyn Journal) -> Result<(), JournalError>,
) -> Result<(), JournalError> {
    let aside = directory::Directory::create_aside(path.as_ref(), record::SEGMENT_BYTES)?;
    let mut journal = SledJournal { store: Arc::new(Store::open(aside.clone())?) };
    fill(&mut journal)?;
    drop(journal);
    aside.publish()
}

/// The writer of a journal on disk. The directory is let go when this and every `Archive` of it are dropped.
pub struct SledJournal {
    store: Arc<Store>,
}

impl Journal for SledJournal {
    fn append(&mut self, revision: Revision, batch: &[u8]) -> Result<(), JournalError> {
        self.store.append(revision, batch)
    }

    fn last_revision(&self) -> Revision {
        self.store.last_revision()
    }

    fn begin_at(&mut self, first: Revision) -> Result<(), JournalError> {
        self.store.begin_at(first)
    }

    fn archive(&self) -> Arc<dyn Archive> {
        Arc::<Store>::clone(&self.store)
    }
}

#[cfg(test)]
mod remains_tests;
#[cfg(test)]
mod tests;
