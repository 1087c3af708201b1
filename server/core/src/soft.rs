//! Soft state: what applying events never reads, and a restart sets to the worst case.
//!
//! Renewal deadlines, measurements, sessions and the queue's order. After a restart every lease has its full TTL,
//! no device is measured, no session is open and every waiter is expected back (P4, P11).

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use crate::{
    attribution::Measurement,
    changes::Changes,
    deadline::Deadlines,
    id::{Caller, DeviceId, Holder, LeaseId, NodeId, Token},
    input::DeviceReport,
    inventory::ClosedUntil,
    lease::OpenCause,
    notice::{Cause, Target},
    placement::Capacity,
    policy::Policy,
    queue::Queue,
    request::Process,
    sizes::KnownSizes,
    time::{Span, Time},
};

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Soft {
    pub(crate) clock: Clock,
    pub(crate) deadlines: Deadlines,
    pub(crate) queue: Queue,
    /// When each ACTIVE, PAUSING or PAUSED lease expires unless renewed.
    pub(crate) expiries: BTreeMap<LeaseId, Time>,
    /// When each standing notice is over: what the state says, or later after a restart.
    pub(crate) notices: BTreeMap<LeaseId, Time>,
    /// Which notices each cause has, and when each were over if it had no other.
    pub(crate) noticed_for: BTreeMap<Cause, BTreeMap<LeaseId, Time>>,
    /// Waiting requests for which others gave their devices back.
    pub(crate) served_by_notice: BTreeSet<LeaseId>,
    /// Leases that were let in on devices kept for others, while they hold them.
    pub(crate) guests: BTreeSet<LeaseId>,
    /// Such leases that were paused and wait, by the request that they made room for: they stand behind it (P10).
    pub(crate) made_way: BTreeMap<LeaseId, BTreeSet<LeaseId>>,
    /// Leases whose holder spoke of them last by a unary call: their holder is there while they are renewed.
    pub(crate) unary: BTreeSet<LeaseId>,
    /// Resumed leases whose new token was used: the one before is worthless (P17).
    pub(crate) adopted: BTreeSet<LeaseId>,
    /// The session of each holder, and the holder of each session.
    pub(crate) sessions: BTreeMap<Holder, Caller>,
    pub(crate) holders: BTreeMap<Caller, Holder>,
    pub(crate) measured: Measured,
    /// What is free, looked at when a request is placed; a look changes nothing but what is remembered.
    pub(crate) capacity: RefCell<Capacity>,
    /// When a better set may next be looked for, by the request that keeps one.
    pub(crate) looks: BTreeMap<LeaseId, Time>,
    /// What requests would count of the devices that would do for them.
    pub(crate) sizes: RefCell<KnownSizes>,
    /// What each closed part waits for.
    pub(crate) closing: BTreeMap<(DeviceId, LeaseId), Closing>,
    /// Processes of unclean ends that outlived the lock delay: while a pass shows them, no whole-device grants (P6).
    pub(crate) lingering: BTreeMap<DeviceId, BTreeSet<Process>>,
    /// Devices that are another node's, and what names them: the newest of each.
    pub(crate) claims: BTreeMap<DeviceId, Claim>,
    /// Devices that the newest report of their own node left out.
    pub(crate) left_out: BTreeSet<DeviceId>,
    /// The newest check asked for.
    pub(crate) check: u64,
    /// Nodes whose drivers are let go on purpose: their devices are not measured, and no one is surprised.
    pub(crate) quiesced: BTreeSet<NodeId>,
    /// Something may fit now that did not before.
    pub(crate) dirty: bool,
    /// What a full batch left to the next one.
    pub(crate) rest: Rest,
}

/// What a full batch left to the next one (`scheduler/portions`).
#[derive(Debug, Default)]
pub(crate) struct Rest {
    /// Leases that lose their devices.
    pub(crate) lost: VecDeque<LosingDevices>,
    /// Closed parts of a device that open, and why.
    pub(crate) opening: VecDeque<(DeviceId, OpenCause, VecDeque<LeaseId>)>,
    /// Causes of notices that are gone.
    pub(crate) withdrawn: BTreeSet<Cause>,
    /// Leases to be given notice of a drain.
    pub(crate) drained: VecDeque<(Target, VecDeque<LeaseId>)>,
    /// Waiters that may be impossible now.
    pub(crate) impossible: VecDeque<LeaseId>,
    /// The order was not gone through to its end.
    pub(crate) serve: bool,
}

impl Rest {
    pub(crate) fn is_empty(&self) -> bool {
        self.lost.is_empty()
            && self.opening.is_empty()
            && self.withdrawn.is_empty()
            && self.drained.is_empty()
            && self.impossible.is_empty()
            && !self.serve
    }
}

/// Leases that lose their devices.
#[derive(Debug)]
pub(crate) struct LosingDevices {
    /// Which ones, each with the token of the grant that it loses.
    pub(crate) leases: VecDeque<(LeaseId, Token)>,
    /// How.
    pub(crate) detail: Arc<str>,
    /// This node was rebooted: nothing of them stays closed there.
    pub(crate) rebooted: Option<NodeId>,
}

/// A node names a device that is another's.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) node: NodeId,
    pub(crate) report: DeviceReport,
}

/// A closed part on its way to being opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closing {
    /// When it was closed, or its node was last found silent: the lock delay counts from here.
    pub(crate) since: Time,
    /// Only a pass that answers this check or a later one proves anything.
    pub(crate) check: u64,
    /// How often a check was asked for: each waits longer than the one before.
    pub(crate) checks: u32,
    /// Its holder released after the unclean end.
    pub(crate) released_late: bool,
    /// Memory in use when it was closed, and of that what nothing explained, in bytes; `None`: unknown.
    pub(crate) before: Option<(u64, u64)>,
}

impl Closing {
    /// When the part opens at the latest, if its node stays in reach.
    pub(crate) fn opens_at(&self, until: ClosedUntil, policy: &Policy) -> Time {
        self.since.after(match until {
            ClosedUntil::Checked => policy.release_check_max,
            ClosedUntil::Proven => policy.lock_delay,
        })
    }
}

/// The scheduler's own time: the shell's, less the gaps in which nothing could be heard (P4).
///
/// Taking a gap out of the time extends every deadline by it, without touching one.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    /// The shell's time of the newest step.
    raw: Time,
    /// All gaps together.
    stalled: Span,
    /// Nothing expires before this time: inputs that waited out a gap come first.
    pub(crate) quiet_until: Time,
}

impl Clock {
    /// Starts at the shell's `raw`, which is also the first time.
    pub(crate) fn start(raw: Time) -> Self {
        Self { raw, ..Self::default() }
    }

    /// Goes on to the shell's `raw`; a gap counts while leases live.
    pub(crate) fn advance(&mut self, raw: Time, live: bool, policy: &Policy) {
        let gap = raw.since(self.raw);
        self.raw = self.raw.max(raw);
        if live && gap > policy.gap_max {
            self.stalled = self.stalled.plus(gap);
            self.quiet_until = self.now().after(policy.heartbeat);
        }
    }

    pub(crate) fn now(&self) -> Time {
        self.raw.before(self.stalled)
    }

    /// A moment of the shell's time on this one.
    pub(crate) fn own(&self, raw: Time) -> Time {
        raw.before(self.stalled)
    }

    /// A moment of this time on the shell's.
    pub(crate) fn shell(&self, own: Time) -> Time {
        own.after(self.stalled)
    }

    /// When the next heartbeat is due, on the shell's time.
    pub(crate) fn heartbeat(&self, policy: &Policy) -> Time {
        self.raw.after(policy.heartbeat)
    }
}

/// What was measured.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    devices: Vec<Option<Measurement>>,
    nodes: Vec<Option<Heard>>,
    changes: Changes,
}

/// When a node was last heard of.
#[derive(Clone, Copy, Debug)]
struct Heard {
    at: Time,
    /// In this run; else the time is when that is expected.
    met: bool,
}

impl Measured {
    pub(crate) fn device(&self, id: DeviceId) -> Option<&Measurement> {
        self.devices.get(id.0 as usize)?.as_ref()
    }

    /// What is not measured but counts as much changed on a node: what lingers there, or whether it is quiesced.
    pub(crate) fn touch(&mut self, node: NodeId) {
        self.changes.touch(node);
    }

    /// How often anything was seen to be new.
    pub(crate) const fn changes(&self) -> u64 {
        self.changes.all()
    }

    /// The same of a node.
    pub(crate) fn changes_of(&self, node: NodeId) -> u64 {
        self.changes.of(node)
    }

    /// Books a sample; answers whether anything but its time is new.
    pub(crate) fn sample(
        &mut self,
        (node, id): (NodeId, DeviceId),
        sample: Measurement,
        policy: &Policy,
    ) -> bool {
        let slot = grow(&mut self.devices, id.0 as usize);
        let fresh = |old: &Measurement| sample.at.since(old.at) <= policy.sample_age_max;
        let news = slot.as_ref().is_none_or(|old| !old.same(&sample) || !fresh(old));
        *slot = Some(sample);
        if news {
            self.changes.touch(node);
        }
        news
    }

    /// The newest sample of a device, to explain it anew.
    pub(crate) fn device_mut(&mut self, node: NodeId, id: DeviceId) -> Option<&mut Measurement> {
        self.changes.touch(node);
        self.devices.get_mut(id.0 as usize)?.as_mut()
    }

    /// Forgets the sample of a device, which is another's host now.
    pub(crate) fn forget(&mut self, id: DeviceId) {
        *grow(&mut self.devices, id.0 as usize) = None;
    }

    /// When a node was last heard of in this run, or its silence began.
    pub(crate) fn node(&self, id: NodeId) -> Option<Time> {
        self.nodes.get(id.0 as usize).copied().flatten().map(|heard| heard.at)
    }

    /// Whether a node was heard of in this run.
    pub(crate) fn met(&self, id: NodeId) -> bool {
        self.nodes.get(id.0 as usize).copied().flatten().is_some_and(|heard| heard.met)
    }

    /// Books that a node was heard of; answers when it was before.
    pub(crate) fn heard(&mut self, id: NodeId, at: Time, policy: &Policy) -> Option<Time> {
        let heard = Heard { at, met: true };
        let before = grow(&mut self.nodes, id.0 as usize).replace(heard).map(|heard| heard.at);
        if before.is_none_or(|before| at.since(before) > policy.node_unreachable_after) {
            self.changes.touch(id);
        }
        before
    }

    /// Books from when on a known node's silence counts.
    pub(crate) fn expect(&mut self, id: NodeId, at: Time) {
        self.changes.touch(id);
        *grow(&mut self.nodes, id.0 as usize) = Some(Heard { at, met: false });
    }
}

fn grow<T>(list: &mut Vec<Option<T>>, index: usize) -> &mut Option<T> {
    while list.len() <= index {
        list.push(None);
    }
    list.get_mut(index).expect("the list was just made longer than the index")
}
