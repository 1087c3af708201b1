//! Devices, from the core's view to the wire.

use gpulease_core::view::{DeviceCondition, DeviceView};
use gpulease_proto::v1;

use super::time::from_span;

/// A device as the world sees it.
pub(in crate::api) fn device(view: &DeviceView) -> v1::Device {
    let (device, facts) = (&view.device, &view.device.facts);
    let capability = facts.compute_capability;
    v1::Device {
        node: view.node.as_str().to_owned(),
        uuid: facts.uuid.as_str().to_owned(),
        index: facts.index,
        pci_address: facts.pci_address.as_ref().map(ToString::to_string).unwrap_or_default(),
        vendor: facts.vendor.as_str().to_owned(),
        model: facts.model.as_str().to_owned(),
        compute_capability: capability.map(|(major, minor)| v1::ComputeCapability { major, minor }),
        state: state(view.condition).into(),
        memory_total_bytes: facts.memory_total_bytes,
        memory_reserved_bytes: facts.memory_driver_bytes,
        memory_used_bytes: view.memory_used_bytes,
        memory_foreign_bytes: view.memory_foreign_bytes,
        memory_leased_bytes: device.memory_used_bytes,
        memory_closed_bytes: device.memory_closed_bytes(),
        memory_free_bytes: view.memory_free_bytes,
        slots: facts.slots,
        slots_leased: u32::try_from(device.slots_used).unwrap_or(u32::MAX),
        exclusive: device.exclusive > 0,
        lease_ids: device.holding.keys().map(|lease| lease.0).collect(),
        closed_by: device.closed.keys().map(|lease| lease.0).collect(),
        lease_count: view.holding as u64,
        closed_by_count: view.closed as u64,
        kept_for: device.kept_for.map_or(0, |lease| lease.0),
        closed_remaining: view.closed_remaining.map(from_span),
        sample_age: view.sample_age.map(from_span),
        cordon: view.cordon.as_ref().map(|cordon| v1::Cordon {
            node: view.node_cordoned,
            drain: cordon.drain,
            reason: cordon.reason.to_string(),
        }),
        owner: view.owner.as_ref().map(ToString::to_string).unwrap_or_default(),
        frameworks: facts.frameworks.iter().map(ToString::to_string).collect(),
        attribution_off: view.attribution_off.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

const fn state(condition: DeviceCondition) -> v1::DeviceState {
    match condition {
        DeviceCondition::Available => v1::DeviceState::Available,
        DeviceCondition::Stale => v1::DeviceState::Stale,
        DeviceCondition::Unreachable => v1::DeviceState::Unreachable,
        DeviceCondition::Closed => v1::DeviceState::Closed,
        DeviceCondition::Unavailable => v1::DeviceState::Unavailable,
        DeviceCondition::Quiesced => v1::DeviceState::Quiesced,
        DeviceCondition::Cordoned => v1::DeviceState::Cordoned,
    }
}
