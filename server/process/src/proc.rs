//! Reading `/proc`: the ids there are, and one process at a time.
//!
//! A process that ends while it is read is none, and no error.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::stat::Stat;

/// The most processes of one pass. Most hosts have some hundreds; at 15 µs each a pass over so many takes four
/// seconds, and what it keeps 20 MiB.
pub const PROCESSES_MAX: usize = 262_144;

/// One process, for as long as this host runs: ids are used again, ids with their start are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessKey {
    /// Its id on the host.
    pub pid: u32,
    /// When it started, in clock ticks since boot: field 22 of `/proc/PID/stat`.
    pub started: u64,
}

/// Where processes are read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proc {
    root: PathBuf,
}

impl Default for Proc {
    fn default() -> Self {
        Self::at("/proc")
    }
}

impl Proc {
    /// Below this directory, usually `/proc`.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The process that has this id now; `None`: nobody has, or it has exited.
    ///
    /// # Errors
    /// It is there and may not be looked at.
    pub fn key(&self, pid: u32) -> io::Result<Option<ProcessKey>> {
        let stat = self.stat(pid)?.filter(|stat| !stat.exited);
        Ok(stat.map(|stat| ProcessKey { pid, started: stat.started }))
    }

    pub(crate) fn path(&self, pid: u32, file: &str) -> PathBuf {
        self.root.join(format!("{pid}/{file}"))
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn stat(&self, pid: u32) -> io::Result<Option<Stat>> {
        // All fields but the name are numbers of at most 20 digits; what matters is among the first 22.
        let mut buffer = [0; 1_024];
        let mut length = 0;
        let read = File::open(self.path(pid, "stat")).and_then(|mut file| {
            loop {
                match file.read(&mut buffer[length..])? {
                    0 => return Ok(()),
                    more => length += more,
                }
            }
        });
        present(read)?;
        Ok(Stat::parse(&String::from_utf8_lossy(&buffer[..length])))
    }

    /// A text file of a process, at most so many bytes; `None`: there is none any more, or it may not be read.
    pub(crate) fn text(&self, pid: u32, file: &str, bytes_max: u64) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        let file = File::open(self.path(pid, file)).ok()?;
        file.take(bytes_max).read_to_end(&mut text).ok()?;
        Some(text)
    }

    /// All ids, in no order; `None`: more than [`PROCESSES_MAX`].
    pub(crate) fn pids(&self) -> io::Result<Option<Vec<u32>>> {
        let mut pids = Vec::new();
        for entry in std::fs::read_dir(&self.root)? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            if pids.len() == PROCESSES_MAX {
                return Ok(None);
            }
            pids.push(pid);
        }
        Ok(Some(pids))
    }
}

/// Whether something could be read; a process that is gone is no error.
fn present(read: io::Result<()>) -> io::Result<bool> {
    const NO_SUCH_PROCESS: i32 = 3;
    match read {
        Ok(()) => Ok(true),
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(NO_SUCH_PROCESS) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_start_and_keeps_it() {
        let proc = Proc::default();
        let key = proc.key(std::process::id()).unwrap().unwrap();
        assert_eq!(key.pid, std::process::id());
        assert!(key.started > 0);
        assert_eq!(proc.key(key.pid).unwrap(), Some(key));
        assert!(proc.pids().unwrap().unwrap().contains(&key.pid));
    }

    #[test]
    fn an_id_that_nobody_has_is_nobody() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Proc::at(root.path()).key(4).unwrap(), None);
        // The highest id a kernel gives is 2²².
        assert_eq!(Proc::default().key(1 << 23).unwrap(), None);
    }

    #[test]
    fn a_child_that_exited_and_was_not_looked_at_is_nobody() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let proc = Proc::default();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while proc.key(child.id()).unwrap().is_some() {
            assert!(std::time::Instant::now() < deadline, "the child never exits");
            std::thread::yield_now();
        }
        assert!(proc.stat(child.id()).unwrap().is_some(), "it still waits to be looked at");
        child.wait().unwrap();
    }
}
