//! The floor of durability: appending a small record to a file on the journal's disk, and fdatasync.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;

/// About what the journal writes for one grant.
const RECORD_BYTES: usize = 256;

/// A file to append to.
pub(super) struct Disk {
    path: PathBuf,
    file: File,
    count: u64,
}

impl Disk {
    pub(super) fn in_directory(directory: &Path) -> anyhow::Result<Self> {
        let path = directory.join("fdatasync.bin");
        let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self { path, file, count: 0 })
    }

    /// The time of one append with fdatasync, so many times. Blocks: the disk is all that is measured.
    pub(super) fn syncs(&mut self, count: usize) -> anyhow::Result<Vec<Duration>> {
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            self.count += 1;
            let mut record = [0; RECORD_BYTES];
            record[..8].copy_from_slice(&self.count.to_le_bytes());
            let begun = Instant::now();
            let written = self.file.write_all(&record).and_then(|()| self.file.sync_data());
            written.with_context(|| format!("append to {} and sync it", self.path.display()))?;
            times.push(begun.elapsed());
        }
        Ok(times)
    }
}
