//! Affinity: leases of a service with one key share their devices or nodes, such as the steps of a pipeline.
//!
//! The first of them goes anywhere. While any of them holds devices the others go there, and wait for room there rather
//! than go elsewhere. A request for more devices than the others hold shares their nodes.

use std::collections::BTreeSet;

use crate::{
    id::{DeviceId, NodeId},
    inventory::{Device, Inventory},
    request::{AffinityScope, Request},
    state::State,
};

/// Where a request may go for its affinity key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Near {
    Anywhere,
    Devices(BTreeSet<DeviceId>),
    Nodes(BTreeSet<NodeId>),
}

impl Near {
    /// Where the others are.
    pub(crate) fn of(state: &State, request: &Request) -> Self {
        let Some(affinity) = &request.constraints.affinity else { return Self::Anywhere };
        let service = state.services().get(&request.holder.service);
        let group = service.and_then(|service| service.affinities.get(&affinity.key));
        let Some(devices) = group.map(|group| group.keys().copied().collect::<BTreeSet<_>>())
        else {
            return Self::Anywhere;
        };
        if affinity.scope == AffinityScope::Device && request.ask.devices as usize <= devices.len()
        {
            return Self::Devices(devices);
        }
        Self::Nodes(nodes_of(state.inventory(), &devices))
    }

    pub(crate) fn allows(&self, id: DeviceId, device: &Device) -> bool {
        match self {
            Self::Anywhere => true,
            Self::Devices(devices) => devices.contains(&id),
            Self::Nodes(nodes) => nodes.contains(&device.node),
        }
    }
}

fn nodes_of(inventory: &Inventory, devices: &BTreeSet<DeviceId>) -> BTreeSet<NodeId> {
    devices.iter().filter_map(|id| inventory.device(*id)).map(|device| device.node).collect()
}
