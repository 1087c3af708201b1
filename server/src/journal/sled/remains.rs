//! What is left of a journal, read from its plain files while no coordinator uses it.
//!
//! It promises to change nothing (a copy of the directory would do as well), to keep a coordinator from starting on the
//! directory meanwhile, and to give only what has a checksum that fits. It leaves it to the caller which batches can be
//! applied, because here the bytes mean nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use super::super::{Batch, JournalError, Revision, Snapshot};
use super::{directory::Held, guard, high_water_mark, scan::Scan, snapshot_files};

/// See the head of this file.
pub struct Remains {
    journal: PathBuf,
    /// The revision of the newest snapshot, be it damaged.
    base: Revision,
    snapshot: Option<Snapshot>,
    acknowledged: Option<Revision>,
    scan: Option<Scan>,
    /// What an opening put aside that lost it.
    rescued: BTreeMap<Revision, Batch>,
    damage: Vec<String>,
    /// Held until this is dropped.
    _lock: Option<File>,
}

/// Reads what is left of the journal in a data directory; `revision_of` says of which revision a batch is that begins
/// with these bytes.
///
/// # Errors
/// `NoJournal` where there is none, `InUse` while a coordinator runs on it, `UnknownFormat` if it is of another release,
/// and what the file system refuses.
pub fn remains(
    data: impl AsRef<Path>,
    revision_of: fn(&[u8]) -> Option<Revision>,
) -> Result<Remains, JournalError> {
    let held = Held::of(data.as_ref())?;
    let mut damage = held.damage;
    let snapshots = snapshot_files::read_best(&held.journal.join("snapshots"))?;
    damage.extend(snapshots.damage);
    let acknowledged = high_water_mark::acknowledged(held.journal.join("acknowledged"))?;
    let (rescued, damaged) = guard::rescued(&held.journal)?;
    damage.extend(damaged);
    let db = held.journal.join("batches").join("db");
    let scan = match Scan::read(db, Revision::ZERO..=Revision(u64::MAX), revision_of) {
        Ok(scan) => Some(scan),
        Err(JournalError::Io { path, source, .. })
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            damage.push(format!("{} is missing", path.display()));
            None
        }
        Err(error) => return Err(error),
    };
    for revision in scan.iter().flat_map(|scan| &scan.disputed) {
        damage.push(format!("there are two different batches of revision {revision}"));
    }
    let (journal, base, snapshot) = (held.journal, snapshots.newest, snapshots.best);
    let rescued = rescued.into_iter().map(|batch| (batch.revision, batch)).collect();
    let _lock = held.lock;
    Ok(Remains { journal, base, snapshot, acknowledged, scan, rescued, damage, _lock })
}

impl Remains {
    /// Where the journal is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.journal
    }

    /// The newest snapshot that is whole.
    #[must_use]
    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    /// The last revision that is known to have been acknowledged; `None`: it cannot be told.
    #[must_use]
    pub fn acknowledged(&self) -> Option<Revision> {
        self.acknowledged
    }

    /// What is damaged or missing, as far as it shows without the meaning of the bytes.
    #[must_use]
    pub fn damage(&self) -> &[String] {
        &self.damage
    }

    /// The revisions of the batches that were found and may matter, in order: those behind the newest snapshot, whole or
    /// not, with the unbroken history before them. What is older was removed, and is here by chance.
    #[must_use]
    pub fn revisions(&self) -> Vec<Revision> {
        let in_log = self.scan.iter().flat_map(Scan::revisions);
        let all: BTreeSet<Revision> = in_log.chain(self.rescued.keys().copied()).collect();
        let all: Vec<Revision> = all.into_iter().collect();
        let mut from = all.partition_point(|revision| *revision <= self.base);
        let mut next = self.base.next();
        while let Some(before) = from.checked_sub(1).filter(|before| all[*before].next() == next) {
            (from, next) = (before, all[before]);
        }
        all[from..].to_vec()
    }

    /// One batch.
    ///
    /// # Errors
    /// It was not found, or cannot be read any more.
    pub fn batch(&self, revision: Revision) -> Result<Batch, JournalError> {
        match (&self.scan, self.rescued.get(&revision)) {
            (_, Some(batch)) => Ok(batch.clone()),
            (Some(scan), None) => scan.batch(revision),
            (None, None) => Err(JournalError::corrupt(format!("batch {revision} is not there"))),
        }
    }
}
