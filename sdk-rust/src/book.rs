//! The session's book of held leases: who is looked at next, and how a lease leaves it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use gpulease_proto::v1;

use crate::{
    facts::{Report, Told},
    held::Held,
    info::LeaseInfo,
    standing::LostReason,
    state::State,
};

/// A held lease in the session's book.
#[derive(Debug)]
pub(crate) struct Tenure {
    pub(crate) held: Arc<Held>,
    /// When it is looked at next: to be renewed, or because its validity ends.
    pub(crate) attention: Duration,
    /// The pause between renewals: a third of its TTL.
    pub(crate) interval: Duration,
    /// A renewal is on its way.
    pub(crate) renewing: bool,
}

impl State {
    pub(crate) fn hold(&mut self, info: LeaseInfo, keeps: bool, told: Told) -> Arc<Held> {
        let valid_until = told.after.saturating_add(info.remaining.unwrap_or(info.ttl));
        // One that the clock has ended stays lost: what is told now begins anew, beside it.
        self.lose_by_time(info.id, told.before);
        if let Some(tenure) = self.held.get(&info.id) {
            // The same request was made twice and both callers get the one lease.
            let held = Arc::clone(&tenure.held);
            held.renewed(told.after, valid_until);
            if !held.observe(Report::whole(info, told)) {
                self.attend(held.id, told.before, told.before);
            }
            return held;
        }
        let interval = info.ttl / 3;
        let attention = told.after.saturating_add(interval).min(valid_until);
        let held = Arc::new(Held::new(info, valid_until, keeps, told));
        let tenure = Tenure { held: Arc::clone(&held), attention, interval, renewing: false };
        self.attention.insert((attention, held.id));
        self.held.insert(held.id, tenure);
        held
    }

    /// Stops renewing a lease.
    pub(crate) fn forget(&mut self, lease_id: u64) -> Option<Tenure> {
        let tenure = self.held.remove(&lease_id)?;
        self.attention.remove(&(tenure.attention, lease_id));
        Some(tenure)
    }

    pub(crate) fn lose(&mut self, lease_id: u64, reason: LostReason) {
        if let Some(tenure) = self.forget(lease_id) {
            tenure.held.lose(reason);
        }
    }

    /// Loses it where the clock says so, be it that nobody has looked since. Whether it did.
    pub(crate) fn lose_by_time(&mut self, lease_id: u64, now: Duration) -> bool {
        let reason = self.held.get(&lease_id).and_then(|tenure| tenure.held.lost_by_time(now));
        let is_lost = reason.is_some();
        if let Some(reason) = reason {
            self.lose(lease_id, reason);
        }
        is_lost
    }

    pub(crate) fn lose_all(&mut self, reason: &LostReason) {
        self.attention.clear();
        for (_, tenure) in self.held.drain() {
            tenure.held.lose(reason.clone());
        }
    }

    /// The shortest pause between renewals of any held lease; without one there is no bound.
    pub(crate) fn interval_min(&self) -> Duration {
        self.held.values().map(|tenure| tenure.interval).min().unwrap_or(Duration::MAX)
    }

    /// When the keep-alive has something to do next.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        let first = |order: &BTreeSet<(Duration, u64)>| order.first().map(|(at, _)| *at);
        [first(&self.attention), first(&self.verbs_later)].into_iter().flatten().min()
    }

    /// Whether that is before it wakes by itself.
    pub(crate) fn is_due_before_wake(&self) -> bool {
        self.next_due()
            .is_some_and(|at| self.keepalive_wakes_at.is_none_or(|wakes_at| at < wakes_at))
    }

    /// Looks at a lease again at that time, or when it changes by the clock alone.
    pub(crate) fn attend(&mut self, lease_id: u64, at: Duration, now: Duration) {
        let Some(tenure) = self.held.get_mut(&lease_id) else { return };
        self.attention.remove(&(tenure.attention, lease_id));
        tenure.attention = tenure.held.next_moment(now).map_or(at, |moment| at.min(moment));
        self.attention.insert((tenure.attention, lease_id));
    }

    /// A lease of this holder changed without its asking.
    pub(crate) fn changed(&mut self, info: LeaseInfo, now: Duration) {
        self.observe(info, Told::now(now), now);
    }

    /// The leases that a welcome shows, as they are: what was missed meanwhile is made up for.
    pub(crate) fn welcomed(&mut self, leases: &[v1::Lease], told: Told, now: Duration) {
        for lease in leases {
            if self.lose_by_time(lease.id, now) || !self.held.contains_key(&lease.id) {
                continue;
            }
            let info = LeaseInfo::from(lease.clone());
            if let (Some(tenure), Some(remaining)) = (self.held.get(&info.id), info.remaining)
                && info.state.is_kept()
            {
                tenure.held.renewed(told.after, told.after.saturating_add(remaining));
            }
            self.observe(info, told, now);
        }
    }

    /// Takes up how a lease stands.
    pub(crate) fn observe(&mut self, info: LeaseInfo, told: Told, now: Duration) {
        let Some(tenure) = self.held.get(&info.id) else { return };
        let (lease_id, attention) = (info.id, tenure.attention);
        if info.state.is_kept() {
            let resumed = info.fencing_token > tenure.held.fencing_token();
            let believed = tenure.held.observe(Report::whole(info, told));
            // The first use of a new token makes the older one worthless, and tells how long it lives.
            self.attend(lease_id, if resumed || !believed { now } else { attention }, now);
        } else {
            let reason = info.end_reason;
            let detail = info.end_detail.clone();
            tenure.held.set_info(info);
            self.lose(lease_id, LostReason::Ended { reason, detail });
        }
    }
}
