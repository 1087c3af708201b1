//! The local host as a node like any other: its name, boot id, CPUs and memory.
//!
//! It promises that the boot id is the kernel's, so that it changes with every boot and with nothing else (P6).
//! The root of /proc is a value, so that tests describe hosts that do not exist.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use gpulease_core::{id::Name, inventory::NodeFacts};

use super::BackendError;

const HOST_NAME: &str = "sys/kernel/hostname";
const BOOT_ID: &str = "sys/kernel/random/boot_id";
const MEMORY: &str = "meminfo";

/// Where the local host is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Usually `/proc`.
    pub proc_root: PathBuf,
    /// The node's name; `None`: the host name.
    pub node_name: Option<String>,
    /// Labels for constraints.
    pub labels: BTreeMap<Name, Name>,
    /// How many CPUs this process may use; `None`: ask the system, affinity and control groups included.
    pub cpus: Option<NonZero<usize>>,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            proc_root: PathBuf::from("/proc"),
            node_name: None,
            labels: BTreeMap::new(),
            cpus: None,
        }
    }
}

impl Host {
    /// Reads what the host is.
    ///
    /// # Errors
    /// `Host`, naming the file that is missing or means nothing.
    pub fn describe(&self) -> Result<NodeFacts, BackendError> {
        let name = match &self.node_name {
            Some(name) => name.clone(),
            None => self.line(HOST_NAME, "reading the host name")?,
        };
        Ok(NodeFacts {
            name: Name::new(&name),
            boot_id: Name::new(&self.line(BOOT_ID, "reading the boot id")?),
            labels: self.labels.clone(),
            host_cpu_millis: self.cpu_millis()?,
            host_memory_bytes: self.memory_bytes()?,
        })
    }

    fn cpu_millis(&self) -> Result<u64, BackendError> {
        let cpus = match self.cpus {
            Some(cpus) => cpus,
            None => std::thread::available_parallelism().map_err(|source| {
                failed("counting the CPUs", &self.proc_root.join("cpuinfo"), source)
            })?,
        };
        Ok(u64::try_from(cpus.get()).unwrap_or(u64::MAX).saturating_mul(1_000))
    }

    fn memory_bytes(&self) -> Result<u64, BackendError> {
        const ATTEMPTED: &str = "reading MemTotal";
        let path = self.proc_root.join(MEMORY);
        let text = read(&path, ATTEMPTED)?;
        let kib = text
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))
            .and_then(|rest| rest.trim().strip_suffix(" kB"))
            .and_then(|kib| kib.trim().parse::<u64>().ok());
        let none = || failed(ATTEMPTED, &path, io::ErrorKind::InvalidData.into());
        Ok(kib.ok_or_else(none)?.saturating_mul(1_024))
    }

    /// The first line of a file that must have one.
    fn line(&self, file: &str, attempted: &'static str) -> Result<String, BackendError> {
        let path = self.proc_root.join(file);
        let text = read(&path, attempted)?;
        let line = text.lines().next().unwrap_or_default().trim();
        if line.is_empty() {
            return Err(failed(attempted, &path, io::ErrorKind::InvalidData.into()));
        }
        Ok(line.to_owned())
    }
}

fn read(path: &Path, attempted: &'static str) -> Result<String, BackendError> {
    std::fs::read_to_string(path).map_err(|source| failed(attempted, path, source))
}

fn failed(attempted: &'static str, path: &Path, source: io::Error) -> BackendError {
    BackendError::Host { attempted, path: path.to_owned(), source }
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;

    use super::*;

    /// A host called `alpha` with 16 CPUs and 64 GiB.
    pub(in super::super) fn alpha() -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("sys/kernel/random")).unwrap();
        fs::write(root.path().join(HOST_NAME), "alpha\n").unwrap();
        fs::write(root.path().join(BOOT_ID), "b001\n").unwrap();
        fs::write(root.path().join(MEMORY), "MemTotal:       67108864 kB\nMemFree: 1 kB\n")
            .unwrap();
        let host =
            Host { proc_root: root.path().to_owned(), cpus: NonZero::new(16), ..Host::default() };
        (root, host)
    }

    #[test]
    fn a_host_is_described_from_proc() {
        let (_root, host) = alpha();
        let facts = host.describe().unwrap();
        assert_eq!(facts.name.as_str(), "alpha");
        assert_eq!(facts.boot_id.as_str(), "b001");
        assert_eq!(facts.host_cpu_millis, 16_000);
        assert_eq!(facts.host_memory_bytes, 64 << 30);
    }

    #[test]
    fn a_given_node_name_replaces_the_host_name() {
        let (root, mut host) = alpha();
        fs::remove_file(root.path().join(HOST_NAME)).unwrap();
        host.node_name = Some("rack-7".into());
        assert_eq!(host.describe().unwrap().name.as_str(), "rack-7");
    }

    #[test]
    fn this_host_describes_itself() {
        let facts = Host::default().describe().unwrap();
        assert!(facts.host_cpu_millis >= 1_000 && facts.host_memory_bytes > 0, "{facts:?}");
    }

    #[test]
    fn a_missing_or_meaningless_file_is_named() {
        for (file, content) in [
            (HOST_NAME, Some("\n")),
            (HOST_NAME, None),
            (BOOT_ID, Some("")),
            (BOOT_ID, None),
            (MEMORY, Some("MemFree: 3 kB\n")),
            (MEMORY, Some("MemTotal: lots kB\n")),
            (MEMORY, None),
        ] {
            let (root, host) = alpha();
            match content {
                Some(content) => fs::write(root.path().join(file), content).unwrap(),
                None => fs::remove_file(root.path().join(file)).unwrap(),
            }
            let message = host.describe().unwrap_err().to_string();
            assert!(message.contains(file), "{message}");
        }
    }
}
