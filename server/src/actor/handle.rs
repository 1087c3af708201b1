//! What the rest of the coordinator holds of the actor: asks, tells, questions, events, health.
//!
//! Promises: nothing here blocks, overload is refused here (P19), and no lock is held across a commit.
//! A reply comes only for what [`Handle::submit`] took; when its way back is dropped, [`Handle::refusal`] says why.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use gpulease_core::{
    id::{Caller, Revision, Ticket},
    input::Input,
    time::{Span, Time},
};
use tokio::sync::{Semaphore, oneshot, watch};

use super::{
    feed::Feed,
    health::{Facts, Figures, Health, SubmitError},
    intake::{Class, Intake, Message},
    message::ReplyTo,
    outbox::SessionOutbox,
    query::Reading,
    ring::Ring,
};
use crate::{clock::Clock, journal::Archive};

/// A way to the actor; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
}

/// What all handles and the actor have in common.
pub(super) struct Shared {
    pub(super) intake: Intake,
    pub(super) health: watch::Sender<Health>,
    pub(super) figures: Figures,
    pub(super) ring: Ring,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) archive: Arc<dyn Archive>,
    /// What of the [`Facts`] never changes.
    pub(super) facts: Facts,
    /// Places for questions that wait.
    pub(super) queries: Arc<Semaphore>,
    pub(super) next_caller: AtomicU64,
    pub(super) next_ticket: AtomicU64,
}

impl Shared {
    /// The gaps of P4, by which the scheduler's own time is behind the clock.
    fn gaps(&self) -> Span {
        Span::from_millis(self.figures.gaps_millis.load(Ordering::Relaxed))
    }
}

impl Handle {
    /// A new unary call.
    #[must_use]
    pub fn caller_call(&self) -> Caller {
        Caller::Call(self.shared.next_caller.fetch_add(1, Ordering::Relaxed))
    }

    /// A new session, told of changes through `outbox` until `CallerGone`.
    #[must_use]
    pub fn caller_session(&self, outbox: SessionOutbox) -> Caller {
        let caller = Caller::Session(self.shared.next_caller.fetch_add(1, Ordering::Relaxed));
        // Where the actor is gone, the outbox is dropped and its inbox closed by the next refused submit's caller.
        if !self.shared.intake.put(Message::Session { caller, outbox: outbox.clone() }) {
            outbox.close();
        }
        caller
    }

    /// Hands in a request; its replies go to `reply_to`.
    ///
    /// # Errors
    /// Overload, or the coordinator ends; then `make` was not called and nothing will happen.
    pub fn submit(
        &self,
        reply_to: ReplyTo,
        make: impl FnOnce(Ticket) -> Input,
    ) -> Result<(), SubmitError> {
        if let Some(refusal) = self.refusal() {
            return Err(refusal);
        }
        let ticket = Ticket(self.shared.next_ticket.fetch_add(1, Ordering::Relaxed));
        let input = make(ticket);
        self.shared.intake.admit(Class::of(&input))?;
        if self.shared.intake.put(Message::Request { ticket, reply_to, input }) {
            return Ok(());
        }
        Err(self.refusal().unwrap_or(SubmitError::Stopping))
    }

    /// Hands in what nobody waits for: `CallerGone`, `Observed`, `Sampled`. Never refused: callers are bounded by
    /// their connections, and of observations the newest of each node is kept.
    pub fn tell(&self, input: Input) {
        self.shared.intake.put(Message::Told(input));
    }

    /// Asks about committed state.
    ///
    /// # Errors
    /// Overload, or the coordinator ends.
    pub async fn query<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reading<'_>) -> T + Send + 'static,
    ) -> Result<T, SubmitError> {
        let permit = Arc::clone(&self.shared.queries).try_acquire_owned();
        let permit = permit.map_err(|_| SubmitError::Overloaded)?;
        let read = move |reading: &Reading<'_>| {
            let _permit = permit;
            read(reading)
        };
        self.ask(read).await
    }

    /// The same for the feed, never refused for overload: a watcher has one question at a time, and watchers are few.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reading<'_>) -> T + Send + 'static,
    ) -> Result<T, SubmitError> {
        let (answer, answered) = oneshot::channel();
        let ask = move |reading: &Reading<'_>| {
            // Whoever asked may be gone.
            let _ = answer.send(read(reading));
        };
        self.shared.intake.put(Message::Query(Box::new(ask)));
        answered.await.map_err(|_| self.refusal().unwrap_or(SubmitError::Stopping))
    }

    /// Why requests are refused, or went unanswered; `None`: they are served.
    #[must_use]
    pub fn refusal(&self) -> Option<SubmitError> {
        match &*self.shared.health.borrow() {
            Health::Serving => None,
            Health::Stopping => Some(SubmitError::Stopping),
            Health::Failed(reason) => Some(SubmitError::Failed(Arc::clone(reason))),
        }
    }

    /// The events, for watchers.
    #[must_use]
    pub fn feed(&self) -> Feed {
        Feed::new(self.clone())
    }

    /// Health and its changes.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        self.shared.health.subscribe()
    }

    /// This run in figures.
    #[must_use]
    pub fn facts(&self) -> Facts {
        let figures = &self.shared.figures;
        Facts {
            revision: Revision(figures.revision.load(Ordering::Acquire)),
            oldest_revision: Revision(self.shared.archive.oldest_revision().0),
            snapshot_revision: Revision(figures.snapshot_revision.load(Ordering::Acquire)),
            grants_total: figures.grants_total.load(Ordering::Relaxed),
            ..self.shared.facts.clone()
        }
    }

    /// Coordinator time, as in replies and views.
    #[must_use]
    pub fn now(&self) -> Time {
        self.shared.clock.now().before(self.shared.gaps())
    }

    /// The wall time of a moment of coordinator time, for display.
    #[must_use]
    pub fn wall(&self, at: Time) -> SystemTime {
        self.shared.clock.wall(at.after(self.shared.gaps()))
    }

    /// Begins the end: NOT_SERVING at once; sessions get their goodbye, watchers the revision to resume from.
    pub fn stop(&self) {
        let stopping = self.shared.health.send_if_modified(|health| {
            let serving = *health == Health::Serving;
            if serving {
                *health = Health::Stopping;
            }
            serving
        });
        if stopping {
            self.shared.intake.put(Message::Stop);
        }
    }
}
