//! Attribution: whose the memory of a device is (P8).
//!
//! A pass over the processes tells what each uses and in whose tree it is. What is in the tree of a lease's declared
//! process is that lease's; of several leases of one process each gets up to its size, the last the rest. What is in
//! nobody's tree is charged to leases that declared no process, up to their sizes. The rest is foreign, and so are
//! bytes that no process explains. Between two passes only the sum is read: growth is charged to leases that have
//! room left, and what is more is foreign.
//! Where nothing can be attributed, foreign memory is a lower bound, and leased bytes that were not seen in use yet
//! count as still to come.
//! Pure functions of a report, the pass before and the leases that hold the device.

use std::collections::BTreeMap;

use crate::{
    id::{LeaseId, Name},
    input::{MemoryReading, MemoryReport, ProcessUse},
    inventory::{Device, part_of},
    request::{Process, Share},
    time::Time,
};

/// The newest sample of a device, explained.
#[derive(Clone, Debug)]
pub(crate) struct Measurement {
    pub(crate) at: Time,
    pub(crate) memory: Option<MemoryReading>,
    /// The newest pass over its processes.
    pub(crate) pass: Option<Pass>,
    /// Why nothing can be attributed.
    pub(crate) off: Option<Name>,
    /// Without attribution: leased bytes that were seen in use.
    pub(crate) seen_bytes: u64,
}

/// A pass over the processes of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pass {
    /// In use at that moment, in bytes.
    pub(crate) used_bytes: u64,
    pub(crate) processes: Vec<ProcessUse>,
}

/// A lease that holds the device, as far as attribution goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taker {
    pub(crate) lease: LeaseId,
    pub(crate) size_bytes: u64,
    pub(crate) process: Option<Process>,
}

impl Taker {
    /// A whole device is as large as can be; a slot lease without bytes counts its share of the ceiling.
    pub(crate) fn of(
        lease: LeaseId,
        share: Share,
        process: Option<Process>,
        device: &Device,
    ) -> Self {
        let size_bytes = match share {
            Share::Exclusive => u64::MAX,
            Share::Part { memory_bytes: Some(bytes), .. } => bytes,
            Share::Part { slots, memory_bytes: None } => {
                let slots = u64::from(slots.unwrap_or_default());
                part_of(device.facts.memory_ceiling_bytes(), slots, u64::from(device.facts.slots))
            }
        };
        Self { lease, size_bytes, process }
    }
}

impl Measurement {
    /// Nothing but its time differs.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.memory == other.memory && self.off == other.off && self.seen_bytes == other.seen_bytes
    }

    /// Explains a report, with the pass before it where it has none of its own.
    pub(crate) fn of(
        at: Time,
        report: Option<MemoryReport>,
        before: Option<&Self>,
        takers: &[Taker],
    ) -> Self {
        let pass_before = before.and_then(|before| before.pass.clone());
        let mut sample = Self { at, memory: None, pass: None, off: None, seen_bytes: 0 };
        match report {
            None => sample.pass = pass_before,
            Some(MemoryReport::Exact(reading)) => sample.memory = Some(reading),
            Some(MemoryReport::Sum { used_bytes }) => {
                sample.pass = pass_before;
                sample.memory = Some(explain(used_bytes, sample.pass.as_ref(), takers));
            }
            Some(MemoryReport::Pass { used_bytes, processes }) => {
                sample.pass = Some(Pass { used_bytes, processes });
                sample.memory = Some(explain(used_bytes, sample.pass.as_ref(), takers));
            }
            Some(MemoryReport::Unattributed { used_bytes, reason }) => {
                let used_before =
                    before.and_then(|before| Some(before.memory.as_ref()?.used_bytes));
                let seen = before.map_or(0, |before| before.seen_bytes);
                sample.seen_bytes = seen_now(seen, used_before, used_bytes, takers);
                sample.memory = Some(unattributed(used_bytes, takers));
                sample.off = Some(reason);
            }
        }
        sample
    }

    /// Explains the same figures for the leases that hold the device now.
    pub(crate) fn again(&mut self, takers: &[Taker]) {
        let Some(used) = self.memory.as_ref().map(|reading| reading.used_bytes) else { return };
        if self.off.is_some() {
            self.memory = Some(unattributed(used, takers));
        } else if self.pass.is_some() {
            self.memory = Some(explain(used, self.pass.as_ref(), takers));
        }
    }

    /// A lease gives back what it held: its bytes count as those that were seen.
    pub(crate) fn forget_seen(&mut self, size_bytes: u64) {
        self.seen_bytes = self.seen_bytes.saturating_sub(size_bytes);
    }

    /// Without attribution: leased bytes that were not seen in use yet.
    pub(crate) fn unseen_bytes(&self, device: &Device) -> Option<u64> {
        self.off.as_ref()?;
        let slots = u64::from(device.facts.slots);
        let ceiling = device.facts.memory_ceiling_bytes();
        let shares = part_of(ceiling, device.slots_without_bytes.min(slots), slots);
        let leased = device.memory_used_bytes.saturating_add(shares);
        Some(leased.saturating_sub(self.seen_bytes))
    }

    /// What the tree of a process uses by the newest pass, in bytes.
    pub(crate) fn used_by(&self, root: Process) -> Option<u64> {
        let pass = self.pass.as_ref()?;
        let own = pass.processes.iter().filter(|used| used.root == Some(root));
        Some(own.map(|used| used.bytes).fold(0, u64::saturating_add))
    }
}

/// Whose what is in use is, by the newest pass and by growth since.
fn explain(used_bytes: u64, pass: Option<&Pass>, takers: &[Taker]) -> MemoryReading {
    let mut attributed: BTreeMap<LeaseId, u64> = BTreeMap::new();
    let mut explained = 0u64;
    let in_trees = pass.map(|pass| by_root(&pass.processes)).unwrap_or_default();
    for (root, bytes) in in_trees {
        let own: Vec<Taker> =
            takers.iter().filter(|taker| taker.process == root).copied().collect();
        // A tree's bytes are all its leases'; what is in no tree goes to undeclared leases up to their sizes.
        let charged = charge(bytes, &own, root.is_some(), &mut attributed);
        explained = explained.saturating_add(charged);
    }
    let used_at_pass = pass.map_or(0, |pass| pass.used_bytes);
    let grown = used_bytes.saturating_sub(used_at_pass);
    let charged = charge(grown, takers, false, &mut attributed);
    let foreign_bytes = if used_bytes >= used_at_pass {
        used_bytes.saturating_sub(explained).saturating_sub(charged)
    } else {
        // Somebody gave memory back since the pass; who, the next one tells.
        used_at_pass.saturating_sub(explained).min(used_bytes)
    };
    MemoryReading { used_bytes, foreign_bytes, attributed: attributed.into_iter().collect() }
}

fn by_root(processes: &[ProcessUse]) -> BTreeMap<Option<Process>, u64> {
    let mut roots: BTreeMap<Option<Process>, u64> = BTreeMap::new();
    for used in processes {
        let sum = roots.entry(used.root).or_default();
        *sum = sum.saturating_add(used.bytes);
    }
    roots
}

/// Charges bytes to leases, each up to its size, the last of them the rest if `all` of it is theirs. Answers how much
/// was charged.
fn charge(bytes: u64, takers: &[Taker], all: bool, attributed: &mut BTreeMap<LeaseId, u64>) -> u64 {
    let mut left = bytes;
    for taker in takers {
        let sum = attributed.entry(taker.lease).or_default();
        let part = left.min(taker.size_bytes.saturating_sub(*sum));
        *sum = sum.saturating_add(part);
        left = left.saturating_sub(part);
    }
    if let Some(last) = takers.last().filter(|_| all) {
        let sum = attributed.entry(last.lease).or_default();
        *sum = sum.saturating_add(left);
        left = 0;
    }
    attributed.retain(|_, sum| *sum > 0);
    bytes.saturating_sub(left)
}

/// Foreign memory is at least what all leases together could not use.
fn unattributed(used_bytes: u64, takers: &[Taker]) -> MemoryReading {
    let leased = takers.iter().map(|taker| taker.size_bytes).fold(0, u64::saturating_add);
    let foreign_bytes = used_bytes.saturating_sub(leased);
    MemoryReading { used_bytes, foreign_bytes, attributed: Vec::new() }
}

/// Growth is taken for leased bytes coming into use, a fall for leased bytes going out of it: the sum alone matters.
fn seen_now(seen: u64, used_before: Option<u64>, used: u64, takers: &[Taker]) -> u64 {
    let leased = takers.iter().map(|taker| taker.size_bytes).fold(0, u64::saturating_add);
    let Some(before) = used_before else { return 0 };
    let seen = seen.saturating_add(used.saturating_sub(before));
    seen.saturating_sub(before.saturating_sub(used)).min(leased)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn process(pid: u32) -> Process {
        Process { pid, started_ticks: 7 }
    }

    fn taker(lease: u64, gib: u64, pid: Option<u32>) -> Taker {
        Taker { lease: LeaseId(lease), size_bytes: gib * GIB, process: pid.map(process) }
    }

    fn pass(uses: &[(u32, Option<u32>, u64)]) -> Pass {
        let processes: Vec<ProcessUse> = (uses.iter())
            .map(|(pid, root, gib)| ProcessUse {
                process: process(*pid),
                root: root.map(process),
                bytes: gib * GIB,
                uid: None,
                command: "".into(),
            })
            .collect();
        let used_bytes = processes.iter().map(|used| used.bytes).sum();
        Pass { used_bytes, processes }
    }

    /// What is used in GiB, the pass before, the leases; then foreign, and what each lease uses.
    fn check(used: u64, pass: &Pass, takers: &[Taker], foreign: u64, leases: &[(u64, u64)]) {
        let reading = explain(used * GIB, Some(pass), takers);
        let want: Vec<_> = leases.iter().map(|(id, gib)| (LeaseId(*id), gib * GIB)).collect();
        assert_eq!((reading.foreign_bytes, reading.attributed), (foreign * GIB, want));
    }

    #[test]
    fn what_a_declared_tree_uses_is_its_leases_even_above_their_size() {
        let seen = pass(&[(10, Some(10), 3), (11, Some(10), 4), (99, None, 2)]);
        check(9, &seen, &[taker(1, 5, Some(10))], 2, &[(1, 7)]);
    }

    #[test]
    fn leases_of_one_process_share_its_use_in_order_each_up_to_its_size() {
        let seen = pass(&[(10, Some(10), 6)]);
        check(6, &seen, &[taker(1, 4, Some(10)), taker(2, 4, Some(10))], 0, &[(1, 4), (2, 2)]);
    }

    #[test]
    fn a_process_in_no_tree_is_charged_to_undeclared_leases_up_to_their_size() {
        let seen = pass(&[(50, None, 6)]);
        check(6, &seen, &[taker(1, 4, None)], 2, &[(1, 4)]);
    }

    #[test]
    fn growth_since_the_pass_is_charged_to_leases_with_room_and_the_rest_is_foreign() {
        let seen = pass(&[(10, Some(10), 2)]);
        check(9, &seen, &[taker(1, 4, Some(10)), taker(2, 3, Some(20))], 2, &[(1, 4), (2, 3)]);
    }

    #[test]
    fn a_fall_since_the_pass_never_makes_foreign_memory_grow() {
        let seen = pass(&[(10, Some(10), 4), (99, None, 3)]);
        check(2, &seen, &[taker(1, 4, Some(10))], 2, &[(1, 4)]);
    }

    #[test]
    fn a_tree_whose_lease_is_gone_is_foreign() {
        let seen = pass(&[(10, Some(10), 3)]);
        check(3, &seen, &[taker(2, 4, Some(20))], 3, &[]);
    }

    #[test]
    fn without_attribution_leased_bytes_come_into_sight_as_use_grows_and_go_as_it_falls() {
        let takers = [taker(1, 4, None)];
        assert_eq!(seen_now(0, Some(0), 3 * GIB, &takers), 3 * GIB);
        assert_eq!(seen_now(3 * GIB, Some(3 * GIB), 9 * GIB, &takers), 4 * GIB);
        assert_eq!(seen_now(3 * GIB, Some(3 * GIB), GIB, &takers), GIB);
        assert_eq!(unattributed(6 * GIB, &takers).foreign_bytes, 2 * GIB);
    }
}
