//! Power is cut at any moment: every disk that the recorded calls allow opens, and holds what was acknowledged.
//!
//! A writer runs under strace and is killed in the middle of a commit, a second one goes on from there; `disk_model` derives disks for moments after each sync, after each acknowledgement and
//! anywhere between; each is opened with the real code, checked, appended to and opened again. One of them is the
//! start of the next round, so that recovery itself is recorded and cut too.
//! `GPULEASE_POWER_CUTS` sets how many disks a round makes; `GPULEASE_POWER_CUT_SEED` repeats a run.

use std::path::{Path, PathBuf};

use gpulease_server::journal::{Journal, Revision};

use crate::disk_model::{Keeps, Random, Recording};
use crate::strace;
use crate::writer::{SEGMENT_BYTES, Work};

const CALLS: &str = "trace=openat,close,write,pwrite64,pwritev,pwritev2,writev,lseek,ftruncate,fsync,fdatasync,\
    sync_file_range,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,link,linkat";

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// One recorded run of a writer, cut in many places.
struct Round<'a> {
    work: &'a Work,
    recording: Recording,
    scratch: &'a Path,
    /// The last revision on the disk that the round began with: acknowledged before it.
    before: Revision,
}

impl Round<'_> {
    /// What the writer had acknowledged when it stood at `time`.
    fn acknowledged(&self, time: usize) -> Revision {
        let said = self.recording.said.iter().filter(|(begin, _)| *begin < time);
        let revisions = said.filter_map(|(_, line)| {
            let number =
                line.strip_prefix("acknowledged ").or_else(|| line.strip_prefix("opened "))?;
            number.parse().ok().map(Revision)
        });
        revisions.max().unwrap_or(self.before)
    }

    /// Where to cut: just after a sync or an acknowledgement, or anywhere.
    fn moment(&self, random: &mut Random) -> usize {
        let pick = |times: Vec<usize>, random: &mut Random| {
            let count = u64::try_from(times.len()).unwrap();
            times[usize::try_from(random.below(count)).unwrap()] + 1
        };
        match random.below(3) {
            0 => pick(self.recording.synced.clone(), random),
            1 => pick(self.recording.said.iter().map(|(time, _)| *time).collect(), random),
            _ => usize::try_from(random.below(u64::try_from(self.recording.end).unwrap())).unwrap(),
        }
    }

    /// Builds one disk, opens it and checks it; returns where it is.
    fn cut(&self, seed: u64, keeps: Keeps) -> PathBuf {
        let mut random = Random(seed);
        let time = self.moment(&mut random);
        let place = self.scratch.join(format!("cut-{seed}"));
        self.recording.build(time, keeps, &mut random, &place);
        let copy = self.scratch.join("opened");
        copy_tree(&place, &copy);
        let what = format!(
            "seed {seed}, {keeps:?}, cut at {time} of {}, disk in {}",
            self.recording.end,
            place.display()
        );
        let work = Work { directory: copy.clone(), ..self.work.clone() };
        let mut opened = work.open().unwrap_or_else(|error| panic!("{what}: {error}"));
        let last = work.check(&mut opened);
        let acknowledged = self.acknowledged(time);
        assert!(
            last >= acknowledged,
            "{what}: {acknowledged} was acknowledged, {last} is the last"
        );
        opened.journal.append(last.next(), &work.batch(last.next())).unwrap();
        drop(opened);
        assert_eq!(work.check(&mut work.open().unwrap()), last.next(), "{what}: opened again");
        std::fs::remove_dir_all(copy).unwrap();
        place
    }
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Memory where there is some: the disk below the disk does not matter here, and thousands of files are made.
fn scratch() -> tempfile::TempDir {
    let shared_memory = Path::new("/dev/shm");
    if shared_memory.is_dir() {
        tempfile::tempdir_in(shared_memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

/// Records rounds of `work`, each from a disk that the one before left, and cuts each `cuts` times.
fn record_and_cut(mut work: Work, rounds: u64, cuts: u64) {
    if !strace::is_available() {
        return;
    }
    let scratch = scratch();
    let seed = number("GPULEASE_POWER_CUT_SEED", 1);
    let mut start = scratch.path().join("start");
    std::fs::create_dir(&start).unwrap();
    for round in 0..rounds {
        work.directory = scratch.path().join(format!("run-{round}"));
        copy_tree(&start, &work.directory);
        let before = if start.join("journal").exists() {
            let checked = Work { directory: scratch.path().join("checked"), ..work.clone() };
            copy_tree(&start, &checked.directory);
            let last = checked.check(&mut checked.open().unwrap());
            std::fs::remove_dir_all(&checked.directory).unwrap();
            last
        } else {
            Revision::ZERO
        };
        let recording = record(&work, &start, round, &scratch.path().join("trace"));
        assert!(
            recording.said.iter().any(|(_, line)| line.starts_with("acknowledged")),
            "nothing was recorded"
        );
        let this = Round { work: &work, recording, scratch: scratch.path(), before };
        let mut left = None;
        for cut in 0..cuts {
            let keeps = Keeps::ALL[usize::try_from(cut % 5).unwrap()];
            let disk = this.cut(seed * 1_000_000 + round * 100_000 + cut, keeps);
            if let Some(old) = left.replace(disk) {
                std::fs::remove_dir_all(old).unwrap();
            }
        }
        std::fs::remove_dir_all(&work.directory).unwrap();
        start = left.expect("a round has cuts");
    }
}

/// Runs two writers in turn. The first is killed as it calls fdatasync: what it wrote is in the page cache and no more,
/// and the second must not build on it before it is on the disk.
fn record(work: &Work, start: &Path, round: u64, log: &Path) -> Recording {
    let kill = format!("inject=fdatasync:signal=SIGKILL:when={}", 4 + round * 3);
    let killed = strace::run(work, &["-e", CALLS, "-e", &kill], log);
    assert!(!killed.status.success(), "{killed:?}");
    let mut logs = vec![std::fs::read_to_string(log).unwrap()];
    let output = strace::run(work, &["-e", CALLS], log);
    assert!(output.status.success(), "{output:?}");
    logs.push(std::fs::read_to_string(log).unwrap());
    Recording::new(&work.directory, start, &strace::parse_in_turn(&logs))
}

/// Small segments, so that hundreds of appends fill, tear and recycle dozens of them.
#[test]
fn every_disk_that_a_power_cut_can_leave_opens_with_all_that_was_acknowledged() {
    let mut work = Work::new(Path::new(""), 500, 900);
    work.segment_bytes = 64 << 10;
    work.snapshot_every = 30;
    record_and_cut(work, 4, number("GPULEASE_POWER_CUTS", 100));
}

/// The segments that users have, and batches of several records.
#[test]
fn a_power_cut_in_a_large_batch_leaves_it_whole_or_not_at_all() {
    let mut work = Work::new(Path::new(""), 12, 300_000);
    work.segment_bytes = SEGMENT_BYTES;
    work.snapshot_every = 5;
    record_and_cut(work, 2, number("GPULEASE_POWER_CUTS", 100) / 4);
}
