//! Which processes use a device, and how much of its memory.
//!
//! Promises: a process is told once, whatever lists it stands in; bytes that NVML does not know are absent; a list
//! that cannot be read makes the whole answer unknown, unless the device has no such list.

use std::collections::BTreeMap;

use nvml_wrapper_sys::bindings::nvmlProcessInfo_t;

/// The most processes of one device that are looked at: far over what a driver has contexts for, and a bound of
/// 1.5 MiB on one list of 24 bytes each.
pub const PROCESSES_MAX: usize = 65_536;

/// NVML's way of saying that it does not know.
const NOT_AVAILABLE: u64 = u64::MAX;

/// One process on one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessUse {
    /// Its id on the host, whatever namespace the reader is in.
    pub pid: u32,
    /// The device memory that it uses, in bytes; `None`: NVML does not say.
    pub bytes: Option<u64>,
    /// What it does there.
    pub kinds: Kinds,
}

/// What the driver says of the processes on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessList {
    /// These are all.
    Known(Vec<ProcessUse>),
    /// Nothing clear, this time.
    Unclear,
    /// Not to this user.
    NotPermitted,
    /// It cannot tell.
    Unsupported,
}

/// What a process does on a device: at least one of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    /// It computes.
    pub compute: bool,
    /// It draws.
    pub graphics: bool,
    /// It computes through the multi-process service.
    pub mps: bool,
}

/// The lists that NVML has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProcessKind {
    Compute,
    Graphics,
    Mps,
}

/// Puts the lists of one device together.
#[derive(Default)]
pub(crate) struct Merged {
    processes: BTreeMap<u32, (Option<u64>, Kinds)>,
}

impl Merged {
    /// Adds a whole list of one kind.
    pub(crate) fn add(&mut self, kind: ProcessKind, list: &[nvmlProcessInfo_t]) {
        for (pid, bytes) in by_pid(list) {
            let (known, kinds) = self.processes.entry(pid).or_default();
            // Every list tells all memory of the process, so that the greatest is the sum already.
            *known = (*known).max(bytes);
            match kind {
                ProcessKind::Compute => kinds.compute = true,
                ProcessKind::Graphics => kinds.graphics = true,
                ProcessKind::Mps => kinds.mps = true,
            }
        }
    }

    /// The processes, in order of id.
    pub(crate) fn finish(self) -> Vec<ProcessUse> {
        let process = |(pid, (bytes, kinds))| ProcessUse { pid, bytes, kinds };
        self.processes.into_iter().map(process).collect()
    }
}

/// The memory of each process of one list. Instances of a partitioned device are told apart in it, and a process may
/// use several. Process 0 is nobody's: NVML names it where it may not name the process.
fn by_pid(list: &[nvmlProcessInfo_t]) -> BTreeMap<u32, Option<u64>> {
    let mut sums = BTreeMap::new();
    for entry in list.iter().filter(|entry| entry.pid != 0) {
        let sum: &mut Option<u64> = sums.entry(entry.pid).or_default();
        if entry.usedGpuMemory != NOT_AVAILABLE {
            *sum = Some(sum.unwrap_or(0).saturating_add(entry.usedGpuMemory));
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pid: u32, bytes: u64) -> nvmlProcessInfo_t {
        nvmlProcessInfo_t { pid, usedGpuMemory: bytes, gpuInstanceId: 0, computeInstanceId: 0 }
    }

    fn merged(lists: &[(ProcessKind, &[nvmlProcessInfo_t])]) -> Vec<(u32, Option<u64>, String)> {
        let mut merged = Merged::default();
        lists.iter().for_each(|(kind, list)| merged.add(*kind, list));
        let kinds = |kinds: Kinds| {
            let letters = [(kinds.compute, 'C'), (kinds.graphics, 'G'), (kinds.mps, 'M')];
            letters.iter().filter(|(is, _)| *is).map(|(_, letter)| *letter).collect()
        };
        let all = merged.finish().into_iter();
        all.map(|process| (process.pid, process.bytes, kinds(process.kinds))).collect()
    }

    #[test]
    fn a_process_in_two_lists_is_told_once_and_its_memory_is_not_doubled() {
        let lists: [(ProcessKind, &[_]); 3] = [
            (ProcessKind::Compute, &[entry(7, 100), entry(9, 5)]),
            (ProcessKind::Graphics, &[entry(7, 100)]),
            (ProcessKind::Mps, &[entry(9, 5), entry(8, 1)]),
        ];
        let expected = [(7, Some(100), "CG"), (8, Some(1), "M"), (9, Some(5), "CM")];
        assert_eq!(merged(&lists), expected.map(|(pid, bytes, kinds)| (pid, bytes, kinds.into())));
    }

    #[test]
    fn unknown_memory_stays_unknown_and_known_memory_wins() {
        let lists: [(ProcessKind, &[_]); 2] = [
            (ProcessKind::Compute, &[entry(1, NOT_AVAILABLE), entry(2, NOT_AVAILABLE)]),
            (ProcessKind::Graphics, &[entry(2, 0)]),
        ];
        assert_eq!(merged(&lists), [(1, None, "C".into()), (2, Some(0), "CG".into())]);
    }

    #[test]
    fn the_instances_of_a_partitioned_device_are_added_up() {
        let lists: [(ProcessKind, &[_]); 1] =
            [(ProcessKind::Compute, &[entry(3, 10), entry(3, 20), entry(0, 4)])];
        assert_eq!(merged(&lists), [(3, Some(30), "C".into())]);
    }
}
