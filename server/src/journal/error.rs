//! What can go wrong with a journal, told apart by what the operator does next.
//!
//! It promises that a message names the attempt, the path and the way out, and that a full disk, a read-only one and
//! missing permissions are different errors. Causes are in `source`, printed once at the edge.
//! It leaves the mapping to gRPC codes to `api::status`: the store being away is UNAVAILABLE.

use std::io;
use std::path::{Path, PathBuf};

use super::Revision;

/// What an operator can do about damage; part of every message that refuses to start. A copy goes through an import
/// too: it may be older than leases that live (P2).
const WAY_OUT: &str = "gpulease does not start empty, because devices that are still leased would be granted twice; \
    see what is left with `gpulease journal check`, and carry that, or a copy of the data directory, into a new one \
    with `gpulease journal export` and `gpulease journal import` (server/RECOVERY.md)";

/// An error of the journal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Another coordinator holds the directory.
    #[error(
        "cannot open the journal in {}: {} uses it; stop that coordinator first, or give this one another data directory",
        path.display(), holder(*holder_pid)
    )]
    InUse {
        /// The data directory.
        path: PathBuf,
        /// The process that holds it, where it is known.
        holder_pid: Option<u32>,
    },
    /// The path exists and is not a directory.
    #[error("cannot open the journal in {}: it is not a directory; name a directory, or remove the file", path.display())]
    NotADirectory {
        /// The path that is something else.
        path: PathBuf,
    },
    /// The file's permissions forbid it.
    #[error(
        "cannot {attempted} {}: permission denied; let the coordinator's user own the data directory, or choose another",
        path.display()
    )]
    PermissionDenied {
        /// What was attempted, as a verb.
        attempted: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file system is mounted read-only.
    #[error(
        "cannot {attempted} {}: the file system is read-only; mount it writable, or choose another data directory",
        path.display()
    )]
    ReadOnly {
        /// What was attempted, as a verb.
        attempted: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// No space, quota or file size is left.
    #[error(
        "cannot {attempted} {}: no space is left; free some, then start the coordinator again: nothing acknowledged is lost",
        path.display()
    )]
    StorageFull {
        /// What was attempted, as a verb.
        attempted: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Any other failure of the disk or file system.
    #[error(
        "cannot {attempted} {}: check the disk and the system log, then start the coordinator again",
        path.display()
    )]
    Io {
        /// What was attempted, as a verb.
        attempted: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The store itself failed, other than by IO.
    #[error("cannot {attempted} {}: the embedded store failed; start the coordinator again", path.display())]
    Store {
        /// What was attempted, as a verb.
        attempted: &'static str,
        /// The store's directory.
        path: PathBuf,
        /// The store's own error.
        source: ::sled::Error,
    },
    /// The store's code panicked, which is a defect of it or a disk that lies.
    #[error("cannot {attempted} {}: the embedded store panicked ({message}); start the coordinator again", path.display())]
    StorePanicked {
        /// What was attempted, as a verb.
        attempted: &'static str,
        /// The store's directory.
        path: PathBuf,
        /// The panic's message.
        message: String,
    },
    /// Something durable is missing or damaged.
    #[error("the journal is corrupt: {what}; {WAY_OUT}")]
    Corrupt {
        /// What was found, and where.
        what: String,
    },
    /// The journal was written by a gpulease that this one cannot read.
    #[error(
        "the journal in {} has format {found:?}, this gpulease reads {expected:?}: start the gpulease that wrote it",
        path.display()
    )]
    UnknownFormat {
        /// The data directory.
        path: PathBuf,
        /// The format line that was found.
        found: String,
        /// The format line that is understood.
        expected: &'static str,
    },
    /// A batch was appended under a revision that does not follow the last.
    #[error(
        "cannot append revision {found}: the journal expects {expected}; this is a defect of the caller"
    )]
    OutOfOrder {
        /// The revision that would follow.
        expected: Revision,
        /// The revision that was given.
        found: Revision,
    },
    /// A batch is over `BATCH_BYTES_MAX`.
    #[error(
        "cannot append a batch of {bytes} bytes: at most {max} fit; commit fewer inputs at once"
    )]
    BatchTooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// A snapshot is not between the newest snapshot and the last batch.
    #[error(
        "cannot store a snapshot of revision {found}: the newest snapshot is of {newest} and the last batch is {last}"
    )]
    SnapshotOutOfPlace {
        /// The revision that was given.
        found: Revision,
        /// The newest snapshot's revision; zero if there is none.
        newest: Revision,
        /// The last durable batch.
        last: Revision,
    },
    /// The history that was asked for has been pruned (P20).
    #[error(
        "batches after revision {asked} are gone: the oldest that is kept is {oldest}; list, then watch from there"
    )]
    HistoryGone {
        /// The revision asked for.
        asked: Revision,
        /// The oldest kept batch.
        oldest: Revision,
    },
    /// There is no journal to look at.
    #[error(
        "there is no journal in {}; name the data directory of a coordinator that has run, with --data",
        path.display()
    )]
    NoJournal {
        /// The data directory.
        path: PathBuf,
    },
    /// A journal is already there, or something else, where an import wants to begin.
    #[error(
        "cannot import into {}: there is {} already; name an empty data directory, or one that is not there yet",
        path.display(), found.display()
    )]
    NotEmpty {
        /// The data directory.
        path: PathBuf,
        /// What is there.
        found: PathBuf,
    },
    /// An export cannot be read.
    #[error("cannot import line {line} of the export: {what}; export again, or use another copy")]
    Import {
        /// The line, counted from 1.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
    /// An earlier append or sync failed; what the disk holds since then is unknown.
    #[error("the journal stopped after a failed write: stop, and open it again from the disk")]
    Poisoned,
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

impl JournalError {
    /// Damage; `what` says what was found and where.
    pub(super) fn corrupt(what: impl Into<String>) -> Self {
        JournalError::Corrupt { what: what.into() }
    }

    /// An IO error, sorted by what the operator does about it.
    pub(super) fn io(attempted: &'static str, path: &Path, source: io::Error) -> Self {
        use io::ErrorKind as Kind;
        let path = path.to_path_buf();
        match source.kind() {
            Kind::NotADirectory => JournalError::NotADirectory { path },
            Kind::PermissionDenied => JournalError::PermissionDenied { attempted, path, source },
            Kind::ReadOnlyFilesystem => JournalError::ReadOnly { attempted, path, source },
            Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge => {
                JournalError::StorageFull { attempted, path, source }
            }
            _ => JournalError::Io { attempted, path, source },
        }
    }

    /// An error of sled, with its IO errors sorted like everybody's.
    pub(super) fn store(attempted: &'static str, path: &Path, source: ::sled::Error) -> Self {
        match source {
            ::sled::Error::Io(source) => JournalError::io(attempted, path, source),
            ::sled::Error::Corruption { at, .. } => JournalError::corrupt(match at {
                Some(at) => format!("sled reports damage in {} at {at:?}", path.display()),
                None => format!("sled reports damage in {}", path.display()),
            }),
            source => JournalError::Store { attempted, path: path.to_path_buf(), source },
        }
    }
}
