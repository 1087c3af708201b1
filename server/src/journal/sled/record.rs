//! The keys and values of a batch in sled.
//!
//! A batch is cut into chunks of one revision. Key: revision, then chunk index, both big endian, so that keys sort in
//! order. Value: crc32 of everything else (key included), the batch's length, the chunk's bytes.
//! It promises that a chunk in the wrong place, of another length or with a flipped bit is an error with its revision.

use super::super::{BATCH_BYTES_MAX, Batch, JournalError, Revision};

/// The most bytes of a batch in one record.
///
/// sled rewrites a leaf as a whole and a leaf has at most 17 records (it splits above 16). What is over a quarter of a
/// segment becomes a blob file, which sled never syncs: 17 x 48 KiB = 816 KiB stays below a quarter of `SEGMENT_BYTES`
/// (1 MiB). Most batches are far smaller: one record.
pub const RECORD_BYTES_MAX: usize = 48 << 10;

/// sled's segment size for this store; see `RECORD_BYTES_MAX`. It is fixed at creation.
pub(super) const SEGMENT_BYTES: usize = 4 << 20;

const _: () = assert!(
    17 * (RECORD_BYTES_MAX + 64) < SEGMENT_BYTES / 4,
    "a full leaf would become a blob file"
);

const KEY_BYTES: usize = 10;
const CHECKSUM_BYTES: usize = 4;
const LENGTH_BYTES: usize = 4;

/// A record's key.
pub(super) fn key(revision: Revision, chunk: u16) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..8].copy_from_slice(&revision.0.to_be_bytes());
    key[8..].copy_from_slice(&chunk.to_be_bytes());
    key
}

/// The records of a batch, one at least. The batch is within `BATCH_BYTES_MAX`, which the port's rules check.
pub(super) fn records(
    revision: Revision,
    batch: &[u8],
) -> impl Iterator<Item = ([u8; KEY_BYTES], Vec<u8>)> + '_ {
    const { assert!(BATCH_BYTES_MAX.div_ceil(RECORD_BYTES_MAX) <= u16::MAX as usize) };
    let length = u32::try_from(batch.len()).expect("BATCH_BYTES_MAX is below 4 GiB");
    (0_u16..).zip(chunks(batch)).map(move |(index, chunk)| {
        let key = key(revision, index);
        let mut value = Vec::with_capacity(CHECKSUM_BYTES + LENGTH_BYTES + chunk.len());
        value.extend_from_slice(&checksum(&key, length, chunk).to_le_bytes());
        value.extend_from_slice(&length.to_le_bytes());
        value.extend_from_slice(chunk);
        (key, value)
    })
}

/// Whether a batch is a single record.
pub(super) fn is_single(batch: &[u8]) -> bool {
    batch.len() <= RECORD_BYTES_MAX
}

/// How many records a batch of this length has.
pub(super) fn record_count(length: usize) -> usize {
    length.div_ceil(RECORD_BYTES_MAX).max(1)
}

fn chunks(batch: &[u8]) -> impl Iterator<Item = &[u8]> {
    // An empty batch is one empty record: `chunks` alone would give none.
    let empty = batch.is_empty().then_some(batch);
    empty.into_iter().chain(batch.chunks(RECORD_BYTES_MAX))
}

fn checksum(key: &[u8], length: u32, chunk: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(&length.to_le_bytes());
    hasher.update(chunk);
    hasher.finalize()
}

/// One record read back: whose it is, and which part.
pub(super) struct Record<'a> {
    pub(super) revision: Revision,
    chunk: u16,
    /// The length of the whole batch.
    pub(super) length: usize,
    bytes: &'a [u8],
}

impl<'a> Record<'a> {
    /// Takes a record apart and verifies its checksum.
    pub(super) fn parse(key: &[u8], value: &'a [u8]) -> Result<Self, JournalError> {
        let (revision, chunk) = parse_key(key)?;
        let damaged = || {
            JournalError::corrupt(format!(
                "the checksum of batch {revision}, record {chunk}, is wrong"
            ))
        };
        let (stored, rest) = value.split_first_chunk::<CHECKSUM_BYTES>().ok_or_else(damaged)?;
        let (length, bytes) = rest.split_first_chunk::<LENGTH_BYTES>().ok_or_else(damaged)?;
        let length = u32::from_le_bytes(*length);
        if checksum(key, length, bytes) != u32::from_le_bytes(*stored) {
            return Err(damaged());
        }
        let length = usize::try_from(length).map_err(|_| damaged())?;
        Ok(Record { revision, chunk, length, bytes })
    }

    /// Whether this is the first record of its batch.
    pub(super) fn starts_batch(&self) -> bool {
        self.chunk == 0
    }
}

/// A record's revision and chunk index.
pub(super) fn parse_key(key: &[u8]) -> Result<(Revision, u16), JournalError> {
    let foreign =
        || JournalError::corrupt(format!("a record has the key {key:?}, which is not a batch's"));
    let (revision, chunk) = key.split_first_chunk::<8>().ok_or_else(foreign)?;
    let chunk: &[u8; 2] = chunk.try_into().map_err(|_| foreign())?;
    Ok((Revision(u64::from_be_bytes(*revision)), u16::from_be_bytes(*chunk)))
}

/// Puts records together to batches, and refuses gaps.
pub(super) struct Assembly {
    next: Revision,
    length: usize,
    bytes: Vec<u8>,
    chunks: u16,
}

impl Assembly {
    /// Expects the first record of the batch after `after`.
    pub(super) fn after(after: Revision) -> Self {
        Assembly { next: after.next(), length: 0, bytes: Vec::new(), chunks: 0 }
    }

    /// Takes the next record; a batch if that one completes it.
    pub(super) fn push(&mut self, record: &Record<'_>) -> Result<Option<Batch>, JournalError> {
        if record.revision != self.next || record.chunk != self.chunks {
            return Err(JournalError::corrupt(format!(
                "batch {}, record {}, is missing; {}, record {}, follows",
                self.next, self.chunks, record.revision, record.chunk
            )));
        }
        if self.chunks == 0 {
            self.length = record.length;
        }
        self.bytes.extend_from_slice(record.bytes);
        self.chunks += 1;
        if usize::from(self.chunks) < record_count(self.length) {
            return Ok(None);
        }
        self.finish().map(Some)
    }

    fn finish(&mut self) -> Result<Batch, JournalError> {
        let revision = self.next;
        if self.bytes.len() != self.length {
            let (found, length) = (self.bytes.len(), self.length);
            return Err(JournalError::corrupt(format!(
                "batch {revision} has {found} bytes instead of {length}"
            )));
        }
        self.next = revision.next();
        self.chunks = 0;
        Ok(Batch { revision, bytes: std::mem::take(&mut self.bytes) })
    }

    /// Whether a batch has begun and not ended.
    pub(super) fn is_partial(&self) -> bool {
        self.chunks > 0
    }
}
