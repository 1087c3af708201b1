//! What a step gives back: events to make durable, and effects to let out once they are (P3).

use std::{fmt, sync::Arc};

use crate::{
    event::Event,
    id::{Caller, LeaseId, Name, Ticket, Token},
    lease::{EndReason, State},
    plan::{Planned, Unassigned},
    request::{InvalidField, Process},
    time::Span,
    view::{LeaseView, NoticeView},
};

/// Everything that a run of steps decided.
#[derive(Debug, Default)]
pub struct Output {
    /// To be made durable, in this order, as one batch.
    pub events: Vec<Event>,
    /// To be let out after that, in this order.
    pub effects: Vec<Effect>,
    /// How much of a batch the events take up, in events of usual size.
    pub(crate) weight: usize,
}

/// An act to do after the commit.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Answers a request. A request that has to wait is answered twice: [`Answer::Queued`], then the end.
    Reply {
        /// Which request.
        ticket: Ticket,
        /// What.
        reply: Result<Answer, Rejection>,
    },
    /// Tells a session of a lease of its holder that changed without its asking.
    Changed {
        /// The session.
        caller: Caller,
        /// The lease as it is now.
        lease: Box<LeaseView>,
    },
    /// Asks a node's backend for a full pass over a device, begun after this, outside its own rhythm (P6, P7).
    Check {
        /// The node.
        node: Name,
        /// The device, by UUID.
        device: Name,
        /// What the answering sample says, or a later number.
        number: u64,
    },
    /// Has a node's backend let go of its driver, or take it up again.
    Quiesce {
        /// The node.
        node: Name,
        /// Let go.
        quiesced: bool,
    },
    /// A process was declared: passes tell from now on whether anything of its tree lives.
    Track {
        /// Which one.
        process: Process,
    },
    /// Two nodes name one device: it stays where it was. Said once for each claim.
    ClaimRefused {
        /// The device, by UUID.
        device: Name,
        /// Where it stays.
        node: Name,
        /// Who claims it.
        claimant: Name,
    },
    /// A newer session of the same holder took over: this one ends with ABORTED (P22).
    SessionReplaced {
        /// The older session.
        caller: Caller,
    },
}

/// A good answer.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The request waits; another answer follows.
    Queued(Box<LeaseView>),
    /// The lease that the request made, as it is now: ACTIVE, or whatever became of it (P16).
    Lease(Box<LeaseView>),
    /// The plan is granted, or was before.
    Planned(Box<Planned>),
    /// The lease lives on.
    Renewed {
        /// Which one.
        lease: LeaseId,
        /// The token to use from now on.
        token: Token,
        /// For how long it now lives, at least.
        remaining: Span,
        /// Where it stands: ACTIVE, PAUSING or PAUSED.
        state: State,
        /// While PAUSING: what it is asked.
        notice: Option<Box<NoticeView>>,
        /// The lease as it is, where the token given was not its newest (P17).
        resumed: Option<Box<LeaseView>>,
    },
    /// The notice is answered, or was not there any more: the lease as it is now.
    Acknowledged(Box<LeaseView>),
    /// The notice is extended, or was not there any more: the lease as it is now.
    NoticeExtended(Box<LeaseView>),
    /// No new grants there.
    Cordoned(Cordoned),
    /// Grants there again.
    Uncordoned,
    /// The driver is being let go, or taken up again.
    Quiesced,
    /// The lease was released.
    Released(Box<LeaseView>),
    /// The lease was revoked.
    Revoked(Box<LeaseView>),
    /// The device is open, as far as former leases go.
    DeviceOpened {
        /// The former leases whose parts of it were opened.
        leases: Vec<LeaseId>,
    },
    /// The session is open; these are the holder's live leases, at most [`WELCOME_MAX`], the newest.
    Welcome(Vec<LeaseView>),
}

/// What a cordon or drain met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cordoned {
    /// Leases that hold devices there.
    pub holding: Vec<LeaseId>,
    /// Of these, those with a notice of the drain.
    pub noticed: Vec<LeaseId>,
    /// Those whose minimum hold is not over: they are given notice then. Also those of whom this batch is too full: they
    /// are given notice in one of the next, which a crash does not change.
    pub later: Vec<LeaseId>,
    /// Those that may never be preempted.
    pub staying: Vec<LeaseId>,
}

/// The most leases told at the opening of a session: 10,000 × about 400 bytes are 4 MB, one message.
pub const WELCOME_MAX: usize = 10_000;

/// A polite no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// Nothing fits now, and the request may not wait.
    NoCapacity,
    /// The same, and an import closed devices that would do (P2).
    DevicesClosed {
        /// How many.
        devices: usize,
        /// For how long, unless an operator opens them.
        remaining: Span,
    },
    /// Not all of a plan fits, so that nothing of it was granted.
    PlanIncomplete {
        /// The first pipeline that has no device, by its place in the plan.
        pipeline: usize,
        /// Its name.
        name: Name,
        /// How many have none.
        unassigned: usize,
        /// Why that one has none.
        why: Unassigned,
    },
    /// There is no such device.
    DeviceNotFound {
        /// What was asked for.
        uuid: Name,
    },
    /// The wait is over.
    WaitOver {
        /// How long it waited.
        waited: Span,
        /// The quota that held it back then.
        held_back: Option<Box<QuotaReached>>,
    },
    /// No known node could satisfy it even when empty (P13).
    Unsatisfiable(Box<Unsatisfiable>),
    /// There was never an inventory, so nothing can be said yet.
    InventoryUnknown,
    /// As many requests wait as may.
    QueueFull {
        /// The bound.
        max: usize,
    },
    /// As many leases live as may.
    LeasesFull {
        /// The bound.
        max: usize,
    },
    /// As many services are known as may be.
    ServicesFull {
        /// The bound.
        max: usize,
    },
    /// The service is at one of its quotas, or the request alone is above it.
    QuotaReached(Box<QuotaReached>),
    /// The token is not that of the newest grant.
    StaleToken {
        /// Which lease.
        lease: LeaseId,
        /// The token given; `None`: none was.
        given: Option<Token>,
    },
    /// The lease has ended, or is RECLAIMING.
    LeaseEnded {
        /// Which lease.
        lease: LeaseId,
        /// Why.
        reason: EndReason,
    },
    /// The lease is still QUEUED: there is nothing to renew.
    LeaseNotActive {
        /// Which lease.
        lease: LeaseId,
    },
    /// There is no such lease, or its record is gone.
    LeaseNotFound {
        /// Which lease.
        lease: LeaseId,
    },
    /// The notice is not the lease's newest, and the lease has none to extend.
    NoticeOver {
        /// Which lease.
        lease: LeaseId,
    },
    /// The notice was extended before, or is as long as it may be.
    NoticeAtBound {
        /// Which lease.
        lease: LeaseId,
        /// The longest that a notice may become.
        max: Span,
    },
    /// There is no such node.
    NodeNotFound {
        /// Its name.
        name: Name,
    },
    /// The lease is somebody else's.
    NotTheHolder {
        /// Which lease.
        lease: LeaseId,
    },
    /// Another live lease of the service has the name.
    NameTaken {
        /// The name.
        name: Name,
        /// That lease.
        lease: LeaseId,
    },
    /// Another holder of the service uses the request id.
    RequestIdTaken {
        /// That holder's lease.
        lease: LeaseId,
    },
    /// The holder used the request id for another request.
    RequestIdReused {
        /// The lease of the earlier request.
        lease: LeaseId,
    },
    /// The request left the queue before it was granted.
    Cancelled {
        /// Which lease.
        lease: LeaseId,
    },
    /// An operator revoked the request while it waited.
    Revoked {
        /// Which lease.
        lease: LeaseId,
        /// Why.
        detail: Option<Arc<str>>,
    },
    /// A newer call took up the place in the queue by the same request id; its answer goes there.
    Superseded {
        /// Which lease.
        lease: LeaseId,
    },
    /// The session was replaced, so that what it asked is not done (P22).
    SessionReplaced,
    /// A field is out of bounds, of everybody or of the service.
    InvalidField(InvalidField),
}

/// What a quota of a service bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quota {
    /// Leases that hold devices.
    Leases,
    /// Their devices.
    Devices,
    /// The bytes that they count.
    Memory,
    /// Requests that wait.
    Waiting,
}

impl Quota {
    /// What is counted, in words.
    #[must_use]
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Leases => "leases",
            Self::Devices => "devices",
            Self::Memory => "bytes",
            Self::Waiting => "waiting requests",
        }
    }
}

/// A quota, and what is used of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaReached {
    /// Whose.
    pub service: Name,
    /// Of what.
    pub quota: Quota,
    /// The bound.
    pub limit: u64,
    /// In use, with what is kept for requests of the service that stand before it, and wanted by the first of them.
    pub in_use: u64,
    /// What is wanted on top.
    pub wanted: u64,
    /// It is not this request that the quota holds back, but one of the service that stands before it.
    pub others_first: bool,
}

impl QuotaReached {
    /// The request alone is above the quota: waiting does not help.
    #[must_use]
    pub fn never(&self) -> bool {
        // A place in the queue is needed only where nothing fits at once.
        self.wanted > self.limit && self.quota != Quota::Waiting
    }
}

impl fmt::Display for QuotaReached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, quota, limit, in_use, wanted, others_first } = self;
        let noun = quota.noun();
        if self.never() {
            return write!(
                f,
                "{wanted} {noun} are above the quota of service {service} of {limit}"
            );
        }
        write!(
            f,
            "service {service} is at its quota ({noun} {in_use} of {limit}, {wanted} wanted"
        )?;
        f.write_str(if *others_first { " by a request before it)" } else { ")" })
    }
}

/// Which constraint excludes how many devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unsatisfiable {
    /// Devices known.
    pub devices: usize,
    /// Devices wanted.
    pub wanted: u32,
    /// Devices that would do each by itself.
    pub suitable: usize,
    /// The most of them on one node, where they have to be on one.
    pub suitable_on_one_node: Option<usize>,
    /// What excludes the others, each counted under the first thing that does.
    pub excluded: Vec<(Exclusion, usize)>,
}

/// What can exclude a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exclusion {
    /// Its node was not seen within the hour.
    NotSeen,
    /// The vendor.
    Vendor,
    /// The model.
    Model,
    /// The compute capability.
    ComputeCapability,
    /// The framework.
    Framework,
    /// It is not on the list of devices that may be taken.
    DeviceAllow,
    /// It is on the list of those that may not.
    DeviceDeny,
    /// Its node is not on the list of nodes that may be taken.
    NodeAllow,
    /// Its node is on the list of those that may not.
    NodeDeny,
    /// Its node lacks a label.
    NodeLabels,
    /// Its node has too little CPU.
    HostCpu,
    /// Its node has too little memory.
    HostMemory,
    /// It has too few slots.
    Slots,
    /// It has too little memory, even when empty.
    Memory,
}

impl Exclusion {
    /// The field of the request that speaks of it.
    #[must_use]
    pub const fn field(self) -> &'static str {
        match self {
            Self::NotSeen => "last seen within the hour",
            Self::Vendor => "constraints.vendor",
            Self::Model => "constraints.models",
            Self::ComputeCapability => "constraints.compute_capability_min",
            Self::Framework => "constraints.framework",
            Self::DeviceAllow => "constraints.device_allow",
            Self::DeviceDeny => "constraints.device_deny",
            Self::NodeAllow => "constraints.node_allow",
            Self::NodeDeny => "constraints.node_deny",
            Self::NodeLabels => "constraints.node_labels",
            Self::HostCpu => "constraints.host_cpu_millis",
            Self::HostMemory => "constraints.host_memory_bytes",
            Self::Slots => "ask.slots",
            Self::Memory => "ask.memory_bytes",
        }
    }
}

impl fmt::Display for Unsatisfiable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} devices wanted, {} of {} known would do",
            self.wanted, self.suitable, self.devices
        )?;
        if let Some(most) = self.suitable_on_one_node {
            write!(f, ", {most} at most on one node")?;
        }
        for (exclusion, count) in &self.excluded {
            write!(f, "; {} excludes {count}", exclusion.field())?;
        }
        Ok(())
    }
}
