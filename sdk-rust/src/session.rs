//! One session of one holder, for all that a client asks (P22): what callers do to it.
//!
//! A caller's message goes from its own task straight onto the stream, and the answer from the reading task
//! straight to the caller: no task stands between. The stream itself, its opening and its breaks are in `link.rs`.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gpulease_proto::v1;
use tokio::{
    runtime::Handle,
    sync::{Notify, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};
use tonic::transport::Channel;

use crate::{
    breaker::Breaker,
    clock::Clock,
    error::{Error, ErrorKind},
    facts::Told,
    held::Held,
    info::{LeaseInfo, LeaseState},
    keepalive, link,
    notice::Notice,
    pending::{AcquireTerms, Answer, Answered, Delivery, PendingVerb, Verb},
    request::Prepared,
    retry::Backoff,
    standing::LostReason,
    state::State,
    trace::TraceSource,
};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) service: String,
    pub(crate) holder: String,
}

/// What a session is made of.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) channel: Channel,
    pub(crate) identity: Identity,
    pub(crate) clock: Clock,
    /// An acquire has no answer for so long after its wait: then it is given up.
    pub(crate) answer_grace: Duration,
    pub(crate) breaker: Arc<Breaker>,
    pub(crate) trace: TraceSource,
}

/// What the session's tasks and its callers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) identity: Identity,
    pub(crate) channel: Channel,
    pub(crate) clock: Clock,
    answer_grace: Duration,
    pub(crate) breaker: Arc<Breaker>,
    pub(crate) trace: TraceSource,
    /// The runtime that carries the session's tasks.
    pub(crate) runtime: Handle,
    state: Mutex<State>,
    /// There is something to do for the task that keeps the stream.
    pub(crate) wanted: Notify,
    /// No handle is left, or the client was closed.
    pub(crate) closing: Notify,
    /// A lease is due earlier than the keep-alive thought.
    pub(crate) attention: Notify,
    /// Turns true when the session's tasks are done.
    pub(crate) done: watch::Sender<bool>,
}

/// A session's handle. When the last one is dropped, what is pending is finished and the stream ends.
#[derive(Debug)]
pub(crate) struct Session(pub(crate) Arc<Shared>, JoinHandle<()>);

impl Drop for Session {
    fn drop(&mut self) {
        self.0.state().closing = true;
        self.0.call_closing();
    }
}

impl Session {
    /// A session that opens its stream when it is first needed. Must be called within a tokio runtime.
    pub(crate) fn new(setup: Setup) -> Arc<Self> {
        let shared = Arc::new(Shared {
            identity: setup.identity,
            channel: setup.channel,
            clock: setup.clock,
            answer_grace: setup.answer_grace,
            breaker: setup.breaker,
            trace: setup.trace,
            runtime: Handle::current(),
            state: Mutex::default(),
            wanted: Notify::new(),
            closing: Notify::new(),
            attention: Notify::new(),
            done: watch::channel(false).0,
        });
        let keepalive = tokio::spawn(keepalive::run(Arc::clone(&shared)));
        let task = tokio::spawn(link::run(Arc::clone(&shared), keepalive));
        Arc::new(Self(shared, task))
    }

    /// Whether nothing can be asked any more: it ended, or its runtime did.
    pub(crate) fn is_over(&self) -> bool {
        *self.0.done.borrow() || self.0.state().ended.is_some() || self.1.is_finished()
    }

    /// Whether a lease of this session may still be valid.
    pub(crate) fn holds_any(&self) -> bool {
        !self.0.state().held.is_empty()
    }

    pub(crate) fn now(&self) -> Duration {
        self.0.clock.now()
    }

    /// Asks for a lease until it is granted, refused for good, or the tries or the time are used up.
    pub(crate) async fn acquire(
        &self,
        request: Prepared,
        on_queued: impl FnMut(&LeaseInfo) + Send,
    ) -> Result<Arc<Held>, Error> {
        let longest = request.wait.saturating_add(self.0.answer_grace);
        let request_id = request.message.request_id.clone();
        let outcome = timeout(longest, self.try_to_acquire(request, on_queued)).await;
        outcome.unwrap_or_else(|_| Err(self.no_answer(longest).with_request_id(&request_id)))
    }

    /// What to say of a request that had no answer in this time.
    pub(crate) fn no_answer(&self, longest: Duration) -> Error {
        // Where the session does not open, that was counted and says more.
        let away = self.0.state().away.clone();
        away.unwrap_or_else(|| {
            let message = format!("the coordinator did not answer within {longest:?}");
            let error = Error::new(ErrorKind::DeadlineExceeded, "DEADLINE_EXCEEDED", message);
            self.0.breaker.failed(&error, self.now());
            error
        })
    }

    async fn try_to_acquire(
        &self,
        request: Prepared,
        mut on_queued: impl FnMut(&LeaseInfo) + Send,
    ) -> Result<Arc<Held>, Error> {
        let wait_until = self.now().saturating_add(request.wait);
        let deadline = wait_until.saturating_add(self.0.answer_grace);
        let terms = AcquireTerms { keeps: request.keeps, wait_until, deadline };
        let mut may_omit_process = request.may_omit_process;
        let mut request = Box::new(request.message);
        let mut backoff = Backoff::default();
        loop {
            let call = Call::start(&self.0, request, terms)?;
            let (error, returned) = match call.finish(&mut on_queued).await {
                Answer::Granted(held) => {
                    self.0.breaker.answered();
                    return Ok(held);
                }
                Answer::Refused(error, request) => (error, request),
                // Counted where the session failed to open.
                Answer::GaveUp(error) => return Err(error),
                Answer::Queued(..) => return Err(Error::protocol("queued is no final answer")),
            };
            self.0.breaker.failed(&error, self.now());
            let unseen = error.field().is_some_and(|field| field.starts_with("process"));
            if unseen && std::mem::take(&mut may_omit_process) {
                tracing::warn!(%error, "the coordinator does not see this process: it is not declared");
                request = returned;
                request.process = None;
                continue;
            }
            let pause = backoff.next(error.retry_after()).filter(|_| error.is_retryable());
            let Some(pause) = pause.filter(|pause| self.now().saturating_add(*pause) < deadline)
            else {
                return Err(error);
            };
            tracing::debug!(%error, ?pause, "acquire refused, trying again");
            tokio::time::sleep(pause).await;
            request = returned;
        }
    }

    /// Gives a lease back and waits for the answer. The release goes out even when the future is dropped.
    pub(crate) fn release(&self, held: &Held) -> oneshot::Receiver<Answered> {
        let (answer, receiver) = oneshot::channel();
        self.0.give_back(held.id, held.fencing_token(), Some(answer));
        receiver
    }

    /// Gives a lease back; nobody waits for the answer.
    pub(crate) fn release_in_background(&self, held: &Held) {
        self.0.give_back(held.id, held.fencing_token(), None);
    }

    /// Says that its holder has stopped. A newer notice that stands by then is answered too. The answer goes out even
    /// when the future is dropped.
    pub(crate) async fn acknowledge(&self, held: &Held, notice_id: u64) -> Result<(), Error> {
        let mut notice_id = notice_id;
        loop {
            held.begin_acknowledging(notice_id);
            let lease = self.ask(held, Verb::Acknowledge(notice_id)).await?;
            match lease.notice.filter(|_| lease.state == LeaseState::Pausing) {
                Some(newer) if newer.id != notice_id => notice_id = newer.id,
                Some(_) => return Err(Error::protocol("an acknowledged notice still stands")),
                None => return Ok(()),
            }
        }
    }

    /// Asks for more time to answer a notice.
    pub(crate) async fn extend_notice(
        &self,
        held: &Held,
        notice_id: u64,
        by: Duration,
    ) -> Result<Notice, Error> {
        let lease = self.ask(held, Verb::Extend(notice_id, by)).await?;
        held.notice_at(self.now()).ok_or_else(|| {
            let message =
                format!("lease {} is {} and has no notice to extend", lease.id, lease.state);
            Error::new(ErrorKind::Other, "NO_NOTICE", message)
        })
    }

    async fn ask(&self, held: &Held, verb: Verb) -> Result<Box<LeaseInfo>, Error> {
        let (answer, receiver) = oneshot::channel();
        let verb = PendingVerb::new(verb, held.id, Some(held.fencing_token()));
        self.0.send_verb(PendingVerb { answer: Some(answer), ..verb });
        receiver.await.unwrap_or_else(|_| Err(Error::closed()))
    }

    /// Holds a lease that was granted by another call, asked for then: it is renewed, and told of, by this session.
    pub(crate) fn take_up(
        &self,
        info: LeaseInfo,
        keeps: bool,
        asked_at: Duration,
    ) -> Result<Arc<Held>, Error> {
        let mut state = self.0.state();
        if let Some(error) = state.ended.clone() {
            return Err(error);
        }
        let told = Told { after: asked_at, before: self.now() };
        let held = state.hold(info, keeps, told);
        self.0.call_keepalive(&state);
        drop(state);
        self.0.wanted.notify_one();
        Ok(held)
    }

    /// Stops renewing a lease.
    pub(crate) fn forget(&self, lease_id: u64) {
        self.0.state().forget(lease_id);
    }

    /// Ends the session for every handle: waits until releases on their way are answered, then every lease still
    /// held is lost.
    pub(crate) async fn close(&self) {
        let mut done = self.0.done.subscribe();
        let now = self.now();
        let deliveries = self.0.state().close(now);
        self.0.deliver(deliveries);
        self.0.call_closing();
        // An error would mean that the sender is gone, and `self` holds it.
        let _ = done.wait_for(|done| *done).await;
    }
}

impl Shared {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the keep-alive where something became due before it would wake.
    pub(crate) fn call_keepalive(&self, state: &State) {
        if state.is_due_before_wake() {
            self.attention.notify_one();
        }
    }

    fn call_closing(&self) {
        self.closing.notify_one();
        self.wanted.notify_one();
    }

    fn give_back(
        &self,
        lease_id: u64,
        fencing_token: u64,
        answer: Option<oneshot::Sender<Answered>>,
    ) {
        let mut state = self.state();
        // Work that was not told yet goes out before the release, in the order of the session.
        state.tell_work(lease_id, self.clock.now());
        let mut kept_until = Duration::ZERO;
        if let Some(tenure) = state.forget(lease_id) {
            kept_until = tenure.held.valid_until();
            tenure.held.lose(LostReason::released());
        }
        drop(state);
        let verb = PendingVerb::new(Verb::Release, lease_id, Some(fencing_token));
        self.send_verb(PendingVerb { answer, ..verb.kept_until(kept_until) });
    }

    fn send_verb(&self, verb: PendingVerb) {
        let mut state = self.state();
        if let Some(error) = state.ended.clone() {
            drop(state);
            self.deliver(verb.answer.map(|answer| Delivery::Lease(answer, Err(error))));
            return;
        }
        state.verb(verb, self.clock.now());
        let linked = state.link.is_some();
        drop(state);
        if !linked {
            self.wanted.notify_one();
        }
    }

    /// Hands answers to their callers, outside of the lock. A grant whose caller left in between is given back.
    pub(crate) fn deliver(&self, deliveries: impl IntoIterator<Item = Delivery>) {
        for delivery in deliveries {
            match delivery {
                Delivery::Acquire(answer, said) => {
                    if let Err(Answer::Granted(held)) = answer.send(said) {
                        self.give_back(held.id, held.fencing_token(), None);
                    }
                }
                // Nobody is left to hear the outcome: that is the caller's choice.
                Delivery::Lease(answer, said) => drop(answer.send(said)),
            }
        }
    }

    /// Does what the keep-alive has to do, and says how long it may sleep; `None`: until it is called.
    pub(crate) fn keep_alive(&self) -> Option<Duration> {
        let now = self.clock.now();
        let next = self.state().keep_alive(now)?;
        Some(next.saturating_sub(now))
    }

    /// A message of the coordinator. What can be converted is, before the lock is taken.
    pub(crate) fn receive(&self, message: v1::SessionResponse) {
        use v1::session_response::Body;
        let (sequence, now) = (message.sequence, self.clock.now());
        let info = |lease: Option<v1::Lease>| LeaseInfo::from(lease.unwrap_or_default());
        let lock = || {
            let mut state = self.state();
            state.revision_seen = state.revision_seen.max(message.revision);
            state
        };
        let delivery = match message.body {
            Some(Body::Granted(granted)) => {
                let info = info(granted.lease);
                let mut state = lock();
                let delivery = state.granted(sequence, info, now);
                self.call_keepalive(&state);
                delivery
            }
            Some(Body::Released(v1::ReleaseResponse { lease })) => {
                let info = info(lease);
                lock().obeyed(sequence, info, now)
            }
            Some(
                Body::Acknowledged(v1::AcknowledgeResponse { lease })
                | Body::NoticeExtended(v1::ExtendNoticeResponse { lease }),
            ) => {
                let info = info(lease);
                let mut state = lock();
                let delivery = state.obeyed(sequence, info, now);
                self.call_keepalive(&state);
                delivery
            }
            Some(Body::Queued(queued)) => {
                let info = info(queued.lease);
                lock().queued(sequence, info, now)
            }
            Some(Body::Renewed(renewed)) => {
                let mut state = lock();
                state.renewed(sequence, renewed, now);
                self.call_keepalive(&state);
                None
            }
            Some(Body::Error(error)) => {
                let mut state = lock();
                let delivery = state.refused(sequence, Error::from(error), now);
                self.call_keepalive(&state);
                delivery
            }
            Some(Body::Changed(lease)) => {
                let info = LeaseInfo::from(lease);
                let mut state = lock();
                state.changed(info, now);
                self.call_keepalive(&state);
                None
            }
            Some(Body::Goodbye(goodbye)) => {
                tracing::info!(reason = %goodbye.reason, "the coordinator is going away");
                None
            }
            // A second welcome, or something that this release does not know.
            Some(Body::Welcome(_)) | None => None,
        };
        self.deliver(delivery);
    }
}

/// One try of an acquire. Dropping it before it is finished cancels the request.
struct Call<'a> {
    shared: &'a Shared,
    sequence: u64,
    answer: oneshot::Receiver<Answer>,
    finished: bool,
}

impl<'a> Call<'a> {
    fn start(
        shared: &'a Shared,
        request: Box<v1::AcquireRequest>,
        terms: AcquireTerms,
    ) -> Result<Self, Error> {
        let now = shared.clock.now();
        let mut state = shared.state();
        if let Some(error) = &state.ended {
            return Err(error.clone());
        }
        let (sequence, answer) = state.acquire(request, terms, now);
        let linked = state.link.is_some();
        drop(state);
        if !linked {
            shared.wanted.notify_one();
        }
        Ok(Self { shared, sequence, answer, finished: false })
    }

    async fn finish(mut self, on_queued: &mut (impl FnMut(&LeaseInfo) + Send)) -> Answer {
        loop {
            let answer = (&mut self.answer).await;
            let answer = answer.unwrap_or_else(|_| Answer::GaveUp(Error::closed()));
            let Answer::Queued(info, next) = answer else {
                self.finished = true;
                return answer;
            };
            self.answer = next;
            on_queued(&info);
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        self.shared.state().abandon(self.sequence, self.shared.clock.now());
        // A grant may have been said already, at once or behind a `queued` that nobody looked at.
        self.answer.close();
        let mut said = self.answer.try_recv();
        while let Ok(Answer::Queued(_, mut next)) = said {
            next.close();
            said = next.try_recv();
        }
        if let Ok(Answer::Granted(held)) = said {
            self.shared.give_back(held.id, held.fencing_token(), None);
        }
    }
}
