//! Asking for a lease: refused, repeated, granted at once, or queued.

use std::sync::Arc;

use super::{Scheduler, reply};
use crate::{
    deadline::Deadline,
    event::Event,
    id::{Caller, DeviceId, LeaseId, Ticket, Token},
    lease::{Basis, State as LeaseState, Why},
    order::{Class, OrderKey, Rank, Standing},
    output::{Answer, Effect, Output, Rejection},
    placement::Place,
    queue::{NewWaiter, Presence},
    request::Request,
    state::{REMEMBERED_AGE_MAX, SERVICES_MAX},
    time::{Span, Time},
};

impl Scheduler {
    pub(super) fn acquire(
        &mut self,
        caller: Caller,
        ticket: Ticket,
        request: Arc<Request>,
        out: &mut Output,
    ) {
        match self.earlier(&request) {
            Ok(None) => {}
            Ok(Some(lease)) => return self.repeat(lease, caller, ticket, &request, out),
            Err(rejection) => return reply(out, ticket, Err(rejection)),
        }
        if let Err(rejection) = self.admissible(&request) {
            return reply(out, ticket, Err(rejection));
        }
        let lease = LeaseId(self.state.last_lease.0.saturating_add(1));
        let standing =
            Standing { lease, priority: request.priority, resumed: false, since: self.now() };
        let rank = Rank::new(standing, self.now(), self.policy.aging_step);
        let may_wait = request.wait > Span::ZERO;
        let (key, place) = self.place_new(&request, rank, out);
        if place.is_none() && !may_wait {
            return reply(out, ticket, Err(self.no_place(&request, rank)));
        }
        if place.is_none() && self.state.tally().queued >= self.policy.queued_max {
            let rejection = Rejection::QueueFull { max: self.policy.queued_max };
            return reply(out, ticket, Err(rejection));
        }
        if place.is_none()
            && let Err(rejection) = self.waiting_reached(&request)
        {
            return reply(out, ticket, Err(rejection));
        }
        self.emit(Event::Requested { lease, request: request.clone() }, out);
        if let Some(process) = request.process {
            out.effects.push(Effect::Track { process });
        }
        if let Some((place, class)) = place {
            let basis = self.basis((key, class), &request, &place);
            if basis.why != Why::Backfilled {
                self.drop_keeps_on(&place.devices, lease, out);
            }
            self.grant(lease, place.devices, (class, basis), out);
            let view = self.lease_view_of(lease);
            reply(out, ticket, Ok(Answer::Lease(Box::new(view))));
        } else {
            self.enqueue(rank, caller, ticket, &request, out);
        }
        self.quota_moved(&request.holder.service);
    }

    /// Where a new request goes without waiting, and its place in the order at that.
    fn place_new(
        &mut self,
        request: &Request,
        rank: Rank,
        out: &mut Output,
    ) -> (OrderKey, Option<(Place, Class)>) {
        let at_once = |it: &Self| {
            let key = rank.at(it.shares().of(&request.holder.service));
            let may_wait = request.wait > Span::ZERO;
            // What others wait for longer may be free, and its grants still to come.
            let rest = it.soft.rest.serve || (it.has_rest() && !it.soft.queue.is_empty());
            (key, (!rest).then(|| it.place_at_once(request, key, may_wait)).flatten())
        };
        let (key, place) = at_once(self);
        let kept = |id: &DeviceId| {
            self.state.inventory().device(*id).is_some_and(|device| device.kept_for.is_some())
        };
        let takes_over = place
            .as_ref()
            .is_some_and(|(place, class)| *class != Class::Owner && place.devices.iter().any(kept));
        if !takes_over || !self.policy.fairness {
            return (key, place);
        }
        // Shares change with time, and nobody looked since: others may be ahead of whom it is kept for by now too.
        self.serve(out);
        at_once(self)
    }

    /// Why a request that may not wait is not placed.
    fn no_place(&self, request: &Request, rank: Rank) -> Rejection {
        if self.state.inventory().nodes().len() == 0 {
            return Rejection::InventoryUnknown;
        }
        if let Some(reached) = self.held_back(request, rank) {
            return Rejection::QuotaReached(Box::new(reached));
        }
        if let Some(reached) = self.left_too_little(request, rank) {
            return Rejection::QuotaReached(Box::new(reached));
        }
        self.closed_for(request).unwrap_or(Rejection::NoCapacity)
    }

    /// Where a new request goes without waiting: as OWNER on what its service owns, else anywhere (P10).
    fn place_at_once(
        &self,
        request: &Request,
        key: OrderKey,
        may_wait: bool,
    ) -> Option<(Place, Class)> {
        let own = key.rank().as_owner().at(key.share);
        let owner = self.owns_enough(request).then_some(own);
        // Those of its service who wait for quota go before it.
        let held_back = |key: OrderKey| self.held_back(request, key.rank()).is_some();
        let place = |key: OrderKey| {
            let place = (!held_back(key)).then(|| self.place_for(request, key, may_wait)).flatten();
            Some((place?, key.class()))
        };
        let guest = || {
            let may = may_wait && !held_back(key);
            Some((may.then(|| self.backfill(request, key)).flatten()?, key.class()))
        };
        owner.and_then(place).or_else(|| place(key)).or_else(guest)
    }

    /// The lease that a repeated request id names (P16).
    pub(super) fn earlier(&self, request: &Request) -> Result<Option<LeaseId>, Rejection> {
        let service = self.state.services().get(&request.holder.service);
        let Some(id) =
            service.and_then(|service| service.requests.get(&request.request_id).copied())
        else {
            return Ok(None);
        };
        let Some(lease) = self.state.lease(id) else { return Ok(None) };
        // Forgetting is booked with the next batch, which on a quiet coordinator may be long in coming.
        if lease.ended_at.is_some_and(|ended| self.now().since(ended) > REMEMBERED_AGE_MAX) {
            return Ok(None);
        }
        if lease.request.holder != request.holder {
            return if lease.state.live() {
                Err(Rejection::RequestIdTaken { lease: id })
            } else {
                Ok(None)
            };
        }
        if !lease.request.same_body(request) {
            return Err(Rejection::RequestIdReused { lease: id });
        }
        Ok(Some(id))
    }

    /// Answers a repeated request: a waiter is taken up again with its place and age, unless the repeat may not wait.
    fn repeat(
        &mut self,
        id: LeaseId,
        caller: Caller,
        ticket: Ticket,
        request: &Request,
        out: &mut Output,
    ) {
        let queued = self.state.lease(id).is_some_and(|lease| lease.state == LeaseState::Queued);
        if queued && request.wait > Span::ZERO {
            return self.reattach(id, caller, ticket, request.wait, out);
        }
        let view = self.lease_view_of(id);
        reply(out, ticket, Ok(Answer::Lease(Box::new(view))));
    }

    /// Whether a new request may stand at all: names, bounds, and whether anything known could satisfy it.
    pub(super) fn admissible(&self, request: &Request) -> Result<(), Rejection> {
        let service = self.state.services().get(&request.holder.service);
        if service.is_none() && !self.state.takes_services() {
            return Err(Rejection::ServicesFull { max: SERVICES_MAX });
        }
        if let Some(name) = &request.name
            && let Some(lease) = service.and_then(|service| service.names.get(name).copied())
        {
            return Err(Rejection::NameTaken { name: name.clone(), lease });
        }
        let tally = self.state.tally();
        if tally.live() >= self.policy.live_max {
            return Err(Rejection::LeasesFull { max: self.policy.live_max });
        }
        let known = self.state.inventory().nodes().len() > 0;
        if let Some(report) = known.then(|| self.site().unsatisfiable(request)).flatten() {
            return Err(Rejection::Unsatisfiable(Box::new(report)));
        }
        self.allowed_at_all(request)
    }

    fn enqueue(
        &mut self,
        rank: Rank,
        caller: Caller,
        ticket: Ticket,
        request: &Request,
        out: &mut Output,
    ) {
        let id = rank.lease;
        let waits_until = self.now().after(request.wait);
        let presence = Presence::Present { caller, ticket };
        let owner = self.owns_enough(request);
        let brevity = self.brevity(request);
        self.soft.queue.add(request, NewWaiter { rank, presence, waits_until, owner, brevity });
        self.remind_of_wait(id, waits_until);
        self.set_aging(rank);
        let view = self.lease_view_of(id);
        reply(out, ticket, Ok(Answer::Queued(Box::new(view))));
        self.keep_if_first(id, out);
        // It may have been queued for what is left to be done alone.
        self.soft.rest.serve |= self.has_rest();
    }

    pub(super) fn set_aging(&mut self, rank: Rank) {
        let Some(lease) = self.state.lease(rank.lease) else { return };
        let step = self.policy.aging_step;
        let resumed = lease.first_granted_at.is_some();
        let since = lease.paused_at.filter(|_| resumed).unwrap_or(lease.requested_at);
        let steps = self.now().since(since).whole(step);
        if rank.ages() && step > Span::ZERO {
            let next = since.after(step.times(steps.saturating_add(1)));
            self.soft.deadlines.set(next, Deadline::Aging(rank.lease));
        }
    }

    /// Grants: a new token, and the full TTL.
    pub(super) fn grant(
        &mut self,
        lease: LeaseId,
        devices: Box<[DeviceId]>,
        (class, basis): (Class, Basis),
        out: &mut Output,
    ) {
        let token = Token(self.state.token().0.saturating_add(1));
        let resumed = self.state.lease(lease).is_some_and(|lease| lease.first_granted_at.is_some());
        self.soft.capacity.get_mut().granted(self.state.inventory(), &devices);
        self.emit(Event::Granted { lease, token, devices, class, basis, resumed }, out);
        self.soft.adopted.remove(&lease);
        self.soft.served_by_notice.remove(&lease);
        let expiry = self.expiry_from_now(lease);
        self.soft.expiries.insert(lease, expiry);
        self.soft.deadlines.set(expiry, Deadline::Expiry(lease));
        self.remind_of_minimum_hold(lease);
        self.book_guest(lease);
    }

    /// A lease is over, or RECLAIMING: nothing of it expires.
    pub(super) fn forget_expiry(&mut self, lease: LeaseId) {
        self.soft.expiries.remove(&lease);
        self.soft.deadlines.clear(Deadline::Expiry(lease));
    }

    /// When a lease expires if it is renewed now: after its TTL, or at the end of its lifetime.
    pub(super) fn expiry_from_now(&self, id: LeaseId) -> Time {
        let Some(lease) = self.state.lease(id) else { return self.now() };
        let ttl_over = self.now().after(lease.request.ttl);
        let lifetime_over = match (lease.first_granted_at, lease.request.lifetime_max) {
            (Some(granted), Some(lifetime)) => granted.after(lifetime),
            _ => Time::NEVER,
        };
        ttl_over.min(lifetime_over)
    }
}
