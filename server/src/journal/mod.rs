//! The journal: the durable, ordered record of every batch of events, and the newest snapshot of their fold.
//!
//! It promises that a batch is on stable storage, whole, when `append` returns (P3), that batches come back in
//! order with verified checksums, and that damage is an error that names the way out, never an empty start.
//! It leaves to others what the bytes mean (`codec`, the core), when to take a snapshot, and the jump of the
//! fencing counter that P2 asks for after an import (the core does it, the caller of `portable::import` starts it).
//!
//! `Journal` is the writer, used by one thread. `Archive` is everything that may run beside it: snapshots, pruning
//! and reading for watchers. Implementations: `memory` for tests, `sled` for real; one conformance suite for both.

mod error;
mod replay;
mod rules;

pub mod codec;
pub mod memory;
pub mod portable;
pub mod sled;

#[cfg(test)]
mod conformance;

use std::fmt;
use std::sync::Arc;

pub use error::JournalError;
pub use replay::Replay;

/// The largest batch that a journal takes, in bytes.
///
/// A step of the core makes at most 256 expiries and a commit takes at most some thousand inputs; at about 1 KiB of
/// events for each that is under 4 MiB, so twice that is never met by a coordinator that works.
pub const BATCH_BYTES_MAX: usize = 8 << 20;

/// How many bytes one `Archive::read_batches` returns at most, the first batch aside: what a watcher that catches up
/// holds in memory at a time. 4 MiB is about 10,000 batches of 400 bytes.
pub const READ_BYTES_MAX: usize = 4 << 20;

/// The number of a durable batch (the contract's "revision"). The first batch has revision 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision before the first batch: an empty journal stands here.
    pub const ZERO: Revision = Revision(0);

    /// The revision that the next batch must carry.
    pub fn next(self) -> Revision {
        // 2^64 batches at a million per second last 580,000 years.
        Revision(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// One batch as it was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Its place in the order.
    pub revision: Revision,
    /// The bytes given to `append`.
    pub bytes: Vec<u8>,
}

/// The fold of every batch up to and including `revision`, as the core encoded it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The last batch that the snapshot contains.
    pub revision: Revision,
    /// The encoded state.
    pub bytes: Vec<u8>,
}

/// How much history behind the newest snapshot `Archive::prune` leaves for watchers (P20) and audits.
///
/// Whichever bound is met first counts. Batches newer than the newest snapshot are never removed, whatever the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryBound {
    /// The most batches that stay behind the snapshot.
    pub batches_max: u64,
    /// The most bytes of batches that stay behind the snapshot.
    pub bytes_max: u64,
}

impl HistoryBound {
    /// 200,000 batches are over 3 minutes at 1,000 commits per second, and days on a calm cluster; 64 MiB are those
    /// same batches at 335 bytes each, and bound the file (about three times this) where batches are large.
    pub const DEFAULT: HistoryBound = HistoryBound { batches_max: 200_000, bytes_max: 64 << 20 };
}

/// The writer's half of a journal. One thread owns it.
pub trait Journal: Send {
    /// Appends `batch` under `revision`, atomically; on return it is on stable storage.
    ///
    /// # Errors
    /// `OutOfOrder` unless `revision` follows the last one, `BatchTooLarge` over `BATCH_BYTES_MAX`: nothing was
    /// written and the journal stays usable. Any other error poisons the journal: the batch may or may not be on the
    /// disk, every later call fails with `Poisoned`, and the only way on is to stop and open it again.
    fn append(&mut self, revision: Revision, batch: &[u8]) -> Result<(), JournalError>;

    /// The last durable revision; `Revision::ZERO` before the first batch.
    fn last_revision(&self) -> Revision;

    /// Lets an empty journal begin at `first` instead of revision 1: for import, which keeps revisions.
    ///
    /// # Errors
    /// `NotEmpty` if anything was ever appended; `OutOfOrder` for revision zero.
    fn begin_at(&mut self, first: Revision) -> Result<(), JournalError>;

    /// The half that may be used from other threads while this one appends.
    fn archive(&self) -> Arc<dyn Archive>;
}

/// Snapshots, history and pruning: what background threads and watchers do beside the writer.
pub trait Archive: Send + Sync {
    /// Makes `bytes` the newest snapshot; it becomes visible whole or not at all, and durable on return. The
    /// snapshot before it is kept until then.
    ///
    /// # Errors
    /// `SnapshotOutOfPlace` unless it is newer than the newest snapshot and not newer than the last durable batch.
    /// An IO error leaves the previous snapshot in place and does not poison the journal.
    fn store_snapshot(&self, revision: Revision, bytes: &[u8]) -> Result<(), JournalError>;

    /// The newest snapshot, its checksum verified.
    ///
    /// # Errors
    /// `Corrupt` if it cannot be read back as it was written.
    fn newest_snapshot(&self) -> Result<Option<Snapshot>, JournalError>;

    /// Durable batches after `after`, in order and without a gap: at most `limit`, and no more than fit in
    /// `READ_BYTES_MAX` unless the first alone is larger. Empty when there is none yet.
    ///
    /// # Errors
    /// `HistoryGone` if the batch after `after` was pruned; `Corrupt` if one is missing or damaged.
    fn read_batches(&self, after: Revision, limit: usize) -> Result<Vec<Batch>, JournalError>;

    /// The oldest batch that `read_batches` can still return; one past the last revision when there is none.
    fn oldest_revision(&self) -> Revision;

    /// The last durable revision.
    fn last_revision(&self) -> Revision;

    /// Removes the batches that are behind the newest snapshot by more than `bound`, and returns how many. The
    /// newest batch always stays. A reader in the removed range gets `HistoryGone`.
    ///
    /// # Errors
    /// An IO error poisons the journal, as in `append`: both share one file and one fdatasync.
    fn prune(&self, bound: HistoryBound) -> Result<u64, JournalError>;
}

/// A journal that was just opened, with what recovery needs.
pub struct Opened<J> {
    /// The writer.
    pub journal: J,
    /// The newest snapshot, if one was ever stored.
    pub snapshot: Option<Snapshot>,
    /// The batches after the snapshot, oldest first; an item is an error where the journal is damaged.
    pub batches: Replay,
}

impl<J: Journal> Opened<J> {
    /// Reads the newest snapshot and prepares the replay of what follows it; every implementation's `open` ends here.
    fn from_journal(journal: J) -> Result<Self, JournalError> {
        let archive = journal.archive();
        let snapshot = archive.newest_snapshot()?;
        let after = snapshot.as_ref().map_or(Revision::ZERO, |snapshot| snapshot.revision);
        rules::check_continuity(after, archive.oldest_revision(), archive.last_revision())?;
        Ok(Opened { journal, snapshot, batches: Replay::new(archive, after) })
    }
}
