//! One device as the checker counts it: who holds it, and what former leases still close of it (P1, P6).

use std::collections::BTreeMap;

use gpulease::LeasedDevice;

use super::host::HostShare;

/// What a device can give.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceCapacity {
    /// The node it is on.
    pub node: String,
    /// Its slots.
    pub slots: u64,
    /// Its grantable bytes.
    pub memory_bytes: u64,
}

/// What there is to be granted: known from the scenario, not from the coordinator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Devices by UUID.
    pub devices: BTreeMap<String, DeviceCapacity>,
    /// Host CPU and memory of each node, by name.
    pub nodes: BTreeMap<String, HostShare>,
}

impl Capacity {
    /// Devices alike on one node, named as the simulated backend names them.
    #[must_use]
    pub fn alike(node: &str, devices: usize, slots: u64, memory_bytes: u64) -> Self {
        let device = || DeviceCapacity { node: node.to_owned(), slots, memory_bytes };
        let devices = (0..devices).map(|index| (format!("SIM-{node}-{index}"), device())).collect();
        Self { devices, nodes: BTreeMap::new() }
    }
}

/// What one lease takes of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) exclusive: bool,
    pub(crate) slots: u64,
    pub(crate) memory_bytes: u64,
}

impl From<&LeasedDevice> for Part {
    fn from(leased: &LeasedDevice) -> Self {
        Self {
            exclusive: leased.exclusive,
            slots: leased.slots.map_or(0, u64::from),
            memory_bytes: leased.memory_bytes.unwrap_or(0),
        }
    }
}

/// A device in the course of the events.
#[derive(Debug, Default)]
pub(crate) struct Device {
    pub(crate) capacity: DeviceCapacity,
    pub(crate) lost: bool,
    pub(crate) token_last: u64,
    /// Held and closed parts by lease: for a new grant both are taken.
    taken: BTreeMap<u64, Part>,
}

impl Device {
    pub(crate) fn new(capacity: DeviceCapacity) -> Self {
        Self { capacity, ..Self::default() }
    }

    /// Puts a lease on the device, and says with whom that is too much (P1).
    pub(crate) fn take(&mut self, lease_id: u64, part: Part) -> Option<String> {
        let others = self.taken.keys().next().copied();
        let exclusive = self.taken.iter().find(|(_, taken)| taken.exclusive).map(|(id, _)| *id);
        self.taken.insert(lease_id, part);
        let slots: u64 = self.taken.values().map(|part| part.slots).sum();
        let bytes: u64 = self.taken.values().map(|part| part.memory_bytes).sum();
        if let Some(other) = exclusive {
            return Some(format!("lease {other} has it whole"));
        }
        if let Some(other) = others.filter(|_| part.exclusive) {
            return Some(format!("wanted whole, and lease {other} is on it"));
        }
        if slots > self.capacity.slots {
            return Some(format!("{slots} slots of {}", self.capacity.slots));
        }
        (bytes > self.capacity.memory_bytes)
            .then(|| format!("{bytes} bytes of {}", self.capacity.memory_bytes))
    }

    /// Frees what a lease held, or opens what it closed; `false`: there was nothing of it.
    pub(crate) fn free(&mut self, lease_id: u64) -> bool {
        self.taken.remove(&lease_id).is_some()
    }

    pub(crate) fn has(&self, lease_id: u64) -> bool {
        self.taken.contains_key(&lease_id)
    }

    /// What is taken, in thousandths of the device.
    pub(crate) fn taken_permille(&self) -> u64 {
        let part = |part: &Part| {
            if part.exclusive { 1_000 } else { part.slots * 1_000 / self.capacity.slots.max(1) }
        };
        self.taken.values().map(part).sum()
    }
}
