//! Inputs: everything that can move the scheduler. The shell makes them; the core answers with events and effects.

use std::sync::Arc;

use crate::{
    id::{Caller, Holder, LeaseId, Name, NoticeId, Ticket, Token},
    inventory::{DeviceFacts, NodeFacts},
    plan::Plan,
    request::{Process, Request},
    time::Span,
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
    /// A plan is to be granted, all of it or nothing.
    Reserve {
        /// What the reply carries.
        ticket: Ticket,
        /// The plan.
        plan: Arc<Plan>,
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
    /// A holder answers a notice: it has stopped, and gives the devices back.
    Acknowledge {
        /// Who asks.
        caller: Caller,
        /// What the reply carries.
        ticket: Ticket,
        /// Which lease.
        lease: LeaseId,
        /// The token of its grant.
        token: Token,
        /// Which notice.
        notice: NoticeId,
        /// Who the caller says it is; the session's holder in a session.
        holder: Option<Holder>,
    },
    /// A holder asks for more time to answer a notice.
    ExtendNotice {
        /// Who asks.
        caller: Caller,
        /// What the reply carries.
        ticket: Ticket,
        /// Which lease.
        lease: LeaseId,
        /// The token of its grant.
        token: Token,
        /// Which notice.
        notice: NoticeId,
        /// By how much.
        extension: Span,
        /// Who the caller says it is; the session's holder in a session.
        holder: Option<Holder>,
    },
    /// An operator wants no new grants on a device or node.
    Cordon {
        /// What the reply carries.
        ticket: Ticket,
        /// Where.
        target: TargetName,
        /// Holders are to be given notice too.
        drain: bool,
        /// Why.
        reason: Arc<str>,
    },
    /// An operator takes that back.
    Uncordon {
        /// What the reply carries.
        ticket: Ticket,
        /// Where.
        target: TargetName,
    },
    /// An operator wants a node's driver let go, or taken up again: a reset or an update of it needs that nobody has it
    /// open.
    Quiesce {
        /// What the reply carries.
        ticket: Ticket,
        /// The node's name.
        node: Name,
        /// Let go.
        quiesced: bool,
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
        /// What a pass over all processes showed, where there was one.
        trees: Option<TreePass>,
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

/// A device or node, as people name them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetName {
    /// A device, by UUID.
    Device(Name),
    /// A node, by name.
    Node(Name),
}

/// One measurement of one device.
#[derive(Clone, Debug)]
pub struct DeviceSample {
    /// Which device.
    pub uuid: Name,
    /// Its memory; `None`: unknown, which blocks grants (P7).
    pub memory: Option<MemoryReport>,
    /// The newest check of this device asked for before the reading began; 0: none was.
    pub check: u64,
}

/// What a backend read of the memory of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemoryReport {
    /// Everything, exact at this moment.
    Exact(MemoryReading),
    /// The sum alone; what the newest pass over the processes showed still stands.
    Sum {
        /// In use, in bytes, the driver's own left out.
        used_bytes: u64,
    },
    /// The sum and the processes, from one pass.
    Pass {
        /// In use, in bytes, the driver's own left out.
        used_bytes: u64,
        /// At most [`PROCESSES_MAX`] processes.
        processes: Vec<ProcessUse>,
    },
    /// The sum alone, where no use can be attributed.
    Unattributed {
        /// In use, in bytes, the driver's own left out.
        used_bytes: u64,
        /// Why not.
        reason: Name,
    },
}

impl MemoryReport {
    /// In use, in bytes, the driver's own left out.
    #[must_use]
    pub const fn used_bytes(&self) -> u64 {
        match self {
            Self::Exact(reading) => reading.used_bytes,
            Self::Sum { used_bytes }
            | Self::Pass { used_bytes, .. }
            | Self::Unattributed { used_bytes, .. } => *used_bytes,
        }
    }
}

/// The most processes told of one device: 1,024 × some 400 bytes are 400 KB.
pub const PROCESSES_MAX: usize = 1_024;

/// What one process uses of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessUse {
    /// Which one.
    pub process: Process,
    /// The declared process in whose tree it is.
    pub root: Option<Process>,
    /// How much, in bytes.
    pub bytes: u64,
    /// The user that runs it.
    pub uid: Option<u32>,
    /// Its command line, cut to a name's length; may be empty.
    pub command: Name,
}

/// What a pass over all processes of a node showed of the declared ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreePass {
    /// The newest check of any device asked for before the pass began; 0: none was.
    pub check: u64,
    /// Declared processes of which something lives: itself, or something it started. All others have exited.
    pub alive: Vec<Process>,
}

/// The memory of one device, explained.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryReading {
    /// In use, in bytes.
    pub used_bytes: u64,
    /// Of these, what no holding lease explains.
    pub foreign_bytes: u64,
    /// Of these, what each holding lease uses. A lease that is missing uses nothing.
    pub attributed: Vec<(LeaseId, u64)>,
}
