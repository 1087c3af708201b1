//! Passes over devices: what they prove of closed parts (P6, P7), and whose memory they find (P8).
//!
//! A part that was given back opens once a pass begun after that shows nothing of it left, at the latest after
//! `release_check_max`: what is left then counts as foreign. A part closed by an unclean end opens once a pass begun
//! after that shows that the whole declared process tree has exited. Checks are asked for at once and then ever less
//! often; a pass of the backend's own rhythm serves as well.

use std::collections::VecDeque;

use super::Scheduler;
use crate::{
    attribution::{Measurement, Taker, size_bytes},
    deadline::Deadline,
    id::{DeviceId, LeaseId, NodeId},
    input::{DeviceSample, MemoryReport, TreePass},
    inventory::{Closed, ClosedUntil},
    lease::OpenCause,
    output::{Effect, Output},
    request::Share,
    soft::Closing,
    time::{Span, Time},
};

/// The first check after the one at the end itself comes after this, each further one after twice as long …
const CHECK_AGAIN: Span = Span::from_millis(100);
/// … up to 800 ms, so that a device opens within a second of the end of whatever kept it closed. One look of some 10 ms
/// so often is a hundredth of the driver's time.
const CHECK_DOUBLINGS_MAX: u32 = 3;

impl Scheduler {
    /// A lease just gave back, or lost, what it held: the parts that are closed now wait for proof.
    pub(super) fn begin_closing(&mut self, id: LeaseId, out: &mut Output) {
        let devices = self.state.lease(id).map(|lease| lease.devices.clone()).unwrap_or_default();
        for device in devices {
            if self.closed_part(device, id).is_some() {
                self.close(device, id, out);
            }
        }
    }

    /// Books a closed part, and asks for the pass that opens it.
    pub(super) fn close(&mut self, device: DeviceId, lease: LeaseId, out: &mut Output) {
        let closing = Closing {
            since: self.now(),
            check: self.soft.check.saturating_add(1),
            checks: 0,
            released_late: false,
            before: self.use_before(device, lease),
        };
        self.soft.closing.insert((device, lease), closing);
        let Some(closed) = self.closed_part(device, lease) else { return };
        if closed.until == ClosedUntil::Proven {
            let over = self.now().after(self.policy.lock_delay);
            self.soft.deadlines.set(over, Deadline::LockDelay(device, lease));
        }
        self.ask_check(device, lease, out);
    }

    /// Memory in use while a lease still held its part, and what was foreign then.
    fn use_before(&self, id: DeviceId, lease: LeaseId) -> Option<(u64, u64)> {
        let device = self.state.inventory().device(id)?;
        // Nothing is checked where figures are exact, and a device of many slots has many holders.
        if device.facts.answers_at_once {
            return None;
        }
        let sample = self.soft.measured.device(id)?;
        let used = sample.memory.as_ref()?.used_bytes;
        let mut takers = self.holders(id);
        takers.push(Taker::closed(lease, device.closed.get(&lease)?, device));
        Some((used, sample.foreign_bytes_with(&takers).unwrap_or(0)))
    }

    pub(super) fn closed_part(&self, device: DeviceId, lease: LeaseId) -> Option<Closed> {
        self.state.inventory().device(device)?.closed.get(&lease).copied()
    }

    /// Asks for a pass that may open a closed part, and sets the time of the next one.
    fn ask_check(&mut self, device: DeviceId, lease: LeaseId, out: &mut Output) {
        let Some(closed) = self.closed_part(device, lease) else { return };
        let Some(named) = self.device_name(device) else { return };
        let exact = named.facts.answers_at_once;
        let provable = closed.until == ClosedUntil::Checked || closed.process.is_some();
        // Where processes cannot be told apart, no pass proves anything of an unclean end.
        let blind = closed.until == ClosedUntil::Proven && self.unattributed(device);
        let Some(closing) = self.soft.closing.get_mut(&(device, lease)) else { return };
        if exact || blind || !(provable || closing.released_late) {
            return;
        }
        self.soft.check = self.soft.check.saturating_add(1);
        let wait = CHECK_AGAIN.times(1u64.wrapping_shl(closing.checks.min(CHECK_DOUBLINGS_MAX)));
        closing.checks = closing.checks.saturating_add(1);
        let (number, since) = (self.soft.check, closing.since);
        let (node, uuid) = (named.node, named.facts.uuid.clone());
        out.effects.push(Effect::Check { node, device: uuid, number });
        let again = self.now().after(wait);
        let at = match closed.until {
            ClosedUntil::Checked => again.min(since.after(self.policy.release_check_max)),
            ClosedUntil::Proven => again,
        };
        self.soft.deadlines.set(at, Deadline::Check(device, lease));
    }

    /// A further pass is due, or a part that was given back was waited for long enough.
    pub(super) fn check_due(&mut self, device: DeviceId, lease: LeaseId, out: &mut Output) {
        let Some(closing) = self.soft.closing.get(&(device, lease)).copied() else { return };
        let Some(closed) = self.closed_part(device, lease) else { return };
        let over = closing.since.after(self.policy.release_check_max);
        if closed.until == ClosedUntil::Checked && over <= self.now() {
            return self.open(device, lease, OpenCause::CheckOver, out);
        }
        self.ask_check(device, lease, out);
    }

    /// A holder released after the unclean end: a pass that finds nothing of it opens its parts, at once where figures
    /// are exact.
    pub(super) fn released_late(&mut self, id: LeaseId, out: &mut Output) {
        let devices = self.state.lease(id).map(|lease| lease.devices.clone()).unwrap_or_default();
        for device in devices {
            let closed = self.closed_part(device, id);
            if closed.is_none_or(|closed| closed.until != ClosedUntil::Proven) {
                continue;
            }
            let facts = self.state.inventory().device(device).map(|device| device.facts.clone());
            if facts.is_some_and(|facts| facts.answers_at_once) {
                self.open(device, id, OpenCause::LateRelease, out);
                continue;
            }
            let next = self.soft.check.saturating_add(1);
            if let Some(closing) = self.soft.closing.get_mut(&(device, id)) {
                (closing.check, closing.checks, closing.released_late) = (next, 0, true);
                self.ask_check(device, id, out);
            }
        }
    }

    /// Takes one sample; answers whether anything about the device is new.
    pub(super) fn take_sample(
        &mut self,
        device: DeviceId,
        sample: DeviceSample,
        out: &mut Output,
    ) -> bool {
        let (check, report) = (sample.check, sample.memory);
        let exact = matches!(report, None | Some(MemoryReport::Exact(_)));
        let whole = !exact && !matches!(report, Some(MemoryReport::Sum { .. }));
        let takers = if exact { Vec::new() } else { self.takers(device) };
        let before = self.soft.measured.device(device);
        let measured = Measurement::of(self.now(), report, before, &takers);
        let news = self.soft.measured.sample((self.home(device), device), measured, &self.policy);
        if whole {
            self.forget_lingering(device);
            self.open_checked(device, check, out);
        }
        news
    }

    /// Explains the newest figures of a device for the leases that hold it now.
    pub(super) fn explain_again(&mut self, device: DeviceId) {
        let exact = (self.state.inventory().device(device))
            .is_none_or(|device| device.facts.answers_at_once);
        if !exact {
            let takers = self.takers(device);
            let home = self.home(device);
            if let Some(sample) = self.soft.measured.device_mut(home, device) {
                sample.again(&takers);
            }
        }
    }

    /// The leases that hold a device, in order of number.
    fn holders(&self, id: DeviceId) -> Vec<Taker> {
        let Some(device) = self.state.inventory().device(id) else { return Vec::new() };
        let process = |lease| self.state.lease(lease).and_then(|lease| lease.request.process);
        let taker = |(lease, share): (&LeaseId, &Share)| {
            Taker::holding(*lease, *share, process(*lease), device)
        };
        device.holding.iter().map(taker).collect()
    }

    /// The same, and behind them the closed parts.
    fn takers(&self, id: DeviceId) -> Vec<Taker> {
        let mut takers = self.holders(id);
        if let Some(device) = self.state.inventory().device(id) {
            let closed = device.closed.iter();
            takers.extend(closed.map(|(lease, closed)| Taker::closed(*lease, closed, device)));
        }
        takers
    }

    /// What a lease gave back counts as seen in use no longer, where that cannot be told.
    pub(super) fn forget_seen(&mut self, id: DeviceId, share: Share) {
        let Some(device) = self.state.inventory().device(id) else { return };
        let size = size_bytes(share, device);
        let home = self.home(id);
        if let Some(sample) = self.soft.measured.device_mut(home, id) {
            sample.give_back(size);
        }
    }

    /// A pass may show that nothing is left of what was given back.
    fn open_checked(&mut self, device: DeviceId, check: u64, out: &mut Output) {
        for (lease, closing) in self.closing_on(device) {
            if self.full(out) {
                // The next pass shows the same.
                break;
            }
            let Some(closed) = self.closed_part(device, lease) else { continue };
            let cause = match closed.until {
                ClosedUntil::Checked => OpenCause::Checked,
                ClosedUntil::Proven if closing.released_late && !self.unattributed(device) => {
                    OpenCause::LateRelease
                }
                ClosedUntil::Proven => continue,
            };
            if check >= closing.check && self.nothing_left(device, lease, &closed, &closing) {
                self.open(device, lease, cause, out);
            }
        }
    }

    /// Whether the newest pass shows nothing of a former lease: its tree uses no more than its other leases may; or, where
    /// it declared none, no more is unexplained than before; or, where nothing can be attributed, use fell by all that
    /// it held.
    fn nothing_left(
        &self,
        id: DeviceId,
        lease: LeaseId,
        closed: &Closed,
        closing: &Closing,
    ) -> bool {
        let Some(device) = self.state.inventory().device(id) else { return false };
        let Some(sample) = self.soft.measured.device(id) else { return false };
        let Some(reading) = &sample.memory else { return false };
        if sample.off.is_some() {
            let Some((used_before, _)) = closing.before else { return false };
            let size = Taker::closed(lease, closed, device).size_bytes;
            return reading.used_bytes.saturating_add(size) <= used_before;
        }
        let holders = self.holders(id);
        match closed.process {
            Some(root) => {
                let others = holders.iter().filter(|holder| holder.process == Some(root));
                let room = others.map(|holder| holder.size_bytes).fold(0, u64::saturating_add);
                sample.used_by(root).is_some_and(|used| used <= room)
            }
            None => {
                let foreign_before = closing.before.map_or(0, |(_, foreign)| foreign);
                sample.foreign_bytes_with(&holders).is_some_and(|bytes| bytes <= foreign_before)
            }
        }
    }

    /// The processes on a device cannot be told apart, so that none of them proves anything (P6).
    fn unattributed(&self, id: DeviceId) -> bool {
        self.soft.measured.device(id).is_some_and(|sample| sample.off.is_some())
    }

    /// A pass over all processes of a node: parts whose declared trees have exited open (P6).
    pub(super) fn take_trees(&mut self, node: NodeId, trees: &TreePass, out: &mut Output) {
        for device in self.devices_of(node) {
            let mut exited = VecDeque::new();
            for (lease, closing) in self.closing_on(device) {
                let Some(closed) = self.closed_part(device, lease) else { continue };
                let Some(process) = closed.process else { continue };
                let gone = trees.check >= closing.check && !trees.alive.contains(&process);
                if gone && closed.until == ClosedUntil::Proven && !self.unattributed(device) {
                    exited.push_back(lease);
                }
            }
            self.open_parts(device, exited, OpenCause::Exited, out);
        }
    }

    /// The node of a device; of an unknown one, none that there is.
    fn home(&self, device: DeviceId) -> NodeId {
        let inventory = self.state.inventory();
        inventory.device(device).map_or(inventory.next_node(), |device| device.node)
    }

    fn closing_on(&self, device: DeviceId) -> Vec<(LeaseId, Closing)> {
        let all = (device, LeaseId(0))..=(device, LeaseId(u64::MAX));
        self.soft.closing.range(all).map(|((_, lease), closing)| (*lease, *closing)).collect()
    }

    /// A tree outlived the lock delay: while passes show it on the device, that is granted whole to nobody (P6).
    pub(super) fn linger(&mut self, device: DeviceId, closed: Closed) {
        let exact = (self.state.inventory().device(device))
            .is_none_or(|device| device.facts.answers_at_once);
        if let Some(process) = closed.process.filter(|_| !exact) {
            self.soft.lingering.entry(device).or_default().insert(process);
            let home = self.home(device);
            self.soft.measured.touch(home);
        }
    }

    /// Trees that the newest pass no longer shows on a device linger there no longer.
    fn forget_lingering(&mut self, device: DeviceId) {
        let Some(lingering) = self.soft.lingering.get_mut(&device) else { return };
        let Some(sample) = self.soft.measured.device(device) else { return };
        lingering.retain(|root| sample.used_by(*root).is_some_and(|bytes| bytes > 0));
        if lingering.is_empty() {
            self.soft.lingering.remove(&device);
            let home = self.home(device);
            self.soft.measured.touch(home);
            // Whoever waits for the whole device may get it, even if no figure of the device is new.
            self.soft.dirty = true;
        }
    }

    /// When a closed part opens at the latest, if its node stays in reach.
    pub(super) fn opens_at(&self, device: DeviceId, lease: LeaseId) -> Option<Time> {
        let closing = self.soft.closing.get(&(device, lease))?;
        Some(closing.opens_at(self.closed_part(device, lease)?.until, &self.policy))
    }
}
