//! Unclean ends: what a lease held stays closed, device by device, until it is safe (P6).
//!
//! Safe is: the declared process tree has exited, by a pass begun after the end (`check`); the lock delay is over on a
//! node that is reachable; the node has a new boot id; the holder released late and a pass finds nothing of it; an
//! operator says so.

use std::sync::Arc;

use super::Scheduler;
use crate::{
    deadline::Deadline,
    event::Event,
    id::{DeviceId, LeaseId},
    lease::{EndReason, OpenCause, State as LeaseState},
    output::{Effect, Output},
};

impl Scheduler {
    /// ACTIVE, PAUSING → RECLAIMING. The holder is told where it has a session.
    pub(super) fn reclaim(
        &mut self,
        id: LeaseId,
        reason: EndReason,
        detail: Option<Arc<str>>,
        out: &mut Output,
    ) {
        self.note_preempted(id);
        self.emit(Event::Reclaiming { lease: id, reason, detail }, out);
        self.forget_holding(id);
        self.forget_expiry(id);
        self.begin_closing(id, out);
        // Host resources are free at once, and other parts of the devices may wait for nothing but this.
        self.soft.dirty = true;
        self.tell(id, out);
    }

    /// Tells the session of a lease's holder how the lease is.
    pub(super) fn tell(&self, id: LeaseId, out: &mut Output) {
        let Some(lease) = self.state.lease(id) else { return };
        if let Some(caller) = self.soft.sessions.get(&lease.request.holder) {
            let lease = Box::new(self.lease_view_of(id));
            out.effects.push(Effect::Changed { caller: *caller, lease });
        }
    }

    /// A lock delay may be over. Time in which the node could not be reached does not count.
    pub(super) fn lock_delay_due(&mut self, device: DeviceId, lease: LeaseId, out: &mut Output) {
        let Some(closing) = self.soft.closing.get(&(device, lease)).copied() else { return };
        let Some(node) = self.state.inventory().device(device).map(|device| device.node) else {
            return;
        };
        let over = closing.since.after(self.policy.lock_delay);
        if !self.site().reachable(node) {
            self.restart_lock_delays(&[device]);
            // Even where there is no delay, a node that cannot be reached is looked at again only after a while.
            let again = self.now().after(self.policy.lock_delay.max(self.policy.heartbeat));
            self.soft.deadlines.set(again, Deadline::LockDelay(device, lease));
        } else if over > self.now() {
            self.soft.deadlines.set(over, Deadline::LockDelay(device, lease));
        } else {
            if let Some(closed) = self.closed_part(device, lease) {
                self.linger(device, closed);
            }
            self.open(device, lease, OpenCause::LockDelay, out);
        }
    }

    /// A node was silent and is heard of again: the lock delays on it count anew from here.
    pub(super) fn restart_lock_delays(&mut self, devices: &[DeviceId]) {
        let now = self.now();
        for device in devices {
            let all = (*device, LeaseId(0))..=(*device, LeaseId(u64::MAX));
            for (_, closing) in self.soft.closing.range_mut(all) {
                closing.since = now;
            }
        }
    }

    /// Opens what a lease left closed of a device, if it did; the last one ends a RECLAIMING lease.
    pub(super) fn open(
        &mut self,
        device: DeviceId,
        id: LeaseId,
        cause: OpenCause,
        out: &mut Output,
    ) {
        if self.soft.closing.remove(&(device, id)).is_none() {
            return;
        }
        self.soft.deadlines.clear(Deadline::LockDelay(device, id));
        self.soft.deadlines.clear(Deadline::Check(device, id));
        self.emit(Event::Opened { device, lease: id, cause }, out);
        // What is left there was covered by the closed part, and is foreign from here.
        self.explain_again(device);
        self.soft.dirty = true;
        self.end_if_open(id, out);
    }

    /// RECLAIMING → ENDED, once no device is closed any more.
    fn end_if_open(&mut self, id: LeaseId, out: &mut Output) {
        let Some(lease) = self.state.lease(id) else { return };
        let LeaseState::Reclaiming(reason) = lease.state else { return };
        if lease.devices.iter().any(|device| self.soft.closing.contains_key(&(*device, id))) {
            return;
        }
        self.emit(Event::Ended { lease: id, reason, detail: None }, out);
        self.forget_live(id);
        self.tell(id, out);
    }
}
