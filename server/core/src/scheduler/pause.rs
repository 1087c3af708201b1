//! Pausing: a lease gives its devices back, waits in the queue like a request, and is granted again (P15).

use std::sync::Arc;

use super::Scheduler;
use crate::{
    attribution,
    deadline::Deadline,
    event::Event,
    id::{DeviceId, Holder, LeaseId},
    lease::{DropCause, Lease, State as LeaseState},
    order::{Rank, Standing},
    output::Output,
    placement::OwnUse,
    queue::{NewWaiter, Presence},
    time::Time,
};

impl Scheduler {
    /// ACTIVE, PAUSING → PAUSED, on an answered notice or by a loss, of which the holder is told.
    pub(super) fn pause(&mut self, id: LeaseId, lost: Option<Arc<str>>, out: &mut Output) {
        let by_loss = lost.is_some();
        self.note_preempted(id);
        self.emit(Event::Paused { lease: id, lost }, out);
        self.forget_holding(id);
        self.begin_closing(id, out);
        let presence = self.holder_presence(id);
        self.queue_paused(id, presence);
        self.soft.dirty = true;
        if by_loss {
            self.tell(id, out);
        }
    }

    /// A PAUSED lease takes its place in the order.
    pub(super) fn queue_paused(&mut self, id: LeaseId, presence: Presence) {
        let Some(lease) = self.state.lease(id) else { return };
        let request = lease.request.clone();
        let rank = self.rank(lease);
        if let Some(host) = self.state.host_of(lease) {
            self.soft.made_way.entry(host).or_default().insert(id);
        }
        let (owner, waits_until) = (self.owns_enough(&request), Time::NEVER);
        let brevity = self.brevity(&request);
        self.soft.queue.add(&request, NewWaiter { rank, presence, waits_until, owner, brevity });
        self.set_aging(rank);
    }

    /// The place of a lease that waits, among those of its service.
    pub(super) fn rank(&self, lease: &Lease) -> Rank {
        let resumed = lease.first_granted_at.is_some();
        let since = lease.paused_at.filter(|_| resumed).unwrap_or(lease.requested_at);
        // Who was let in and gave way does not go before whoever it gave way for.
        let resumed = resumed && self.state.host_of(lease).is_none();
        let standing =
            Standing { lease: lease.id, priority: lease.request.priority, resumed, since };
        Rank::new(standing, self.now(), self.policy.aging_step)
    }

    /// What the declared tree of a PAUSED lease still uses of the devices it held, such as the context of a process that was
    /// stopped: up to its size, so that to its resume it is not foreign (P15). What is above that is, and what other leases
    /// of the same process hold or close explains it already.
    pub(super) fn own_use(&self, id: LeaseId) -> OwnUse {
        let lease = self.state.lease(id).filter(|lease| lease.state == LeaseState::Paused);
        let Some((lease, process)) = lease.and_then(|lease| Some((lease, lease.request.process?)))
        else {
            return OwnUse::default();
        };
        let declares = |lease: &LeaseId| {
            self.state.lease(*lease).is_some_and(|lease| lease.request.process == Some(process))
        };
        let own = |id: &DeviceId| {
            let device = self.state.inventory().device(*id)?;
            let used = self.soft.measured.device(*id)?.used_by(process).filter(|used| *used > 0)?;
            let used = used.min(attribution::size_bytes(lease.request.ask.share, device));
            let others = device.holding.keys().chain(device.closed.keys()).any(declares);
            (!device.facts.answers_at_once && !others).then_some((*id, used))
        };
        let bytes = lease.devices.iter().filter_map(own).collect();
        OwnUse { process: Some(process), bytes }
    }

    /// A paused lease's holder is there while its session is, or while it renews by unary calls.
    fn holder_presence(&self, id: LeaseId) -> Presence {
        let unary = self.soft.unary.contains(&id);
        let holder = self.state.lease(id).map(|lease| &lease.request.holder);
        if unary || holder.is_some_and(|holder| self.soft.sessions.contains_key(holder)) {
            Presence::Holder
        } else {
            Presence::HolderAway
        }
    }

    /// Books anew whether the holder of a paused lease is there. Nothing is kept for one that is away.
    pub(super) fn set_holder_presence(&mut self, id: LeaseId, out: &mut Output) {
        let presence = self.holder_presence(id);
        self.soft.queue.change(id, |waiter| waiter.presence = presence);
        self.soft.deadlines.clear(Deadline::Away(id));
        self.soft.dirty = true;
        if !presence.there() {
            self.drop_keep(id, DropCause::Away, Time::ZERO, out);
        }
    }

    /// A holder's session came or went: its paused leases stand in the order, or are skipped.
    pub(super) fn holder_came_or_went(&mut self, holder: &Holder, out: &mut Output) {
        let paused: Vec<LeaseId> = (self.state.leases_of(holder))
            .filter(|lease| lease.state == LeaseState::Paused)
            .map(|lease| lease.id)
            .collect();
        for id in paused {
            self.set_holder_presence(id, out);
        }
    }

    /// A lease holds nothing any more: no notice, no minimum hold.
    pub(super) fn forget_holding(&mut self, id: LeaseId) {
        self.forget_notice(id);
        self.soft.guests.remove(&id);
        self.soft.deadlines.clear(Deadline::MinimumHold(id));
        if self.state.lease(id).is_none_or(|lease| !lease.state.live()) {
            self.forget_live(id);
        }
        let Some(lease) = self.state.lease(id) else { return };
        let (devices, share) = (lease.devices.clone(), lease.request.ask.share);
        for device in devices {
            self.forget_seen(device, share);
        }
    }
}
