//! The batches after a snapshot, read page by page.
//!
//! It promises every durable batch after its start exactly once, in order, up to the last one at the time of opening,
//! and ends after the first error. It holds one page (`READ_BYTES_MAX`) in memory, whatever the journal's length.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Archive, Batch, JournalError, Revision};

/// How many batches one page asks for; the bound in bytes is the archive's.
const PAGE_BATCHES_MAX: usize = 4_096;

/// An iterator over the batches after a revision.
pub struct Replay {
    archive: Arc<dyn Archive>,
    page: VecDeque<Batch>,
    read_up_to: Revision,
    last: Revision,
}

impl Replay {
    pub(super) fn new(archive: Arc<dyn Archive>, after: Revision) -> Self {
        let last = archive.last_revision();
        Replay { archive, page: VecDeque::new(), read_up_to: after, last }
    }

    fn read_page(&mut self) -> Result<(), JournalError> {
        let page = self.archive.read_batches(self.read_up_to, PAGE_BATCHES_MAX)?;
        let Some(newest) = page.last() else {
            let after = self.read_up_to;
            return Err(JournalError::corrupt(format!(
                "no batch follows {after}, though {} is the last",
                self.last
            )));
        };
        self.read_up_to = newest.revision;
        self.page = page.into();
        Ok(())
    }
}

impl Iterator for Replay {
    type Item = Result<Batch, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.is_empty()
            && self.read_up_to < self.last
            && let Err(error) = self.read_page()
        {
            self.read_up_to = self.last;
            return Some(Err(error));
        }
        self.page.pop_front().map(Ok)
    }
}
