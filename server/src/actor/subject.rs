//! What the numbers in an event are called, so that a watcher need not ask.

use std::sync::Arc;

use gpulease_core::{inventory::NodeFacts, request::Request, view::DeviceName};

/// Whom an event is about.
#[derive(Clone, Debug)]
pub enum Subject {
    /// Nobody (a checkpoint), or somebody whose record is no longer kept.
    Unknown,
    /// A lease.
    Lease {
        /// What it asked for, and who did.
        request: Arc<Request>,
        /// The devices that the event names.
        devices: Vec<DeviceName>,
    },
    /// A device.
    Device(DeviceName),
    /// A node.
    Node(Arc<NodeFacts>),
}
