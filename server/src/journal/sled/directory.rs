//! The data directory: who holds it, what lies where, and how it comes to be.
//!
//! ```text
//! DIR/lock                      held with flock for as long as the journal is open; the holder's process id inside
//! DIR/journal/format            one line: the format of everything below
//! DIR/journal/batches/          sled's own directory
//! DIR/journal/snapshots/        snapshot files
//! DIR/journal/acknowledged      the last revision known to be durable, never synced: see `HighWaterMark`
//! DIR/journal.creating/         a journal that was never finished, so nothing in it was ever acknowledged
//! ```
//! It promises that `journal` appears whole (built aside, synced, renamed), and that it is never created over one.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::JournalError;

/// The format of everything below `journal`: a change that an older gpulease cannot read changes this line.
pub(super) const FORMAT: &str = "gpulease journal 1";

/// How long a lock may outlive its holder: sled's threads let go within milliseconds, and a child process that is just
/// being started holds a copy of the descriptor until it runs. A hundred times that; a real holder is named after it.
pub(super) const LOCK_LINGER_MAX: Duration = Duration::from_secs(1);

/// How often a lock is tried again meanwhile: 200 times at most.
pub(super) const LOCK_RETRY_EVERY: Duration = Duration::from_millis(5);

const JOURNAL: &str = "journal";
const UNFINISHED: &str = "journal.creating";

/// How much of the format file is read: a line of that many bytes is no format of ours.
const FORMAT_BYTES_MAX: u64 = 256;

/// A data directory that this process holds, and where in it the journal is or is being built.
#[derive(Clone)]
pub(super) struct Directory {
    data: PathBuf,
    journal: PathBuf,
    segment_bytes: usize,
    /// Held until the last clone is dropped.
    _lock: Arc<File>,
}

impl Directory {
    /// Takes the lock, creates the journal if there is none, and checks its format.
    pub(super) fn open(data: &Path, segment_bytes: usize) -> Result<Self, JournalError> {
        let directory = Self::hold(data, segment_bytes)?;
        if !exists(&directory.journal)? {
            directory.build()?.publish()?;
        }
        check_format(&directory.journal)?;
        Ok(directory)
    }

    /// Takes the lock and builds an empty journal aside, to be filled and published.
    pub(super) fn create_aside(data: &Path, segment_bytes: usize) -> Result<Self, JournalError> {
        let directory = Self::hold(data, segment_bytes)?;
        let found = entries(&directory.data)?.into_iter().find(|path| !may_lie_beside(path));
        if let Some(found) = found {
            return Err(JournalError::NotEmpty { path: directory.data, found });
        }
        directory.build()
    }

    /// Makes every byte of a journal that was built aside durable, and renames it into place.
    pub(super) fn publish(self) -> Result<(), JournalError> {
        let place = self.data.join(JOURNAL);
        sync_tree(&self.journal)?;
        fs::rename(&self.journal, &place)
            .map_err(|error| JournalError::io("rename into place", &place, error))?;
        sync_parent(&place)
    }

    fn hold(data: &Path, segment_bytes: usize) -> Result<Self, JournalError> {
        create_data_directory(data)?;
        let lock = Arc::new(take_lock(data)?);
        remove_directory(&data.join(UNFINISHED))?;
        Ok(Directory {
            data: data.to_path_buf(),
            journal: data.join(JOURNAL),
            segment_bytes,
            _lock: lock,
        })
    }

    fn build(&self) -> Result<Self, JournalError> {
        let aside = Directory { journal: self.data.join(UNFINISHED), ..self.clone() };
        for directory in [aside.batches(), aside.snapshots()] {
            fs::create_dir_all(&directory)
                .map_err(|error| JournalError::io("create", &directory, error))?;
        }
        super::store::create(&aside)?;
        let format = aside.journal.join("format");
        fs::write(&format, format!("{FORMAT}\n"))
            .map_err(|error| JournalError::io("write", &format, error))?;
        Ok(aside)
    }

    /// The path that the operator knows.
    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    /// The size of sled's segments, the same for the whole life of a journal.
    pub(super) fn segment_bytes(&self) -> usize {
        self.segment_bytes
    }

    /// sled's directory.
    pub(super) fn batches(&self) -> PathBuf {
        self.journal.join("batches")
    }

    /// The file of the high-water mark.
    pub(super) fn acknowledged(&self) -> PathBuf {
        self.journal.join("acknowledged")
    }

    /// The directory of snapshot files.
    pub(super) fn snapshots(&self) -> PathBuf {
        self.journal.join("snapshots")
    }
}

/// A data directory that is only looked at: no coordinator starts on it meanwhile, and nothing in it is changed.
pub(super) struct Held {
    /// Where the journal is.
    pub(super) journal: PathBuf,
    /// What is wrong with its head.
    pub(super) damage: Vec<String>,
    /// Keep it for as long as the files are read; a copy of a directory may lack it.
    pub(super) lock: Option<File>,
}

impl Held {
    /// Takes the lock, and checks the format.
    pub(super) fn of(data: &Path) -> Result<Self, JournalError> {
        let journal = data.join(JOURNAL);
        if !exists(&journal)? {
            return Err(JournalError::NoJournal { path: data.to_path_buf() });
        }
        let path = data.join("lock");
        let lock = match File::open(&path) {
            Ok(mut lock) => {
                wait_for_lock(&mut lock, data)?;
                Some(lock)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(JournalError::io("open the lock file", &path, error)),
        };
        let damage = match check_format(&journal) {
            Ok(()) => Vec::new(),
            Err(JournalError::Corrupt { what }) => vec![what],
            Err(error) => return Err(error),
        };
        Ok(Held { journal, damage, lock })
    }
}

fn create_data_directory(data: &Path) -> Result<(), JournalError> {
    if data.is_dir() {
        return Ok(());
    }
    if exists(data)? {
        return Err(JournalError::NotADirectory { path: data.to_path_buf() });
    }
    // Tokens are in there: they are nobody else's to read.
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data)
        .map_err(|error| JournalError::io("create the data directory", data, error))?;
    sync_parent(data)
}

/// What an empty data directory may hold: the lock, and what a file system puts into its root.
fn may_lie_beside(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "lock" || name == "lost+found")
}

/// `Path::exists` would hide a permission that is missing on a parent.
fn exists(path: &Path) -> Result<bool, JournalError> {
    path.try_exists().map_err(|error| JournalError::io("look for", path, error))
}

fn take_lock(data: &Path) -> Result<File, JournalError> {
    let path = data.join("lock");
    let mut lock = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| JournalError::io("open the lock file", &path, error))?;
    wait_for_lock(&mut lock, data)?;
    write_holder(&mut lock)
        .map_err(|error| JournalError::io("write the lock file", &path, error))?;
    Ok(lock)
}

fn wait_for_lock(lock: &mut File, data: &Path) -> Result<(), JournalError> {
    let started = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => {
                return Err(JournalError::io("lock", &data.join("lock"), error));
            }
            Err(TryLockError::WouldBlock) if started.elapsed() >= LOCK_LINGER_MAX => {
                return Err(JournalError::InUse {
                    path: data.to_path_buf(),
                    holder_pid: read_holder(lock),
                });
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_RETRY_EVERY),
        }
    }
}

/// The name of the holder is a courtesy: a lock file that cannot be read names nobody.
fn read_holder(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.take(FORMAT_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn write_holder(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}

fn check_format(journal: &Path) -> Result<(), JournalError> {
    let path = journal.join("format");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(JournalError::corrupt(format!("{} is missing", path.display())));
        }
        Err(error) => return Err(JournalError::io("open", &path, error)),
    };
    let mut bytes = Vec::new();
    file.take(FORMAT_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(|error| JournalError::io("read", &path, error))?;
    let found = String::from_utf8_lossy(&bytes).trim_end().to_owned();
    if found != FORMAT {
        return Err(JournalError::UnknownFormat {
            path: journal.to_path_buf(),
            found,
            expected: FORMAT,
        });
    }
    Ok(())
}

/// Removes a directory with everything in it; one that is not there is fine.
fn remove_directory(path: &Path) -> Result<(), JournalError> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(JournalError::io("remove the unfinished", path, error)),
    }
}

/// Syncs every file and directory below and including `path`.
fn sync_tree(path: &Path) -> Result<(), JournalError> {
    for entry in entries(path)? {
        if entry.is_dir() {
            sync_tree(&entry)?;
        } else {
            sync(&entry)?;
        }
    }
    sync(path)
}

/// The paths in a directory.
pub(super) fn entries(directory: &Path) -> Result<Vec<PathBuf>, JournalError> {
    fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
        .map_err(|error| JournalError::io("list", directory, error))
}

/// Makes a file, or a directory's list of names, durable.
pub(super) fn sync(path: &Path) -> Result<(), JournalError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|error| JournalError::io("sync", path, error))
}

fn sync_parent(path: &Path) -> Result<(), JournalError> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => sync(Path::new(".")),
        Some(parent) => sync(parent),
        None => Ok(()),
    }
}
