//! How the coordinator is, as everyone outside the actor sees it: health, refusals, and a few facts in figures.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use gpulease_core::id::Revision;

/// Whether requests are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// They are.
    Serving,
    /// The coordinator stops on request.
    Stopping,
    /// A commit failed: nothing is acknowledged any more, and the process ends.
    Failed(Arc<str>),
}

/// Why a request was not taken, or got no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// As many requests of its kind wait as may; a retry helps.
    #[error("too many requests wait for the coordinator; try again in a moment")]
    Overloaded,
    /// The coordinator stops on request.
    #[error("the coordinator is shutting down; try again when it is back")]
    Stopping,
    /// A commit failed; what became of the request is unknown until the coordinator is back.
    #[error("the coordinator stopped: {0}")]
    Failed(Arc<str>),
}

/// What is known about this run of the coordinator.
#[derive(Clone, Debug)]
pub struct Facts {
    /// When it started, for display.
    pub started: SystemTime,
    /// Where the journal is; `None`: in memory only.
    pub data_directory: Option<PathBuf>,
    /// What the devices are read with, such as `simulated` or `none`.
    pub backend: String,
    /// The last durable revision.
    pub revision: Revision,
    /// The oldest revision that can still be watched.
    pub oldest_revision: Revision,
    /// The newest snapshot; 0: none yet.
    pub snapshot_revision: Revision,
    /// Grants since the start.
    pub grants_total: u64,
}

/// The figures among the [`Facts`], written by the actor's threads.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) revision: AtomicU64,
    pub(super) snapshot_revision: AtomicU64,
    pub(super) grants_total: AtomicU64,
    /// How far the scheduler's own time is behind the clock: the gaps of P4, in milliseconds.
    pub(super) gaps_millis: AtomicU64,
}

impl Figures {
    pub(super) fn set_snapshot_revision(&self, revision: Revision) {
        self.snapshot_revision.store(revision.0, Ordering::Release);
    }

    pub(super) fn set_revision(&self, revision: Revision) {
        self.revision.store(revision.0, Ordering::Release);
    }
}
