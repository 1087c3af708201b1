//! Serving the queue: grants in order, and devices kept for those whose turn it is but who do not fit (P10). What is
//! kept, and whom it hits, is in `keep`.

use std::collections::BTreeSet;

use super::{Scheduler, keep::CHOICES_MAX, reply};
use crate::{
    affinity::Near,
    fairness::{Shares, entry_charge},
    id::{DeviceId, LeaseId, Name, NodeId},
    inventory::Device,
    keeping,
    lease::{Basis, DropCause, Why},
    notice::Cause,
    order::{Class, Lane, OrderKey, Rank},
    output::{Answer, Output},
    placement::{Apart, Demand, HostKept, Place, Search, Site},
    queue::{Head, Presence},
    request::Request,
    state::Keep,
    time::Time,
};

/// How far going through the order came.
enum Way {
    /// To its end; with the first of each lane that does not fit.
    Whole(Vec<(OrderKey, Lane)>),
    /// One of these was granted after all, or something is free that was kept: others may fit there now.
    Again,
    /// The batch is full.
    Cut,
}

/// What a pass over the order found.
#[derive(Default)]
struct Pass {
    /// The first of each lane that does not fit.
    firsts: Vec<(OrderKey, Lane)>,
    /// Shapes that do not fit: what is free only shrinks, so that they fit for no other service either.
    failed: BTreeSet<usize>,
    /// Waiters that were tried in vain.
    tried: BTreeSet<LeaseId>,
    /// How many of them looked for devices to keep in vain.
    nothing_to_keep: usize,
}

/// What became of one that was tried.
enum Tried {
    /// It was granted.
    Granted,
    /// It was granted before, at its other place.
    Gone,
    /// It does not fit, and waits; so do all who ask for the same.
    Stays,
    /// It does not fit for reasons of its own.
    Alone,
    /// Its service is at a quota, for it and all behind it.
    HeldBack,
    /// Something is free that was kept: the order is to be gone through again.
    Again,
}

/// Which devices a request may be placed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Those kept for nobody else.
    Free,
    /// If it does not fit there, those kept for somebody later too.
    Over,
    /// Besides those kept for nobody, those kept for this earlier request.
    GuestOf(LeaseId),
}

impl Reach {
    const fn guest_of(self) -> Option<LeaseId> {
        if let Self::GuestOf(host) = self { Some(host) } else { None }
    }
}

impl Scheduler {
    /// Goes through the order: what fits is granted, the first of each lane that does not keeps devices, and then
    /// those in the way of these are given notice.
    ///
    /// What is free only shrinks on the way, so that of waiters who ask for the same only the first has to be tried. Who
    /// stands in the order twice may give up what it kept at its first place by a grant at its second: then others may
    /// fit there, and the order is gone through again.
    pub(super) fn serve(&mut self, out: &mut Output) {
        loop {
            self.soft.dirty = false;
            if self.soft.queue.is_empty() {
                return;
            }
            if self.full(out) {
                self.soft.rest.serve = true;
                return;
            }
            self.drop_blocked_keeps(out);
            match self.serve_in_order(out) {
                Way::Whole(firsts) => {
                    for (key, lane) in &firsts {
                        // Grants behind it may have changed its service's share.
                        if let Some(key) = self.key_at(key.rank()) {
                            self.preempt(key, lane, out);
                        }
                    }
                    break;
                }
                Way::Again => {}
                Way::Cut => {
                    self.soft.rest.serve = true;
                    break;
                }
            }
        }
        // Grants, keeps and notices of this pass were all seen by it.
        self.soft.dirty = false;
    }

    fn serve_in_order(&mut self, out: &mut Output) -> Way {
        let mut heads = self.soft.queue.heads(self.shares());
        let mut pass = Pass::default();
        while let Some(head) = heads.pop(&self.soft.queue) {
            if self.is_through(&pass) {
                break;
            }
            if self.soft.queue.awaits_before(head.key, &head.service) {
                continue;
            }
            let next = match self.try_head(&head, &mut pass, out) {
                Tried::Again => return Way::Again,
                // Only behind a grant, so that every portion comes nearer to the end.
                Tried::Granted if self.full(out) => return Way::Cut,
                Tried::Granted | Tried::Gone | Tried::Alone => {
                    self.soft.queue.next_of_shape(&head.service, head.shape, head.key.rank())
                }
                Tried::Stays => None,
                // Nobody of its service goes before it.
                Tried::HeldBack => continue,
            };
            let share = self.shares().of(&head.service);
            heads.go_on(&head, next, share);
        }
        Way::Whole(pass.firsts)
    }

    /// Nothing more can become of a pass: no shape fits any more, whoever asks, and all who keep devices had their turn.
    fn is_through(&self, pass: &Pass) -> bool {
        pass.failed.len() >= self.soft.queue.shapes()
            && self.state.keeps().values().all(|keep| pass.tried.contains(&keep.lease))
    }

    fn try_head(&mut self, head: &Head, pass: &mut Pass, out: &mut Output) -> Tried {
        let Some(waiter) = self.soft.queue.waiter(head.key.lease) else { return Tried::Gone };
        let Some(lane) = waiter.lane_at(head.key.rank()).cloned() else { return Tried::Gone };
        let shapes = waiter.shapes();
        let key = head.key;
        let Some(request) = self.state.lease(key.lease).map(|lease| lease.request.clone()) else {
            return Tried::Stays;
        };
        if self.is_hopeless(&request) {
            let kept = self.state.keep_of(key.lease).is_some();
            self.drop_keep(key.lease, DropCause::Quota, Time::ZERO, out);
            return if kept { Tried::Again } else { Tried::Stays };
        }
        if self.quota_reached(&request, key.rank()).is_some() {
            let dropped = self.drop_keeps_behind(&head.service, key.rank(), out);
            return if dropped { Tried::Again } else { Tried::HeldBack };
        }
        // What leases of the service hold decides elsewhere: by its quota, and by an affinity key.
        let alike =
            self.limits(&request, key.rank()).is_none() && request.constraints.affinity.is_none();
        // What is kept for it, or behind it in its service, is not kept from it as it was from others.
        let takes_over = || self.keeps_of(&head.service).any(|(kept, _)| kept >= key.rank());
        if alike
            && pass.failed.contains(&head.shape)
            && self.state.keep_of(key.lease).is_none()
            && !takes_over()
            && !self.still_uses(key.lease)
        {
            return Tried::Stays;
        }
        if self.try_grant(key, out) {
            // There may be no such shape any more: it did not fit at the other place, say.
            shapes.into_iter().flatten().for_each(|shape| {
                pass.failed.remove(&shape);
            });
            let first = pass.firsts.iter().any(|(first, _)| first.lease == key.lease);
            return if first { Tried::Again } else { Tried::Granted };
        }
        pass.tried.insert(key.lease);
        let alone = self.fails_alone(key.lease);
        if alike && !alone {
            pass.failed.insert(head.shape);
        }
        self.stand_first(key, &lane, pass, out);
        if alone { Tried::Alone } else { Tried::Stays }
    }

    /// A paused lease may fit where others do not: what its processes still use on the devices that it gave back is not
    /// foreign to it.
    fn still_uses(&self, id: LeaseId) -> bool {
        let Some(lease) = self.state.lease(id) else { return false };
        let Some(process) = lease.request.process.filter(|_| !lease.devices.is_empty()) else {
            return false;
        };
        let samples = lease.devices.iter().filter_map(|id| self.soft.measured.device(*id));
        samples.into_iter().any(|sample| sample.used_by(process).is_some_and(|bytes| bytes > 0))
    }

    /// Where a waiter does not fit another one like it may: it may not go where its own closed parts are, nor as a guest
    /// while it is shielded, nor before whom it made room for.
    fn fails_alone(&self, id: LeaseId) -> bool {
        let Some(lease) = self.state.lease(id).filter(|lease| lease.first_granted_at.is_some())
        else {
            return false;
        };
        let devices = lease.devices.iter().filter_map(|id| self.state.inventory().device(*id));
        lease.shielded_until > self.now()
            || self.still_uses(id)
            || self.state.host_of(lease).is_some()
            || devices.into_iter().any(|device| device.closed.contains_key(&id))
    }

    /// Keeps devices for the first of its lane that finds any.
    fn stand_first(&mut self, key: OrderKey, lane: &Lane, pass: &mut Pass, out: &mut Output) {
        if pass.firsts.iter().any(|(_, other)| other == lane) {
            return;
        }
        let Some(waiter) = self.soft.queue.waiter(key.lease) else { return };
        let first = self.keeper(key, &waiter.service, lane).unwrap_or(key);
        let keeps = self.state.keeps().get(lane).is_some_and(|keep| keep.lease == first.lease);
        if !keeps && pass.nothing_to_keep >= CHOICES_MAX {
            return;
        }
        if self.keep_for(first, lane, out) {
            pass.firsts.push((first, lane.clone()));
        } else {
            pass.nothing_to_keep = pass.nothing_to_keep.saturating_add(1);
        }
    }

    /// Grants a waiter if it fits.
    fn try_grant(&mut self, key: OrderKey, out: &mut Output) -> bool {
        let Some(request) = self.state.lease(key.lease).map(|lease| lease.request.clone()) else {
            return false;
        };
        let Some((place, class)) = self.turn_of(&request, key) else { return false };
        let basis = self.basis((key, class), &request, &place);
        if basis.why != Why::Backfilled {
            self.drop_keeps_on(&place.devices, key.lease, out);
        }
        let presence = self.unqueue(key.lease);
        self.drop_cause_of(key.lease, out);
        self.grant(key.lease, place.devices, (class, basis), out);
        match presence {
            Some(Presence::Present { ticket, .. }) => {
                let view = self.lease_view_of(key.lease);
                reply(out, ticket, Ok(Answer::Lease(Box::new(view))));
            }
            _ => self.tell(key.lease, out),
        }
        true
    }

    /// Where a waiter goes at this place in the order. An owner is tried on what it owns; if it is the first by its
    /// priority too, it rather takes what others leave free than take back what it lent (P10).
    fn turn_of(&self, request: &Request, key: OrderKey) -> Option<(Place, Class)> {
        let place = self.place_for(request, key, true);
        if place.is_some() || key.class() != Class::Owner {
            let place = place.or_else(|| self.backfill(request, key));
            return place.map(|place| (place, key.class()));
        }
        let own = self.key_at(self.soft.queue.waiter(key.lease)?.rank)?;
        if self.soft.queue.first_by_priority(self.shares()) != Some(own) {
            return None;
        }
        self.place_for(request, own, true).map(|place| (place, own.class()))
    }

    /// Why these devices.
    pub(super) fn basis(
        &self,
        (key, class): (OrderKey, Class),
        request: &Request,
        place: &Place,
    ) -> Basis {
        let uuid = |id: &DeviceId| self.state.inventory().device(*id).map(|it| &it.facts.uuid);
        let preferred = self.preferred_device(request);
        // As an owner it takes over what may be kept for others.
        let owner = key.class() == Class::Owner || class == Class::Owner;
        let why = if !owner && self.is_guest_at(&place.devices, key, request) {
            Why::Backfilled
        } else if self.soft.served_by_notice.contains(&key.lease) {
            Why::Preempted
        } else if self.state.keep_of(key.lease).is_some() {
            Why::Kept
        } else if key.class() == Class::Owner {
            Why::Owned
        } else if preferred.is_some() && place.devices.iter().any(|id| uuid(id) == preferred) {
            Why::Preferred
        } else if place.fitting <= place.devices.len() {
            Why::Only
        } else {
            Why::Policy(request.placement.unwrap_or(self.policy.placement))
        };
        Basis { fitting: u32::try_from(place.fitting).unwrap_or(u32::MAX), why }
    }

    /// Where a request at this place in the order goes now: on devices kept for nobody else, else on those kept for
    /// somebody later, if it may take them over; as OWNER only on what its service owns. Nothing, while somebody
    /// earlier may still come back (P4).
    pub(super) fn place_for(
        &self,
        request: &Request,
        key: OrderKey,
        take_over: bool,
    ) -> Option<Place> {
        let own = self.own_use(key.lease);
        self.place_on(&self.site_for(&own), request, key, take_over)
    }

    pub(super) fn place_on(
        &self,
        site: &Site<'_>,
        request: &Request,
        key: OrderKey,
        take_over: bool,
    ) -> Option<Place> {
        let reach = if take_over { Reach::Over } else { Reach::Free };
        self.place_within(site, request, key, reach)
    }

    pub(super) fn place_within(
        &self,
        site: &Site<'_>,
        request: &Request,
        key: OrderKey,
        reach: Reach,
    ) -> Option<Place> {
        if self.soft.queue.awaits_before(key, &request.holder.service)
            || self.quota_reached(request, key.rank()).is_some()
        {
            return None;
        }
        let preferring = self.preferring(request);
        let request = preferring.as_ref().unwrap_or(request);
        let limits = self.limits(request, key.rank());
        let service = (key.class() == Class::Owner).then_some(&request.holder.service);
        let mine = |id| service.is_none() || site.owner(id) == service;
        let near = Near::of(&self.state, request);
        let mine = |id, device: &Device| mine(id) && near.allows(id, device);
        // A part of it that the lease itself left closed would be booked twice.
        let clean = |device: &Device| {
            !device.closed.contains_key(&key.lease)
                && limits.is_none_or(|limits| limits.allow(device, request.ask.share))
        };
        let guest_of = reach.guest_of();
        let own = |device: &Device| {
            device.kept_for.is_none_or(|lease| lease == key.lease || Some(lease) == guest_of)
        };
        let host_kept = self.host_kept(key, &request.holder.service, guest_of);
        let nodes = self.nodes_with_keeps();
        let resumed = self.state.lease(key.lease).is_some_and(|it| it.first_granted_at.is_some());
        let everywhere = service.is_some() || near != Near::Anywhere || limits.is_some() || resumed;
        let apart =
            if everywhere || site.opening.is_some() { Apart::All } else { Apart::Nodes(&nodes) };
        let place = |open: &dyn Fn(DeviceId, &Device) -> bool| {
            let policy = request.placement.unwrap_or(self.policy.placement);
            let demand = Demand::of(request);
            let search = Search { demand, policy, host_kept: &host_kept, apart, open };
            self.soft.capacity.borrow_mut().place(site, &search)
        };
        let free = place(&|id, device| own(device) && mine(id, device) && clean(device));
        if free.is_some() || reach != Reach::Over || nodes.is_empty() {
            return free;
        }
        place(&|id, device| {
            self.may_take(device, key, &request.holder.service) && mine(id, device) && clean(device)
        })
    }

    /// The nodes with devices that are kept for somebody.
    fn nodes_with_keeps(&self) -> BTreeSet<NodeId> {
        let devices = self.state.keeps().values().flat_map(|keep| keep.devices.iter());
        let node = |id: &DeviceId| Some(self.state.inventory().device(*id)?.node);
        devices.filter_map(node).collect()
    }

    /// A device is kept for nobody, for this request of a service, or for one that gives way to a grant of it.
    pub(super) fn may_take(&self, device: &Device, key: OrderKey, service: &Name) -> bool {
        let mut kept = device.kept_for.into_iter().filter(|lease| *lease != key.lease);
        !kept.any(|lease| self.keeps_before(lease, key, service))
    }

    /// The same for one that is to keep it, rather than to be granted it.
    pub(super) fn may_keep(&self, device: &Device, key: OrderKey, service: &Name) -> bool {
        let mut kept = device.kept_for.into_iter().filter(|lease| *lease != key.lease);
        !kept.any(|lease| self.stays_before(lease, key, service))
    }

    /// Whether a request, at the place as which it keeps devices, goes before a grant at this place of a service.
    pub(super) fn keeps_before(&self, lease: LeaseId, key: OrderKey, service: &Name) -> bool {
        self.stands_before(lease, key, service, false)
    }

    /// Whether it stays before this place of a service for what is kept.
    ///
    /// Shares change all the time, and a keep that went to and fro with them would serve nobody. So among equals of
    /// several services a keep goes over only to who is ahead by more than one more of its devices would make up for: the
    /// entry charge of one of them; and what counts is what was used, for entry charges come and go with every lease. Who
    /// can be granted what is free needs no such lead.
    pub(super) fn stays_before(&self, lease: LeaseId, key: OrderKey, service: &Name) -> bool {
        self.stands_before(lease, key, service, true)
    }

    fn stands_before(&self, lease: LeaseId, key: OrderKey, service: &Name, firmly: bool) -> bool {
        let Some((lane, keep)) = self.state.keep_of(lease) else { return false };
        let Some(waiter) = self.soft.queue.waiter(lease) else { return false };
        // Who was let in and gave way does not go before whom it gave way for, whatever the shares.
        let guest = self.state.lease(key.lease);
        if guest.is_some_and(|guest| self.state.host_of(guest) == Some(lease)) {
            return true;
        }
        let rank = if lane.is_owner() { waiter.rank.as_owner() } else { waiter.rank };
        if waiter.service == *service {
            return rank < key.rank();
        }
        // What others give back for it by notice is pledged to it, whatever the shares: they go for nobody else.
        let noticed = self.soft.noticed_for.contains_key(&Cause::Preemption(lease));
        if noticed || self.soft.served_by_notice.contains(&lease) {
            return rank.group <= key.group;
        }
        let shares = self.shares();
        if !firmly {
            return rank.at(shares.of(&waiter.service)) < key;
        }
        let lead = shares.of_use(&waiter.service, self.entry_charge_of_one(lease, keep));
        let used = shares.of_measured(&waiter.service).saturating_sub(lead);
        rank.at(used) < key.rank().at(shares.of_measured(service))
    }

    fn entry_charge_of_one(&self, lease: LeaseId, keep: &Keep) -> u128 {
        let request = self.state.lease(lease).map(|lease| &lease.request);
        let first = keep.devices.first().and_then(|id| self.state.inventory().device(*id));
        request.zip(first).map_or(0, |(request, device)| {
            let bytes = device.facts.counted_bytes(request.ask.share);
            entry_charge(bytes)
        })
    }

    /// The shares of all services as they are now.
    pub(super) fn shares(&self) -> Shares<'_> {
        Shares::new(&self.state, &self.policy, self.now())
    }

    /// This place of a waiter, as the share of its service is now.
    pub(super) fn key_at(&self, rank: Rank) -> Option<OrderKey> {
        let waiter = self.soft.queue.waiter(rank.lease)?;
        Some(rank.at(self.shares().of(&waiter.service)))
    }

    /// Whether a request's service owns devices enough for it, so that it stands in the order as OWNER too.
    pub(super) fn owns_enough(&self, request: &Request) -> bool {
        let service = &request.holder.service;
        if !self.policy.owners.iter().any(|owner| owner.service == *service) {
            return false;
        }
        let site = self.site();
        let would_do = |(id, device): &(DeviceId, &Device)| {
            site.owner(*id) == Some(service) && site.exclusion(device, request).is_none()
        };
        let owned = self.state.inventory().devices().filter(would_do);
        owned.count() >= request.ask.devices as usize
    }

    /// Host CPU and memory that requests before this place of a service count on, where devices are kept for them; not
    /// those of the one whose guest it would be.
    pub(super) fn host_kept(
        &self,
        key: OrderKey,
        service: &Name,
        host: Option<LeaseId>,
    ) -> HostKept {
        let mut kept = HostKept::new();
        let others = self.state.keeps().values();
        for keep in others.filter(|keep| keep.lease != key.lease && Some(keep.lease) != host) {
            let Some(lease) = self.state.lease(keep.lease) else { continue };
            let constraints = &lease.request.constraints;
            let (cpu, memory) = (constraints.host_cpu_millis, constraints.host_memory_bytes);
            if (cpu == 0 && memory == 0) || !self.keeps_before(keep.lease, key, service) {
                continue;
            }
            for node in keeping::nodes_of(self.state.inventory(), &keep.devices) {
                let entry = kept.entry(node).or_default();
                *entry = (entry.0.saturating_add(cpu), entry.1.saturating_add(memory));
            }
        }
        kept
    }
}
