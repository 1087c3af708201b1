//! A lease: its states, what it holds and what happened to it.
//!
//! | from | input | to |
//! |---|---|---|
//! | – | request | ACTIVE if it fits now, else QUEUED, or refused when it may not wait |
//! | QUEUED | capacity, its turn (P10) | ACTIVE, new token, full TTL |
//! | QUEUED | cancel, release · revoke · wait over · caller gone (P11) · became impossible (P13) | ENDED (CANCELLED · REVOKED · WAIT_OVER · CANCELLED · UNSATISFIABLE) |
//! | ACTIVE | notice; mode pause or end, minimum hold reached | PAUSING, with a notice and its deadline |
//! | PAUSING | extension asked, once per notice | PAUSING |
//! | PAUSING | acknowledged, notice current | mode pause: PAUSED · mode end: ENDED (REVOKED) |
//! | PAUSING | withdrawn, not yet acknowledged | ACTIVE, same token |
//! | PAUSING | deadline | RECLAIMING (REVOKED) |
//! | ACTIVE, PAUSING, PAUSED | release | ENDED (RELEASED) |
//! | ACTIVE, PAUSING | TTL or lifetime over · revoke · device or node lost, mode not pause | RECLAIMING |
//! | ACTIVE, PAUSING | device or node lost, mode pause | PAUSED |
//! | PAUSED | capacity, its turn, its holder present (P10) | ACTIVE, new token, full TTL, devices may differ |
//! | PAUSED | TTL or lifetime over · revoke · became impossible | ENDED (EXPIRED · REVOKED · UNSATISFIABLE) |
//! | RECLAIMING | proof or lock delay on every device (P6) | ENDED (EXPIRED · REVOKED · DEVICE_LOST) |
//!
//! What a lease leaves behind on a device is closed there by the lease's number, whatever state the lease is in.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    event::At,
    id::{DeviceId, LeaseId, Name, NoticeId, Revision, Token},
    notice::Notice,
    order::Class,
    request::{PlacementPolicy, Preemptible, Request},
    time::{Span, Time},
};

/// The newest facts kept of a lease: 64 × about 40 bytes are 2.5 KiB.
pub const HISTORY_MAX: usize = 64;

/// So many preemptions …
pub const SHIELD_COUNT: usize = 3;
/// … within so long …
pub const SHIELD_WINDOW: Span = Span::from_minutes(60);
/// … shield a lease for so long (P14).
pub const SHIELD: Span = Span::from_minutes(10);

/// How a grant was decided, for those who ask why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Basis {
    /// How many devices would have done.
    pub fitting: u32,
    /// Why these.
    pub why: Why,
}

/// Why a lease got the devices it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    /// The device that its holder prefers was free.
    Preferred,
    /// No other set would have done.
    Only,
    /// Of those that would do, the policy chose them.
    Policy(PlacementPolicy),
    /// They were kept for it.
    Kept,
    /// They were kept for it, and their holders gave them back on a notice.
    Preempted,
    /// Its service owns them.
    Owned,
    /// They are kept for an earlier request, and it is sure to be gone in time.
    Backfilled,
    /// A plan balanced its pipelines over the devices.
    Planned,
}

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
    /// Holds its devices, and has a notice to give them back.
    Pausing,
    /// Gave its devices back, or lost them, and gets others in its turn.
    Paused,
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
            Self::Queued | Self::Active | Self::Pausing | Self::Paused => None,
        }
    }

    /// ACTIVE or PAUSING.
    #[must_use]
    pub const fn holds(self) -> bool {
        matches!(self, Self::Active | Self::Pausing)
    }

    /// QUEUED or PAUSED.
    #[must_use]
    pub const fn waits(self) -> bool {
        matches!(self, Self::Queued | Self::Paused)
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
    /// It was given notice.
    Noticed(NoticeId),
    /// Its notice has other causes or another deadline.
    NoticeChanged(NoticeId),
    /// Its notice was withdrawn.
    NoticeWithdrawn(NoticeId),
    /// It gave its devices back, after the time that took, or lost them.
    Paused(Option<Span>),
    /// It was granted again, with this token.
    Resumed(Token),
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
    /// Others can be had earlier: their holders may be given notice.
    Better,
    /// Its service's quota does not leave them to it any more.
    Quota,
}

/// Why a closed part is open again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpenCause {
    /// The lock delay was over.
    LockDelay,
    /// The node has a new boot id.
    Reboot,
    /// The holder released late, and nothing of it is left there.
    LateRelease,
    /// A pass after the release found nothing of it left (P7).
    Checked,
    /// No pass showed it gone within `release_check_max`: what is left counts as foreign (P7).
    CheckOver,
    /// A pass after the end found that its whole process tree has exited (P6).
    Exited,
    /// An operator said that it is safe.
    Operator,
    /// The device is in another host now, where nothing of the former one can use it.
    Moved,
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
    /// What it counts of its service's use while it holds them, in bytes, all devices together.
    pub counted_bytes: u64,
    /// When it was asked for.
    pub requested_at: Time,
    /// When it was first granted: its lifetime counts from here.
    pub first_granted_at: Option<Time>,
    /// When it was granted last.
    pub granted_at: Option<Time>,
    /// Its place in the order at that grant: only a higher own priority preempts it (P14).
    pub granted_class: Class,
    /// How many devices would have done at that grant, and why these.
    pub basis: Option<Basis>,
    /// The request for which its devices were kept when it was let in there: for that one, and whoever goes before that,
    /// it goes again (P10).
    pub backfilled_for: Option<LeaseId>,
    /// What it was asked, while PAUSING; the last notice afterwards.
    pub notice: Option<Notice>,
    /// When it was paused last.
    pub paused_at: Option<Time>,
    /// How long its holder took to answer the last notice it acknowledged.
    pub pause_took: Option<Span>,
    /// How often it was preempted.
    pub preemptions: u32,
    /// When, within the hour before the last; the count restarts with a shield.
    pub preempted_at: Vec<Time>,
    /// No preemption before this time (P14).
    pub shielded_until: Time,
    /// The token before its last resume, which still serves renew and release until the new one is used (P17); or 0.
    pub previous_token: Token,
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
            counted_bytes: 0,
            requested_at: at.time,
            first_granted_at: None,
            granted_at: None,
            granted_class: Class::default(),
            basis: None,
            backfilled_for: None,
            notice: None,
            paused_at: None,
            pause_took: None,
            preemptions: 0,
            preempted_at: Vec::new(),
            shielded_until: Time::ZERO,
            previous_token: Token(0),
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

    /// Books a preemption; too many within an hour shield the lease (P14).
    pub fn book_preemption(&mut self, now: Time) {
        self.preemptions = self.preemptions.saturating_add(1);
        self.preempted_at.retain(|at| now.since(*at) <= SHIELD_WINDOW);
        self.preempted_at.push(now);
        if self.preempted_at.len() >= SHIELD_COUNT {
            self.shielded_until = now.after(SHIELD);
            self.preempted_at.clear();
        }
    }

    /// Whether it may be paused, rather than ended.
    #[must_use]
    pub fn pauses(&self) -> bool {
        self.request.preemptible == Preemptible::Pause
    }

    /// Adds a fact, and drops the oldest over the bound.
    pub fn record(&mut self, at: At, what: FactKind) {
        if self.history.len() >= HISTORY_MAX {
            self.history.remove(0);
        }
        self.history.push(Fact { time: at.time, revision: at.revision, what });
    }
}
