//! What a scenario looks like from outside, and that it plays the same each time.

use std::fmt::Write;

use gpulease_core::time::Time;

use super::super::super::{DeviceDefaults, Measurement};
use super::super::scenario;
use super::*;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/backend/simulated/example.toml");

/// Everything that was told, as text.
#[derive(Default)]
struct Told {
    now: Time,
    text: String,
    sampled: usize,
    measured: usize,
}

impl Sink for Told {
    fn report(&mut self, input: Input) {
        self.sampled += usize::from(matches!(input, Input::Sampled { .. }));
        writeln!(self.text, "{} {input:?}", self.now).unwrap();
    }

    fn measured(&mut self, measurements: Vec<Measurement>) {
        self.measured += measurements.len();
        writeln!(self.text, "{} {measurements:?}", self.now).unwrap();
    }
}

fn simulation(text: &str) -> Simulation {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("scenario.toml");
    std::fs::write(&path, text).unwrap();
    Simulation::new(scenario::read(&path, &DeviceDefaults::default()).unwrap())
}

fn play(simulation: &mut Simulation, secs: u64) -> Told {
    let mut told = Told::default();
    while simulation.due_at() <= Time::from_millis(secs * 1_000) {
        told.now = simulation.due_at();
        simulation.step(told.now, &mut told);
    }
    told
}

/// What is told at this moment of a node `a` with two devices of 24 GiB, under these events.
fn check(events: &str, at_millis: u64, expected: &[&str], absent: &[&str]) {
    let node = "[[node]]\nname = \"a\"\ndevices = { count = 2, memory = \"24GiB\" }\n";
    let mut simulation = simulation(&format!("{node}{events}"));
    let told = play(&mut simulation, 120);
    let prefix = format!("{} ", Span::from_millis(at_millis));
    let lines: Vec<&str> = told.text.lines().filter(|line| line.starts_with(&prefix)).collect();
    let text = lines.join("\n");
    for part in expected {
        assert!(text.contains(part), "{part} is not told at {at_millis} ms:\n{text}");
    }
    for part in absent {
        assert!(!text.contains(part), "{part} is told at {at_millis} ms:\n{text}");
    }
}

#[test]
fn the_same_seed_tells_the_same_bytes_and_another_seed_does_not() {
    let text = std::fs::read_to_string(EXAMPLE).unwrap();
    let tell = |text: &str| play(&mut simulation(text), 180).text;
    let first = tell(&text);
    assert!(first == tell(&text), "two plays of one scenario differ");
    assert!(first != tell(&text.replace("seed = 7", "seed = 8")), "the seed does not matter");
    assert!(first.len() > 100_000);
}

#[test]
fn foreign_memory_is_told_at_once_and_ends() {
    let event = "[[event]]\nat = \"2500ms\"\naction = \"foreign_memory\"\ndevice = \"SIM-a-0\"\n\
                 memory = \"1GiB\"\nfor = \"2s\"\n";
    check(event, 2_000, &["foreign_bytes: 0"], &["foreign_bytes: 1073741824"]);
    check(event, 2_500, &["foreign_bytes: 1073741824", "used_bytes: 1073741824"], &[]);
    check(event, 4_500, &["foreign_bytes: 0"], &["foreign_bytes: 1073741824"]);
}

#[test]
fn more_memory_than_there_is_is_all_of_it_foreign_first() {
    let events = "[[event]]\nat = \"1s\"\naction = \"foreign_memory\"\ndevice = \"SIM-a-0\"\nmemory = \"20GiB\"\n\
                  [[event]]\nat = \"1s\"\naction = \"load\"\ndevice = \"SIM-a-0\"\nmemory = \"20GiB\"\nlease = 9\n";
    let expected = format!(
        "used_bytes: {}, foreign_bytes: {}, attributed: [(LeaseId(9), {})]",
        24_u64 << 30,
        20_u64 << 30,
        4_u64 << 30
    );
    check(events, 2_000, &[&expected], &[]);
}

#[test]
fn a_load_makes_a_device_busy_warm_and_hungry() {
    let event = "[[event]]\nat = \"1s\"\naction = \"load\"\ndevice = \"SIM-a-0\"\nutilization_permille = 1000\n";
    check(event, 2_000, &["utilization_permille: Some(1000), temperature_celsius: Some(7"], &[]);
}

#[test]
fn a_lost_device_is_told_with_its_reason_and_without_figures() {
    let event = "[[event]]\nat = \"1s\"\naction = \"device_lost\"\ndevice = \"SIM-a-1\"\nreason = \"fell off\"\n";
    check(event, 1_000, &["lost: Some(\"fell off\")", "Sampled"], &[]);
    check(event, 2_000, &["uuid: \"SIM-a-0\""], &["SIM-a-1", "Observed"]);
}

#[test]
fn a_silent_node_says_nothing_and_comes_back_whole() {
    let event =
        "[[event]]\nat = \"1500ms\"\naction = \"node_silent\"\nnode = \"a\"\nfor = \"3500ms\"\n";
    check(event, 1_500, &[], &["Sampled", "Observed"]);
    check(event, 3_000, &[], &["Sampled", "Observed"]);
    check(event, 5_000, &["Observed", "sim-0-a", "Sampled"], &["reboot"]);
}

#[test]
fn a_reboot_is_silence_then_a_new_boot_id_and_empty_devices() {
    let events = "[[event]]\nat = \"1s\"\naction = \"foreign_memory\"\ndevice = \"SIM-a-0\"\nmemory = \"1GiB\"\n\
                  [[event]]\nat = \"2500ms\"\naction = \"reboot\"\nnode = \"a\"\nfor = \"3s\"\n";
    check(events, 4_000, &[], &["Sampled"]);
    check(events, 5_500, &["boot_id: \"sim-0-a-reboot-1\"", "used_bytes: 0"], &["1073741824"]);
}

#[test]
fn what_happened_on_a_silent_node_is_told_when_it_is_back() {
    let events = "[[event]]\nat = \"1s\"\naction = \"node_silent\"\nnode = \"a\"\nfor = \"9s\"\n\
                  [[event]]\nat = \"2s\"\naction = \"device_lost\"\ndevice = \"SIM-a-0\"\n";
    check(events, 2_000, &[], &["Observed"]);
    check(events, 10_000, &["lost: Some(\"lost in the scenario\")"], &[]);
}

#[test]
fn steps_that_come_late_still_tell_every_loss_and_return_in_order() {
    let text = std::fs::read_to_string(EXAMPLE).unwrap();
    let mut simulation = simulation(&text);
    let mut told = Told::default();
    simulation.step(Time::ZERO, &mut told);
    told.text.clear();
    simulation.step(Time::from_millis(300_000), &mut told);
    let lost = told.text.find("fell off the bus").unwrap();
    let reboot = told.text.find("sim-7-beta-reboot-1").unwrap();
    assert!(lost < reboot);
}

/// As many nodes and devices as the largest public trace has.
fn trace_sized() -> String {
    let node = |number: usize| {
        let count = 5 + usize::from(number < 147);
        let devices = format!("devices = {{ count = {count}, memory = \"16GiB\", slots = 1000 }}");
        format!("[[node]]\nname = \"node-{number:04}\"\n{devices}\n")
    };
    (0..1_213).map(node).collect()
}

#[test]
fn a_thousand_nodes_take_turns_and_each_device_is_sampled_each_second() {
    let mut simulation = simulation(&trace_sized());
    assert_eq!(simulation.summary(), Summary { name: "simulated", nodes: 1_213, devices: 6_212 });
    let mut counting = Counting::default();
    simulation.step(Time::ZERO, &mut counting);
    assert_eq!((counting.inputs, counting.measurements), (2 * 1_213, 6_212));
    for second in 1..=10 {
        let (mut steps, mut largest) = (0, 0);
        let mut counting = Counting::default();
        while simulation.due_at() <= Time::from_millis(second * 1_000) {
            let before = counting.inputs;
            let due = simulation.due_at();
            simulation.step(due, &mut counting);
            steps += 1;
            largest = largest.max(counting.inputs - before);
        }
        assert_eq!((counting.inputs, counting.measurements), (1_213, 6_212));
        assert!(steps <= 20 && largest <= 61, "{steps} steps of up to {largest} nodes");
    }
}

#[derive(Default)]
struct Counting {
    inputs: usize,
    measurements: usize,
}

impl Sink for Counting {
    fn report(&mut self, _: Input) {
        self.inputs += 1;
    }

    fn measured(&mut self, measurements: Vec<Measurement>) {
        self.measurements += measurements.len();
    }
}
