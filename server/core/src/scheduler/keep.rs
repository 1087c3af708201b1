//! Keeping devices for the first of each lane that does not fit, and giving notice for it (P10, P14).

use std::collections::BTreeSet;

use super::Scheduler;
use crate::{
    affinity::Near,
    deadline::Deadline,
    event::Event,
    id::{DeviceId, LeaseId, Name},
    keeping::{self, Choice},
    lease::DropCause,
    notice::Cause,
    order::{Lane, OrderKey, Rank},
    output::Output,
    placement::Site,
    preemption::Preemptor,
    queue::Waiter,
    request::Request,
    state::Keep,
    time::{Span, Time},
};

/// The most requests that look for devices to keep in vain in one pass, for each look goes over all devices. Whoever is
/// behind that many keeps none, unless it does already.
pub(super) const CHOICES_MAX: usize = 64;
/// A look at all devices for a better set to keep takes some 3 µs each. The next one comes no sooner than so many are
/// looked at per millisecond: a fiftieth of the time, a second for 6,212 devices.
const LOOKED_AT_PER_MILLI: usize = 6;

impl Scheduler {
    /// A request that was just queued keeps devices if it is the first of its priority.
    pub(super) fn keep_if_first(&mut self, id: LeaseId, out: &mut Output) {
        let Some(waiter) = self.soft.queue.waiter(id) else { return };
        let mut stands = vec![(waiter.rank, waiter.lane().clone())];
        stands.extend(waiter.owner_lane().map(|lane| (waiter.rank.as_owner(), lane.clone())));
        stands.sort_unstable();
        stands.retain(|(rank, lane)| self.is_first(*rank, lane));
        for (rank, lane) in &stands {
            if let Some(key) = self.key_at(*rank) {
                self.keep_for(key, lane, out);
            }
        }
        for (rank, lane) in &stands {
            if let Some(key) = self.key_at(*rank) {
                self.preempt(key, lane, out);
            }
        }
    }

    /// Nobody stands before it in its lane whom no quota holds back, nor does it hold back this one; and nobody before it
    /// in the order may still come back (P4).
    fn is_first(&self, rank: Rank, lane: &Lane) -> bool {
        let Some(key) = self.key_at(rank) else { return false };
        let Some(lease) = self.state.lease(rank.lease) else { return false };
        let service = &lease.request.holder.service;
        let in_its_turn = |key: OrderKey| {
            let request = self.state.lease(key.lease).map(|lease| &lease.request);
            request.is_some_and(|request| self.held_back(request, key.rank()).is_none())
        };
        // Mostly somebody keeps devices there already, which spares the look at every service.
        if self.keeper(key, service, lane).is_some()
            || !in_its_turn(key)
            || self.soft.queue.awaits_before(key, service)
        {
            return false;
        }
        let mut looked_at = 0usize;
        let before = self.soft.queue.firsts_of(lane, self.shares()).any(|it| {
            if it >= key || !in_its_turn(it) {
                return false;
            }
            looked_at = looked_at.saturating_add(1);
            looked_at > CHOICES_MAX || self.has_its_lane(it, lane)
        });
        !before
    }

    /// Whether the first of its service keeps devices in a lane, or would.
    fn has_its_lane(&self, key: OrderKey, lane: &Lane) -> bool {
        let keeps = self.state.keeps().get(lane).is_some_and(|keep| keep.lease == key.lease);
        keeps || self.is_barred(key.lease) || self.choose(key, lane).is_some()
    }

    /// For whom devices stay kept in a lane although another is the first there now: their shares crossed, but not by
    /// enough.
    pub(super) fn keeper(&self, key: OrderKey, service: &Name, lane: &Lane) -> Option<OrderKey> {
        let lease = self.state.keeps().get(lane)?.lease;
        let waiter = self.soft.queue.waiter(lease)?;
        let rank = if lane.is_owner() { waiter.rank.as_owner() } else { waiter.rank };
        let stays = lease != key.lease
            && waiter.presence.there()
            && waiter.lane_at(rank) == Some(lane)
            && self.stays_before(lease, key, service);
        let request = &self.state.lease(lease)?.request;
        (stays && self.held_back(request, rank).is_none()).then(|| self.key_at(rank))?
    }

    /// The first of a lane that does not fit keeps the set it has, or chooses one. Answers whether the lane is its own: not
    /// where there is nothing for it to keep, unless because what it kept has just lapsed.
    pub(super) fn keep_for(&mut self, key: OrderKey, lane: &Lane, out: &mut Output) -> bool {
        let kept = self.state.keeps().get(lane).map(|keep| keep.lease);
        if kept == Some(key.lease) {
            self.keep_better(key, lane, out);
            return true;
        }
        let choice = self.choose(key, lane);
        if choice.is_none() && !self.is_barred(key.lease) {
            return false;
        }
        let elsewhere = self.state.keep_of(key.lease).is_some();
        if let Some(choice) = choice.as_ref().filter(|_| elsewhere)
            && !self.is_better_than_elsewhere(key, lane, choice)
        {
            return true;
        }
        if let Some(other) = kept {
            self.drop_keep(other, DropCause::NotFirst, Time::ZERO, out);
        }
        let Some(choice) = choice else { return true };
        self.drop_keep(key.lease, DropCause::Better, Time::ZERO, out);
        self.keep(key.lease, lane, choice, out);
        true
    }

    /// What it kept lapsed, and is not to be kept for it for a while.
    fn is_barred(&self, lease: LeaseId) -> bool {
        self.state.lease(lease).is_some_and(|lease| lease.keep_barred_until > self.now())
    }

    /// An owner keeps what it owns, or else what it may have by its priority; never both. It goes from one to the other
    /// where somebody may not be preempted, if on the other side nobody is such; away from what it owns only if it is the
    /// first of all by its priority too, else one before it would take the other set back, and so on without an end.
    fn is_better_than_elsewhere(&self, key: OrderKey, lane: &Lane, choice: &Choice) -> bool {
        let id = key.lease;
        let (Some(lease), Some((elsewhere, keep))) = (self.state.lease(id), self.state.keep_of(id))
        else {
            return false;
        };
        if elsewhere.is_owner() && self.soft.queue.first_by_priority(self.shares()) != Some(key) {
            return false;
        }
        let own = self.own_use(id);
        let site = self.site_for(&own);
        let served = |lane: &Lane, devices: &[DeviceId]| {
            let preemptor = self.preemptor(&site, lane, id, &lease.request);
            preemptor.may_preempt() && preemptor.victims(devices).is_some()
        };
        if self.awaited(&keep.devices) || (!lane.is_owner() && served(elsewhere, &keep.devices)) {
            return false;
        }
        // Going over for nothing would take devices from others, only to leave them at the next pass.
        choice.stubborn == 0 && served(lane, &choice.devices)
    }

    /// A set is kept, but somebody there may not be preempted: another set, where nobody is such, is better.
    fn keep_better(&mut self, key: OrderKey, lane: &Lane, out: &mut Output) {
        if let Some(choice) = self.but_for_guests(key, lane) {
            self.drop_keep(key.lease, DropCause::Better, Time::ZERO, out);
            return self.keep(key.lease, lane, choice, out);
        }
        let Some(lease) = self.state.lease(key.lease) else { return };
        let (request, kept) = (lease.request.clone(), self.kept_in(lane));
        let own = self.own_use(key.lease);
        let site = self.site_for(&own);
        let preemptor = self.preemptor(&site, lane, key.lease, &request);
        if !preemptor.may_preempt() || self.awaited(&kept) || preemptor.victims(&kept).is_some() {
            return;
        }
        if !self.may_look(key.lease) {
            return;
        }
        let better = self.choose(key, lane).filter(|choice| choice.stubborn == 0);
        if let Some(better) = better.filter(|choice| choice.devices != kept) {
            self.drop_keep(key.lease, DropCause::Better, Time::ZERO, out);
            self.keep(key.lease, lane, better, out);
        }
    }

    /// Whether a better set may be looked for now; else when it is time.
    fn may_look(&mut self, id: LeaseId) -> bool {
        let now = self.now();
        if let Some(at) = self.soft.looks.get(&id).copied().filter(|at| *at > now) {
            self.soft.deadlines.set(at, Deadline::Look(id));
            return false;
        }
        let millis = self.state.inventory().devices().len() / LOOKED_AT_PER_MILLI;
        let span = Span::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
        self.soft.looks.insert(id, now.after(span));
        true
    }

    fn kept_in(&self, lane: &Lane) -> Box<[DeviceId]> {
        self.state.keeps().get(lane).map(|keep| keep.devices.clone()).unwrap_or_default()
    }

    /// A device was not measured yet since the start: what is in the way there is not known.
    pub(super) fn awaited(&self, devices: &[DeviceId]) -> bool {
        let site = self.site();
        devices.iter().any(|id| site.awaits_first_sample(*id))
    }

    /// The devices that a request would keep.
    fn choose(&self, key: OrderKey, lane: &Lane) -> Option<Choice> {
        let lease = self.state.lease(key.lease)?;
        let barred = |id| lease.keep_barred_until > self.now() && lease.keep_barred.contains(&id);
        let own = self.own_use(key.lease);
        let site = self.site_for(&own);
        let service = lane.is_owner().then_some(&lease.request.holder.service);
        let preemptor = self.preemptor(&site, lane, key.lease, &lease.request);
        let near = Near::of(&self.state, &lease.request);
        let limits = self.limits(&lease.request, key.rank());
        keeping::choose(&preemptor, &|id, device| {
            let mine = service.is_none() || site.owner(id) == service;
            mine && near.allows(id, device)
                && !barred(id)
                && !device.closed.contains_key(&key.lease)
                && self.may_keep(device, key, &lease.request.holder.service)
                && limits.is_none_or(|limits| limits.allow(device, lease.request.ask.share))
        })
    }

    pub(super) fn preemptor<'a>(
        &'a self,
        site: &'a Site<'a>,
        lane: &Lane,
        lease: LeaseId,
        request: &'a Request,
    ) -> Preemptor<'a> {
        let (state, closing, queue) = (&self.state, &self.soft.closing, &self.soft.queue);
        let (as_owner, shares) = (lane.is_owner(), self.shares());
        let rank = |it: &Waiter| if as_owner { it.rank.as_owner() } else { it.rank };
        let key = queue.waiter(lease).map(|it| rank(it).at(shares.of(&it.service)));
        Preemptor { request, as_owner, site, state, closing, queue, shares, lease, key }
    }

    fn keep(&mut self, lease: LeaseId, lane: &Lane, choice: Choice, out: &mut Output) {
        self.drop_keeps_on(&choice.devices, lease, out);
        let lapses_at = choice.lapses_at(self.now(), self.policy.keep_max);
        let (lane, devices) = (lane.clone(), choice.devices);
        self.emit(Event::Kept { lease, lane, devices, lapses_at }, out);
        self.soft.deadlines.set(lapses_at, Deadline::Keep(lease));
    }

    /// Gives notice to whoever has to go, and may, on the devices kept for a request; takes back what is no longer
    /// needed. Nobody is hit while what is closing would serve before the deadline, nor where somebody stays anyway.
    pub(super) fn preempt(&mut self, key: OrderKey, lane: &Lane, out: &mut Output) {
        let keep = self.state.keeps().get(lane).filter(|keep| keep.lease == key.lease);
        let Some(kept) = keep.map(|keep| keep.devices.clone()) else { return };
        let Some(request) = self.state.lease(key.lease).map(|lease| lease.request.clone()) else {
            return;
        };
        if self.awaited(&kept) {
            return;
        }
        let own = self.own_use(key.lease);
        let site = self.site_for(&own);
        let preemptor = self.preemptor(&site, lane, key.lease, &request);
        // Those who only may not yet be hit have a deadline of their own for that.
        let victims = if preemptor.may_preempt() { preemptor.victims(&kept) } else { None };
        let mut going = victims.map(|victims| victims.leases).unwrap_or_default();
        going.extend(self.guests_due((lane, key.lease), &kept));
        let cause = Cause::Preemption(key.lease);
        for id in self.noticed_for(cause).difference(&going) {
            self.drop_cause_on(*id, cause, out);
        }
        if self.served_by_closing(&request, key) {
            return;
        }
        for id in &going {
            let before = out.weight;
            self.give_notice(*id, cause, out);
            // Only behind a new notice, so that every portion comes nearer to the end.
            if out.weight > before && self.full(out) {
                self.soft.rest.serve = true;
                return;
            }
        }
    }

    /// What is closing, and opens before a notice would be over, serves the request.
    fn served_by_closing(&self, request: &Request, key: OrderKey) -> bool {
        let by = self.now().after(self.policy.notice);
        let in_time = |(device, lease): &&(DeviceId, LeaseId)| {
            self.opens_at(*device, *lease).is_some_and(|at| at <= by)
        };
        let opening: BTreeSet<_> = self.soft.closing.keys().filter(in_time).copied().collect();
        if opening.is_empty() {
            return false;
        }
        let own_use = self.own_use(key.lease);
        let site = Site { opening: Some(&opening), ..self.site_for(&own_use) };
        let own = self.soft.queue.waiter(key.lease).and_then(|waiter| self.key_at(waiter.rank));
        let mut places = [Some(key), own].into_iter().flatten();
        places.any(|key| self.place_on(&site, request, key, true).is_some())
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
        let Some((_, keep)) = self.state.keep_of(lease) else { return };
        let lapsed = cause == DropCause::Lapsed;
        let barred = if lapsed { self.in_vain(keep) } else { Box::default() };
        self.emit(Event::KeepDropped { lease, cause, barred_until, barred }, out);
        self.soft.deadlines.clear(Deadline::TakeBack(lease));
        self.soft.deadlines.clear(Deadline::Look(lease));
        self.soft.looks.remove(&lease);
        self.drop_cause_of(lease, out);
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
        let own = self.own_use(keep.lease);
        let site = self.site_for(&own);
        let share = self.state.lease(keep.lease).map(|lease| lease.request.ask.share);
        let fits = |id: DeviceId| {
            let room = site.inventory.device(id).and_then(|device| site.room(id, device));
            room.zip(share).is_some_and(|(room, share)| room.fits(share))
        };
        let blocked: Box<[DeviceId]> =
            keep.devices.iter().copied().filter(|id| !fits(*id)).collect();
        if blocked.is_empty() { keep.devices.clone() } else { blocked }
    }

    /// Keeps stand only while leases alone are in the way; those of an owner, while it owns the devices; those of a service
    /// with a quota, while that leaves the devices to it.
    pub(super) fn drop_blocked_keeps(&mut self, out: &mut Output) {
        let keeps = self.state.keeps().iter();
        let dropped: Vec<(LeaseId, DropCause)> = keeps
            .filter_map(|(lane, keep)| Some((keep.lease, self.blocked(lane, keep)?)))
            .collect();
        for (lease, cause) in dropped {
            self.drop_keep(lease, cause, Time::ZERO, out);
        }
    }

    /// Why devices are no longer to be kept; `None`: they are.
    fn blocked(&self, lane: &Lane, keep: &Keep) -> Option<DropCause> {
        let blocked = Some(DropCause::Blocked);
        let Some(lease) = self.state.lease(keep.lease) else { return blocked };
        let own = self.own_use(keep.lease);
        let site = self.site_for(&own);
        let waiter = self.soft.queue.waiter(keep.lease);
        let stands = waiter.is_some_and(|waiter| waiter.owner_lane() == Some(lane));
        let near = Near::of(&self.state, &lease.request);
        let stays = |id: DeviceId| {
            let service = &lease.request.holder.service;
            let mine = !lane.is_owner() || site.owner(id) == Some(service);
            let device = site.inventory.device(id);
            let mine = mine && device.is_some_and(|device| near.allows(id, device));
            mine && (site.awaits_first_sample(id)
                || keeping::only_leases_in_the_way(&site, &lease.request, id))
        };
        if (!stands && lane.is_owner()) || !keep.devices.iter().all(|id| stays(*id)) {
            return blocked;
        }
        let rank = waiter.map(|it| if lane.is_owner() { it.rank.as_owner() } else { it.rank })?;
        let limits = self.limits(&lease.request, rank)?;
        let mut kept = keep.devices.iter().filter_map(|id| site.inventory.device(*id));
        let allowed = kept.all(|device| limits.allow(device, lease.request.ask.share));
        (!allowed).then_some(DropCause::Quota)
    }

    /// A keep may lapse, for as long as it may have stood; not while notices for it stand, or what is closed there is
    /// about to open. Or a bar to keeping ends.
    pub(super) fn keep_due(&mut self, lease: LeaseId, out: &mut Output) {
        let (now, keep_max): (Time, Span) = (self.now(), self.policy.keep_max);
        let Some((_, keep)) = self.state.keep_of(lease) else {
            self.soft.dirty = true;
            return;
        };
        let notices = self.soft.noticed_for.get(&Cause::Preemption(lease)).into_iter().flatten();
        let notices = notices.filter_map(|(noticed, _)| self.soft.notices.get(noticed).copied());
        let closed = keep.devices.iter().flat_map(|device| {
            let parts = self.state.inventory().device(*device).map(|it| it.closed.keys());
            parts.into_iter().flatten().filter_map(|part| self.opens_at(*device, *part))
        });
        let ends = notices.chain(closed).max().unwrap_or(Time::ZERO);
        let lapses_at = keep.lapses_at.max(ends);
        if lapses_at > now {
            self.soft.deadlines.set(lapses_at, Deadline::Keep(lease));
        } else {
            self.drop_keep(lease, DropCause::Lapsed, now.after(keep_max), out);
        }
    }
}
