//! What a device could give now: whether it can be granted at all, and its free slots and bytes (P8).

use std::collections::BTreeSet;

use super::Site;
use crate::{
    attribution,
    id::{DeviceId, LeaseId, Name, NodeId},
    inventory::{Device, part_of},
    request::{Process, Share},
    time::Time,
    view::DeviceCondition,
};

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
        let sample = self.measured.device(id);
        let now = self.inventory.device(id).unwrap_or(device);
        let Some(taken) = sample.and_then(|sample| sample.taken_bytes(now, device)) else {
            return u64::MAX;
        };
        device.facts.memory_ceiling_bytes().saturating_sub(taken)
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

    /// Bytes that no holding lease explains, nor the paused one that is looked at; `None`: unknown.
    pub(crate) fn foreign_bytes(&self, id: DeviceId) -> Option<u64> {
        let foreign = self.measured.device(id)?.memory.as_ref()?.foreign_bytes;
        let own = self.own.and_then(|own| own.bytes.get(&id).copied()).unwrap_or(0);
        Some(foreign.saturating_sub(own))
    }

    /// Processes of unclean ends of others are still there (P6).
    fn lingers(&self, id: DeviceId) -> bool {
        let own = self.own.and_then(|own| own.process);
        let others = |roots: &BTreeSet<Process>| roots.iter().any(|root| Some(*root) != own);
        self.lingering.get(&id).is_some_and(others)
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
        let all = (id, LeaseId(0))..=(id, LeaseId(u64::MAX));
        let parts: Vec<LeaseId> = opening.range(all).map(|(_, lease)| *lease).collect();
        if parts.is_empty() {
            return None;
        }
        let mut opened = device.clone();
        for lease in parts {
            opened.open(lease);
            opened.unhold(lease);
        }
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
        let whole = device.idle() && self.foreign_allows_whole(id) && !self.lingers(id);
        Some(Room { whole, slots, memory_bytes })
    }

    pub(crate) fn foreign_allows_whole(&self, id: DeviceId) -> bool {
        let foreign = self.foreign_bytes(id);
        foreign.map_or(self.policy.grant_unmeasured, |bytes| {
            bytes <= self.policy.exclusive_foreign_max_bytes
        })
    }
}
