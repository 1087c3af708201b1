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
    facts::{Report, Told},
    held::Work,
    info::{LeaseInfo, LeaseState},
    notice::Notice,
    pending::{Pending, PendingRenewal},
    session::Shared,
    standing::LostReason,
    state::{RENEWALS_IN_FLIGHT_MAX, State},
};

/// Renewals due within this time of each other travel together: a twelfth of the shortest interval (2 s / 3).
const COALESCE: Duration = Duration::from_millis(50);
/// A refused renewal that may be repeated is repeated after this time, six times within the shortest interval.
const REPEAT_AFTER: Duration = Duration::from_millis(100);
/// Timers stop in a suspend and the clock does not: look at it this often while anything is held.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A lease that nothing is planned for is looked at again after this: an hour, for none is left without a plan.
const LOOK_AT_LEAST: Duration = Duration::from_secs(3_600);
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
        self.repeat_verbs(now);
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

    /// Decides about one lease: lost, or to be renewed now (`true`), or to be looked at when it changes by itself.
    fn attend_to(&mut self, lease_id: u64, now: Duration) -> bool {
        let linked = self.link.is_some();
        if self.lose_by_time(lease_id, now) {
            return false;
        }
        let Some(tenure) = self.held.get_mut(&lease_id) else { return false };
        tenure.held.look(now);
        let renew = linked && !tenure.renewing;
        self.attend(lease_id, now.saturating_add(LOOK_AT_LEAST), now);
        renew
    }

    fn send_renewals(&mut self, lease_ids: &[u64], now: Duration) {
        for batch in lease_ids.chunks(RENEWALS_PER_MESSAGE_MAX) {
            if self.renewals_in_flight < RENEWALS_IN_FLIGHT_MAX {
                self.send_renewal(batch, now);
            } else {
                for lease_id in batch {
                    self.attend(*lease_id, now.saturating_add(REPEAT_AFTER), now);
                }
            }
        }
    }

    fn send_renewal(&mut self, lease_ids: &[u64], now: Duration) {
        let (mut leases, mut worked) = (Vec::with_capacity(lease_ids.len()), Vec::new());
        for lease_id in lease_ids {
            let Some(tenure) = self.held.get_mut(lease_id) else { continue };
            tenure.renewing = true;
            let work = tenure.held.take_work();
            worked.extend(work.map(|work| (*lease_id, work)));
            leases.push(v1::RenewRequest {
                lease_id: *lease_id,
                fencing_token: tenure.held.fencing_token(),
                service: String::new(),
                holder: String::new(),
                operations: work.map(operations),
            });
        }
        let lease_ids = leases.iter().map(|renewal| renewal.lease_id).collect();
        let sequence = self.next_sequence();
        if self.send(sequence, Body::Renew(v1::SessionRenewal { leases })) {
            let renewal = PendingRenewal { lease_ids, worked, sent_at: now };
            self.pending.insert(sequence, Pending::Renewal(renewal));
            self.renewals_in_flight += 1;
        } else {
            self.return_work(worked.iter());
        }
    }

    /// What became of a message of renewals, in its order.
    pub(crate) fn renewed(&mut self, sequence: u64, answer: v1::SessionRenewed, now: Duration) {
        let Some(Pending::Renewal(mut renewal)) = self.take(sequence, now) else { return };
        let worked = std::mem::take(&mut renewal.worked);
        let outcomes = answer.outcomes.into_iter().filter_map(|outcome| outcome.outcome);
        for (lease_id, outcome) in renewal.lease_ids.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Renewed(renewed) => {
                    self.renewal_done(lease_id, renewed, renewal.sent_at, now);
                }
                Outcome::Error(error) => {
                    self.return_work(worked.iter().filter(|(id, _)| *id == lease_id));
                    self.renewal_failed(lease_id, &Error::from(error), now);
                }
            }
        }
    }

    /// Tells at once what a lease got done, if anything.
    pub(crate) fn tell_work(&mut self, lease_id: u64, now: Duration) {
        let has_work = self.held.get(&lease_id).is_some_and(|tenure| tenure.held.has_work());
        if has_work && self.link.is_some() && self.renewals_in_flight < RENEWALS_IN_FLIGHT_MAX {
            self.send_renewals(&[lease_id], now);
        }
    }

    /// What a refused renewal was to tell is told by the next one.
    pub(crate) fn return_work<'a>(&self, worked: impl Iterator<Item = &'a (u64, Work)>) {
        for (lease_id, work) in worked {
            if let Some(tenure) = self.held.get(lease_id) {
                tenure.held.add_work(*work);
            }
        }
    }

    fn renewal_done(
        &mut self,
        lease_id: u64,
        renewed: v1::RenewResponse,
        sent_at: Duration,
        now: Duration,
    ) {
        if self.lose_by_time(lease_id, now) {
            return;
        }
        let Some(tenure) = self.held.get_mut(&lease_id) else { return };
        let remaining = renewed.remaining.and_then(convert::duration).unwrap_or_default();
        tenure.renewing = false;
        tenure.held.renewed(sent_at, sent_at.saturating_add(remaining));
        let next = sent_at.saturating_add(tenure.interval);
        self.attend(lease_id, next, now);
        let told = Told { after: sent_at, before: now };
        if let Some(lease) = renewed.resumed {
            self.observe(LeaseInfo::from(*lease), told, now);
            return;
        }
        let Some(tenure) = self.held.get(&lease_id) else { return };
        let fencing_token = renewed.fencing_token;
        tenure.held.adopt_token(fencing_token);
        if let Some(state) = LeaseState::from_wire(renewed.state) {
            let notice = renewed.notice.map(Notice::from);
            let report = Report { fencing_token, state, notice, info: None, told };
            let believed = tenure.held.observe(report);
            self.attend(lease_id, if believed { next } else { now }, now);
        }
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
                self.attend(lease_id, now.saturating_add(pause), now);
            }
        }
    }
}

fn operations(work: Work) -> v1::Operations {
    v1::Operations { count: work.count, busy: Some(convert::wire_duration(work.busy)) }
}
