//! The state: the fold of all events, and nothing else.
//!
//! Promises: applying a batch reads the state, the batch and constants only, so that replay and live run agree;
//! an event that does not fit the state is a [`Defect`], never a guess. What happens to leases is in
//! `state/apply.rs` and `state/pauses.rs`, what is remembered of them afterwards in `state/records.rs`, and
//! what their services used in `state/usage.rs`.

mod apply;
mod import;
mod pauses;
mod records;
mod usage;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
};

use serde::{Deserialize, Serialize};

pub use self::records::{
    RECORD_AGE_MAX, RECORDS_MAX, REMEMBERED_AGE_MAX, REMEMBERED_MAX, REMEMBERED_PER_SERVICE_MAX,
};
use crate::{
    event::{At, Batch, Event},
    fairness::{HALF_LIFE_DEFAULT, Usage},
    id::{DeviceId, Holder, LeaseId, Name, NoticeId, Revision, Token},
    inventory::Inventory,
    lease::{Lease, State as LeaseState},
    order::Lane,
    placement::Mix,
    time::{Span, Time},
};

/// The most services with something to remember: 65,536 × some 300 bytes are 20 MB.
pub const SERVICES_MAX: usize = 65_536;

/// Devices set aside for the first waiting request of a lane (P10).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// The request.
    pub lease: LeaseId,
    /// The devices.
    pub devices: Box<[DeviceId]>,
    /// When it lapses.
    pub lapses_at: Time,
}

/// What is known of a service: indexes over its leases.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Live leases by holder.
    pub holders: BTreeMap<Name, BTreeSet<LeaseId>>,
    /// Leases that are QUEUED or hold devices, by name.
    pub names: BTreeMap<Name, LeaseId>,
    /// How many of its leases hold each device, by affinity key.
    pub affinities: BTreeMap<Name, BTreeMap<DeviceId, u32>>,
    /// Leases by request id, for as long as that is remembered.
    pub requests: BTreeMap<Name, LeaseId>,
    /// Ended leases whose request id is remembered, in order of end.
    pub remembered: VecDeque<LeaseId>,
    /// What its leases hold, and how many wait.
    pub held: Held,
    /// What it has used of late.
    pub usage: Usage,
    /// Nothing is left of it but its use, which is as good as none then.
    pub forgotten_at: Option<Time>,
}

/// What the leases of a service hold together; their bytes are in its use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Leases that are ACTIVE or PAUSING.
    pub leases: u64,
    /// Their devices; one that two of them share counts twice.
    pub devices: u64,
    /// Leases that are QUEUED.
    pub queued: u64,
}

/// How many leases stand in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// QUEUED.
    pub queued: usize,
    /// ACTIVE.
    pub active: usize,
    /// PAUSING.
    pub pausing: usize,
    /// PAUSED.
    pub paused: usize,
    /// RECLAIMING.
    pub reclaiming: usize,
    /// Those that hold devices and may be preempted.
    pub preemptible: usize,
}

impl Tally {
    /// All that are not ENDED.
    #[must_use]
    pub const fn live(&self) -> usize {
        self.queued
            .saturating_add(self.active)
            .saturating_add(self.pausing)
            .saturating_add(self.paused)
            .saturating_add(self.reclaiming)
    }

    fn of(&mut self, state: LeaseState) -> Option<&mut usize> {
        match state {
            LeaseState::Queued => Some(&mut self.queued),
            LeaseState::Active => Some(&mut self.active),
            LeaseState::Pausing => Some(&mut self.pausing),
            LeaseState::Paused => Some(&mut self.paused),
            LeaseState::Reclaiming(_) => Some(&mut self.reclaiming),
            LeaseState::Ended(_) => None,
        }
    }

    /// A lease that may be preempted takes devices, or gives them back.
    fn moved_preemptible(&mut self, from: LeaseState, to: LeaseState) {
        match (from.holds(), to.holds()) {
            (false, true) => self.preemptible = self.preemptible.saturating_add(1),
            (true, false) => self.preemptible = self.preemptible.saturating_sub(1),
            _ => {}
        }
    }

    fn moved(&mut self, from: Option<LeaseState>, to: LeaseState) {
        if let Some(count) = from.and_then(|state| self.of(state)) {
            *count = count.saturating_sub(1);
        }
        if let Some(count) = self.of(to) {
            *count = count.saturating_add(1);
        }
    }
}

/// An event that does not fit the state: the journal is not of this program, or the program is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defect {
    /// The batch.
    pub revision: Revision,
    /// What does not fit.
    pub what: String,
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an event of revision {} does not fit the state: {}", self.revision, self.what)
    }
}

impl std::error::Error for Defect {}

/// Everything that survives a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub(crate) revision: Revision,
    pub(crate) time: Time,
    pub(crate) last_lease: LeaseId,
    pub(crate) last_token: Token,
    /// The newest import closed every device until then (P2).
    pub(crate) closed_until: Time,
    pub(crate) last_notice: NoticeId,
    pub(crate) inventory: Inventory,
    pub(crate) leases: BTreeMap<LeaseId, Lease>,
    pub(crate) services: BTreeMap<Name, Service>,
    /// Services of which nothing is left but their use, in the order in which that is forgotten.
    pub(crate) idle: BTreeSet<(Time, Name)>,
    /// In how long use halves; `None`: as by default.
    pub(crate) half_life: Option<Span>,
    pub(crate) keeps: BTreeMap<Lane, Keep>,
    pub(crate) tally: Tally,
    /// The requests seen so far, for the placement of later ones.
    pub(crate) mix: Mix,
    /// Records of ended leases, in order of end.
    pub(crate) recorded: VecDeque<LeaseId>,
    /// Ended leases whose request id is remembered, of all services, in order of end; some may be forgotten already.
    pub(crate) remembered: VecDeque<LeaseId>,
}

impl State {
    /// The last batch applied.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// The time of the last batch.
    #[must_use]
    pub const fn time(&self) -> Time {
        self.time
    }

    /// The newest fencing token.
    #[must_use]
    pub const fn token(&self) -> Token {
        self.last_token
    }

    /// The newest notice.
    #[must_use]
    pub const fn last_notice(&self) -> NoticeId {
        self.last_notice
    }

    /// Nodes and devices.
    #[must_use]
    pub const fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// One lease, or the record of one.
    #[must_use]
    pub fn lease(&self, id: LeaseId) -> Option<&Lease> {
        self.leases.get(&id)
    }

    /// The request that a lease makes room for: its devices were kept for that one when it was let in there, and that one
    /// still waits as it did then (P10).
    pub(crate) fn host_of(&self, lease: &Lease) -> Option<LeaseId> {
        let host = self.lease(lease.backfilled_for?)?;
        (host.state.waits() && host.token < lease.token).then_some(host.id)
    }

    /// All leases and records of leases, in order of number.
    #[must_use]
    pub const fn leases(&self) -> &BTreeMap<LeaseId, Lease> {
        &self.leases
    }

    /// Devices kept, by lane.
    #[must_use]
    pub const fn keeps(&self) -> &BTreeMap<Lane, Keep> {
        &self.keeps
    }

    /// The lane in which devices are kept for a request, and what is kept.
    #[must_use]
    pub fn keep_of(&self, lease: LeaseId) -> Option<(&Lane, &Keep)> {
        self.keeps.iter().find(|(_, keep)| keep.lease == lease)
    }

    /// How many leases stand in each state.
    #[must_use]
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The requests seen so far.
    #[must_use]
    pub const fn mix(&self) -> &Mix {
        &self.mix
    }

    /// Services by name.
    #[must_use]
    pub const fn services(&self) -> &BTreeMap<Name, Service> {
        &self.services
    }

    /// In how long the use of services halves.
    #[must_use]
    pub fn half_life(&self) -> Span {
        self.half_life.unwrap_or(HALF_LIFE_DEFAULT)
    }

    /// Whether a service that is not known yet finds room, if need be in the place of one of which only its use is left.
    #[must_use]
    pub fn takes_services(&self) -> bool {
        self.services.len() < SERVICES_MAX || !self.idle.is_empty()
    }

    /// The live leases of a holder.
    pub fn leases_of(&self, holder: &Holder) -> impl DoubleEndedIterator<Item = &Lease> {
        let service = self.services.get(&holder.service);
        let leases = service.and_then(|service| service.holders.get(&holder.name));
        leases.into_iter().flatten().filter_map(|id| self.leases.get(id))
    }

    /// Applies a whole batch: replay.
    ///
    /// # Errors
    /// The batch is not the next one, or an event does not fit. The state is then of no further use.
    pub fn apply_batch(&mut self, batch: &Batch) -> Result<(), Defect> {
        let next = Revision(self.revision.0.saturating_add(1));
        if batch.revision != next {
            return Err(Defect { revision: batch.revision, what: format!("{next} comes next") });
        }
        if batch.time < self.time {
            let what = format!("its time {} is before {}", batch.time, self.time);
            return Err(Defect { revision: batch.revision, what });
        }
        for event in &batch.events {
            self.apply(batch.at(), event)?;
        }
        self.close(batch.at());
        Ok(())
    }

    /// Ends a batch: its revision and time are now the state's, and what is too old is forgotten.
    pub(crate) fn close(&mut self, at: At) {
        self.revision = at.revision;
        self.time = at.time;
        self.forget(at.time);
    }

    /// Applies one event of the batch `at`.
    pub(crate) fn apply(&mut self, at: At, event: &Event) -> Result<(), Defect> {
        self.apply_event(at, event).map_err(|what| Defect { revision: at.revision, what })
    }
}
