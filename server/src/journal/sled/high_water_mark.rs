//! What one run of the coordinator tells the next, in a file of 13 bytes that is written after each commit, not synced:
//! the last revision that is known to be durable, and whether the run ended with a failed commit.
//!
//! sled cannot tell damage in its newest segment from a write that power tore: it drops what follows, silently. The mark
//! can: it only ever names a revision that was already durable, so a journal that ends before it has lost something.
//! After a power cut the mark may be older than the journal, or unreadable; then it says nothing, and costs nothing.
//! A failed sync may leave pages in the cache that count as written and are not: the next run must read from the disk.
//! The mark lives in that same cache, so it lasts exactly as long as the danger does.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::super::{JournalError, Revision};

const REVISION_BYTES: usize = 8;
const MARK_BYTES: usize = REVISION_BYTES + 1 + 4;

/// The open mark.
pub(super) struct HighWaterMark {
    file: File,
    path: PathBuf,
}

impl HighWaterMark {
    /// Opens the mark, and creates it if it is not there: a copy of the directory may lack it.
    pub(super) fn open(path: PathBuf) -> Result<Self, JournalError> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        match file {
            Ok(file) => Ok(HighWaterMark { file, path }),
            Err(error) => Err(JournalError::io("open", &path, error)),
        }
    }

    /// What the run before left; `None` if it cannot be told.
    pub(super) fn read(&self) -> Result<Option<Mark>, JournalError> {
        let mut stored = [0; MARK_BYTES];
        match self.file.read_exact_at(&mut stored, 0) {
            Ok(()) => Ok(Mark::decode(&stored)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(JournalError::io("read", &self.path, error)),
        }
    }

    /// Replaces the mark. That it cannot be written costs a check, not a batch, so it is no error.
    pub(super) fn write(&self, mark: Mark) {
        let _ = self.file.write_all_at(&mark.encode(), 0);
    }
}

/// What the mark at this path says was acknowledged; `None` if it cannot be told. Nothing is changed.
pub(super) fn acknowledged(path: PathBuf) -> Result<Option<Revision>, JournalError> {
    match File::open(&path) {
        Ok(file) => Ok((HighWaterMark { file, path }).read()?.map(|mark| mark.durable)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(JournalError::io("open", &path, error)),
    }
}

/// The content of the file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// A revision that is durable; later ones may be too.
    pub(super) durable: Revision,
    /// A commit failed after it.
    pub(super) failed: bool,
}

impl Mark {
    /// Refuses a journal that ends before the mark.
    pub(super) fn check(self, last: Revision) -> Result<(), JournalError> {
        let durable = self.durable;
        if durable > last {
            return Err(JournalError::corrupt(format!(
                "revision {durable} was acknowledged but the last batch is {last}: batches are missing"
            )));
        }
        Ok(())
    }

    fn encode(self) -> [u8; MARK_BYTES] {
        let mut bytes = [0; MARK_BYTES];
        bytes[..REVISION_BYTES].copy_from_slice(&self.durable.0.to_le_bytes());
        bytes[REVISION_BYTES] = u8::from(self.failed);
        let checksum = crc32fast::hash(&bytes[..=REVISION_BYTES]);
        bytes[REVISION_BYTES + 1..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; MARK_BYTES]) -> Option<Self> {
        let (durable, rest) = bytes.split_first_chunk::<REVISION_BYTES>()?;
        let mark = Mark { durable: Revision(u64::from_le_bytes(*durable)), failed: rest[0] == 1 };
        (mark.encode() == *bytes).then_some(mark)
    }
}
