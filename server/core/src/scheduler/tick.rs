//! Deadlines that are due, at most [`DUE_PER_TICK_MAX`] at a time, so that no input waits long behind them.

use std::{collections::VecDeque, sync::Arc};

use super::Scheduler;
use crate::{
    deadline::Deadline,
    event::Event,
    id::LeaseId,
    lease::{EndReason, State as LeaseState},
    output::{Output, Rejection},
    queue::{NewWaiter, Waiter},
    request::Request,
};

/// The most deadlines handled by one tick: 256 expiries of one device each are some 8 KiB of journal.
const DUE_PER_TICK_MAX: usize = 256;

impl Scheduler {
    pub(super) fn tick(&mut self, out: &mut Output) {
        for _ in 0..DUE_PER_TICK_MAX {
            if self.full(out) {
                break;
            }
            let Some(deadline) = self.soft.deadlines.take_due(self.now()) else { break };
            match deadline {
                Deadline::Silence(node) => self.silence_due(node, out),
                Deadline::LockDelay(device, lease) => self.lock_delay_due(device, lease, out),
                Deadline::DeviceClosed(device) => self.device_closed_due(device, out),
                Deadline::Check(device, lease) => self.check_due(device, lease, out),
                Deadline::Expiry(lease) => self.expiry_due(lease, out),
                Deadline::Notice(lease) => self.notice_due(lease, out),
                Deadline::MinimumHold(lease) => self.minimum_hold_due(lease, out),
                Deadline::Wait(lease) => self.wait_due(lease, out),
                Deadline::Away(lease) => self.away_due(lease, out),
                Deadline::Aging(lease) => self.aging_due(lease),
                // The pass over the order looks who has to go.
                Deadline::TakeBack(_) | Deadline::Look(_) => self.soft.dirty = true,
                Deadline::Keep(lease) => self.keep_due(lease, out),
            }
        }
        self.checkpoint(out);
    }

    /// A TTL or lifetime may be over. After a gap, renewals that waited it out come first (P4).
    fn expiry_due(&mut self, id: LeaseId, out: &mut Output) {
        let Some(expiry) = self.soft.expiries.get(&id).copied() else { return };
        let due = expiry.max(self.soft.clock.quiet_until);
        if due > self.now() {
            return self.soft.deadlines.set(due, Deadline::Expiry(id));
        }
        let Some(lease) = self.state.lease(id) else { return };
        let lifetime = lease.first_granted_at.zip(lease.request.lifetime_max);
        let lived =
            lifetime.is_some_and(|(granted, lifetime)| granted.after(lifetime) <= self.now());
        let detail = if lived {
            "its longest lifetime is over".to_owned()
        } else {
            format!("it was not renewed for {}", lease.request.ttl)
        };
        let (detail, paused) = (Some(Arc::from(detail)), lease.state == LeaseState::Paused);
        if paused {
            self.end_paused(id, EndReason::Expired, detail, out);
            self.tell(id, out);
        } else {
            self.reclaim(id, EndReason::Expired, detail, out);
        }
    }

    /// A waiter may stand higher in the order now.
    fn aging_due(&mut self, id: LeaseId) {
        let Some(lease) = self.state.lease(id).filter(|lease| lease.state.waits()) else { return };
        let rank = self.rank(lease);
        self.soft.queue.change(id, |waiter| waiter.rank = rank);
        self.set_aging(rank);
        self.soft.dirty = true;
    }

    /// Makes the time durable now and then, while leases live or an import closes devices (P5, P2).
    fn checkpoint(&mut self, out: &mut Output) {
        let since = self.now().since(self.state.time());
        let counts = self.state.tally().live() > 0 || self.state.closed_until() > self.now();
        if out.events.is_empty() && counts && since >= self.policy.checkpoint {
            self.emit(Event::Checkpoint, out);
        }
    }

    /// A waiter's service may own devices enough for it now, or no longer.
    fn stand_as_owner(&mut self, id: LeaseId, request: &Request) {
        let owner = self.owns_enough(request);
        let stands = |waiter: &Waiter| waiter.owner_lane().is_some();
        if self.soft.queue.waiter(id).is_none_or(|waiter| stands(waiter) == owner) {
            return;
        }
        if let Some(waiter) = self.soft.queue.remove(request, id) {
            let (rank, presence, waits_until) = (waiter.rank, waiter.presence, waiter.waits_until);
            let brevity = waiter.brevity;
            self.soft.queue.add(request, NewWaiter { rank, presence, waits_until, owner, brevity });
        }
    }

    /// Requests that nothing known can satisfy any more, or no setting of their service allows, leave the queue (P13).
    pub(super) fn end_impossible(&mut self, out: &mut Output) {
        self.soft.rest.impossible.clear();
        let waiters = self.soft.queue.all().collect();
        self.end_waiters(waiters, out);
    }

    /// Those of these that are impossible leave the queue.
    pub(super) fn end_waiters(&mut self, mut waiters: VecDeque<LeaseId>, out: &mut Output) {
        while let Some(id) = waiters.pop_front() {
            if self.full(out) {
                waiters.push_front(id);
                self.soft.rest.impossible = waiters;
                return;
            }
            let Some(lease) = self.state.lease(id).filter(|lease| lease.state.waits()) else {
                continue;
            };
            let request = lease.request.clone();
            let queued = lease.state == LeaseState::Queued;
            let (detail, rejection) = if let Some(report) = self.site().unsatisfiable(&request) {
                (report.to_string(), Rejection::Unsatisfiable(Box::new(report)))
            } else if queued && let Err(rejection) = self.allowed_at_all(&request) {
                // The settings of its service were changed; what is PAUSED waits for them to be changed back.
                (self.why_hopeless(&request), rejection)
            } else {
                self.stand_as_owner(id, &request);
                continue;
            };
            let detail = Some(Arc::from(detail));
            self.leave_queue(id, EndReason::Unsatisfiable, detail, rejection, out);
        }
    }
}
