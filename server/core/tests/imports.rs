//! Random lives in which the journal loses its newest batches and is imported (P2).
//!
//! The model knows what the journal lost: the leases that were granted or still held there. It checks that nobody is
//! granted a device that such a lease may still use, that every token is above every one that was ever given, and that
//! in the end every device is granted again.

#![allow(clippy::unwrap_used, reason = "a test stops where it is surprised")]

mod world;

use std::{collections::BTreeMap, sync::Arc};

use gpulease_core::{
    event::Event,
    id::{Caller, DeviceId, Holder, LeaseId, Name, Ticket, Token},
    input::Input,
    policy::Policy,
    request::{Ask, Constraints, Preemptible, Priority, Request, RequestFields, Share},
    time::{Span, Time},
};
use proptest::prelude::*;
use world::World;

/// The longest TTL of these lives, in seconds: what the import of one is told to be the longest found.
const TTL_MAX_SECONDS: u64 = 40;

#[derive(Clone, Debug)]
enum Op {
    Acquire { devices: u32, ttl_seconds: u64 },
    Renew(usize),
    Release(usize),
    Pass(u64),
    Restart,
    Reboot(bool),
    Import { lost: usize },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (1u32..3, 2..=TTL_MAX_SECONDS)
            .prop_map(|(devices, ttl_seconds)| Op::Acquire { devices, ttl_seconds }),
        3 => any::<usize>().prop_map(Op::Renew),
        2 => any::<usize>().prop_map(Op::Release),
        4 => (100u64..30_000).prop_map(Op::Pass),
        1 => Just(Op::Restart),
        1 => any::<bool>().prop_map(Op::Reboot),
        2 => (0usize..12).prop_map(|lost| Op::Import { lost }),
    ]
}

/// A lease as its holder sees it.
#[derive(Clone, Debug)]
struct Held {
    token: Token,
    ttl: Span,
    devices: Vec<DeviceId>,
    /// Until then the holder may use its devices.
    until: Time,
}

struct Life {
    world: World,
    held: BTreeMap<LeaseId, Held>,
    /// Leases that the journal does not know any more.
    lost: Vec<Held>,
    newest: Token,
    boots: u64,
}

impl Life {
    fn new() -> Self {
        let mut world = World::new(Policy::default());
        for name in ["n1", "n2"] {
            let devices = (0..2).map(|it| world::device(name, it, 24 << 30, 4, "SIM")).collect();
            world.nodes.insert(name.to_owned(), world::node(name, devices));
        }
        let mut life =
            Self { world, held: BTreeMap::new(), lost: Vec::new(), newest: Token(0), boots: 1 };
        life.reports();
        life
    }

    fn act(&mut self, op: &Op) {
        match op {
            Op::Acquire { devices, ttl_seconds } => {
                let caller = Caller::Call(self.world.number());
                let request = self.request(*devices, Span::from_secs(*ttl_seconds));
                let (_, events, _) = self.world.acquire(caller, request);
                self.seen(self.world.now, &events);
            }
            Op::Renew(pick) => self.renew(*pick),
            Op::Release(pick) => self.release(*pick),
            Op::Pass(millis) => self.pass(Span::from_millis(*millis)),
            Op::Restart => {
                self.world.restart(Span::ZERO);
                for held in self.held.values_mut() {
                    held.until = self.world.now.after(held.ttl);
                }
                self.reports();
            }
            Op::Reboot(second) => self.reboot(if *second { "n2" } else { "n1" }),
            Op::Import { lost } => self.import(*lost),
        }
    }

    fn request(&mut self, devices: u32, ttl: Span) -> Request {
        let request = RequestFields {
            holder: Holder { service: "s".into(), name: "h".into() },
            request_id: Name::new(&format!("r{}", self.world.number())),
            name: None,
            ask: Ask { devices, share: Share::Exclusive },
            constraints: Constraints::default(),
            priority: Priority::Normal,
            ttl,
            wait: Span::ZERO,
            expected_duration: None,
            lifetime_max: None,
            preemptible: Preemptible::Never,
            minimum_hold: Span::ZERO,
            process: None,
            placement: None,
            pause_cost: None,
        };
        request.validate().unwrap()
    }

    fn renew(&mut self, pick: usize) {
        let index = pick % self.held.len().max(1);
        let Some((id, held)) = self.held.iter_mut().nth(index) else { return };
        let (caller, ticket) = (Caller::Call(0), Ticket(self.world.number()));
        let (lease, token) = (*id, held.token);
        self.world.feed(Input::Renew { caller, ticket, lease, token, holder: None });
        held.until = self.world.now.after(held.ttl);
    }

    fn release(&mut self, pick: usize) {
        let Some(id) = self.held.keys().nth(pick % self.held.len().max(1)).copied() else { return };
        let (caller, ticket, token) =
            (Caller::Call(0), Ticket(self.world.number()), Some(self.held[&id].token));
        let input = Input::Release { caller, ticket, lease: id, token, holder: None };
        let (events, _) = self.world.feed(input);
        self.seen(self.world.now, &events);
        self.held.remove(&id);
    }

    fn pass(&mut self, span: Span) {
        for (at, events, _) in self.world.pass(span) {
            self.seen(at, &events);
        }
    }

    fn reboot(&mut self, node: &str) {
        self.boots += 1;
        let facts = Arc::make_mut(&mut self.world.nodes.get_mut(node).unwrap().facts);
        facts.boot_id = Name::new(&format!("boot-{}", self.boots));
        // No process lives through it; the holders' other devices are as good as given back.
        let inventory = self.world.scheduler.state().inventory();
        let of_node = inventory.node_named(node).map(|id| inventory.node(id).unwrap());
        let devices = of_node.map(|node| node.devices.clone()).unwrap_or_default();
        self.lost.iter_mut().for_each(|held| held.devices.retain(|it| !devices.contains(it)));
        self.held.retain(|_, held| !held.devices.iter().any(|it| devices.contains(it)));
        self.reports();
    }

    /// The journal loses batches; whoever held a device before may still use it for as long as its TTL says.
    fn import(&mut self, lost: usize) {
        let before: Vec<Held> = self.held.values().cloned().collect();
        let at = self.world.now;
        self.world.import(lost, Span::from_secs(TTL_MAX_SECONDS + 15));
        let now = self.world.now;
        // Coordinator time goes back with the journal; what is left of a TTL does not.
        self.lost.extend(before);
        for held in &mut self.lost {
            held.until = now.after(held.until.since(at));
        }
        self.held.clear();
        let live = self.world.scheduler.leases(LeaseId(0), usize::MAX, |it| it.state.live());
        for view in live.leases.iter().filter(|view| !view.devices.is_empty()) {
            let devices: Vec<DeviceId> = view.devices.iter().map(|it| it.id).collect();
            let (token, ttl) = (view.token, view.request.ttl);
            // It is one of those that were held, or one that ended in a lost batch: as before the loss, it lives.
            self.lost.retain(|held| held.token != token);
            self.held.insert(view.id, Held { token, ttl, devices, until: now.after(ttl) });
        }
        self.reports();
    }

    fn reports(&mut self) {
        for name in ["n1", "n2"] {
            let (events, _) = self.world.observe(name);
            self.seen(self.world.now, &events);
            self.world.sample(name);
        }
    }

    fn seen(&mut self, at: Time, events: &[Event]) {
        for event in events {
            match event {
                Event::Granted { lease, token, devices, .. } => {
                    self.granted(at, *lease, *token, devices);
                }
                Event::Reclaiming { lease, .. } | Event::Ended { lease, .. } => {
                    self.held.remove(lease);
                }
                _ => {}
            }
        }
    }

    fn granted(&mut self, at: Time, lease: LeaseId, token: Token, devices: &[DeviceId]) {
        assert!(token > self.newest, "token {token} after {}", self.newest);
        self.newest = token;
        for other in self.lost.iter().filter(|other| other.until > at).chain(self.held.values()) {
            let shared = devices.iter().any(|device| other.devices.contains(device));
            assert!(!shared, "at {at}, lease {lease} is granted {devices:?}, held by {other:?}");
        }
        let ttl = self.world.scheduler.state().lease(lease).unwrap().request.ttl;
        let devices = devices.to_vec();
        self.held.insert(lease, Held { token, ttl, devices, until: at.after(ttl) });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nobody_is_granted_what_a_lease_may_still_use_that_the_imported_journal_lacks(
        ops in prop::collection::vec(op(), 1..60)
    ) {
        let mut life = Life::new();
        for op in &ops {
            life.act(op);
        }
        life.pass(Span::from_secs(2 * (TTL_MAX_SECONDS + 15)));
        let caller = Caller::Call(life.world.number());
        let all = life.request(4, Span::from_secs(2));
        let (_, events, _) = life.world.acquire(caller, all);
        life.seen(life.world.now, &events);
        assert_eq!(life.held.len(), 1, "in the end every device is free: {events:?}");
    }
}
