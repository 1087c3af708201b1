//! The same random days twice, with backfill and without it: the first request that waits starts no later for those who
//! were let in on devices that are kept for it (P10).
//!
//! Whoever is in its way leaves as it said or earlier, or may be preempted; and whoever is asked to go answers at once.
//! Then it starts by the time that was forecast whenever somebody was let in; and where it wants every device, at the very
//! second at which it starts without backfill, unless somebody in its way left earlier than it said and somebody was let
//! in on the strength of a longest lifetime alone.

mod world;

use std::{cell::Cell, collections::BTreeMap};

use gpulease_core::{
    id::{Caller, Holder, LeaseId, Name, Ticket},
    input::Input,
    lease::{Lease, State},
    policy::Policy,
    request::{Ask, Constraints, Preemptible, Priority, Request, RequestFields, Share},
    time::{Span, Time},
};
use proptest::{prelude::*, test_runner::TestRunner};
use world::World;

const DEVICES: u32 = 3;
/// A day has so many seconds.
const DAY: u64 = 400;

/// Somebody who asks once, and leaves after so many seconds of holding.
#[derive(Clone, Debug)]
struct Visitor {
    at: u64,
    share: Share,
    devices: u32,
    expected: Option<u64>,
    life: Option<u64>,
    preemptible: Preemptible,
    /// It may not be asked before.
    hold: u64,
    stays: u64,
    urgent: bool,
}

impl Visitor {
    fn honest(&self) -> bool {
        self.expected.is_none_or(|expected| expected == self.stays)
    }
}

fn share() -> impl Strategy<Value = Share> {
    prop_oneof![
        3 => Just(Share::Exclusive),
        2 => (4u64..24).prop_map(|gib| Share::Part { slots: None, memory_bytes: Some(gib << 30) }),
        1 => (1u32..4).prop_map(|slots| Share::Part { slots: Some(slots), memory_bytes: None }),
    ]
}

/// Somebody who is there first, and says how long it stays, or mostly does.
fn blocker() -> impl Strategy<Value = Visitor> {
    let expected = prop::option::weighted(0.9, 20u64..250);
    let how = prop_oneof![2 => Just(Preemptible::Never), 1 => Just(Preemptible::Pause)];
    let (early, hold) = (0u64..60, prop_oneof![1 => Just(0u64), 2 => 1u64..120]);
    (share(), expected, early, prop::bool::weighted(0.5), (how, hold)).prop_map(
        |(share, expected, early, honest, (preemptible, hold))| {
            let early = if honest { 0 } else { early };
            let stays = expected.unwrap_or(100).saturating_sub(early);
            let (at, devices, life, urgent) = (0, 1, None, false);
            Visitor { at, share, devices, expected, life, preemptible, hold, stays, urgent }
        },
    )
}

/// Somebody who comes later, and stays for as long as it likes.
fn guest() -> impl Strategy<Value = Visitor> {
    let how = prop_oneof![
        3 => Just(Preemptible::Pause),
        1 => Just(Preemptible::End),
        1 => Just(Preemptible::Never)
    ];
    let devices = prop_oneof![4 => Just(1u32), 1 => Just(2)];
    let expected = prop::option::weighted(0.8, 1u64..100);
    let life = prop::option::weighted(0.2, 5u64..100);
    (1u64..200, share(), devices, expected, life, how, 1u64..150).prop_map(
        |(at, share, devices, expected, life, preemptible, stays)| Visitor {
            at,
            share,
            devices,
            expected,
            life,
            preemptible,
            hold: 0,
            stays,
            urgent: false,
        },
    )
}

fn request(id: &str, visitor: &Visitor) -> Request {
    let fields = RequestFields {
        holder: Holder { service: "service".into(), name: Name::new(id) },
        request_id: Name::new(id),
        name: None,
        ask: Ask { devices: visitor.devices, share: visitor.share },
        constraints: Constraints::default(),
        priority: if visitor.urgent { Priority::Immediate } else { Priority::Normal },
        ttl: Span::from_minutes(60),
        // Who is there first does not wait, so that the first who waits is the one that the story is about.
        wait: if visitor.at == 0 && id != "head" { Span::ZERO } else { Span::from_minutes(60) },
        expected_duration: visitor.expected.map(Span::from_secs),
        lifetime_max: visitor.life.map(Span::from_secs),
        preemptible: visitor.preemptible,
        minimum_hold: Span::from_secs(visitor.hold),
        process: None,
        placement: None,
        pause_cost: None,
    };
    fields.validate().expect("a valid request")
}

/// What became of a day.
struct Told {
    /// When the first request started.
    start: Option<Time>,
    /// The earliest of the times forecast for it when somebody was let in.
    forecast: Time,
    /// How many were let in.
    guests: usize,
    /// Somebody was who has a longest lifetime: it may never be preempted, or end uncleanly.
    by_lifetime: bool,
}

struct Day {
    world: World,
    stays: BTreeMap<LeaseId, u64>,
    head: Option<LeaseId>,
    seen: BTreeMap<LeaseId, Time>,
    told: Told,
}

impl Day {
    fn new(backfill: bool) -> Self {
        let policy = Policy {
            backfill,
            notice: Span::from_secs(10),
            lock_delay: Span::from_secs(5),
            ..Policy::default()
        };
        let mut world = World::new(policy);
        let devices =
            (0..DEVICES).map(|index| world::device("n", index, 24 << 30, 4, "SIM")).collect();
        world.nodes.insert("n".to_owned(), world::node("n", devices));
        world.observe("n");
        world.sample("n");
        let told = Told { start: None, forecast: Time::NEVER, guests: 0, by_lifetime: false };
        Self { world, stays: BTreeMap::new(), head: None, seen: BTreeMap::new(), told }
    }

    fn comes(&mut self, id: &str, visitor: &Visitor) -> Option<LeaseId> {
        let caller = Caller::Call(self.world.number());
        let before = self.forecast();
        self.world.acquire(caller, request(id, visitor));
        let lease = self.world.scheduler.state().leases().keys().last().copied();
        if let Some(lease) = lease {
            self.stays.entry(lease).or_insert(visitor.stays);
        }
        self.look(before);
        lease
    }

    fn forecast(&self) -> Time {
        let waiting = self.head.and_then(|head| self.world.scheduler.explain(head)?.waiting);
        let forecast = waiting.and_then(|waiting| waiting.forecast);
        forecast.map_or(Time::NEVER, |forecast| self.world.now.after(forecast))
    }

    /// Who was let in since the last look, while the first request was forecast to start at `forecast`.
    fn look(&mut self, forecast: Time) {
        let Some(head) = self.head else { return };
        let state = self.world.scheduler.state();
        for lease in state.leases().values().filter(|lease| lease.state.holds()) {
            let granted = lease.granted_at.expect("it holds");
            if lease.id == head {
                self.told.start.get_or_insert(granted);
            }
            let new = self.seen.insert(lease.id, granted) != Some(granted);
            if new && lease.backfilled_for == Some(head) {
                self.told.guests += 1;
                self.told.by_lifetime |= lease.request.lifetime_max.is_some();
                self.told.forecast = self.told.forecast.min(forecast);
            }
        }
    }

    fn picked(&self, is: impl Fn(&Lease) -> bool) -> Option<Lease> {
        self.world.scheduler.state().leases().values().find(|lease| is(lease)).cloned()
    }

    /// Whoever has stayed leaves, and whoever is asked to go answers.
    fn goes(&mut self) {
        let now = self.world.now;
        loop {
            let over = |lease: &Lease| {
                let stays = Span::from_secs(*self.stays.get(&lease.id).unwrap_or(&DAY));
                lease.state.holds() && lease.granted_at.is_some_and(|at| at.after(stays) <= now)
            };
            let caller = Caller::Call(self.world.number());
            let ticket = Ticket(self.world.number());
            let input = if let Some(lease) = self.picked(over) {
                let (lease, token) = (lease.id, Some(lease.token));
                Input::Release { caller, ticket, lease, token, holder: None }
            } else if let Some(lease) = self.picked(|lease| lease.state == State::Pausing) {
                let notice = lease.notice.expect("it is PAUSING").id;
                let (lease, token) = (lease.id, lease.token);
                Input::Acknowledge { caller, ticket, lease, token, notice, holder: None }
            } else {
                return;
            };
            self.world.feed(input);
            let after = self.forecast();
            self.look(after);
        }
    }

    fn tell(mut self, blockers: &[Visitor], head: &Visitor, guests: &[Visitor]) -> Told {
        for (number, blocker) in blockers.iter().enumerate() {
            self.comes(&format!("b{number}"), blocker);
        }
        self.head = self.comes("head", head);
        for second in 1..DAY {
            let before = self.forecast();
            self.world.pass(Span::from_secs(1));
            self.look(before);
            self.goes();
            for (number, guest) in guests.iter().enumerate().filter(|(_, it)| it.at == second) {
                self.comes(&format!("g{number}"), guest);
            }
            self.goes();
        }
        self.told
    }
}

/// A hundred days, or as many as `PROPERTY_CASES` says.
#[allow(clippy::disallowed_methods, reason = "the test reads the environment, not the core")]
fn cases() -> u32 {
    std::env::var("PROPERTY_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(100)
}

/// The first request that waits, for so many devices.
fn head(devices: u32, share: Share, urgent: bool) -> Visitor {
    let (at, stays, preemptible, hold) = (0, DAY, Preemptible::Never, 0);
    Visitor { at, share, devices, expected: None, life: None, preemptible, hold, stays, urgent }
}

#[test]
fn nobody_who_is_let_in_delays_the_first_request() {
    let config = ProptestConfig { cases: cases(), ..ProptestConfig::default() };
    let days = (
        prop::collection::vec(blocker(), 1..5),
        prop_oneof![1 => Just(1u32), 2 => Just(2), 3 => Just(DEVICES)],
        (share(), prop::bool::weighted(0.3)),
        prop::collection::vec(guest(), 1..12),
    );
    let guests = Cell::new(0);
    let outcome =
        TestRunner::new(config).run(&days, |(blockers, devices, (share, urgent), visitors)| {
            let head = head(devices, share, urgent);
            let with = Day::new(true).tell(&blockers, &head, &visitors);
            let without = Day::new(false).tell(&blockers, &head, &visitors);
            guests.set(guests.get() + with.guests);
            prop_assert_eq!(without.guests, 0);
            let start = with.start.unwrap_or(Time::NEVER);
            let late = start > with.forecast && with.guests > 0;
            prop_assert!(!late, "it starts at {start}, {} was forecast", with.forecast);
            let honest = blockers.iter().all(Visitor::honest);
            if devices == DEVICES && (honest || !with.by_lifetime) {
                prop_assert_eq!(with.start, without.start);
            }
            Ok(())
        });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(guests.get() > cases() as usize / 2, "only {} were let in", guests.get());
}
