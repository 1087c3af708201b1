//! Random lives against a naive model: requests, renewals, notices and answers, cordons, losses, processes that come and
//! go, stalls, crashes and restarts in any order.
//!
//! After every step the core's own invariants hold (checked by the world), and this model, which shares no code with
//! the core, agrees: nobody is granted what another holds or may still use, tokens grow, no lease ends before its
//! TTL without a cause, no notice is given to whom it may not or over before its time, every request is answered exactly
//! once, equal requests are served in order of arrival, nobody waits for what is free, and whoever may preempt does.
//! Failures shrink, and are kept in `properties.proptest-regressions`.

mod life;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use gpulease_core::{
    event::Event,
    id::{Caller, Holder, LeaseId, Name, Ticket, Token},
    input::Input,
    lease::{Lease, State as LeaseState, Why},
    output::{Answer, Effect, Rejection},
    policy::{Owner, Policy, ServicePolicy, VictimRule},
    request::{Ask, Constraints, Request, RequestFields},
    time::{Span, Time},
};
use life::{
    Op, Wish,
    free::{self, nobody_waits_for_what_is_free},
    machine::{self, REAL},
    model::{Asked, Model, Stand},
    op,
    preempting::whoever_may_preempt_does,
};
use proptest::prelude::*;
use world::World;

struct Life {
    world: World,
    model: Model,
    requests: Vec<(Caller, Request)>,
    /// Tickets that are still owed an answer, and to whom.
    owed: BTreeMap<Ticket, Caller>,
    sessions: BTreeMap<Holder, Caller>,
    boots: u64,
    /// The inputs of the batch that is being collected.
    batch: Option<Vec<Input>>,
    /// What callers asked for in it.
    asked: Asked,
    /// Tickets whose caller left in the batch that answers them.
    gone: BTreeSet<Ticket>,
    /// Renewals with the token before the newest, and whether it may still serve.
    with_previous: BTreeMap<Ticket, (LeaseId, Option<bool>)>,
    /// Answers to notices, and extensions, with the newest token.
    with_newest: BTreeSet<Ticket>,
    /// The newest reading of the node with a driver shows what is there.
    fresh: bool,
    /// When what is taken in happened, on the scheduler's own time.
    at: Time,
}

/// The last one has a driver.
const NODES: [(&str, u32); 4] = [("n1", 2), ("n2", 3), ("n3", 1), (REAL, 2)];

fn place(device: u8) -> (&'static str, u8) {
    match device {
        0 | 1 => ("n1", device),
        2..=4 => ("n2", device - 2),
        5 => ("n3", 0),
        _ => (REAL, device - 6),
    }
}

/// What fits into a batch: all that happens here, or next to nothing.
fn batch_events_max() -> impl Strategy<Value = usize> {
    prop_oneof![Just(Policy::default().batch_events_max), 1_usize..6]
}

fn victims() -> impl Strategy<Value = VictimRule> {
    prop_oneof![Just(VictimRule::LeastLost), Just(VictimRule::Fewest), Just(VictimRule::Youngest)]
}

fn policy(batch_events_max: usize, victims: VictimRule) -> Policy {
    let owner = |service: &str, devices: &[&str], nodes: &[&str]| Owner {
        service: service.into(),
        devices: devices.iter().map(|uuid| Name::new(uuid)).collect(),
        models: Vec::new(),
        nodes: nodes.iter().map(|node| Name::new(node)).collect(),
    };
    let owners = vec![owner("s0", &[], &["n1"]), owner("s1", &["n2/0", "n4/0"], &[])];
    let settings =
        ServicePolicy { weight: 3, leases_max: Some(free::LEASES_MAX), ..ServicePolicy::default() };
    let services = [(Name::new(free::BOUNDED), settings)].into();
    Policy { owners, services, batch_events_max, victims, ..Policy::default() }
}

impl Life {
    fn new(policy: Policy) -> Self {
        let mut world = World::new(policy);
        for (name, count) in NODES {
            let mut devices: Vec<_> =
                (0..count).map(|index| world::device(name, index, 24 << 30, 4, "SIM")).collect();
            for device in &mut devices {
                Arc::make_mut(&mut device.facts).answers_at_once = name != REAL;
            }
            world.nodes.insert(name.to_owned(), world::node(name, devices));
            world.observe(name);
            world.sample(name);
        }
        Self {
            world,
            model: Model::default(),
            requests: Vec::new(),
            owed: BTreeMap::new(),
            sessions: BTreeMap::new(),
            boots: 1,
            batch: None,
            asked: Asked::default(),
            gone: BTreeSet::new(),
            with_previous: BTreeMap::new(),
            with_newest: BTreeSet::new(),
            fresh: true,
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
            Op::Renew(_) | Op::RenewPrevious(_) | Op::Release(_) | Op::ReleaseStale(_) => {
                self.hold(op)
            }
            Op::Acknowledge(..) | Op::Extend(..) | Op::Revoke(_) => self.hold(op),
            Op::Cordon(place, _) | Op::Uncordon(place) => {
                let drain = if let Op::Cordon(_, drain) = op { Some(*drain) } else { None };
                self.cordon(*place, drain);
            }
            Op::Gone(pick) => {
                if let Some((caller, _)) = pick_of(&self.requests, *pick).cloned() {
                    self.gone(caller);
                }
            }
            Op::Session(holder) => {
                self.session(&Holder {
                    service: Name::new(&format!("s{}", holder / 3)),
                    name: Name::new(&format!("h{}", holder % 3)),
                });
            }
            Op::Pass(millis) => self.pass(Span::from_millis(*millis)),
            Op::Stall(millis) => {
                self.world.now = self.world.now.after(Span::from_millis(*millis));
                self.feed(Input::Tick);
            }
            Op::Restart => self.restart(),
            Op::Batch(ops) => self.batch(ops),
            Op::Snapshot => self.world.take_snapshot(),
            _ => self.change_devices(op),
        }
    }

    fn change_devices(&mut self, op: &Op) {
        let node = match op {
            Op::Lose(device) | Op::Find(device) | Op::Foreign(device, _) | Op::Slots(device, _) => {
                place(*device).0
            }
            Op::Reboot(node) | Op::Silent(node) | Op::Heard(node) => NODES[usize::from(*node)].0,
            _ => REAL,
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
                model.alive.clear();
                model.devices.iter_mut().for_each(|device| device.processes.clear());
            }
            Op::Silent(_) => model.silent = true,
            Op::Heard(_) => model.silent = false,
            _ => machine::change(model, op),
        }
        let silent = model.silent;
        self.fresh &= node != REAL;
        if !silent {
            self.report(node);
        }
    }

    /// A node says what it is and what is in use.
    fn report(&mut self, node: &str) {
        let (events, effects) = self.world.observe(node);
        self.believe(&events, &effects);
        let full = node == REAL && !self.world.nodes[node].sums_only;
        // What the sample itself leads to is decided on it.
        self.fresh |= full;
        let (events, effects) = self.world.sample(node);
        self.believe(&events, &effects);
        if full {
            self.model.passed(&self.world);
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
            preemptible: wish.preemptible,
            minimum_hold: Span::from_secs(wish.hold),
            process: wish.pid.map(world::process),
            placement: None,
            pause_cost: None,
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
        if let Some(process) = request.process {
            self.world.nodes.get_mut(REAL).expect("it is fixed").alive.insert(process.pid);
        }
        self.feed(Input::Acquire { caller, ticket, request: Arc::new(request) });
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
        let node = &self.world.nodes[REAL];
        if !node.silent && !node.sums_only && span >= Span::from_secs(1) {
            self.fresh = true;
            self.model.passed(&self.world);
        }
        self.look_around();
    }

    fn restart(&mut self) {
        self.world.restart(Span::ZERO);
        self.sessions.clear();
        self.owed.clear();
        self.model.restarted(self.world.now);
        self.fresh = false;
        for (name, _) in NODES {
            if !self.world.nodes[name].silent {
                self.report(name);
            }
        }
    }

    /// Takes in what was just decided and said.
    fn believe(&mut self, events: &[Event], effects: &[Effect]) {
        self.believe_at(self.world.now, events, effects);
        self.asked = Asked::default();
        self.look_around();
    }

    fn look_around(&self) {
        let own = self.world.scheduler.own_time(self.world.now);
        free::quotas_are_kept(&self.world.scheduler);
        nobody_waits_for_what_is_free(&self.world.scheduler);
        whoever_may_preempt_does(&self.world.scheduler, &self.world.policy, own);
    }

    fn believe_at(&mut self, at: Time, events: &[Event], effects: &[Effect]) {
        self.at = self.world.scheduler.own_time(at);
        for event in events {
            let seen = (&self.world, &self.asked, self.fresh);
            self.model.take(self.at, event, seen);
            if let Event::Granted { lease, .. } = event {
                self.served_in_order(*lease);
            }
        }
        for effect in effects {
            if let Effect::Reply { ticket, reply } = effect {
                self.heard(*ticket, reply.as_ref());
            }
        }
    }

    /// Of two present new waiters of one service and priority that ask for the same, the earlier goes first.
    fn served_in_order(&self, id: LeaseId) {
        let state = self.world.scheduler.state();
        let granted = state.lease(id).expect("just granted");
        let request = &granted.request;
        let same = |other: &&Lease| {
            other.id < id
                && other.state == LeaseState::Queued
                && other.request.holder.service == request.holder.service
                && other.request.priority == request.priority
                && other.request.ask == request.ask
                && other.request.constraints == request.constraints
        };
        // Who is let in until another's turn may be so for being shorter. In a batch the earlier one may have come back
        // only after the grant.
        let guest = granted.basis.is_some_and(|basis| basis.why == Why::Backfilled);
        if guest || self.batch.is_some() || granted.previous_token > Token(0) {
            return;
        }
        if let Some(earlier) = state.leases().values().find(same) {
            assert!(
                !self.world.scheduler.is_present(earlier.id),
                "lease {id} was served before {}",
                earlier.id
            );
        }
    }

    fn heard(&mut self, ticket: Ticket, reply: Result<&Answer, &Rejection>) {
        match reply {
            Ok(Answer::Renewed { lease, token, remaining, .. }) => {
                let by_previous = self.with_previous.contains_key(&ticket);
                let safe_until = self.at.after(*remaining);
                let believed = self.model.believed(*lease);
                // A renewal that shows a paused lease's holder to be there may resume it right after its answer.
                let resumed = *token == believed.previous;
                assert!(self.batch.is_some() || *token == believed.token || resumed);
                believed.safe_until = safe_until;
                if !by_previous && *token == believed.token {
                    // An earlier input of its batch may have resumed the lease: then it was the token before.
                    believed.adopted = self.batch.is_none().then_some(true);
                }
            }
            Ok(Answer::Acknowledged(view) | Answer::NoticeExtended(view)) => {
                let believed = self.model.believed(view.id);
                if view.token == believed.token && self.with_newest.remove(&ticket) {
                    // As above.
                    believed.adopted = self.batch.is_none().then_some(true);
                }
            }
            _ => {}
        }
        if let Some((lease, adopted)) = self.with_previous.remove(&ticket)
            && self.batch.is_none()
        {
            let over = self.model.leases[&lease].stand == Stand::Over;
            match reply {
                Ok(_) => assert_ne!(adopted, Some(true), "a worthless token renewed {lease}"),
                Err(_) => assert!(over || adopted != Some(false), "{lease}: {reply:?}"),
            }
        }
        if matches!(reply, Ok(Answer::Queued(_))) {
            return;
        }
        assert!(
            self.owed.remove(&ticket).is_some() || self.gone.remove(&ticket),
            "ticket {ticket} was answered and is owed nothing"
        );
    }

    /// In the end everything can be given back, and nothing is left behind.
    fn end(&mut self) {
        self.restart();
        for (name, _) in NODES {
            let model = self.world.nodes.get_mut(name).expect("the nodes are fixed");
            (model.silent, model.sums_only) = (false, false);
            model.alive.clear();
            for device in &mut model.devices {
                (device.lost, device.foreign_bytes) = (None, 0);
                device.processes.clear();
                device.unattributed = false;
            }
            self.report(name);
        }
        self.pass(Span::from_minutes(60));
        assert!(self.owed.is_empty(), "somebody waits for an answer: {:?}", self.owed);
        let scheduler = &self.world.scheduler;
        let tally = *scheduler.state().tally();
        assert_eq!(tally.live(), 0, "leases live on that nobody renews: {tally:?}");
        for (_, device) in scheduler.devices(None, usize::MAX, None) {
            assert!(device.device.idle() && device.device.kept_for.is_none());
        }
        assert_eq!(scheduler.remembered(), 0, "something of leases is left: {scheduler:?}");
        assert_eq!(scheduler.reminders(), NODES.len(), "reminders are left");
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
    fn the_scheduler_agrees_with_a_naive_model_through_crashes_and_restarts(
        ops in prop::collection::vec(op(), 1..100),
        batch_events_max in batch_events_max(),
        victims in victims(),
    ) {
        let mut life = Life::new(policy(batch_events_max, victims));
        for op in &ops {
            life.act(op);
        }
        life.end();
    }
}
