//! Backfill: who is let in on devices that are kept for an earlier request, and when it has to go (P10). What makes a
//! request sure to be gone in time is in `backfill`.
//!
//! Let in is only who fits until the time at which the earlier request is forecast to start, its host CPU and memory
//! included, and only where there is such a time. Guests go before that: they are asked so early that the earlier
//! request starts when it would without them, and at once when nobody else is in its way.

use std::collections::BTreeSet;

use super::{Scheduler, serve::Reach};
use crate::{
    backfill::{Brevity, Room},
    deadline::Deadline,
    id::{DeviceId, LeaseId},
    keeping::Choice,
    lease::Lease,
    order::{Class, Lane, OrderKey},
    placement::{Place, Site},
    preemption::Answers,
    request::{Preemptible, Request},
    state::Keep,
    time::Time,
};

impl Scheduler {
    /// Where a request that fits nowhere else goes as a guest.
    pub(super) fn backfill(&self, request: &Request, key: OrderKey) -> Option<Place> {
        if key.class() == Class::Owner {
            return None;
        }
        let (brevity, life) = (self.brevity(request)?, Brevity::by_lifetime(request));
        let lease = self.state.lease(key.lease);
        let shielded_until = lease.map_or(Time::ZERO, |lease| lease.shielded_until);
        let keeps = self.state.keeps().iter();
        let service = &request.holder.service;
        let mut earlier = keeps.filter(|(_, keep)| {
            keep.lease != key.lease && self.keeps_before(keep.lease, key, service)
        });
        earlier.find_map(|(lane, keep)| {
            let room = self.room_to_go(&keep.devices, shielded_until);
            let by = self.forecast_start(lane, keep)?;
            // While it is shielded nobody asks it.
            let brevity = if room.may_be_asked(by) { Some(brevity) } else { life };
            let fits = brevity.is_some_and(|brevity| brevity.fits(self.now(), by, room));
            fits.then(|| self.place_guest(request, key, keep)).flatten()
        })
    }

    /// How long a request would hold devices kept for others, if it is let in there at all.
    pub(super) fn brevity(&self, request: &Request) -> Option<Brevity> {
        self.policy.backfill.then(|| Brevity::of(request, self.policy.notice)).flatten()
    }

    /// When the request that devices are kept for starts at the soonest, by what those in its way said of themselves.
    /// Whoever has notice, or may be given it, may be gone at once: nobody is let in until its deadline.
    fn forecast_start(&self, lane: &Lane, keep: &Keep) -> Option<Time> {
        if self.awaited(&keep.devices) {
            return None;
        }
        let request = &self.state.lease(keep.lease)?.request;
        let own = self.own_use(keep.lease);
        let site = self.site_for(&own);
        let start =
            self.preemptor(&site, lane, keep.lease, request).start(&keep.devices, Answers::AtOnce);
        (start.at < Time::NEVER).then(|| start.at.min(keep.lapses_at))
    }

    fn room_to_go(&self, devices: &[DeviceId], shielded_until: Time) -> Room {
        let mut known = devices.iter().filter_map(|id| self.state.inventory().device(*id));
        let exact = known.all(|device| device.facts.answers_at_once);
        Room::of(&self.policy, exact, shielded_until)
    }

    /// On devices of one keep, and besides these on what is kept for nobody.
    fn place_guest(&self, request: &Request, key: OrderKey, keep: &Keep) -> Option<Place> {
        let own = self.own_use(key.lease);
        let site = self.site_for(&own);
        let place = self.place_within(&site, request, key, Reach::GuestOf(keep.lease))?;
        // Host CPU and memory alone are not lent: who takes them from elsewhere is no guest that could be found here.
        self.is_guest_at(&place.devices, key, request).then_some(place)
    }

    /// Whether any of these is kept for somebody who goes before.
    pub(super) fn is_guest_at(
        &self,
        devices: &[DeviceId],
        key: OrderKey,
        request: &Request,
    ) -> bool {
        let known = devices.iter().filter_map(|id| self.state.inventory().device(*id));
        let service = &request.holder.service;
        known.into_iter().any(|device| !self.may_take(device, key, service))
    }

    /// The devices that a request gets at once when its guests are gone, if it keeps others so far: it would get them
    /// without backfill, so they are kept for it now, and the guests have to go.
    pub(super) fn but_for_guests(&self, key: OrderKey, lane: &Lane) -> Option<Choice> {
        if self.soft.guests.is_empty() {
            return None;
        }
        let request = &self.state.lease(key.lease)?.request;
        let own = self.own_use(key.lease);
        let site = self.site_for(&own);
        let preemptor = self.preemptor(&site, lane, key.lease, request);
        let guests = self.soft.guests.iter().filter_map(|id| self.state.lease(*id));
        let mut opening = BTreeSet::new();
        for lease in guests.filter(|lease| preemptor.guest(lease)) {
            opening.extend(lease.devices.iter().map(|device| (*device, lease.id)));
        }
        if opening.is_empty() {
            return None;
        }
        let site = Site { opening: Some(&opening), ..site };
        let devices = self.place_on(&site, request, key, true)?.devices;
        let kept = self.state.keeps().get(lane).map(|keep| &keep.devices);
        let other = kept.is_none_or(|kept| *kept != devices);
        other.then(|| Choice { devices, stubborn: 0, forecast: Some(self.now()) })
    }

    /// Guests that have to go now for the request that devices are kept for; sets the time when they have to.
    pub(super) fn guests_due(
        &mut self,
        (lane, lease): (&Lane, LeaseId),
        kept: &[DeviceId],
    ) -> BTreeSet<LeaseId> {
        self.soft.deadlines.clear(Deadline::TakeBack(lease));
        if self.soft.guests.is_empty() {
            return BTreeSet::new();
        }
        let Some(request) = self.state.lease(lease).map(|lease| lease.request.clone()) else {
            return BTreeSet::new();
        };
        let own = self.own_use(lease);
        let site = self.site_for(&own);
        let start = self.preemptor(&site, lane, lease, &request).start(kept, Answers::AtOnce);
        if start.guests.is_empty() {
            return start.guests;
        }
        let lapses_at = self.state.keeps().get(lane).map_or(Time::NEVER, |keep| keep.lapses_at);
        let asked_at = self.room_to_go(kept, Time::ZERO).asked_at(start.at.min(lapses_at));
        if asked_at > self.now() {
            self.soft.deadlines.set(asked_at, Deadline::TakeBack(lease));
            return BTreeSet::new();
        }
        let may_be_asked = |id: &LeaseId| {
            self.state.lease(*id).is_some_and(|lease| {
                lease.request.preemptible != Preemptible::Never
                    && !self.within_minimum_hold(lease)
                    && lease.shielded_until <= self.now()
            })
        };
        start.guests.into_iter().filter(may_be_asked).collect()
    }

    /// A lease that was just granted, or holds devices after a restart, may be a guest.
    pub(super) fn book_guest(&mut self, id: LeaseId) {
        let guest = |lease: &Lease| lease.state.holds() && lease.backfilled_for.is_some();
        if self.state.lease(id).is_some_and(guest) {
            self.soft.guests.insert(id);
            // Whoever it makes room for sets the time when it has to go.
            self.soft.dirty = true;
        }
    }

    /// The longest that a guest may have a notice extended: the start of whoever it makes room for does not wait for it.
    pub(super) fn guest_until(&self, id: LeaseId) -> Time {
        let host = self.state.lease(id).and_then(|lease| self.state.host_of(lease));
        let keep = host.and_then(|host| self.state.keep_of(host));
        let until = keep.and_then(|(lane, keep)| {
            let room = self.room_to_go(&keep.devices, Time::ZERO);
            Some(room.gone_at(self.forecast_start(lane, keep)?))
        });
        until.unwrap_or(Time::NEVER)
    }
}
