//! Why a lease stands where it does: what it waits for and how long, or why it got the devices it has.

use std::collections::BTreeMap;

use super::Scheduler;
use crate::{
    affinity::Near,
    id::{DeviceId, LeaseId, NodeId},
    inventory::Device,
    lease::{Lease, State as LeaseState},
    notice::Cause,
    order::Lane,
    output::QuotaReached,
    placement::HostKept,
    preemption::{Answers, Bar, Preemptor},
    queue::Waiter,
    request::Request,
    time::{Span, Time},
    view::{BLOCKING_MAX, Blocking, DeviceCondition, Explanation, ProcessView, Waiting},
};

/// The forecast of a request behind others looks at so many devices in its way: 256 × some 10 µs are 3 ms.
const FORECAST_DEVICES_MAX: usize = 256;

impl Scheduler {
    /// Explains one lease; `None`: there is no such lease, or its record is gone.
    #[must_use]
    pub fn explain(&self, id: LeaseId) -> Option<Explanation> {
        let lease = self.state.lease(id)?;
        Some(Explanation {
            lease: self.lease_view_of(id),
            waiting: lease.state.waits().then(|| self.waiting(lease)),
            basis: lease.basis,
        })
    }

    fn waiting(&self, lease: &Lease) -> Waiting {
        let inventory = self.state.inventory();
        let mut waiting = Waiting { known: inventory.devices().len(), ..Waiting::default() };
        let mut excluded: BTreeMap<&'static str, usize> = BTreeMap::new();
        let mut in_the_way: Vec<DeviceId> = Vec::new();
        let own = self.own_use(lease.id);
        let site = self.site_for(&own);
        let near = Near::of(&self.state, &lease.request);
        let rank = self.soft.queue.waiter(lease.id).map(Waiter::first_rank);
        let limits = rank.and_then(|rank| self.limits(&lease.request, rank));
        for (id, device) in inventory.devices() {
            if let Some(exclusion) = site.exclusion(device, &lease.request) {
                count(&mut excluded, exclusion.field());
                continue;
            }
            waiting.suitable = waiting.suitable.saturating_add(1);
            if limits.is_some_and(|limits| !limits.allow(device, lease.request.ask.share)) {
                count(&mut excluded, "above what its service's quotas and bounds leave to it");
                continue;
            }
            match self.hindrance((id, device), (lease.id, &lease.request), &near) {
                None => waiting.fitting = waiting.fitting.saturating_add(1),
                Some(what) => {
                    count(&mut excluded, what);
                    // What is held where its affinity keeps it from is not in its way.
                    if near.allows(id, device) {
                        in_the_way.push(id);
                    }
                }
            }
        }
        waiting.excluded = excluded.into_iter().collect();
        self.add_forecast(lease, &in_the_way, &mut waiting);
        self.add_blocking(lease, in_the_way, &mut waiting);
        waiting
    }

    /// Why a device that would do does not do now.
    pub(super) fn hindrance(
        &self,
        (id, device): (DeviceId, &Device),
        (waiter, request): (LeaseId, &Request),
        near: &Near,
    ) -> Option<&'static str> {
        let own = self.own_use(waiter);
        let site = self.site_for(&own);
        match site.condition(id, device) {
            DeviceCondition::Available => {}
            DeviceCondition::Stale if self.policy.grant_unmeasured => {}
            DeviceCondition::Stale => return Some("not measured lately"),
            DeviceCondition::Unreachable => return Some("node unreachable"),
            DeviceCondition::Unavailable => return Some("device or node lost"),
            DeviceCondition::Closed => return Some("closed after an import of the journal"),
            DeviceCondition::Quiesced => return Some("its driver is let go on purpose"),
            DeviceCondition::Cordoned => return Some("cordoned"),
        }
        if !near.allows(id, device) {
            return Some("others with its affinity key are elsewhere");
        }
        let kept = device.kept_for.is_some_and(|other| other != waiter);
        let share = request.ask.share;
        if site.room(id, device).is_some_and(|room| room.fits(share)) {
            if kept {
                return Some("kept for a request before it");
            }
            let node = site.inventory.node(device.node)?;
            let fits = site.host_fits(device.node, node, &request.constraints, &HostKept::new());
            return (!fits).then_some("too little host CPU or memory is left");
        }
        let mut bare = device.clone();
        device.closed.keys().for_each(|part| bare.open(*part));
        if site.room(id, &bare).is_some_and(|room| room.fits(share)) {
            return Some("closed until a former lease is proven gone");
        }
        device.holding.keys().for_each(|holder| {
            bare.unhold(*holder);
        });
        let alone = site.room(id, &bare).is_some_and(|room| room.fits(share));
        Some(if alone { "held by other leases" } else { "foreign memory" })
    }

    /// Leases in its way: on devices kept for it first.
    fn add_blocking(&self, lease: &Lease, devices: Vec<DeviceId>, waiting: &mut Waiting) {
        let kept = self.state.keep_of(lease.id).map(|(_, keep)| keep.devices.clone());
        let kept = kept.unwrap_or_default();
        let others = devices.into_iter().filter(|id| !kept.contains(id));
        let own = self.own_use(lease.id);
        let site = self.site_for(&own);
        let lane = self.state.keep_of(lease.id).map(|(lane, _)| lane.clone());
        let lane = lane.unwrap_or(Lane::Of(lease.request.priority));
        let preemptor = self.preemptor(&site, &lane, lease.id, &lease.request);
        for id in kept.iter().copied().chain(others) {
            let Some(device) = self.state.inventory().device(id) else { continue };
            for holder in device.holding.keys().chain(device.closed.keys()) {
                if waiting.blocking.len() >= BLOCKING_MAX {
                    return;
                }
                waiting.blocking.extend(self.blocking(lease, *holder, id, &preemptor));
            }
        }
    }

    fn blocking(
        &self,
        waiter: &Lease,
        id: LeaseId,
        device: DeviceId,
        preemptor: &Preemptor<'_>,
    ) -> Option<Blocking> {
        let lease = self.state.lease(id)?;
        let gone = preemptor.gone_at(id, device, Answers::InTime);
        let noticed = (self.soft.noticed_for.get(&Cause::Preemption(waiter.id)))
            .is_some_and(|noticed| noticed.contains_key(&id));
        let preemption = match lease.state {
            _ if noticed => "was given notice for it",
            _ if preemptor.guest(lease) => "was let in while it waits, and goes in time",
            LeaseState::Pausing => "has a notice for another",
            LeaseState::Active => match preemptor.bar(lease, device) {
                None if self.state.keep_of(waiter.id).is_none() => "may be preempted in its turn",
                None => "may be preempted, and is not needed",
                Some(Bar::Never) => "may never be preempted",
                Some(Bar::Priority) => "stands as high",
                Some(Bar::MinimumHold) => "is within its minimum hold",
                Some(Bar::Shielded) => "was preempted too often of late",
            },
            _ => "is over, its part is still closed",
        };
        Some(Blocking {
            lease: id,
            request: lease.request.clone(),
            state: lease.state,
            device: self.device_name(device)?.facts.uuid.clone(),
            forecast: (gone < Time::NEVER).then(|| gone.since(self.now())),
            preemption,
        })
    }

    fn add_forecast(&self, lease: &Lease, in_the_way: &[DeviceId], waiting: &mut Waiting) {
        let Some((lane, keep)) = self.state.keep_of(lease.id) else {
            let first = self
                .soft
                .queue
                .waiter(lease.id)
                .and_then(|waiter| self.key_at(waiter.rank))
                .is_none_or(|key| self.places().before(key) == 0);
            if let Some(reached) = self.quota_before(lease) {
                waiting.forecast_basis = reached.to_string();
            } else if first {
                waiting.forecast_basis =
                    "something other than leases is in its way, or what it waited for in vain is not \
                     kept for it for a while"
                        .to_owned();
            } else {
                self.add_earliest(lease, in_the_way, waiting);
            }
            return;
        };
        let own = self.own_use(lease.id);
        let site = self.site_for(&own);
        let preemptor = self.preemptor(&site, lane, lease.id, &lease.request);
        let latest = preemptor.start(&keep.devices, Answers::InTime).at;
        if latest == Time::NEVER {
            waiting.forecast_basis =
                "a lease on the devices kept for it did not say how long it will hold".to_owned();
        } else {
            let left: Span = latest.since(self.now());
            waiting.forecast = Some(left);
            waiting.forecast_basis =
                "notices, closed parts and expected durations on the devices kept for it"
                    .to_owned();
        }
    }

    /// The earliest at which enough devices could be free for a request that others go before.
    fn add_earliest(&self, lease: &Lease, in_the_way: &[DeviceId], waiting: &mut Waiting) {
        let request = &lease.request;
        let site = self.site();
        let lane = Lane::Of(request.priority);
        let preemptor = self.preemptor(&site, &lane, lease.id, request);
        let key_of = |id: LeaseId| self.key_at(self.soft.queue.waiter(id)?.first_rank());
        let free_at = |id: DeviceId| {
            let device = self.state.inventory().device(id)?;
            let clear = preemptor.start(&[id], Answers::InTime).at;
            // Whoever it is kept for has it first, unless it stands behind.
            let keeper = device.kept_for.filter(|keeper| key_of(*keeper) < key_of(lease.id));
            let keeper = keeper.and_then(|keeper| self.state.lease(keeper));
            let held = keeper.map_or(Some(Span::ZERO), |it| it.request.expected_duration);
            Some((device.node, clear.after(held?)))
        };
        let looked_at = in_the_way.iter().take(FORECAST_DEVICES_MAX);
        let mut by_node: BTreeMap<Option<NodeId>, Vec<Time>> = BTreeMap::new();
        for (node, at) in looked_at.filter_map(|id| free_at(*id)) {
            let together = request.constraints.same_node.then_some(node);
            by_node.entry(together).or_default().push(at);
        }
        let free_now = if request.constraints.same_node { 0 } else { waiting.fitting };
        let wanted = (request.ask.devices as usize).saturating_sub(free_now);
        let earliest = |mut times: Vec<Time>| {
            times.sort_unstable();
            times.get(wanted.checked_sub(1)?).copied()
        };
        let at = if wanted == 0 {
            Some(self.now())
        } else {
            by_node.into_values().filter_map(earliest).min().filter(|at| *at < Time::NEVER)
        };
        let before = match in_the_way.len() {
            all if all > FORECAST_DEVICES_MAX => format!(
                "requests before it go first; the first {FORECAST_DEVICES_MAX} of {all} devices were looked at"
            ),
            _ => "requests before it go first".to_owned(),
        };
        waiting.forecast = at.map(|at| at.since(self.now()));
        waiting.forecast_basis = match at {
            Some(_) => format!(
                "at the earliest, by expected durations, notices and closed parts on devices that would do; {before}"
            ),
            None => format!(
                "{before}, and too few of those that hold devices that would do said for how long"
            ),
        };
    }

    /// The quota that holds a waiter back.
    fn quota_before(&self, lease: &Lease) -> Option<QuotaReached> {
        let rank = self.soft.queue.waiter(lease.id)?.first_rank();
        self.held_back(&lease.request, rank)
    }

    /// The processes on one device by its newest pass, each with the lease that explains it.
    #[must_use]
    pub fn processes(&self, id: DeviceId) -> Vec<ProcessView> {
        let Some(named) = self.device_name(id) else { return Vec::new() };
        let Some(device) = self.state.inventory().device(id) else { return Vec::new() };
        let pass = self.soft.measured.device(id).and_then(|sample| sample.pass.as_ref());
        let mut holders = BTreeMap::new();
        for lease in device.holding.keys().filter_map(|lease| self.state.lease(*lease)) {
            holders.entry(lease.request.process).or_insert(lease.id);
        }
        let view = |used: &crate::input::ProcessUse| ProcessView {
            node: named.node.clone(),
            device: named.facts.uuid.clone(),
            process: used.process,
            uid: used.uid,
            command: used.command.clone(),
            bytes: used.bytes,
            // What is in no declared tree is charged to leases that declared no process.
            lease: holders.get(&used.root).copied(),
            root: used.root,
        };
        pass.map(|pass| pass.processes.iter().map(view).collect()).unwrap_or_default()
    }
}

pub(super) fn count(excluded: &mut BTreeMap<&'static str, usize>, what: &'static str) {
    let entry = excluded.entry(what).or_default();
    *entry = entry.saturating_add(1);
}
