//! The files beside a copy of the library: their names, and how they are read and written.
//!
//! It promises that a reader sees a state whole or not at all, and that each state has another stamp than the one
//! before it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::state::State;
use crate::text::{Json, Told};

/// The largest state, in bytes: 64 devices with 1,024 processes of 120 bytes are 8 MB, and as much again for events.
const STATE_BYTES_MAX: u64 = 16 << 20;

/// Where the state of a library is.
pub(crate) fn state_path(library: &Path) -> PathBuf {
    beside(library, ".json")
}

/// Where the calls to a library are noted.
pub(crate) fn calls_path(library: &Path) -> PathBuf {
    beside(library, ".calls")
}

/// A path that is this one and an ending.
pub(crate) fn beside(library: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(library);
    name.push(ending);
    PathBuf::from(name)
}

/// What tells one state from the next without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// The stamp of the state at `path`; none while there is no such file.
    pub(crate) fn of(path: &Path) -> Option<Stamp> {
        let facts = fs::metadata(path).ok()?;
        Some(Stamp {
            inode: facts.ino(),
            length: facts.len(),
            modified: (facts.mtime(), facts.mtime_nsec()),
        })
    }
}

/// Reads the state at `path`.
pub(crate) fn read(path: &Path) -> io::Result<State> {
    let mut text = String::new();
    File::open(path)?.take(STATE_BYTES_MAX).read_to_string(&mut text)?;
    let mut state: State =
        Json::parse(&text).and_then(|json| State::read(&json)).map_err(|error| {
            let why = format!(
                "the state of the fake NVML library in {} is wrong: {error}",
                path.display()
            );
            io::Error::new(io::ErrorKind::InvalidData, why)
        })?;
    for (device, place) in state.devices.iter_mut().zip(1..) {
        if device.handle == 0 {
            device.handle = place;
        }
    }
    Ok(state)
}

/// Puts `state` in place of what is at `path`. `edition` is one that no earlier state there had: inodes come back and
/// the file system's clock is coarse, so it becomes the time of the file.
pub(crate) fn write(path: &Path, state: &State, edition: u64) -> io::Result<()> {
    let text = state.tell().to_string();
    if text.len() as u64 >= STATE_BYTES_MAX {
        let why =
            format!("the state of the fake NVML library would exceed {STATE_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    replace(path, text.as_bytes(), Some(UNIX_EPOCH + Duration::from_secs(edition)))
}

/// Puts a file of this content in place of what is at `path`, in one step.
pub(crate) fn replace(path: &Path, content: &[u8], time: Option<SystemTime>) -> io::Result<()> {
    let draft = beside(path, ".draft");
    let mut file = File::create(&draft)?;
    file.write_all(content)?;
    if let Some(time) = time {
        file.set_modified(time)?;
    }
    fs::rename(&draft, path)
}
