//! Quotas of services, and bounds on what one lease takes.
//!
//! | what is asked | answer |
//! |---|---|
//! | more than a quota or bound allows for this one lease | refused at once |
//! | more than the quota leaves now, and it may not wait | refused, to be tried again |
//! | the same, and it may wait | it waits, at most `waiting_max` of them, and is held back until the service's use falls |
//!
//! Use is what the state says at each decision, never a figure of before. Whoever is held back keeps no devices and
//! preempts nobody, and nobody of its service goes before it; quota goes with devices that are kept, and with the first
//! request of the service even if it finds none to keep, so that it does not lose it to who comes behind. PAUSED leases use none and need it again to resume; RECLAIMING ones use none.
//! A quota below what is used stops new grants and takes nothing back.

use std::{collections::VecDeque, sync::Arc};

use super::Scheduler;
use crate::{
    id::{LeaseId, Name},
    inventory::Device,
    lease::DropCause,
    order::Rank,
    output::{Output, Quota, QuotaReached, Rejection},
    placement::Site,
    policy::ServicePolicy,
    request::{InvalidField, Request, Share},
    sizes::Sizes,
    state::Keep,
    time::Time,
};

/// What a lease may count of each of its devices, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    min: u64,
    max: u64,
}

impl Limits {
    pub(super) fn allow(self, device: &Device, share: Share) -> bool {
        (self.min..=self.max).contains(&device.facts.counted_bytes(share))
    }
}

/// What a service uses of its quotas.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    leases: u64,
    devices: u64,
    memory_bytes: u64,
}

impl Used {
    /// With one lease more.
    const fn and(self, devices: u64, memory_bytes: u64) -> Self {
        Self {
            leases: self.leases.saturating_add(1),
            devices: self.devices.saturating_add(devices),
            memory_bytes: self.memory_bytes.saturating_add(memory_bytes),
        }
    }
}

impl ServicePolicy {
    const fn bounds_use(&self) -> bool {
        self.leases_max.is_some() || self.devices_max.is_some() || self.memory_max_bytes.is_some()
    }

    const fn bounds_memory(&self) -> bool {
        self.memory_max_bytes.is_some()
            || self.lease_memory_min_bytes.is_some()
            || self.lease_memory_max_bytes.is_some()
    }

    /// What a lease may count of each device, in bytes: at least, at most.
    fn bounds_per_lease(&self) -> (u64, u64) {
        let (min, max) = (self.lease_memory_min_bytes, self.lease_memory_max_bytes);
        (min.unwrap_or(0), max.unwrap_or(u64::MAX))
    }
}

impl Scheduler {
    /// What stops a request from ever being granted to its service, as it is configured.
    pub(super) fn allowed_at_all(&self, request: &Request) -> Result<(), Rejection> {
        let service = &request.holder.service;
        let policy = self.policy.service(service);
        if !policy.bounds_use() && !policy.bounds_memory() {
            return Ok(());
        }
        let (min, max) = policy.bounds_per_lease();
        if let Share::Part { memory_bytes: Some(bytes), .. } = request.ask.share
            && !(min..=max).contains(&bytes)
        {
            return Err(out_of_bounds("ask.memory_bytes", bytes.to_string(), policy, service));
        }
        let known = self.state.inventory().devices().len() > 0;
        let within =
            |sizes: &Sizes| sizes.within((min, max)).needed(u64::from(request.ask.devices));
        if policy.bounds_memory() && known && within(&self.sizes(request)).is_none() {
            let (field, value) = match request.ask.share {
                Share::Exclusive => ("ask.exclusive", "true, a whole device".to_owned()),
                Share::Part { .. } => {
                    let slots = request.ask.share.slots();
                    ("ask.slots", format!("{slots}, as much of the memory as of the slots"))
                }
            };
            return Err(out_of_bounds(field, value, policy, service));
        }
        match self.over_quota(request, Used::default()) {
            Some(reached) => Err(Rejection::QuotaReached(Box::new(reached))),
            None => Ok(()),
        }
    }

    /// A waiter that its service's settings, as they are now, never let be granted. It waits on only if it is PAUSED, for
    /// they may be changed back, and holds nobody back meanwhile.
    pub(super) fn is_hopeless(&self, request: &Request) -> bool {
        self.allowed_at_all(request).is_err()
    }

    /// The same in words.
    pub(super) fn why_hopeless(&self, request: &Request) -> String {
        let service = &request.holder.service;
        let reached = self.over_quota(request, Used::default());
        reached.map_or_else(
            || format!("the bounds of service {service} on what a lease takes do not allow it"),
            |reached| reached.to_string(),
        )
    }

    /// Waiters that the settings may have been changed for since they were written.
    pub(super) fn bounded_waiters(&self) -> VecDeque<LeaseId> {
        let bounded = |waiter: &LeaseId| {
            self.state.lease(*waiter).is_some_and(|lease| {
                let policy = self.policy.service(&lease.request.holder.service);
                policy.bounds_use() || policy.bounds_memory()
            })
        };
        self.soft.queue.all().filter(bounded).collect()
    }

    /// As many requests of a service wait as may.
    pub(super) fn waiting_reached(&self, request: &Request) -> Result<(), Rejection> {
        let service = &request.holder.service;
        let Some(limit) = self.policy.service(service).waiting_max else { return Ok(()) };
        let in_use = self.state.services().get(service).map_or(0, |it| it.held.queued);
        if in_use < limit {
            return Ok(());
        }
        Err(Rejection::QuotaReached(Box::new(QuotaReached {
            service: service.clone(),
            quota: Quota::Waiting,
            limit,
            in_use,
            wanted: 1,
            others_first: false,
        })))
    }

    /// The quota that holds a request back at its place among those of its service.
    pub(super) fn quota_reached(&self, request: &Request, rank: Rank) -> Option<QuotaReached> {
        let service = &request.holder.service;
        if !self.policy.service(service).bounds_use() {
            return None;
        }
        self.over_quota(request, self.used_before(service, rank))
    }

    /// The same, or one that holds back somebody of its service before it.
    pub(super) fn held_back(&self, request: &Request, rank: Rank) -> Option<QuotaReached> {
        let service = &request.holder.service;
        if !self.policy.service(service).bounds_use() {
            return None;
        }
        let own = self.quota_reached(request, rank);
        if own.is_some() {
            return own;
        }
        let before = self.soft.queue.firsts_of_service(service).into_iter();
        let before = before.take_while(|other| *other < rank).find_map(|other| {
            let request = &self.state.lease(other.lease)?.request;
            let reached = self.quota_reached(request, other);
            reached.filter(|_| !self.is_hopeless(request))
        });
        before.map(|reached| QuotaReached { others_first: true, ..reached })
    }

    /// The quota that a service would be over if it were granted so many leases and devices and so many bytes at once.
    pub(super) fn quota_for_many(
        &self,
        service: &Name,
        rank: Rank,
        [leases, devices, memory]: [u64; 3],
    ) -> Option<QuotaReached> {
        let (policy, used) = (self.policy.service(service), self.used_before(service, rank));
        [
            (Quota::Leases, policy.leases_max, used.leases, leases),
            (Quota::Devices, policy.devices_max, used.devices, devices),
            (Quota::Memory, policy.memory_max_bytes, used.memory_bytes, memory),
        ]
        .into_iter()
        .find_map(|(quota, limit, in_use, wanted)| {
            let (limit, service) = (limit?, service.clone());
            let reached = in_use.saturating_add(wanted) > limit;
            let others_first = false;
            reached.then_some(QuotaReached { service, quota, limit, in_use, wanted, others_first })
        })
    }

    /// What its service leaves to a request at its place, of each device; `None`: anything.
    pub(super) fn limits(&self, request: &Request, rank: Rank) -> Option<Limits> {
        let service = &request.holder.service;
        let policy = self.policy.service(service);
        if !policy.bounds_memory() {
            return None;
        }
        let (min, max) = policy.bounds_per_lease();
        let share = request.ask.share;
        if let Share::Part { slots: None, memory_bytes: Some(bytes) } = share {
            // It counts the same of every device, so that its quota is reached for all of them or for none.
            return (!(min..=max).contains(&bytes)).then_some(Limits { min, max });
        }
        let all = self.sizes(request);
        let sizes = all.within((min, max));
        let bound = policy.memory_max_bytes.map_or(Some(max), |quota| {
            let left = quota.saturating_sub(self.used_before(service, rank).memory_bytes);
            sizes.bound(u64::from(request.ask.devices), left)
        });
        let Some(bound) = bound else { return Some(Limits { min: u64::MAX, max: 0 }) };
        (!all.all_within((min, bound))).then_some(Limits { min, max: bound })
    }

    /// Nothing stays kept for those of a service who stand at this place or behind it. Answers whether anything was.
    pub(super) fn drop_keeps_behind(
        &mut self,
        service: &Name,
        rank: Rank,
        out: &mut Output,
    ) -> bool {
        let keeps = self.keeps_of(service);
        let behind: Vec<_> = keeps.filter(|(other, _)| *other >= rank).map(|(it, _)| it).collect();
        for other in &behind {
            self.drop_keep(other.lease, DropCause::Quota, Time::ZERO, out);
        }
        !behind.is_empty()
    }

    /// The device that a request prefers, or else its service.
    pub(super) fn preferred_device<'a>(&'a self, request: &'a Request) -> Option<&'a Name> {
        let own = request.constraints.preferred_device.as_ref();
        own.or_else(|| self.policy.service(&request.holder.service).preferred_device.as_ref())
    }

    /// The request with the preference of its service, where it has none of its own. It is not written into what is
    /// remembered, so that repeating a request stays the same request under another configuration (P16).
    pub(super) fn preferring(&self, request: &Request) -> Option<Request> {
        let preferred = self.preferred_device(request)?;
        let none = request.constraints.preferred_device.is_none();
        none.then(|| request.preferring(preferred.clone()))
    }

    /// What a service uses, and what is reserved for those of it who stand before a place: for whom devices are kept, and
    /// for the first of all, who may find none now.
    fn used_before(&self, service: &Name, rank: Rank) -> Used {
        let known = self.state.services().get(service);
        let mut used = known.map_or_else(Used::default, |it| Used {
            leases: it.held.leases,
            devices: it.held.devices,
            memory_bytes: it.usage.held_bytes(),
        });
        let before = |other: &Rank| other.lease != rank.lease && *other < rank;
        for (_, keep) in self.keeps_of(service).filter(|(other, _)| before(other)) {
            let share = self.state.lease(keep.lease).map(|lease| lease.request.ask.share);
            let kept = keep.devices.iter().filter_map(|id| self.state.inventory().device(*id));
            let kept = kept.zip(share.into_iter().cycle());
            let bytes = kept.map(|(device, share)| device.facts.counted_bytes(share));
            used = used.and(keep.devices.len() as u64, bytes.fold(0, u64::saturating_add));
        }
        let first = self.first_hopeful(service).filter(before);
        let Some(first) = first.filter(|first| self.state.keep_of(first.lease).is_none()) else {
            return used;
        };
        let Some(lease) = self.state.lease(first.lease) else { return used };
        let needed = self.needed(&lease.request).unwrap_or(0);
        let reserved = used.and(u64::from(lease.request.ask.devices), needed);
        // If the quota holds it back, it holds back all behind it anyway.
        if self.over_quota(&lease.request, used).is_none() { reserved } else { used }
    }

    /// The first waiter of a service whom its settings do not rule out.
    fn first_hopeful(&self, service: &Name) -> Option<Rank> {
        let hopeful = |rank: &Rank| {
            self.state.lease(rank.lease).is_some_and(|lease| !self.is_hopeless(&lease.request))
        };
        let first = self.soft.queue.first_of_service(service)?;
        if hopeful(&first) {
            return Some(first);
        }
        self.soft.queue.firsts_of_service(service).into_iter().find(hopeful)
    }

    /// A grant or a new waiter of a service may leave less of its quota than others of it keep devices by.
    pub(super) fn quota_moved(&mut self, service: &Name) {
        let keeps =
            self.policy.service(service).bounds_use() && self.keeps_of(service).next().is_some();
        self.soft.dirty |= keeps;
    }

    /// What is kept for waiters of a service, with the place as which each keeps it.
    pub(super) fn keeps_of(&self, service: &Name) -> impl Iterator<Item = (Rank, &Keep)> {
        self.state.keeps().iter().filter_map(move |(lane, keep)| {
            let waiter = self.soft.queue.waiter(keep.lease)?;
            let rank = if lane.is_owner() { waiter.rank.as_owner() } else { waiter.rank };
            (waiter.service == *service).then_some((rank, keep))
        })
    }

    fn over_quota(&self, request: &Request, used: Used) -> Option<QuotaReached> {
        let service = &request.holder.service;
        let policy = self.policy.service(service);
        let devices = u64::from(request.ask.devices);
        let memory = policy.memory_max_bytes.and_then(|_| self.needed(request)).unwrap_or(0);
        [
            (Quota::Leases, policy.leases_max, used.leases, 1),
            (Quota::Devices, policy.devices_max, used.devices, devices),
            (Quota::Memory, policy.memory_max_bytes, used.memory_bytes, memory),
        ]
        .into_iter()
        .filter_map(|(quota, limit, in_use, wanted)| {
            let (limit, service) = (limit?, service.clone());
            let reached = in_use.saturating_add(wanted) > limit;
            let others_first = false;
            reached.then_some(QuotaReached { service, quota, limit, in_use, wanted, others_first })
        })
        .next()
    }

    /// What a request takes of its service's quota of memory at the least, in bytes; `None`: there are no such devices.
    fn needed(&self, request: &Request) -> Option<u64> {
        let devices = u64::from(request.ask.devices);
        if let Share::Part { slots: None, memory_bytes } = request.ask.share {
            return Some(memory_bytes?.saturating_mul(devices));
        }
        let bounds = self.policy.service(&request.holder.service).bounds_per_lease();
        self.sizes(request).within(bounds).needed(devices)
    }

    /// The quota of memory that stops a request although devices enough are free: they are too large for what is left.
    pub(super) fn left_too_little(&self, request: &Request, rank: Rank) -> Option<QuotaReached> {
        let service = request.holder.service.clone();
        let limit = self.policy.service(&service).memory_max_bytes?;
        let (site, share) = (self.site(), request.ask.share);
        let free = self.state.inventory().devices().filter(|(id, device)| {
            device.kept_for.is_none()
                && site.exclusion(device, request).is_none()
                && site.room(*id, device).is_some_and(|room| room.fits(share))
        });
        let free: Sizes = free.map(|(_, device)| device.facts.counted_bytes(share)).collect();
        let bounds = self.policy.service(&service).bounds_per_lease();
        let wanted = free.within(bounds).needed(u64::from(request.ask.devices))?;
        let in_use = self.used_before(&service, rank).memory_bytes;
        let (quota, others_first) = (Quota::Memory, false);
        // What is free may be too large for the quota at any time: then it waits for other devices, rather than for quota.
        let reached = wanted <= limit && in_use.saturating_add(wanted) > limit;
        reached.then_some(QuotaReached { service, quota, limit, in_use, wanted, others_first })
    }

    /// What a request would count of each device that would do for it.
    fn sizes(&self, request: &Request) -> Arc<Sizes> {
        let facts = self.state.inventory().changes_of_facts();
        if let Some(known) = self.soft.sizes.borrow().of(facts, request) {
            return known;
        }
        let site: Site<'_> = self.site();
        let devices = self.state.inventory().devices().map(|(_, device)| device);
        let would_do = devices.filter(|device| site.exclusion(device, request).is_none());
        let count = |device: &Device| device.facts.counted_bytes(request.ask.share);
        let sizes: Arc<Sizes> = Arc::new(would_do.map(count).collect());
        self.soft.sizes.borrow_mut().remember(facts, request, &sizes);
        sizes
    }
}

fn out_of_bounds(
    field: &'static str,
    value: String,
    policy: &ServicePolicy,
    service: &Name,
) -> Rejection {
    let least = policy.lease_memory_min_bytes.map(|min| format!("at least {min} bytes"));
    let most = policy.lease_memory_max_bytes.map(|max| format!("at most {max} bytes"));
    let bounds: Vec<String> = least.into_iter().chain(most).collect();
    let bound = format!("{} of each device, for service {service}", bounds.join(" and "));
    Rejection::InvalidField(InvalidField::new(field, value, bound))
}
