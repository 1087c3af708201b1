//! Kinds of devices: those that no request and no measure can tell apart while they are idle.
//!
//! A cluster has thousands of devices and a handful of kinds, so that what depends on the kind alone (whether a
//! constraint excludes it, which share of it a request needs) is worked out once for each.

use std::{collections::BTreeMap, sync::Arc};

use super::{Demand, exclusion};
use crate::{
    id::{DeviceId, Name},
    inventory::{DeviceFacts, part_of},
    request::Share,
};

/// A whole device.
pub(super) const WHOLE: u32 = 1_000;

/// The number of a kind.
pub(super) type KindNumber = u32;

type Signature = (Name, Name, Option<(u32, u32)>, Vec<Name>, u64, u64, u32);

/// All kinds seen.
#[derive(Debug, Default)]
pub(super) struct Kinds {
    examples: Vec<Arc<DeviceFacts>>,
    numbers: BTreeMap<Signature, KindNumber>,
    /// By number of the device: its facts when it was last looked at, and their kind. Facts never change in place.
    devices: Vec<Option<(Arc<DeviceFacts>, KindNumber)>>,
}

impl Kinds {
    /// The kind of a device.
    pub(super) fn of_device(&mut self, id: DeviceId, facts: &Arc<DeviceFacts>) -> KindNumber {
        let index = id.0 as usize;
        if let Some(Some((known, kind))) = self.devices.get(index)
            && Arc::ptr_eq(known, facts)
        {
            return *kind;
        }
        let kind = self.of(facts);
        if self.devices.len() <= index {
            self.devices.resize(index.saturating_add(1), None);
        }
        if let Some(known) = self.devices.get_mut(index) {
            *known = Some((facts.clone(), kind));
        }
        kind
    }

    /// The kind of these facts.
    pub(super) fn of(&mut self, facts: &Arc<DeviceFacts>) -> KindNumber {
        let signature = (
            facts.model.clone(),
            facts.vendor.clone(),
            facts.compute_capability,
            facts.frameworks.clone(),
            facts.memory_ceiling_bytes(),
            facts.memory_reserve_bytes,
            facts.slots,
        );
        if let Some(number) = self.numbers.get(&signature) {
            return *number;
        }
        let number = u32::try_from(self.examples.len()).unwrap_or(u32::MAX);
        self.examples.push(facts.clone());
        self.numbers.insert(signature, number);
        number
    }

    pub(super) fn len(&self) -> usize {
        self.examples.len()
    }

    pub(super) fn examples(&self) -> impl Iterator<Item = &DeviceFacts> {
        self.examples.iter().map(|facts| &**facts)
    }

    /// What a request needs of a device of each kind, in thousandths; `None`: such a device never does.
    pub(super) fn needs(&self, demand: Demand<'_>) -> Vec<Option<u32>> {
        let need = |facts: &DeviceFacts| {
            exclusion::of_kind(facts, demand).is_none().then(|| need_of(demand.ask.share, facts))
        };
        self.examples().map(need).collect()
    }
}

/// Bytes of a device that leases may have at the most.
pub(super) fn leasable_bytes(facts: &DeviceFacts) -> u64 {
    facts.memory_ceiling_bytes().saturating_sub(facts.memory_reserve_bytes)
}

/// The share of a device, in thousandths and rounded up: the larger of its bytes' and its slots'.
pub(super) fn need_of(share: Share, facts: &DeviceFacts) -> u32 {
    let Share::Part { slots, memory_bytes } = share else { return WHOLE };
    let part = |wanted: u64, of: u64| {
        let wanted = u128::from(wanted).saturating_mul(u128::from(WHOLE));
        let share = wanted.div_ceil(u128::from(of.max(1)));
        u32::try_from(share).unwrap_or(WHOLE).min(WHOLE)
    };
    let slots = slots.map_or(0, |slots| part(slots.into(), facts.slots.into()));
    slots.max(memory_bytes.map_or(0, |bytes| part(bytes, leasable_bytes(facts)))).max(1)
}

/// What is free of a device, in thousandths: all of it only where it may be granted whole.
pub(super) fn free_of(room: super::room::Room, facts: &DeviceFacts) -> u32 {
    if room.whole {
        return WHOLE;
    }
    let part = |free: u64, of: u64| part_of(u64::from(WHOLE), free, of);
    let free =
        part(room.memory_bytes, leasable_bytes(facts)).min(part(room.slots, facts.slots.into()));
    u32::try_from(free).unwrap_or(WHOLE).min(WHOLE.saturating_sub(1))
}
