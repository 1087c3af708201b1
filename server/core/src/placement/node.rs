//! What is free of a node, as placement looks at it.

use super::{
    Site,
    fragmentation::Free,
    kind::{self, KindNumber, Kinds},
    room::Room,
};
use crate::{
    id::{DeviceId, NodeId},
    inventory::Device,
    time::Time,
};

/// See the head of this file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NodeFree {
    /// Host CPU, in thousandths of a core.
    pub(super) host_cpu_millis: u64,
    /// Host memory, in bytes.
    pub(super) host_memory_bytes: u64,
    pub(super) devices: Vec<DeviceFree>,
    /// The fragmentation measure of it.
    pub(super) unusable: u64,
}

/// What is free of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DeviceFree {
    pub(super) id: DeviceId,
    pub(super) kind: KindNumber,
    /// Nothing, where it cannot be granted.
    pub(super) room: Room,
    /// The same, in thousandths.
    pub(super) free: u32,
}

impl NodeFree {
    /// Looks at a node, less the host CPU and memory that others count on, and less devices that `open` does not give.
    /// The measure is left to those who know the weights.
    pub(super) fn of(
        site: &Site<'_>,
        id: NodeId,
        kinds: &mut Kinds,
        (cpu_kept, memory_kept): (u64, u64),
        open: &dyn Fn(DeviceId, &Device) -> bool,
    ) -> Self {
        let Some(node) = site.inventory.node(id) else { return Self::default() };
        let devices = node.devices.iter().filter_map(|id| {
            let device = site.inventory.device(*id)?;
            let room = if open(*id, device) { site.room(*id, device) } else { None };
            let room = room.unwrap_or_default();
            let free = kind::free_of(room, &device.facts);
            Some(DeviceFree { id: *id, kind: kinds.of_device(*id, &device.facts), room, free })
        });
        let left =
            |total: u64, used: u64, kept: u64| total.saturating_sub(used.saturating_add(kept));
        Self {
            host_cpu_millis: left(node.facts.host_cpu_millis, node.host_cpu_used_millis, cpu_kept),
            host_memory_bytes: left(
                node.facts.host_memory_bytes,
                node.host_memory_used_bytes,
                memory_kept,
            ),
            devices: devices.collect(),
            unusable: 0,
        }
    }

    /// All its devices together, in thousandths.
    pub(super) fn free(&self) -> u64 {
        self.devices.iter().map(|device| u64::from(device.free)).fold(0, u64::saturating_add)
    }

    /// Its devices, as the measure looks at them.
    pub(super) fn frees_into(&self, frees: &mut Vec<Free>) {
        frees.clear();
        frees.extend(self.devices.iter().map(|device| (device.kind, device.free)));
    }

    /// Whether host memory suffices.
    pub(super) fn has_host_memory(&self, wanted_bytes: u64) -> bool {
        wanted_bytes == 0 || wanted_bytes <= self.host_memory_bytes
    }
}

/// Until when what was seen of a node holds, if nothing happens: samples get old, and silence long.
pub(super) fn holds_until(site: &Site<'_>, id: NodeId) -> Time {
    let Some(node) = site.inventory.node(id) else { return Time::NEVER };
    let heard = site.measured.node(id).map(|heard| heard.after(site.policy.node_unreachable_after));
    let samples = node.devices.iter().filter_map(|id| site.measured.device(*id));
    let fresh = samples.map(|sample| sample.at.after(site.policy.sample_age_max));
    // What is over already changes no more by itself.
    heard.into_iter().chain(fresh).filter(|until| *until >= site.now).min().unwrap_or(Time::NEVER)
}
