//! What a durable append costs, beside a bare write + fdatasync on the same file system in the same run.
//!
//! `cargo run --release -p gpulease-server --example journal_speed -- [APPENDS] [BYTES] [DIRECTORY]`
//! The two take turns in blocks, so that a disk that changes its mood changes both. Prints medians and their ratio,
//! the size of the files after pruning, and the resident memory. Only the ratio means anything: disks differ.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use gpulease_server::journal::{HistoryBound, Journal, Revision, sled};

/// How many operations of one kind follow each other.
const BLOCK: usize = 200;

/// After how many appends a snapshot is taken and the history pruned.
const PRUNE_EVERY: usize = 10_000;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let appends: usize =
        arguments.next().map_or(Ok(4_000), |text| text.parse()).context("APPENDS is a count")?;
    let bytes: usize =
        arguments.next().map_or(Ok(300), |text| text.parse()).context("BYTES is a size")?;
    let parent = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(parent)?;
    let mut bare = File::create(directory.path().join("bare"))?;
    let mut journal = sled::open(directory.path().join("data"))?.journal;
    let mut out = std::io::stdout().lock();
    let (mut bare_times, mut journal_times) = (Vec::new(), Vec::new());
    while journal_times.len() < appends {
        for _ in 0..BLOCK {
            let batch = varied(bare_times.len(), bytes);
            bare_times.push(timed(|| bare.write_all(&batch).and_then(|()| bare.sync_data()))?);
        }
        for _ in 0..BLOCK {
            let batch = varied(journal_times.len(), bytes);
            let revision = journal.last_revision().next();
            journal_times.push(timed(|| journal.append(revision, &batch))?);
        }
        if journal_times.len() % PRUNE_EVERY == 0 {
            let removed = prune(&journal)?;
            let size = size_kibibytes(&directory.path().join("data"))?;
            writeln!(out, "{} appends, pruned {removed}, files: {size} KiB", journal_times.len())?;
        }
    }
    let (bare_median, journal_median) = (median(&mut bare_times), median(&mut journal_times));
    let ratio = journal_median.as_secs_f64() / bare_median.as_secs_f64();
    writeln!(out, "bare write + fdatasync of {bytes} bytes: median {bare_median:?}")?;
    writeln!(
        out,
        "journal append of {bytes} bytes:        median {journal_median:?}, ratio {ratio:.2}"
    )?;
    let total: Duration = journal_times.iter().sum();
    writeln!(
        out,
        "appends per second: {:.0}",
        f64::from(u32::try_from(appends)?) / total.as_secs_f64()
    )?;
    drop(journal);
    let started = Instant::now();
    let opened = sled::open(directory.path().join("data"))?;
    writeln!(
        out,
        "reopened in {:?} at revision {}",
        started.elapsed(),
        opened.journal.last_revision()
    )?;
    assert_eq!(
        opened.journal.last_revision(),
        Revision(u64::try_from(appends.next_multiple_of(BLOCK))?)
    );
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident =
        status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or("VmRSS: unknown");
    writeln!(out, "{resident}")?;
    Ok(())
}

/// What the background does now and then; the history is short here so that pruning shows.
fn prune(journal: &impl Journal) -> Result<u64> {
    let archive = journal.archive();
    archive.store_snapshot(journal.last_revision(), &varied(1, 100_000))?;
    Ok(archive.prune(HistoryBound { batches_max: 2_000, ..HistoryBound::DEFAULT })?)
}

/// Bytes that differ each time, because sled skips a value that it already has.
fn varied(seed: usize, length: usize) -> Vec<u8> {
    let mut state = u64::try_from(seed).unwrap_or(0).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

fn timed<E>(work: impl FnOnce() -> Result<(), E>) -> Result<Duration, E> {
    let started = Instant::now();
    work()?;
    Ok(started.elapsed())
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn size_kibibytes(path: &Path) -> Result<u64> {
    let mut total = 0;
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        total +=
            if metadata.is_dir() { size_kibibytes(&entry.path())? } else { metadata.len() / 1024 };
    }
    Ok(total)
}
