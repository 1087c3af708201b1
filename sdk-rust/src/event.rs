//! Events as plain Rust values: facts that became durable, one batch for each revision.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime},
};

use gpulease_proto::v1;

use crate::{
    convert,
    info::{Ask, EndReason, LeasedDevice, ParseNameError, Priority, named_enum},
    notice::NoticeCause,
};

/// All events of one revision. No events: every event up to the revision was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventBatch {
    /// The revision; watching after it continues behind this batch.
    pub revision: u64,
    /// When it was decided, for display.
    pub time: SystemTime,
    /// Its events, in order.
    pub events: Vec<Event>,
}

impl From<v1::WatchResponse> for EventBatch {
    fn from(wire: v1::WatchResponse) -> Self {
        Self {
            revision: wire.revision,
            time: wire.time.and_then(convert::time).unwrap_or(SystemTime::UNIX_EPOCH),
            events: wire.events.into_iter().filter_map(Event::from_wire).collect(),
        }
    }
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// To a lease.
    Lease(LeaseEvent),
    /// To a device.
    Device(DeviceEvent),
    /// To a node.
    Node(NodeEvent),
}

impl Event {
    /// `None`: a kind of event that this release does not know, left out.
    fn from_wire(wire: v1::Event) -> Option<Self> {
        use v1::event::Body;
        match wire.body? {
            Body::Lease(event) => LeaseEvent::from_wire(event).map(Self::Lease),
            Body::Device(event) => DeviceEvent::from_wire(event).map(Self::Device),
            Body::Node(event) => NodeEvent::from_wire(event).map(Self::Node),
        }
    }
}

named_enum! {
    /// What can happen to a lease.
    LeaseEventKind {
        /// It was asked for, and is queued.
        Requested = "REQUESTED",
        /// It was granted, and is active.
        Granted = "GRANTED",
        /// It ended uncleanly.
        Reclaiming = "RECLAIMING",
        /// It is over.
        Ended = "ENDED",
        /// Devices are kept for it while it waits.
        Kept = "KEPT",
        /// They no longer are.
        KeepDropped = "KEEP_DROPPED",
        /// It was given notice, and is pausing.
        Noticed = "NOTICED",
        /// Its notice has other causes or another deadline.
        NoticeChanged = "NOTICE_CHANGED",
        /// Its notice is withdrawn, and it is active.
        NoticeWithdrawn = "NOTICE_WITHDRAWN",
        /// It gave its devices back, or lost them, and is paused.
        Paused = "PAUSED",
        /// It was granted again after a pause, and is active.
        Resumed = "RESUMED",
    }
}

/// One thing that happened to a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseEvent {
    /// What.
    pub kind: LeaseEventKind,
    /// Which lease.
    pub lease_id: u64,
    /// Its service.
    pub service: String,
    /// Its holder.
    pub holder: String,
    /// Its request.
    pub request_id: String,
    /// Its name.
    pub name: Option<String>,
    /// Its priority.
    pub priority: Priority,
    /// Requested: what it asks for of each device.
    pub ask: Option<Ask>,
    /// Granted, resumed: the token of this grant.
    pub fencing_token: Option<u64>,
    /// Granted, resumed: what it holds.
    pub devices: Vec<LeasedDevice>,
    /// Reclaiming, ended: why.
    pub end_reason: Option<EndReason>,
    /// Reclaiming, ended, keep dropped, paused: the same in words.
    pub detail: String,
    /// Kept: the devices, by UUID.
    pub kept_devices: Vec<String>,
    /// Noticed, notice changed, notice withdrawn: the notice's number.
    pub notice_id: Option<u64>,
    /// Noticed, notice changed: how long the holder had from this event on.
    pub notice_remaining: Option<Duration>,
    /// Noticed, notice changed: why.
    pub notice_causes: Vec<NoticeCause>,
}

impl LeaseEvent {
    fn from_wire(wire: v1::LeaseEvent) -> Option<Self> {
        Some(Self {
            kind: LeaseEventKind::from_wire(wire.kind)?,
            lease_id: wire.lease_id,
            service: wire.service,
            holder: wire.holder,
            request_id: wire.request_id,
            name: convert::text(wire.name),
            priority: Priority::from_wire(wire.priority).unwrap_or(Priority::Normal),
            ask: wire.ask.map(Ask::from),
            fencing_token: Some(wire.fencing_token).filter(|token| *token > 0),
            devices: wire.devices.into_iter().map(LeasedDevice::from).collect(),
            end_reason: EndReason::from_wire(wire.end_reason),
            detail: wire.detail,
            kept_devices: wire.kept_devices,
            notice_id: Some(wire.notice_id).filter(|notice_id| *notice_id > 0),
            notice_remaining: wire.notice_remaining.and_then(convert::duration),
            notice_causes: wire.notice_causes.into_iter().map(NoticeCause::from).collect(),
        })
    }
}

named_enum! {
    /// What can happen to a device.
    DeviceEventKind {
        /// It was seen for the first time.
        Added = "ADDED",
        /// Its figures or limits changed.
        Changed = "CHANGED",
        /// It is gone, or unusable.
        Lost = "LOST",
        /// It is back.
        Recovered = "RECOVERED",
        /// The part of it that a former lease left closed is open again.
        Opened = "OPENED",
        /// No new grants on it.
        Cordoned = "CORDONED",
        /// Grants on it again.
        Uncordoned = "UNCORDONED",
        /// No new grants on it, and notices to its holders.
        Draining = "DRAINING",
        /// It is on another node now: the one that is named.
        Moved = "MOVED",
    }
}

/// One thing that happened to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceEvent {
    /// What.
    pub kind: DeviceEventKind,
    /// The node's name.
    pub node: String,
    /// Which device.
    pub uuid: String,
    /// Opened: the former lease.
    pub lease_id: Option<u64>,
    /// How, in words.
    pub detail: String,
}

impl DeviceEvent {
    fn from_wire(wire: v1::DeviceEvent) -> Option<Self> {
        Some(Self {
            kind: DeviceEventKind::from_wire(wire.kind)?,
            node: wire.node,
            uuid: wire.uuid,
            lease_id: Some(wire.lease_id).filter(|lease_id| *lease_id > 0),
            detail: wire.detail,
        })
    }
}

named_enum! {
    /// What can happen to a node.
    NodeEventKind {
        /// It was seen for the first time.
        Added = "ADDED",
        /// Its figures or labels changed.
        Changed = "CHANGED",
        /// It was silent for too long.
        Lost = "LOST",
        /// It was heard of again.
        Recovered = "RECOVERED",
        /// It has a new boot id.
        Rebooted = "REBOOTED",
        /// No new grants on it.
        Cordoned = "CORDONED",
        /// Grants on it again.
        Uncordoned = "UNCORDONED",
        /// No new grants on it, and notices to its holders.
        Draining = "DRAINING",
        /// It goes by another name now: the one that is named.
        Renamed = "RENAMED",
    }
}

/// One thing that happened to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeEvent {
    /// What.
    pub kind: NodeEventKind,
    /// Which node.
    pub node: String,
    /// How, in words.
    pub detail: String,
}

impl NodeEvent {
    fn from_wire(wire: v1::NodeEvent) -> Option<Self> {
        Some(Self {
            kind: NodeEventKind::from_wire(wire.kind)?,
            node: wire.node,
            detail: wire.detail,
        })
    }
}
