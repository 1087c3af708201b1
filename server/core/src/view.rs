//! What the world sees of a lease and a device: copies, cheap to make, that outlive the step that made them.

use std::sync::Arc;

use crate::{
    id::{DeviceId, LeaseId, Name, Token},
    inventory::{Device, DeviceFacts},
    lease::{Fact, State},
    request::{Request, Share},
    time::{Span, Time},
};

/// A lease as it was at one moment.
#[derive(Clone, Debug)]
pub struct LeaseView {
    /// Its number.
    pub id: LeaseId,
    /// What was asked for.
    pub request: Arc<Request>,
    /// Where it stands.
    pub state: State,
    /// The token of its newest grant; 0 before the first.
    pub token: Token,
    /// What it holds, while it does.
    pub devices: Vec<DeviceName>,
    /// Devices that its unclean end still closes.
    pub closed: Vec<DeviceName>,
    /// Devices kept for it.
    pub kept: Vec<DeviceName>,
    /// When it was asked for.
    pub requested_at: Time,
    /// When it was granted.
    pub granted_at: Option<Time>,
    /// When it ended.
    pub ended_at: Option<Time>,
    /// Why it ended, in words.
    pub detail: Option<Arc<str>>,
    /// How long it still lives, or waits.
    pub remaining: Option<Span>,
    /// How many requests stand before it in the queue.
    pub queue_position: u64,
    /// When this view was made.
    pub seen_at: Time,
}

/// A device by its names.
#[derive(Clone, Debug)]
pub struct DeviceName {
    /// Its number.
    pub id: DeviceId,
    /// The node's name.
    pub node: Name,
    /// What it is.
    pub facts: Arc<DeviceFacts>,
}

/// Some leases, and where to go on.
#[derive(Clone, Debug)]
pub struct LeasePage {
    /// In order of number.
    pub leases: Vec<LeaseView>,
    /// There may be more behind this one; `None`: there are none.
    pub go_on_after: Option<LeaseId>,
}

/// A lease with what happened to it.
#[derive(Clone, Debug)]
pub struct LeaseHistory {
    /// The lease.
    pub lease: LeaseView,
    /// Its facts, oldest first.
    pub facts: Vec<Fact>,
}

/// Whether a device can be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceCondition {
    /// It can.
    Available,
    /// It was not measured lately.
    Stale,
    /// Its node is silent.
    Unreachable,
    /// It is lost, or its node is.
    Unavailable,
    /// It is closed after an import (P2).
    Closed,
}

/// A device as it was at one moment.
#[derive(Clone, Debug)]
pub struct DeviceView {
    /// The node's name.
    pub node: Name,
    /// The device and what is held of it.
    pub device: Device,
    /// Whether it can be granted.
    pub condition: DeviceCondition,
    /// Bytes in use, where known.
    pub memory_used_bytes: Option<u64>,
    /// Bytes that no holding lease explains, where known.
    pub memory_foreign_bytes: Option<u64>,
    /// Bytes that could be granted, where known (P8).
    pub memory_free_bytes: Option<u64>,
    /// For how long an import still closes it (P2).
    pub closed_remaining: Option<Span>,
    /// The age of the last sample.
    pub sample_age: Option<Span>,
}

/// The coordinator in figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Nodes known.
    pub nodes: usize,
    /// Devices known.
    pub devices: usize,
    /// Devices that can be granted.
    pub devices_available: usize,
    /// Leases by state.
    pub queued: usize,
    /// Leases that hold devices.
    pub active: usize,
    /// Leases that ended uncleanly and still close devices.
    pub reclaiming: usize,
    /// Records of ended leases.
    pub ended: usize,
    /// Open sessions.
    pub sessions: usize,
    /// The newest token.
    pub token: Token,
}

/// The share that a lease takes of each of its devices.
impl LeaseView {
    /// See [`Share`].
    #[must_use]
    pub fn share(&self) -> Share {
        self.request.ask.share
    }
}
