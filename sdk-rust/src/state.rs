//! The session's memory: what is asked, what is held, what is on the stream. No IO and no clock of its own:
//! every method gets `now`, and answers leave as [`Delivery`] once the lock is open again.
//!
//! Bounds of P22: at most 4,096 messages are in flight, of which 3,584 acquires, 448 verbs
//! (releases, acknowledgements, extensions) and 64 messages of
//! 1,000 renewals each, so that a full queue never keeps a renewal or a verb from going out. What is over its
//! bound waits here, in order; its number is bounded by its callers and by the leases that were held.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use gpulease_proto::v1::{self, session_request::Body};
use tokio::sync::{mpsc, oneshot};

use crate::{
    book::Tenure,
    error::{Error, ErrorKind},
    facts::Told,
    info::LeaseInfo,
    pending::{AcquireTerms, Answer, Delivery, Pending, PendingAcquire, PendingVerb, Verb},
    retry::Backoff,
};

/// Acquires in flight: 4,096 less what is set aside below.
pub(crate) const ACQUIRES_IN_FLIGHT_MAX: usize = 3_584;
/// Verbs in flight: at 1 ms a round trip, 448,000 a second.
pub(crate) const VERBS_IN_FLIGHT_MAX: usize = 448;
/// Messages of renewals in flight: 64 × 1,000 leases, six times what a welcome can list.
pub(crate) const RENEWALS_IN_FLIGHT_MAX: usize = 64;
/// Room on the stream: everything in flight (4,096), and the hello.
pub(crate) const LINK_CAPACITY: usize =
    ACQUIRES_IN_FLIGHT_MAX + VERBS_IN_FLIGHT_MAX + RENEWALS_IN_FLIGHT_MAX + 1;

/// Where messages to the coordinator are put while the session is open.
pub(crate) type Link = mpsc::Sender<v1::SessionRequest>;

/// Everything under the session's lock.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) link: Option<Link>,
    sequence_last: u64,
    pub(crate) pending: HashMap<u64, Pending>,
    pub(crate) acquires_unsent: VecDeque<u64>,
    pub(crate) verbs_unsent: VecDeque<u64>,
    pub(crate) acquires_in_flight: usize,
    pub(crate) verbs_in_flight: usize,
    pub(crate) renewals_in_flight: usize,
    pub(crate) held: HashMap<u64, Tenure>,
    /// The same leases by when they are looked at next.
    pub(crate) attention: BTreeSet<(Duration, u64)>,
    /// Verbs that were refused and are sent again then.
    pub(crate) verbs_later: BTreeSet<(Duration, u64)>,
    /// When the keep-alive wakes by itself; `None`: it sleeps until it is called.
    pub(crate) keepalive_wakes_at: Option<Duration>,
    pub(crate) revision_seen: u64,
    /// Why the session could not be opened the last time it was tried.
    pub(crate) away: Option<Error>,
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

    pub(crate) fn acquire(
        &mut self,
        request: Box<v1::AcquireRequest>,
        terms: AcquireTerms,
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
            terms,
            failures: 0,
        };
        self.pending.insert(sequence, Pending::Acquire(acquire));
        self.acquires_unsent.push_back(sequence);
        self.pump(now);
        (sequence, receiver)
    }

    /// Gives a lease back that nobody holds, and goes on until then where the session is away.
    pub(crate) fn release(
        &mut self,
        lease_id: u64,
        fencing_token: Option<u64>,
        until: Duration,
        now: Duration,
    ) {
        let verb = PendingVerb::new(Verb::Release, lease_id, fencing_token);
        self.verb(verb.kept_until(until), now);
    }

    pub(crate) fn verb(&mut self, verb: PendingVerb, now: Duration) {
        let sequence = self.next_sequence();
        self.pending.insert(sequence, Pending::Verb(verb));
        self.verbs_unsent.push_back(sequence);
        self.pump(now);
    }

    /// The caller of an acquire is gone. `false`: it has been answered already.
    pub(crate) fn abandon(&mut self, sequence: u64, now: Duration) -> bool {
        let Some(Pending::Acquire(acquire)) = self.pending.get_mut(&sequence) else { return false };
        acquire.answer = None;
        let deadline = acquire.terms.deadline;
        if acquire.sent_at.is_none() {
            self.pending.remove(&sequence);
            // In order: sequences only grow, and after a break they are sorted.
            if let Ok(index) = self.acquires_unsent.binary_search(&sequence) {
                self.acquires_unsent.remove(index);
            }
        } else if let Some(lease_id) = acquire.lease_id {
            self.release(lease_id, None, deadline, now);
        }
        true
    }

    /// Puts as much on the stream as the bounds allow, releases first: they make room for others.
    pub(crate) fn pump(&mut self, now: Duration) {
        while self.link.is_some() && self.verbs_in_flight < VERBS_IN_FLIGHT_MAX {
            let Some(sequence) = self.verbs_unsent.pop_front() else { break };
            if self.send_pending(sequence, now) {
                self.verbs_in_flight += 1;
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

    /// Takes a request off the book and makes room for the next.
    pub(crate) fn take(&mut self, sequence: u64, now: Duration) -> Option<Pending> {
        let pending = self.pending.remove(&sequence)?;
        match &pending {
            Pending::Acquire(_) => {
                self.acquires_in_flight = self.acquires_in_flight.saturating_sub(1);
            }
            Pending::Verb(_) => {
                self.verbs_in_flight = self.verbs_in_flight.saturating_sub(1);
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
        let (lease_id, deadline) = (info.id, acquire.terms.deadline);
        acquire.lease_id = Some(lease_id);
        acquire.waited_before.get_or_insert(info.waited);
        let Some(answer) = acquire.answer.take() else {
            self.release(lease_id, None, deadline, now);
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
        if !info.state.is_kept() {
            let error = crate::refusal::already_ended(&info);
            return answer
                .map(|answer| Delivery::Acquire(answer, Answer::Refused(error, acquire.request)));
        }
        let Some(answer) = answer else {
            let until = now.saturating_add(info.ttl);
            self.release(info.id, Some(info.fencing_token), until, now);
            return None;
        };
        let told = Told { after: acquire.counts_from(info.waited), before: now };
        let held = self.hold(info, acquire.terms.keeps, told);
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
            Pending::Verb(verb) => self.verb_refused(sequence, verb, error, now),
            Pending::Renewal(renewal) => {
                self.return_work(renewal.worked.iter());
                for lease_id in renewal.lease_ids {
                    self.renewal_failed(lease_id, &error, now);
                }
                None
            }
        }
    }

    /// A refusal that may pass must not leave the lease to its TTL: the verb is sent again after a pause.
    fn verb_refused(
        &mut self,
        sequence: u64,
        mut verb: PendingVerb,
        error: Error,
        now: Duration,
    ) -> Option<Delivery> {
        if let Some(info) = self.answer_to_older_token(&verb, &error) {
            return Some(Delivery::Lease(verb.answer?, Ok(info)));
        }
        if verb.failed_again(now, error.is_retryable()) {
            self.verb_failed(&verb, &error, now);
            return Some(Delivery::Lease(verb.answer?, Err(error)));
        }
        let pause = Backoff::after(verb.failures - 1).pause(error.retry_after());
        let delivery = verb.tell_caller(&error);
        self.pending.insert(sequence, Pending::Verb(verb));
        self.verbs_later.insert((now.saturating_add(pause), sequence));
        delivery
    }

    /// The lease as it is, where its notice was answered with a token that a resume has made old meanwhile: that notice
    /// is over, and the lease is not.
    fn answer_to_older_token(&self, verb: &PendingVerb, error: &Error) -> Option<Box<LeaseInfo>> {
        if error.kind() != ErrorKind::StaleToken || verb.verb == Verb::Release {
            return None;
        }
        let held = &self.held.get(&verb.lease_id)?.held;
        if let Verb::Acknowledge(notice_id) = verb.verb {
            held.end_acknowledging(notice_id);
        }
        (verb.fencing_token != Some(held.fencing_token())).then(|| Box::new(held.info()))
    }

    /// An acknowledgement that came to nothing: the deadline counts again, or the lease is over.
    pub(crate) fn verb_failed(&mut self, verb: &PendingVerb, error: &Error, now: Duration) {
        let Some(tenure) = self.held.get(&verb.lease_id) else { return };
        let Verb::Acknowledge(notice_id) = verb.verb else { return };
        tenure.held.end_acknowledging(notice_id);
        self.attend(verb.lease_id, now, now);
        if matches!(error.kind(), ErrorKind::LeaseEnded | ErrorKind::StaleToken) {
            self.renewal_failed(verb.lease_id, error, now);
        }
    }

    /// Sends refused verbs again whose pause is over.
    pub(crate) fn repeat_verbs(&mut self, now: Duration) {
        let later = self.verbs_later.split_off(&(now.saturating_add(Duration::from_nanos(1)), 0));
        let due = std::mem::replace(&mut self.verbs_later, later);
        self.verbs_unsent.extend(due.into_iter().map(|(_, sequence)| sequence));
        self.pump(now);
    }

    /// A verb was obeyed; here is the lease as it is now.
    pub(crate) fn obeyed(
        &mut self,
        sequence: u64,
        info: LeaseInfo,
        now: Duration,
    ) -> Option<Delivery> {
        let Pending::Verb(verb) = self.take(sequence, now)? else { return None };
        if verb.verb != Verb::Release {
            let told = Told { after: verb.sent_at, before: now };
            self.observe(info.clone(), told, now);
        }
        if let (Verb::Acknowledge(notice_id), Some(tenure)) =
            (verb.verb, self.held.get(&verb.lease_id))
        {
            tenure.held.end_acknowledging(notice_id);
        }
        verb.answer.map(|answer| Delivery::Lease(answer, Ok(Box::new(info))))
    }
}
