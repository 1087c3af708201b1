//! Opening a journal without risking what is in it.
//!
//! Where its log is damaged sled ends it, and overwrites what is behind. So the acknowledged batches behind the newest
//! snapshot are looked for before sled opens the log: if one is missing, nothing is opened and nothing changes. If all
//! are there and sled loses some all the same, for damage in what is sled's own, they are put into a file beside it.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::super::portable::{Item, Reader, Writer};
use super::super::{Batch, JournalError, Revision};
use super::directory::{self, Held};
use super::scan::{RevisionOf, Scan};
use super::{high_water_mark, snapshot_files};

/// The name of the file beside the log, an export without a snapshot.
const RESCUED: &str = "rescued";

/// The acknowledged batches behind the newest snapshot. They are held while the journal is opened: 4 MiB, or as much as
/// a snapshot has, since one is due after as much of them.
pub(super) struct Guard {
    journal: PathBuf,
    batches: Vec<Batch>,
}

impl Guard {
    /// Looks for the batches. A data directory without a journal is fine; whatever else is wrong, opening it says. Where
    /// no batch is found at all, there is nothing to lose, or they are of a format that only reading can name.
    ///
    /// It reads the log at about a gigabyte per second.
    ///
    /// # Errors
    /// `Corrupt` with the first batch that is missing, `InUse`, and what the file system refuses.
    pub(super) fn of(data: &Path, revision_of: RevisionOf) -> Result<Self, JournalError> {
        let mut guard = Guard { journal: data.join("journal"), batches: Vec::new() };
        let held = match Held::of(data) {
            Err(JournalError::NoJournal { .. } | JournalError::UnknownFormat { .. }) => {
                return Ok(guard);
            }
            held => held?,
        };
        let db = held.journal.join("batches").join("db");
        let snapshots = held.journal.join("snapshots");
        if !held.damage.is_empty() || !db.exists() || !snapshots.exists() {
            return Ok(guard);
        }
        let snapshot = snapshot_files::newest_revision(&snapshots)?;
        let mark = high_water_mark::acknowledged(held.journal.join("acknowledged"))?;
        if let Some(acknowledged) = mark.filter(|acknowledged| *acknowledged > snapshot) {
            let range = snapshot.next()..=acknowledged;
            let scan = Scan::read(db, range.clone(), revision_of)?;
            let missing = (range.start().0..=range.end().0).map(Revision);
            if let Some(missing) = missing.into_iter().find(|revision| !scan.begins(*revision))
                && !scan.is_empty()
            {
                return Err(JournalError::corrupt(format!(
                    "batch {missing} is missing or damaged, though revision {acknowledged} was acknowledged; nothing \
                     was changed"
                )));
            }
            guard.batches = scan.revisions().map(|it| scan.batch(it)).collect::<Result<_, _>>()?;
        }
        Ok(guard)
    }

    /// The journal was opened: what an earlier opening lost has been imported or was restored.
    pub(super) fn release(self) {
        // That it stays costs space, and a look at the journal finds the same batches twice.
        let _ = fs::remove_file(self.journal.join(RESCUED));
    }

    /// The journal could not be opened. If that may have cost batches, they are put aside, and the error says where.
    pub(super) fn rescue(self, error: JournalError) -> JournalError {
        let JournalError::Corrupt { what } = error else { return error };
        if self.batches.is_empty() {
            return JournalError::Corrupt { what };
        }
        let path = self.journal.join(RESCUED);
        JournalError::corrupt(match self.write(&path) {
            Ok(()) => format!("{what}; they were put into {}", path.display()),
            Err(error) => format!("{what}; they could not be put aside: {error}"),
        })
    }

    fn write(&self, path: &Path) -> Result<(), JournalError> {
        let failed = |error| JournalError::io("write", path, error);
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
        let mut to = BufWriter::new(file.map_err(failed)?);
        let mut writer = Writer::begin(&mut to)?;
        self.batches.iter().try_for_each(|batch| writer.batch(batch))?;
        writer.finish()?;
        to.flush().and_then(|()| to.get_ref().sync_all()).map_err(failed)?;
        directory::sync(&self.journal)
    }
}

/// The batches that an opening put aside, and what is wrong with the file.
pub(super) fn rescued(journal: &Path) -> Result<(Vec<Batch>, Vec<String>), JournalError> {
    let path = journal.join(RESCUED);
    let (mut batches, mut damage) = (Vec::new(), Vec::new());
    let mut file = match File::open(&path) {
        Ok(file) => std::io::BufReader::new(file),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((batches, damage)),
        Err(error) => return Err(JournalError::io("open", &path, error)),
    };
    let mut reader = Reader::new(&mut file);
    loop {
        match reader.next_item() {
            Ok(Some(Item::Batch(batch))) => batches.push(batch),
            Ok(Some(_)) => {}
            Ok(None) => return Ok((batches, damage)),
            Err(JournalError::Import { line, what }) => {
                damage.push(format!("line {line} of {}: {what}", path.display()));
            }
            Err(error) => return Err(error),
        }
    }
}
