//! Constraints: what keeps a device or a node from ever serving a request, however idle it were (P13).

use std::collections::BTreeMap;

use super::{Demand, Site, kind::leasable_bytes};
use crate::{
    id::{Name, NodeId},
    inventory::{Device, DeviceFacts, Node},
    output::{Exclusion, Unsatisfiable},
    request::{Ask, Constraints, Request},
};

impl Site<'_> {
    /// What keeps a device from ever serving a request, however idle it were (P13).
    pub(crate) fn exclusion(&self, device: &Device, request: &Request) -> Option<Exclusion> {
        let node = self.inventory.node(device.node)?;
        if let Some(exclusion) = of_node(node, Demand::of(request)) {
            return Some(exclusion);
        }
        of_device(&device.facts, Demand::of(request))
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
}

/// What excludes a node.
pub(super) fn of_node(node: &Node, demand: Demand<'_>) -> Option<Exclusion> {
    let too_little = demand.constraints.host_memory_bytes > node.facts.host_memory_bytes;
    of_node_but_memory(node, demand).or(too_little.then_some(Exclusion::HostMemory))
}

/// The same, host memory aside.
pub(super) fn of_node_but_memory(node: &Node, demand: Demand<'_>) -> Option<Exclusion> {
    let wanted = demand.constraints;
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
    } else {
        None
    }
}

/// What excludes a device: what it can do, the lists of the request, what it has.
pub(super) fn of_device(facts: &DeviceFacts, demand: Demand<'_>) -> Option<Exclusion> {
    of_ability(facts, demand.constraints)
        .or_else(|| of_lists(facts, demand))
        .or_else(|| of_size(facts, demand.ask))
}

/// What excludes every device of this kind.
pub(super) fn of_kind(facts: &DeviceFacts, demand: Demand<'_>) -> Option<Exclusion> {
    of_ability(facts, demand.constraints).or_else(|| of_size(facts, demand.ask))
}

fn of_ability(facts: &DeviceFacts, wanted: &Constraints) -> Option<Exclusion> {
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
    } else {
        None
    }
}

/// What the lists of a request exclude.
pub(super) fn of_lists(facts: &DeviceFacts, demand: Demand<'_>) -> Option<Exclusion> {
    let wanted = demand.constraints;
    if !wanted.device_allow.is_empty() && !wanted.device_allow.contains(&facts.uuid) {
        Some(Exclusion::DeviceAllow)
    } else if wanted.device_deny.contains(&facts.uuid) {
        Some(Exclusion::DeviceDeny)
    } else {
        None
    }
}

fn of_size(facts: &DeviceFacts, ask: Ask) -> Option<Exclusion> {
    if ask.share.slots() > facts.slots {
        Some(Exclusion::Slots)
    } else if ask.share.memory_bytes() > leasable_bytes(facts) {
        Some(Exclusion::Memory)
    } else {
        None
    }
}
