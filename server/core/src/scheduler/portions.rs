//! Work in portions: what would make a batch too large goes on in the next one.
//!
//! A node with a million leases may be lost, a million waiters may fit at once, a drain may hit as many. A batch is one
//! write and one message to every watcher, and nobody is heard while it is stepped. So such work stops once the batch is
//! full (`Policy::batch_events_max`) and goes on at the beginning of the next step, before its input, for which
//! `next_deadline` is now. Until it is done nothing new is granted past it.
//! What is left is soft. After a crash, leases that a lost device still holds and those on what is drained are found in
//! the state; what was to open opens by its lock delay, leases from before a reboot end by their TTL, and the order is
//! gone through anyway. No answer says that something was done which is left.

use std::{collections::VecDeque, sync::Arc};

use super::Scheduler;
use crate::{
    event::Event,
    id::{DeviceId, LeaseId, NodeId, Token},
    lease::{EndReason, Lease, OpenCause, State as LeaseState},
    notice::{Cause, Target},
    output::Output,
    request::Preemptible,
    soft::LosingDevices,
};

/// So many devices in an event count as one event more: as many bytes.
const DEVICES_PER_EVENT: usize = 16;

impl Scheduler {
    /// Something was left undone by a full batch: the next step goes on with it.
    #[must_use]
    pub fn has_rest(&self) -> bool {
        !self.soft.rest.is_empty()
    }

    /// The batch takes no more work that can wait for the next one.
    pub(super) fn full(&self, out: &Output) -> bool {
        out.weight >= self.policy.batch_events_max
    }

    /// Goes on with what the batch before left. Whatever does not fit into this one is left again. Every step begins with
    /// it; a shell that has no input to step does it by itself.
    pub fn go_on(&mut self, out: &mut Output) {
        if self.soft.rest.is_empty() || self.full(out) {
            return;
        }
        let rest = std::mem::take(&mut self.soft.rest);
        rest.lost.into_iter().for_each(|losing| self.end_lost(losing, out));
        for (device, cause, leases) in rest.opening {
            self.open_parts(device, leases, cause, out);
        }
        rest.withdrawn.into_iter().for_each(|cause| self.drop_cause(cause, out));
        for (target, leases) in rest.drained {
            self.drain_leases(target, leases, out);
        }
        self.end_waiters(rest.impossible, out);
        self.soft.dirty |= rest.serve;
        if self.soft.dirty {
            self.serve(out);
        }
    }

    /// Ends leases that lose a device, or pauses those that may be paused (P12).
    pub(super) fn end_lost(&mut self, mut losing: LosingDevices, out: &mut Output) {
        while let Some((id, token)) = losing.leases.pop_front() {
            if self.full(out) {
                losing.leases.push_front((id, token));
                return self.soft.rest.lost.push_back(losing);
            }
            let holds = |lease: &Lease| lease.state.holds() && lease.token == token;
            let Some(lease) = self.state.lease(id).filter(|lease| holds(lease)) else { continue };
            let (pauses, devices) = (lease.pauses(), lease.devices.clone());
            let detail = Some(Arc::clone(&losing.detail));
            if pauses {
                self.pause(id, detail, out);
            } else {
                self.reclaim(id, EndReason::DeviceLost, detail, out);
            }
            let Some(node) = losing.rebooted else { continue };
            for device in devices {
                if self.node_of(device) == Some(node) {
                    self.open(device, id, OpenCause::Reboot, out);
                }
            }
        }
    }

    /// The leases that hold one of these devices, which they lose; where its node was rebooted, their parts are open.
    pub(super) fn losing(
        &self,
        devices: &[DeviceId],
        detail: &str,
        rebooted: Option<NodeId>,
    ) -> LosingDevices {
        let known = devices.iter().filter_map(|id| self.state.inventory().device(*id));
        let mut ids: Vec<LeaseId> = known.flat_map(|it| it.holding.keys().copied()).collect();
        ids.sort_unstable();
        ids.dedup();
        let token = |id: LeaseId| self.state.lease(id).map_or(Token(0), |lease| lease.token);
        let leases = ids.into_iter().map(|id| (id, token(id))).collect();
        LosingDevices { leases, detail: detail.into(), rebooted }
    }

    /// Opens what these leases left closed of a device.
    pub(super) fn open_parts(
        &mut self,
        device: DeviceId,
        mut leases: VecDeque<LeaseId>,
        cause: OpenCause,
        out: &mut Output,
    ) {
        while let Some(lease) = leases.pop_front() {
            if self.full(out) {
                leases.push_front(lease);
                return self.soft.rest.opening.push_back((device, cause, leases));
            }
            self.open(device, lease, cause, out);
        }
    }

    /// Opens all that is closed of a device.
    pub(super) fn open_all_parts(&mut self, id: DeviceId, cause: OpenCause, out: &mut Output) {
        let device = self.state.inventory().device(id);
        let closed = device.map(|device| device.closed.keys().copied().collect());
        self.open_parts(id, closed.unwrap_or_default(), cause, out);
    }

    /// Notices of a drain that were left, unless it was taken back meanwhile.
    fn drain_leases(&mut self, target: Target, mut leases: VecDeque<LeaseId>, out: &mut Output) {
        while let Some(id) = leases.pop_front() {
            if self.full(out) {
                leases.push_front(id);
                return self.soft.rest.drained.push_back((target, leases));
            }
            self.drain_still(id, target, out);
        }
    }

    /// After a restart: leases that a lost device, or a lost node, still holds.
    pub(super) fn rearm_lost(&mut self) {
        let inventory = self.state.inventory();
        let lost = |id: DeviceId| {
            let device = inventory.device(id)?;
            let node_lost = inventory.node(device.node).is_none_or(|node| node.lost);
            let detail = device.lost.as_ref().map(ToString::to_string);
            let detail = detail.or_else(|| node_lost.then(|| "its node is lost".to_owned()))?;
            (!device.holding.is_empty()).then(|| self.losing(&[id], &detail, None))
        };
        let lost: VecDeque<_> = inventory.devices().filter_map(|(id, _)| lost(id)).collect();
        self.soft.rest.lost = lost;
    }

    /// After a restart: leases on what is drained that have no notice of it.
    pub(super) fn rearm_drained(&mut self) {
        let mut drained: VecDeque<(Target, VecDeque<LeaseId>)> = VecDeque::new();
        for lease in self.state.leases().values().filter(|lease| lease.state.holds()) {
            for target in self.drains_over(&lease.devices) {
                let told = |cause: &Cause| *cause == Cause::Drain(target);
                let standing = lease.notice.iter().filter(|_| lease.state == LeaseState::Pausing);
                if lease.request.preemptible != Preemptible::Never
                    && !standing.flat_map(|notice| &notice.causes).any(told)
                {
                    drained.push_back((target, VecDeque::from([lease.id])));
                }
            }
        }
        self.soft.rest.drained = drained;
    }

    fn node_of(&self, device: DeviceId) -> Option<NodeId> {
        self.state.inventory().device(device).map(|device| device.node)
    }
}

/// How much of a batch an event takes up, in events of usual size.
pub(super) fn weight(event: &Event) -> usize {
    let devices = match event {
        Event::Granted { devices, .. } | Event::Kept { devices, .. } => devices.len(),
        Event::KeepDropped { barred, .. } => barred.len(),
        _ => 0,
    };
    (devices / DEVICES_PER_EVENT).saturating_add(1)
}
