//! The node with a driver in a random life: processes that come, use devices, linger and go.

use gpulease_core::{
    id::DeviceId,
    request::{Process, Share},
};
use proptest::prelude::*;

use super::{Op, PIDS};
use crate::world::{NodeModel, World, process};

/// The node with a driver.
pub(crate) const REAL: &str = "n4";

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let used = prop_oneof![1 => Just(0u64), 1 => Just(512 << 20), 3 => (1u64..16).prop_map(|gib| gib << 30)];
    prop_oneof![
        6 => (0u8..2, PIDS, prop::bool::weighted(0.8), used)
            .prop_map(|(device, pid, declared, bytes)| Op::Use(device, pid, declared, bytes)),
        3 => PIDS.prop_map(Op::Exit),
        1 => any::<bool>().prop_map(Op::Sums),
        1 => (0u8..2, prop::bool::weighted(0.3)).prop_map(|(device, off)| Op::Unattributed(device, off)),
    ]
}

/// Does to the node what an operation says.
pub(crate) fn change(node: &mut NodeModel, op: &Op) {
    match *op {
        Op::Use(device, pid, declared, bytes) => {
            // What is in no declared tree is another process.
            let (pid, root) = if declared { (pid, Some(pid)) } else { (pid + 900, None) };
            let processes = &mut node.devices[usize::from(device)].processes;
            processes.retain(|(other, _, _)| *other != pid);
            if bytes > 0 {
                processes.push((pid, root, bytes));
            }
            node.alive.extend(root);
        }
        Op::Exit(pid) => {
            for device in &mut node.devices {
                device
                    .processes
                    .retain(|(other, root, _)| *root != Some(pid) && *other != pid + 900);
            }
            node.alive.remove(&pid);
        }
        Op::Sums(sums) => node.sums_only = sums,
        Op::Unattributed(device, off) => node.devices[usize::from(device)].unattributed = off,
        _ => {}
    }
}

/// A part of a device: whose process uses it, and how much of it that is.
pub(crate) struct Part {
    pub(crate) process: Option<Process>,
    pub(crate) share: Share,
}

/// What is in use beyond what these parts explain; never too much.
pub(crate) fn foreign_bytes(world: &World, device: DeviceId, parts: &[Part]) -> u64 {
    let uses = uses(world, device);
    let mut foreign = 0;
    let mut roots: Vec<Option<u32>> = uses.iter().map(|(root, _)| *root).collect();
    roots.sort_unstable();
    roots.dedup();
    for root in roots {
        let used: u64 = uses.iter().filter(|(other, _)| *other == root).map(|(_, used)| used).sum();
        let own = parts.iter().filter(|part| part.process == root.map(process));
        let sizes: Option<Vec<u64>> = own
            .map(|part| match part.share {
                Share::Part { memory_bytes, .. } => memory_bytes,
                Share::Exclusive => None,
            })
            .collect();
        // A part without a size in bytes explains anything.
        foreign += sizes.map_or(0, |sizes| used.saturating_sub(sizes.iter().sum()));
    }
    foreign
}

/// Declared roots and what their trees use of a device.
pub(crate) fn uses(world: &World, device: DeviceId) -> Vec<(Option<u32>, u64)> {
    let facts = &world.scheduler.state().inventory().device(device).expect("it is known").facts;
    let devices = world.nodes[REAL].devices.iter();
    let model = devices.filter(|model| model.facts.uuid == facts.uuid);
    model.flat_map(|model| model.processes.iter().map(|(_, root, used)| (*root, *used))).collect()
}

/// Whether something of a declared tree uses a device.
pub(crate) fn shows(world: &World, device: DeviceId, root: u32) -> bool {
    uses(world, device).iter().any(|(other, used)| *other == Some(root) && *used > 0)
}

/// What an operator or a tester is told of a device is the truth: a full pass came in since the last change.
pub(crate) fn is_attributed(world: &World, device: DeviceId) -> bool {
    let facts = &world.scheduler.state().inventory().device(device).expect("it is known").facts;
    let mut devices = world.nodes[REAL].devices.iter();
    devices.any(|model| model.facts.uuid == facts.uuid && !model.unattributed)
}
