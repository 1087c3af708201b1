//! The session's book of held leases: who is looked at next, and how a lease leaves it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use crate::{
    held::{Held, LostReason},
    info::LeaseInfo,
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
    pub(crate) fn hold(&mut self, info: LeaseInfo, counts_from: Duration) -> Arc<Held> {
        let valid_until = counts_from.saturating_add(info.remaining.unwrap_or(info.ttl));
        if let Some(tenure) = self.held.get(&info.id) {
            // The same request was made twice and both callers get the one lease.
            tenure.held.renewed(info.fencing_token, valid_until);
            return Arc::clone(&tenure.held);
        }
        let interval = info.ttl / 3;
        let attention = counts_from.saturating_add(interval).min(valid_until);
        let held = Arc::new(Held::new(info, valid_until));
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

    pub(crate) fn lose_all(&mut self, reason: &LostReason) {
        self.attention.clear();
        for (_, tenure) in self.held.drain() {
            tenure.held.lose(reason.clone());
        }
    }

    /// When the keep-alive has something to do next.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        let first = |order: &BTreeSet<(Duration, u64)>| order.first().map(|(at, _)| *at);
        [first(&self.attention), first(&self.releases_later)].into_iter().flatten().min()
    }

    /// Whether that is before it wakes by itself.
    pub(crate) fn is_due_before_wake(&self) -> bool {
        self.next_due()
            .is_some_and(|at| self.keepalive_wakes_at.is_none_or(|wakes_at| at < wakes_at))
    }

    /// Looks at a lease again at that time.
    pub(crate) fn attend(&mut self, lease_id: u64, at: Duration) {
        let Some(tenure) = self.held.get_mut(&lease_id) else { return };
        self.attention.remove(&(tenure.attention, lease_id));
        tenure.attention = at.min(tenure.held.valid_until());
        self.attention.insert((tenure.attention, lease_id));
    }

    /// A lease of this holder changed without its asking.
    pub(crate) fn changed(&mut self, info: LeaseInfo) {
        let Some(tenure) = self.held.get(&info.id) else { return };
        if info.state.holds() {
            *tenure.held.info() = info;
            return;
        }
        let reason = LostReason::Ended { reason: info.end_reason, detail: info.end_detail.clone() };
        let lease_id = info.id;
        *tenure.held.info() = info;
        self.lose(lease_id, reason);
    }
}
