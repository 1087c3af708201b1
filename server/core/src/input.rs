//! Inputs: everything that can move the scheduler. The shell makes them; the core answers with events and effects.

use std::sync::Arc;

use crate::{
    id::{Caller, Holder, LeaseId, Name, Ticket, Token},
    inventory::{DeviceFacts, NodeFacts},
    request::Request,
};

/// One input.
#[derive(Clone, Debug)]
pub enum Input {
    /// A lease is asked for.
    Acquire {
        /// Who waits for it.
        caller: Caller,
        /// What its replies carry.
        ticket: Ticket,
        /// What is asked for.
        request: Arc<Request>,
    },
    /// A lease is extended.
    Renew {
        /// Who asks.
        caller: Caller,
        /// What the reply carries.
        ticket: Ticket,
        /// Which lease.
        lease: LeaseId,
        /// The token of its grant.
        token: Token,
        /// Who the caller says it is; the session's holder in a session.
        holder: Option<Holder>,
    },
    /// A lease is given back, or a place in the queue given up.
    Release {
        /// Who asks.
        caller: Caller,
        /// What the reply carries.
        ticket: Ticket,
        /// Which lease.
        lease: LeaseId,
        /// The token of its grant; needless while QUEUED.
        token: Option<Token>,
        /// Who the caller says it is; the session's holder in a session.
        holder: Option<Holder>,
    },
    /// An operator ends a lease.
    Revoke {
        /// What the reply carries.
        ticket: Ticket,
        /// Which lease.
        lease: LeaseId,
        /// Why.
        detail: Arc<str>,
    },
    /// A holder opened a session (P22).
    SessionOpened {
        /// The new session.
        caller: Caller,
        /// What the reply carries.
        ticket: Ticket,
        /// Whose it is.
        holder: Holder,
    },
    /// A session or a unary call is over, however it ended.
    CallerGone {
        /// Which one.
        caller: Caller,
    },
    /// What a node is and has, whole: a device it had and does not name is lost.
    Observed {
        /// The node.
        node: Arc<NodeFacts>,
        /// Its devices.
        devices: Vec<DeviceReport>,
    },
    /// Measurements of a node's devices; proves that the node is there.
    Sampled {
        /// The node's name.
        node: Name,
        /// One for each device measured.
        samples: Vec<DeviceSample>,
    },
    /// An operator says that nothing of former leases runs on a device (P2, P6).
    OpenDevice {
        /// What the reply carries.
        ticket: Ticket,
        /// Which device.
        uuid: Name,
        /// Why that is safe.
        detail: Arc<str>,
    },
    /// Time went on: a deadline is due, or the heartbeat (P4).
    Tick,
}

/// One device in the report of its node.
#[derive(Clone, Debug)]
pub struct DeviceReport {
    /// What it is.
    pub facts: Arc<DeviceFacts>,
    /// Why it cannot be used; `None`: it can.
    pub lost: Option<Name>,
}

/// One measurement of one device.
#[derive(Clone, Debug)]
pub struct DeviceSample {
    /// Which device.
    pub uuid: Name,
    /// Its memory; `None`: unknown, which blocks grants (P7).
    pub memory: Option<MemoryReading>,
}

/// The memory of one device, from one pass over it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryReading {
    /// In use, in bytes.
    pub used_bytes: u64,
    /// Of these, what no holding lease explains.
    pub foreign_bytes: u64,
    /// Of these, what each holding lease uses. A lease that is missing uses nothing.
    pub attributed: Vec<(LeaseId, u64)>,
}
