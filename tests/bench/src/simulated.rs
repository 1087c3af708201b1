//! What all commands simulate: devices with a stated number of slots, written as a scenario file, and the same
//! capacity for the checker.

use std::{fmt::Write as _, path::Path};

use anyhow::Context as _;
use gpulease_tests::checker::{Capacity, DeviceCapacity, HostShare};

/// Memory of each simulated device. Nothing here asks for bytes; 24 GiB is a common card.
const DEVICE_MEMORY_GIB: u64 = 24;

/// A node to simulate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) host: HostShare,
    pub(crate) devices: usize,
    pub(crate) model: String,
    pub(crate) slots: u64,
}

/// A node of alike devices that no lease of a benchmark fills.
pub(crate) fn roomy(devices: usize, slots: u64) -> Node {
    // As much host as a lease may ask for; no benchmark of leases asks for any.
    let host = HostShare { cpu_millis: 64_000, memory_bytes: 256 << 30 };
    Node { name: "bench".to_owned(), host, devices, model: "SIM".to_owned(), slots }
}

/// Writes a scenario file of these nodes.
pub(crate) fn write_scenario(path: &Path, nodes: &[Node]) -> anyhow::Result<()> {
    let mut text = String::from("# Written by gpulease-bench.\n");
    for node in nodes {
        let host_memory_mib = node.host.memory_bytes >> 20;
        // Writing into a String cannot fail.
        let _ = write!(
            text,
            "\n[[node]]\nname = {:?}\nhost_cpu_millis = {}\nhost_memory = \"{host_memory_mib}MiB\"\n\
             devices = {{ count = {}, memory = \"{DEVICE_MEMORY_GIB}GiB\", model = {:?}, slots = {}, sensors = false }}\n",
            node.name, node.host.cpu_millis, node.devices, node.model, node.slots
        );
    }
    std::fs::write(path, text).with_context(|| format!("write the scenario {}", path.display()))
}

/// The same nodes for the checker, named as the simulated backend names its devices.
pub(crate) fn capacity(nodes: &[Node]) -> Capacity {
    let mut capacity = Capacity::default();
    for node in nodes {
        capacity.nodes.insert(node.name.clone(), node.host);
        for index in 0..node.devices {
            let device = DeviceCapacity {
                node: node.name.clone(),
                slots: node.slots,
                memory_bytes: DEVICE_MEMORY_GIB << 30,
            };
            capacity.devices.insert(format!("SIM-{}-{index}", node.name), device);
        }
    }
    capacity
}
