//! Where a journal is read from: what is left in a data directory, or an export. Both can be read more than once.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use super::error::OfflineError;
use crate::{
    actor::recovery,
    journal::{
        JournalError,
        portable::{Item, Reader},
        sled::{Remains, remains},
    },
};

/// One thing out of a journal, or what is wrong with it, in words.
pub(super) type Found = Result<Item, String>;

/// A journal that can be read from its beginning, again and again.
pub(super) trait Source {
    /// Gives everything to `each`, in order.
    fn read(&self, each: &mut dyn FnMut(Found)) -> Result<(), OfflineError>;
}

/// What is left in a data directory.
///
/// # Errors
/// There is no journal, or a coordinator uses it.
pub(super) fn of_directory(data: &Path) -> Result<Remains, OfflineError> {
    Ok(remains(data, recovery::revision_of)?)
}

impl Source for Remains {
    fn read(&self, each: &mut dyn FnMut(Found)) -> Result<(), OfflineError> {
        if let Some(revision) = self.acknowledged() {
            each(Ok(Item::Acknowledged(revision)));
        }
        self.damage().iter().for_each(|what| each(Ok(Item::Damage(what.clone()))));
        if let Some(snapshot) = self.snapshot() {
            each(Ok(Item::Snapshot(snapshot.clone())));
        }
        for revision in self.revisions() {
            match self.batch(revision) {
                Ok(batch) => each(Ok(Item::Batch(batch))),
                Err(JournalError::Corrupt { what }) => each(Err(what)),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// An export.
pub(super) struct Export {
    pub(super) path: PathBuf,
}

impl Export {
    /// Opens the file from its beginning.
    pub(super) fn open(&self) -> Result<BufReader<File>, OfflineError> {
        let file = File::open(&self.path);
        file.map(BufReader::new).map_err(|error| OfflineError::file("open", &self.path, error))
    }
}

impl Source for Export {
    fn read(&self, each: &mut dyn FnMut(Found)) -> Result<(), OfflineError> {
        let mut file = self.open()?;
        let mut reader = Reader::new(&mut file);
        loop {
            match reader.next_item() {
                Ok(Some(item)) => each(Ok(item)),
                Ok(None) => return Ok(()),
                Err(JournalError::Import { line, what }) => {
                    each(Err(format!("line {line} of the export: {what}")));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
