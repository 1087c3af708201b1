//! A lease: its states, what it holds and what happened to it.
//!
//! | from | input | to |
//! |---|---|---|
//! | – | request | ACTIVE if it fits now, else QUEUED, or refused when it may not wait |
//! | QUEUED | capacity, its turn (P10) | ACTIVE, new token, full TTL |
//! | QUEUED | cancel, release · revoke · wait over · caller gone (P11) · became impossible (P13) | ENDED (CANCELLED · REVOKED · WAIT_OVER · CANCELLED · UNSATISFIABLE) |
//! | ACTIVE | notice; mode pause or end, minimum hold reached | PAUSING (next release) |
//! | PAUSING | acknowledged · withdrawn · deadline | PAUSED or ENDED · ACTIVE · RECLAIMING (next release) |
//! | ACTIVE, PAUSING, PAUSED | release | ENDED (RELEASED) |
//! | ACTIVE, PAUSING | TTL or lifetime over · revoke · device or node lost | RECLAIMING |
//! | PAUSED | capacity, its turn · TTL over, revoke, impossible | ACTIVE · ENDED (next release) |
//! | RECLAIMING | proof or lock delay on every device (P6) | ENDED (EXPIRED · REVOKED · DEVICE_LOST) |
//!
//! Rows marked "next release" have no code yet; a state that nothing enters is not declared.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    event::At,
    id::{DeviceId, LeaseId, Name, Revision, Token},
    request::Request,
    time::Time,
};

/// The newest facts kept of a lease: 64 × about 40 bytes are 2.5 KiB.
pub const HISTORY_MAX: usize = 64;

/// Why a lease ended, or is about to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EndReason {
    /// Its holder released it.
    Released,
    /// Its TTL or lifetime was over.
    Expired,
    /// An operator revoked it.
    Revoked,
    /// It left the queue of its own, or its caller did.
    Cancelled,
    /// It waited as long as it wanted to.
    WaitOver,
    /// No known node can satisfy it any more.
    Unsatisfiable,
    /// A device or node that it held was lost.
    DeviceLost,
}

/// Where a lease stands; the table is at the head of this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Waits for its turn.
    Queued,
    /// Holds its devices.
    Active,
    /// Ended uncleanly; its devices are closed until that is safe.
    Reclaiming(EndReason),
    /// Over.
    Ended(EndReason),
}

impl State {
    /// Not ENDED.
    #[must_use]
    pub const fn live(self) -> bool {
        !matches!(self, Self::Ended(_))
    }

    /// Why it ended or is about to.
    #[must_use]
    pub const fn end_reason(self) -> Option<EndReason> {
        match self {
            Self::Reclaiming(reason) | Self::Ended(reason) => Some(reason),
            Self::Queued | Self::Active => None,
        }
    }
}

/// One thing that happened to a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// When.
    pub time: Time,
    /// In which batch.
    pub revision: Revision,
    /// What.
    pub what: FactKind,
}

/// What can happen to a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FactKind {
    /// It was asked for.
    Requested,
    /// Devices were kept for it.
    Kept,
    /// They no longer are.
    KeepDropped(DropCause),
    /// It was granted, with this token.
    Granted(Token),
    /// It ended uncleanly.
    Reclaiming(EndReason),
    /// Its part of this device is open again.
    Opened(DeviceId, OpenCause),
    /// It is over.
    Ended(EndReason),
}

/// Why devices are no longer kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DropCause {
    /// A request earlier in the order took them over.
    TakenOver,
    /// Another request is the first of this priority now.
    NotFirst,
    /// The caller is away.
    Away,
    /// Something other than leases is in the way.
    Blocked,
    /// They were kept for as long as they may be.
    Lapsed,
}

/// Why a closed part is open again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpenCause {
    /// The lock delay was over.
    LockDelay,
    /// The node has a new boot id.
    Reboot,
    /// The holder released late, on a device whose figures are exact.
    LateRelease,
    /// An operator said that it is safe.
    Operator,
}

/// A lease, from request to end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its number.
    pub id: LeaseId,
    /// What was asked for.
    pub request: Arc<Request>,
    /// Where it stands.
    pub state: State,
    /// The token of its newest grant; 0 before the first.
    pub token: Token,
    /// What it holds, in order of number; kept after the end, for the record.
    pub devices: Box<[DeviceId]>,
    /// When it was asked for.
    pub requested_at: Time,
    /// When it was granted.
    pub granted_at: Option<Time>,
    /// When it ended.
    pub ended_at: Option<Time>,
    /// Why it ended, in the words of whoever ended it.
    pub detail: Option<Arc<str>>,
    /// These devices, which it waited for in vain, are not kept for it before this time (P10).
    pub keep_barred_until: Time,
    /// See [`Self::keep_barred_until`].
    pub keep_barred: Box<[DeviceId]>,
    /// What happened to it, oldest first.
    pub history: Vec<Fact>,
    /// Its request id still names it (P16).
    pub remembered: bool,
    /// Its record is among those kept for their own sake (P17).
    pub recorded: bool,
}

impl Lease {
    /// A request that waits.
    #[must_use]
    pub fn new(id: LeaseId, request: Arc<Request>, at: At) -> Self {
        let mut lease = Self {
            id,
            request,
            state: State::Queued,
            token: Token(0),
            devices: Box::default(),
            requested_at: at.time,
            granted_at: None,
            ended_at: None,
            detail: None,
            keep_barred_until: Time::ZERO,
            keep_barred: Box::default(),
            history: Vec::with_capacity(3),
            remembered: true,
            recorded: true,
        };
        lease.record(at, FactKind::Requested);
        lease
    }

    /// Its name, where it has one.
    #[must_use]
    pub fn name(&self) -> Option<&Name> {
        self.request.name.as_ref()
    }

    /// Adds a fact, and drops the oldest over the bound.
    pub fn record(&mut self, at: At, what: FactKind) {
        if self.history.len() >= HISTORY_MAX {
            self.history.remove(0);
        }
        self.history.push(Fact { time: at.time, revision: at.revision, what });
    }
}
