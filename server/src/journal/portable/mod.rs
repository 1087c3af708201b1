//! A journal as a plain file, one JSON object per line: for moving it, looking at it, carrying it to a new format, and
//! for what is left of a damaged one.
//!
//! ```text
//! {"header":{"format":"gpulease journal export 1"}}
//! {"acknowledged":1220}                                          what the mark beside the journal says, if it says it
//! {"snapshot":{"revision":1200,"offset":0,"of":9000,"crc32":238043950,"hex":"01…"}}    the newest snapshot in parts
//! {"batch":{"revision":1101,"crc32":2007651123,"hex":"01…"}}     every batch that was found, in order
//! {"damage":"the snapshot … has a wrong checksum"}               what could not be read, in words
//! {"end":{"batches":120,"snapshot_bytes":9000,"last":1220}}      so that a file cut short is refused
//! ```
//! Import keeps the revisions. It leaves to its caller what P2 asks for after one: the fencing counter raised by 2^32
//! and every device closed; the core makes a batch of it, because here the bytes mean nothing.

mod read;

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Archive, BATCH_BYTES_MAX, Batch, JournalError, Replay, Revision, Snapshot};

pub use read::{Item, Reader, import};

const FORMAT: &str = "gpulease journal export 1";

/// How many bytes of a snapshot one line carries: small enough to hold a line in memory, large enough that 100 MB are
/// 100 lines.
const SNAPSHOT_PART_BYTES: usize = 1 << 20;

/// The longest line that is read: the largest batch in hexadecimal, and 1 KiB for the rest of the object.
const LINE_BYTES_MAX: usize = 2 * BATCH_BYTES_MAX + 1_024;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    Header { format: String },
    Acknowledged(u64),
    Snapshot(Part),
    Batch(Bytes),
    Damage(String),
    End(End),
}

/// A part of a snapshot: where in it, and how long it is as a whole.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    revision: u64,
    offset: u64,
    of: u64,
    crc32: u32,
    hex: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bytes {
    revision: u64,
    crc32: u32,
    hex: String,
}

#[derive(Serialize, Deserialize, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct End {
    batches: u64,
    snapshot_bytes: u64,
    last: u64,
}

/// Writes an export, one thing after the other in the order of the format.
pub struct Writer<'a> {
    to: &'a mut dyn Write,
    end: End,
}

impl<'a> Writer<'a> {
    /// Begins an export.
    ///
    /// # Errors
    /// What writing gives, as everywhere here.
    pub fn begin(to: &'a mut dyn Write) -> Result<Self, JournalError> {
        let mut writer = Writer { to, end: End::default() };
        writer.line(&Line::Header { format: FORMAT.to_owned() })?;
        Ok(writer)
    }

    /// The last revision that is known to have been acknowledged.
    ///
    /// # Errors
    /// See [`Self::begin`].
    pub fn acknowledged(&mut self, revision: Revision) -> Result<(), JournalError> {
        self.line(&Line::Acknowledged(revision.0))
    }

    /// The newest snapshot.
    ///
    /// # Errors
    /// See [`Self::begin`].
    pub fn snapshot(&mut self, snapshot: &Snapshot) -> Result<(), JournalError> {
        let of = length(&snapshot.bytes);
        let mut offset = 0;
        for part in parts(&snapshot.bytes) {
            let (crc32, hex) = (crc32fast::hash(part), to_hex(part));
            let revision = snapshot.revision.0;
            self.line(&Line::Snapshot(Part { revision, offset, of, crc32, hex }))?;
            offset += length(part);
        }
        self.end.snapshot_bytes = of;
        Ok(())
    }

    /// The next batch.
    ///
    /// # Errors
    /// See [`Self::begin`].
    pub fn batch(&mut self, batch: &Batch) -> Result<(), JournalError> {
        let (crc32, hex) = (crc32fast::hash(&batch.bytes), to_hex(&batch.bytes));
        self.line(&Line::Batch(Bytes { revision: batch.revision.0, crc32, hex }))?;
        self.end.batches += 1;
        self.end.last = batch.revision.0;
        Ok(())
    }

    /// Something that could not be read.
    ///
    /// # Errors
    /// See [`Self::begin`].
    pub fn damage(&mut self, what: &str) -> Result<(), JournalError> {
        self.line(&Line::Damage(what.to_owned()))
    }

    /// Ends the export.
    ///
    /// # Errors
    /// See [`Self::begin`].
    pub fn finish(mut self) -> Result<(), JournalError> {
        let end = std::mem::take(&mut self.end);
        self.line(&Line::End(end))?;
        self.to.flush().map_err(export_failed)
    }

    fn line(&mut self, line: &Line) -> Result<(), JournalError> {
        serde_json::to_writer(&mut *self.to, line)
            .map_err(io::Error::from)
            .and_then(|()| self.to.write_all(b"\n"))
            .map_err(export_failed)
    }
}

/// Writes the newest snapshot and every kept batch of an open journal. Batches appended meanwhile are not part of it.
///
/// # Errors
/// What reading the journal gives, or the writer's own error.
pub fn export(archive: &Arc<dyn Archive>, to: &mut dyn Write) -> Result<(), JournalError> {
    let mut writer = Writer::begin(to)?;
    // The snapshot first: the batches read after it then reach at least as far as it does, which import needs.
    let snapshot = archive.newest_snapshot()?;
    let oldest = archive.oldest_revision();
    if let Some(snapshot) = &snapshot {
        writer.snapshot(snapshot)?;
    }
    for batch in Replay::new(Arc::clone(archive), Revision(oldest.0 - 1)) {
        writer.batch(&batch?)?;
    }
    writer.finish()
}

fn parts(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    // An empty snapshot is a snapshot too.
    bytes.is_empty().then_some(bytes).into_iter().chain(bytes.chunks(SNAPSHOT_PART_BYTES))
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("a slice's length fits in 64 bits")
}

fn export_failed(error: io::Error) -> JournalError {
    JournalError::io("write", Path::new("the export"), error)
}

fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}
