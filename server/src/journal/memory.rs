//! A journal in memory, for tests: the same port, the same rules, no disk.
//!
//! It promises what the port promises for as long as its `Disk` lives, so a test reopens a `Disk` the way a restart
//! reopens a directory, and it fails on request the way a disk does.
//! It leaves durability to `sled`.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use super::rules::{check_append, check_begin, check_history, check_snapshot, oldest_to_keep};
use super::{
    Archive, Batch, HistoryBound, Journal, JournalError, Opened, READ_BYTES_MAX, Revision, Snapshot,
};

/// What outlives a coordinator in a test: clone it, open it, drop the journal, open it again.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    contents: Arc<Mutex<Contents>>,
}

#[derive(Debug, Default)]
struct Contents {
    batches: BTreeMap<u64, Vec<u8>>,
    last: Revision,
    snapshot: Option<Snapshot>,
    open: bool,
    poisoned: bool,
    appends_until_failure: Option<u64>,
}

impl Disk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens the journal on this disk.
    ///
    /// # Errors
    /// `InUse` while a journal opened earlier is alive.
    pub fn open(&self) -> Result<Opened<MemoryJournal>, JournalError> {
        {
            let mut contents = lock(&self.contents);
            if contents.open {
                let path = Path::new("memory").to_path_buf();
                return Err(JournalError::InUse { path, holder_pid: Some(std::process::id()) });
            }
            contents.open = true;
            contents.poisoned = false;
        }
        Opened::from_journal(MemoryJournal { contents: Arc::clone(&self.contents) })
    }

    /// Makes an append fail as a full disk would, after `appends` more have gone through.
    pub fn fail_after(&self, appends: u64) {
        lock(&self.contents).appends_until_failure = Some(appends);
    }

    /// Loses a batch, as a damaged disk would.
    pub fn lose_batch(&self, revision: Revision) {
        lock(&self.contents).batches.remove(&revision.0);
    }
}

/// A journal on a `Disk`.
#[derive(Debug)]
pub struct MemoryJournal {
    contents: Arc<Mutex<Contents>>,
}

impl Drop for MemoryJournal {
    fn drop(&mut self) {
        lock(&self.contents).open = false;
    }
}

impl Journal for MemoryJournal {
    fn append(&mut self, revision: Revision, batch: &[u8]) -> Result<(), JournalError> {
        let mut contents = lock(&self.contents);
        if contents.poisoned {
            return Err(JournalError::Poisoned);
        }
        check_append(contents.last, revision, batch)?;
        if let Some(left) = contents.appends_until_failure.take() {
            if left == 0 {
                contents.poisoned = true;
                let full = io::Error::from(io::ErrorKind::StorageFull);
                return Err(JournalError::io("append to", Path::new("memory"), full));
            }
            contents.appends_until_failure = Some(left - 1);
        }
        contents.batches.insert(revision.0, batch.to_vec());
        contents.last = revision;
        Ok(())
    }

    fn last_revision(&self) -> Revision {
        lock(&self.contents).last
    }

    fn begin_at(&mut self, first: Revision) -> Result<(), JournalError> {
        let mut contents = lock(&self.contents);
        contents.last = check_begin(Path::new("memory"), contents.last, first)?;
        Ok(())
    }

    fn archive(&self) -> Arc<dyn Archive> {
        Arc::new(MemoryArchive { contents: Arc::clone(&self.contents) })
    }
}

struct MemoryArchive {
    contents: Arc<Mutex<Contents>>,
}

impl Archive for MemoryArchive {
    fn store_snapshot(&self, revision: Revision, bytes: &[u8]) -> Result<(), JournalError> {
        let mut contents = lock(&self.contents);
        let newest =
            contents.snapshot.as_ref().map_or(Revision::ZERO, |snapshot| snapshot.revision);
        check_snapshot(newest, contents.last, revision)?;
        contents.snapshot = Some(Snapshot { revision, bytes: bytes.to_vec() });
        Ok(())
    }

    fn newest_snapshot(&self) -> Result<Option<Snapshot>, JournalError> {
        Ok(lock(&self.contents).snapshot.clone())
    }

    fn read_batches(&self, after: Revision, limit: usize) -> Result<Vec<Batch>, JournalError> {
        let contents = lock(&self.contents);
        check_history(after, contents.oldest())?;
        let (mut found, mut bytes_read) = (Vec::new(), 0);
        for revision in (after.0 + 1..=contents.last.0).take(limit) {
            let Some(bytes) = contents.batches.get(&revision) else {
                return Err(JournalError::corrupt(format!("batch {revision} is missing")));
            };
            bytes_read += bytes.len();
            if bytes_read > READ_BYTES_MAX && !found.is_empty() {
                break;
            }
            found.push(Batch { revision: Revision(revision), bytes: bytes.clone() });
        }
        Ok(found)
    }

    fn oldest_revision(&self) -> Revision {
        lock(&self.contents).oldest()
    }

    fn last_revision(&self) -> Revision {
        lock(&self.contents).last
    }

    fn prune(&self, bound: HistoryBound) -> Result<u64, JournalError> {
        let mut contents = lock(&self.contents);
        let Some(newest) = contents.snapshot.as_ref().map(|snapshot| snapshot.revision) else {
            return Ok(0);
        };
        let behind = contents.batches.range(..=newest.0).rev();
        let sizes = behind.map(|(revision, bytes)| (Revision(*revision), bytes.len()));
        let keep_from = oldest_to_keep(newest, contents.last, sizes, bound);
        let kept = contents.batches.split_off(&keep_from.0);
        let removed = std::mem::replace(&mut contents.batches, kept);
        Ok(u64::try_from(removed.len()).expect("a count of batches in memory fits in 64 bits"))
    }
}

impl Contents {
    fn oldest(&self) -> Revision {
        self.batches.keys().next().map_or(self.last.next(), |revision| Revision(*revision))
    }
}

/// A thread that panicked while it held the lock leaves contents that are whole: each change is one statement.
fn lock(contents: &Mutex<Contents>) -> MutexGuard<'_, Contents> {
    contents.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
