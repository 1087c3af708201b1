//! What a plan and an explanation cost the actor's thread, on as many devices as a published cluster has.

#![allow(
    clippy::cast_possible_truncation,
    clippy::disallowed_types,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that measures: its numbers are small, and it is for reading"
)]

mod world;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use gpulease_core::{
    id::{Caller, Holder, Ticket},
    input::Input,
    plan::{PipelineFields, PlanFields, Planned, Reservation, StepFields},
    policy::Policy,
    request::{AffinityScope, Ask, Constraints, Preemptible, Priority, Share, TTL_DEFAULT},
    time::Span,
};
use world::World;

/// Nobody's renewal waits longer than the heartbeat.
const HEARTBEAT: Duration = Duration::from_millis(250);

/// 1,213 nodes with 6,212 devices, of two models.
fn cluster() -> World {
    let mut world = World::new(Policy::default());
    for node in 0..1_213u32 {
        let name = format!("n{node:04}");
        let devices = if node < 1_213 - 73 { 5 } else { 7 };
        let extra = u32::from(node == 0);
        let model = if node % 3 == 0 { "A" } else { "B" };
        let devices = (0..devices + extra).map(|it| world::device(&name, it, 32 << 30, 16, model));
        let node = world::node(&name, devices.collect());
        world.nodes.insert(name.clone(), node);
        world.observe(&name);
        world.sample(&name);
    }
    assert_eq!(world.scheduler.counts().devices, 6_212);
    world
}

fn pipeline(number: usize) -> PipelineFields {
    let (slots, gib) = (Some(1 + number as u32 % 3), 1 + number as u64 * 7 % 24);
    let share = Share::Part { slots, memory_bytes: Some(gib << 30) };
    let step = |name: &str, ask| StepFields {
        name: name.into(),
        input_memory_type: "torch".into(),
        output_memory_type: "numpy".into(),
        ask,
    };
    let mut steps: Vec<StepFields> = (0..9).map(|it| step(&format!("s{it}"), None)).collect();
    let devices = if number.is_multiple_of(10) { 2 } else { 1 };
    steps.push(step("large", Some(Ask { devices, share })));
    PipelineFields {
        name: format!("p{number}").as_str().into(),
        steps,
        scope: if devices == 2 { AffinityScope::Node } else { AffinityScope::Device },
        steps_overlap: number % 4 == 1,
        constraints: Constraints {
            models: if number.is_multiple_of(5) { vec!["A".into()] } else { Vec::new() },
            ..Constraints::default()
        },
    }
}

fn reservation() -> Reservation {
    Reservation {
        holder: Holder { service: "s".into(), name: "h".into() },
        request_id: "id".into(),
        affinity_key: None,
        priority: Priority::Normal,
        ttl: TTL_DEFAULT,
        expected_duration: None,
        preemptible: Preemptible::Never,
    }
}

/// When something began: by the clock, and by the time that this thread was at work, which others do not add to.
struct Began(Instant, Option<Duration>);

impl Began {
    fn now() -> Self {
        Self(Instant::now(), at_work())
    }

    fn elapsed(&self) -> Duration {
        let at_work = at_work().zip(self.1).map(|(now, then)| now.saturating_sub(then));
        at_work.unwrap_or_else(|| self.0.elapsed())
    }
}

/// What the kernel counted for this thread.
fn at_work() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

fn told(what: &str, since: Began) {
    let took = since.elapsed();
    println!("{what}: {took:?}");
    assert!(took < HEARTBEAT, "{what} took {took:?}");
}

fn plan(world: &World, what: &str, pipelines: Vec<PipelineFields>) -> Planned {
    let plan = PlanFields { pipelines, reserve: None }.validate().unwrap();
    let since = Began::now();
    let planned = world.scheduler.plan(&plan).unwrap();
    told(what, since);
    planned
}

/// Ten steps at the same time on one node, each with a device of its own or with others.
fn overlapping(number: usize) -> PipelineFields {
    let mut pipeline = pipeline(number);
    for (index, step) in pipeline.steps.iter_mut().enumerate() {
        let memory = (30 << 30) - index as u64;
        let share = Share::Part { slots: Some(1), memory_bytes: Some(memory) };
        step.ask = Some(Ask { devices: 1, share });
    }
    pipeline.scope = AffinityScope::Node;
    pipeline.steps_overlap = true;
    pipeline
}

#[test]
fn plans_of_pipelines_that_could_be_spread_hold_nobody_up_for_a_heartbeat() {
    let world = cluster();
    let all: Vec<PipelineFields> = (0..400).map(overlapping).collect();
    assert!(!plan(&world, "400 with many ways that fit nowhere", all.clone()).complete);
    let mut apart = all;
    for (number, pipeline) in apart.iter_mut().enumerate() {
        pipeline.constraints.node_deny = vec![format!("n{number:04}").as_str().into()];
    }
    assert!(!plan(&world, "the same, each with other constraints", apart).complete);
}

#[test]
fn pipelines_that_are_hard_to_place_leave_the_others_theirs() {
    let world = cluster();
    let mut all: Vec<PipelineFields> = (0..200).map(pipeline).collect();
    for (number, pipeline) in all.iter_mut().enumerate().take(10) {
        let deny = (0..60).map(|it| format!("n{it:04}-{number}").as_str().into());
        pipeline.constraints.node_deny = deny.collect();
        pipeline.constraints.node_labels = [("room".into(), "none".into())].into();
        let ask = Ask { devices: 1, share: Share::Exclusive };
        pipeline.steps.iter_mut().for_each(|step| step.ask = Some(ask));
        (pipeline.scope, pipeline.steps_overlap) = (AffinityScope::Device, false);
    }
    let planned = plan(&world, "200, ten of them with labels that no node has", all);
    let placed = planned.assignments.iter().filter(|it| !it.devices.is_empty()).count();
    assert_eq!(placed, 190);
}

#[test]
fn plans_and_explanations_hold_nobody_up_for_a_heartbeat() {
    let mut world = cluster();
    let pipelines: Vec<PipelineFields> = (0..1_000).map(pipeline).collect();
    assert!(plan(&world, "1,000 pipelines of 10 steps, all idle", pipelines.clone()).complete);

    // Each with other constraints, and most of them on few nodes: the dearest kind.
    let mut apart = pipelines.clone();
    for (number, pipeline) in apart.iter_mut().enumerate() {
        pipeline.constraints.node_deny = vec![format!("n{number:04}").as_str().into()];
        pipeline.constraints.models = vec!["none".into(), format!("m{number}").as_str().into()];
    }
    assert!(!plan(&world, "1,000 that fit nowhere, each otherwise", apart).complete);

    let reserved = PlanFields { pipelines: pipelines.clone(), reserve: Some(reservation()) };
    let plan_reserved = Arc::new(reserved.validate().unwrap());
    let since = Began::now();
    world.scheduler.begin(world.now);
    let mut out = Default::default();
    world.scheduler.step(Input::Reserve { ticket: Ticket(1), plan: plan_reserved }, &mut out);
    told("1,000 pipelines reserved", since);
    world.scheduler.finish(&mut out);
    assert!(world.scheduler.state().tally().active >= 1_000);
    let planned = plan(&world, "1,000 pipelines beside 1,000 leases", pipelines);
    assert!(planned.complete);

    // Everything is taken, and 1,000 wait.
    let request = |number: u64, wait| {
        let holder = Holder { service: "s".into(), name: "other".into() };
        let mut fields = world::request(&holder, &format!("r{number}"));
        fields.ask = Ask { devices: 1, share: Share::Exclusive };
        fields.wait = wait;
        Arc::new(fields.validate().unwrap())
    };
    for number in 0..7_000 {
        let (caller, ticket) = (Caller::Call(number), Ticket(number + 10));
        let request = request(number, Span::from_minutes(10));
        world.scheduler.begin(world.now);
        let mut out = Default::default();
        world.scheduler.step(Input::Acquire { caller, ticket, request }, &mut out);
        world.scheduler.finish(&mut out);
    }
    let last = world.scheduler.state().leases().keys().next_back().copied().unwrap();
    let since = Began::now();
    let explained = world.scheduler.explain(last).unwrap();
    told("explain the last of many that wait", since);
    assert!(explained.waiting.is_some());
}
