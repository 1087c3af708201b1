//! The floor of durability: a small record and fdatasync, on the journal's disk.
//!
//! Two ways, because file systems treat them differently: into a file that has its size already, as a journal with
//! segments writes, and appended to a file that grows, where the new size has to be made durable too.

use std::{
    fs::File,
    io::{Seek as _, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;

/// About what the journal writes for one grant.
const RECORD_BYTES: usize = 256;

/// Records until it starts over.
const RECORDS_IN_PLACE: u64 = (IN_PLACE_BYTES / RECORD_BYTES) as u64;
/// The size of the file that does not grow: more records than any run writes before it starts over.
const IN_PLACE_BYTES: usize = 4 << 20;

/// A file to write to.
pub(super) struct Disk {
    path: PathBuf,
    file: File,
    count: u64,
    /// The file has its size already.
    in_place: bool,
}

impl Disk {
    /// A file that every record makes longer.
    pub(super) fn append(directory: &Path) -> anyhow::Result<Self> {
        Self::create(directory.join("append.bin"), false)
    }

    /// A file that has its size already.
    pub(super) fn in_place(directory: &Path) -> anyhow::Result<Self> {
        let mut disk = Self::create(directory.join("in-place.bin"), true)?;
        let filled = disk.file.write_all(&vec![0; IN_PLACE_BYTES]);
        let filled = filled.and_then(|()| disk.file.sync_all()).and_then(|()| disk.file.rewind());
        filled.with_context(|| format!("fill {}", disk.path.display()))?;
        Ok(disk)
    }

    fn create(path: PathBuf, in_place: bool) -> anyhow::Result<Self> {
        let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self { path, file, count: 0, in_place })
    }

    /// The time of one record with fdatasync, so many times. Blocks: the disk is all that is measured.
    pub(super) fn syncs(&mut self, count: usize) -> anyhow::Result<Vec<Duration>> {
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            self.count += 1;
            let mut record = [0; RECORD_BYTES];
            record[..8].copy_from_slice(&self.count.to_le_bytes());
            if self.in_place && self.count.is_multiple_of(RECORDS_IN_PLACE) {
                self.file.rewind().with_context(|| format!("rewind {}", self.path.display()))?;
            }
            let begun = Instant::now();
            let written = self.file.write_all(&record).and_then(|()| self.file.sync_data());
            written.with_context(|| format!("write to {} and sync it", self.path.display()))?;
            times.push(begun.elapsed());
        }
        Ok(times)
    }
}
