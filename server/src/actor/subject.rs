//! What the numbers in an event are called, so that a watcher need not ask.
//!
//! Names are those of the moment of asking. Numbers are never used again, so a name can be newer than its event but
//! never another's. Of a lease whose record is no longer kept only the number is known, and what the event says.

use std::sync::Arc;

use gpulease_core::{
    event::{Batch, Event},
    id::{DeviceId, LeaseId, NodeId},
    inventory::NodeFacts,
    request::Request,
    state::State,
    view::DeviceName,
};

/// Whom an event is about.
#[derive(Clone, Debug)]
pub enum Subject {
    /// Nobody: a checkpoint.
    Nobody,
    /// A lease.
    Lease {
        /// What it asked for, and who did; `None`: its record is no longer kept.
        request: Option<Arc<Request>>,
        /// The devices that the event names.
        devices: Vec<DeviceName>,
    },
    /// A device.
    Device(DeviceName),
    /// A node.
    Node(Arc<NodeFacts>),
}

impl Subject {
    /// The subject of each event of a batch.
    pub(super) fn of_batch(state: &State, batch: &Batch) -> Arc<[Self]> {
        batch.events.iter().map(|event| Self::of(state, event)).collect()
    }

    fn of(state: &State, event: &Event) -> Self {
        match event {
            Event::NodeAdded { facts } | Event::NodeChanged { facts, .. } => {
                Self::Node(Arc::clone(facts))
            }
            Event::NodeLost { node } | Event::NodeRecovered { node } => Self::node(state, *node),
            Event::DeviceAdded { facts, .. } => state
                .inventory()
                .device_with(facts.uuid.as_str())
                .map_or(Self::Nobody, |id| Self::device(state, id)),
            Event::DeviceChanged { device, .. }
            | Event::DeviceLost { device, .. }
            | Event::DeviceRecovered { device }
            | Event::Opened { device, .. } => Self::device(state, *device),
            Event::Requested { request, .. } => {
                Self::Lease { request: Some(Arc::clone(request)), devices: Vec::new() }
            }
            Event::Granted { lease, devices, .. } | Event::Kept { lease, devices, .. } => {
                Self::lease(state, *lease, devices)
            }
            Event::KeepDropped { lease, .. }
            | Event::Reclaiming { lease, .. }
            | Event::Ended { lease, .. } => Self::lease(state, *lease, &[]),
            Event::Checkpoint => Self::Nobody,
        }
    }

    fn lease(state: &State, id: LeaseId, devices: &[DeviceId]) -> Self {
        let request = state.lease(id).map(|lease| Arc::clone(&lease.request));
        let devices = devices.iter().filter_map(|id| device_name(state, *id)).collect();
        Self::Lease { request, devices }
    }

    fn device(state: &State, id: DeviceId) -> Self {
        device_name(state, id).map_or(Self::Nobody, Self::Device)
    }

    fn node(state: &State, id: NodeId) -> Self {
        let node = state.inventory().node(id);
        node.map_or(Self::Nobody, |node| Self::Node(Arc::clone(&node.facts)))
    }
}

fn device_name(state: &State, id: DeviceId) -> Option<DeviceName> {
    let device = state.inventory().device(id)?;
    let node = state.inventory().node(device.node)?.facts.name.clone();
    Some(DeviceName { id, node, facts: Arc::clone(&device.facts) })
}
