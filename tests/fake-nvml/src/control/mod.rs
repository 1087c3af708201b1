//! The test's side: a copy of the library, and what it says and does.
//!
//! It promises that a change holds for every call that begins after the method returned, in every process that loaded
//! the copy, and that one method is one change. One [`FakeNvml`] writes the state of one copy; it may be shared between
//! threads.

mod devices;
mod faults;

pub use faults::{Calls, FaultNumber};

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::device::Device;
use crate::state::State;
use crate::{files, library_path, symbols};

/// Numbers the copies of this process.
static COPIES: AtomicU64 = AtomicU64::new(0);

/// A copy of the fake library, and its state. Without a device at first.
#[derive(Debug)]
pub struct FakeNvml {
    library: PathBuf,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    state: State,
    /// How often it was written.
    edition: u64,
}

impl FakeNvml {
    /// Copies the library that was built with the running binary into a folder, under a name of its own.
    ///
    /// # Errors
    /// When there is no such library, or the folder cannot be written to.
    pub fn copy_to(folder: &Path) -> io::Result<FakeNvml> {
        let number = COPIES.fetch_add(1, Ordering::Relaxed);
        let library = folder.join(format!("libnvidia-ml-{}-{number}.so", std::process::id()));
        fs::copy(library_path()?, &library)?;
        let written = Written { state: State::default(), edition: 1 };
        let fake = FakeNvml { library: library.canonicalize()?, written: Mutex::new(written) };
        fake.edit(|_| ())?;
        Ok(fake)
    }

    /// The path to load it from.
    #[must_use]
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// The path of its state, for a test in another language. Whoever writes it puts a whole file in its place, by a
    /// rename, and no method of this value may be used then: it knows nothing of the other's changes.
    #[must_use]
    pub fn state_path(&self) -> PathBuf {
        files::state_path(&self.library)
    }

    /// What it says and does now.
    #[must_use]
    pub fn state(&self) -> State {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).state.clone()
    }

    /// Changes anything, in one step.
    ///
    /// # Errors
    /// When the state cannot be written; nothing has changed then.
    pub fn edit<T>(&self, change: impl FnOnce(&mut State) -> T) -> io::Result<T> {
        self.try_edit(|state| Ok(change(state)))
    }

    /// Changes anything about one device, in one step.
    ///
    /// # Errors
    /// When there is no such device, or the state cannot be written; nothing has changed then.
    pub fn edit_device<T>(
        &self,
        uuid: &str,
        change: impl FnOnce(&mut Device) -> T,
    ) -> io::Result<T> {
        self.try_edit(|state| find(state, uuid).map(change))
    }

    fn try_edit<T>(&self, change: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = written.state.clone();
        let result = change(&mut state)?;
        let edition = written.edition + 1;
        files::write(&self.state_path(), &state, edition)?;
        *written = Written { state, edition };
        Ok(result)
    }

    /// Makes it lack a function, as an older driver does, for processes that load it from now on. One that has it
    /// loaded keeps the function until it unloads the library.
    ///
    /// # Errors
    /// When it has no such function, or cannot be written.
    pub fn hide(&self, symbol: &str) -> io::Result<()> {
        let mut image = fs::read(&self.library)?;
        if !symbols::hide(&mut image, symbol) {
            let why = format!("the fake NVML library has no {symbol} to hide");
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        }
        // A new file: the pages of one that is loaded somewhere must not change.
        files::replace(&self.library, &image, None)
    }

    /// How often a function was called, in all processes; calls that hang now included.
    ///
    /// # Errors
    /// When the notes cannot be read.
    pub fn calls(&self, symbol: &str) -> io::Result<usize> {
        self.count_calls(|line| line.split(' ').next() == Some(symbol))
    }

    /// How often a function was called about a device.
    ///
    /// # Errors
    /// When the notes cannot be read.
    pub fn device_calls(&self, symbol: &str, uuid: &str) -> io::Result<usize> {
        let wanted = format!("{symbol} {uuid} ");
        self.count_calls(|line| line.starts_with(&wanted))
    }

    fn count_calls(&self, wanted: impl Fn(&str) -> bool) -> io::Result<usize> {
        match fs::read_to_string(files::calls_path(&self.library)) {
            Ok(text) => Ok(text.lines().filter(|line| wanted(line)).count()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }
}

fn find<'a>(state: &'a mut State, uuid: &str) -> io::Result<&'a mut Device> {
    state.devices.iter_mut().find(|device| device.uuid == uuid).ok_or_else(|| {
        let why = format!("there is no device {uuid} in the fake NVML library: add it first");
        io::Error::new(io::ErrorKind::NotFound, why)
    })
}
