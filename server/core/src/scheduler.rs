//! The scheduler: inputs in, events and effects out. One arm, one call.
//!
//! A batch is `begin`, any number of `step`s that share one `now`, and `finish`. Steps run to completion and cannot
//! fail: a refusal is an effect, and an event that does not fit the state is a defect that stops the process.
//! The rules are beside this file: `acquire`, `hold` (renew, release, acknowledge, revoke), `notice` and `pause`,
//! `reclaim` and `check` (what is closed, and what opens it), `serve`, `keep` and `backfill` (the queue, keeping,
//! preemption), `quota`, `shares` and `queue` (views of both), `plan` (many requests at once), `drain` (cordons), `import` (devices that an import
//! closed), `presence` (callers and sessions), `observe` and `moves` (devices and nodes), `tick` (deadlines), `portions`
//! (what is too much for one batch), `show` and `explain` (views).

mod acquire;
mod backfill;
mod check;
mod drain;
mod explain;
mod hold;
mod import;
mod keep;
mod moves;
mod notice;
mod observe;
mod pause;
mod plan;
mod portions;
mod presence;
mod queue;
mod quota;
mod reclaim;
mod recover;
mod serve;
mod shares;
mod show;
mod tick;

use crate::{
    event::{At, Batch, Event},
    id::{Caller, Revision, Ticket},
    input::Input,
    invariant,
    output::{Answer, Effect, Output, Rejection},
    placement::{OwnUse, Site},
    policy::Policy,
    soft::Soft,
    state::State,
    time::Time,
};

/// See the head of this file.
#[derive(Debug)]
pub struct Scheduler {
    state: State,
    soft: Soft,
    policy: Policy,
    at: At,
}

impl Scheduler {
    /// Starts a batch at the shell's `now`. A gap since the step before extends every deadline (P4).
    pub fn begin(&mut self, now: Time) {
        let live = self.state.tally().live() > 0;
        self.soft.clock.advance(now, live, &self.policy);
        let revision = Revision(self.state.revision().0.saturating_add(1));
        self.at = At { revision, time: self.soft.clock.now() };
    }

    /// Takes one input. Its events are applied to the state already when this returns.
    pub fn step(&mut self, input: Input, out: &mut Output) {
        self.begin_step(out);
        if let Some(ticket) = self.refused(&input) {
            reply(out, ticket, Err(Rejection::SessionReplaced));
            return;
        }
        self.take(input, out);
        if self.soft.dirty {
            self.serve(out);
        }
    }

    fn take(&mut self, input: Input, out: &mut Output) {
        match input {
            Input::Acquire { caller, ticket, request } => {
                self.acquire(caller, ticket, request, out)
            }
            Input::Reserve { ticket, plan } => {
                let reserved = self.reserve(&plan, out).map(|it| Answer::Planned(Box::new(it)));
                reply(out, ticket, reserved);
            }
            Input::Renew { caller, ticket, lease, token, holder } => {
                let renewed = self.renew(caller, lease, token, holder.as_ref(), out);
                reply(out, ticket, renewed);
            }
            Input::Release { ticket, lease, token, holder, .. } => {
                let released = self.release(lease, token, holder.as_ref(), out);
                reply(out, ticket, released);
            }
            Input::Acknowledge { caller, ticket, lease, token, notice, holder } => {
                let named = (lease, token, notice);
                let acknowledged = self.acknowledge(caller, named, holder.as_ref(), out);
                reply(out, ticket, acknowledged);
            }
            Input::ExtendNotice { caller, ticket, lease, token, notice, extension, holder } => {
                let named = (lease, token, notice);
                let extended = self.extend_notice(caller, named, extension, holder.as_ref(), out);
                reply(out, ticket, extended);
            }
            Input::Cordon { ticket, target, drain, reason } => {
                let cordoned = self.cordon(&target, (drain, reason), out);
                reply(out, ticket, cordoned);
            }
            Input::Uncordon { ticket, target } => {
                let uncordoned = self.uncordon(&target, out);
                reply(out, ticket, uncordoned);
            }
            Input::Quiesce { ticket, node, quiesced } => {
                let answer = self.quiesce(&node, quiesced, out);
                reply(out, ticket, answer);
            }
            Input::Revoke { ticket, lease, detail } => {
                let revoked = self.revoke(lease, detail, out);
                reply(out, ticket, revoked);
            }
            Input::SessionOpened { caller, ticket, holder } => {
                self.open_session(caller, ticket, holder, out)
            }
            Input::CallerGone { caller } => self.caller_gone(caller, out),
            Input::Observed { node, devices } => self.observe(&node, &devices, out),
            Input::OpenDevice { ticket, uuid, detail } => {
                let opened = self.open_device(&uuid, &detail, out);
                reply(out, ticket, opened);
            }
            Input::Sampled { node, samples, trees } => {
                self.sample(&node, samples, trees.as_ref(), out)
            }
            Input::Tick => self.tick(out),
        }
    }

    /// What comes before any input: use halves as configured, and what the batch before left is gone on with.
    fn begin_step(&mut self, out: &mut Output) {
        let half_life = self.policy.half_life;
        if self.state.half_life() != half_life {
            self.emit(Event::HalfLifeChanged { half_life }, out);
        }
        self.go_on(out);
    }

    /// Ends the batch: its events, to be made durable under the next revision; `None` where there are none.
    pub fn finish(&mut self, out: &mut Output) -> Option<Batch> {
        if out.events.is_empty() {
            return None;
        }
        self.state.close(self.at);
        let events = std::mem::take(&mut out.events);
        out.weight = 0;
        Some(Batch { revision: self.at.revision, time: self.at.time, events })
    }

    /// When to feed [`Input::Tick`] at the latest, on the shell's time: the next deadline, or the heartbeat.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        let due = self.soft.deadlines.first().map(|own| self.soft.clock.shell(own));
        let live = self.state.tally().live() > 0;
        let beat = live.then(|| self.soft.clock.heartbeat(&self.policy));
        let rest = self.has_rest().then(|| self.soft.clock.shell(self.now()));
        [due, beat, rest].into_iter().flatten().min()
    }

    /// The last finished batch.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.state.revision()
    }

    /// The state after the last step.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Whether what placement remembers is what looking at everything anew gives. For tests: it costs the whole look.
    ///
    /// # Errors
    /// What differs, in words.
    pub fn verify_placement(&self) -> Result<(), String> {
        self.soft.capacity.borrow_mut().verify(&self.site())
    }

    /// The scheduler's own time: the shell's less the gaps of P4. All times in views are on it.
    #[must_use]
    pub fn own_time(&self, shell: Time) -> Time {
        self.soft.clock.own(shell)
    }

    /// The session that a replaced one's input belongs to is gone: nothing of it is done (P22).
    fn refused(&self, input: &Input) -> Option<Ticket> {
        let (Input::Acquire { caller, ticket, .. }
        | Input::Renew { caller, ticket, .. }
        | Input::Release { caller, ticket, .. }
        | Input::Acknowledge { caller, ticket, .. }
        | Input::ExtendNotice { caller, ticket, .. }) = input
        else {
            return None;
        };
        let session = matches!(caller, Caller::Session(_));
        (session && !self.soft.holders.contains_key(caller)).then_some(*ticket)
    }

    const fn now(&self) -> Time {
        self.at.time
    }

    fn site(&self) -> Site<'_> {
        Site {
            inventory: self.state.inventory(),
            measured: &self.soft.measured,
            lingering: &self.soft.lingering,
            quiesced: &self.soft.quiesced,
            opening: None,
            own: None,
            mix: self.state.mix(),
            policy: &self.policy,
            now: self.at.time,
        }
    }

    /// The same as it is for a paused lease, see [`Self::own_use`].
    fn site_for<'a>(&'a self, own: &'a OwnUse) -> Site<'a> {
        Site { own: own.process.map(|_| own), ..self.site() }
    }

    /// Applies an event and books it for the journal.
    ///
    /// # Panics
    /// The event does not fit the state: a defect, after which nothing may be decided any more.
    fn emit(&mut self, event: Event, out: &mut Output) {
        // P1 is checked anew for every grant, by code that placement does not share.
        if let Err(violation) = invariant::grant_fits(&self.state, &event) {
            panic!("defect, the coordinator stops: {violation}; event {event:?}");
        }
        if let Err(defect) = self.state.apply(self.at, &event) {
            panic!("defect, the coordinator stops: {defect}; event {event:?}");
        }
        out.weight = out.weight.saturating_add(portions::weight(&event));
        out.events.push(event);
    }
}

fn reply(out: &mut Output, ticket: Ticket, reply: Result<Answer, Rejection>) {
    out.effects.push(Effect::Reply { ticket, reply });
}
