//! What is simulated: nodes, devices, and the events of a script, all of it valid.
//!
//! Figures that a specification or scenario leaves out get their defaults here, in one place:
//! vendor `simulated`, model `SIM`, nothing reserved by the driver (so that `24GiB` means 24 GiB before the reserve),
//! slots and reserve as the configuration says, a PCI address per index, and figures that are exact at every moment.

use std::sync::Arc;

use gpulease_core::{
    id::{LeaseId, Name},
    inventory::{DeviceFacts, NodeFacts},
    time::Time,
};

use super::super::{DeviceDefaults, framework::frameworks_of};
use super::model;

/// The vendor unless given.
pub const VENDOR: &str = "simulated";
/// The model unless given.
pub const MODEL: &str = "SIM";
/// The longest name of a node, in bytes: with `SIM-` and an index of four digits it still fits a UUID of 256.
pub const NODE_NAME_BYTES_MAX: usize = 240;
/// The largest memory of a device, in bytes: 1 PiB, so that no sum over a node's devices overflows.
pub const DEVICE_MEMORY_BYTES_MAX: u64 = 1 << 50;

/// Everything a simulation plays.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What all noise is made of.
    pub seed: u64,
    /// Whether devices without a scripted load work a little, by the seed.
    pub random_utilization: bool,
    /// The nodes, with unique names.
    pub nodes: Vec<NodePlan>,
    /// What happens, in order of time; events of one moment in the order of the script.
    pub events: Vec<Event>,
}

/// A node.
#[derive(Clone, Debug)]
pub struct NodePlan {
    /// What it is when the simulation starts.
    pub facts: NodeFacts,
    /// Its devices, in order of index.
    pub devices: Vec<DevicePlan>,
}

/// A device.
#[derive(Clone, Debug)]
pub struct DevicePlan {
    /// What it is.
    pub facts: Arc<DeviceFacts>,
    /// Whether it measures utilization, temperature and power.
    pub sensors: bool,
    /// What it draws at full load, in watts.
    pub power_max_watts: u32,
}

/// One line of the script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, since the start of the simulation.
    pub at: Time,
    /// What.
    pub act: Act,
}

/// A device of the plan: position of its node, and its index there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceAt {
    /// Position of the node in the plan.
    pub node: usize,
    /// Index of the device on it.
    pub device: usize,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// So many bytes of a device are in use by processes of no lease from now on; 0 ends it.
    ForeignMemory(DeviceAt, u64),
    /// Work on a device from now on; all zero ends it.
    Load(DeviceAt, Load),
    /// A device cannot be used, for this reason.
    DeviceLost(DeviceAt, Name),
    /// A device is not measured any more.
    DeviceSilent(DeviceAt),
    /// A lost or silent device is as before.
    DeviceBack(DeviceAt),
    /// The memory in use cannot be read; everything else can.
    MemoryUnknown(DeviceAt),
    /// It can again.
    MemoryKnown(DeviceAt),
    /// A node is not heard of any more.
    NodeSilent(usize),
    /// It is heard of again; nothing on it changed.
    NodeBack(usize),
    /// A node is there with a new boot id, and nothing runs on it.
    Reboot(usize),
}

/// Work on a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// The lease that explains its memory; `None`: memory in use that is charged to nobody and not foreign either.
    pub lease: Option<LeaseId>,
    /// Its memory, in bytes.
    pub memory_bytes: u64,
    /// How busy the device is from now on, in thousandths; `None`: as before.
    pub utilization_permille: Option<u32>,
}

/// What is said of one device; everything else follows.
#[derive(Clone, Debug, Default)]
pub(super) struct DeviceWish {
    pub(super) memory_total_bytes: u64,
    pub(super) memory_driver_bytes: u64,
    pub(super) memory_limit_bytes: Option<u64>,
    pub(super) memory_reserve_bytes: Option<u64>,
    pub(super) model: Option<String>,
    pub(super) vendor: Option<String>,
    pub(super) compute_capability: Option<(u32, u32)>,
    /// `None`: those of the vendor.
    pub(super) frameworks: Option<Vec<Name>>,
    pub(super) slots: Option<u32>,
    pub(super) sensors: bool,
}

impl DeviceWish {
    /// Why nothing could ever be granted on it, if so.
    pub(super) fn flaw(&self, defaults: &DeviceDefaults) -> Option<String> {
        let (total, driver) = (self.memory_total_bytes, self.memory_driver_bytes);
        let reserve = self.memory_reserve_bytes.unwrap_or(defaults.memory_reserve_bytes);
        let usable = total.saturating_sub(driver);
        let limit = self.memory_limit_bytes.or(defaults.memory_limit_bytes);
        let ceiling = limit.map_or(usable, |limit| limit.min(usable));
        if total > DEVICE_MEMORY_BYTES_MAX {
            return Some(format!("{total} bytes of memory are more than 1 PiB"));
        }
        (ceiling <= reserve).then(|| {
            format!(
                "nothing could be granted on a device of {total} bytes: {ceiling} are usable and {reserve} are \
                 reserved; give it more memory or a smaller reserve"
            )
        })
    }
}

/// Makes the devices of a node, in order of index.
pub(super) fn devices(
    node: &NodeFacts,
    wishes: &[DeviceWish],
    defaults: &DeviceDefaults,
) -> Vec<DevicePlan> {
    let slots = defaults.slots_of(node.host_cpu_millis, wishes.len());
    let make = |(index, wish): (u32, &DeviceWish)| {
        let model = wish.model.as_deref().unwrap_or(MODEL);
        let known = model::known(model);
        let vendor = wish.vendor.as_deref().unwrap_or(VENDOR);
        let facts = DeviceFacts {
            uuid: Name::new(&format!("SIM-{}-{index}", node.name)),
            index,
            pci_address: Some(Name::new(&pci_address(index))),
            vendor: Name::new(vendor),
            model: Name::new(model),
            compute_capability: wish.compute_capability.or(known.compute_capability),
            frameworks: wish.frameworks.clone().unwrap_or_else(|| frameworks_of(vendor)),
            memory_total_bytes: wish.memory_total_bytes,
            memory_driver_bytes: wish.memory_driver_bytes,
            memory_limit_bytes: wish.memory_limit_bytes.or(defaults.memory_limit_bytes),
            memory_reserve_bytes: wish
                .memory_reserve_bytes
                .unwrap_or(defaults.memory_reserve_bytes),
            slots: wish.slots.unwrap_or(slots),
            answers_at_once: true,
        };
        DevicePlan {
            facts: Arc::new(facts),
            sensors: wish.sensors,
            power_max_watts: known.power_max_watts,
        }
    };
    (0..).zip(wishes).map(make).collect()
}

/// One bus for each device, as on a real host: `0000:01:00.0` is the first, and 255 buses make a domain.
fn pci_address(index: u32) -> String {
    format!("{:04x}:{:02x}:00.0", index / 255, index % 255 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pci_addresses_are_unique_and_start_at_bus_one() {
        let mut all: Vec<String> = (0..1_024).map(pci_address).collect();
        assert_eq!(all.first().unwrap(), "0000:01:00.0");
        assert_eq!(all[255], "0001:01:00.0");
        all.dedup();
        assert_eq!(all.len(), 1_024);
        assert!(all.is_sorted());
    }
}
