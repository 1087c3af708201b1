//! Random lives against a naive model: requests, renewals, losses, stalls, crashes and restarts in any order.
//!
//! After every step the core's own invariants hold (checked by the world), and this model, which shares no code with
//! the core, agrees: nobody is granted what another holds or may still use, tokens grow, no lease ends before its
//! TTL without a cause, every request is answered exactly once, equal requests are served in order of arrival, and
//! nobody waits for what is free. Failures shrink, and are kept in `properties.proptest-regressions`.

mod life;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use gpulease_core::{
    event::Event,
    id::{Caller, DeviceId, Holder, LeaseId, Name, Ticket, Token},
    input::Input,
    lease::{EndReason, State as LeaseState},
    output::{Answer, Effect},
    policy::Policy,
    request::{Ask, Constraints, Preemptible, Request, RequestFields, Share},
    time::{Span, Time},
};
use life::{Op, Wish, free::nobody_waits_for_what_is_free, op};
use proptest::prelude::*;
use world::World;

/// What the model believes of one lease.
struct Believed {
    share: Share,
    devices: Vec<DeviceId>,
    token: Token,
    /// It may not expire before this time.
    safe_until: Time,
    held: bool,
}

struct Life {
    world: World,
    requests: Vec<(Caller, Request)>,
    leases: BTreeMap<LeaseId, Believed>,
    /// Tickets that are still owed an answer, and to whom.
    owed: BTreeMap<Ticket, Caller>,
    sessions: BTreeMap<Holder, Caller>,
    newest: Token,
    boots: u64,
    /// The inputs of the batch that is being collected.
    batch: Option<Vec<Input>>,
    /// Tickets whose caller left in the batch that answers them.
    gone: BTreeSet<Ticket>,
    /// When what is taken in happened.
    at: Time,
}

const NODES: [(&str, u32); 3] = [("n1", 2), ("n2", 3), ("n3", 1)];

impl Life {
    fn new() -> Self {
        let mut world = World::new(Policy::default());
        for (name, count) in NODES {
            let devices =
                (0..count).map(|index| world::device(name, index, 24 << 30, 4, "SIM")).collect();
            world.nodes.insert(name.to_owned(), world::node(name, devices));
            world.observe(name);
            world.sample(name);
        }
        Self {
            world,
            requests: Vec::new(),
            leases: BTreeMap::new(),
            owed: BTreeMap::new(),
            sessions: BTreeMap::new(),
            newest: Token(0),
            boots: 1,
            batch: None,
            gone: BTreeSet::new(),
            at: Time::ZERO,
        }
    }

    fn feed(&mut self, input: Input) {
        if let Some(batch) = &mut self.batch {
            return batch.push(input);
        }
        let (events, effects) = self.world.feed(input);
        self.believe(&events, &effects);
    }

    fn batch(&mut self, ops: &[Op]) {
        self.batch = Some(Vec::new());
        for op in ops {
            self.act(op);
        }
        let inputs = self.batch.take().expect("set above");
        self.batch = Some(Vec::new());
        let (events, effects) = self.world.feed_all(inputs);
        self.believe(&events, &effects);
        (self.batch, self.gone) = (None, BTreeSet::new());
    }

    fn act(&mut self, op: &Op) {
        match op {
            Op::Acquire(wish) => self.acquire(wish),
            Op::Repeat(pick) => {
                if let Some((caller, request)) = pick_of(&self.requests, *pick).cloned() {
                    self.ask(caller, request);
                }
            }
            Op::Renew(pick) => self.hold(*pick, |caller, ticket, lease, token| Input::Renew {
                caller,
                ticket,
                lease,
                token,
                holder: None,
            }),
            Op::Release(pick) => self.hold(*pick, |caller, ticket, lease, token| Input::Release {
                caller,
                ticket,
                lease,
                token: Some(token),
                holder: None,
            }),
            Op::ReleaseStale(pick) => self.hold(*pick, |caller, ticket, lease, token| {
                let token = Some(Token(token.0.wrapping_sub(1)));
                Input::Release { caller, ticket, lease, token, holder: None }
            }),
            Op::Revoke(pick) => {
                self.hold(*pick, |_, ticket, lease, _| Input::Revoke {
                    ticket,
                    lease,
                    detail: Arc::from("test"),
                });
            }
            Op::Gone(pick) => {
                if let Some((caller, _)) = pick_of(&self.requests, *pick).cloned() {
                    self.gone(caller);
                }
            }
            Op::Session(holder) => {
                self.session(&Holder {
                    service: "s0".into(),
                    name: Name::new(&format!("h{holder}")),
                });
            }
            Op::Pass(millis) => self.pass(Span::from_millis(*millis)),
            Op::Stall(millis) => self.stall(Span::from_millis(*millis)),
            Op::Restart => self.restart(),
            Op::Batch(ops) => self.batch(ops),
            Op::Snapshot => self.world.take_snapshot(),
            _ => self.change_devices(op),
        }
    }

    fn change_devices(&mut self, op: &Op) {
        let place = |device: u8| match device {
            0 | 1 => ("n1", device),
            2..=4 => ("n2", device - 2),
            _ => ("n3", 0),
        };
        let node = match op {
            Op::Lose(device) | Op::Find(device) | Op::Foreign(device, _) | Op::Slots(device, _) => {
                place(*device).0
            }
            Op::Reboot(node) | Op::Silent(node) | Op::Heard(node) => NODES[usize::from(*node)].0,
            _ => return,
        };
        let boots = self.boots + 1;
        let model = self.world.nodes.get_mut(node).expect("the nodes are fixed");
        match op {
            Op::Lose(device) => {
                model.devices[usize::from(place(*device).1)].lost = Some("gone".into())
            }
            Op::Find(device) => model.devices[usize::from(place(*device).1)].lost = None,
            Op::Foreign(device, bytes) => {
                model.devices[usize::from(place(*device).1)].foreign_bytes = *bytes
            }
            Op::Slots(device, slots) => {
                Arc::make_mut(&mut model.devices[usize::from(place(*device).1)].facts).slots =
                    *slots;
            }
            Op::Reboot(_) => {
                self.boots = boots;
                Arc::make_mut(&mut model.facts).boot_id = Name::new(&format!("boot-{boots}"));
            }
            Op::Silent(_) => model.silent = true,
            _ => model.silent = false,
        }
        if !model.silent {
            let (events, effects) = self.world.observe(node);
            self.believe(&events, &effects);
            let (events, effects) = self.world.sample(node);
            self.believe(&events, &effects);
        }
    }

    fn acquire(&mut self, wish: &Wish) {
        let holder = Holder {
            service: Name::new(&format!("s{}", wish.service)),
            name: Name::new(&format!("h{}", wish.holder)),
        };
        let number = self.world.number();
        let fields = RequestFields {
            holder: holder.clone(),
            request_id: Name::new(&format!("r{number}")),
            name: wish.named.then(|| "name".into()),
            ask: Ask { devices: wish.devices, share: wish.share },
            constraints: Constraints {
                same_node: wish.same_node,
                host_cpu_millis: wish.cpu,
                ..Constraints::default()
            },
            priority: wish.priority,
            ttl: Span::from_secs(wish.ttl),
            wait: Span::from_secs(wish.wait),
            expected_duration: wish.expected.map(Span::from_secs),
            lifetime_max: None,
            preemptible: Preemptible::Never,
            minimum_hold: Span::ZERO,
            process: None,
        };
        let caller = match self.sessions.get(&holder).filter(|_| wish.session) {
            Some(session) => *session,
            None => Caller::Call(number),
        };
        self.ask(caller, fields.validate().expect("wishes are within bounds"));
    }

    fn ask(&mut self, caller: Caller, request: Request) {
        let ticket = Ticket(self.world.number());
        self.owed.insert(ticket, caller);
        self.requests.push((caller, request.clone()));
        self.feed(Input::Acquire { caller, ticket, request: Arc::new(request) });
    }

    fn hold(&mut self, pick: usize, make: impl FnOnce(Caller, Ticket, LeaseId, Token) -> Input) {
        let keys: Vec<LeaseId> = self.world.scheduler.state().leases().keys().copied().collect();
        let Some(lease) = pick_of(&keys, pick).copied() else { return };
        let token = self.world.scheduler.state().lease(lease).map_or(Token(0), |lease| lease.token);
        let (caller, ticket) = (Caller::Call(self.world.number()), Ticket(self.world.number()));
        self.owed.insert(ticket, caller);
        self.feed(make(caller, ticket, lease, token));
        let answered = self.batch.is_some() || !self.owed.contains_key(&ticket);
        assert!(answered, "a call on a lease is answered at once");
    }

    fn gone(&mut self, caller: Caller) {
        self.sessions.retain(|_, session| *session != caller);
        self.owe_no_more(caller);
        self.feed(Input::CallerGone { caller });
    }

    fn owe_no_more(&mut self, caller: Caller) {
        self.gone.extend(self.owed.iter().filter(|(_, owed)| **owed == caller).map(|(id, _)| *id));
        self.owed.retain(|_, owed| *owed != caller);
        if self.batch.is_none() {
            self.gone.clear();
        }
    }

    fn session(&mut self, holder: &Holder) {
        let caller = Caller::Session(self.world.number());
        let ticket = Ticket(self.world.number());
        self.owed.insert(ticket, caller);
        if let Some(older) = self.sessions.insert(holder.clone(), caller) {
            self.owe_no_more(older);
        }
        self.feed(Input::SessionOpened { caller, ticket, holder: holder.clone() });
    }

    fn pass(&mut self, span: Span) {
        for (at, events, effects) in self.world.pass(span) {
            self.believe_at(at, &events, &effects);
        }
        nobody_waits_for_what_is_free(&self.world.scheduler);
    }

    fn stall(&mut self, span: Span) {
        let live = self.world.scheduler.state().tally().live() > 0;
        self.world.now = self.world.now.after(span);
        if live && span > Span::from_secs(1) {
            for lease in self.leases.values_mut() {
                lease.safe_until = lease.safe_until.after(span);
            }
        }
        self.feed(Input::Tick);
    }

    fn restart(&mut self) {
        self.world.restart(Span::ZERO);
        self.sessions.clear();
        self.owed.clear();
        // The clock may have gone back to the last batch; every lease has its full TTL from there.
        for (id, lease) in &mut self.leases {
            let ttl = self
                .world
                .scheduler
                .state()
                .lease(*id)
                .map_or(Span::ZERO, |lease| lease.request.ttl);
            lease.safe_until = self.world.now.after(ttl);
        }
        for (name, _) in NODES {
            if !self.world.nodes[name].silent {
                let (events, effects) = self.world.observe(name);
                self.believe(&events, &effects);
                let (events, effects) = self.world.sample(name);
                self.believe(&events, &effects);
            }
        }
    }

    /// Takes in what was just decided and said.
    fn believe(&mut self, events: &[Event], effects: &[Effect]) {
        self.believe_at(self.world.now, events, effects);
        nobody_waits_for_what_is_free(&self.world.scheduler);
    }

    fn believe_at(&mut self, at: Time, events: &[Event], effects: &[Effect]) {
        self.at = at;
        for event in events {
            match event {
                Event::Granted { lease, token, devices, .. } => {
                    self.believe_grant(*lease, *token, devices)
                }
                Event::Reclaiming { lease, reason, .. } => {
                    let believed =
                        self.leases.get_mut(lease).expect("only what was granted is reclaimed");
                    if *reason == EndReason::Expired {
                        assert!(
                            self.world.now >= believed.safe_until,
                            "lease {lease} expired before its TTL"
                        );
                    }
                }
                Event::Opened { device, lease, .. } => {
                    let believed =
                        self.leases.get_mut(lease).expect("only what was granted is opened");
                    believed.devices.retain(|held| held != device);
                }
                Event::Ended { lease, .. } => {
                    if let Some(believed) = self.leases.get_mut(lease) {
                        believed.held = false;
                    }
                }
                _ => {}
            }
        }
        for effect in effects {
            if let Effect::Reply { ticket, reply } = effect {
                self.heard(*ticket, reply.as_ref().ok());
            }
        }
    }

    fn believe_grant(&mut self, id: LeaseId, token: Token, devices: &[DeviceId]) {
        assert!(token > self.newest, "token {token} after {}", self.newest);
        self.newest = token;
        let request = self.world.scheduler.state().lease(id).expect("just granted").request.clone();
        let share = request.ask.share;
        for device in devices {
            let others = || {
                self.leases.values().filter(|other| other.held && other.devices.contains(device))
            };
            match share {
                Share::Exclusive => assert_eq!(
                    others().count(),
                    0,
                    "lease {id} gets {device:?} whole, held by others"
                ),
                Share::Part { .. } => {
                    assert!(
                        others().all(|other| other.share != Share::Exclusive),
                        "{device:?} is held whole"
                    );
                    let slots: u64 = others().map(|other| u64::from(other.share.slots())).sum();
                    let bytes: u64 = others().map(|other| other.share.memory_bytes()).sum();
                    let facts = &self
                        .world
                        .scheduler
                        .state()
                        .inventory()
                        .device(*device)
                        .expect("granted")
                        .facts;
                    assert!(
                        share.slots() == 0
                            || slots + u64::from(share.slots()) <= u64::from(facts.slots)
                    );
                    assert!(
                        share.memory_bytes() == 0
                            || bytes + share.memory_bytes() <= facts.memory_total_bytes
                    );
                }
            }
        }
        self.served_in_order(id, &request);
        let safe_until = self.at.after(request.ttl);
        self.leases.insert(
            id,
            Believed { share, devices: devices.to_vec(), token, safe_until, held: true },
        );
    }

    /// Of two present waiters of one priority that ask for the same, the earlier goes first.
    fn served_in_order(&self, id: LeaseId, request: &Request) {
        let same = |other: &&gpulease_core::lease::Lease| {
            other.id < id
                && other.state == LeaseState::Queued
                && other.request.priority == request.priority
                && other.request.ask == request.ask
                && other.request.constraints == request.constraints
        };
        if self.batch.is_some() {
            // The earlier one may have come back only after the grant.
            return;
        }
        let state = self.world.scheduler.state();
        if let Some(earlier) = state.leases().values().find(same) {
            assert!(
                !self.world.scheduler.is_present(earlier.id),
                "lease {id} was served before {}",
                earlier.id
            );
        }
    }

    fn heard(&mut self, ticket: Ticket, answer: Option<&Answer>) {
        if let Some(Answer::Renewed { lease, token, remaining, .. }) = answer {
            let believed = self.leases.get_mut(lease).expect("only what was granted is renewed");
            assert_eq!(believed.token, *token);
            believed.safe_until = self.at.after(*remaining);
        }
        if matches!(answer, Some(Answer::Queued(_))) {
            return;
        }
        assert!(
            self.owed.remove(&ticket).is_some() || self.gone.remove(&ticket),
            "ticket {ticket} was answered and is owed nothing"
        );
    }
}

fn pick_of<T>(list: &[T], pick: usize) -> Option<&T> {
    if list.is_empty() { None } else { list.get(pick % list.len()) }
}

/// A few hundred lives, or as many as `PROPERTY_CASES` says.
#[allow(clippy::disallowed_methods, reason = "the test reads the environment, not the core")]
fn cases() -> u32 {
    std::env::var("PROPERTY_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(400)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_scheduler_agrees_with_a_naive_model_through_crashes_and_restarts(ops in prop::collection::vec(op(), 1..80)) {
        let mut life = Life::new();
        for op in &ops {
            life.act(op);
        }
        // In the end everything can be given back, and nothing is left behind.
        life.restart();
        for (name, _) in NODES {
            let model = life.world.nodes.get_mut(name).unwrap();
            model.silent = false;
            for device in &mut model.devices {
                (device.lost, device.foreign_bytes) = (None, 0);
            }
            life.world.observe(name);
        }
        life.pass(Span::from_minutes(60));
        assert!(life.owed.is_empty(), "somebody waits for an answer that never came: {:?}", life.owed);
        let tally = *life.world.scheduler.state().tally();
        assert_eq!(tally.live(), 0, "leases live on that nobody renews: {tally:?}");
        for (_, device) in life.world.scheduler.devices(None, usize::MAX, None) {
            assert!(device.device.idle() && device.device.kept_for.is_none());
        }
    }
}
