//! The newest batches in memory, for watchers that keep up.
//!
//! Promises: batches in order without a gap, within both bounds, and a signal after each change.
//! What fell out is in the journal.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gpulease_core::{event::Batch, id::Revision};
use tokio::sync::watch;

use super::subject::Subject;

/// The most batches in the ring: over 4 s at 1,000 commits a second, longer than any watcher that reads at all lags.
const RING_BATCHES_MAX: usize = 4_096;
/// The most bytes of batches in the ring, as the journal encodes them; in memory about three times as much, 6 MiB.
const RING_BYTES_MAX: usize = 2 << 20;

/// One batch as the ring has it.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) batch: Arc<Batch>,
    /// One for each event; `None` where nobody watched when it was published.
    pub(super) subjects: Option<Arc<[Subject]>>,
    pub(super) encoded_bytes: usize,
}

/// Where the ring ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edge {
    /// The newest batch.
    pub(super) last: Revision,
    /// Nothing follows it.
    pub(super) closed: bool,
}

pub(super) struct Ring {
    entries: Mutex<Entries>,
    edge: watch::Sender<Edge>,
}

#[derive(Default)]
struct Entries {
    kept: VecDeque<Entry>,
    bytes: usize,
}

impl Ring {
    /// An empty ring after `last`.
    pub(super) fn after(last: Revision) -> Self {
        let edge = watch::Sender::new(Edge { last, closed: false });
        Self { entries: Mutex::default(), edge }
    }

    /// Whether anybody watches.
    pub(super) fn watched(&self) -> bool {
        self.edge.receiver_count() > 0
    }

    /// Where it ends, and the signal that this changed.
    pub(super) fn edge(&self) -> watch::Receiver<Edge> {
        self.edge.subscribe()
    }

    /// The newest batch.
    pub(super) fn last(&self) -> Revision {
        self.edge.borrow().last
    }

    /// Adds the next batch.
    pub(super) fn push(&self, entry: Entry) {
        let last = entry.batch.revision;
        self.lock().push(entry);
        self.edge.send_modify(|edge| edge.last = last);
    }

    /// Says that nothing follows.
    pub(super) fn close(&self) {
        self.edge.send_modify(|edge| edge.closed = true);
    }

    /// At most `limit` batches after `after`; `None` where the next one fell out. Empty where there is none yet.
    pub(super) fn page(&self, after: Revision, limit: usize) -> Option<Vec<Entry>> {
        let entries = self.lock();
        let Some(first) = entries.kept.front() else {
            return (after >= self.last()).then(Vec::new);
        };
        let skip = (after.0 + 1).checked_sub(first.batch.revision.0)?;
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        Some(entries.kept.iter().skip(skip).take(limit).cloned().collect())
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // Every change under the lock is whole, even after a panic elsewhere.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn push(&mut self, entry: Entry) {
        self.bytes += entry.encoded_bytes;
        self.kept.push_back(entry);
        while self.kept.len() > RING_BATCHES_MAX || self.bytes > RING_BYTES_MAX {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.bytes -= oldest.encoded_bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use gpulease_core::time::Time;

    use super::*;

    fn entry(revision: u64, encoded_bytes: usize) -> Entry {
        let batch = Batch { revision: Revision(revision), time: Time::ZERO, events: Vec::new() };
        Entry { batch: Arc::new(batch), subjects: None, encoded_bytes }
    }

    fn revisions(page: Option<Vec<Entry>>) -> Option<Vec<u64>> {
        page.map(|page| page.iter().map(|entry| entry.batch.revision.0).collect())
    }

    #[test]
    fn a_page_follows_its_revision_and_what_fell_out_is_not_in_it() {
        let ring = Ring::after(Revision(4));
        assert_eq!(revisions(ring.page(Revision(4), 9)), Some(vec![]));
        assert_eq!(revisions(ring.page(Revision(3), 9)), None);
        (5..=8).for_each(|revision| ring.push(entry(revision, 10)));
        assert_eq!(revisions(ring.page(Revision(4), 9)), Some(vec![5, 6, 7, 8]));
        assert_eq!(revisions(ring.page(Revision(6), 1)), Some(vec![7]));
        assert_eq!(revisions(ring.page(Revision(8), 9)), Some(vec![]));
        assert_eq!(revisions(ring.page(Revision(3), 9)), None);
        ring.push(entry(9, RING_BYTES_MAX));
        assert_eq!(revisions(ring.page(Revision(7), 9)), None);
        assert_eq!(revisions(ring.page(Revision(8), 9)), Some(vec![9]));
        assert_eq!(ring.last(), Revision(9));
    }
}
