//! Snapshots in the background: the last one and the batches after it, folded by the same `apply`, then the next one.
//!
//! Promises: the actor never waits for it and only learns the revision; a snapshot that fails leaves the one before in
//! place and is tried again after as much journal again. After each, history beyond its bound is removed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use super::{
    handle::Shared,
    recovery::{Fold, RecoveryError},
};
use crate::journal::{HistoryBound, Revision, codec};

/// A snapshot is due after so many bytes of batches: 4 MiB are some 10,000 batches of 400 bytes, which replay in under
/// a second.
const BACKLOG_BYTES_MAX: u64 = 4 << 20;
/// Or after so many batches, however small: 50,000 replay in about a second.
const BACKLOG_BATCHES_MAX: u64 = 50_000;
/// How many batches are read at once while folding.
const PAGE_BATCHES_MAX: usize = 4_096;

/// What the newest snapshot does not hold yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backlog {
    bytes: u64,
    batches: u64,
}

impl Backlog {
    /// One more batch.
    pub(super) fn add(&mut self, encoded_bytes: usize) {
        self.bytes = self.bytes.saturating_add(encoded_bytes as u64);
        self.batches = self.batches.saturating_add(1);
    }
}

/// The actor's end: counts, and says when a snapshot is due.
pub(super) struct SnapshotTrigger {
    backlog: Backlog,
    /// The size of the last snapshot: with large states, snapshots are as far apart as they are large, so that
    /// writing them costs no more than writing the journal does.
    snapshot_bytes: Arc<AtomicU64>,
    due: SyncSender<()>,
}

impl SnapshotTrigger {
    /// One more batch is durable.
    pub(super) fn committed(&mut self, encoded_bytes: usize) {
        self.backlog.add(encoded_bytes);
        self.check();
    }

    fn check(&mut self) {
        let bytes_max = BACKLOG_BYTES_MAX.max(self.snapshot_bytes.load(Ordering::Relaxed));
        if self.backlog.bytes < bytes_max && self.backlog.batches < BACKLOG_BATCHES_MAX {
            return;
        }
        self.backlog = Backlog::default();
        // Full: one is due already. Closed: the thread ended, and said why.
        let _ = self.due.try_send(());
    }
}

/// The thread that folds.
pub(super) struct Snapshots {
    shared: Arc<Shared>,
    history: HistoryBound,
    snapshot_bytes: Arc<AtomicU64>,
    stopping: Arc<AtomicBool>,
}

/// Folds now, on the caller's thread.
#[cfg(test)]
pub(super) fn fold(
    shared: &Arc<Shared>,
    history: HistoryBound,
) -> Result<Option<Revision>, RecoveryError> {
    let (snapshot_bytes, stopping) = (Arc::default(), Arc::default());
    Snapshots { shared: Arc::clone(shared), history, snapshot_bytes, stopping }.snapshot()
}

/// Ends the thread at its next page.
pub(super) struct SnapshotThread {
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// Starts the thread; `backlog` is what the journal already has beyond the newest snapshot.
pub(super) fn start(
    shared: Arc<Shared>,
    history: HistoryBound,
    backlog: Backlog,
) -> std::io::Result<(SnapshotTrigger, SnapshotThread)> {
    // One that waits says as much as many.
    let (due, is_due) = sync_channel(1);
    let snapshot_bytes = Arc::default();
    let stopping = Arc::new(AtomicBool::new(false));
    let snapshots = Snapshots {
        shared,
        history,
        snapshot_bytes: Arc::clone(&snapshot_bytes),
        stopping: Arc::clone(&stopping),
    };
    let thread = std::thread::Builder::new()
        .name("snapshots".to_owned())
        .spawn(move || snapshots.run(&is_due))?;
    let mut trigger = SnapshotTrigger { backlog, snapshot_bytes, due };
    trigger.check();
    Ok((trigger, SnapshotThread { stopping, thread }))
}

impl SnapshotThread {
    /// Waits for the end of the page at hand; the trigger must be dropped before.
    pub(super) fn stop(self) {
        self.stopping.store(true, Ordering::Relaxed);
        if self.thread.join().is_err() {
            tracing::error!("the snapshot thread had panicked; the journal is whole without it");
        }
    }
}

impl Snapshots {
    fn run(&self, is_due: &Receiver<()>) {
        while is_due.recv().is_ok() && !self.stopping.load(Ordering::Relaxed) {
            match self.snapshot() {
                Ok(Some(revision)) => tracing::debug!(%revision, "snapshot stored"),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(error = %describe(&error), "no snapshot was stored; the one before stays");
                }
            }
        }
    }

    /// Folds, stores, prunes; `None` where the end came first or nothing is new.
    fn snapshot(&self) -> Result<Option<Revision>, RecoveryError> {
        let archive = &self.shared.archive;
        let mut fold = Fold::from_snapshot(archive.newest_snapshot()?)?;
        let (from, last) = (fold.revision, archive.last_revision());
        while fold.revision < last {
            if self.stopping.load(Ordering::Relaxed) {
                return Ok(None);
            }
            for stored in archive.read_batches(fold.revision, PAGE_BATCHES_MAX)? {
                fold.apply(&stored)?;
            }
        }
        if fold.revision == from {
            return Ok(None);
        }
        let revision = fold.revision;
        let bytes = codec::encode(&fold.state).map_err(|source| RecoveryError::Undecodable {
            what: format!("the snapshot of revision {revision}"),
            source,
        })?;
        drop(fold);
        archive.store_snapshot(revision, &bytes)?;
        self.snapshot_bytes.store(bytes.len() as u64, Ordering::Relaxed);
        self.shared.figures.set_snapshot_revision(gpulease_core::id::Revision(revision.0));
        archive.prune(self.history)?;
        Ok(Some(revision))
    }
}

fn describe(error: &RecoveryError) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    format!("{error}{}", cause.unwrap_or_default())
}
