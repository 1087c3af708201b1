//! What the numbers in an event are called, so that a watcher need not ask.
//!
//! Names are those of the moment of asking. Numbers are never used again, so a name can be newer than its event but
//! never another's. Of a lease whose record is no longer kept only the number is known, and what the event says.

use std::{collections::BTreeMap, sync::Arc};

use gpulease_core::{
    event::{Batch, Event},
    id::{DeviceId, LeaseId, NodeId},
    inventory::NodeFacts,
    notice::{Cause, Target},
    request::Request,
    state::State,
    view::{CauseView, DeviceName},
};

/// What leases asked for whose records are forgotten or soon may be, and whose end a reader of the past has not come to:
/// as many as lived at that place of the history, at most, and some hundred bytes each.
pub(super) type Recalled = BTreeMap<LeaseId, Arc<Request>>;

/// Whom an event is about.
#[derive(Clone, Debug)]
pub enum Subject {
    /// Nobody: a checkpoint, or an import.
    Nobody,
    /// A lease.
    Lease {
        /// What it asked for, and who did; `None`: its record is no longer kept.
        request: Option<Arc<Request>>,
        /// The devices that the event names.
        devices: Vec<DeviceName>,
        /// The causes of a notice that it names.
        causes: Vec<CauseView>,
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

    /// The same for a batch of the past, read in order: what a lease asked for is recalled from its own first event
    /// where its record is no longer kept.
    pub(super) fn of_past(state: &State, batch: &Batch, recalled: &mut Recalled) -> Arc<[Self]> {
        let subject = |event: &Event| {
            if let Event::Requested { lease, request } = event
                && state.lease(*lease).is_none_or(|lease| !lease.state.live())
            {
                recalled.insert(*lease, Arc::clone(request));
            }
            let mut subject = Self::of(state, event);
            if let (Self::Lease { request: request @ None, .. }, Some(id)) =
                (&mut subject, lease_of(event))
            {
                *request = recalled.get(&id).cloned();
            }
            if let Event::Ended { lease, .. } = event {
                recalled.remove(lease);
            }
            subject
        };
        batch.events.iter().map(subject).collect()
    }

    fn of(state: &State, event: &Event) -> Self {
        match event {
            Event::NodeAdded { facts }
            | Event::NodeChanged { facts, .. }
            | Event::NodeRenamed { facts, .. } => Self::Node(Arc::clone(facts)),
            Event::NodeLost { node } | Event::NodeRecovered { node } => Self::node(state, *node),
            Event::DeviceAdded { facts, .. } => state
                .inventory()
                .device_with(facts.uuid.as_str())
                .map_or(Self::Nobody, |id| Self::device(state, id)),
            Event::DeviceChanged { device, .. }
            | Event::DeviceLost { device, .. }
            | Event::DeviceRecovered { device }
            | Event::Opened { device, .. }
            | Event::DeviceOpened { device, .. } => Self::device(state, *device),
            Event::DeviceMoved { device, node, .. } => {
                device_on(state, *device, *node).map_or(Self::Nobody, Self::Device)
            }
            Event::Requested { request, .. } => {
                let request = Some(Arc::clone(request));
                Self::Lease { request, devices: Vec::new(), causes: Vec::new() }
            }
            Event::Granted { lease, devices, .. } | Event::Kept { lease, devices, .. } => {
                Self::lease(state, *lease, devices)
            }
            Event::Noticed { lease, causes, .. } | Event::NoticeChanged { lease, causes, .. } => {
                Self::noticed(state, *lease, causes)
            }
            Event::KeepDropped { lease, .. }
            | Event::NoticeWithdrawn { lease, .. }
            | Event::Paused { lease, .. }
            | Event::Reclaiming { lease, .. }
            | Event::Ended { lease, .. } => Self::lease(state, *lease, &[]),
            Event::Cordoned { target, .. } | Event::Uncordoned { target } => match target {
                Target::Device(device) => Self::device(state, *device),
                Target::Node(node) => Self::node(state, *node),
            },
            Event::Checkpoint | Event::HalfLifeChanged { .. } | Event::Imported { .. } => {
                Self::Nobody
            }
        }
    }

    fn lease(state: &State, id: LeaseId, devices: &[DeviceId]) -> Self {
        let request = state.lease(id).map(|lease| Arc::clone(&lease.request));
        let devices = devices.iter().filter_map(|id| device_name(state, *id)).collect();
        Self::Lease { request, devices, causes: Vec::new() }
    }

    fn noticed(state: &State, id: LeaseId, causes: &[Cause]) -> Self {
        let request = state.lease(id).map(|lease| Arc::clone(&lease.request));
        let causes = causes.iter().filter_map(|cause| cause_name(state, *cause)).collect();
        Self::Lease { request, devices: Vec::new(), causes }
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
    device_on(state, id, state.inventory().device(id)?.node)
}

fn device_on(state: &State, id: DeviceId, node: NodeId) -> Option<DeviceName> {
    let node = state.inventory().node(node)?.facts.name.clone();
    Some(DeviceName { id, node, facts: Arc::clone(&state.inventory().device(id)?.facts) })
}

fn cause_name(state: &State, cause: Cause) -> Option<CauseView> {
    Some(match cause {
        Cause::Preemption(lease) => CauseView::Preemption(lease),
        Cause::Drain(Target::Device(device)) => {
            let DeviceName { node, facts, .. } = device_name(state, device)?;
            CauseView::DrainDevice { node, uuid: facts.uuid.clone() }
        }
        Cause::Drain(Target::Node(node)) => {
            CauseView::DrainNode(state.inventory().node(node)?.facts.name.clone())
        }
    })
}

fn lease_of(event: &Event) -> Option<LeaseId> {
    match event {
        Event::Granted { lease, .. }
        | Event::Kept { lease, .. }
        | Event::KeepDropped { lease, .. }
        | Event::Noticed { lease, .. }
        | Event::NoticeChanged { lease, .. }
        | Event::NoticeWithdrawn { lease, .. }
        | Event::Paused { lease, .. }
        | Event::Reclaiming { lease, .. }
        | Event::Ended { lease, .. } => Some(*lease),
        _ => None,
    }
}
