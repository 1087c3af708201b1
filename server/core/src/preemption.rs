//! Preemption: who may be given notice for whom, and what that costs (P14).
//!
//! Only a higher own priority than the class at which the victim was granted preempts, or an owner its borrowers. A
//! victim is neither within its minimum hold nor shielded. What a lease of mode pause loses is what a pause costs it: the
//! larger of what it declared and what its last one took; one of mode end loses all that it held, and what it declared.
//! The seam for other rules is [`Preemptor::loss`] (what hitting a lease costs, if it may be hit at all) and
//! `victims` (who has to go): pure functions of the site, the state and the request.

use std::collections::BTreeMap;

use crate::{
    fairness::Shares,
    id::{DeviceId, LeaseId},
    inventory::{Device, Node},
    keeping::{forecast_end, lifetime_end},
    lease::{Lease, State as LeaseState},
    notice::Notice,
    order::{Class, OrderKey},
    placement::Site,
    queue::{Queue, Waiter},
    request::{Preemptible, Request},
    soft::Closing,
    state::State,
    time::{Span, Time},
};

/// A request that may hit others.
pub(crate) struct Preemptor<'a> {
    pub(crate) request: &'a Request,
    /// As an owner it hits borrowers alone.
    pub(crate) as_owner: bool,
    pub(crate) site: &'a Site<'a>,
    pub(crate) state: &'a State,
    pub(crate) closing: &'a BTreeMap<(DeviceId, LeaseId), Closing>,
    pub(crate) queue: &'a Queue,
    pub(crate) shares: Shares<'a>,
    /// Which request it is, and its place in the order.
    pub(crate) lease: LeaseId,
    pub(crate) key: Option<OrderKey>,
}

/// What a lease in the way costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    /// It goes anyway.
    pub(crate) going: bool,
    /// It is neither going by itself nor a borrower.
    pub(crate) not_borrower: bool,
    pub(crate) class: Class,
    /// Work lost: what a pause costs it, or all that it held where it cannot resume.
    pub(crate) lost: Span,
    /// How long it has held its devices: the youngest go first.
    pub(crate) held: Span,
}

impl Loss {
    /// Nothing: it goes anyway.
    const NONE: Self = Self {
        going: true,
        not_borrower: false,
        class: Class::Background,
        lost: Span::ZERO,
        held: Span::ZERO,
    };
}

/// Why a lease is not given notice for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bar {
    /// It may never be preempted.
    Never,
    /// It stands as high, or higher.
    Priority,
    /// It has not held its devices for its minimum hold.
    MinimumHold,
    /// It was preempted too often of late.
    Shielded,
}

impl Preemptor<'_> {
    /// Nobody stands below the lowest priority, unless as a borrower; and mostly nobody may be preempted at all, which
    /// spares the look at every holder.
    pub(crate) fn may_preempt(&self) -> bool {
        self.state.tally().preemptible > 0
            && (self.as_owner || Class::own(self.request.priority) > Class::Background)
    }

    /// What a lease in the way on a device costs; `None`: it may not be preempted.
    pub(crate) fn loss(&self, id: LeaseId, device: DeviceId) -> Option<Loss> {
        let holds = |device: &Device| device.holding.contains_key(&id);
        if !self.site.inventory.device(device).is_some_and(holds) {
            // What is closed opens by itself.
            return Some(Loss::NONE);
        }
        let lease = self.state.lease(id)?;
        if self.guest(lease) {
            return Some(Loss::NONE);
        }
        if !self.may_preempt() || self.bar(lease, device).is_some() {
            return None;
        }
        Some(self.cost(lease, device))
    }

    /// What going costs a lease that holds a device.
    pub(crate) fn cost(&self, lease: &Lease, device: DeviceId) -> Loss {
        if preempted(lease) {
            return Loss::NONE;
        }
        let granted = lease.granted_at.unwrap_or(Time::ZERO);
        let held = self.site.now.since(granted);
        let declared = lease.request.pause_cost.unwrap_or(Span::ZERO);
        let lost = match lease.request.preemptible {
            Preemptible::Pause => lease.pause_took.unwrap_or(Span::ZERO).max(declared),
            Preemptible::End | Preemptible::Never => held.plus(declared),
        };
        let not_borrower = !self.borrowed(lease, device);
        Loss { going: false, not_borrower, class: lease.granted_class, lost, held }
    }

    /// What a lease in the way on a host costs; `None`: it may not be preempted.
    pub(crate) fn loss_on(&self, lease: &Lease, node: &Node) -> Option<Loss> {
        let device = lease.devices.iter().find(|id| node.devices.contains(id))?;
        self.loss(lease.id, *device)
    }

    /// Why a lease that holds a device is not given notice for this request; `None`: it may be.
    pub(crate) fn bar(&self, lease: &Lease, device: DeviceId) -> Option<Bar> {
        if lease.request.preemptible == Preemptible::Never {
            return Some(Bar::Never);
        }
        let above = !self.as_owner && Class::own(self.request.priority) > lease.granted_class;
        if !above && !self.borrowed(lease, device) {
            return Some(Bar::Priority);
        }
        if preempted(lease) {
            return None;
        }
        let now = self.site.now;
        if minimum_hold_over(lease) > now {
            return Some(Bar::MinimumHold);
        }
        (lease.shielded_until > now).then_some(Bar::Shielded)
    }

    /// The lease was let in for as long as this request waits, or one behind it in the order: it goes in time (P10).
    pub(crate) fn guest(&self, lease: &Lease) -> bool {
        let host = self.state.host_of(lease).filter(|_| lease.state.holds());
        let Some(host) = host else { return false };
        let behind = |host: &Waiter| {
            let at = host.rank.at(self.shares.of(&host.service));
            self.key.is_some_and(|key| key < at)
        };
        host == self.lease || self.queue.waiter(host).is_some_and(behind)
    }

    /// The request's service owns the device, and the lease is another's.
    fn borrowed(&self, lease: &Lease, device: DeviceId) -> bool {
        let service = &self.request.holder.service;
        lease.request.holder.service != *service && self.site.owner(device) == Some(service)
    }

    /// When a lease in the way on a device should be gone; never, where nobody knows.
    pub(crate) fn gone_at(&self, id: LeaseId, device: DeviceId, answers: Answers) -> Time {
        let (policy, at_once) = (self.site.policy, answers == Answers::AtOnce);
        if let Some(closing) = self.closing.get(&(device, id)) {
            let closed = self.site.inventory.device(device).and_then(|it| it.closed.get(&id));
            return closed.map_or(Time::ZERO, |closed| closing.opens_at(closed.until, policy));
        }
        let Some(lease) = self.state.lease(id) else { return Time::ZERO };
        // What a lifetime ends is closed for the lock delay.
        let by_itself = forecast_end(lease).min(lifetime_end(lease).after(policy.lock_delay));
        let noticed_at = match (&lease.notice, lease.state) {
            (Some(_), LeaseState::Pausing) if at_once => return self.site.now,
            (Some(notice), LeaseState::Pausing) => return notice.deadline.min(by_itself),
            _ if !self.may_preempt() => return by_itself,
            _ => match self.bar(lease, device) {
                None => self.site.now,
                Some(Bar::MinimumHold) => minimum_hold_over(lease).max(lease.shielded_until),
                Some(Bar::Shielded) => lease.shielded_until,
                Some(Bar::Never | Bar::Priority) => return by_itself,
            },
        };
        let notice = if at_once { Span::ZERO } else { policy.notice };
        noticed_at.after(notice).min(by_itself)
    }
}

/// When those who have notice, or may be given it, are taken to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    /// As they may: what nobody else is to rely on (P10).
    AtOnce,
    /// At the latest.
    InTime,
}

/// It has a notice for a request, so that it gives its devices back anyway; one for a drain alone may be withdrawn.
fn preempted(lease: &Lease) -> bool {
    lease.state == LeaseState::Pausing && lease.notice.as_ref().is_some_and(Notice::preempts)
}

/// When a lease has held its devices for as long as it asked to.
fn minimum_hold_over(lease: &Lease) -> Time {
    lease.granted_at.unwrap_or(Time::ZERO).after(lease.request.minimum_hold)
}
