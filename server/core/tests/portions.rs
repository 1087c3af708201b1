//! What is too much for one batch goes on in the next, also across a crash, and ends as it would have in one.

mod world;

use std::{collections::BTreeSet, sync::Arc};

use gpulease_core::{
    event::Event,
    id::{Caller, Holder, LeaseId, Ticket},
    input::{Input, TargetName},
    lease::State,
    output::Output,
    policy::Policy,
    request::{Ask, Constraints, Preemptible, Priority, Request, RequestFields, Share},
    time::Span,
};
use world::World;

/// A batch takes this many events, and some more of the step that fills it.
const PORTION: usize = 8;
const LEASES: usize = 100;

fn request(id: usize, preemptible: Preemptible) -> Request {
    request_on("n", id, preemptible)
}

fn request_on(node: &str, id: usize, preemptible: Preemptible) -> Request {
    let node_allow = vec![node.into()];
    let fields = RequestFields {
        holder: Holder { service: "service".into(), name: "holder".into() },
        request_id: id.to_string().as_str().into(),
        name: None,
        ask: Ask { devices: 1, share: Share::Part { slots: Some(1), memory_bytes: None } },
        constraints: Constraints { node_allow, ..Constraints::default() },
        priority: Priority::Normal,
        ttl: Span::from_minutes(60),
        wait: Span::from_minutes(60),
        expected_duration: None,
        lifetime_max: None,
        preemptible,
        minimum_hold: Span::ZERO,
        process: None,
        placement: None,
        pause_cost: None,
    };
    fields.validate().expect("a valid request")
}

/// A node with one device, and so many leases on it.
fn world(leases: usize, preemptible: Preemptible) -> World {
    let mut world = World::new(Policy { batch_events_max: PORTION, ..Policy::default() });
    let devices = vec![world::device("n", 0, 24 << 30, u32::try_from(LEASES).expect("few"), "SIM")];
    world.nodes.insert("n".to_owned(), world::node("n", devices));
    world.observe("n");
    world.sample("n");
    for id in 0..leases {
        let caller = Caller::Call(world.number());
        world.acquire(caller, request(id, preemptible));
    }
    world
}

/// How many leases are in such a state.
fn count(world: &World, is: fn(State) -> bool) -> usize {
    world.scheduler.state().leases().values().filter(|lease| is(lease.state)).count()
}

/// Steps one input as the only one of its batch, and nothing else.
fn begin(world: &mut World, input: Input) {
    let mut out = Output::default();
    world.scheduler.begin(world.now);
    world.scheduler.step(input, &mut out);
    world.commit(&mut out, &mut (Vec::new(), Vec::new()));
}

/// Goes on to the end; every batch is small.
fn finish(world: &mut World) -> usize {
    let before = world.journal.len();
    while world.scheduler.has_rest() {
        world.portion(&mut (Vec::new(), Vec::new()));
    }
    let portions = &world.journal[before..];
    let largest = portions.iter().map(|batch| batch.events.len()).max().unwrap_or(0);
    // The last step before it is full ends a lease, opens what it closed, or grants a waiter.
    assert!(largest <= PORTION + 4, "a batch has {largest} events");
    portions.len()
}

fn lost(world: &mut World) -> Input {
    let node = world.nodes.get_mut("n").expect("it is there");
    node.devices[0].lost = Some("fell off the bus".into());
    let report = gpulease_core::input::DeviceReport {
        facts: Arc::clone(&node.devices[0].facts),
        lost: node.devices[0].lost.clone(),
    };
    Input::Observed { node: Arc::clone(&node.facts), devices: vec![report] }
}

#[test]
fn the_leases_of_a_lost_device_end_in_portions() {
    let mut world = world(LEASES, Preemptible::Never);
    let input = lost(&mut world);
    begin(&mut world, input);
    let first = count(&world, |state| matches!(state, State::Reclaiming(_)));
    assert!((1..=PORTION).contains(&first), "{first} in the first batch");
    assert!(finish(&mut world) >= LEASES / PORTION - 1);
    assert_eq!(count(&world, |state| matches!(state, State::Reclaiming(_))), LEASES);
}

#[test]
fn after_a_crash_in_the_middle_the_leases_of_a_lost_device_end_all_the_same() {
    let mut world = world(LEASES, Preemptible::Pause);
    let input = lost(&mut world);
    begin(&mut world, input);
    assert!(count(&world, State::holds) > LEASES / 2);
    world.restart(Span::ZERO);
    finish(&mut world);
    assert_eq!(count(&world, |state| state == State::Paused), LEASES);
}

#[test]
fn a_device_that_is_back_before_all_were_ended_is_lost_once_by_each_of_its_leases() {
    let mut world = world(2 * PORTION, Preemptible::Pause);
    let holder = Holder { service: "service".into(), name: "holder".into() };
    let (caller, ticket) = (Caller::Session(world.number()), Ticket(world.number()));
    world.feed(Input::SessionOpened { caller, ticket, holder });
    let input = lost(&mut world);
    begin(&mut world, input);
    // Those that were paused are granted again at once, while others are still to be.
    world.nodes.get_mut("n").expect("it is there").devices[0].lost = None;
    world.observe("n");
    world.sample("n");
    world.pass(Policy::default().lock_delay);
    finish(&mut world);
    assert_eq!(count(&world, |state| state == State::Active), 2 * PORTION);
    let events = world.journal.iter().flat_map(|batch| &batch.events);
    let paused = events.filter(|event| matches!(event, Event::Paused { .. })).count();
    assert_eq!(paused, 2 * PORTION);
}

#[test]
fn waiters_that_all_fit_are_granted_in_portions_in_order_and_nobody_passes_them() {
    let mut world = world(0, Preemptible::Never);
    let cordon = |world: &mut World, drain: bool| {
        let (target, reason) = (TargetName::Node("n".into()), Arc::from("why"));
        let ticket = Ticket(world.number());
        world.feed(Input::Cordon { ticket, target, drain, reason })
    };
    cordon(&mut world, false);
    for id in 0..LEASES {
        let caller = Caller::Call(world.number());
        world.acquire(caller, request(id, Preemptible::Never));
    }
    assert_eq!(count(&world, |state| state == State::Queued), LEASES);
    let ticket = Ticket(world.number());
    begin(&mut world, Input::Uncordon { ticket, target: TargetName::Node("n".into()) });
    assert!(count(&world, State::holds) <= PORTION + 1);
    // Even in the same batch, who comes now stands behind them.
    let late = Arc::new(request(LEASES, Preemptible::Never));
    let (caller, ticket) = (Caller::Call(world.number()), Ticket(world.number()));
    begin(&mut world, Input::Acquire { caller, ticket, request: late });
    finish(&mut world);
    let granted =
        world.journal.iter().flat_map(|batch| &batch.events).filter_map(|event| match event {
            Event::Granted { lease, .. } => Some(*lease),
            _ => None,
        });
    let granted: Vec<LeaseId> = granted.collect();
    assert_eq!(granted.len(), LEASES, "the device has so many slots");
    assert!(granted.is_sorted(), "{granted:?}");
    assert_eq!(count(&world, |state| state == State::Queued), 1);
}

#[test]
fn drains_and_withdrawals_are_told_in_portions_and_a_new_drain_stands() {
    let mut world = world(LEASES, Preemptible::Pause);
    let target = TargetName::Node("n".into());
    let drain = |world: &mut World| {
        let (target, reason) = (TargetName::Node("n".into()), Arc::from("why"));
        Input::Cordon { ticket: Ticket(world.number()), target, drain: true, reason }
    };
    let input = drain(&mut world);
    begin(&mut world, input);
    assert!(count(&world, |state| state == State::Pausing) <= PORTION);
    finish(&mut world);
    assert_eq!(count(&world, |state| state == State::Pausing), LEASES);
    let ticket = Ticket(world.number());
    begin(&mut world, Input::Uncordon { ticket, target });
    let withdrawn = count(&world, |state| state == State::Active);
    assert!((1..=PORTION).contains(&withdrawn), "{withdrawn}");
    // Drained again before all notices were withdrawn: none is withdrawn any more.
    let input = drain(&mut world);
    begin(&mut world, input);
    finish(&mut world);
    assert_eq!(count(&world, |state| state == State::Pausing), LEASES);
}

#[test]
fn what_is_left_of_a_drain_keeps_nobody_from_another_node() {
    let mut world = world(LEASES, Preemptible::Pause);
    world
        .nodes
        .insert("m".to_owned(), world::node("m", vec![world::device("m", 0, 1 << 30, 2, "SIM")]));
    world.observe("m");
    world.sample("m");
    let ask = |world: &mut World, id: usize, node: &str| {
        let request = Arc::new(request_on(node, id, Preemptible::Never));
        let (caller, ticket) = (Caller::Call(world.number()), Ticket(world.number()));
        begin(world, Input::Acquire { caller, ticket, request });
        let lease = *world.scheduler.state().leases().keys().last().expect("it was asked for");
        assert!(world.scheduler.has_rest(), "the drain goes on");
        lease
    };
    let state = |world: &World, id| world.scheduler.state().lease(id).expect("it is known").state;
    let (target, reason) = (TargetName::Node("n".into()), Arc::from("why"));
    let ticket = Ticket(world.number());
    begin(&mut world, Input::Cordon { ticket, target, drain: true, reason });
    // Nobody waits that it could pass.
    let first = ask(&mut world, LEASES, "m");
    assert_eq!(state(&world, first), State::Active);
    // Behind one who waits it waits too, and not for longer than until the rest is done.
    ask(&mut world, LEASES + 1, "n");
    let last = ask(&mut world, LEASES + 2, "m");
    finish(&mut world);
    assert_eq!(state(&world, last), State::Active);
}

#[test]
fn after_a_crash_in_the_middle_of_a_drain_all_are_told_all_the_same() {
    let mut world = world(LEASES, Preemptible::End);
    let (target, reason) = (TargetName::Node("n".into()), Arc::from("why"));
    let ticket = Ticket(world.number());
    begin(&mut world, Input::Cordon { ticket, target, drain: true, reason });
    assert!(count(&world, |state| state == State::Pausing) <= PORTION);
    world.restart(Span::ZERO);
    finish(&mut world);
    assert_eq!(count(&world, |state| state == State::Pausing), LEASES);
}

#[test]
fn an_operator_opens_in_portions_what_many_leases_closed() {
    let mut world = world(LEASES, Preemptible::Never);
    let input = lost(&mut world);
    begin(&mut world, input);
    finish(&mut world);
    let (ticket, detail) = (Ticket(world.number()), Arc::from("safe"));
    begin(&mut world, Input::OpenDevice { ticket, uuid: "n/0".into(), detail });
    assert!(count(&world, State::live) > LEASES - PORTION);
    finish(&mut world);
    assert_eq!(count(&world, State::live), 0);
    let ids: BTreeSet<LeaseId> = world.scheduler.state().leases().keys().copied().collect();
    assert_eq!(ids.len(), LEASES);
}
