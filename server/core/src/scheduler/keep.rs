//! Keeping devices for the first of each lane that does not fit, and giving notice for it (P10, P14).

use super::Scheduler;
use crate::{
    deadline::Deadline,
    event::Event,
    id::{DeviceId, LeaseId},
    keeping::{self, Choice},
    lease::DropCause,
    notice::Cause,
    order::{Class, Lane, OrderKey},
    output::Output,
    placement::Site,
    preemption::Preemptor,
    request::Request,
    state::Keep,
    time::{Span, Time},
};

impl Scheduler {
    /// A request that was just queued keeps devices if it is the first of its priority.
    pub(super) fn keep_if_first(&mut self, id: LeaseId, out: &mut Output) {
        let Some(waiter) = self.soft.queue.waiter(id).cloned() else { return };
        let owner = waiter.key.as_owner();
        for (key, lane) in [(owner, Lane::Owner), (waiter.key, waiter.lane())] {
            let blocked = self.soft.queue.bound().is_some_and(|bound| bound < key);
            if !blocked && self.soft.queue.first_of(lane) == Some(key) {
                self.keep_for(key, lane, out);
            }
        }
    }

    /// The first of a lane that does not fit keeps the set it has, or chooses one; whoever may be preempted there for
    /// it is given notice.
    pub(super) fn keep_for(&mut self, key: OrderKey, lane: Lane, out: &mut Output) {
        if let Some(keep) = self.state.keeps().get(&lane) {
            let other = keep.lease;
            if other == key.lease {
                return self.preempt(key, lane, out);
            }
            self.drop_keep(other, DropCause::NotFirst, Time::ZERO, out);
        }
        // Whoever keeps what its service owns keeps nothing else.
        match self.state.keep_of(key.lease) {
            Some(_) if lane != Lane::Owner => return,
            Some(_) => self.drop_keep(key.lease, DropCause::Better, Time::ZERO, out),
            None => {}
        }
        let Some(choice) = self.choose(key, lane) else { return };
        self.keep(key.lease, lane, choice, out);
        self.preempt(key, lane, out);
    }

    /// The devices that a request would keep.
    fn choose(&self, key: OrderKey, lane: Lane) -> Option<Choice> {
        let lease = self.state.lease(key.lease)?;
        let barred = |id| lease.keep_barred_until > self.now() && lease.keep_barred.contains(&id);
        let site = self.site();
        let service = (lane == Lane::Owner).then_some(&lease.request.holder.service);
        let preemptor = self.preemptor(&site, lane, &lease.request);
        keeping::choose(&site, &self.state, &preemptor, &|id, device| {
            let mine = service.is_none() || site.owner(id) == service;
            mine && !barred(id)
                && !device.closed.contains_key(&key.lease)
                && self.may_take(device, key)
        })
    }

    pub(super) fn preemptor<'a>(
        &'a self,
        site: &'a Site<'a>,
        lane: Lane,
        request: &'a Request,
    ) -> Preemptor<'a> {
        let (state, closing) = (&self.state, &self.soft.closing);
        Preemptor { request, lane, site, state, closing }
    }

    fn keep(&mut self, lease: LeaseId, lane: Lane, choice: Choice, out: &mut Output) {
        self.drop_keeps_on(&choice.devices, lease, out);
        let lapses_at = choice.lapses_at(self.now(), self.policy.keep_max);
        self.emit(Event::Kept { lease, lane, devices: choice.devices, lapses_at }, out);
        self.soft.deadlines.set(lapses_at, Deadline::Keep(lease));
    }

    /// Gives notice to whoever has to go, and may, on the devices kept for a request; takes back what is no longer
    /// needed. Nobody is hit while what is closing would serve before the deadline, nor where somebody stays anyway.
    fn preempt(&mut self, key: OrderKey, lane: Lane, out: &mut Output) {
        let Some(request) = self.state.lease(key.lease).map(|lease| lease.request.clone()) else {
            return;
        };
        if lane != Lane::Owner && Class::own(request.priority) == Class::Background {
            return;
        }
        let kept = self.state.keeps().get(&lane).map(|keep| keep.devices.clone());
        let Some(kept) = kept else { return };
        let site = self.site();
        let mut victims = self.preemptor(&site, lane, &request).victims(&kept);
        if victims.is_none()
            && let Some(better) = self.choose(key, lane).filter(|choice| choice.stubborn == 0)
            && better.devices != kept
        {
            self.drop_keep(key.lease, DropCause::Better, Time::ZERO, out);
            let devices = better.devices.clone();
            self.keep(key.lease, lane, better, out);
            let site = self.site();
            victims = self.preemptor(&site, lane, &request).victims(&devices);
        }
        let Some(victims) = victims else { return self.remind_of_bars(key, lane, out) };
        if self.served_by_closing(&request, key) {
            return;
        }
        let cause = Cause::Preemption(key.lease);
        let noticed = self.soft.noticed_for.get(&cause).cloned().unwrap_or_default();
        for id in noticed.difference(&victims) {
            self.drop_cause_on(*id, cause, out);
        }
        for id in &victims {
            self.give_notice(*id, cause, out);
        }
    }

    /// Somebody who may not be preempted is in the way: notices for it are withdrawn, and those who only may not yet
    /// are looked at again when they may.
    fn remind_of_bars(&mut self, key: OrderKey, lane: Lane, out: &mut Output) {
        self.drop_cause_of(key.lease, out);
        let kept = self.state.keeps().get(&lane).map(|keep| keep.devices.clone());
        let devices = kept.unwrap_or_default();
        let known = devices.iter().filter_map(|id| self.state.inventory().device(*id));
        let holders: Vec<LeaseId> =
            known.flat_map(|device| device.holding.keys().copied()).collect();
        for holder in holders {
            self.remind_of_minimum_hold(holder);
        }
    }

    /// What is closing, and opens before a notice would be over, serves the request.
    fn served_by_closing(&self, request: &Request, key: OrderKey) -> bool {
        let by = self.now().after(self.policy.notice);
        let in_time = |(device, lease): &&(DeviceId, LeaseId)| {
            self.opens_at(*device, *lease).is_some_and(|at| at <= by)
        };
        let opening: std::collections::BTreeSet<_> =
            self.soft.closing.keys().filter(in_time).copied().collect();
        if opening.is_empty() {
            return false;
        }
        let site = Site { opening: Some(&opening), ..self.site() };
        self.place_on(&site, request, key, true).is_some()
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
    pub(super) fn drop_blocked_keeps(&mut self, out: &mut Output) {
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
        let lapses_at = self.state.keep_of(lease).map(|(_, keep)| keep.lapses_at);
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
