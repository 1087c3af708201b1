//! Simulated devices as the scheduler sees them: every fault has the condition that the contract gives it.

use gpulease_core::{
    id::Revision,
    input::Input,
    output::Output,
    policy::Policy,
    scheduler::Scheduler,
    state::State,
    time::Time,
    view::{
        DeviceCondition::{self, Available, Stale, Unavailable, Unreachable},
        DeviceView,
    },
};

use super::super::{Backend, DeviceDefaults, Measurement, Sink};
use super::{Simulation, scenario};

/// A scheduler that hears nothing but a simulation.
struct World {
    simulation: Simulation,
    scheduler: Scheduler,
}

#[derive(Default)]
struct Inputs(Vec<Input>);

impl Sink for Inputs {
    fn report(&mut self, input: Input) {
        self.0.push(input);
    }

    fn measured(&mut self, _: Vec<Measurement>) {}
}

impl World {
    fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("scenario.toml");
        std::fs::write(&path, text).unwrap();
        let plan = scenario::read(&path, &DeviceDefaults::default()).unwrap();
        let scheduler = Scheduler::recover(State::default(), Policy::default(), Time::ZERO);
        Self { simulation: Simulation::new(plan), scheduler }
    }

    /// Plays until this moment, and lets the scheduler look at it.
    fn until(&mut self, now: Time) {
        while self.simulation.due_at() <= now {
            let due = self.simulation.due_at();
            let mut inputs = Inputs::default();
            self.simulation.step(due, &mut inputs);
            self.feed(due, inputs.0);
        }
        self.feed(now, vec![Input::Tick]);
    }

    fn feed(&mut self, now: Time, inputs: Vec<Input>) {
        let mut out = Output::default();
        self.scheduler.begin(now);
        for input in inputs {
            self.scheduler.step(input, &mut out);
        }
        self.scheduler.finish(&mut out);
    }

    fn device(&self, uuid: &str) -> DeviceView {
        self.scheduler.device(uuid).unwrap()
    }
}

/// The condition of `SIM-a-0`, and what of it could be granted in MiB, so many seconds after the start.
fn check(event: &str, expected: &[(u64, DeviceCondition, Option<u64>)]) {
    let node = "[[node]]\nname = \"a\"\ndevices = { count = 2, memory = \"24GiB\" }\n";
    let mut world = World::new(&format!("{node}[[event]]\nat = \"10s\"\n{event}\n"));
    for (secs, condition, free_mib) in expected {
        world.until(Time::from_millis(secs * 1_000));
        let device = world.device("SIM-a-0");
        let found = (device.condition, device.memory_free_bytes.map(|bytes| bytes >> 20));
        assert_eq!(found, (*condition, *free_mib), "{secs} s after the start: {device:?}");
    }
}

/// 24 GiB less the reserve, in MiB.
const ALL_FREE: Option<u64> = Some(24 * 1_024 - 512);

#[test]
fn a_device_is_available_from_the_first_step_on() {
    check(
        "action = \"node_back\"\nnode = \"a\"",
        &[(0, Available, ALL_FREE), (3, Available, ALL_FREE), (60, Available, ALL_FREE)],
    );
}

#[test]
fn foreign_memory_uses_up_the_reserve_first() {
    let event = |memory: &str| {
        format!(
            "action = \"foreign_memory\"\ndevice = \"SIM-a-0\"\nmemory = \"{memory}\"\nfor = \"5s\""
        )
    };
    check(&event("400MiB"), &[(11, Available, ALL_FREE)]);
    check(&event("3GiB"), &[(11, Available, Some(21 * 1_024)), (16, Available, ALL_FREE)]);
}

#[test]
fn a_device_whose_memory_cannot_be_read_has_nothing_known_to_grant() {
    let event = "action = \"memory_unknown\"\ndevice = \"SIM-a-0\"\nfor = \"5s\"";
    check(event, &[(11, Available, None), (16, Available, ALL_FREE)]);
}

#[test]
fn a_silent_device_is_stale_until_it_is_back() {
    let mut world = World::new(
        "[[node]]\nname = \"a\"\ndevices = { count = 2, memory = \"24GiB\" }\n\
         [[event]]\nat = \"10s\"\naction = \"device_silent\"\ndevice = \"SIM-a-0\"\nfor = \"10s\"\n",
    );
    for (secs, expected) in [(11, Available), (15, Stale), (21, Available)] {
        world.until(Time::from_millis(secs * 1_000));
        assert_eq!(world.device("SIM-a-0").condition, expected, "{secs} s after the start");
        assert_eq!(world.device("SIM-a-1").condition, Available, "the other one hears on");
    }
}

#[test]
fn a_silent_node_is_unreachable_then_lost_then_there_again() {
    let mut world = World::new(
        "[[node]]\nname = \"a\"\ndevices = { memory = \"24GiB\" }\n\
         [[event]]\nat = \"10s\"\naction = \"node_silent\"\nnode = \"a\"\nfor = \"2m\"\n",
    );
    for (secs, expected) in
        [(10, Available), (16, Unreachable), (75, Unavailable), (131, Available)]
    {
        world.until(Time::from_millis(secs * 1_000));
        assert_eq!(world.device("SIM-a-0").condition, expected, "{secs} s after the start");
    }
}

#[test]
fn a_lost_device_is_unavailable_with_the_scripts_reason() {
    let mut world = World::new(
        "[[node]]\nname = \"a\"\ndevices = { memory = \"24GiB\" }\n\
         [[event]]\nat = \"10s\"\naction = \"device_lost\"\ndevice = \"SIM-a-0\"\nreason = \"XID 79\"\nfor = \"5s\"\n",
    );
    world.until(Time::from_millis(11_000));
    let device = world.device("SIM-a-0");
    assert_eq!(device.condition, Unavailable);
    assert_eq!(device.device.lost.unwrap().as_str(), "XID 79");
    world.until(Time::from_millis(16_000));
    assert_eq!(world.device("SIM-a-0").condition, Available);
}

#[test]
fn a_thousand_nodes_stay_available_and_write_nothing_once_they_are_known() {
    let node = |number: usize| {
        format!(
            "[[node]]\nname = \"node-{number}\"\ndevices = {{ count = 5, memory = \"16GiB\" }}\n"
        )
    };
    let mut world = World::new(&(0..1_000).map(node).collect::<String>());
    world.until(Time::ZERO);
    assert_eq!(world.scheduler.revision(), Revision(1), "all of it is one batch");
    world.until(Time::from_millis(30_000));
    let counts = world.scheduler.counts();
    assert_eq!((counts.nodes, counts.devices_available), (1_000, 5_000));
    assert_eq!(world.scheduler.revision(), Revision(1), "samples are no events");
}
