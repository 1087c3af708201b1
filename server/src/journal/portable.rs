//! A journal as a plain file, one JSON object per line: for moving it, looking at it, carrying it to a new format.
//!
//! ```text
//! {"header":{"format":"gpulease journal export 1"}}
//! {"snapshot":{"revision":1200,"crc32":238043950,"hex":"01…"}}   the newest snapshot in parts, if there is one
//! {"batch":{"revision":1101,"crc32":2007651123,"hex":"01…"}}     every kept batch, in order
//! {"end":{"batches":120,"snapshot_bytes":9000,"last":1220}}      so that a file cut short is refused
//! ```
//! Import keeps the revisions. It leaves to its caller what P2 asks for after one: the fencing counter raised by 2^32
//! and every device closed; the core does both, because here the bytes mean nothing.

use std::io::{self, BufRead, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Archive, BATCH_BYTES_MAX, Journal, JournalError, Replay, Revision};

const FORMAT: &str = "gpulease journal export 1";

/// How many bytes of a snapshot one line carries: small enough to hold a line in memory, large enough that 100 MB are
/// 100 lines.
const SNAPSHOT_PART_BYTES: usize = 1 << 20;

/// The longest line that import reads: the largest batch in hexadecimal, and 1 KiB for the rest of the object.
const LINE_BYTES_MAX: usize = 2 * BATCH_BYTES_MAX + 1_024;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    Header { format: String },
    Snapshot(Part),
    Batch(Part),
    End(End),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
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

/// Writes the newest snapshot and every kept batch. Batches appended meanwhile are not part of it.
///
/// # Errors
/// What reading the journal gives, or the writer's own error.
pub fn export(
    archive: &std::sync::Arc<dyn Archive>,
    to: &mut dyn Write,
) -> Result<(), JournalError> {
    write_line(to, &Line::Header { format: FORMAT.to_owned() })?;
    let mut end = End::default();
    // The snapshot first: the batches read after it then reach at least as far as it does, which import needs.
    let snapshot = archive.newest_snapshot()?;
    let oldest = archive.oldest_revision();
    if let Some(snapshot) = &snapshot {
        for part in parts(&snapshot.bytes) {
            write_line(to, &Line::Snapshot(Part::new(snapshot.revision, part)))?;
        }
        end.snapshot_bytes = length(&snapshot.bytes);
    }
    for batch in Replay::new(std::sync::Arc::clone(archive), Revision(oldest.0 - 1)) {
        let batch = batch?;
        write_line(to, &Line::Batch(Part::new(batch.revision, &batch.bytes)))?;
        end.batches += 1;
        end.last = batch.revision.0;
    }
    write_line(to, &Line::End(end))?;
    to.flush().map_err(export_failed)
}

/// Fills an empty journal from an export, revisions kept. A journal whose import failed is of no use: `sled::import`
/// builds it aside and publishes it only when it is whole.
///
/// # Errors
/// `Import` with the line for anything that is not a whole export, `NotEmpty`, or what appending gives.
pub fn import(from: &mut dyn BufRead, journal: &mut dyn Journal) -> Result<(), JournalError> {
    let mut reader = Lines { from, number: 0 };
    match reader.next()? {
        Line::Header { format } if format == FORMAT => {}
        Line::Header { format } => {
            return Err(reader.refused(format!("the format is {format:?}, not {FORMAT:?}")));
        }
        _ => return Err(reader.refused("the first line is not a header")),
    }
    let mut found = End::default();
    let mut snapshot = (Revision::ZERO, Vec::new());
    loop {
        match reader.next()? {
            Line::Header { .. } => return Err(reader.refused("a second header")),
            Line::Snapshot(part) => {
                snapshot.0 = Revision(part.revision);
                snapshot.1.extend(part.bytes().map_err(|what| reader.refused(what))?);
            }
            Line::Batch(part) => {
                let bytes = part.bytes().map_err(|what| reader.refused(what))?;
                if found.batches == 0 {
                    journal.begin_at(Revision(part.revision))?;
                }
                journal.append(Revision(part.revision), &bytes)?;
                found.batches += 1;
                found.last = part.revision;
            }
            Line::End(end) => {
                found.snapshot_bytes = length(&snapshot.1);
                if end != found {
                    return Err(
                        reader.refused("the totals differ from what was read: lines are missing")
                    );
                }
                break;
            }
        }
    }
    if snapshot.0 > Revision::ZERO {
        journal.archive().store_snapshot(snapshot.0, &snapshot.1)?;
    }
    Ok(())
}

impl Part {
    fn new(revision: Revision, bytes: &[u8]) -> Self {
        Part { revision: revision.0, crc32: crc32fast::hash(bytes), hex: to_hex(bytes) }
    }

    fn bytes(&self) -> Result<Vec<u8>, String> {
        let bytes = from_hex(&self.hex).ok_or("the bytes are not hexadecimal")?;
        if crc32fast::hash(&bytes) != self.crc32 {
            return Err(format!("the checksum of revision {} is wrong", self.revision));
        }
        Ok(bytes)
    }
}

/// The lines of an export, numbered for messages.
struct Lines<'a> {
    from: &'a mut dyn BufRead,
    number: u64,
}

impl Lines<'_> {
    fn next(&mut self) -> Result<Line, JournalError> {
        self.number += 1;
        let mut text = Vec::new();
        let bound = u64::try_from(LINE_BYTES_MAX).expect("a few megabytes fit in 64 bits");
        (&mut *self.from).take(bound).read_until(b'\n', &mut text).map_err(|error| {
            let attempted = "read a line of";
            JournalError::io(attempted, Path::new("the export"), error)
        })?;
        if text.is_empty() {
            return Err(self.refused("the file ends before its last line"));
        }
        serde_json::from_slice(&text).map_err(|error| self.refused(error.to_string()))
    }

    fn refused(&self, what: impl Into<String>) -> JournalError {
        JournalError::Import { line: self.number, what: what.into() }
    }
}

fn parts(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    // An empty snapshot is a snapshot too.
    bytes.is_empty().then_some(bytes).into_iter().chain(bytes.chunks(SNAPSHOT_PART_BYTES))
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("a slice's length fits in 64 bits")
}

fn write_line(to: &mut dyn Write, line: &Line) -> Result<(), JournalError> {
    serde_json::to_writer(&mut *to, line)
        .map_err(io::Error::from)
        .and_then(|()| to.write_all(b"\n"))
        .map_err(export_failed)
}

fn export_failed(error: io::Error) -> JournalError {
    JournalError::io("write", Path::new("the export"), error)
}

fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}
