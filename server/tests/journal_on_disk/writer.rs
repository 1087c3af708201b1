//! The process that the tests here start, watch and kill: it opens the journal and appends until it is told to stop.
//!
//! It says on standard output, one line and one write each: `opened N`, `acknowledged N` after an append has returned,
//! `failed …` when one has not, and then what the next append answers. Every batch and snapshot is a function of its
//! revision, so a checker needs no other record of what was written.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use gpulease_server::journal::{HistoryBound, Journal, JournalError, Opened, Revision, sled};

const WORK: &str = "GPULEASE_TEST_JOURNAL_WORK";

/// What a writer does; it travels to the process as one line.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) directory: PathBuf,
    pub(crate) appends: u64,
    pub(crate) batch_bytes_max: usize,
    pub(crate) segment_bytes: usize,
    /// A snapshot and a pruning run beside the writer after this many appends; 0 is never.
    pub(crate) snapshot_every: u64,
}

/// The history that a writer's pruning leaves: short, so that segments are recycled.
const HISTORY: HistoryBound = HistoryBound { batches_max: 20, bytes_max: u64::MAX };

/// The segments of a journal as users have it.
pub(crate) const SEGMENT_BYTES: usize = 4 << 20;

/// What every batch begins with, before its revision.
const BATCH: &[u8] = b"batch";

fn revision_of(bytes: &[u8]) -> Option<Revision> {
    let revision = bytes.strip_prefix(BATCH)?.first_chunk()?;
    Some(Revision(u64::from_le_bytes(*revision)))
}

impl Work {
    pub(crate) fn new(directory: &Path, appends: u64, batch_bytes_max: usize) -> Self {
        let directory = directory.to_path_buf();
        Work {
            directory,
            appends,
            batch_bytes_max,
            segment_bytes: SEGMENT_BYTES,
            snapshot_every: 0,
        }
    }

    fn to_line(&self) -> String {
        let directory = self.directory.display();
        format!(
            "{} {} {} {} {directory}",
            self.appends, self.batch_bytes_max, self.segment_bytes, self.snapshot_every
        )
    }

    fn from_line(line: &str) -> Self {
        let mut words = line.splitn(5, ' ');
        let mut number = || words.next().unwrap().parse::<u64>().unwrap();
        let (appends, batch, segment, snapshot_every) = (number(), number(), number(), number());
        Work {
            appends,
            batch_bytes_max: usize::try_from(batch).unwrap(),
            segment_bytes: usize::try_from(segment).unwrap(),
            snapshot_every,
            directory: PathBuf::from(words.next().unwrap()),
        }
    }

    /// A command that does this work in a process of its own, behind `wrapper` (strace and its options) if given.
    pub(crate) fn command(&self, wrapper: &[String]) -> Command {
        let own = std::env::current_exe().unwrap();
        let mut words: Vec<_> = wrapper.iter().map(std::ffi::OsString::from).collect();
        words.push(own.into_os_string());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        self.direct(command)
    }

    /// A command that does this work with another copy of this program.
    pub(crate) fn command_of(&self, program: &Path) -> Command {
        self.direct(Command::new(program))
    }

    fn direct(&self, mut command: Command) -> Command {
        command.args(["--exact", "writer::process", "--nocapture", "--test-threads=1"]);
        command.env(WORK, self.to_line()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        command
    }

    /// Opens the journal of this work in this process.
    pub(crate) fn open(&self) -> Result<Opened<sled::SledJournal>, JournalError> {
        sled::open_guarded_with_segments_of(&self.directory, self.segment_bytes, revision_of)
    }

    /// The batch of a revision: it says which one it is, and its length and bytes follow from it.
    pub(crate) fn batch(&self, revision: Revision) -> Vec<u8> {
        let mut state = (revision.0 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let length = usize::try_from(state >> 33).unwrap() % (self.batch_bytes_max + 1);
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        };
        let random = (0..length).map(|_| next());
        BATCH.iter().copied().chain(revision.0.to_le_bytes()).chain(random).collect()
    }

    /// The snapshot of a revision, likewise.
    pub(crate) fn snapshot(&self, revision: Revision) -> Vec<u8> {
        self.batch(Revision(revision.0 + (1 << 40)))
    }

    /// Checks everything that an opened journal holds, and returns its last revision.
    pub(crate) fn check(&self, opened: &mut Opened<sled::SledJournal>) -> Revision {
        let mut expected = Revision::ZERO;
        if let Some(snapshot) = &opened.snapshot {
            assert_eq!(
                snapshot.bytes,
                self.snapshot(snapshot.revision),
                "snapshot {}",
                snapshot.revision
            );
            expected = snapshot.revision;
        }
        for batch in opened.batches.by_ref() {
            let batch = batch.unwrap();
            expected = expected.next();
            assert_eq!(batch.revision, expected);
            assert!(batch.bytes == self.batch(expected), "batch {expected} is changed");
        }
        assert_eq!(opened.journal.last_revision(), expected);
        let archive = opened.journal.archive();
        let mut seen = Revision(archive.oldest_revision().0 - 1);
        while seen < expected {
            for batch in archive.read_batches(seen, 1_000).unwrap() {
                assert!(
                    batch.bytes == self.batch(batch.revision),
                    "batch {} is changed",
                    batch.revision
                );
                seen = batch.revision;
            }
        }
        expected
    }
}

/// The other side of `Work::command`. Run by hand it has no work and does nothing.
#[test]
fn process() {
    let Ok(line) = std::env::var(WORK) else { return };
    let work = Work::from_line(&line);
    // Ends the line that the test runner has begun.
    say("");
    let mut opened = match work.open() {
        Ok(opened) => opened,
        Err(error) => return say(&format!("refused {error}")),
    };
    say(&format!("opened {}", work.check(&mut opened)));
    let mut journal = opened.journal;
    let mut background: Option<std::thread::JoinHandle<()>> = None;
    for done in 1..=work.appends {
        let revision = journal.last_revision().next();
        match journal.append(revision, &work.batch(revision)) {
            Ok(()) => say(&format!("acknowledged {revision}")),
            Err(error) => {
                say(&format!("failed {error}"));
                let again = journal.append(revision, b"again").unwrap_err();
                return say(&format!("again {again:?}"));
            }
        }
        if work.snapshot_every > 0 && done % work.snapshot_every == 0 {
            background.take().map(std::thread::JoinHandle::join).transpose().unwrap();
            let (archive, bytes) = (journal.archive(), work.snapshot(revision));
            background = Some(std::thread::spawn(move || {
                archive.store_snapshot(revision, &bytes).unwrap();
                archive.prune(HISTORY).unwrap();
            }));
        }
    }
    background.map(std::thread::JoinHandle::join).transpose().unwrap();
}

/// One line by one write: a reader of a pipe or of a trace sees it whole, and a killed process loses none.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).unwrap();
}
