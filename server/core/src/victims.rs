//! The choice of victims: who has to give way on a set of devices, and on their hosts, so that a request fits (P14).
//!
//! Leases are taken away one after the other until the request fits on all devices and hosts together; then a pass
//! back, from the one that loses most, lets everybody stay who is not needed. This is done twice: once beginning with
//! those that lose least, once with those that clear most; of the two sets of victims the one that costs less is taken.
//! So one victim that covers two devices is asked rather than two that are no cheaper.
//! In all rules borrowers go first, and low classes before high ones. [`VictimRule`] says what decides among the others.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use crate::{
    id::{DeviceId, LeaseId, NodeId},
    inventory::{Device, Node},
    keeping::{nodes_of, wanted_of_host, weight},
    lease::Lease,
    order::Class,
    policy::VictimRule,
    preemption::{Answers, Loss, Preemptor},
    request::Share,
    time::{Span, Time},
};

/// Who gives way, and what that costs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Victims {
    pub(crate) leases: BTreeSet<LeaseId>,
    pub(crate) total: Total,
}

/// What several leases cost together; the smallest set goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Total {
    /// Borrowers before others and low classes before high ones, by the worst of them.
    worst: Option<(bool, Class)>,
    /// By the rule.
    cost: [u64; 3],
}

impl Total {
    /// The worst of them.
    pub(crate) const fn worst(self) -> Option<(bool, Class)> {
        self.worst
    }

    fn of(rule: VictimRule, losses: &[Loss]) -> Self {
        let lost = losses.iter().map(|loss| loss.lost).fold(Span::ZERO, Span::plus).as_millis();
        let held = losses.iter().map(|loss| loss.held).max().unwrap_or(Span::ZERO).as_millis();
        let hit = losses.iter().filter(|loss| !loss.going).count();
        let count = u64::try_from(hit).unwrap_or(u64::MAX);
        let cost = match rule {
            VictimRule::LeastLost => [lost, count, held],
            VictimRule::Fewest => [count, lost, held],
            VictimRule::Youngest => [held, count, lost],
        };
        Self { worst: losses.iter().map(|loss| (loss.not_borrower, loss.class)).max(), cost }
    }
}

/// The place of one lease among those that may go; the smallest goes first.
type Rank = (bool, Class, u64, u64);

fn rank(rule: VictimRule, loss: &Loss) -> Rank {
    let (lost, held) = (loss.lost.as_millis(), loss.held.as_millis());
    let (first, second) = match rule {
        VictimRule::LeastLost | VictimRule::Fewest => (lost, held),
        VictimRule::Youngest => (held, lost),
    };
    (loss.not_borrower, loss.class, first, second)
}

impl Preemptor<'_> {
    /// Who has to give way on these devices, and on their hosts, so that the request fits; `None`: somebody who may not
    /// be preempted is in the way.
    pub(crate) fn victims(&self, devices: &[DeviceId]) -> Option<Victims> {
        let rule = self.site.policy.victims;
        let start = Clearing::of(self, devices)?;
        if start.clear() {
            return Some(Victims { leases: BTreeSet::new(), total: Total::default() });
        }
        let losses = start.losses();
        let mut cheap: Vec<(Rank, LeaseId)> =
            losses.iter().map(|(lease, loss)| (rank(rule, loss), *lease)).collect();
        cheap.sort_unstable();
        let covers = |lease: LeaseId| Reverse(start.covers(lease));
        let mut broad: Vec<_> = (cheap.iter())
            .map(|(rank, lease)| (rank.0, rank.1, covers(*lease), *rank, *lease))
            .collect();
        broad.sort_unstable();
        let last: Vec<LeaseId> = cheap.iter().rev().map(|(_, lease)| *lease).collect();
        let orders = [
            cheap.into_iter().map(|(_, lease)| lease).collect::<Vec<_>>(),
            broad.into_iter().map(|(.., lease)| lease).collect(),
        ];
        let choices = orders.iter().filter_map(|order| {
            let leases = start.clone().choose(order, &last)?;
            let lost: Vec<Loss> =
                leases.iter().filter_map(|lease| losses.get(lease)).copied().collect();
            Some(Victims { total: Total::of(rule, &lost), leases })
        });
        choices.min_by(|one, other| (one.total, &one.leases).cmp(&(other.total, &other.leases)))
    }

    /// When a request fits on these devices if everybody there goes when it should, and which guests have to be gone then.
    pub(crate) fn start(&self, devices: &[DeviceId], answers: Answers) -> Start {
        let Some(mut clearing) = Clearing::whole(self, devices) else { return Start::NEVER };
        let (rule, everybody) = (self.site.policy.victims, clearing.everybody());
        let mut guests: Vec<(Rank, LeaseId)> = Vec::new();
        let mut others: Vec<(Time, LeaseId)> = Vec::new();
        for (id, device) in everybody {
            match self.state.lease(id).filter(|lease| self.guest(lease)) {
                Some(lease) => guests.push((rank(rule, &self.cost(lease, device)), id)),
                None => others.push((self.gone_at(id, device, answers), id)),
            }
        }
        guests.iter().for_each(|(_, guest)| clearing.go(*guest));
        others.sort_unstable();
        let mut at = Time::ZERO;
        for (gone_at, lease) in others {
            if clearing.clear() {
                break;
            }
            at = at.max(gone_at);
            clearing.go(lease);
        }
        if !clearing.clear() {
            return Start::NEVER;
        }
        // The one who loses most stays, if the others make room enough.
        guests.sort_unstable();
        let mut going = BTreeSet::new();
        for (_, guest) in guests.into_iter().rev() {
            clearing.stay(guest);
            if !clearing.clear() {
                clearing.go(guest);
                going.insert(guest);
            }
        }
        Start { at, guests: going }
    }
}

/// See [`Preemptor::start`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    /// Never, where nobody knows.
    pub(crate) at: Time,
    pub(crate) guests: BTreeSet<LeaseId>,
}

impl Start {
    const NEVER: Self = Self { at: Time::NEVER, guests: BTreeSet::new() };
}

/// Devices and hosts that a request is to fit on, as they are without some of the leases.
#[derive(Clone)]
struct Clearing<'a> {
    preemptor: &'a Preemptor<'a>,
    devices: BTreeMap<DeviceId, Device>,
    /// CPU and memory in use.
    hosts: BTreeMap<NodeId, (u64, u64)>,
    /// Where the request does not fit.
    full: BTreeSet<DeviceId>,
    full_hosts: BTreeSet<NodeId>,
}

impl<'a> Clearing<'a> {
    /// As if all that is closed there were open, and all guests were gone.
    fn of(preemptor: &'a Preemptor<'a>, ids: &[DeviceId]) -> Option<Self> {
        let mut clearing = Self::whole(preemptor, ids)?;
        for device in clearing.devices.values_mut() {
            let closed: Vec<LeaseId> = device.closed.keys().copied().collect();
            closed.into_iter().for_each(|lease| device.open(lease));
        }
        clearing.look(ids.iter().copied());
        for lease in clearing.everybody().into_keys() {
            if preemptor.state.lease(lease).is_some_and(|lease| preemptor.guest(lease)) {
                clearing.go(lease);
            }
        }
        Some(clearing)
    }

    /// As they are.
    fn whole(preemptor: &'a Preemptor<'a>, ids: &[DeviceId]) -> Option<Self> {
        let inventory = preemptor.site.inventory;
        let device = |id: &DeviceId| Some((*id, inventory.device(*id)?.clone()));
        let devices = ids.iter().map(device).collect::<Option<BTreeMap<_, _>>>()?;
        let mut hosts = BTreeMap::new();
        if wanted_of_host(preemptor.request) != (0, 0) {
            for id in nodes_of(inventory, ids) {
                let node = inventory.node(id)?;
                hosts.insert(id, (node.host_cpu_used_millis, node.host_memory_used_bytes));
            }
        }
        let (full, full_hosts) = (BTreeSet::new(), BTreeSet::new());
        let mut clearing = Self { preemptor, devices, hosts, full, full_hosts };
        clearing.look(ids.iter().copied());
        clearing.hosts.keys().copied().collect::<Vec<_>>().into_iter().for_each(|id| {
            clearing.look_at_host(id);
        });
        Some(clearing)
    }

    fn clear(&self) -> bool {
        self.full.is_empty() && self.full_hosts.is_empty()
    }

    /// Looks again where the request fits.
    fn look(&mut self, devices: impl Iterator<Item = DeviceId>) {
        let share = self.preemptor.request.ask.share;
        for id in devices {
            let Some(device) = self.devices.get(&id) else { continue };
            let fits = self.preemptor.site.room(id, device).is_some_and(|room| room.fits(share));
            if fits {
                self.full.remove(&id)
            } else {
                self.full.insert(id)
            };
        }
    }

    fn look_at_host(&mut self, id: NodeId) {
        let (cpu, memory) = wanted_of_host(self.preemptor.request);
        let Some(used) = self.hosts.get(&id) else { return };
        let Some(node) = self.preemptor.site.inventory.node(id) else { return };
        let fits = |total: u64, used: u64, wanted: u64| {
            wanted == 0 || used.saturating_add(wanted) <= total
        };
        let fits = fits(node.facts.host_cpu_millis, used.0, cpu)
            && fits(node.facts.host_memory_bytes, used.1, memory);
        if fits {
            self.full_hosts.remove(&id)
        } else {
            self.full_hosts.insert(id)
        };
    }

    /// Whoever holds or closes any of it, each with a device by which it does.
    fn everybody(&self) -> BTreeMap<LeaseId, DeviceId> {
        let mut all = BTreeMap::new();
        for (id, device) in &self.devices {
            let leases = device.holding.keys().chain(device.closed.keys());
            leases.for_each(|lease| {
                all.entry(*lease).or_insert(*id);
            });
        }
        for (lease, device, _) in self.hosted() {
            all.entry(lease.id).or_insert(device);
        }
        all
    }

    /// Leases that take CPU or memory of the hosts.
    fn hosted(&self) -> Vec<(&'a Lease, DeviceId, &'a Node)> {
        let (inventory, state) = (self.preemptor.site.inventory, self.preemptor.state);
        let mut all = Vec::new();
        for node in self.hosts.keys().filter_map(|id| inventory.node(*id)) {
            let mut seen = BTreeSet::new();
            for (id, device) in
                node.devices.iter().filter_map(|id| Some((*id, inventory.device(*id)?)))
            {
                let new = device.holding.keys().filter(|lease| seen.insert(**lease));
                let leases = new.filter_map(|lease| state.lease(*lease));
                let takes = |lease: &&Lease| wanted_of_host(&lease.request) != (0, 0);
                all.extend(leases.filter(takes).map(|lease| (lease, id, node)));
            }
        }
        all
    }

    /// What each lease that may go costs: the least, where it is in the way in several places.
    fn losses(&self) -> BTreeMap<LeaseId, Loss> {
        let rule = self.preemptor.site.policy.victims;
        let on_devices = (self.devices.iter()).flat_map(|(id, device)| {
            device
                .holding
                .keys()
                .filter_map(|lease| Some((*lease, self.preemptor.loss(*lease, *id)?)))
        });
        // Guests are gone already, from the hosts too.
        let mut hosted = self.hosted();
        hosted.retain(|(lease, ..)| !self.preemptor.guest(lease));
        let on_hosts = (hosted.iter())
            .filter_map(|(lease, _, node)| Some((lease.id, self.preemptor.loss_on(lease, node)?)));
        let mut losses: BTreeMap<LeaseId, Loss> = BTreeMap::new();
        for (lease, loss) in on_devices.chain(on_hosts) {
            let least = losses.entry(lease).or_insert(loss);
            if rank(rule, &loss) < rank(rule, least) {
                *least = loss;
            }
        }
        losses
    }

    /// On how many devices where the request does not fit a lease is in the way, and by how much.
    fn covers(&self, id: LeaseId) -> (usize, (bool, u64, u32)) {
        let full = self.full.iter().filter_map(|device| self.devices.get(device));
        let shares: Vec<Share> =
            full.filter_map(|device| device.holding.get(&id)).copied().collect();
        let heaviest = shares.iter().copied().map(weight).max().unwrap_or_default();
        (shares.len(), heaviest)
    }

    /// Those that go in this order, until the request fits; without those that may stay after all, tried in the order of
    /// `last`.
    fn choose(mut self, order: &[LeaseId], last: &[LeaseId]) -> Option<BTreeSet<LeaseId>> {
        let mut gone = BTreeSet::new();
        for lease in order {
            if self.clear() {
                break;
            }
            if self.in_the_way(*lease) {
                self.go(*lease);
                gone.insert(*lease);
            }
        }
        if !self.clear() {
            return None;
        }
        for lease in last {
            if !gone.contains(lease) {
                continue;
            }
            self.stay(*lease);
            if self.clear() {
                gone.remove(lease);
            } else {
                self.go(*lease);
            }
        }
        Some(gone)
    }

    fn in_the_way(&self, id: LeaseId) -> bool {
        let full = self.full.iter().filter_map(|device| self.devices.get(device));
        let on_device = full.into_iter().any(|device| device.holding.contains_key(&id));
        on_device || self.hosts_of(id).iter().any(|(node, _)| self.full_hosts.contains(node))
    }

    /// The hosts here of which a lease takes something, and how much.
    fn hosts_of(&self, id: LeaseId) -> Vec<(NodeId, (u64, u64))> {
        let Some(lease) = self.preemptor.state.lease(id).filter(|lease| lease.state.holds()) else {
            return Vec::new();
        };
        let taken = wanted_of_host(&lease.request);
        if taken == (0, 0) || self.hosts.is_empty() {
            return Vec::new();
        }
        let nodes = nodes_of(self.preemptor.site.inventory, &lease.devices);
        nodes
            .into_iter()
            .filter(|node| self.hosts.contains_key(node))
            .map(|it| (it, taken))
            .collect()
    }

    fn go(&mut self, id: LeaseId) {
        let mut touched = Vec::new();
        for (device, bare) in &mut self.devices {
            let closed = bare.closed.contains_key(&id);
            bare.open(id);
            if bare.unhold(id).is_some() || closed {
                touched.push(*device);
            }
        }
        self.look(touched.into_iter());
        self.change_hosts(id, u64::saturating_sub);
    }

    fn stay(&mut self, id: LeaseId) {
        let mut touched = Vec::new();
        for (device, bare) in &mut self.devices {
            let held = self.preemptor.site.inventory.device(*device);
            if let Some(share) = held.and_then(|held| held.holding.get(&id)) {
                let token = bare.token;
                bare.hold(id, *share, token);
                touched.push(*device);
            }
        }
        self.look(touched.into_iter());
        self.change_hosts(id, u64::saturating_add);
    }

    fn change_hosts(&mut self, id: LeaseId, by: fn(u64, u64) -> u64) {
        for (node, (cpu, memory)) in self.hosts_of(id) {
            if let Some(used) = self.hosts.get_mut(&node) {
                *used = (by(used.0, cpu), by(used.1, memory));
            }
            self.look_at_host(node);
        }
    }
}
