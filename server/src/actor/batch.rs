//! The commit gate (P3), as a type: nothing that a batch decided can be seen before it is durable.
//!
//! An [`OpenBatch`] steps inputs; its events and effects are private. The only way to them is [`OpenBatch::commit`],
//! which consumes it and hands over a [`Committed`] once the journal says that the events are on stable storage.
//! A batch without events (a renewal, a refusal) needs no append, so its effects go at once.
//! While a batch is open it borrows the scheduler, so that nobody can read uncommitted state either.
//! After an error memory is ahead of the disk: the caller stops and never uses the scheduler again.
//!
//! The effects of an open batch are out of reach:
//! ```compile_fail,E0616
//! fn leak(open: &gpulease_server::actor::batch::OpenBatch<'_>) -> usize {
//!     open.output.effects.len()
//! }
//! ```
//! and so is its scheduler:
//! ```compile_fail,E0502
//! use gpulease_core::{scheduler::Scheduler, time::Time};
//! fn peek(scheduler: &mut Scheduler) {
//!     let open = gpulease_server::actor::batch::OpenBatch::open(scheduler, Time::ZERO);
//!     let _ = scheduler.revision();
//!     drop(open);
//! }
//! ```
//! A commit hands them over:
//! ```
//! use gpulease_server::{actor::batch::{CommitError, OpenBatch}, journal::Journal};
//! fn count(open: OpenBatch<'_>, journal: &mut dyn Journal) -> Result<usize, CommitError> {
//!     Ok(open.commit(journal)?.effects.len())
//! }
//! ```

use std::sync::Arc;

use gpulease_core::{
    event::Batch,
    id::Revision,
    input::Input,
    output::{Effect, Output},
    scheduler::Scheduler,
    time::Time,
};

use crate::journal::{
    self, Journal, JournalError,
    codec::{self, CodecError},
};

/// A batch whose decisions nobody has seen.
#[must_use = "a batch that is not committed leaves memory ahead of the disk"]
pub struct OpenBatch<'a> {
    scheduler: &'a mut Scheduler,
    output: Output,
    now: Time,
}

/// A batch that is durable.
#[derive(Debug)]
pub struct Committed {
    /// The last durable revision.
    pub revision: Revision,
    /// The time of the batch, on the scheduler's own clock, as in its views.
    pub now: Time,
    /// The events, where there were any.
    pub durable: Option<Durable>,
    /// To be let out, in this order.
    pub effects: Vec<Effect>,
}

/// Events on stable storage.
#[derive(Debug)]
pub struct Durable {
    /// The events and their revision.
    pub batch: Arc<Batch>,
    /// Their size in the journal.
    pub encoded_bytes: usize,
}

/// A commit failed: nothing of the batch may leave, now or later.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The journal refused or failed.
    #[error("cannot commit revision {revision}")]
    Journal {
        /// The batch.
        revision: Revision,
        /// Why.
        source: JournalError,
    },
    /// The events cannot be encoded: a defect.
    #[error("cannot encode revision {revision}")]
    Codec {
        /// The batch.
        revision: Revision,
        /// Why.
        source: CodecError,
    },
}

impl<'a> OpenBatch<'a> {
    /// Opens a batch: all its steps happen at `now`.
    pub fn open(scheduler: &'a mut Scheduler, now: Time) -> Self {
        scheduler.begin(now);
        Self { scheduler, output: Output::default(), now }
    }

    /// Steps one input.
    pub fn step(&mut self, input: Input) {
        self.scheduler.step(input, &mut self.output);
    }

    /// Goes on with what a full batch left.
    pub fn go_on(&mut self) {
        self.scheduler.go_on(&mut self.output);
    }

    /// Something is left for the next batch: acquires wait for that.
    #[must_use]
    pub fn has_rest(&self) -> bool {
        self.scheduler.has_rest()
    }

    /// How many events there are so far: how full the batch is.
    #[must_use]
    pub fn event_count(&self) -> usize {
        self.output.events.len()
    }

    /// Makes the events durable and hands over what they allow.
    ///
    /// # Errors
    /// The journal failed, or the events cannot be encoded; the coordinator has to stop.
    pub fn commit(self, journal: &mut dyn Journal) -> Result<Committed, CommitError> {
        let Self { scheduler, mut output, now } = self;
        let batch = scheduler.finish(&mut output);
        let durable = batch.map(|batch| append(batch, journal)).transpose()?;
        let (revision, now) = (scheduler.revision(), scheduler.own_time(now));
        Ok(Committed { revision, now, durable, effects: output.effects })
    }
}

fn append(batch: Batch, journal: &mut dyn Journal) -> Result<Durable, CommitError> {
    let revision = batch.revision;
    let bytes = codec::encode(&batch).map_err(|source| CommitError::Codec { revision, source })?;
    journal
        .append(journal::Revision(revision.0), &bytes)
        .map_err(|source| CommitError::Journal { revision, source })?;
    Ok(Durable { batch: Arc::new(batch), encoded_bytes: bytes.len() })
}
