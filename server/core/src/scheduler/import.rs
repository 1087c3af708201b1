//! Devices that an import closed, until their time, a reboot or an operator opens them (P2).

use std::sync::Arc;

use super::Scheduler;
use crate::{
    deadline::Deadline,
    event::Event,
    id::{DeviceId, LeaseId, Name, NodeId},
    lease::OpenCause,
    output::{Answer, Output, Rejection},
    request::Request,
    time::{Span, Time},
    view::DeviceCondition,
};

impl Scheduler {
    /// After a restart: what was left of the time at the last batch is left again.
    pub(super) fn rearm_import(&mut self) {
        let devices = self.state.inventory().devices();
        let closed: Vec<DeviceId> = (devices.filter(|(_, device)| device.closed_until.is_some()))
            .map(|(id, _)| id)
            .collect();
        for device in closed {
            self.close_imported(device);
        }
    }

    /// Sets the reminder of a device that an import closed, if one did.
    pub(super) fn close_imported(&mut self, device: DeviceId) {
        if let Some(until) = self.closed_until(device) {
            self.soft.deadlines.set(until, Deadline::DeviceClosed(device));
        }
    }

    /// A device may have been closed for long enough.
    pub(super) fn device_closed_due(&mut self, device: DeviceId, out: &mut Output) {
        let Some(until) = self.closed_until(device) else { return };
        if until > self.now() {
            self.soft.deadlines.set(until, Deadline::DeviceClosed(device));
        } else {
            self.open_imported(device, OpenCause::LockDelay, None, out);
        }
    }

    /// A node was seen before and has a new boot id now: whatever leases ran there, no process of theirs lives.
    pub(super) fn open_rebooted(&mut self, node: NodeId, out: &mut Output) {
        for device in self.devices_of(node) {
            self.open_imported(device, OpenCause::Reboot, None, out);
        }
    }

    /// An operator says that nothing of former leases runs on a device: what they closed of it is open.
    pub(super) fn open_device(
        &mut self,
        uuid: &Name,
        detail: &Arc<str>,
        out: &mut Output,
    ) -> Result<Answer, Rejection> {
        let inventory = self.state.inventory();
        let found = inventory.device_with(uuid.as_str());
        let Some((id, device)) = found.and_then(|id| Some((id, inventory.device(id)?))) else {
            return Err(Rejection::DeviceNotFound { uuid: uuid.clone() });
        };
        let mut leases: Vec<LeaseId> = device.closed.keys().copied().collect();
        let detail = (!detail.is_empty()).then(|| Arc::clone(detail));
        self.open_imported(id, OpenCause::Operator, detail, out);
        self.open_parts(id, leases.iter().copied().collect(), OpenCause::Operator, out);
        // More than one batch takes are opened in the next ones, and not claimed to be open yet.
        leases.retain(|lease| self.closed_part(id, *lease).is_none());
        Ok(Answer::DeviceOpened { leases })
    }

    /// That devices which would do for a request are closed by an import, if any are.
    pub(super) fn closed_for(&self, request: &Request) -> Option<Rejection> {
        let site = self.site();
        let remaining: Vec<Span> = (self.state.inventory().devices())
            .filter(|(id, device)| {
                site.condition(*id, device) == DeviceCondition::Closed
                    && site.exclusion(device, request).is_none()
            })
            .filter_map(|(_, device)| Some(device.closed_until?.since(self.now())))
            .collect();
        let longest = remaining.iter().copied().max()?;
        Some(Rejection::DevicesClosed { devices: remaining.len(), remaining: longest })
    }

    fn closed_until(&self, device: DeviceId) -> Option<Time> {
        self.state.inventory().device(device)?.closed_until
    }

    fn open_imported(
        &mut self,
        device: DeviceId,
        cause: OpenCause,
        detail: Option<Arc<str>>,
        out: &mut Output,
    ) {
        if self.closed_until(device).is_none() {
            return;
        }
        self.soft.deadlines.clear(Deadline::DeviceClosed(device));
        self.emit(Event::DeviceOpened { device, cause, detail }, out);
        self.soft.dirty = true;
    }
}
