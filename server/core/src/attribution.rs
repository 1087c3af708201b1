//! Attribution: whose the memory of a device is (P8).
//!
//! A pass over the processes tells what each uses and in whose tree it is. What is in the tree of a lease's declared
//! process is that lease's; of several leases of one process each gets up to its size, the last the rest. What is in
//! nobody's tree is charged to leases that declared no process, up to their sizes. The rest is foreign, and so are
//! bytes that no process explains. Between two passes only the sum is read: growth is charged to leases that have
//! room left, and what is more is foreign. Before the first pass nothing is known. Leases that hold the device come
//! before parts of it that are closed; what these explain is covered by being closed.
//! Where nothing can be attributed, foreign memory is a lower bound, and leased bytes that were not seen in use yet
//! count as still to come.
//! Pure functions of a report, the pass before, the leases that hold the device and its closed parts.

use std::collections::BTreeMap;

use crate::{
    id::{LeaseId, Name},
    input::{MemoryReading, MemoryReport, ProcessUse},
    inventory::{Closed, Device, part_of},
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
    /// The sum was read and no pass came yet, so that the memory is unknown.
    pub(crate) awaits_pass: bool,
    /// Without attribution: leased bytes that were seen in use.
    pub(crate) seen_bytes: u64,
    /// Without attribution: bytes that were seen in use, were given back since and did not go out of use yet.
    pub(crate) leaving_bytes: u64,
    /// In use when that was last known.
    pub(crate) used_last_bytes: Option<u64>,
}

/// A pass over the processes of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pass {
    /// In use at that moment, in bytes.
    pub(crate) used_bytes: u64,
    pub(crate) processes: Vec<ProcessUse>,
}

/// A lease that holds the device, or may still use a part of it, as far as attribution goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taker {
    pub(crate) lease: LeaseId,
    /// It holds the device; otherwise its part is closed.
    pub(crate) holds: bool,
    pub(crate) size_bytes: u64,
    pub(crate) process: Option<Process>,
}

impl Taker {
    /// A lease that holds the device.
    pub(crate) fn holding(
        lease: LeaseId,
        share: Share,
        process: Option<Process>,
        device: &Device,
    ) -> Self {
        Self { lease, holds: true, size_bytes: size_bytes(share, device), process }
    }

    /// A former lease.
    pub(crate) fn closed(lease: LeaseId, closed: &Closed, device: &Device) -> Self {
        let size_bytes = size_bytes(closed.share, device);
        Self { lease, holds: false, size_bytes, process: closed.process }
    }
}

/// A whole device is as large as can be; a slot lease without bytes counts its share of the ceiling.
pub(crate) fn size_bytes(share: Share, device: &Device) -> u64 {
    match share {
        Share::Exclusive => u64::MAX,
        Share::Part { memory_bytes: Some(bytes), .. } => bytes,
        Share::Part { slots, memory_bytes: None } => {
            let slots = u64::from(slots.unwrap_or_default());
            part_of(device.facts.memory_ceiling_bytes(), slots, u64::from(device.facts.slots))
        }
    }
}

impl Measurement {
    /// Nothing but its time differs.
    pub(crate) fn same(&self, other: &Self) -> bool {
        let figures = |it: &Self| (it.seen_bytes, it.leaving_bytes, it.awaits_pass);
        self.memory == other.memory && self.off == other.off && figures(self) == figures(other)
    }

    /// Explains a report, with the pass before it where it has none of its own.
    pub(crate) fn of(
        at: Time,
        report: Option<MemoryReport>,
        before: Option<&Self>,
        takers: &[Taker],
    ) -> Self {
        let pass_before = before.and_then(|before| before.pass.clone());
        let mut sample = Self {
            at,
            memory: None,
            pass: None,
            off: None,
            awaits_pass: false,
            seen_bytes: 0,
            leaving_bytes: 0,
            used_last_bytes: report.as_ref().map(MemoryReport::used_bytes),
        };
        match report {
            // A figure that is missing once changes nothing about what was seen.
            None => {
                sample.pass = pass_before;
                if let Some(before) = before {
                    (sample.off, sample.awaits_pass) = (before.off.clone(), before.awaits_pass);
                    sample.seen_bytes = before.seen_bytes;
                    sample.leaving_bytes = before.leaving_bytes;
                    sample.used_last_bytes = before.used_last_bytes;
                }
            }
            Some(MemoryReport::Exact(reading)) => sample.memory = Some(reading),
            Some(MemoryReport::Sum { used_bytes }) => {
                sample.pass = pass_before;
                sample.memory = sample.pass.as_ref().map(|pass| explain(used_bytes, pass, takers));
                sample.awaits_pass = sample.pass.is_none();
            }
            Some(MemoryReport::Pass { used_bytes, processes }) => {
                let pass = Pass { used_bytes, processes };
                sample.memory = Some(explain(used_bytes, &pass, takers));
                sample.pass = Some(pass);
            }
            Some(MemoryReport::Unattributed { used_bytes, reason }) => {
                let before = before.filter(|before| before.off.is_some());
                sample.see(before, used_bytes, takers);
                sample.memory = Some(unattributed(used_bytes, takers));
                sample.off = Some(reason);
            }
        }
        sample
    }

    /// Explains the same figures for the leases that hold the device now, and its closed parts.
    pub(crate) fn again(&mut self, takers: &[Taker]) {
        let Some(used) = self.memory.as_ref().map(|reading| reading.used_bytes) else { return };
        if self.off.is_some() {
            self.memory = Some(unattributed(used, takers));
            self.leaving_bytes = self.leaving_bytes.min(sizes(takers, false));
        } else if let Some(pass) = &self.pass {
            self.memory = Some(explain(used, pass, takers));
        }
    }

    /// What is in use and would be foreign if these alone had the device.
    pub(crate) fn foreign_bytes_with(&self, takers: &[Taker]) -> Option<u64> {
        let used = self.memory.as_ref()?.used_bytes;
        Some(explain(used, self.pass.as_ref()?, takers).foreign_bytes)
    }

    /// Without attribution: growth is taken for leased bytes coming into use, a fall for bytes that were given back
    /// going out of it, and then for leased ones. The sum alone matters.
    fn see(&mut self, before: Option<&Self>, used_bytes: u64, takers: &[Taker]) {
        let Some((before, used_before)) = before.and_then(|it| Some((it, it.used_last_bytes?)))
        else {
            return;
        };
        let grown = used_bytes.saturating_sub(used_before);
        let fallen = used_before.saturating_sub(used_bytes);
        let left = fallen.min(before.leaving_bytes);
        let (leased, closed) = (sizes(takers, true), sizes(takers, false));
        let seen = before.seen_bytes.saturating_add(grown);
        self.seen_bytes = seen.saturating_sub(fallen.saturating_sub(left)).min(leased);
        self.leaving_bytes = before.leaving_bytes.saturating_sub(left).min(closed);
    }

    /// Without attribution: a lease gives back what it held; what was seen of that in use is on its way out.
    pub(crate) fn give_back(&mut self, size_bytes: u64) {
        let part = self.seen_bytes.min(size_bytes);
        self.seen_bytes = self.seen_bytes.saturating_sub(part);
        self.leaving_bytes = self.leaving_bytes.saturating_add(part);
    }

    /// Without attribution: bytes in use, and leased ones that were not seen in use yet, as they are `now`, or if the device
    /// had the leases and closed parts alone that it has `then`. Those who are gone then take along what was seen.
    pub(crate) fn taken_bytes(&self, now: &Device, then: &Device) -> Option<u64> {
        self.off.as_ref()?;
        let used = self.memory.as_ref()?.used_bytes;
        let gone = |of: fn(&Device) -> u64| of(now).saturating_sub(of(then));
        let gone_seen = gone(leased_bytes).min(self.seen_bytes);
        let gone_leaving = gone(Device::memory_closed_bytes).min(self.leaving_bytes);
        let unseen = leased_bytes(then).saturating_sub(self.seen_bytes.saturating_sub(gone_seen));
        Some(used.saturating_sub(gone_seen).saturating_sub(gone_leaving).saturating_add(unseen))
    }

    /// What the tree of a process uses by the newest pass, in bytes.
    pub(crate) fn used_by(&self, root: Process) -> Option<u64> {
        let pass = self.pass.as_ref()?;
        let own = pass.processes.iter().filter(|used| used.root == Some(root));
        Some(own.map(|used| used.bytes).fold(0, u64::saturating_add))
    }
}

/// Whose what is in use is, by the newest pass and by growth since.
fn explain(used_bytes: u64, pass: &Pass, takers: &[Taker]) -> MemoryReading {
    let mut attributed: BTreeMap<LeaseId, u64> = BTreeMap::new();
    let mut explained = 0u64;
    for (root, bytes) in by_root(&pass.processes) {
        let own: Vec<Taker> =
            takers.iter().filter(|taker| taker.process == root).copied().collect();
        // A tree's bytes are all its leases'; what is in no tree goes to undeclared leases up to their sizes.
        let charged = charge(bytes, &own, root.is_some(), &mut attributed);
        explained = explained.saturating_add(charged);
    }
    let used_at_pass = pass.used_bytes;
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

/// What all that hold a device have of it, as far as its sums tell.
fn leased_bytes(device: &Device) -> u64 {
    if device.exclusive > 0 {
        return u64::MAX;
    }
    let slots = u64::from(device.facts.slots);
    let ceiling = device.facts.memory_ceiling_bytes();
    let shares = part_of(ceiling, device.slots_without_bytes.min(slots), slots);
    device.memory_used_bytes.saturating_add(shares)
}

/// Foreign memory is at least what all leases together could not use.
fn unattributed(used_bytes: u64, takers: &[Taker]) -> MemoryReading {
    let usable = sizes(takers, true).saturating_add(sizes(takers, false));
    let foreign_bytes = used_bytes.saturating_sub(usable);
    MemoryReading { used_bytes, foreign_bytes, attributed: Vec::new() }
}

/// The sizes of all that hold the device, or of all closed parts, together.
fn sizes(takers: &[Taker], holds: bool) -> u64 {
    let these = takers.iter().filter(|taker| taker.holds == holds);
    these.map(|taker| taker.size_bytes).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gib(count: u64) -> u64 {
        count << 30
    }

    fn process(pid: u32) -> Process {
        Process { pid, started_ticks: 7 }
    }

    fn taker(lease: u64, size: u64, pid: Option<u32>) -> Taker {
        let (lease, size_bytes) = (LeaseId(lease), gib(size));
        Taker { lease, holds: true, size_bytes, process: pid.map(process) }
    }

    fn closed(lease: u64, size: u64, pid: Option<u32>) -> Taker {
        Taker { holds: false, ..taker(lease, size, pid) }
    }

    fn pass(uses: &[(u32, Option<u32>, u64)]) -> Pass {
        let processes: Vec<ProcessUse> = (uses.iter())
            .map(|(pid, root, used)| ProcessUse {
                process: process(*pid),
                root: root.map(process),
                bytes: gib(*used),
                uid: None,
                command: "".into(),
            })
            .collect();
        let used_bytes = processes.iter().map(|used| used.bytes).sum();
        Pass { used_bytes, processes }
    }

    /// What is used in GiB, the pass before, the leases; then foreign, and what each lease uses.
    fn check(used: u64, pass: &Pass, takers: &[Taker], foreign: u64, leases: &[(u64, u64)]) {
        let reading = explain(gib(used), pass, takers);
        let want: Vec<_> = leases.iter().map(|(id, used)| (LeaseId(*id), gib(*used))).collect();
        assert_eq!((reading.foreign_bytes, reading.attributed), (gib(foreign), want));
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
    fn what_a_former_lease_still_uses_is_not_foreign_while_its_part_is_closed() {
        let seen = pass(&[(10, Some(10), 6), (50, None, 3)]);
        check(9, &seen, &[taker(2, 2, None), closed(1, 4, Some(10))], 1, &[(1, 6), (2, 2)]);
    }

    /// What is in use, the leases; then bytes seen in use, and bytes on their way out.
    fn see(
        before: &Measurement,
        used: u64,
        takers: &[Taker],
        seen: u64,
        leaving: u64,
    ) -> Measurement {
        let report = MemoryReport::Unattributed { used_bytes: gib(used), reason: "no".into() };
        let sample = Measurement::of(Time::ZERO, Some(report), Some(before), takers);
        assert_eq!((sample.seen_bytes, sample.leaving_bytes), (gib(seen), gib(leaving)));
        sample
    }

    #[test]
    fn without_attribution_leased_bytes_come_into_sight_as_use_grows_and_go_as_it_falls() {
        let takers = [taker(1, 4, None)];
        let nothing = MemoryReport::Unattributed { used_bytes: 0, reason: "no".into() };
        let sample = Measurement::of(Time::ZERO, Some(nothing), None, &takers);
        let sample = see(&sample, 3, &takers, 3, 0);
        let sample = see(&sample, 9, &takers, 4, 0);
        let sample = see(&sample, 7, &takers, 2, 0);
        assert_eq!(sample.memory.unwrap().foreign_bytes, gib(3));
    }

    #[test]
    fn without_attribution_a_fall_is_first_that_of_what_was_given_back() {
        let takers = [taker(1, 4, None), taker(2, 8, None)];
        let nothing = MemoryReport::Unattributed { used_bytes: 0, reason: "no".into() };
        let sample = Measurement::of(Time::ZERO, Some(nothing), None, &takers);
        let mut sample = see(&sample, 10, &takers, 10, 0);
        sample.give_back(gib(4));
        let left = [taker(2, 8, None), closed(1, 4, None)];
        let sample = see(&sample, 7, &left, 6, 1);
        let mut sample = see(&sample, 5, &left, 5, 0);
        sample.again(&[taker(2, 8, None)]);
        see(&sample, 6, &[taker(2, 8, None)], 6, 0);
    }

    #[test]
    fn before_the_first_pass_the_sum_says_nothing() {
        let sum = Some(MemoryReport::Sum { used_bytes: gib(1) });
        let sample = Measurement::of(Time::ZERO, sum, None, &[]);
        assert!(sample.memory.is_none() && sample.awaits_pass);
    }
}
