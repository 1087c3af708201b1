//! The rules of the port that hold wherever a journal is stored.
//!
//! They are functions of revisions and sizes, so that every implementation answers alike.

use std::path::Path;

use super::{BATCH_BYTES_MAX, HistoryBound, JournalError, Revision};

/// The rules of `Journal::append` that do not depend on where it is stored.
pub(super) fn check_append(
    last: Revision,
    revision: Revision,
    batch: &[u8],
) -> Result<(), JournalError> {
    if revision != last.next() {
        return Err(JournalError::OutOfOrder { expected: last.next(), found: revision });
    }
    if batch.len() > BATCH_BYTES_MAX {
        return Err(JournalError::BatchTooLarge { bytes: batch.len(), max: BATCH_BYTES_MAX });
    }
    Ok(())
}

/// The rule of `Journal::begin_at`; gives the revision that counts as the last from now on.
pub(super) fn check_begin(
    path: &Path,
    last: Revision,
    first: Revision,
) -> Result<Revision, JournalError> {
    if last != Revision::ZERO {
        let (path, found) = (path.to_path_buf(), path.to_path_buf());
        return Err(JournalError::NotEmpty { path, found });
    }
    let before = first.0.checked_sub(1).map(Revision);
    before.ok_or(JournalError::OutOfOrder { expected: Revision::ZERO.next(), found: first })
}

/// The rule of `Archive::store_snapshot`.
pub(super) fn check_snapshot(
    newest: Revision,
    last: Revision,
    found: Revision,
) -> Result<(), JournalError> {
    if found <= newest || found > last {
        return Err(JournalError::SnapshotOutOfPlace { found, newest, last });
    }
    Ok(())
}

/// The rule of `Archive::read_batches`.
pub(super) fn check_history(asked: Revision, oldest: Revision) -> Result<(), JournalError> {
    if asked.next() < oldest {
        return Err(JournalError::HistoryGone { asked, oldest });
    }
    Ok(())
}

/// The rule of `Archive::prune`: the oldest batch that `bound` keeps, given the sizes of the batches behind the newest
/// snapshot, newest first. The last batch of all is always kept, so that an empty journal is never a pruned one.
pub(super) fn oldest_to_keep(
    newest_snapshot: Revision,
    last: Revision,
    sizes_newest_first: impl Iterator<Item = (Revision, usize)>,
    bound: HistoryBound,
) -> Revision {
    let mut keep_from = newest_snapshot.next().min(last);
    let (mut batches, mut bytes) = (0_u64, 0_u64);
    for (revision, size) in sizes_newest_first {
        batches += 1;
        bytes = bytes.saturating_add(u64::try_from(size).unwrap_or(u64::MAX));
        if batches > bound.batches_max || bytes > bound.bytes_max {
            break;
        }
        keep_from = keep_from.min(revision);
    }
    keep_from
}

/// Refuses a journal whose snapshot and batches do not meet: something durable has gone missing.
pub(super) fn check_continuity(
    snapshot: Revision,
    oldest: Revision,
    last: Revision,
) -> Result<(), JournalError> {
    if snapshot > last {
        return Err(JournalError::corrupt(format!(
            "the newest snapshot is of revision {snapshot} but the last batch is {last}: batches are missing"
        )));
    }
    if oldest > snapshot.next() {
        return Err(JournalError::corrupt(format!(
            "the newest snapshot is of revision {snapshot} but the oldest batch is {oldest}: batches are missing"
        )));
    }
    Ok(())
}
