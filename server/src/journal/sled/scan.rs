//! Batches found by reading the bytes of sled's log, without sled.
//!
//! sled answers damage with an error, a panic, or a log that ends before it. But it stores every value as it was given,
//! in one piece, and every value of ours begins with a checksum over its key, its length and its bytes. So a batch can
//! be found wherever it lies, provided that its bytes say which revision they are of (the caller knows how). What was
//! rewritten by sled is found several times, and what was removed may be found still.
//! It promises that what it gives has a checksum that fits. It leaves it to others whether it belongs to the journal.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use super::super::{BATCH_BYTES_MAX, Batch, JournalError, Revision};
use super::record::{self, Assembly, RECORD_BYTES_MAX, Record};

/// How many positions are looked at before more is read.
const WINDOW_BYTES: usize = 4 << 20;
/// Most of a small log: where sled has not written yet.
const ZEROS: [u8; 256] = [0; 256];
/// What stands before the bytes of a record: checksum and length.
const HEAD_BYTES: usize = 8;
/// The most bytes of a record.
const RECORD_MAX: usize = HEAD_BYTES + RECORD_BYTES_MAX;

/// Says of which revision a batch is that begins with these bytes.
pub(super) type RevisionOf = fn(&[u8]) -> Option<Revision>;

/// What was found in a log.
pub(super) struct Scan {
    file: File,
    path: PathBuf,
    found: BTreeMap<Revision, Pieces>,
    /// Revisions of which two different batches were found.
    pub(super) disputed: BTreeSet<Revision>,
}

/// Where the records of a batch begin: 24 bytes and 8 for each of them, so that a million batches are some 50 MB.
struct Pieces {
    length: usize,
    checksum: u32,
    offsets: Box<[Option<u64>]>,
}

impl Pieces {
    fn whole(&self) -> bool {
        self.offsets.iter().all(Option::is_some)
    }

    /// The bytes of one record, head included.
    fn record_bytes(&self, index: usize) -> usize {
        HEAD_BYTES + (self.length - index * RECORD_BYTES_MAX).min(RECORD_BYTES_MAX)
    }
}

impl Scan {
    /// Reads the whole log, for batches of these revisions.
    pub(super) fn read(
        path: PathBuf,
        range: RangeInclusive<Revision>,
        revision_of: RevisionOf,
    ) -> Result<Self, JournalError> {
        let file = File::open(&path).map_err(|error| JournalError::io("open", &path, error))?;
        let (found, disputed) = (BTreeMap::new(), BTreeSet::new());
        let mut scan = Scan { file, path, found, disputed };
        let mut found = BTreeMap::new();
        let mut disputed = BTreeSet::new();
        scan.positions(|offset, bytes| {
            let Some((revision, first)) = first_record(bytes, revision_of) else { return 1 };
            let length = first.record_bytes(0);
            if !range.contains(&revision) {
                return length;
            }
            match found.get(&revision) {
                None => {
                    let mut pieces: Pieces = first;
                    pieces.offsets[0] = Some(offset);
                    found.insert(revision, pieces);
                }
                Some(known) if known.checksum != first.checksum => {
                    disputed.insert(revision);
                }
                Some(_) => {}
            }
            length
        })?;
        scan.find_the_rest(&mut found)?;
        (scan.found, scan.disputed) = (found, disputed);
        Ok(scan)
    }

    /// The revisions of which everything was found, in order.
    pub(super) fn revisions(&self) -> impl DoubleEndedIterator<Item = Revision> + '_ {
        let whole = self.found.iter().filter(|(_, pieces)| pieces.whole());
        whole.map(|(revision, _)| *revision).filter(|revision| !self.disputed.contains(revision))
    }

    /// Whether the beginning of a batch was found.
    pub(super) fn begins(&self, revision: Revision) -> bool {
        self.found.contains_key(&revision)
    }

    /// Whether nothing was found.
    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// One batch, its checksums verified again.
    pub(super) fn batch(&self, revision: Revision) -> Result<Batch, JournalError> {
        let lost = || JournalError::corrupt(format!("batch {revision} is not in the log"));
        let pieces = self.found.get(&revision).ok_or_else(lost)?;
        let mut assembly = Assembly::after(Revision(revision.0.saturating_sub(1)));
        for (chunk, offset) in (0_u16..).zip(&pieces.offsets) {
            let mut bytes = vec![0; pieces.record_bytes(usize::from(chunk))];
            let offset = offset.ok_or_else(lost)?;
            self.file.read_exact_at(&mut bytes, offset).map_err(|error| self.unreadable(error))?;
            let record = Record::parse(&record::key(revision, chunk), &bytes)?;
            if let Some(batch) = assembly.push(&record)? {
                return Ok(batch);
            }
        }
        Err(lost())
    }

    /// Finds the further records of batches that are longer than one. They do not say whose they are, but the checksum
    /// covers the key, and the length of the batch stands in each.
    fn find_the_rest(&self, found: &mut BTreeMap<Revision, Pieces>) -> Result<(), JournalError> {
        let mut wanted: BTreeMap<usize, Vec<Revision>> = BTreeMap::new();
        for (revision, pieces) in found.iter().filter(|(_, pieces)| !pieces.whole()) {
            wanted.entry(pieces.length).or_default().push(*revision);
        }
        if wanted.is_empty() {
            return Ok(());
        }
        self.positions(|offset, bytes| {
            let of_this_length = length_at(bytes).and_then(|length| wanted.get(&length));
            for revision in of_this_length.into_iter().flatten() {
                let Some(pieces) = found.get_mut(revision) else { continue };
                if let Some(index) = further_record(*revision, pieces, bytes) {
                    pieces.offsets[index] = Some(offset);
                    return pieces.record_bytes(index);
                }
            }
            1
        })
    }

    /// Calls `look` with every position of the file and the bytes from there on, as many as a record can have; it
    /// answers by how many to go on.
    fn positions(&self, mut look: impl FnMut(u64, &[u8]) -> usize) -> Result<(), JournalError> {
        let (mut begin, mut at) = (0_u64, 0_usize);
        let mut buffer = vec![0; WINDOW_BYTES + RECORD_MAX];
        loop {
            let read = self.fill(&mut buffer, begin)?;
            let window = &buffer[..read];
            while at < window.len().min(WINDOW_BYTES) {
                let bytes = &window[at..window.len().min(at + RECORD_MAX)];
                if bytes.get(4..4 + ZEROS.len()).is_some_and(|bytes| bytes == ZEROS) {
                    // Nothing of no length can be found, so that no record begins as long as its length lies in there.
                    at += ZEROS.len() - 3;
                    continue;
                }
                at += look(begin + at as u64, bytes).max(1);
            }
            if window.len() <= WINDOW_BYTES {
                return Ok(());
            }
            begin += WINDOW_BYTES as u64;
            at -= WINDOW_BYTES;
        }
    }

    /// Reads as much as there is.
    fn fill(&self, buffer: &mut [u8], from: u64) -> Result<usize, JournalError> {
        let mut read = 0;
        while read < buffer.len() {
            match self.file.read_at(&mut buffer[read..], from + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.unreadable(error)),
            }
        }
        Ok(read)
    }

    fn unreadable(&self, error: std::io::Error) -> JournalError {
        JournalError::io("read", &self.path, error)
    }
}

/// The length of a batch, if a record of one begins here.
fn length_at(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_le_bytes(*bytes.get(4..HEAD_BYTES)?.first_chunk()?);
    usize::try_from(length).ok().filter(|length| *length <= BATCH_BYTES_MAX)
}

/// The first record of a batch, if one begins here; where it begins is for the caller to fill in.
fn first_record(bytes: &[u8], revision_of: RevisionOf) -> Option<(Revision, Pieces)> {
    let length = length_at(bytes)?;
    let revision = revision_of(bytes.get(HEAD_BYTES..)?)?;
    let record = bytes.get(..HEAD_BYTES + length.min(RECORD_BYTES_MAX))?;
    Record::parse(&record::key(revision, 0), record).ok()?;
    let checksum = u32::from_le_bytes(*record.first_chunk()?);
    let offsets = vec![None; record::record_count(length)].into();
    Some((revision, Pieces { length, checksum, offsets }))
}

/// Which of the missing records of a batch begins here, if one does.
fn further_record(revision: Revision, pieces: &Pieces, bytes: &[u8]) -> Option<usize> {
    let missing = pieces.offsets.iter().enumerate().filter(|(_, offset)| offset.is_none());
    missing.map(|(index, _)| index).find(|index| {
        let key = u16::try_from(*index).map(|chunk| record::key(revision, chunk));
        let record = bytes.get(..pieces.record_bytes(*index));
        key.ok().zip(record).is_some_and(|(key, record)| Record::parse(&key, record).is_ok())
    })
}
