//! What grants and ends do to the use of a service (P10), and until when that is remembered.
//!
//! A service of which nothing is left but its use stays known until that is as good as none, or until a new service
//! needs the room: then the one with the least use goes first.

use super::{SERVICES_MAX, Service, State, apply::Fit};
use crate::{
    event::At,
    fairness::entry_charge,
    id::{LeaseId, Name},
    time::{Span, Time},
};

impl State {
    /// The service of a new request; it has something to remember again.
    pub(super) fn service_asking(&mut self, name: &Name) -> &mut Service {
        if !self.services.contains_key(name)
            && self.services.len() >= SERVICES_MAX
            && let Some((_, least)) = self.idle.pop_first()
        {
            self.services.remove(&least);
        }
        let service = self.services.entry(name.clone()).or_default();
        if let Some(until) = service.forgotten_at.take() {
            self.idle.remove(&(until, name.clone()));
        }
        service
    }

    /// A lease holds devices from now on: it counts what it takes of them.
    pub(super) fn book_use(&mut self, at: At, id: LeaseId) -> Fit {
        let lease = self.lease_mut(id)?;
        let (devices, share) = (lease.devices.clone(), lease.request.ask.share);
        let mut bytes = 0u64;
        for device in &devices {
            bytes = bytes.saturating_add(self.device(*device)?.facts.counted_bytes(share));
        }
        self.lease_mut(id)?.counted_bytes = bytes;
        let moment = (at.time, self.half_life());
        if let Some(service) = self.service_of(id) {
            service.usage.take(moment, bytes, entry_charge(bytes));
            service.held.leases = service.held.leases.saturating_add(1);
            service.held.devices = service.held.devices.saturating_add(devices.len() as u64);
        }
        Ok(())
    }

    /// It holds them no longer: its entry charge is taken off, for what it used is measured.
    pub(super) fn settle_use(&mut self, at: At, id: LeaseId) -> Fit {
        let lease = self.lease_mut(id)?;
        let (bytes, devices) = (std::mem::take(&mut lease.counted_bytes), lease.devices.len());
        let entry = entry_charge(bytes);
        let moment = (at.time, self.half_life());
        if let Some(service) = self.service_of(id) {
            service.usage.give_back(moment, bytes, entry);
            service.held.leases = service.held.leases.saturating_sub(1);
            service.held.devices = service.held.devices.saturating_sub(devices as u64);
        }
        Ok(())
    }

    /// Use halves in another time from now on.
    pub(super) fn half_life_changed(&mut self, at: At, half_life: Span) -> Fit {
        let before = self.half_life();
        self.services.values_mut().for_each(|service| service.usage.settle(at.time, before));
        self.half_life = Some(half_life);
        for (_, name) in std::mem::take(&mut self.idle) {
            self.leave_use(&name, at.time);
        }
        Ok(())
    }

    /// Nothing is left of a service but its use.
    pub(super) fn leave_use(&mut self, name: &Name, now: Time) {
        let half_life = self.half_life();
        let Some(service) = self.services.get_mut(name) else { return };
        let until = service.usage.forgotten_at(now, half_life);
        if until <= now {
            self.services.remove(name);
        } else {
            service.forgotten_at = Some(until);
            self.idle.insert((until, name.clone()));
        }
    }

    /// Forgets use that is as good as none.
    pub(super) fn forget_use(&mut self, now: Time) {
        while let Some((until, _)) = self.idle.first()
            && *until <= now
            && let Some((_, name)) = self.idle.pop_first()
        {
            self.services.remove(&name);
        }
    }
}
