//! Events for watchers: complete, in order, resumable from any revision that is kept (P20).
//!
//! The newest batches wait in a ring in memory; older ones are read from the journal, off the actor. A cursor is one
//! watcher's place; however slowly it reads, it costs nobody else anything, and at worst falls out of the kept history.
//! An event names things by number; its [`Subject`] says what they are called.

use std::{collections::VecDeque, sync::Arc, time::SystemTime};

use gpulease_core::{event::Batch, id::Revision};
use tokio::sync::watch;

use super::{
    handle::Handle,
    ring::{Edge, Entry},
    subject::{Recalled, Subject},
};
use crate::journal::{self, JournalError, codec};

/// The most batches that a cursor takes at once: enough to make a lock or a read rare, small enough to hold.
const PAGE_BATCHES_MAX: usize = 256;

/// One batch for watchers.
#[derive(Clone, Debug)]
pub struct Published {
    /// The events and their revision.
    pub batch: Arc<Batch>,
    /// When it was decided, for display.
    pub at: SystemTime,
    /// One for each event: whom it is about, by name.
    pub subjects: Arc<[Subject]>,
}

/// The revision asked for is not kept: list, and watch from the list's revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "revision {asked} is outside the kept history, which begins at {oldest} and ends at {last}"
)]
pub struct HistoryGone {
    /// The revision asked for.
    pub asked: Revision,
    /// The oldest that is kept.
    pub oldest: Revision,
    /// The newest there is.
    pub last: Revision,
}

/// Why a cursor ends.
#[derive(Debug, thiserror::Error)]
pub enum FeedEnd {
    /// The coordinator stops; every batch up to this one was given.
    #[error("the coordinator stops; watch again from revision {resume_from}")]
    Stopped {
        /// Watch from here.
        resume_from: Revision,
    },
    /// The watcher was slower than the history is kept.
    #[error(transparent)]
    HistoryGone(#[from] HistoryGone),
    /// The journal cannot be read.
    #[error("cannot read past events: {0}")]
    Unreadable(String),
}

/// The way to the events.
#[derive(Clone)]
pub struct Feed {
    handle: Handle,
}

/// One watcher's place in the events.
pub struct Cursor {
    handle: Handle,
    edge: watch::Receiver<Edge>,
    position: Revision,
    page: VecDeque<Published>,
    /// What the journal says of leases that are forgotten, or soon may be.
    recalled: Recalled,
}

impl Feed {
    pub(super) fn new(handle: Handle) -> Self {
        Self { handle }
    }

    /// A cursor behind `revision`, or behind the newest batch.
    ///
    /// # Errors
    /// The revision is older than the kept history, or is still to come.
    pub fn after(&self, revision: Option<Revision>) -> Result<Cursor, HistoryGone> {
        let edge = self.handle.shared.ring.edge();
        let last = edge.borrow().last;
        let position = revision.unwrap_or(last);
        if position > last || self.is_gone(position) {
            return Err(self.gone(position));
        }
        Ok(Cursor {
            handle: self.handle.clone(),
            edge,
            position,
            page: VecDeque::new(),
            recalled: Recalled::new(),
        })
    }

    fn is_gone(&self, position: Revision) -> bool {
        let shared = &self.handle.shared;
        shared.ring.page(position, 0).is_none()
            && position.0 + 1 < shared.archive.oldest_revision().0
    }

    fn gone(&self, asked: Revision) -> HistoryGone {
        let shared = &self.handle.shared;
        let oldest = Revision(shared.archive.oldest_revision().0);
        HistoryGone { asked, oldest, last: shared.ring.last() }
    }
}

impl Cursor {
    /// The revision up to which every batch was given: what a bookmark says.
    #[must_use]
    pub fn position(&self) -> Revision {
        self.position
    }

    /// Waits for the next batch. Dropping the future loses nothing.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn next(&mut self) -> Result<Published, FeedEnd> {
        loop {
            if let Some(next) = self.page.pop_front() {
                self.position = next.batch.revision;
                return Ok(next);
            }
            let edge = *self.edge.borrow_and_update();
            if edge.last > self.position {
                // Both are set at once, so that a dropped future leaves the cursor where it was.
                let (page, recalled) = self.read_page().await?;
                (self.page, self.recalled) = (page.into(), recalled);
            } else if edge.closed || self.edge.changed().await.is_err() {
                return Err(FeedEnd::Stopped { resume_from: self.position });
            }
        }
    }

    async fn read_page(&self) -> Result<(Vec<Published>, Recalled), FeedEnd> {
        let ring = &self.handle.shared.ring;
        let entries = match ring.page(self.position, PAGE_BATCHES_MAX) {
            Some(entries) => entries,
            None => self.read_journal().await?,
        };
        let (subjects, recalled) = self.subjects(&entries).await?;
        let published = entries.into_iter().zip(subjects).map(|(entry, subjects)| Published {
            at: self.handle.wall(entry.batch.time),
            batch: entry.batch,
            subjects,
        });
        Ok((published.collect(), recalled))
    }

    /// The page from the journal, on a thread that may block.
    async fn read_journal(&self) -> Result<Vec<Entry>, FeedEnd> {
        let archive = Arc::clone(&self.handle.shared.archive);
        let after = journal::Revision(self.position.0);
        let read = tokio::task::spawn_blocking(move || {
            archive.read_batches(after, PAGE_BATCHES_MAX)?.iter().map(decode).collect()
        });
        match read.await {
            Ok(Ok(entries)) => Ok(entries),
            Ok(Err(ReadError::Journal(JournalError::HistoryGone { .. }))) => {
                Err(Feed::new(self.handle.clone()).gone(self.position).into())
            }
            Ok(Err(error)) => Err(FeedEnd::Unreadable(error.to_string())),
            Err(error) => Err(FeedEnd::Unreadable(error.to_string())),
        }
    }

    /// The subjects of each batch; those that the actor did not name when it published them are asked for now.
    async fn subjects(
        &self,
        entries: &[Entry],
    ) -> Result<(Vec<Arc<[Subject]>>, Recalled), FeedEnd> {
        let mut recalled = self.recalled.clone();
        if let Some(known) = entries.iter().map(|entry| entry.subjects.clone()).collect() {
            return Ok((known, recalled));
        }
        let batches: Vec<_> = entries.iter().map(|entry| Arc::clone(&entry.batch)).collect();
        let named = self.handle.ask(move |reading| {
            let state = reading.scheduler.state();
            let name = |batch: &Arc<Batch>| Subject::of_past(state, batch, &mut recalled);
            let subjects = batches.iter().map(name).collect();
            (subjects, recalled)
        });
        named.await.map_err(|_| FeedEnd::Stopped { resume_from: self.position })
    }
}

/// Why a page of the journal cannot be read.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("batch {revision} cannot be decoded: {source}")]
    Codec { revision: journal::Revision, source: codec::CodecError },
}

fn decode(stored: &journal::Batch) -> Result<Entry, ReadError> {
    let batch = codec::decode::<Batch>(&stored.bytes)
        .map_err(|source| ReadError::Codec { revision: stored.revision, source })?;
    Ok(Entry { batch: Arc::new(batch), subjects: None, encoded_bytes: stored.bytes.len() })
}
