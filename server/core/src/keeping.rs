//! Keeping: devices set aside for the first request of a priority that does not fit, so that it does not starve (P10).
//!
//! It chooses the set with the fewest leases in its way, on the devices and on their hosts, then the lowest index. A
//! request that may preempt (P14) first looks for a set with nobody in its way whom it may not, then for the victims
//! that lose least: `preemption` says who is which. The choice is an event, so that it stands until the request is
//! granted or leaves, a request earlier in the order takes it over, something other than leases comes in its way, or it
//! lapses.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use crate::{
    id::{DeviceId, LeaseId, NodeId},
    inventory::{Device, Inventory, Node},
    lease::Lease,
    placement::{Site, sorted},
    preemption::{Answers, Preemptor},
    request::{Request, Share},
    time::{Span, Time},
    victims::{Total, Victims},
};

/// Devices to keep, and when what holds them is forecast to be over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) devices: Box<[DeviceId]>,
    /// How many leases in the way may not be preempted.
    pub(crate) stubborn: usize,
    /// `None`: at least one lease in the way did not say how long it will hold.
    pub(crate) forecast: Option<Time>,
}

impl Choice {
    /// When the keep lapses: after `keep_max`, or when everything in its way should be gone, whichever is later.
    pub(crate) fn lapses_at(&self, now: Time, keep_max: Span) -> Time {
        let limit = now.after(keep_max);
        self.forecast.map_or(limit, |forecast| forecast.max(limit))
    }
}

/// What stands in the way on one device; the smallest is chosen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Obstacle {
    /// Leases that may not be preempted.
    stubborn: usize,
    /// What the others would lose, where all in the way may be preempted.
    loss: Total,
    leases: usize,
    device: DeviceId,
    /// When it should be over; never, where nobody said.
    until: Time,
    /// Those who would have to go, where all in the way may be preempted.
    victims: BTreeSet<LeaseId>,
}

/// A set of devices, as it is compared with others: stubborn leases, loss, leases.
type Rank = (usize, Total, usize);

/// Chooses devices for a request among those that `open` lets it keep.
pub(crate) fn choose(
    preemptor: &Preemptor<'_>,
    open: &dyn Fn(DeviceId, &Device) -> bool,
) -> Option<Choice> {
    let (site, request) = (preemptor.site, preemptor.request);
    let mut all: Vec<Obstacle> = Vec::new();
    let mut best: Option<(Rank, Vec<Obstacle>)> = None;
    let mut consider = |obstacles: Vec<Obstacle>| {
        for set in sets(preemptor, obstacles) {
            let rank = rank(preemptor, &set);
            if best.as_ref().is_none_or(|(least, _)| rank < *least) {
                best = Some((rank, set));
            }
        }
    };
    for (_, node) in site.inventory.nodes() {
        let host = Host::of(preemptor, node);
        let here = (node.devices.iter())
            .filter_map(|id| obstacle(preemptor, *id, node, &host, open))
            .collect();
        if request.constraints.same_node {
            consider(here);
        } else {
            all.extend(here);
        }
    }
    if !request.constraints.same_node {
        consider(all);
    }
    let ((stubborn, ..), chosen) = best?;
    let until = chosen.iter().map(|obstacle| obstacle.until).max().unwrap_or(Time::ZERO);
    let forecast = (until < Time::NEVER).then_some(until);
    let devices = sorted(chosen.into_iter().map(|obstacle| obstacle.device).collect());
    Some(Choice { stubborn, devices, forecast })
}

/// Sets of as many devices as are wanted: those with the least in the way, and, where several have to be cleared, those
/// that one victim clears together.
fn sets(preemptor: &Preemptor<'_>, mut obstacles: Vec<Obstacle>) -> Vec<Vec<Obstacle>> {
    let wanted = preemptor.request.ask.devices as usize;
    if obstacles.len() < wanted {
        return Vec::new();
    }
    obstacles.sort_unstable();
    let least = obstacles.iter().take(wanted).cloned().collect();
    if wanted == 1 || !preemptor.may_preempt() {
        return vec![least];
    }
    let mut clears: BTreeMap<LeaseId, usize> = BTreeMap::new();
    for victim in obstacles.iter().flat_map(|obstacle| &obstacle.victims) {
        let count = clears.entry(*victim).or_default();
        *count = count.saturating_add(1).min(wanted);
    }
    let broadest = |obstacle: &Obstacle| {
        let victims = obstacle.victims.iter();
        let most = victims.filter_map(|victim| Some((*clears.get(victim)?, Reverse(*victim))));
        (obstacle.stubborn, obstacle.loss.worst(), Reverse(most.max()))
    };
    obstacles.sort_by_cached_key(broadest);
    obstacles.truncate(wanted);
    vec![least, obstacles]
}

/// Of sets with nobody stubborn in the way the one that costs less is better, then the one with fewer leases.
fn rank(preemptor: &Preemptor<'_>, set: &[Obstacle]) -> Rank {
    let sum = |of: fn(&Obstacle) -> usize| set.iter().map(of).fold(0, usize::saturating_add);
    let stubborn = sum(|obstacle| obstacle.stubborn);
    let devices: Vec<DeviceId> = set.iter().map(|obstacle| obstacle.device).collect();
    let preempts = stubborn == 0 && preemptor.may_preempt();
    let victims = if preempts { preemptor.victims(&devices) } else { None };
    (stubborn, victims.map(|victims| victims.total).unwrap_or_default(), sum(|it| it.leases))
}

/// Whether leases alone keep a request from a device: were they gone, it would fit.
pub(crate) fn only_leases_in_the_way(site: &Site<'_>, request: &Request, id: DeviceId) -> bool {
    let Some(device) = site.inventory.device(id) else { return false };
    let bare = Device {
        lost: device.lost.clone(),
        closed_until: device.closed_until,
        cordon: device.cordon.clone(),
        ..Device::new(device.facts.clone(), device.node)
    };
    site.exclusion(device, request).is_none()
        && site.room(id, &bare).is_some_and(|room| room.fits(request.ask.share))
}

fn obstacle(
    preemptor: &Preemptor<'_>,
    id: DeviceId,
    node: &Node,
    host: &Host<'_>,
    open: &dyn Fn(DeviceId, &Device) -> bool,
) -> Option<Obstacle> {
    let (site, request) = (preemptor.site, preemptor.request);
    let device = site.inventory.device(id)?;
    if !open(id, device) || !only_leases_in_the_way(site, request, id) {
        return None;
    }
    let mut bare = device.clone();
    let mut gone: Vec<LeaseId> = Vec::new();
    for lease in removal_order(preemptor, id, device) {
        if site.room(id, &bare).is_some_and(|room| room.fits(request.ask.share)) {
            break;
        }
        bare.open(lease);
        bare.unhold(lease);
        gone.push(lease);
    }
    let mut stubborn = gone.iter().filter(|lease| preemptor.loss(**lease, id).is_none()).count();
    for taker in host.in_the_way(request, &gone) {
        stubborn = stubborn.saturating_add(usize::from(preemptor.loss_on(taker, node).is_none()));
        gone.push(taker.id);
    }
    let gone_at = |lease: &LeaseId| preemptor.gone_at(*lease, id, Answers::InTime);
    let until = gone.iter().map(gone_at).max().unwrap_or(Time::ZERO);
    let preempts = stubborn == 0 && preemptor.may_preempt();
    let victims = if preempts { preemptor.victims(&[id]) } else { None };
    let Victims { leases: victims, total: loss } = victims.unwrap_or_default();
    Some(Obstacle { stubborn, loss, leases: gone.len(), device: id, until, victims })
}

/// The host of a node, and the leases that take CPU or memory of it.
pub(crate) struct Host<'a> {
    node: &'a Node,
    takers: Vec<&'a Lease>,
}

impl<'a> Host<'a> {
    /// Those that may be preempted come first, and of these the largest: so the fewest have to go.
    pub(crate) fn of(preemptor: &Preemptor<'a>, node: &'a Node) -> Self {
        let (site, state, request) = (preemptor.site, preemptor.state, preemptor.request);
        let mut takers: Vec<&Lease> = Vec::new();
        if wanted_of_host(request) != (0, 0) {
            let devices = node.devices.iter().filter_map(|id| site.inventory.device(*id));
            let held: BTreeSet<LeaseId> =
                devices.flat_map(|device| device.holding.keys().copied()).collect();
            takers.extend(held.into_iter().filter_map(|id| state.lease(id)));
            takers.retain(|lease| wanted_of_host(&lease.request) != (0, 0));
            takers.sort_by_cached_key(|lease| {
                let stubborn = preemptor.loss_on(lease, node).is_none();
                (stubborn, Reverse(wanted_of_host(&lease.request)), lease.id)
            });
        }
        Self { node, takers }
    }

    /// The leases that have to go besides those that go anyway, so that a request fits.
    pub(crate) fn in_the_way(&self, request: &Request, gone: &[LeaseId]) -> Vec<&'a Lease> {
        let (facts, (cpu, memory)) = (&self.node.facts, wanted_of_host(request));
        let mut used = (self.node.host_cpu_used_millis, self.node.host_memory_used_bytes);
        let (going, others): (Vec<&Lease>, Vec<&Lease>) =
            self.takers.iter().partition(|lease| gone.contains(&lease.id));
        let take = |used: (u64, u64), lease: &Lease| {
            let (cpu, memory) = wanted_of_host(&lease.request);
            (used.0.saturating_sub(cpu), used.1.saturating_sub(memory))
        };
        used = going.into_iter().fold(used, take);
        let mut in_the_way = Vec::new();
        for lease in others {
            let cpu_fits = cpu == 0 || used.0.saturating_add(cpu) <= facts.host_cpu_millis;
            let memory_fits =
                memory == 0 || used.1.saturating_add(memory) <= facts.host_memory_bytes;
            if cpu_fits && memory_fits {
                break;
            }
            used = take(used, lease);
            in_the_way.push(lease);
        }
        in_the_way
    }
}

pub(crate) fn wanted_of_host(request: &Request) -> (u64, u64) {
    (request.constraints.host_cpu_millis, request.constraints.host_memory_bytes)
}

/// Those that go by themselves or may be preempted, then the largest first: so the fewest have to go.
fn removal_order(preemptor: &Preemptor<'_>, id: DeviceId, device: &Device) -> Vec<LeaseId> {
    let held = device.holding.iter().map(|(lease, share)| (*lease, *share));
    let closed = device.closed.iter().map(|(lease, closed)| (*lease, closed.share));
    let mut all: Vec<_> = held.chain(closed).collect();
    let stubborn = |lease: LeaseId| preemptor.may_preempt() && preemptor.loss(lease, id).is_none();
    all.sort_by_cached_key(|(lease, share)| (stubborn(*lease), Reverse(weight(*share)), *lease));
    all.into_iter().map(|(lease, _)| lease).collect()
}

pub(crate) fn weight(share: Share) -> (bool, u64, u32) {
    (share == Share::Exclusive, share.memory_bytes(), share.slots())
}

/// When a lease should be over by what its holder expected; never, where it said nothing.
pub(crate) fn forecast_end(lease: &Lease) -> Time {
    match (lease.granted_at, lease.request.expected_duration) {
        (Some(granted), Some(expected)) => granted.after(expected),
        _ => Time::NEVER,
    }
}

/// When a lease is over at the latest; never, where it has no longest lifetime.
pub(crate) fn lifetime_end(lease: &Lease) -> Time {
    match (lease.first_granted_at, lease.request.lifetime_max) {
        (Some(granted), Some(lifetime)) => granted.after(lifetime),
        _ => Time::NEVER,
    }
}

/// The nodes of a set of devices, each once.
pub(crate) fn nodes_of(inventory: &Inventory, devices: &[DeviceId]) -> Vec<NodeId> {
    let node = |id: &DeviceId| inventory.device(*id).map(|device| device.node);
    let mut nodes: Vec<NodeId> = devices.iter().filter_map(node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}
