//! Keeping leases alive: one task for all leases of a client.
//!
//! Each lease is renewed a third of its TTL after its last good renewal was sent; renewals that are due together
//! travel in one message. Validity counts from the send time. A lease is lost at once when the coordinator says
//! so, and at the latest when its validity ends, answer or no answer.

use std::{sync::Arc, time::Duration};

use gpulease_proto::v1::{self, session_renewal_outcome::Outcome, session_request::Body};

use crate::{
    convert,
    error::{Error, ErrorKind},
    held::LostReason,
    pending::{Pending, PendingRenewal},
    session::Shared,
    state::{RENEWALS_IN_FLIGHT_MAX, State},
};

/// Renewals due within this time of each other travel together: a twelfth of the shortest interval (2 s / 3).
const COALESCE: Duration = Duration::from_millis(50);
/// A refused renewal that may be repeated is repeated after this time, six times within the shortest interval.
const REPEAT_AFTER: Duration = Duration::from_millis(100);
/// Timers stop in a suspend and the clock does not: look at it this often while anything is held.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Leases in one message of renewals, the wire's bound.
const RENEWALS_PER_MESSAGE_MAX: usize = 1_000;

/// The task: renews and loses leases until the session ends.
pub(crate) async fn run(shared: Arc<Shared>) {
    loop {
        let pause = shared.keep_alive();
        match pause {
            Some(pause) => {
                tokio::select! {
                    () = tokio::time::sleep(pause.min(LOOK_INTERVAL)) => {}
                    () = shared.attention.notified() => {}
                }
            }
            None => shared.attention.notified().await,
        }
    }
}

impl State {
    /// Does what is due, and says when to come back; `None`: when it is called.
    pub(crate) fn keep_alive(&mut self, now: Duration) -> Option<Duration> {
        let later = self.attention.split_off(&(now.saturating_add(COALESCE), 0));
        let due = std::mem::replace(&mut self.attention, later);
        let renew: Vec<u64> = due
            .into_iter()
            .filter_map(|(_, lease_id)| self.attend_to(lease_id, now).then_some(lease_id))
            .collect();
        self.send_renewals(&renew, now);
        self.repeat_releases(now);
        self.keepalive_wakes_at = self.next_due();
        self.keepalive_wakes_at
    }

    /// Renews everything that is held, now.
    pub(crate) fn renew_all(&mut self, now: Duration) {
        let mut renew: Vec<u64> = self.held.keys().copied().collect();
        renew.sort_unstable();
        renew.retain(|lease_id| self.attend_to(*lease_id, now));
        self.send_renewals(&renew, now);
    }

    /// Decides about one lease: lost, or to be renewed now (`true`), or to be looked at when its validity ends.
    fn attend_to(&mut self, lease_id: u64, now: Duration) -> bool {
        let linked = self.link.is_some();
        let Some(tenure) = self.held.get_mut(&lease_id) else { return false };
        let valid_until = tenure.held.valid_until();
        if now >= valid_until {
            self.lose(lease_id, LostReason::ValidityOver);
            return false;
        }
        let renew = linked && !tenure.renewing;
        self.attend(lease_id, valid_until);
        renew
    }

    fn send_renewals(&mut self, lease_ids: &[u64], now: Duration) {
        for batch in lease_ids.chunks(RENEWALS_PER_MESSAGE_MAX) {
            if self.renewals_in_flight < RENEWALS_IN_FLIGHT_MAX {
                self.send_renewal(batch, now);
            } else {
                for lease_id in batch {
                    self.attend(*lease_id, now.saturating_add(REPEAT_AFTER));
                }
            }
        }
    }

    fn send_renewal(&mut self, lease_ids: &[u64], now: Duration) {
        let mut leases = Vec::with_capacity(lease_ids.len());
        for lease_id in lease_ids {
            let Some(tenure) = self.held.get_mut(lease_id) else { continue };
            tenure.renewing = true;
            leases.push(v1::RenewRequest {
                lease_id: *lease_id,
                fencing_token: tenure.held.fencing_token(),
                service: String::new(),
                holder: String::new(),
                operations: None,
            });
        }
        let sequence = self.next_sequence();
        if self.send(sequence, Body::Renew(v1::SessionRenewal { leases })) {
            let renewal = PendingRenewal { lease_ids: lease_ids.to_vec(), sent_at: now };
            self.pending.insert(sequence, Pending::Renewal(renewal));
            self.renewals_in_flight += 1;
        }
    }

    /// What became of a message of renewals, in its order.
    pub(crate) fn renewed(&mut self, sequence: u64, answer: v1::SessionRenewed, now: Duration) {
        let Some(Pending::Renewal(renewal)) = self.take(sequence, now) else { return };
        let outcomes = answer.outcomes.into_iter().filter_map(|outcome| outcome.outcome);
        for (lease_id, outcome) in renewal.lease_ids.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Renewed(renewed) => self.renewal_done(lease_id, &renewed, renewal.sent_at),
                Outcome::Error(error) => self.renewal_failed(lease_id, &Error::from(error), now),
            }
        }
    }

    fn renewal_done(&mut self, lease_id: u64, renewed: &v1::RenewResponse, sent_at: Duration) {
        let Some(tenure) = self.held.get_mut(&lease_id) else { return };
        let remaining = renewed.remaining.and_then(convert::duration).unwrap_or_default();
        tenure.renewing = false;
        tenure.held.renewed(renewed.fencing_token, sent_at.saturating_add(remaining));
        let next = sent_at.saturating_add(tenure.interval);
        self.attend(lease_id, next);
    }

    /// A refusal that may pass is repeated while the lease is valid; any other ends it for its holder.
    pub(crate) fn renewal_failed(&mut self, lease_id: u64, error: &Error, now: Duration) {
        let Some(tenure) = self.held.get_mut(&lease_id) else { return };
        tenure.renewing = false;
        let detail = || error.message().to_owned();
        match error.kind() {
            ErrorKind::StaleToken => self.lose(lease_id, LostReason::StaleToken),
            ErrorKind::LeaseEnded | ErrorKind::NotFound | ErrorKind::NotTheHolder => {
                self.lose(lease_id, LostReason::Ended { reason: None, detail: detail() });
            }
            _ => {
                let pause = error.retry_after().unwrap_or_default().max(REPEAT_AFTER);
                self.attend(lease_id, now.saturating_add(pause));
            }
        }
    }
}
