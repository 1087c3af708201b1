//! How the session's memory survives its stream: what is sent again on the next one, and what is given up.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use gpulease_proto::v1;
use tokio::sync::oneshot;

use crate::{
    error::Error,
    facts::Told,
    info::LeaseInfo,
    pending::{Answer, Delivery, Pending},
    standing::LostReason,
    state::{Link, State},
};

impl State {
    /// The session is open: what was missed of held leases is made up for, they are renewed, and everything that has
    /// no answer yet is sent again. Leases of requests whose callers are gone are given back.
    pub(crate) fn resume(
        &mut self,
        link: Link,
        welcome: Vec<v1::Lease>,
        told: Told,
        now: Duration,
    ) {
        self.unlink();
        let abandoned = self.take_abandoned();
        (self.link, self.away) = (Some(link), None);
        self.welcomed(&welcome, told, now);
        self.renew_all(now);
        for lease in welcome.into_iter().filter(|lease| abandoned.contains(&lease.request_id)) {
            let token = Some(lease.fencing_token).filter(|token| *token > 0);
            let info = LeaseInfo::from(lease);
            let until = now.saturating_add(info.ttl);
            self.release(info.id, token, until, now);
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
        self.drop_renewals();
        (self.acquires_in_flight, self.verbs_in_flight, self.renewals_in_flight) = (0, 0, 0);
        self.verbs_later.clear();
        let mut sequences: Vec<u64> = self.pending.keys().copied().collect();
        sequences.sort_unstable();
        let (verbs, acquires): (VecDeque<u64>, VecDeque<u64>) = sequences
            .into_iter()
            .partition(|sequence| matches!(self.pending.get(sequence), Some(Pending::Verb(_))));
        (self.acquires_unsent, self.verbs_unsent) = (acquires, verbs);
        for tenure in self.held.values_mut() {
            tenure.renewing = false;
        }
    }

    /// Renewals are made anew for the next stream, and tell the work of those that have no answer: work that is told
    /// twice where only the answer was lost harms an average less than work that is never told.
    fn drop_renewals(&mut self) {
        let is_renewal = |_: &u64, pending: &mut Pending| matches!(pending, Pending::Renewal(_));
        let dropped: Vec<Pending> =
            self.pending.extract_if(is_renewal).map(|(_, pending)| pending).collect();
        for pending in dropped {
            if let Pending::Renewal(renewal) = pending {
                self.return_work(renewal.worked.iter());
            }
        }
    }

    /// The session could not be opened when that was tried: requests that have used up their tries are given up.
    pub(crate) fn open_failed(
        &mut self,
        error: &Error,
        tried_at: Duration,
        now: Duration,
    ) -> Vec<Delivery> {
        if error.is_nobody_there() {
            self.found_gone(tried_at, now);
        }
        self.away = Some(error.clone());
        let (mut deliveries, mut given_up) = (Vec::new(), Vec::new());
        for (sequence, pending) in &mut self.pending {
            if pending.failed_again(now, error.is_retryable()) {
                given_up.push(*sequence);
            } else if let Pending::Verb(verb) = pending {
                deliveries.extend(verb.tell_caller(error));
            }
        }
        for sequence in given_up {
            let Some(pending) = self.pending.remove(&sequence) else { continue };
            if let Pending::Verb(verb) = &pending {
                self.verb_failed(verb, error, now);
            }
            deliveries.extend(pending.give_up(error));
        }
        deliveries
    }

    /// Nobody was at the coordinator's socket when that was tried, and leases that keep live on for a TTL from then.
    fn found_gone(&mut self, tried_at: Duration, now: Duration) {
        let keeping: Vec<u64> = self
            .held
            .values()
            .filter(|tenure| tenure.held.keeps)
            .map(|tenure| tenure.held.id)
            .collect();
        for lease_id in keeping {
            if self.lose_by_time(lease_id, now) {
                continue;
            }
            if let Some(tenure) = self.held.get(&lease_id) {
                tenure.held.found_gone(tried_at);
            }
            self.attend(lease_id, now, now);
        }
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
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        error::ErrorKind,
        pending::{AcquireTerms, PendingVerb, Verb},
        retry::TRIES_MAX,
        state::{ACQUIRES_IN_FLIGHT_MAX, LINK_CAPACITY, VERBS_IN_FLIGHT_MAX},
    };

    const NOW: Duration = Duration::from_secs(100);
    const TTL: Duration = Duration::from_secs(30);

    fn linked() -> (State, mpsc::Receiver<v1::SessionRequest>) {
        let (link, messages) = mpsc::channel(LINK_CAPACITY);
        let mut state = State::default();
        state.resume(link, vec![], Told::now(NOW), NOW);
        (state, messages)
    }

    fn until(deadline: Duration) -> AcquireTerms {
        AcquireTerms { keeps: false, wait_until: deadline, deadline }
    }

    fn unreachable() -> Error {
        Error::new(ErrorKind::Unavailable, "UNREACHABLE", "nobody there")
    }

    fn fail(state: &mut State, now: Duration) -> Vec<Delivery> {
        state.open_failed(&unreachable(), now, now)
    }

    #[test]
    fn a_full_session_still_takes_releases_and_sends_the_rest_as_answers_come() {
        let (mut state, mut messages) = linked();
        let mut callers: Vec<_> =
            (0..5_000).map(|_| state.acquire(Box::default(), until(Duration::MAX), NOW)).collect();
        assert_eq!(messages.len(), ACQUIRES_IN_FLIGHT_MAX);
        for lease_id in 0..1_000 {
            state.release(lease_id, None, NOW, NOW);
        }
        assert_eq!(messages.len(), ACQUIRES_IN_FLIGHT_MAX + VERBS_IN_FLIGHT_MAX);
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
        let (_, mut answer) = state.acquire(Box::default(), until(Duration::MAX), NOW);
        for _ in 1..TRIES_MAX {
            assert!(fail(&mut state, NOW).is_empty());
        }
        let given_up = fail(&mut state, NOW);
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
        let (_, _answer) = state.acquire(Box::default(), until(NOW + Duration::from_secs(1)), NOW);
        assert!(fail(&mut state, NOW).is_empty());
        assert_eq!(fail(&mut state, NOW + Duration::from_secs(1)).len(), 1);
    }

    #[test]
    fn what_is_left_before_it_was_sent_is_never_sent() {
        let mut state = State::default();
        let (sequence, _answer) = state.acquire(Box::default(), until(Duration::MAX), NOW);
        assert!(state.abandon(sequence, NOW));
        assert!(state.acquires_unsent.is_empty());
        let (link, mut messages) = mpsc::channel(LINK_CAPACITY);
        state.resume(link, vec![], Told::now(NOW), NOW);
        assert!(messages.try_recv().is_err());
        assert!(!state.is_needed());
    }

    #[test]
    fn a_release_waits_for_the_session_until_the_validity_of_its_lease_is_over() {
        let (mut state, _messages) = linked();
        state.unlink();
        let (answer, mut told) = oneshot::channel();
        let verb = PendingVerb::new(Verb::Release, 7, Some(3)).kept_until(NOW + TTL);
        state.verb(PendingVerb { answer: Some(answer), ..verb }, NOW);
        let mut said = vec![];
        for _ in 0..TRIES_MAX * 3 {
            said.extend(fail(&mut state, NOW + TTL / 2));
        }
        assert!(matches!(said.as_slice(), [Delivery::Lease(_, Err(_))]), "its caller hears once");
        assert!(told.try_recv().is_err(), "the deliveries are still here");
        assert_eq!(state.pending.len(), 1, "but it goes on");
        fail(&mut state, NOW + TTL);
        assert!(state.pending.is_empty(), "nothing is left to give back");
    }

    #[test]
    fn a_queued_request_waits_for_the_session_until_its_deadline() {
        let (mut state, _messages) = linked();
        let (sequence, _answer) = state.acquire(Box::default(), until(NOW + TTL), NOW);
        let queued = v1::Lease { id: 7, ..v1::Lease::default() };
        let _told = state.queued(sequence, queued.into(), NOW);
        state.unlink();
        for _ in 0..TRIES_MAX * 3 {
            assert!(fail(&mut state, NOW + TTL / 2).is_empty());
        }
        assert_eq!(fail(&mut state, NOW + TTL).len(), 1, "its wait is over");
        assert!(state.pending.is_empty());
    }
}
