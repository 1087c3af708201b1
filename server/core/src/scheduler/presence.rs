//! Who is there: sessions, unary calls, and the waiters that belong to them (P11, P22).

use std::sync::Arc;

use super::{Scheduler, reply};
use crate::{
    deadline::Deadline,
    event::Event,
    id::{Caller, Holder, LeaseId, Ticket},
    lease::{DropCause, EndReason, State as LeaseState},
    output::{Answer, Effect, Output, Rejection, WELCOME_MAX},
    queue::Presence,
    time::{Span, Time},
};

impl Scheduler {
    /// A newer session of a holder replaces the older one. Its waiters come back by their request ids.
    pub(super) fn open_session(
        &mut self,
        caller: Caller,
        ticket: Ticket,
        holder: Holder,
        out: &mut Output,
    ) {
        // The newer one stands before the older one goes: nothing that is kept for the holder is given up in between.
        let older = self.soft.sessions.insert(holder.clone(), caller);
        self.soft.holders.insert(caller, holder.clone());
        if let Some(older) = older {
            self.caller_gone(older, out);
            out.effects.push(Effect::SessionReplaced { caller: older });
        }
        self.holder_came_or_went(&holder, out);
        let newest = self.state.leases_of(&holder).rev().take(WELCOME_MAX);
        let mut leases: Vec<LeaseId> = newest.map(|lease| lease.id).collect();
        leases.reverse();
        let leases = self.lease_views_of(&leases);
        reply(out, ticket, Ok(Answer::Welcome(leases)));
    }

    /// A caller is gone: its waiters are skipped from now on, and removed after the session grace.
    pub(super) fn caller_gone(&mut self, caller: Caller, out: &mut Output) {
        if let Some(holder) = self.soft.holders.remove(&caller)
            && self.soft.sessions.get(&holder) == Some(&caller)
        {
            self.soft.sessions.remove(&holder);
            self.holder_came_or_went(&holder, out);
        }
        let until = self.now().after(self.policy.session_grace);
        for lease in self.soft.queue.of_caller(caller) {
            self.drop_keep(lease, DropCause::Away, Time::ZERO, out);
            self.soft.queue.change(lease, |waiter| waiter.presence = Presence::Away { until });
            self.soft.deadlines.set(until, Deadline::Away(lease));
            // The next of its priority is the first now.
            self.soft.dirty = true;
        }
    }

    /// A repeated request takes up its place again; whoever waited for it before is told so.
    pub(super) fn reattach(
        &mut self,
        id: LeaseId,
        caller: Caller,
        ticket: Ticket,
        wait: Span,
        out: &mut Output,
    ) {
        let waits_until = self.now().after(wait);
        let mut before = None;
        self.soft.queue.change(id, |waiter| {
            before = Some(waiter.presence);
            waiter.presence = Presence::Present { caller, ticket };
            waiter.waits_until = waits_until;
        });
        if let Some(Presence::Present { ticket, .. }) = before {
            reply(out, ticket, Err(Rejection::Superseded { lease: id }));
        }
        self.soft.deadlines.clear(Deadline::Away(id));
        self.remind_of_wait(id, waits_until);
        self.soft.dirty = true;
        let view = self.lease_view_of(id);
        reply(out, ticket, Ok(Answer::Queued(Box::new(view))));
    }

    /// A waiter's caller may have been away for too long.
    pub(super) fn away_due(&mut self, id: LeaseId, out: &mut Output) {
        let Some(waiter) = self.soft.queue.waiter(id) else { return };
        let (Presence::Away { until } | Presence::Expected { until }) = waiter.presence else {
            return;
        };
        if until > self.now() {
            return self.soft.deadlines.set(until, Deadline::Away(id));
        }
        if self.state.lease(id).is_some_and(|lease| lease.state == LeaseState::Paused) {
            return self.set_holder_presence(id, out);
        }
        let detail =
            Some(Arc::from("its caller went away and did not come back within the session grace"));
        self.leave_queue(id, EndReason::Cancelled, detail, Rejection::Cancelled { lease: id }, out);
    }

    /// Sets the deadline of a wait, which before the first inventory ever is bounded by itself (P13).
    pub(super) fn remind_of_wait(&mut self, id: LeaseId, waits_until: Time) {
        let Some(lease) = self.state.lease(id) else { return };
        let unknown = self.state.inventory().nodes().len() == 0;
        let first = lease.requested_at.after(self.policy.first_inventory_max);
        let until = if unknown { waits_until.min(first) } else { waits_until };
        self.soft.deadlines.set(until, Deadline::Wait(id));
    }

    /// A wait may be over, or the first inventory overdue (P13).
    pub(super) fn wait_due(&mut self, id: LeaseId, out: &mut Output) {
        let Some(waiter) = self.soft.queue.waiter(id) else { return };
        let waits_until = waiter.waits_until;
        let Some(lease) = self.state.lease(id) else { return };
        let waited = self.now().since(lease.requested_at);
        let unknown = self.state.inventory().nodes().len() == 0;
        let rejection = if unknown && waited >= self.policy.first_inventory_max {
            Rejection::InventoryUnknown
        } else if waits_until > self.now() {
            return self.soft.deadlines.set(waits_until, Deadline::Wait(id));
        } else {
            let held_back = self.held_back(&lease.request, waiter.first_rank()).map(Box::new);
            Rejection::WaitOver { waited, held_back }
        };
        let detail = match &rejection {
            Rejection::WaitOver { held_back: Some(reached), .. } => {
                Some(reached.to_string().into())
            }
            _ => None,
        };
        self.leave_queue(id, EndReason::WaitOver, detail, rejection, out);
    }

    /// QUEUED, PAUSED → ENDED; whoever waits is told.
    pub(super) fn leave_queue(
        &mut self,
        id: LeaseId,
        reason: EndReason,
        detail: Option<Arc<str>>,
        rejection: Rejection,
        out: &mut Output,
    ) {
        self.drop_cause_of(id, out);
        let waiter = self.unqueue(id);
        self.emit(Event::Ended { lease: id, reason, detail }, out);
        self.forget_live(id);
        // The next of its priority may be the first now, and what was kept for it is free.
        self.soft.dirty = true;
        match waiter {
            Some(Presence::Present { ticket, .. }) => reply(out, ticket, Err(rejection)),
            Some(Presence::Holder) => self.tell(id, out),
            _ => {}
        }
    }

    /// Takes a waiter out of the order and answers whether its caller was there.
    pub(super) fn unqueue(&mut self, id: LeaseId) -> Option<Presence> {
        let request = self.state.lease(id)?.request.clone();
        let waiter = self.soft.queue.remove(&request, id)?;
        self.soft.served_by_notice.remove(&id);
        self.soft.looks.remove(&id);
        let kinds = [
            Deadline::Wait,
            Deadline::Away,
            Deadline::Aging,
            Deadline::Keep,
            Deadline::TakeBack,
            Deadline::Look,
        ];
        kinds.iter().for_each(|deadline| self.soft.deadlines.clear(deadline(id)));
        self.forget_way(id);
        Some(waiter.presence)
    }

    /// Who made room for a waiter stands in the order like any paused lease once that waits no longer: their places are
    /// looked up again as if they had aged.
    fn forget_way(&mut self, id: LeaseId) {
        if let Some(host) = self.state.lease(id).and_then(|lease| lease.backfilled_for)
            && let Some(guests) = self.soft.made_way.get_mut(&host)
        {
            guests.remove(&id);
        }
        for guest in self.soft.made_way.remove(&id).unwrap_or_default() {
            self.soft.deadlines.set(self.now(), Deadline::Aging(guest));
        }
    }
}
