//! Serving the queue: grants in order, and devices kept for those whose turn it is but who do not fit (P10).

use super::{Scheduler, reply};
use crate::{
    deadline::Deadline,
    event::Event,
    id::{DeviceId, LeaseId},
    inventory::Device,
    keeping,
    lease::DropCause,
    output::{Answer, Output},
    placement::HostKept,
    queue::{OrderKey, Presence},
    request::{Priority, Request},
    state::Keep,
    time::{Span, Time},
};

impl Scheduler {
    /// Goes through the order once: what fits is granted; the first of each priority that does not keeps devices.
    ///
    /// What is free only shrinks on the way, so that of waiters who ask for the same only the first has to be tried.
    pub(super) fn serve(&mut self, out: &mut Output) {
        self.soft.dirty = false;
        if self.soft.queue.is_empty() {
            return;
        }
        self.drop_blocked_keeps(out);
        let bound = self.soft.queue.bound();
        let mut heads = self.soft.queue.shape_heads();
        let mut first_seen: Vec<Priority> = Vec::new();
        while let Some((key, shape)) = heads.pop_first() {
            if bound.is_some_and(|bound| bound < key) {
                break;
            }
            if self.try_grant(key, out) {
                heads.extend(self.soft.queue.first_of_shape(shape).map(|next| (next, shape)));
                continue;
            }
            let priority = self.state.lease(key.lease).map(|lease| lease.request.priority);
            if let Some(priority) = priority.filter(|priority| !first_seen.contains(priority)) {
                first_seen.push(priority);
                self.keep_for(key, priority, out);
            }
        }
        // Grants and keeps of this pass were all seen by it.
        self.soft.dirty = false;
    }

    /// Grants a waiter if it fits.
    fn try_grant(&mut self, key: OrderKey, out: &mut Output) -> bool {
        let Some(request) = self.state.lease(key.lease).map(|lease| lease.request.clone()) else {
            return false;
        };
        let Some(devices) = self.place_for(&request, key, true) else { return false };
        self.drop_keeps_on(&devices, key.lease, out);
        let presence = self.unqueue(key.lease);
        self.grant(key.lease, devices, out);
        if let Some(Presence::Present { ticket, .. }) = presence {
            let view = self.lease_view_of(key.lease);
            reply(out, ticket, Ok(Answer::Lease(Box::new(view))));
        }
        true
    }

    /// Where a request at this place in the order goes now: on devices kept for nobody else, else on those kept for
    /// somebody later, if it may take them over. Nothing, while somebody earlier may still come back (P4).
    pub(super) fn place_for(
        &self,
        request: &Request,
        key: OrderKey,
        take_over: bool,
    ) -> Option<Box<[DeviceId]>> {
        if self.soft.queue.bound().is_some_and(|bound| bound < key) {
            return None;
        }
        let host_kept = self.host_kept(key);
        let own = |device: &Device| device.kept_for.is_none_or(|lease| lease == key.lease);
        let site = self.site();
        let place = site.place(request, &host_kept, &own);
        if place.is_some() || !take_over || self.state.keeps().is_empty() {
            return place;
        }
        site.place(request, &host_kept, &|device| self.may_take(device, key))
    }

    /// A device is kept for nobody, for this request, or for a later one.
    fn may_take(&self, device: &Device, key: OrderKey) -> bool {
        let Some(lease) = device.kept_for.filter(|lease| *lease != key.lease) else { return true };
        self.soft.queue.waiter(lease).is_none_or(|other| key < other.key)
    }

    /// Host CPU and memory that requests before this one count on, where devices are kept for them.
    fn host_kept(&self, key: OrderKey) -> HostKept {
        let mut kept = HostKept::new();
        for keep in self.state.keeps().values().filter(|keep| keep.lease != key.lease) {
            let Some(lease) = self.state.lease(keep.lease) else { continue };
            let constraints = &lease.request.constraints;
            let (cpu, memory) = (constraints.host_cpu_millis, constraints.host_memory_bytes);
            let earlier = self.soft.queue.waiter(keep.lease).is_some_and(|other| other.key < key);
            if (cpu == 0 && memory == 0) || !earlier {
                continue;
            }
            for node in keeping::nodes_of(self.state.inventory(), &keep.devices) {
                let entry = kept.entry(node).or_default();
                *entry = (entry.0.saturating_add(cpu), entry.1.saturating_add(memory));
            }
        }
        kept
    }

    /// A request that was just queued keeps devices if it is the first of its priority.
    pub(super) fn keep_if_first(&mut self, id: LeaseId, out: &mut Output) {
        let Some(waiter) = self.soft.queue.waiter(id).cloned() else { return };
        let blocked = self.soft.queue.bound().is_some_and(|bound| bound < waiter.key);
        if !blocked && self.soft.queue.first_of(waiter.priority) == Some(waiter.key) {
            self.keep_for(waiter.key, waiter.priority, out);
        }
    }

    /// The first of a priority that does not fit keeps the set it has, or chooses one.
    fn keep_for(&mut self, key: OrderKey, priority: Priority, out: &mut Output) {
        if let Some(keep) = self.state.keeps().get(&priority) {
            let other = keep.lease;
            if other == key.lease {
                return;
            }
            self.drop_keep(other, DropCause::NotFirst, Time::ZERO, out);
        }
        let Some(lease) = self.state.lease(key.lease) else { return };
        let barred = |id| lease.keep_barred_until > self.now() && lease.keep_barred.contains(&id);
        let request = lease.request.clone();
        let choice = keeping::choose(&self.site(), &self.state, &request, &|id, device| {
            !barred(id) && self.may_take(device, key)
        });
        let Some(choice) = choice else { return };
        self.drop_keeps_on(&choice.devices, key.lease, out);
        let lapses_at = choice.lapses_at(self.now(), self.policy.keep_max);
        self.emit(Event::Kept { lease: key.lease, devices: choice.devices, lapses_at }, out);
        self.soft.deadlines.set(lapses_at, Deadline::Keep(key.lease));
    }

    /// Whoever takes one device that is kept for another takes the whole set over.
    pub(super) fn drop_keeps_on(&mut self, devices: &[DeviceId], taker: LeaseId, out: &mut Output) {
        let kept_for =
            |id: &DeviceId| self.state.inventory().device(*id).and_then(|device| device.kept_for);
        let mut losers: Vec<LeaseId> =
            devices.iter().filter_map(kept_for).filter(|lease| *lease != taker).collect();
        losers.sort_unstable();
        losers.dedup();
        for loser in losers {
            self.drop_keep(loser, DropCause::TakenOver, Time::ZERO, out);
        }
    }

    /// Devices are no longer kept for a request. Others may fit there now.
    pub(super) fn drop_keep(
        &mut self,
        lease: LeaseId,
        cause: DropCause,
        barred_until: Time,
        out: &mut Output,
    ) {
        let Some(keep) = self.state.keeps().values().find(|keep| keep.lease == lease) else {
            return;
        };
        let lapsed = cause == DropCause::Lapsed;
        let barred = if lapsed { self.in_vain(keep) } else { Box::default() };
        self.emit(Event::KeepDropped { lease, cause, barred_until, barred }, out);
        let bar_ends = self.state.lease(lease).map_or(Time::ZERO, |lease| lease.keep_barred_until);
        if bar_ends > self.now() {
            self.soft.deadlines.set(bar_ends, Deadline::Keep(lease));
        } else {
            self.soft.deadlines.clear(Deadline::Keep(lease));
        }
        self.soft.dirty = true;
    }

    /// The devices of a keep that its request still does not fit on; all of them, where it is not for the devices.
    fn in_vain(&self, keep: &Keep) -> Box<[DeviceId]> {
        let site = self.site();
        let share = self.state.lease(keep.lease).map(|lease| lease.request.ask.share);
        let fits = |id: DeviceId| {
            let room = site.inventory.device(id).and_then(|device| site.room(id, device));
            room.zip(share).is_some_and(|(room, share)| room.fits(share))
        };
        let blocked: Box<[DeviceId]> =
            keep.devices.iter().copied().filter(|id| !fits(*id)).collect();
        if blocked.is_empty() { keep.devices.clone() } else { blocked }
    }

    /// Keeps stand only while leases alone are in the way.
    fn drop_blocked_keeps(&mut self, out: &mut Output) {
        let site = self.site();
        let blocked = |lease: LeaseId, devices: &[DeviceId]| {
            let Some(lease) = self.state.lease(lease) else { return true };
            devices.iter().any(|id| !keeping::only_leases_in_the_way(&site, &lease.request, *id))
        };
        let dropped: Vec<LeaseId> = (self.state.keeps().values())
            .filter(|keep| blocked(keep.lease, &keep.devices))
            .map(|keep| keep.lease)
            .collect();
        for lease in dropped {
            self.drop_keep(lease, DropCause::Blocked, Time::ZERO, out);
        }
    }

    /// A keep may lapse, for as long as it may have stood; or a bar to keeping ends.
    pub(super) fn keep_due(&mut self, lease: LeaseId, out: &mut Output) {
        let now = self.now();
        let keep_max: Span = self.policy.keep_max;
        let lapses_at =
            self.state.keeps().values().find(|keep| keep.lease == lease).map(|keep| keep.lapses_at);
        match lapses_at {
            Some(at) if at > now => self.soft.deadlines.set(at, Deadline::Keep(lease)),
            Some(_) => {
                let until = now.after(keep_max);
                self.drop_keep(lease, DropCause::Lapsed, until, out);
            }
            None => self.soft.dirty = true,
        }
    }
}
