//! What the board measures devices and requests by: how full a device is, and whether it could ever do.

use std::collections::BTreeMap;

use super::Bucket;
use crate::{
    id::{DeviceId, Name},
    inventory::{Device, part_of},
    placement::{Room, Site},
    request::{Ask, Constraints, Request, RequestFields, Share},
};

/// The load of a device now, in thousandths.
pub(crate) fn load_permille(site: &Site<'_>, id: DeviceId, device: &Device) -> u64 {
    let room = site.room(id, device).unwrap_or_default();
    bucket_of(0, room, device).load
}

pub(crate) fn serves_all(device: &Device, frameworks: &[Name]) -> bool {
    frameworks.iter().all(|framework| device.facts.serves(framework))
}

/// A request without what names single nodes and devices, or asks for labels and hosts; and without how much it takes,
/// in which those of one shape differ.
pub(super) fn of_kinds(request: &Request) -> Option<Request> {
    let constraints = Constraints {
        device_allow: Vec::new(),
        device_deny: Vec::new(),
        node_allow: Vec::new(),
        node_deny: Vec::new(),
        node_labels: BTreeMap::new(),
        host_cpu_millis: 0,
        host_memory_bytes: 0,
        ..request.constraints.clone()
    };
    let fields: &RequestFields = request;
    let ask = Ask { devices: 1, share: Share::Exclusive };
    RequestFields { constraints, ask, ..fields.clone() }.validate().ok()
}

/// What leases may count of a device, in bytes: an idle one is not loaded by what is kept back.
fn leasable_bytes(device: &Device) -> u64 {
    device.facts.memory_ceiling_bytes().saturating_sub(device.facts.memory_reserve_bytes)
}

/// Whether a device that is held whole is large enough for the steps that say how much they take.
pub(crate) fn is_large_enough(device: &Device, floor: Share) -> bool {
    floor.memory_bytes() <= leasable_bytes(device) && floor.slots() <= device.facts.slots
}

pub(super) fn bucket_of(kind: usize, room: Room, device: &Device) -> Bucket {
    let taken = |free: u64, whole: u64| 1_000u64.saturating_sub(part_of(1_000, free, whole));
    let bytes = taken(room.memory_bytes, leasable_bytes(device));
    let slots = taken(room.slots, u64::from(device.facts.slots));
    Bucket { load: bytes.max(slots), kind, bytes, slots }
}

/// The shares of a device's bytes and slots that are taken of it, in thousandths.
pub(super) fn share_permille(share: Share, device: &Device) -> (u64, u64) {
    if share == Share::Exclusive {
        return (1_000, 1_000);
    }
    let bytes = part_of(1_000, share.memory_bytes(), leasable_bytes(device));
    (bytes, part_of(1_000, u64::from(share.slots()), u64::from(device.facts.slots)))
}
