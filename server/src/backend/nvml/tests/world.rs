//! Made-up devices, their backend, and the rules that hear and ask it: time is a variable.

use std::sync::Arc;

use gpulease_core::{
    id::{Caller, Holder, LeaseId, Ticket, Token},
    input::Input,
    lease::State as LeaseState,
    output::{Answer, Effect, Output},
    policy::Policy,
    request::{Ask, Constraints, Preemptible, Priority, Process, RequestFields, Share},
    scheduler::Scheduler,
    state::State,
    time::{Span, Time},
    view::DeviceView,
};
use gpulease_fake_nvml::uuid;

use super::bench::{Host, Inputs};
use crate::backend::{Asked, Backend, nvml::Nvml};

/// See the head of this file.
pub(super) struct World {
    pub(super) host: Host,
    backend: Nvml,
    scheduler: Scheduler,
    now: Time,
    tickets: u64,
}

impl World {
    /// Of this host, after the first inventory.
    pub(super) fn of(host: Host) -> Self {
        let (backend, _) = host.opened(host.config());
        let scheduler = Scheduler::recover(State::default(), Policy::default(), Time::ZERO);
        let mut world = Self { host, backend, scheduler, now: Time::ZERO, tickets: 0 };
        world.pass(0);
        world
    }

    /// Lets so many milliseconds go by.
    pub(super) fn pass(&mut self, millis: u64) {
        let until = self.now.after(Span::from_millis(millis));
        loop {
            let due =
                self.backend.due_at().min(self.scheduler.next_deadline().unwrap_or(Time::NEVER));
            if due > until {
                break;
            }
            self.turn(due.max(self.now));
        }
        self.turn(until);
    }

    /// Steps the backend, and lets the rules hear it.
    fn turn(&mut self, now: Time) {
        self.now = now;
        let mut inputs = Inputs::default();
        self.backend.step(now, &mut inputs);
        self.feed(inputs.0.into_iter().chain([Input::Tick]));
    }

    fn feed(&mut self, inputs: impl IntoIterator<Item = Input>) -> Vec<Answer> {
        let mut out = Output::default();
        self.scheduler.begin(self.now);
        inputs.into_iter().for_each(|input| self.scheduler.step(input, &mut out));
        self.scheduler.finish(&mut out);
        let mut answers = Vec::new();
        for effect in out.effects {
            let mut asked = Asked::default();
            match effect {
                Effect::Check { device, number, .. } => drop(asked.checks.insert(device, number)),
                Effect::Track { process } => drop(asked.tracked.insert(process)),
                Effect::Reply { reply, .. } => answers.extend(reply),
                _ => {}
            }
            if !asked.is_empty() {
                self.backend.ask(asked);
            }
        }
        answers
    }

    /// Asks for a part of one device, with a TTL of an hour; answers which lease it became.
    pub(super) fn acquire(&mut self, share: Share, process: Option<Process>) -> LeaseId {
        self.acquire_for(share, process, Span::from_secs(3_600))
    }

    pub(super) fn acquire_for(
        &mut self,
        share: Share,
        process: Option<Process>,
        ttl: Span,
    ) -> LeaseId {
        self.tickets += 1;
        let holder = Holder { service: "tests".into(), name: "holder".into() };
        let fields = RequestFields {
            holder,
            request_id: self.tickets.to_string().as_str().into(),
            name: None,
            ask: Ask { devices: 1, share },
            constraints: Constraints::default(),
            priority: Priority::Normal,
            ttl,
            wait: Span::from_secs(3_600),
            expected_duration: None,
            lifetime_max: None,
            preemptible: Preemptible::Never,
            minimum_hold: Span::ZERO,
            placement: None,
            pause_cost: None,
            process,
        };
        let (caller, ticket) = (Caller::Call(self.tickets), Ticket(self.tickets));
        let request = Arc::new(fields.validate().unwrap());
        match &self.feed([Input::Acquire { caller, ticket, request }])[..] {
            [Answer::Lease(lease) | Answer::Queued(lease), ..] => lease.id,
            other => panic!("{other:?}"),
        }
    }

    /// The holder gives it back.
    pub(super) fn release(&mut self, lease: LeaseId) {
        let token = self.scheduler.lease(lease).unwrap().lease.token;
        self.tickets += 1;
        let (caller, ticket) = (Caller::Call(self.tickets), Ticket(self.tickets));
        let token = Some(token).filter(|token| *token != Token(0));
        self.feed([Input::Release { caller, ticket, lease, token, holder: None }]);
    }

    pub(super) fn state(&self, lease: LeaseId) -> LeaseState {
        self.scheduler.lease(lease).unwrap().lease.state
    }

    pub(super) fn is_active(&self, lease: LeaseId) -> bool {
        self.state(lease) == LeaseState::Active
    }

    pub(super) fn device(&self, number: u32) -> DeviceView {
        self.scheduler.device(&uuid(number)).unwrap()
    }

    /// Foreign and grantable memory of the first device, in GiB, rounded down.
    pub(super) fn memory(&self) -> (Option<u64>, Option<u64>) {
        let device = self.device(0);
        let gib = |bytes: Option<u64>| bytes.map(|bytes| bytes >> 30);
        (gib(device.memory_foreign_bytes), gib(device.memory_free_bytes))
    }
}

/// A share of so many GiB.
pub(super) fn gib(size: u64) -> Share {
    Share::Part { slots: None, memory_bytes: Some(size << 30) }
}
