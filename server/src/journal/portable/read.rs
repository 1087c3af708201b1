//! Reading an export: strictly, to import it whole, or item by item, to take what is left of a damaged one.
//!
//! It promises that every item carries a checksum that was verified, and that whoever reads on after an error gets the
//! items of the lines behind it, never a part of one. A snapshot of which a part is missing is not given at all.

use std::io::{BufRead, Read as _};
use std::path::Path;

use super::super::{Batch, Journal, JournalError, Revision, Snapshot};
use super::{End, FORMAT, LINE_BYTES_MAX, Line, Part, length};

/// One thing out of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// The last revision that is known to have been acknowledged.
    Acknowledged(Revision),
    /// The newest snapshot.
    Snapshot(Snapshot),
    /// A batch.
    Batch(Batch),
    /// What the export itself says could not be read.
    Damage(String),
}

/// The items of an export, in its order.
pub struct Reader<'a> {
    lines: Lines<'a>,
    /// A line that was read and not looked at.
    ahead: Option<Line>,
    /// The snapshot whose parts are being read.
    partial: Option<Partial>,
    found: End,
    begun: bool,
    /// Something was refused, so that the totals cannot be right.
    failed: bool,
    ended: bool,
}

/// The parts of a snapshot so far.
struct Partial {
    revision: Revision,
    of: u64,
    bytes: Vec<u8>,
    /// None was missing or damaged yet.
    whole: bool,
}

impl<'a> Reader<'a> {
    /// A reader of an export.
    pub fn new(from: &'a mut dyn BufRead) -> Self {
        Reader {
            lines: Lines { from, number: 0 },
            ahead: None,
            partial: None,
            found: End::default(),
            begun: false,
            failed: false,
            ended: false,
        }
    }

    /// The next item; `None` behind the end. After an `Import` error there may be more.
    ///
    /// # Errors
    /// `Import` with the line that says nothing, `Io` if the file cannot be read.
    pub fn next_item(&mut self) -> Result<Option<Item>, JournalError> {
        while !self.ended {
            match self.step() {
                Ok(None) => {}
                Ok(Some(item)) => return Ok(Some(item)),
                Err(error) => {
                    self.failed = true;
                    self.ended |= !matches!(error, JournalError::Import { .. });
                    return Err(error);
                }
            }
        }
        Ok(None)
    }

    fn step(&mut self) -> Result<Option<Item>, JournalError> {
        let ahead = self.ahead.take();
        let Some(line) = ahead.map_or_else(|| self.lines.next(), |line| Ok(Some(line)))? else {
            self.ended = true;
            return Err(self.lines.refused("the file ends before its last line"));
        };
        let first = !std::mem::replace(&mut self.begun, true);
        if first != matches!(line, Line::Header { .. }) {
            self.ahead = first.then_some(line);
            let what = if first { "it is not a header" } else { "it is a second header" };
            return Err(self.lines.refused(what));
        }
        let in_snapshot = matches!(line, Line::Snapshot(_));
        if let Some(partial) = self.partial.take_if(|_| !in_snapshot) {
            self.ahead = Some(line);
            let what = format!("the snapshot of revision {} is not whole", partial.revision);
            return Err(self.lines.refused(what));
        }
        self.item(line)
    }

    fn item(&mut self, line: Line) -> Result<Option<Item>, JournalError> {
        match line {
            Line::Header { format } => self.header(&format).map(|()| None),
            Line::Acknowledged(revision) => Ok(Some(Item::Acknowledged(Revision(revision)))),
            Line::Damage(what) => Ok(Some(Item::Damage(what))),
            Line::Snapshot(part) => Ok(self.snapshot(&part)),
            Line::Batch(stored) => {
                let revision = Revision(stored.revision);
                let bytes = verified(stored.revision, stored.crc32, &stored.hex)
                    .map_err(|what| self.lines.refused(what))?;
                self.found.batches += 1;
                self.found.last = revision.0;
                Ok(Some(Item::Batch(Batch { revision, bytes })))
            }
            Line::End(end) => {
                self.ended = true;
                if self.failed || end == self.found {
                    return Ok(None);
                }
                let what = "the totals differ from what was read: lines are missing";
                Err(self.lines.refused(what))
            }
        }
    }

    fn header(&mut self, format: &str) -> Result<(), JournalError> {
        if format == FORMAT {
            return Ok(());
        }
        self.ended = true;
        Err(self.lines.refused(format!("the format is {format:?}, not {FORMAT:?}")))
    }

    /// Adds a part to its snapshot, which is given once it is whole.
    fn snapshot(&mut self, part: &Part) -> Option<Item> {
        let partial = self.partial.get_or_insert_with(|| Partial {
            revision: Revision(part.revision),
            of: part.of,
            bytes: Vec::new(),
            whole: true,
        });
        let place = (Revision(part.revision), part.offset, part.of);
        let expected = (partial.revision, length(&partial.bytes), partial.of);
        match verified(part.revision, part.crc32, &part.hex) {
            Ok(bytes) if place == expected => partial.bytes.extend(bytes),
            _ => partial.whole = false,
        }
        let is_whole =
            |partial: &mut Partial| partial.whole && length(&partial.bytes) == partial.of;
        let whole = self.partial.take_if(is_whole)?;
        self.found.snapshot_bytes = whole.of;
        Some(Item::Snapshot(Snapshot { revision: whole.revision, bytes: whole.bytes }))
    }
}

/// Fills an empty journal from an export, revisions kept. A journal whose import failed is of no use: `sled::create`
/// builds it aside and publishes it only when it is whole.
///
/// # Errors
/// `Import` with the line for anything that is not a whole export, `NotEmpty`, or what appending gives.
pub fn import(from: &mut dyn BufRead, journal: &mut dyn Journal) -> Result<(), JournalError> {
    let mut reader = Reader::new(from);
    let (mut snapshot, mut begun): (Option<Snapshot>, bool) = (None, false);
    while let Some(item) = reader.next_item()? {
        match item {
            Item::Acknowledged(_) => {}
            Item::Damage(what) => return Err(reader.lines.refused(what)),
            Item::Snapshot(whole) => snapshot = Some(whole),
            Item::Batch(batch) => {
                if !begun {
                    journal.begin_at(batch.revision)?;
                    begun = true;
                }
                journal.append(batch.revision, &batch.bytes)?;
            }
        }
    }
    if let Some(snapshot) = snapshot {
        journal.archive().store_snapshot(snapshot.revision, &snapshot.bytes)?;
    }
    Ok(())
}

fn verified(revision: u64, crc32: u32, hex: &str) -> Result<Vec<u8>, String> {
    let bytes = from_hex(hex).ok_or("the bytes are not hexadecimal")?;
    if crc32fast::hash(&bytes) != crc32 {
        return Err(format!("the checksum of revision {revision} is wrong"));
    }
    Ok(bytes)
}

/// The lines of an export, numbered for messages.
struct Lines<'a> {
    from: &'a mut dyn BufRead,
    number: u64,
}

impl Lines<'_> {
    /// The next line; `None` behind the last. A line that is too long is read on in pieces, each of which is an error.
    fn next(&mut self) -> Result<Option<Line>, JournalError> {
        self.number += 1;
        let mut text = Vec::new();
        let bound = u64::try_from(LINE_BYTES_MAX).expect("a few megabytes fit in 64 bits");
        (&mut *self.from).take(bound).read_until(b'\n', &mut text).map_err(|error| {
            let attempted = "read a line of";
            JournalError::io(attempted, Path::new("the export"), error)
        })?;
        if text.is_empty() {
            return Ok(None);
        }
        serde_json::from_slice(&text).map(Some).map_err(|error| self.refused(error.to_string()))
    }

    fn refused(&self, what: impl Into<String>) -> JournalError {
        JournalError::Import { line: self.number, what: what.into() }
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}
