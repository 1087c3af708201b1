//! What the world sees of a lease and a device: copies, cheap to make, that outlive the step that made them.

use std::sync::Arc;

use crate::{
    id::{DeviceId, LeaseId, Name, NoticeId, Token},
    inventory::{Cordon, Device, DeviceFacts},
    lease::{Basis, Fact, State},
    order::Class,
    request::{Process, Request, Share},
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
    /// While PAUSING: what it is asked.
    pub notice: Option<NoticeView>,
    /// How often it was preempted.
    pub preemptions: u32,
    /// How long its holder took to answer the last notice it acknowledged.
    pub pause_took: Option<Span>,
    /// When this view was made.
    pub seen_at: Time,
}

/// A notice as its holder sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoticeView {
    /// Its number.
    pub id: NoticeId,
    /// How long the holder has left.
    pub remaining: Span,
    /// Why.
    pub causes: Vec<CauseView>,
    /// By how much the holder may still extend it.
    pub extension_max: Option<Span>,
}

/// A cause of a notice, by names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CauseView {
    /// This request needs the devices.
    Preemption(LeaseId),
    /// This device is drained.
    DrainDevice {
        /// Its node.
        node: Name,
        /// Its UUID.
        uuid: Name,
    },
    /// This node is drained.
    DrainNode(Name),
}

/// Why a lease stands where it does.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The lease.
    pub lease: LeaseView,
    /// While QUEUED or PAUSED: what it waits for.
    pub waiting: Option<Waiting>,
    /// Once granted: why these devices.
    pub basis: Option<Basis>,
}

/// What a lease waits for.
#[derive(Clone, Debug, Default)]
pub struct Waiting {
    /// Devices known.
    pub known: usize,
    /// Devices that could serve it if they were empty.
    pub suitable: usize,
    /// Devices that could serve it now.
    pub fitting: usize,
    /// What excludes the others, each counted under the first thing that does.
    pub excluded: Vec<(&'static str, usize)>,
    /// Leases in its way, those on devices kept for it first, at most [`BLOCKING_MAX`].
    pub blocking: Vec<Blocking>,
    /// When it should get devices, at the earliest.
    pub forecast: Option<Span>,
    /// What that rests on, or why nobody can tell.
    pub forecast_basis: String,
}

/// The most leases in the way that are told: 100 × some 300 bytes are 30 KB.
pub const BLOCKING_MAX: usize = 100;

/// A lease in the way of another.
#[derive(Clone, Debug)]
pub struct Blocking {
    /// Which one.
    pub lease: LeaseId,
    /// What it asked for.
    pub request: Arc<Request>,
    /// Where it stands.
    pub state: State,
    /// On which device.
    pub device: Name,
    /// When it should be gone.
    pub forecast: Option<Span>,
    /// Whether it was given notice for this request, or why not.
    pub preemption: &'static str,
}

/// A process that uses a device.
#[derive(Clone, Debug)]
pub struct ProcessView {
    /// The node's name.
    pub node: Name,
    /// The device.
    pub device: Name,
    /// Which process.
    pub process: Process,
    /// Who runs it.
    pub uid: Option<u32>,
    /// Its command line.
    pub command: Name,
    /// What it uses, in bytes.
    pub bytes: u64,
    /// The lease that explains it; `None`: its memory is foreign.
    pub lease: Option<LeaseId>,
    /// The declared process in whose tree it is.
    pub root: Option<Process>,
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
    /// It, or its node, is cordoned.
    Cordoned,
    /// Its node's driver is let go on purpose.
    Quiesced,
}

/// The most holders told of a device, and former ones: a page of 1,000 devices tells 200,000 numbers, 1 MB.
pub const HOLDERS_TOLD_MAX: usize = 100;

/// A device as it was at one moment.
#[derive(Clone, Debug)]
pub struct DeviceView {
    /// The node's name.
    pub node: Name,
    /// The device and what is held of it. Of who holds and closes it the first [`HOLDERS_TOLD_MAX`] each; all sums are
    /// whole.
    pub device: Device,
    /// How many leases hold it.
    pub holding: usize,
    /// How many former leases close a part of it.
    pub closed: usize,
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
    /// What an operator said of it, or else of its node.
    pub cordon: Option<Cordon>,
    /// That was said of the node.
    pub node_cordoned: bool,
    /// The service that owns it.
    pub owner: Option<Name>,
    /// Why its memory cannot be attributed; `None`: it can, or was not read yet.
    pub attribution_off: Option<Name>,
}

/// What a service used of late, and has of its quotas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceShare {
    /// Which one.
    pub service: Name,
    /// With twice the weight it gets twice as much.
    pub weight: u32,
    /// What it used of late, entry charges of what it holds included, in byte-seconds of device memory.
    pub used_byte_seconds: u128,
    /// That in thousandths of what all services used.
    pub used_permille: u32,
    /// Leases that hold devices.
    pub leases: QuotaUse,
    /// Their devices.
    pub devices: QuotaUse,
    /// The bytes that they count.
    pub memory_bytes: QuotaUse,
    /// Requests that wait.
    pub waiting: QuotaUse,
}

/// The queue from its front.
#[derive(Clone, Debug)]
pub struct QueueView {
    /// In order.
    pub entries: Vec<QueueEntryView>,
    /// How many wait in all, of all services, those that are away included.
    pub waiting: usize,
    /// Services that hold devices, wait, or used something of late, those that used most first.
    pub services: Vec<ServiceShare>,
}

/// A request that waits.
#[derive(Clone, Debug)]
pub struct QueueEntryView {
    /// The lease.
    pub lease: LeaseView,
    /// How many stand before it.
    pub position: u64,
    /// By which class it stands.
    pub class: Class,
    /// It held devices before.
    pub resumed: bool,
    /// What its service used of late divided by its weight, in byte-seconds.
    pub share_byte_seconds: u128,
    /// Its caller or holder is away, and its place is kept.
    pub away: bool,
    /// What holds it back though devices may be free.
    pub held_back: Option<String>,
    /// When it should get devices at the earliest.
    pub forecast: Option<Span>,
}

/// What is used of a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaUse {
    /// In use.
    pub in_use: u64,
    /// The bound; `None`: there is none.
    pub limit: Option<u64>,
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
    /// Leases that hold devices and have a notice.
    pub pausing: usize,
    /// Leases that gave their devices back for now.
    pub paused: usize,
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
