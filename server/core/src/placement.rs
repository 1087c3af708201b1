//! Placement: on which devices a request goes.
//!
//! Best-fit: the device, or the node for several, with least left after the grant in the scarcest of bytes, slots
//! and whole devices; lowest index among equals. Shares are compared in thousandths, as integers.
//! The seam for other policies is [`Site::place`]: a pure function of the site and the request.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    attribution,
    id::{DeviceId, LeaseId, Name, NodeId},
    inventory::{Device, Inventory, Node, part_of},
    output::{Exclusion, Unsatisfiable},
    policy::Policy,
    request::{Ask, Process, Request, Share},
    soft::Measured,
    time::Time,
    view::DeviceCondition,
};

/// Everything that placement may look at.
#[derive(Clone, Copy)]
pub(crate) struct Site<'a> {
    pub(crate) inventory: &'a Inventory,
    pub(crate) measured: &'a Measured,
    /// Processes of unclean ends that are still there (P6).
    pub(crate) lingering: &'a BTreeMap<DeviceId, BTreeSet<Process>>,
    /// Nodes whose drivers are let go on purpose.
    pub(crate) quiesced: &'a BTreeSet<NodeId>,
    /// Closed parts to be looked at as if they were open.
    pub(crate) opening: Option<&'a BTreeSet<(DeviceId, LeaseId)>>,
    pub(crate) policy: &'a Policy,
    pub(crate) now: Time,
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) devices: Box<[DeviceId]>,
    /// How many devices would do, each by itself.
    pub(crate) fitting: usize,
}

/// What a device could still give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Room {
    /// All of it.
    pub(crate) whole: bool,
    pub(crate) slots: u64,
    pub(crate) memory_bytes: u64,
}

impl Room {
    pub(crate) fn fits(self, share: Share) -> bool {
        match share {
            Share::Exclusive => self.whole,
            Share::Part { slots, memory_bytes } => {
                slots.is_none_or(|slots| u64::from(slots) <= self.slots)
                    && memory_bytes.is_none_or(|bytes| bytes <= self.memory_bytes)
            }
        }
    }
}

/// Host CPU and memory that waiting requests with kept devices count on, by node (P10).
pub(crate) type HostKept = BTreeMap<NodeId, (u64, u64)>;

/// A device that would do, and how much would be left of it, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    /// The preferred device comes first.
    other: bool,
    left: u64,
    device: DeviceId,
}

/// Orders possible places: not the preferred device, left of device or node, whole devices left there, first device.
type Rank = (bool, u64, u64, DeviceId);

impl Site<'_> {
    /// Whether a device can be granted at all, its room aside.
    pub(crate) fn condition(&self, id: DeviceId, device: &Device) -> DeviceCondition {
        let node_lost = self.inventory.node(device.node).is_none_or(|node| node.lost);
        if device.lost.is_some() || node_lost {
            return DeviceCondition::Unavailable;
        }
        if !self.reachable(device.node) {
            return DeviceCondition::Unreachable;
        }
        if device.closed_until.is_some() {
            return DeviceCondition::Closed;
        }
        if self.quiesced.contains(&device.node) {
            return DeviceCondition::Quiesced;
        }
        let fresh = |at: Time| self.now.since(at) <= self.policy.sample_age_max;
        match self.measured.device(id) {
            Some(sample) if fresh(sample.at) => {}
            _ => return DeviceCondition::Stale,
        }
        if self.cordoned(device) { DeviceCondition::Cordoned } else { DeviceCondition::Available }
    }

    fn cordoned(&self, device: &Device) -> bool {
        device.cordon.is_some()
            || self.inventory.node(device.node).is_some_and(|node| node.cordon.is_some())
    }

    /// P8 without attribution: what is in use, and what is leased and was not seen in use yet, leaves so much below
    /// the ceiling.
    fn unattributed_free_bytes(&self, id: DeviceId, device: &Device) -> u64 {
        let Some(sample) = self.measured.device(id) else { return u64::MAX };
        let (Some(unseen), Some(reading)) = (sample.unseen_bytes(device), &sample.memory) else {
            return u64::MAX;
        };
        let used = reading.used_bytes.saturating_add(unseen);
        device.facts.memory_ceiling_bytes().saturating_sub(used)
    }

    /// The service that owns a device.
    pub(crate) fn owner(&self, id: DeviceId) -> Option<&Name> {
        if self.policy.owners.is_empty() {
            return None;
        }
        let device = self.inventory.device(id)?;
        self.policy.owner_of(&device.facts, &self.inventory.node(device.node)?.facts)
    }

    pub(crate) fn reachable(&self, node: NodeId) -> bool {
        let silence = |heard| self.now.since(heard);
        self.measured
            .node(node)
            .is_some_and(|heard| silence(heard) <= self.policy.node_unreachable_after)
    }

    /// Nothing is wrong with a device but that it was not measured since the start, or only its sum was: what is there
    /// will soon be known.
    pub(crate) fn awaits_first_sample(&self, id: DeviceId) -> bool {
        let Some(device) = self.inventory.device(id) else { return false };
        let sound = match self.condition(id, device) {
            DeviceCondition::Available => true,
            DeviceCondition::Stale => !self.cordoned(device),
            _ => false,
        };
        sound && self.measured.device(id).is_none_or(|sample| sample.awaits_pass)
    }

    /// Bytes that no holding lease explains; `None`: unknown.
    pub(crate) fn foreign_bytes(&self, id: DeviceId) -> Option<u64> {
        Some(self.measured.device(id)?.memory.as_ref()?.foreign_bytes)
    }

    /// P8, its free part: what could be granted now; `None`: unknown.
    pub(crate) fn memory_free_bytes(&self, id: DeviceId, device: &Device) -> Option<u64> {
        let foreign = match self.foreign_bytes(id) {
            Some(bytes) => bytes,
            None if self.policy.grant_unmeasured => 0,
            None => return None,
        };
        if device.exclusive > 0 {
            return Some(0);
        }
        let free = (device.facts.memory_ceiling_bytes())
            .saturating_sub(device.facts.memory_reserve_bytes.max(foreign))
            .saturating_sub(device.memory_closed_bytes())
            .saturating_sub(device.memory_used_bytes)
            .saturating_sub(self.over_use_bytes(id, device));
        let slots = u64::from(device.facts.slots);
        let shares = part_of(free, device.slots_without_bytes.min(slots), slots);
        let free =
            free.saturating_sub(shares).saturating_sub(self.over_share_bytes(id, device, free));
        Some(free.min(self.unattributed_free_bytes(id, device)))
    }

    /// What leases use above their share: Σ max(0, attributed − leased), over leases that asked for bytes and over closed
    /// parts.
    fn over_use_bytes(&self, id: DeviceId, device: &Device) -> u64 {
        let reading = self.measured.device(id).and_then(|sample| sample.memory.as_ref());
        let Some(reading) = reading else { return 0 };
        let over = |(lease, used): &(LeaseId, u64)| match device.holding.get(lease) {
            Some(Share::Part { memory_bytes: Some(leased), .. }) => used.saturating_sub(*leased),
            Some(_) => 0,
            None => device.closed.get(lease).map_or(0, |closed| {
                used.saturating_sub(attribution::size_bytes(closed.share, device))
            }),
        };
        reading.attributed.iter().map(over).fold(0, u64::saturating_add)
    }

    /// What holding leases use above their share of what remains: the same, over leases that asked for slots alone.
    fn over_share_bytes(&self, id: DeviceId, device: &Device, remains: u64) -> u64 {
        let reading = self.measured.device(id).and_then(|sample| sample.memory.as_ref());
        let Some(reading) = reading else { return 0 };
        let over = |(lease, used): &(LeaseId, u64)| match device.holding.get(lease) {
            Some(Share::Part { slots: Some(slots), memory_bytes: None }) => {
                used.saturating_sub(part_of(remains, u64::from(*slots), device.facts.slots.into()))
            }
            _ => 0,
        };
        reading.attributed.iter().map(over).fold(0, u64::saturating_add)
    }

    /// What a device could give now; `None` where it cannot be granted.
    pub(crate) fn room(&self, id: DeviceId, device: &Device) -> Option<Room> {
        match self.condition(id, device) {
            DeviceCondition::Available => {}
            DeviceCondition::Stale if self.policy.grant_unmeasured && !self.cordoned(device) => {}
            _ => return None,
        }
        if let Some(opened) = self.as_if_open(id, device) {
            return self.room_of(id, &opened);
        }
        self.room_of(id, device)
    }

    /// A device without those of its closed parts that are to be looked at as open.
    fn as_if_open(&self, id: DeviceId, device: &Device) -> Option<Device> {
        let opening = self.opening?;
        let parts: Vec<LeaseId> = (device.closed.keys().copied())
            .filter(|lease| opening.contains(&(id, *lease)))
            .collect();
        if parts.is_empty() {
            return None;
        }
        let mut opened = device.clone();
        parts.into_iter().for_each(|lease| opened.open(lease));
        Some(opened)
    }

    fn room_of(&self, id: DeviceId, device: &Device) -> Option<Room> {
        let memory_bytes = self.memory_free_bytes(id, device)?;
        let taken = device.slots_used.saturating_add(device.slots_closed());
        let slots = if device.exclusive > 0 {
            0
        } else {
            u64::from(device.facts.slots).saturating_sub(taken)
        };
        let whole =
            device.idle() && self.foreign_allows_whole(id) && !self.lingering.contains_key(&id);
        Some(Room { whole, slots, memory_bytes })
    }

    pub(crate) fn foreign_allows_whole(&self, id: DeviceId) -> bool {
        let foreign = self.foreign_bytes(id);
        foreign.map_or(self.policy.grant_unmeasured, |bytes| {
            bytes <= self.policy.exclusive_foreign_max_bytes
        })
    }

    /// What keeps a device from ever serving a request, however idle it were (P13).
    pub(crate) fn exclusion(&self, device: &Device, request: &Request) -> Option<Exclusion> {
        let node = self.inventory.node(device.node)?;
        if let Some(exclusion) = node_exclusion(node, request) {
            return Some(exclusion);
        }
        device_exclusion(device, request)
    }

    /// A node that was not heard of lately is no longer known.
    fn known(&self, id: NodeId, node: &Node) -> bool {
        let heard = self.measured.node(id).unwrap_or(node.seen_at);
        self.now.since(heard) < self.policy.node_known_for
    }

    /// Why no known node could satisfy a request even when empty; `None`: one could (P13).
    pub(crate) fn unsatisfiable(&self, request: &Request) -> Option<Unsatisfiable> {
        let wanted = request.ask.devices;
        let mut report =
            Unsatisfiable { devices: self.inventory.devices().len(), wanted, ..Default::default() };
        let mut excluded: BTreeMap<Exclusion, usize> = BTreeMap::new();
        let mut most = 0usize;
        for (id, node) in self.inventory.nodes() {
            let known = self.known(id, node);
            let mut here = 0usize;
            for device in node.devices.iter().filter_map(|id| self.inventory.device(*id)) {
                let exclusion =
                    if known { self.exclusion(device, request) } else { Some(Exclusion::NotSeen) };
                match exclusion {
                    None => here = here.saturating_add(1),
                    Some(exclusion) => {
                        let count = excluded.entry(exclusion).or_default();
                        *count = count.saturating_add(1);
                    }
                }
            }
            report.suitable = report.suitable.saturating_add(here);
            most = most.max(here);
            let found = if request.constraints.same_node { most } else { report.suitable };
            if found >= wanted as usize {
                return None;
            }
        }
        report.suitable_on_one_node = request.constraints.same_node.then_some(most);
        report.excluded = excluded.into_iter().collect();
        Some(report)
    }

    /// Where a request goes now, on devices that `open` lets it use; `None`: it does not fit.
    pub(crate) fn place(
        &self,
        request: &Request,
        host_kept: &HostKept,
        open: &dyn Fn(DeviceId, &Device) -> bool,
    ) -> Option<Place> {
        let wanted = request.ask.devices as usize;
        let mut best: Option<(Rank, Vec<DeviceId>)> = None;
        let mut scattered: Vec<(NodeId, Vec<Candidate>)> = Vec::new();
        let mut fitting = 0usize;
        for (id, node) in self.inventory.nodes() {
            if !self.host_fits(id, node, request, host_kept)
                || node_exclusion(node, request).is_some()
            {
                continue;
            }
            let mut candidates = self.candidates(node, request, open);
            fitting = fitting.saturating_add(candidates.len());
            if candidates.len() < wanted {
                if !candidates.is_empty() && !request.constraints.same_node {
                    scattered.push((id, candidates));
                }
                continue;
            }
            candidates.sort_unstable();
            candidates.truncate(wanted);
            let Some(first) = candidates.first().copied() else { continue };
            let (left, whole_left) = self.left_on_node(node, request.ask);
            let left = if wanted == 1 { first.left } else { left };
            let key = (first.other, left, whole_left, first.device);
            if best.as_ref().is_none_or(|(other, _)| key < *other) {
                best =
                    Some((key, candidates.into_iter().map(|candidate| candidate.device).collect()));
            }
        }
        let devices = match best {
            Some((_, devices)) => devices,
            None => gather(scattered, wanted)?,
        };
        Some(Place { devices: sorted(devices), fitting })
    }

    fn candidates(
        &self,
        node: &Node,
        request: &Request,
        open: &dyn Fn(DeviceId, &Device) -> bool,
    ) -> Vec<Candidate> {
        let share = request.ask.share;
        let preferred = request.constraints.preferred_device.as_ref();
        let candidate = |id: DeviceId| {
            let device = self.inventory.device(id)?;
            if !open(id, device) || device_exclusion(device, request).is_some() {
                return None;
            }
            let room = self.room(id, device).filter(|room| room.fits(share))?;
            let other = preferred != Some(&device.facts.uuid);
            Some(Candidate { other, left: left_on_device(device, room, share), device: id })
        };
        node.devices.iter().copied().filter_map(candidate).collect()
    }

    /// What would be left of a node: the scarcest of bytes, slots and whole devices, and whole devices alone.
    fn left_on_node(&self, node: &Node, ask: Ask) -> (u64, u64) {
        let (mut bytes, mut slots, mut whole) = ((0u64, 0u64), (0u64, 0u64), 0u64);
        for (id, device) in
            node.devices.iter().filter_map(|id| Some((*id, self.inventory.device(*id)?)))
        {
            let room = self.room(id, device).unwrap_or_default();
            bytes.0 = bytes.0.saturating_add(room.memory_bytes);
            bytes.1 = bytes.1.saturating_add(device.facts.memory_ceiling_bytes());
            slots.0 = slots.0.saturating_add(room.slots);
            slots.1 = slots.1.saturating_add(u64::from(device.facts.slots));
            whole = whole.saturating_add(u64::from(room.whole));
        }
        let count = u64::from(ask.devices);
        let taken_bytes = ask.share.memory_bytes().saturating_mul(count);
        let taken_slots = u64::from(ask.share.slots()).saturating_mul(count);
        let whole_left = whole.saturating_sub(count);
        let devices = u64::try_from(node.devices.len()).unwrap_or(u64::MAX);
        let scarcest = permille(bytes.0.saturating_sub(taken_bytes), bytes.1)
            .min(permille(slots.0.saturating_sub(taken_slots), slots.1))
            .min(permille(whole_left, devices));
        (scarcest, whole_left)
    }

    /// Whether a node has host CPU and memory left for a request.
    pub(crate) fn host_fits(
        &self,
        id: NodeId,
        node: &Node,
        request: &Request,
        kept: &HostKept,
    ) -> bool {
        let (cpu, memory) =
            (request.constraints.host_cpu_millis, request.constraints.host_memory_bytes);
        if cpu == 0 && memory == 0 {
            return true;
        }
        let (kept_cpu, kept_memory) = kept.get(&id).copied().unwrap_or_default();
        let fits = |total: u64, used: u64, kept: u64, wanted: u64| {
            wanted == 0 || used.saturating_add(kept).saturating_add(wanted) <= total
        };
        fits(node.facts.host_cpu_millis, node.host_cpu_used_millis, kept_cpu, cpu)
            && fits(node.facts.host_memory_bytes, node.host_memory_used_bytes, kept_memory, memory)
    }
}

/// Devices of as few nodes as may be, for a request that no single node can serve.
fn gather(mut nodes: Vec<(NodeId, Vec<Candidate>)>, wanted: usize) -> Option<Vec<DeviceId>> {
    nodes.sort_by_key(|(id, candidates)| (std::cmp::Reverse(candidates.len()), *id));
    let mut devices = Vec::new();
    for (_, mut candidates) in nodes {
        candidates.sort_unstable();
        let missing = wanted.saturating_sub(devices.len());
        devices.extend(candidates.into_iter().take(missing).map(|candidate| candidate.device));
    }
    (devices.len() == wanted).then_some(devices)
}

/// In order of number, as grants and keeps are written.
pub(crate) fn sorted(mut devices: Vec<DeviceId>) -> Box<[DeviceId]> {
    devices.sort_unstable();
    devices.into()
}

/// What would be left of a device after the grant, in the scarcer of bytes and slots; a whole device leaves nothing.
fn left_on_device(device: &Device, room: Room, share: Share) -> u64 {
    if share == Share::Exclusive {
        return 0;
    }
    let bytes = room.memory_bytes.saturating_sub(share.memory_bytes());
    let slots = room.slots.saturating_sub(u64::from(share.slots()));
    let bytes_left = permille(bytes, device.facts.memory_ceiling_bytes());
    bytes_left.min(permille(slots, u64::from(device.facts.slots)))
}

fn permille(part: u64, whole: u64) -> u64 {
    part_of(1_000, part, whole)
}

fn node_exclusion(node: &Node, request: &Request) -> Option<Exclusion> {
    let wanted = &request.constraints;
    let facts = &node.facts;
    let lacks = |(key, value): (&Name, &Name)| facts.labels.get(key) != Some(value);
    if !wanted.node_allow.is_empty() && !wanted.node_allow.contains(&facts.name) {
        Some(Exclusion::NodeAllow)
    } else if wanted.node_deny.contains(&facts.name) {
        Some(Exclusion::NodeDeny)
    } else if wanted.node_labels.iter().any(lacks) {
        Some(Exclusion::NodeLabels)
    } else if wanted.host_cpu_millis > facts.host_cpu_millis {
        Some(Exclusion::HostCpu)
    } else if wanted.host_memory_bytes > facts.host_memory_bytes {
        Some(Exclusion::HostMemory)
    } else {
        None
    }
}

fn device_exclusion(device: &Device, request: &Request) -> Option<Exclusion> {
    let wanted = &request.constraints;
    let facts = &device.facts;
    let is_model = |model: &Name| model.as_str().eq_ignore_ascii_case(facts.model.as_str());
    let is_vendor = |vendor: &Name| vendor.as_str().eq_ignore_ascii_case(facts.vendor.as_str());
    if wanted.vendor.as_ref().is_some_and(|vendor| !is_vendor(vendor)) {
        Some(Exclusion::Vendor)
    } else if !wanted.models.is_empty() && !wanted.models.iter().any(is_model) {
        Some(Exclusion::Model)
    } else if wanted
        .compute_capability_min
        .is_some_and(|min| facts.compute_capability.is_none_or(|has| has < min))
    {
        Some(Exclusion::ComputeCapability)
    } else if wanted.framework.as_ref().is_some_and(|wanted| !facts.serves(wanted)) {
        Some(Exclusion::Framework)
    } else if !wanted.device_allow.is_empty() && !wanted.device_allow.contains(&facts.uuid) {
        Some(Exclusion::DeviceAllow)
    } else if wanted.device_deny.contains(&facts.uuid) {
        Some(Exclusion::DeviceDeny)
    } else if request.ask.share.slots() > facts.slots {
        Some(Exclusion::Slots)
    } else if request.ask.share.memory_bytes()
        > facts.memory_ceiling_bytes().saturating_sub(facts.memory_reserve_bytes)
    {
        Some(Exclusion::Memory)
    } else {
        None
    }
}
