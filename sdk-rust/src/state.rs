//! The session's memory: what is asked, what is held, what is on the stream. No IO and no clock of its own:
//! every method gets `now`, and answers leave as [`Delivery`] once the lock is open again.
//!
//! Bounds of P22: at most 4,096 messages are in flight, of which 3,584 acquires, 448 releases and 64 messages of
//! 1,000 renewals each, so that a full queue never keeps a renewal or a release from going out. What is over its
//! bound waits here, in order; its number is bounded by its callers and by the leases that were held.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use gpulease_proto::v1::{self, session_request::Body};
use tokio::sync::{mpsc, oneshot};

use crate::{
    error::Error,
    held::{Held, LostReason},
    info::LeaseInfo,
    pending::{Answer, Delivery, Pending, PendingAcquire, PendingRelease, Released},
    retry::TRIES_MAX,
};

/// Acquires in flight: 4,096 less what is set aside below.
const ACQUIRES_IN_FLIGHT_MAX: usize = 3_584;
/// Releases in flight: at 1 ms a round trip, 448,000 a second.
const RELEASES_IN_FLIGHT_MAX: usize = 448;
/// Messages of renewals in flight: 64 × 1,000 leases, six times what a welcome can list.
pub(crate) const RENEWALS_IN_FLIGHT_MAX: usize = 64;
/// Room on the stream: everything in flight (4,096), and the hello.
pub(crate) const LINK_CAPACITY: usize =
    ACQUIRES_IN_FLIGHT_MAX + RELEASES_IN_FLIGHT_MAX + RENEWALS_IN_FLIGHT_MAX + 1;

/// Where messages to the coordinator are put while the session is open.
pub(crate) type Link = mpsc::Sender<v1::SessionRequest>;

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

/// Everything under the session's lock.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) link: Option<Link>,
    sequence_last: u64,
    pub(crate) pending: HashMap<u64, Pending>,
    acquires_unsent: VecDeque<u64>,
    releases_unsent: VecDeque<u64>,
    acquires_in_flight: usize,
    releases_in_flight: usize,
    pub(crate) renewals_in_flight: usize,
    pub(crate) held: HashMap<u64, Tenure>,
    /// The same leases by when they are looked at next.
    pub(crate) attention: BTreeSet<(Duration, u64)>,
    /// When the keep-alive wakes by itself; `None`: it sleeps until it is called.
    pub(crate) keepalive_wakes_at: Option<Duration>,
    pub(crate) revision_seen: u64,
    /// No handle is left, or the client was closed: what is pending is finished, then the session ends.
    pub(crate) closing: bool,
    /// Why nothing can be asked any more.
    pub(crate) ended: Option<Error>,
}

impl State {
    pub(crate) fn next_sequence(&mut self) -> u64 {
        self.sequence_last += 1;
        self.sequence_last
    }

    /// Whether the session has anything to do.
    pub(crate) fn is_needed(&self) -> bool {
        !self.pending.is_empty() || !self.held.is_empty()
    }

    // --- asking -------------------------------------------------------------------------------------------------

    pub(crate) fn acquire(
        &mut self,
        request: Box<v1::AcquireRequest>,
        deadline: Duration,
        now: Duration,
    ) -> (u64, oneshot::Receiver<Answer>) {
        let (answer, receiver) = oneshot::channel();
        let sequence = self.next_sequence();
        let acquire = PendingAcquire {
            request,
            answer: Some(answer),
            lease_id: None,
            sent_at: None,
            waited_before: None,
            deadline,
            failures: 0,
        };
        self.pending.insert(sequence, Pending::Acquire(acquire));
        self.acquires_unsent.push_back(sequence);
        self.pump(now);
        (sequence, receiver)
    }

    pub(crate) fn release(
        &mut self,
        lease_id: u64,
        fencing_token: Option<u64>,
        answer: Option<oneshot::Sender<Released>>,
        now: Duration,
    ) {
        let sequence = self.next_sequence();
        let release = PendingRelease { lease_id, fencing_token, answer, failures: 0 };
        self.pending.insert(sequence, Pending::Release(release));
        self.releases_unsent.push_back(sequence);
        self.pump(now);
    }

    /// The caller of an acquire is gone. `false`: it has been answered already.
    pub(crate) fn abandon(&mut self, sequence: u64, now: Duration) -> bool {
        let Some(Pending::Acquire(acquire)) = self.pending.get_mut(&sequence) else { return false };
        acquire.answer = None;
        if acquire.sent_at.is_none() {
            self.pending.remove(&sequence);
        } else if let Some(lease_id) = acquire.lease_id {
            self.release(lease_id, None, None, now);
        }
        true
    }

    /// Puts as much on the stream as the bounds allow, releases first: they make room for others.
    pub(crate) fn pump(&mut self, now: Duration) {
        while self.link.is_some() && self.releases_in_flight < RELEASES_IN_FLIGHT_MAX {
            let Some(sequence) = self.releases_unsent.pop_front() else { break };
            if self.send_pending(sequence, now) {
                self.releases_in_flight += 1;
            }
        }
        while self.link.is_some() && self.acquires_in_flight < ACQUIRES_IN_FLIGHT_MAX {
            let Some(sequence) = self.acquires_unsent.pop_front() else { break };
            if self.send_pending(sequence, now) {
                self.acquires_in_flight += 1;
            }
        }
    }

    fn send_pending(&mut self, sequence: u64, now: Duration) -> bool {
        let body = self.pending.get_mut(&sequence).and_then(|pending| pending.message(now));
        body.is_some_and(|body| self.send(sequence, body))
    }

    /// Puts a message on the stream. A stream that takes no more is broken, and everything is sent again on the
    /// next one.
    pub(crate) fn send(&mut self, sequence: u64, body: Body) -> bool {
        let message = v1::SessionRequest { sequence, body: Some(body) };
        let sent = self.link.as_ref().is_some_and(|link| link.try_send(message).is_ok());
        if !sent {
            self.link = None;
        }
        sent
    }

    // --- answers ------------------------------------------------------------------------------------------------

    /// Takes a request off the book and makes room for the next.
    pub(crate) fn take(&mut self, sequence: u64, now: Duration) -> Option<Pending> {
        let pending = self.pending.remove(&sequence)?;
        match &pending {
            Pending::Acquire(_) => {
                self.acquires_in_flight = self.acquires_in_flight.saturating_sub(1);
            }
            Pending::Release(_) => {
                self.releases_in_flight = self.releases_in_flight.saturating_sub(1);
            }
            Pending::Renewal(_) => {
                self.renewals_in_flight = self.renewals_in_flight.saturating_sub(1);
            }
        }
        self.pump(now);
        Some(pending)
    }

    pub(crate) fn queued(
        &mut self,
        sequence: u64,
        info: LeaseInfo,
        now: Duration,
    ) -> Option<Delivery> {
        let Some(Pending::Acquire(acquire)) = self.pending.get_mut(&sequence) else { return None };
        let lease_id = info.id;
        acquire.lease_id = Some(lease_id);
        acquire.waited_before.get_or_insert(info.waited);
        let Some(answer) = acquire.answer.take() else {
            self.release(lease_id, None, None, now);
            return None;
        };
        let (next, receiver) = oneshot::channel();
        acquire.answer = Some(next);
        Some(Delivery::Acquire(answer, Answer::Queued(Box::new(info), receiver)))
    }

    pub(crate) fn granted(
        &mut self,
        sequence: u64,
        info: LeaseInfo,
        now: Duration,
    ) -> Option<Delivery> {
        let Pending::Acquire(mut acquire) = self.take(sequence, now)? else { return None };
        let answer = acquire.answer.take();
        if !info.state.holds() {
            let error = crate::refusal::already_ended(&info);
            return answer
                .map(|answer| Delivery::Acquire(answer, Answer::Refused(error, acquire.request)));
        }
        let Some(answer) = answer else {
            self.release(info.id, Some(info.fencing_token), None, now);
            return None;
        };
        let counts_from = acquire.counts_from(info.waited);
        let held = self.hold(info, counts_from);
        Some(Delivery::Acquire(answer, Answer::Granted(held)))
    }

    pub(crate) fn refused(
        &mut self,
        sequence: u64,
        error: Error,
        now: Duration,
    ) -> Option<Delivery> {
        match self.take(sequence, now)? {
            Pending::Acquire(acquire) => {
                let error = error.with_request_id(&acquire.request.request_id);
                let answer = acquire.answer?;
                Some(Delivery::Acquire(answer, Answer::Refused(error, acquire.request)))
            }
            Pending::Release(release) => Some(Delivery::Release(release.answer?, Err(error))),
            Pending::Renewal(renewal) => {
                for lease_id in renewal.lease_ids {
                    self.renewal_failed(lease_id, &error, now);
                }
                None
            }
        }
    }

    pub(crate) fn released(
        &mut self,
        sequence: u64,
        info: LeaseInfo,
        now: Duration,
    ) -> Option<Delivery> {
        let Pending::Release(release) = self.take(sequence, now)? else { return None };
        release.answer.map(|answer| Delivery::Release(answer, Ok(info)))
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

    // --- holding ------------------------------------------------------------------------------------------------

    fn hold(&mut self, info: LeaseInfo, counts_from: Duration) -> Arc<Held> {
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

    /// Whether a lease is to be looked at before the keep-alive wakes by itself.
    pub(crate) fn is_due_before_wake(&self) -> bool {
        self.attention
            .first()
            .is_some_and(|(at, _)| self.keepalive_wakes_at.is_none_or(|wakes_at| *at < wakes_at))
    }

    /// Looks at a lease again at that time.
    pub(crate) fn attend(&mut self, lease_id: u64, at: Duration) {
        let Some(tenure) = self.held.get_mut(&lease_id) else { return };
        self.attention.remove(&(tenure.attention, lease_id));
        tenure.attention = at.min(tenure.held.valid_until());
        self.attention.insert((tenure.attention, lease_id));
    }

    // --- the stream comes and goes ------------------------------------------------------------------------------

    /// The session is open: everything that is held is renewed, then everything that has no answer yet is sent
    /// again. Leases of requests whose callers are gone are given back.
    pub(crate) fn resume(&mut self, link: Link, welcome: Vec<v1::Lease>, now: Duration) {
        self.unlink();
        let abandoned = self.take_abandoned();
        self.link = Some(link);
        self.renew_all(now);
        for lease in welcome.into_iter().filter(|lease| abandoned.contains(&lease.request_id)) {
            let token = Some(lease.fencing_token).filter(|token| *token > 0);
            self.release(lease.id, token, None, now);
        }
        self.pump(now);
    }

    /// The request ids of acquires whose callers are gone, which are not to be sent again.
    fn take_abandoned(&mut self) -> HashSet<String> {
        let is_abandoned = |pending: &Pending| matches!(pending, Pending::Acquire(acquire) if acquire.answer.is_none());
        let taken = self.pending.extract_if(|_, pending| is_abandoned(pending));
        let ids = taken.filter_map(|(_, pending)| match pending {
            Pending::Acquire(acquire) => Some(acquire.request.request_id),
            _ => None,
        });
        ids.collect()
    }

    /// The stream is gone: nothing is in flight, and what has no answer yet waits to be sent again, in order.
    pub(crate) fn unlink(&mut self) {
        self.link = None;
        self.pending.retain(|_, pending| !matches!(pending, Pending::Renewal(_)));
        (self.acquires_in_flight, self.releases_in_flight, self.renewals_in_flight) = (0, 0, 0);
        let mut sequences: Vec<u64> = self.pending.keys().copied().collect();
        sequences.sort_unstable();
        let (releases, acquires): (VecDeque<u64>, VecDeque<u64>) = sequences
            .into_iter()
            .partition(|sequence| matches!(self.pending.get(sequence), Some(Pending::Release(_))));
        (self.acquires_unsent, self.releases_unsent) = (acquires, releases);
        for tenure in self.held.values_mut() {
            tenure.renewing = false;
        }
    }

    /// The session could not be opened: requests that have used up their tries are given up.
    pub(crate) fn open_failed(&mut self, error: &Error, now: Duration) -> Vec<Delivery> {
        let failures_max = if error.is_retryable() { TRIES_MAX } else { 1 };
        let given_up: Vec<u64> = self
            .pending
            .iter_mut()
            .filter_map(|(sequence, pending)| {
                pending.failed_again(now, failures_max).then_some(*sequence)
            })
            .collect();
        given_up
            .into_iter()
            .filter_map(|sequence| self.pending.remove(&sequence)?.give_up(error))
            .collect()
    }

    /// The client is closed: what is asked and not yet granted fails and is cancelled, every lease is lost, and
    /// releases on their way are still answered.
    pub(crate) fn close(&mut self, now: Duration) -> Vec<Delivery> {
        self.closing = true;
        let error = Error::closed();
        self.ended.get_or_insert_with(|| error.clone());
        self.lose_all(&LostReason::ClientClosed);
        let mut deliveries = Vec::new();
        for (sequence, answer) in self.waiting_callers() {
            deliveries.push(Delivery::Acquire(answer, Answer::GaveUp(error.clone())));
            self.abandon(sequence, now);
        }
        deliveries
    }

    fn waiting_callers(&mut self) -> Vec<(u64, oneshot::Sender<Answer>)> {
        let acquires = self.pending.iter_mut().filter_map(|(sequence, pending)| match pending {
            Pending::Acquire(acquire) => Some((*sequence, acquire.answer.take()?)),
            _ => None,
        });
        acquires.collect()
    }

    /// Nothing can be asked any more: every request fails, every lease is lost.
    pub(crate) fn end(&mut self, error: &Error, reason: &LostReason) -> Vec<Delivery> {
        self.ended = Some(error.clone());
        self.lose_all(reason);
        self.unlink();
        self.pending.drain().filter_map(|(_, pending)| pending.give_up(error)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const NOW: Duration = Duration::from_secs(100);

    fn linked() -> (State, mpsc::Receiver<v1::SessionRequest>) {
        let (link, messages) = mpsc::channel(LINK_CAPACITY);
        let mut state = State::default();
        state.resume(link, vec![], NOW);
        (state, messages)
    }

    fn unreachable() -> Error {
        Error::new(ErrorKind::Unavailable, "UNREACHABLE", "nobody there")
    }

    #[test]
    fn a_full_session_still_takes_releases_and_sends_the_rest_as_answers_come() {
        let (mut state, mut messages) = linked();
        let mut callers: Vec<_> =
            (0..5_000).map(|_| state.acquire(Box::default(), Duration::MAX, NOW)).collect();
        assert_eq!(messages.len(), ACQUIRES_IN_FLIGHT_MAX);
        for lease_id in 0..1_000 {
            state.release(lease_id, None, None, NOW);
        }
        assert_eq!(messages.len(), ACQUIRES_IN_FLIGHT_MAX + RELEASES_IN_FLIGHT_MAX);
        while messages.try_recv().is_ok() {}
        let delivery = state.refused(callers[0].0, unreachable(), NOW);
        assert!(matches!(delivery, Some(Delivery::Acquire(_, Answer::Refused(..)))));
        let next = messages.try_recv().unwrap();
        assert_eq!(next.sequence, callers[ACQUIRES_IN_FLIGHT_MAX].0);
        callers.clear();
    }

    #[test]
    fn a_request_gives_up_after_ten_failures_to_open_the_session() {
        let mut state = State::default();
        let (_, mut answer) = state.acquire(Box::default(), Duration::MAX, NOW);
        for _ in 1..TRIES_MAX {
            assert!(state.open_failed(&unreachable(), NOW).is_empty());
        }
        let given_up = state.open_failed(&unreachable(), NOW);
        assert_eq!(given_up.len(), 1);
        assert!(state.pending.is_empty());
        for delivery in given_up {
            let Delivery::Acquire(caller, said) = delivery else { panic!("it is an acquire") };
            caller.send(said).unwrap();
        }
        assert!(matches!(answer.try_recv(), Ok(Answer::GaveUp(_))));
    }

    #[test]
    fn a_request_gives_up_at_its_deadline() {
        let mut state = State::default();
        let (_, _answer) = state.acquire(Box::default(), NOW + Duration::from_secs(1), NOW);
        assert!(state.open_failed(&unreachable(), NOW).is_empty());
        assert_eq!(state.open_failed(&unreachable(), NOW + Duration::from_secs(1)).len(), 1);
    }

    #[test]
    fn what_is_left_before_it_was_sent_is_never_sent() {
        let mut state = State::default();
        let (sequence, _answer) = state.acquire(Box::default(), Duration::MAX, NOW);
        assert!(state.abandon(sequence, NOW));
        let (link, mut messages) = mpsc::channel(LINK_CAPACITY);
        state.resume(link, vec![], NOW);
        assert!(messages.try_recv().is_err());
        assert!(!state.is_needed());
    }
}
