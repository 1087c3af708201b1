//! Commits and reads on sled 0.34.7. What was found by running it, and what follows here:
//!
//! - `flush` only calls sync_file_range, so a commit ends with fdatasync of sled's `db` file, by one descriptor.
//! - A failed fdatasync may have lost pages: the store is poisoned and its sled handle leaked, because dropping it syncs;
//!   the next opening reads from the disk, not from the cache.
//! - A leftover `snap.*.generating` makes an open fail, so it is removed first; a file lock may linger, so it is retried.
//! - What a killed process wrote may be in the page cache only: it is synced before sled builds on it (sled does that
//!   itself only where its log ends inside a segment).
//! - Commits of the writer and the pruner take turns, so sled never recycles a segment on the strength of unsynced ones.

use std::fs::{self, File};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::super::rules::{
    check_append, check_begin, check_history, check_snapshot, oldest_to_keep,
};
use super::super::{
    Archive, Batch, HistoryBound, JournalError, READ_BYTES_MAX, Revision, Snapshot,
};
use super::directory::{self, Directory, LOCK_LINGER_MAX, LOCK_RETRY_EVERY};
use super::high_water_mark::{HighWaterMark, Mark};
use super::record::{self, Assembly, Record};
use super::snapshot_files::SnapshotFiles;

/// sled's page cache. The journal is written once and read when a watcher falls behind: 16 MiB hold the hot pages and
/// leave room in the 40 MiB that an idle coordinator may use.
const CACHE_BYTES: u64 = 16 << 20;

/// One commit of the pruner removes at most this many records, and stops after the record that reaches
/// `PRUNE_BYTES_MAX`: sled rewrites about twice what it removes, and 1 MiB is within a segment and a few milliseconds,
/// for which the writer may have to wait.
const PRUNE_RECORDS_MAX: usize = 256;

/// See `PRUNE_RECORDS_MAX`.
const PRUNE_BYTES_MAX: usize = 512 << 10;

/// An open store.
pub(super) struct Store {
    /// Empty only while dropping.
    db: Option<::sled::Db>,
    commit: Mutex<Commit>,
    last: AtomicU64,
    oldest: AtomicU64,
    snapshots: Mutex<SnapshotFiles>,
    mark: HighWaterMark,
    path: PathBuf,
    /// Dropped after `db`: fields drop in order, and `Drop` takes `db` first.
    _directory: Directory,
}

/// The right to write, and whether it is still worth anything.
struct Commit {
    file: File,
    poisoned: bool,
}

/// Creates sled's files in an empty directory; publishing the directory syncs them.
pub(super) fn create(directory: &Directory) -> Result<(), JournalError> {
    drop(open_sled(directory)?);
    Ok(())
}

impl Store {
    /// Opens the store of a directory that this process holds.
    pub(super) fn open(directory: Directory) -> Result<Self, JournalError> {
        let path = directory.batches();
        let mark = HighWaterMark::open(directory.acknowledged())?;
        let left = mark.read()?;
        let file = prepare(&path, left.is_some_and(|left| left.failed))?;
        let db = open_sled(&directory)?;
        // sled renames a snapshot of its page table into place on opening, and does not sync the directory.
        directory::sync(&path)?;
        let last = edge(db.last(), &path)?;
        let oldest = edge(db.first(), &path)?;
        let last_or_zero = last.unwrap_or(Revision::ZERO);
        left.map_or(Ok(()), |left| left.check(last_or_zero))?;
        mark.write(Mark { durable: last_or_zero, failed: false });
        let store = Store {
            commit: Mutex::new(Commit { file, poisoned: false }),
            last: AtomicU64::new(last_or_zero.0),
            oldest: AtomicU64::new(oldest.unwrap_or(Revision::ZERO.next()).0),
            snapshots: Mutex::new(SnapshotFiles::open(directory.snapshots())?),
            db: Some(db),
            mark,
            path,
            _directory: directory,
        };
        Ok(store)
    }

    /// See `Journal::append`.
    pub(super) fn append(&self, revision: Revision, batch: &[u8]) -> Result<(), JournalError> {
        let mut commit = self.lock_commit()?;
        check_append(self.last_revision(), revision, batch)?;
        self.commit(&mut commit, "append to", |db| insert(db, revision, batch))?;
        self.mark.write(Mark { durable: revision, failed: false });
        self.last.store(revision.0, Ordering::Release);
        Ok(())
    }

    /// See `Journal::begin_at`.
    pub(super) fn begin_at(&self, first: Revision) -> Result<(), JournalError> {
        let last = check_begin(&self.path, self.last_revision(), first)?;
        self.oldest.store(first.0, Ordering::Release);
        self.last.store(last.0, Ordering::Release);
        Ok(())
    }

    /// The commit path: change, flush, fdatasync. Whatever fails, nothing is tried again.
    fn commit(
        &self,
        commit: &mut Commit,
        attempted: &'static str,
        change: impl FnOnce(&::sled::Db) -> ::sled::Result<()>,
    ) -> Result<(), JournalError> {
        commit.poisoned = true;
        let committed = self.change_and_sync(&commit.file, attempted, change);
        match &committed {
            Ok(()) => commit.poisoned = false,
            Err(_) => self.mark.write(Mark { durable: self.last_revision(), failed: true }),
        }
        committed
    }

    fn change_and_sync(
        &self,
        file: &File,
        attempted: &'static str,
        change: impl FnOnce(&::sled::Db) -> ::sled::Result<()>,
    ) -> Result<(), JournalError> {
        let db = self.db();
        // sled asserts and unwraps in places where a disk can make it do so.
        catch_unwind(AssertUnwindSafe(|| change(db).and_then(|()| db.flush().map(drop))))
            .map_err(|panic| JournalError::StorePanicked {
                attempted,
                path: self.path.clone(),
                message: panic_message(panic.as_ref()),
            })?
            .map_err(|error| JournalError::store(attempted, &self.path, error))?;
        file.sync_data().map_err(|error| JournalError::io("sync", &self.path.join("db"), error))
    }

    fn lock_commit(&self) -> Result<MutexGuard<'_, Commit>, JournalError> {
        // A panic while the lock was held leaves `poisoned` set, which says the same.
        let commit = self.commit.lock().unwrap_or_else(PoisonError::into_inner);
        if commit.poisoned { Err(JournalError::Poisoned) } else { Ok(commit) }
    }

    fn db(&self) -> &::sled::Db {
        self.db.as_ref().expect("only Drop takes the handle")
    }

    fn lock_snapshots(&self) -> MutexGuard<'_, SnapshotFiles> {
        // The list of snapshots changes only after a file is durable, so it is whole even after a panic.
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store_error(&self, error: ::sled::Error) -> JournalError {
        JournalError::store("read", &self.path, error)
    }

    /// The revisions and sizes of the batches up to `newest`, newest first.
    fn sizes_behind(
        &self,
        newest: Revision,
    ) -> impl Iterator<Item = Result<(Revision, usize), JournalError>> {
        let range = self.db().range(..=record::key(newest, u16::MAX)).rev();
        range.filter_map(|found| match found {
            Ok((key, value)) => match Record::parse(&key, &value) {
                Ok(record) => record.starts_batch().then_some(Ok((record.revision, record.length))),
                Err(error) => Some(Err(error)),
            },
            Err(error) => Some(Err(self.store_error(error))),
        })
    }

    /// The keys of one pruning commit: whole batches from the oldest on, below `keep_from`.
    fn prune_slice(&self, keep_from: Revision) -> Result<PruneSlice, JournalError> {
        let mut slice =
            PruneSlice { keys: ::sled::Batch::default(), oldest_after: keep_from, records: 0 };
        let mut bytes = 0;
        for found in self.db().range(..record::key(keep_from, 0)) {
            let (key, value) = found.map_err(|error| self.store_error(error))?;
            let (revision, chunk) = record::parse_key(&key)?;
            if chunk == 0 && (slice.records >= PRUNE_RECORDS_MAX || bytes >= PRUNE_BYTES_MAX) {
                slice.oldest_after = revision;
                break;
            }
            bytes += value.len();
            slice.records += 1;
            slice.keys.remove(key);
        }
        Ok(slice)
    }
}

struct PruneSlice {
    keys: ::sled::Batch,
    oldest_after: Revision,
    records: usize,
}

impl Archive for Store {
    fn store_snapshot(&self, revision: Revision, bytes: &[u8]) -> Result<(), JournalError> {
        let mut snapshots = self.lock_snapshots();
        check_snapshot(snapshots.newest_revision(), self.last_revision(), revision)?;
        snapshots.store(revision, bytes)
    }

    fn newest_snapshot(&self) -> Result<Option<Snapshot>, JournalError> {
        self.lock_snapshots().read_newest()
    }

    fn read_batches(&self, after: Revision, limit: usize) -> Result<Vec<Batch>, JournalError> {
        check_history(after, self.oldest_revision())?;
        let last = self.last_revision();
        if after >= last || limit == 0 {
            return Ok(Vec::new());
        }
        // Beyond `last` a commit may be under way: it is in sled before it is durable.
        let range = (
            Bound::Included(record::key(after.next(), 0)),
            Bound::Included(record::key(last, u16::MAX)),
        );
        let (mut batches, mut bytes_read, mut assembly) = (Vec::new(), 0, Assembly::after(after));
        for found in self.db().range::<[u8; 10], _>(range) {
            let (key, value) = found.map_err(|error| self.store_error(error))?;
            let record = Record::parse(&key, &value)?;
            if !assembly.is_partial() {
                let full = bytes_read + record.length > READ_BYTES_MAX && !batches.is_empty();
                if full || batches.len() >= limit {
                    return Ok(batches);
                }
                bytes_read += record.length;
            }
            // A pruner that overtook this reader is not damage.
            let pushed = assembly.push(&record);
            batches.extend(
                pushed.or_else(|error| {
                    check_history(after, self.oldest_revision()).and(Err(error))
                })?,
            );
        }
        finish_read(batches, last, limit, &assembly)
    }

    fn oldest_revision(&self) -> Revision {
        Revision(self.oldest.load(Ordering::Acquire))
    }

    fn last_revision(&self) -> Revision {
        Revision(self.last.load(Ordering::Acquire))
    }

    fn prune(&self, bound: HistoryBound) -> Result<u64, JournalError> {
        let snapshot = self.lock_snapshots().newest_revision();
        if snapshot == Revision::ZERO {
            return Ok(0);
        }
        let (mut failed, before) = (None, self.oldest_revision());
        let sizes = self
            .sizes_behind(snapshot)
            .map_while(|size| size.map_err(|error| failed = Some(error)).ok());
        let keep_from = oldest_to_keep(snapshot, self.last_revision(), sizes, bound);
        if let Some(error) = failed {
            return Err(error);
        }
        while self.oldest_revision() < keep_from {
            let mut commit = self.lock_commit()?;
            let slice = self.prune_slice(keep_from)?;
            self.oldest.store(slice.oldest_after.0, Ordering::Release);
            self.commit(&mut commit, "prune", |db| db.apply_batch(slice.keys))?;
        }
        Ok(self.oldest_revision().0 - before.0)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let poisoned = self.commit.get_mut().unwrap_or_else(PoisonError::into_inner).poisoned;
        let db = self.db.take();
        if poisoned {
            // sled's own drop flushes and syncs, and a failed sync must not be tried again.
            std::mem::forget(db);
        } else {
            // sled unwraps the result of its last sync; everything acknowledged is durable already.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
        }
    }
}

fn insert(db: &::sled::Db, revision: Revision, batch: &[u8]) -> ::sled::Result<()> {
    if record::is_single(batch) {
        // One message in sled's log with a checksum of its own: atomic, and one write instead of three.
        return record::records(revision, batch)
            .try_for_each(|(key, value)| db.insert(key, value).map(drop));
    }
    let mut records = ::sled::Batch::default();
    for (key, value) in record::records(revision, batch) {
        records.insert(key.as_slice(), value);
    }
    db.apply_batch(records)
}

/// The end of a scan: everything up to `last` must have been there.
fn finish_read(
    batches: Vec<Batch>,
    last: Revision,
    limit: usize,
    assembly: &Assembly,
) -> Result<Vec<Batch>, JournalError> {
    let read_up_to = batches.last().map(|batch| batch.revision);
    if assembly.is_partial() || (batches.len() < limit && read_up_to != Some(last)) {
        return Err(JournalError::corrupt(format!(
            "batches end before {last}, which is the last one"
        )));
    }
    Ok(batches)
}

/// The revision of the first or last record.
fn edge(
    found: ::sled::Result<Option<(::sled::IVec, ::sled::IVec)>>,
    path: &Path,
) -> Result<Option<Revision>, JournalError> {
    let found = found.map_err(|error| JournalError::store("read", path, error))?;
    found.map(|(key, _)| record::parse_key(&key).map(|(revision, _)| revision)).transpose()
}

/// Makes the directory fit for sled: leftovers gone, and the page cache and the disk of one mind. Returns the descriptor
/// of the `db` file that every commit syncs.
fn prepare(path: &Path, last_commit_failed: bool) -> Result<File, JournalError> {
    for entry in directory::entries(path)? {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(&entry)
                .map_err(|error| JournalError::io("remove the leftover", &entry, error))?;
        }
    }
    let db_path = path.join("db");
    let file =
        File::options().read(true).write(true).open(&db_path).map_err(|error| {
            match error.kind() {
                std::io::ErrorKind::NotFound => {
                    JournalError::corrupt(format!("{} is missing", db_path.display()))
                }
                _ => JournalError::io("open", &db_path, error),
            }
        })?;
    file.sync_data().map_err(|error| JournalError::io("sync", &db_path, error))?;
    if last_commit_failed {
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)
            .map_err(|error| JournalError::io("drop cached pages of", &db_path, error.into()))?;
    }
    Ok(file)
}

fn open_sled(directory: &Directory) -> Result<::sled::Db, JournalError> {
    let path = &directory.batches();
    let config = ::sled::Config::new()
        .path(path)
        .segment_size(directory.segment_bytes())
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(None);
    let started = Instant::now();
    loop {
        let opened = catch_unwind(AssertUnwindSafe(|| config.open())).map_err(|panic| {
            let message = panic_message(panic.as_ref());
            JournalError::corrupt(format!("sled panicked on opening {}: {message}", path.display()))
        })?;
        match opened {
            Ok(db) => return Ok(db),
            Err(error) if !is_locked(&error) => {
                return Err(JournalError::store("open", path, error));
            }
            Err(_) if started.elapsed() >= LOCK_LINGER_MAX => {
                return Err(JournalError::InUse {
                    path: directory.data().to_path_buf(),
                    holder_pid: None,
                });
            }
            Err(_) => std::thread::sleep(LOCK_RETRY_EVERY),
        }
    }
}

/// sled gives a lock that is held no error of its own, only this text.
fn is_locked(error: &::sled::Error) -> bool {
    matches!(error, ::sled::Error::Io(error) if error.to_string().starts_with("could not acquire lock"))
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
