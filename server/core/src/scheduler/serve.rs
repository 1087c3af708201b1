//! Serving the queue: grants in order, and devices kept for those whose turn it is but who do not fit (P10). What is
//! kept, and whom it hits, is in `keep`.

use std::collections::BTreeSet;

use super::{Scheduler, reply};
use crate::{
    affinity::Near,
    id::{DeviceId, LeaseId, NodeId},
    inventory::Device,
    keeping,
    lease::{Basis, Why},
    order::{Class, Lane, OrderKey},
    output::{Answer, Output},
    placement::{Apart, Demand, HostKept, Place, Search, Site},
    queue::Presence,
    request::Request,
};

/// How far going through the order came.
enum Pass {
    /// To its end; with the first of each lane that does not fit.
    Whole(Vec<(OrderKey, Lane)>),
    /// One of these was granted after all, at its other place.
    Again,
    /// The batch is full.
    Cut,
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
                Pass::Whole(firsts) => {
                    for (key, lane) in &firsts {
                        self.preempt(*key, lane, out);
                    }
                    break;
                }
                Pass::Again => {}
                Pass::Cut => {
                    self.soft.rest.serve = true;
                    break;
                }
            }
        }
        // Grants, keeps and notices of this pass were all seen by it.
        self.soft.dirty = false;
    }

    fn serve_in_order(&mut self, out: &mut Output) -> Pass {
        let bound = self.soft.queue.bound();
        let mut heads = self.soft.queue.shape_heads();
        let mut firsts: Vec<(OrderKey, Lane)> = Vec::new();
        while let Some((key, shape)) = heads.pop_first() {
            if bound.is_some_and(|bound| bound < key) {
                break;
            }
            let waiter = self.soft.queue.waiter(key.lease);
            let Some(lane) = waiter.and_then(|waiter| waiter.lane_at(key)).cloned() else {
                // It was granted at its other place.
                heads.extend(self.soft.queue.first_of_shape(shape).map(|next| (next, shape)));
                continue;
            };
            if self.try_grant(key, out) {
                if firsts.iter().any(|(first, _)| first.lease == key.lease) {
                    return Pass::Again;
                }
                heads.extend(self.soft.queue.first_of_shape(shape).map(|next| (next, shape)));
                // Only behind a grant, so that every portion comes nearer to the end.
                if self.full(out) {
                    return Pass::Cut;
                }
            } else if !firsts.iter().any(|(_, other)| *other == lane) {
                self.keep_for(key, &lane, out);
                firsts.push((key, lane));
            }
        }
        Pass::Whole(firsts)
    }

    /// Grants a waiter if it fits.
    fn try_grant(&mut self, key: OrderKey, out: &mut Output) -> bool {
        let Some(request) = self.state.lease(key.lease).map(|lease| lease.request.clone()) else {
            return false;
        };
        let Some((place, class)) = self.turn_of(&request, key) else { return false };
        let basis = self.basis(key, &request, &place);
        self.drop_keeps_on(&place.devices, key.lease, out);
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
            return place.map(|place| (place, key.class()));
        }
        let own = self.soft.queue.waiter(key.lease)?.key;
        if self.soft.queue.first_by_priority() != Some(own) {
            return None;
        }
        self.place_for(request, own, true).map(|place| (place, own.class()))
    }

    /// Why these devices.
    pub(super) fn basis(&self, key: OrderKey, request: &Request, place: &Place) -> Basis {
        let uuid = |id: &DeviceId| self.state.inventory().device(*id).map(|it| &it.facts.uuid);
        let preferred = request.constraints.preferred_device.as_ref();
        let why = if self.soft.served_by_notice.contains(&key.lease) {
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
        self.place_on(&self.site(), request, key, take_over)
    }

    pub(super) fn place_on(
        &self,
        site: &Site<'_>,
        request: &Request,
        key: OrderKey,
        take_over: bool,
    ) -> Option<Place> {
        if self.soft.queue.bound().is_some_and(|bound| bound < key) {
            return None;
        }
        let service = (key.class() == Class::Owner).then_some(&request.holder.service);
        let mine = |id| service.is_none() || site.owner(id) == service;
        let near = Near::of(&self.state, request);
        let mine = |id, device: &Device| mine(id) && near.allows(id, device);
        // A part of it that the lease itself left closed would be booked twice.
        let clean = |device: &Device| !device.closed.contains_key(&key.lease);
        let own = |device: &Device| device.kept_for.is_none_or(|lease| lease == key.lease);
        let (host_kept, nodes) = (self.host_kept(key), self.nodes_with_keeps());
        let resumed = self.state.lease(key.lease).is_some_and(|it| it.first_granted_at.is_some());
        let everywhere = service.is_some() || near != Near::Anywhere || resumed;
        let apart =
            if everywhere || site.opening.is_some() { Apart::All } else { Apart::Nodes(&nodes) };
        let place = |open: &dyn Fn(DeviceId, &Device) -> bool| {
            let policy = request.placement.unwrap_or(self.policy.placement);
            let demand = Demand::of(request);
            let search = Search { demand, policy, host_kept: &host_kept, apart, open };
            self.soft.capacity.borrow_mut().place(site, &search)
        };
        let free = place(&|id, device| own(device) && mine(id, device) && clean(device));
        if free.is_some() || !take_over || nodes.is_empty() {
            return free;
        }
        place(&|id, device| self.may_take(device, key) && mine(id, device) && clean(device))
    }

    /// The nodes with devices that are kept for somebody.
    fn nodes_with_keeps(&self) -> BTreeSet<NodeId> {
        let devices = self.state.keeps().values().flat_map(|keep| keep.devices.iter());
        let node = |id: &DeviceId| Some(self.state.inventory().device(*id)?.node);
        devices.filter_map(node).collect()
    }

    /// A device is kept for nobody, for this request, or for a later one.
    pub(super) fn may_take(&self, device: &Device, key: OrderKey) -> bool {
        let Some(lease) = device.kept_for.filter(|lease| *lease != key.lease) else { return true };
        self.place_kept(lease).is_none_or(|other| key < other)
    }

    /// The place in the order as which a request keeps devices.
    fn place_kept(&self, lease: LeaseId) -> Option<OrderKey> {
        let key = self.soft.queue.waiter(lease)?.key;
        let owner = self.state.keep_of(lease).is_some_and(|(lane, _)| lane.is_owner());
        Some(if owner { key.as_owner() } else { key })
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

    /// Host CPU and memory that requests before this one count on, where devices are kept for them.
    fn host_kept(&self, key: OrderKey) -> HostKept {
        let mut kept = HostKept::new();
        for keep in self.state.keeps().values().filter(|keep| keep.lease != key.lease) {
            let Some(lease) = self.state.lease(keep.lease) else { continue };
            let constraints = &lease.request.constraints;
            let (cpu, memory) = (constraints.host_cpu_millis, constraints.host_memory_bytes);
            let earlier = self.place_kept(keep.lease).is_some_and(|other| other < key);
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
}
