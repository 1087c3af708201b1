//! Requests of a session that have no final answer yet, and what is told to whoever waits for them.

use std::{sync::Arc, time::Duration};

use gpulease_proto::v1::{self, session_request::Body};
use tokio::sync::oneshot;

use crate::{
    convert,
    error::Error,
    held::{Held, Work},
    info::LeaseInfo,
    retry::TRIES_MAX,
};

/// How long an acquire goes on, and what becomes of its lease.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AcquireTerms {
    /// The lease outlives its TTL while nobody is at the coordinator's socket.
    pub(crate) keeps: bool,
    /// When its wait is over.
    pub(crate) wait_until: Duration,
    /// After this it is not repeated any more.
    pub(crate) deadline: Duration,
}

/// What a caller of acquire is told.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It waits; the next answer comes through the receiver.
    Queued(Box<LeaseInfo>, oneshot::Receiver<Answer>),
    /// It is granted.
    Granted(Arc<Held>),
    /// The coordinator refused; here is the request back, to be repeated where that can help.
    Refused(Error, Box<v1::AcquireRequest>),
    /// The session failed for good, or all its tries are used up.
    GaveUp(Error),
}

/// What a caller of release, acknowledge or extend is told: the lease as it is then.
pub(crate) type Answered = Result<Box<LeaseInfo>, Error>;

/// An answer on its way out of the session's lock.
#[derive(Debug)]
pub(crate) enum Delivery {
    Acquire(oneshot::Sender<Answer>, Answer),
    Lease(oneshot::Sender<Answered>, Answered),
}

/// A request for a lease.
#[derive(Debug)]
pub(crate) struct PendingAcquire {
    pub(crate) request: Box<v1::AcquireRequest>,
    /// `None`: the caller is gone, and the lease must not come to live.
    pub(crate) answer: Option<oneshot::Sender<Answer>>,
    /// Known once it is queued.
    pub(crate) lease_id: Option<u64>,
    /// When it was last put on a stream.
    pub(crate) sent_at: Option<Duration>,
    /// How long it had waited when the coordinator first said so after that.
    pub(crate) waited_before: Option<Duration>,
    pub(crate) terms: AcquireTerms,
    /// How often the session failed to open since it was made.
    pub(crate) failures: u32,
}

/// What can be done with a held lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Give it back.
    Release,
    /// Answer this notice.
    Acknowledge(u64),
    /// Ask for more time to answer this notice.
    Extend(u64, Duration),
}

/// Something that is done with a held lease.
#[derive(Debug)]
pub(crate) struct PendingVerb {
    pub(crate) verb: Verb,
    pub(crate) lease_id: u64,
    pub(crate) fencing_token: Option<u64>,
    /// `None`: nobody waits for the outcome.
    pub(crate) answer: Option<oneshot::Sender<Answered>>,
    /// When it was last put on a stream.
    pub(crate) sent_at: Duration,
    pub(crate) failures: u32,
    /// It goes on until then, and at least for its tries: a release for as long as its lease may be valid.
    pub(crate) kept_until: Duration,
}

impl PendingVerb {
    pub(crate) fn new(verb: Verb, lease_id: u64, fencing_token: Option<u64>) -> Self {
        let (answer, sent_at, failures, kept_until) = (None, Duration::ZERO, 0, Duration::ZERO);
        Self { verb, lease_id, fencing_token, answer, sent_at, failures, kept_until }
    }

    pub(crate) fn kept_until(self, kept_until: Duration) -> Self {
        Self { kept_until, ..self }
    }

    /// It failed once more: whether to give up on it.
    pub(crate) fn failed_again(&mut self, now: Duration, is_retryable: bool) -> bool {
        self.failures = self.failures.saturating_add(1);
        !is_retryable || (self.failures >= TRIES_MAX && now >= self.kept_until)
    }

    /// After its tries a caller hears of the failure, be it that the verb goes on in the background.
    pub(crate) fn tell_caller(&mut self, error: &Error) -> Option<Delivery> {
        let answer = self.answer.take_if(|_| self.failures >= TRIES_MAX)?;
        Some(Delivery::Lease(answer, Err(error.clone())))
    }

    fn message(&self) -> Body {
        let (service, holder) = <(String, String)>::default();
        let (lease_id, fencing_token) = (self.lease_id, self.fencing_token.unwrap_or_default());
        match self.verb {
            Verb::Release => Body::Release(v1::ReleaseRequest {
                lease_id,
                fencing_token: self.fencing_token,
                service,
                holder,
            }),
            Verb::Acknowledge(notice_id) => Body::Acknowledge(v1::AcknowledgeRequest {
                lease_id,
                fencing_token,
                notice_id,
                service,
                holder,
            }),
            Verb::Extend(notice_id, by) => Body::ExtendNotice(v1::ExtendNoticeRequest {
                lease_id,
                fencing_token,
                notice_id,
                extension: Some(convert::wire_duration(by)),
                service,
                holder,
            }),
        }
    }
}

/// A message of renewals.
#[derive(Debug)]
pub(crate) struct PendingRenewal {
    pub(crate) lease_ids: Vec<u64>,
    /// The work that it tells, by lease.
    pub(crate) worked: Vec<(u64, Work)>,
    pub(crate) sent_at: Duration,
}

/// One request without its final answer.
#[derive(Debug)]
pub(crate) enum Pending {
    Acquire(PendingAcquire),
    Verb(PendingVerb),
    Renewal(PendingRenewal),
}

impl PendingAcquire {
    /// What is left of the wait when the request is repeated: a repeat starts its wait anew. Never nothing, which would
    /// ask not to wait at all.
    fn wait_left(&self, now: Duration) -> Option<prost_types::Duration> {
        let asked = self.request.wait.filter(|wait| wait.seconds > 0 || wait.nanos > 0)?;
        let left = self.terms.wait_until.saturating_sub(now);
        let left = left.max(Duration::from_millis(1));
        Some(prost_types::Duration::try_from(left).unwrap_or(asked))
    }

    /// From when the grant's remaining time counts: a moment that is surely not later than the coordinator's.
    ///
    /// `queued` was said after this was sent, and the grant was made so much later as its wait had grown by then.
    /// The whole wait would be wrong: a request that is repeated may have begun to wait long before this client.
    pub(crate) fn counts_from(&self, waited: Duration) -> Duration {
        let waited_since = self.waited_before.map(|before| waited.saturating_sub(before));
        self.sent_at.unwrap_or_default().saturating_add(waited_since.unwrap_or_default())
    }
}

impl Pending {
    /// The message to send now. Renewals are built where they are sent and never repeated.
    pub(crate) fn message(&mut self, now: Duration) -> Option<Body> {
        match self {
            Self::Acquire(acquire) => {
                let mut request = (*acquire.request).clone();
                if acquire.sent_at.is_some() {
                    request.wait = acquire.wait_left(now);
                }
                acquire.sent_at = Some(now);
                acquire.waited_before = None;
                Some(Body::Acquire(request))
            }
            Self::Verb(verb) => {
                verb.sent_at = now;
                Some(verb.message())
            }
            Self::Renewal(_) => None,
        }
    }

    /// The session failed to open once more: whether to give up on this one. What has a place in the queue goes on to
    /// its deadline: it has waited for it.
    pub(crate) fn failed_again(&mut self, now: Duration, is_retryable: bool) -> bool {
        match self {
            Self::Acquire(acquire) => {
                acquire.failures = acquire.failures.saturating_add(1);
                let tries_are_over = acquire.failures >= TRIES_MAX && acquire.lease_id.is_none();
                !is_retryable || tries_are_over || now >= acquire.terms.deadline
            }
            Self::Verb(verb) => verb.failed_again(now, is_retryable),
            Self::Renewal(_) => true,
        }
    }

    /// What to tell whoever waits when the session cannot carry on with it.
    pub(crate) fn give_up(self, error: &Error) -> Option<Delivery> {
        match self {
            Self::Acquire(acquire) => {
                let error = error.clone().with_request_id(&acquire.request.request_id);
                acquire.answer.map(|answer| Delivery::Acquire(answer, Answer::GaveUp(error)))
            }
            Self::Verb(verb) => {
                verb.answer.map(|answer| Delivery::Lease(answer, Err(error.clone())))
            }
            Self::Renewal(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(waited_before_seconds: Option<u64>, waited_seconds: u64, expected_seconds: u64) {
        let acquire = PendingAcquire {
            request: Box::default(),
            answer: None,
            lease_id: None,
            sent_at: Some(Duration::from_secs(100)),
            waited_before: waited_before_seconds.map(Duration::from_secs),
            terms: AcquireTerms {
                keeps: false,
                wait_until: Duration::MAX,
                deadline: Duration::MAX,
            },
            failures: 0,
        };
        let counts_from = acquire.counts_from(Duration::from_secs(waited_seconds));
        assert_eq!(counts_from, Duration::from_secs(expected_seconds));
    }

    #[test]
    fn validity_of_a_grant_at_once_counts_from_the_send_time() {
        check(None, 0, 100);
    }

    #[test]
    fn validity_of_a_grant_after_a_wait_counts_from_its_end() {
        check(Some(0), 60, 160);
    }

    #[test]
    fn a_wait_before_this_client_sent_the_request_does_not_count() {
        check(Some(60), 90, 130);
        check(None, 90, 100);
    }
}
