//! From the journal to a state: the newest snapshot, then every batch after it.
//!
//! Promises: the state is exactly the fold of what is durable, or there is none. What cannot be decoded or does not fit
//! is refused, with the way out: an empty start would grant live devices twice. Live and replayed batches go through
//! the same `apply`.

use gpulease_core::{
    event::Batch,
    policy::Policy,
    scheduler::Scheduler,
    state::{Defect, State},
};

use super::snapshot::Backlog;
use crate::journal::{
    self, Journal, JournalError, Opened, Revision, Snapshot,
    codec::{self, CodecError},
};

/// Why there is no state.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The bytes are whole but say nothing to this program.
    #[error("cannot decode {what}: {WAY_OUT}")]
    Undecodable {
        /// Which snapshot or batch.
        what: String,
        /// Why.
        source: CodecError,
    },
    /// An event does not fit the state before it.
    #[error("cannot replay the journal: {WAY_OUT}")]
    Inapplicable(#[source] Defect),
    /// A record says that it is another than the one it is stored as.
    #[error("the journal holds {found} where {expected} belongs: {WAY_OUT}")]
    Misplaced {
        /// What the record says.
        found: gpulease_core::id::Revision,
        /// Where it was found.
        expected: Revision,
    },
}

/// What an operator can do.
const WAY_OUT: &str = "start the gpulease that wrote this data directory; or see what is left with `gpulease journal \
    check`, and carry that, or a copy of the directory, into a new one with `gpulease journal export` and `gpulease \
    journal import` (server/RECOVERY.md); gpulease does not start empty, because devices that are still leased would \
    be granted twice";

impl RecoveryError {
    /// Whether the record of what is leased is damaged, as opposed to out of reach.
    #[must_use]
    pub fn is_corruption(&self) -> bool {
        match self {
            Self::Journal(error) => {
                matches!(error, JournalError::Corrupt { .. } | JournalError::UnknownFormat { .. })
            }
            Self::Undecodable { .. } | Self::Inapplicable(_) | Self::Misplaced { .. } => true,
        }
    }
}

/// A coordinator's state as the journal has it, and the journal to go on with.
pub struct Recovered {
    pub(super) scheduler: Scheduler,
    pub(super) journal: Box<dyn Journal>,
    pub(super) snapshot_revision: Revision,
    pub(super) backlog: Backlog,
}

impl Recovered {
    /// The rules with the state.
    #[must_use]
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }
}

/// Makes the state from a journal that was just opened, under `policy`.
///
/// # Errors
/// The journal is damaged, or is not of this program.
pub fn recover<J: Journal + 'static>(
    opened: Opened<J>,
    policy: Policy,
) -> Result<Recovered, RecoveryError> {
    let Opened { journal, snapshot, batches } = opened;
    let mut fold = Fold::from_snapshot(snapshot)?;
    let snapshot_revision = fold.revision;
    let mut backlog = Backlog::default();
    for stored in batches {
        let stored = stored?;
        backlog.add(stored.bytes.len());
        fold.apply(&stored)?;
    }
    let now = fold.state.time();
    let scheduler = Scheduler::recover(fold.state, policy, now);
    Ok(Recovered { scheduler, journal: Box::new(journal), snapshot_revision, backlog })
}

/// A state on its way from a snapshot to the newest batch.
pub(crate) struct Fold {
    pub(crate) state: State,
    pub(crate) revision: Revision,
}

impl Fold {
    /// Begins with a snapshot, or with nothing.
    pub(crate) fn from_snapshot(snapshot: Option<Snapshot>) -> Result<Self, RecoveryError> {
        let Some(snapshot) = snapshot else {
            return Ok(Self { state: State::default(), revision: Revision::ZERO });
        };
        let what = || format!("the snapshot of revision {}", snapshot.revision);
        let state: State = codec::decode(&snapshot.bytes)
            .map_err(|source| RecoveryError::Undecodable { what: what(), source })?;
        check_place(state.revision(), snapshot.revision)?;
        Ok(Self { state, revision: snapshot.revision })
    }

    /// Applies the next batch.
    pub(super) fn apply(&mut self, stored: &journal::Batch) -> Result<(), RecoveryError> {
        self.apply_batch(&decode(stored)?)
    }

    /// Applies the next batch, decoded. After an error the state is of no further use.
    pub(crate) fn apply_batch(&mut self, batch: &Batch) -> Result<(), RecoveryError> {
        self.state.apply_batch(batch).map_err(RecoveryError::Inapplicable)?;
        self.revision = Revision(batch.revision.0);
        Ok(())
    }
}

/// Of which revision a batch is: its first field.
#[must_use]
pub fn revision_of(bytes: &[u8]) -> Option<Revision> {
    codec::decode_beginning(bytes).ok().map(Revision)
}

/// A batch as the core knows it.
pub(crate) fn decode(stored: &journal::Batch) -> Result<Batch, RecoveryError> {
    let what = || format!("the batch of revision {}", stored.revision);
    let batch: Batch = codec::decode(&stored.bytes)
        .map_err(|source| RecoveryError::Undecodable { what: what(), source })?;
    check_place(batch.revision, stored.revision)?;
    Ok(batch)
}

fn check_place(
    found: gpulease_core::id::Revision,
    expected: Revision,
) -> Result<(), RecoveryError> {
    if found.0 == expected.0 {
        return Ok(());
    }
    Err(RecoveryError::Misplaced { found, expected })
}
