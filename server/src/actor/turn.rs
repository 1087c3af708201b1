//! One round of the actor: take all that waits, step a batch of it, commit, let out.
//!
//! Order within a batch: observations; renewals, releases, revocations, sessions; what a full batch left; a tick if one is
//! due; acquires, once nothing is left.
//! A due tick waits until every urgent input that was here before it is stepped, also one that stands behind its own
//! session's acquires (P4, P22); those are in first-in-first-out lanes, so it waits for finitely many.
//! Questions are answered between two batches. Nothing here waits for anything but the journal.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use gpulease_core::{
    event::Event, id::Revision, input::Input, output::Effect, scheduler::Scheduler, time::Time,
};

use super::{
    batch::{CommitError, Committed, Durable, OpenBatch},
    delivery::Delivery,
    errands::Errands,
    handle::Shared,
    health::Health,
    intake::{Message, Taken},
    lanes::{Arrival, Lanes, Queued, caller_of},
    query::{BoxedQuery, Reading},
    ring::Entry,
    snapshot::SnapshotTrigger,
    subject::Subject,
};
use crate::journal::Journal;

/// The most urgent inputs of one batch. Each makes some small events (an end, the grants that follow from it), at most
/// a few hundred bytes together: 2,048 × 512 bytes are 1 MiB of the journal's 8 MiB a batch.
const URGENT_STEPS_MAX: usize = 2_048;
/// The most acquires of one batch, with what stands between them: at some 10 µs each a batch takes 10 ms of stepping,
/// less than a renewal can wait. Small requests make under 1 KiB of events each: 1 MiB.
const ORDINARY_STEPS_MAX: usize = 1_024;
/// The most bytes of constraints in one batch: a request has up to 4 KiB of them, so that 1,024 of the largest would
/// be 4 MiB, half of what the journal takes at once.
const CONSTRAINT_BYTES_MAX: usize = 2 << 20;
/// No more acquires are taken beyond so many events: half of what makes a batch full for the rules, so that an acquire
/// seldom leaves something to the next batch. At most 3 KiB each (a grant of 1,024 devices), mostly under 100 bytes.
const EVENTS_MAX: usize = 4_096;

/// The most questions answered between two batches: at some microseconds for most of them …
const QUERIES_PER_TURN_MAX: usize = 64;
/// … and none is begun after this, so that a renewal waits for one long question at most.
const QUERIES_TIME_MAX: Duration = Duration::from_millis(2);

/// What to do after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// There is more to do at once.
    Again,
    /// Nothing until something arrives, or this time comes.
    Wait(Option<Time>),
    /// The end, as was asked for.
    Stop,
}

/// The owner of the state.
pub(super) struct Actor {
    scheduler: Scheduler,
    journal: Box<dyn Journal>,
    pub(super) shared: Arc<Shared>,
    snapshots: SnapshotTrigger,
    lanes: Lanes,
    delivery: Delivery,
    taken: Taken,
    queries: VecDeque<BoxedQuery>,
    /// A tick is due, and waits for the urgent inputs up to here.
    tick_waits_for: Option<Arrival>,
    stopping: bool,
}

impl Actor {
    pub(super) fn new(
        scheduler: Scheduler,
        journal: Box<dyn Journal>,
        shared: Arc<Shared>,
        snapshots: SnapshotTrigger,
        errands: Arc<dyn Errands>,
    ) -> Self {
        // The backend has to know the declared processes before its first pass says who has exited.
        for effect in scheduler.declared() {
            if let Effect::Track { process } = effect {
                errands.track(process);
            }
        }
        Self {
            scheduler,
            journal,
            shared,
            snapshots,
            lanes: Lanes::default(),
            delivery: Delivery::new(errands),
            taken: Taken::default(),
            queries: VecDeque::new(),
            tick_waits_for: None,
            stopping: false,
        }
    }

    #[cfg(test)]
    pub(super) fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    #[cfg(test)]
    pub(super) fn delivery(&self) -> &Delivery {
        &self.delivery
    }

    /// One round.
    pub(super) fn turn(&mut self) -> Result<Next, CommitError> {
        self.take_in();
        let now = self.shared.clock.now();
        self.notice_deadline(now);
        if self.has_work() {
            let committed = self.commit_batch(now)?;
            self.let_out(committed);
        }
        self.answer_queries();
        Ok(self.next())
    }

    /// Sorts all that waits.
    fn take_in(&mut self) {
        self.shared.intake.take(&mut self.taken);
        for message in self.taken.messages.drain(..) {
            match message {
                Message::Request { ticket, reply_to, input } => {
                    self.lanes.push(input, Some((ticket, reply_to)));
                }
                Message::Told(input) => self.lanes.push(input, None),
                Message::Session { caller, outbox } => self.delivery.open_session(caller, outbox),
                Message::Query(query) => self.queries.push_back(query),
                Message::Stop => self.stopping = true,
            }
        }
        if self.stopping {
            self.lanes.drop_acquires();
        }
    }

    fn notice_deadline(&mut self, now: Time) {
        let due = self.scheduler.next_deadline().is_some_and(|deadline| deadline <= now);
        if due && self.tick_waits_for.is_none() {
            self.tick_waits_for = Some(self.lanes.newest());
        }
    }

    fn has_work(&self) -> bool {
        self.tick_waits_for.is_some()
            || !self.lanes.is_empty()
            || !self.taken.observations.is_empty()
            || self.scheduler.has_rest()
    }

    fn commit_batch(&mut self, now: Time) -> Result<Committed, CommitError> {
        let mut open = OpenBatch::open(&mut self.scheduler, now);
        self.taken.observations.drain(..).for_each(|input| open.step(input));
        let (lanes, delivery) = (&mut self.lanes, &mut self.delivery);
        for _ in 0..URGENT_STEPS_MAX {
            let Some(queued) = lanes.take_urgent() else { break };
            step(&mut open, delivery, queued);
        }
        open.go_on();
        step_tick(&mut open, lanes, &mut self.tick_waits_for);
        step_ordinary(&mut open, lanes, delivery);
        step_tick(&mut open, lanes, &mut self.tick_waits_for);
        let freed = lanes.take_freed();
        self.shared.intake.readmit(freed.ordinary, freed.urgent);
        let committed = open.commit(&mut *self.journal)?;
        let gaps = now.since(committed.now).as_millis();
        self.shared.figures.gaps_millis.store(gaps, Ordering::Relaxed);
        Ok(committed)
    }

    /// What was committed: figures and events first, so that whoever gets a reply finds them there.
    fn let_out(&mut self, mut committed: Committed) {
        if let Some(durable) = committed.durable.take() {
            self.publish(durable);
        }
        self.delivery.let_out(committed);
        for caller in self.delivery.take_unheard() {
            self.lanes.push(Input::CallerGone { caller }, None);
        }
    }

    fn publish(&mut self, Durable { batch, encoded_bytes }: Durable) {
        let grants = batch.events.iter().filter(|event| matches!(event, Event::Granted { .. }));
        let figures = &self.shared.figures;
        figures.grants_total.fetch_add(grants.count() as u64, Ordering::Relaxed);
        figures.set_revision(batch.revision);
        tracing::debug!(revision = batch.revision.0, events = ?batch.events, "committed");
        self.snapshots.committed(encoded_bytes);
        let ring = &self.shared.ring;
        let subjects = ring.watched().then(|| Subject::of_batch(self.scheduler.state(), &batch));
        ring.push(Entry { batch, subjects, encoded_bytes });
    }

    fn answer_queries(&mut self) {
        if self.queries.is_empty() {
            return;
        }
        let now = self.scheduler.own_time(self.shared.clock.now());
        let reading = Reading { scheduler: &self.scheduler, now };
        let begun = Instant::now();
        for _ in 0..QUERIES_PER_TURN_MAX {
            let Some(query) = self.queries.pop_front() else { break };
            query(&reading);
            if begun.elapsed() >= QUERIES_TIME_MAX {
                break;
            }
        }
    }

    fn next(&self) -> Next {
        if !self.lanes.is_empty() || self.tick_waits_for.is_some() {
            return Next::Again;
        }
        if self.stopping {
            return Next::Stop;
        }
        if !self.queries.is_empty() {
            return Next::Again;
        }
        Next::Wait(self.scheduler.next_deadline())
    }

    /// The last words: sessions get the revision to watch from, watchers drain and end.
    pub(super) fn say_goodbye(&mut self) -> Revision {
        let revision = self.scheduler.revision();
        self.delivery.say_goodbye(revision);
        self.shared.ring.close();
        self.shared.intake.close();
        revision
    }

    /// No last words: what was asked and not answered stays unanswered. The health goes first, so that whoever
    /// misses an answer finds the reason there.
    pub(super) fn fail(&mut self, reason: Arc<str>) {
        self.shared.health.send_replace(Health::Failed(reason));
        self.delivery.close();
        self.shared.ring.close();
        self.shared.intake.close();
    }
}

fn step(open: &mut OpenBatch<'_>, delivery: &mut Delivery, queued: Queued) {
    let caller = caller_of(&queued.input);
    if let Some((ticket, reply_to)) = queued.answer {
        delivery.expect(ticket, caller, reply_to);
    }
    if let Input::CallerGone { caller } = &queued.input {
        delivery.forget(*caller);
    }
    open.step(queued.input);
}

fn step_tick(open: &mut OpenBatch<'_>, lanes: &Lanes, waits_for: &mut Option<Arrival>) {
    if waits_for.is_some_and(|arrival| lanes.urgent_done_until(arrival)) {
        *waits_for = None;
        open.step(Input::Tick);
    }
}

fn step_ordinary(open: &mut OpenBatch<'_>, lanes: &mut Lanes, delivery: &mut Delivery) {
    let mut constraint_bytes = 0;
    for _ in 0..ORDINARY_STEPS_MAX {
        let full = open.event_count() >= EVENTS_MAX || constraint_bytes >= CONSTRAINT_BYTES_MAX;
        if full || open.has_rest() {
            break;
        }
        let Some(queued) = lanes.take_ordinary() else { break };
        constraint_bytes += match &queued.input {
            Input::Acquire { request, .. } => request.constraints.text_bytes(),
            Input::Reserve { plan, .. } => plan.text_bytes(),
            _ => 0,
        };
        step(open, delivery, queued);
    }
}
