//! Events: the facts that change the state, and all that the journal holds.
//!
//! State is the fold of the batches in order of revision. An event says what was decided, never why it would be
//! decided again: applying one reads no policy, no soft state and no clock.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    id::{DeviceId, LeaseId, Name, NodeId, NoticeId, Revision, Token},
    inventory::{DeviceFacts, NodeFacts},
    lease::{Basis, DropCause, EndReason, OpenCause},
    notice::{Cause, Target},
    order::{Class, Lane},
    request::Request,
    time::{Span, Time},
};

/// When and in which batch an event stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct At {
    /// The batch.
    pub revision: Revision,
    /// Its time.
    pub time: Time,
}

/// All events of one revision: made durable together, seen together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Its number.
    pub revision: Revision,
    /// When it was decided.
    pub time: Time,
    /// What was decided.
    pub events: Vec<Event>,
}

impl Batch {
    /// When and in which batch its events stand.
    #[must_use]
    pub const fn at(&self) -> At {
        At { revision: self.revision, time: self.time }
    }
}

/// A fact that changes the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A node was seen for the first time, under the next free number.
    NodeAdded {
        /// What it is.
        facts: Arc<NodeFacts>,
    },
    /// A node changed.
    NodeChanged {
        /// Which one.
        node: NodeId,
        /// What it is now.
        facts: Arc<NodeFacts>,
        /// It has a new boot id.
        rebooted: bool,
    },
    /// A node was silent for too long.
    NodeLost {
        /// Which one.
        node: NodeId,
    },
    /// A lost node was heard of.
    NodeRecovered {
        /// Which one.
        node: NodeId,
    },
    /// A device was seen for the first time, under the next free number.
    DeviceAdded {
        /// Where it is.
        node: NodeId,
        /// What it is.
        facts: Arc<DeviceFacts>,
    },
    /// A device's figures changed.
    DeviceChanged {
        /// Which one.
        device: DeviceId,
        /// What it is now.
        facts: Arc<DeviceFacts>,
    },
    /// A device is gone, or unusable.
    DeviceLost {
        /// Which one.
        device: DeviceId,
        /// How.
        detail: Name,
    },
    /// A lost device is back.
    DeviceRecovered {
        /// Which one.
        device: DeviceId,
    },
    /// A lease was asked for; it is QUEUED until a grant, be that in the same batch.
    Requested {
        /// Its number.
        lease: LeaseId,
        /// What is asked for.
        request: Arc<Request>,
    },
    /// A lease was granted, for the first time or after a pause.
    Granted {
        /// Which one.
        lease: LeaseId,
        /// Its token.
        token: Token,
        /// What it holds, in order of number.
        devices: Box<[DeviceId]>,
        /// Its place in the order.
        class: Class,
        /// How it was decided.
        basis: Basis,
        /// It was granted before, and paused.
        resumed: bool,
    },
    /// A lease was given notice.
    Noticed {
        /// Which one.
        lease: LeaseId,
        /// The notice's number.
        notice: NoticeId,
        /// Why.
        causes: Vec<Cause>,
        /// When its devices are taken.
        deadline: Time,
    },
    /// A notice has other causes or another deadline.
    NoticeChanged {
        /// Which lease.
        lease: LeaseId,
        /// The notice's number.
        notice: NoticeId,
        /// Why it stands now.
        causes: Vec<Cause>,
        /// When the devices are taken now.
        deadline: Time,
        /// The holder has had its extension.
        extended: bool,
    },
    /// A notice has no cause any more.
    NoticeWithdrawn {
        /// Which lease.
        lease: LeaseId,
        /// The notice's number.
        notice: NoticeId,
    },
    /// A lease gave its devices back on a notice, or lost one of them, and waits for others.
    Paused {
        /// Which one.
        lease: LeaseId,
        /// What it lost, in words; `None`: it acknowledged its notice.
        lost: Option<Arc<str>>,
    },
    /// No new grants on a device or node, on an operator's word.
    Cordoned {
        /// Where.
        target: Target,
        /// Holders are given notice too.
        drain: bool,
        /// Why.
        reason: Arc<str>,
    },
    /// That was taken back.
    Uncordoned {
        /// Where.
        target: Target,
    },
    /// Devices are kept for the first request of its lane (P10).
    Kept {
        /// Which request.
        lease: LeaseId,
        /// As the first of which lane.
        lane: Lane,
        /// Which devices.
        devices: Box<[DeviceId]>,
        /// When the keep lapses.
        lapses_at: Time,
    },
    /// They no longer are.
    KeepDropped {
        /// Which request.
        lease: LeaseId,
        /// Why.
        cause: DropCause,
        /// The devices that it waited for in vain are not kept for it before this time.
        barred_until: Time,
        /// Which they are; none unless the keep lapsed.
        barred: Box<[DeviceId]>,
    },
    /// A lease ended uncleanly: its part of each device is closed.
    Reclaiming {
        /// Which one.
        lease: LeaseId,
        /// Why.
        reason: EndReason,
        /// The same in words.
        detail: Option<Arc<str>>,
    },
    /// What a former lease closed of a device is open again.
    Opened {
        /// Which device.
        device: DeviceId,
        /// The former lease.
        lease: LeaseId,
        /// Why.
        cause: OpenCause,
    },
    /// A lease is over.
    Ended {
        /// Which one.
        lease: LeaseId,
        /// Why.
        reason: EndReason,
        /// The same in words.
        detail: Option<Arc<str>>,
    },
    /// Nothing but the time of the batch (P5).
    Checkpoint,
    /// The use of services halves in another time from now on (P10).
    HalfLifeChanged {
        /// In how long.
        half_life: Span,
    },
    /// The journal was imported or repaired, so that leases may live which it does not know (P2).
    Imported {
        /// The newest token from now on, by at least [`TOKEN_JUMP`](crate::import::TOKEN_JUMP) above the one before.
        token: Token,
        /// Until then every device is closed, those included that are seen for the first time before.
        closed_until: Time,
    },
    /// A device that an import closed is open.
    DeviceOpened {
        /// Which one.
        device: DeviceId,
        /// Why.
        cause: OpenCause,
        /// The same in the operator's words.
        detail: Option<Arc<str>>,
    },
    /// A node goes by another name now: the same boot of the same host.
    NodeRenamed {
        /// Which one.
        node: NodeId,
        /// Its name before.
        before: Name,
        /// What it is now.
        facts: Arc<NodeFacts>,
    },
    /// A device is on another node now. Nobody holds it.
    DeviceMoved {
        /// Which one.
        device: DeviceId,
        /// Where it was, by name.
        before: Name,
        /// Where it is.
        node: NodeId,
    },
}
