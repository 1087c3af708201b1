//! What every backend must do, written once and run on each: see `run_on_every_backend` at the end for where.
//!
//! Time is a variable: a backend is stepped whenever it says that it is due, for some virtual minutes. A real driver
//! takes part with a driver that is made up, so that a subject can say which device it loses, and when it hangs.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Sender, channel};

use gpulease_core::input::{DeviceReport, DeviceSample, MemoryReport};
use gpulease_core::inventory::{DeviceFacts, NodeFacts};

use super::nvml::tests::Played;
use super::simulated::{Simulation, scenario};
use super::*;

/// How long each check plays, and when all faults of the subjects are over.
const PLAYED: Time = Time::from_millis(120_000);

/// A backend, and what happens around it while it is played.
pub(super) struct Fresh {
    pub(super) backend: Box<dyn Backend>,
    /// What happens to it from outside, in order of time.
    pub(super) faults: Vec<(Time, Box<dyn FnOnce()>)>,
    /// What must outlive it.
    pub(super) _kept: Box<dyn Any>,
}

impl Fresh {
    fn of(backend: Box<dyn Backend>) -> Self {
        Self { backend, faults: Vec::new(), _kept: Box::new(()) }
    }
}

/// A backend under test, and the faults that it is going to have.
pub(super) trait Subject {
    fn fresh() -> Fresh;
    /// The device that is lost for a while, and that while.
    const LOST: Option<(&str, Time, Time)> = None;
    /// The device whose memory cannot be read for a while, and that while.
    const UNREADABLE: Option<(&str, Time, Time)> = None;
    /// The device that has no sensors.
    const BLIND: Option<&str> = None;
    /// When no device is measured, for the driver hangs.
    const HUNG: Option<(Time, Time)> = None;
    /// What it lacks to be tried here.
    fn lacks() -> Option<&'static str> {
        None
    }
}

struct Nothing;

impl Subject for Nothing {
    fn fresh() -> Fresh {
        let (_root, host) = host::tests::alpha();
        let config = BackendConfig { choice: Choice::None, host, ..Default::default() };
        Fresh::of(choose(&config).unwrap().backend)
    }
}

struct Specified;

impl Subject for Specified {
    fn fresh() -> Fresh {
        let (_root, host) = host::tests::alpha();
        let simulate = Some("2x24GiB,1x80GiB:H100".to_owned());
        Fresh::of(choose(&BackendConfig { simulate, host, ..Default::default() }).unwrap().backend)
    }
}

/// This host's own NVIDIA devices.
struct Real;

impl Subject for Real {
    fn fresh() -> Fresh {
        let (_root, host) = host::tests::alpha();
        let config = BackendConfig { choice: Choice::Nvml, host, ..Default::default() };
        Fresh::of(choose(&config).unwrap().backend)
    }

    fn lacks() -> Option<&'static str> {
        let devices = gpulease_nvml::Driver::open(gpulease_nvml::Options::default())
            .and_then(|mut driver| driver.inventory())
            .map_or(0, |inventory| inventory.devices.len());
        (devices == 0).then_some("no GPU")
    }
}

/// Whether a subject cannot be tried here, which is said, and noted where the test command counts it.
fn skipped<S: Subject>(check: &str) -> bool {
    let Some(lacks) = S::lacks() else { return false };
    let line = format!("optional: backend conformance, {check}: {lacks}\n");
    eprint!("skipped: {line}");
    if let Some(path) = std::env::var_os("GPULEASE_TESTS_SKIPPED") {
        let mut list = std::fs::File::options().create(true).append(true).open(path).unwrap();
        // One write, so that lines of parallel tests do not mix.
        std::io::Write::write_all(&mut list, line.as_bytes()).unwrap();
    }
    true
}

struct Scripted;

impl Subject for Scripted {
    fn fresh() -> Fresh {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("scripted.toml");
        std::fs::write(&path, SCRIPT).unwrap();
        let plan = scenario::read(&path, &DeviceDefaults::default()).unwrap();
        Fresh::of(Box::new(Simulation::new(plan)))
    }
    const LOST: Option<(&str, Time, Time)> =
        Some(("SIM-a-1", Time::from_millis(10_000), Time::from_millis(30_000)));
    const UNREADABLE: Option<(&str, Time, Time)> =
        Some(("SIM-b-0", Time::from_millis(20_500), Time::from_millis(40_500)));
    const BLIND: Option<&str> = Some("SIM-b-1");
}

const SCRIPT: &str = r#"
random_utilization = true
[[node]]
name = "a"
devices = { count = 3, memory = "24GiB", memory_driver = "300MiB" }
[[node]]
name = "b"
[[node.device]]
memory = "80GiB"
[[node.device]]
memory = "80GiB"
sensors = false
[[node]]
name = "c"
[[event]]
at = "5s"
action = "foreign_memory"
device = "SIM-a-0"
memory = "20GiB"
[[event]]
at = "6s"
action = "load"
device = "SIM-a-0"
memory = "20GiB"
lease = 4
[[event]]
at = "10s"
action = "device_lost"
device = "SIM-a-1"
for = "20s"
[[event]]
at = "20500ms"
action = "memory_unknown"
device = "SIM-b-0"
for = "20s"
[[event]]
at = "50s"
action = "reboot"
node = "a"
"#;

/// What was told, in order.
#[derive(Default)]
struct Record {
    now: Time,
    inputs: Vec<(Time, Input)>,
    measurements: Vec<(Time, Measurement)>,
}

impl Sink for Record {
    fn report(&mut self, input: Input) {
        self.inputs.push((self.now, input));
    }

    fn measured(&mut self, measurements: Vec<Measurement>) {
        assert!(!measurements.is_empty(), "nothing was measured, and told");
        self.measurements.extend(measurements.into_iter().map(|one| (self.now, one)));
    }
}

impl Record {
    fn step(&mut self, backend: &mut dyn Backend, now: Time) {
        self.now = now;
        backend.step(now, self);
        assert!(backend.due_at() > now, "due again at once, at {now}");
    }

    fn observed(&self) -> impl Iterator<Item = (Time, &NodeFacts, &[DeviceReport])> {
        self.inputs.iter().filter_map(|(at, input)| match input {
            Input::Observed { node, devices } => Some((*at, &**node, &devices[..])),
            _ => None,
        })
    }

    fn sampled(&self) -> impl Iterator<Item = (Time, &Name, &[DeviceSample])> {
        self.inputs.iter().filter_map(|(at, input)| match input {
            Input::Sampled { node, samples, .. } => Some((*at, node, &samples[..])),
            _ => None,
        })
    }

    /// When a device was sampled, and its memory then.
    fn samples_of(&self, uuid: &str) -> Vec<(Time, &DeviceSample)> {
        let samples = self
            .sampled()
            .flat_map(|(at, _, samples)| samples.iter().map(move |sample| (at, sample)));
        samples.filter(|(_, sample)| sample.uuid.as_str() == uuid).collect()
    }

    fn devices(&self) -> BTreeMap<&str, &DeviceFacts> {
        let reports = self.observed().flat_map(|(_, _, devices)| devices);
        reports.map(|report| (report.facts.uuid.as_str(), &*report.facts)).collect()
    }
}

/// Steps a fresh backend whenever it is due.
fn played<S: Subject>() -> Record {
    let Fresh { mut backend, faults, _kept } = S::fresh();
    let mut faults = faults.into_iter().peekable();
    let mut record = Record::default();
    while backend.due_at() <= PLAYED {
        let due = backend.due_at();
        while let Some((_, happens)) = faults.next_if(|(at, _)| *at <= due) {
            happens();
        }
        record.step(&mut *backend, due);
    }
    record
}

/// Every gap between two of these moments, and to both ends of the play, is at most a period.
fn assert_no_gap(what: &str, moments: impl Iterator<Item = Time>, except: &[(Time, Time)]) {
    let mut last = Time::ZERO;
    for moment in moments.chain([PLAYED]) {
        let excused = except.iter().any(|(from, to)| last <= *from && moment >= *to);
        let gap = if excused { Span::ZERO } else { moment.since(last) };
        assert!(gap <= SAMPLE_PERIOD, "{what} was not sampled from {last} to {moment}");
        last = moment;
    }
}

fn the_first_step_tells_the_whole_inventory<S: Subject>() {
    let Fresh { mut backend, _kept, .. } = S::fresh();
    assert_eq!(backend.due_at(), Time::ZERO);
    let mut record = Record::default();
    record.step(&mut *backend, Time::ZERO);
    let nodes: BTreeSet<_> = record.observed().map(|(_, node, _)| &node.name).collect();
    assert_eq!(nodes.len(), backend.summary().nodes);
    assert_eq!(record.devices().len(), backend.summary().devices);
    let mut known = BTreeSet::new();
    for (_, input) in &record.inputs {
        match input {
            Input::Observed { node, .. } => drop(known.insert(node.name.clone())),
            Input::Sampled { node, .. } => assert!(known.contains(node), "{node} came too early"),
            other => panic!("{other:?} is no observation"),
        }
    }
}

fn uuids_are_unique_and_the_same_after_a_restart<S: Subject>() {
    let (first, second) = (played::<S>(), played::<S>());
    let whole = first.observed().map(|(_, node, devices)| (node.name.clone(), devices.len()));
    let counts: BTreeMap<_, _> = whole.collect();
    assert_eq!(counts.values().sum::<usize>(), first.devices().len(), "a UUID is there twice");
    assert_eq!(first.devices(), second.devices(), "what a device is depends on the start");
    let boot_ids = |record: &Record| -> Vec<_> {
        record.observed().map(|(_, node, _)| (node.name.clone(), node.boot_id.clone())).collect()
    };
    assert_eq!(boot_ids(&first), boot_ids(&second), "a restart looks like a reboot");
}

fn nodes_and_devices_are_sampled_once_a_period_at_least<S: Subject>() {
    let record = played::<S>();
    let nodes: BTreeSet<_> = record.observed().map(|(_, node, _)| &node.name).collect();
    for node in nodes {
        let moments = record.sampled().filter(|(_, of, _)| *of == node).map(|(at, ..)| at);
        assert_no_gap(node.as_str(), moments, &[]);
    }
    for uuid in record.devices().keys() {
        let lost = S::LOST.filter(|(lost, ..)| lost == uuid).map(|(_, from, to)| (from, to));
        let except: Vec<_> = lost.into_iter().chain(S::HUNG).collect();
        assert_no_gap(uuid, record.samples_of(uuid).iter().map(|(at, _)| *at), &except);
    }
}

fn a_lost_device_is_told_lost_and_comes_back<S: Subject>() {
    let record = played::<S>();
    let mut lost_at = BTreeMap::new();
    for (at, _, devices) in record.observed() {
        for report in devices {
            lost_at
                .entry(report.facts.uuid.as_str())
                .or_insert_with(Vec::new)
                .push((at, &report.lost));
        }
    }
    for (uuid, told) in lost_at {
        for (at, lost) in told {
            let expected =
                S::LOST.is_some_and(|(of, from, to)| of == uuid && (from..to).contains(&at));
            assert_eq!(lost.is_some(), expected, "{uuid} at {at}");
        }
    }
    if let Some((uuid, from, to)) = S::LOST {
        let told: Vec<_> = record.observed().map(|(at, ..)| at).collect();
        assert!(told.contains(&from) && told.contains(&to), "{uuid}: told only at {told:?}");
        let samples = record.samples_of(uuid);
        assert!(
            samples.iter().all(|(at, _)| *at <= from || *at >= to),
            "{uuid} was sampled while lost"
        );
        assert!(samples.iter().any(|(at, _)| *at == to), "{uuid} is back and was not sampled");
    }
}

fn what_cannot_be_read_is_absent_and_hides_nothing_else<S: Subject>() {
    let record = played::<S>();
    let unreadable = |uuid: &str, at: Time| {
        S::UNREADABLE.is_some_and(|(of, from, to)| of == uuid && (from..to).contains(&at))
    };
    let mut unread = 0;
    for uuid in record.devices().keys() {
        for (at, sample) in record.samples_of(uuid) {
            assert_eq!(sample.memory.is_none(), unreadable(uuid, at), "{uuid} at {at}");
            unread += usize::from(sample.memory.is_none());
        }
    }
    assert_eq!(unread > 0, S::UNREADABLE.is_some());
    for (at, one) in &record.measurements {
        let uuid = one.device_uuid.as_str();
        assert_eq!(one.memory_used_bytes.is_none(), unreadable(uuid, *at), "{uuid} at {at}");
        let sensors = [
            one.utilization_permille.is_some(),
            one.temperature_celsius.is_some(),
            one.power_draw_milliwatts.is_some(),
        ];
        assert_eq!(sensors, [S::BLIND != Some(uuid); 3], "{uuid} at {at}");
    }
}

fn figures_agree_with_each_other<S: Subject>() {
    let record = played::<S>();
    for (_, node, devices) in record.observed() {
        assert!(!node.name.as_str().is_empty() && !node.boot_id.as_str().is_empty(), "{node:?}");
        assert!(node.host_cpu_millis >= 1_000 && node.host_memory_bytes > 0, "{node:?}");
        let indexes = devices.iter().map(|report| report.facts.index);
        assert!(indexes.eq(0..u32::try_from(devices.len()).unwrap()), "{devices:?}");
        for facts in devices.iter().map(|report| &report.facts) {
            assert!(facts.slots > 0, "{facts:?}");
            assert!(facts.memory_ceiling_bytes() > facts.memory_reserve_bytes, "{facts:?}");
        }
    }
    let devices = record.devices();
    for (at, sample) in
        record.sampled().flat_map(|(at, _, all)| all.iter().map(move |one| (at, one)))
    {
        let facts = devices[sample.uuid.as_str()];
        let Some(memory) = &sample.memory else { continue };
        assert!(explained_bytes(memory) <= memory.used_bytes(), "{sample:?} at {at}");
        let usable = facts.memory_total_bytes - facts.memory_driver_bytes;
        assert!(memory.used_bytes() <= usable, "{sample:?} at {at}");
    }
    for (at, one) in &record.measurements {
        let samples = record.samples_of(one.device_uuid.as_str());
        let same = samples.iter().any(|(of, sample)| {
            let memory = sample.memory.as_ref();
            of == at
                && memory.map(MemoryReport::used_bytes) == one.memory_used_bytes
                && memory.and_then(foreign_bytes) == one.memory_foreign_bytes
        });
        assert!(same, "{one:?} at {at} has no sample that says the same");
        assert!(one.utilization_permille.is_none_or(|permille| permille <= 1_000), "{one:?}");
    }
}

fn a_late_step_is_no_burst<S: Subject>() {
    let Fresh { mut backend, _kept, .. } = S::fresh();
    let mut record = Record::default();
    for now in [Time::ZERO, PLAYED] {
        record.step(&mut *backend, now);
    }
    record.inputs.clear();
    let hour_later = PLAYED.after(Span::from_minutes(60));
    record.step(&mut *backend, hour_later);
    assert_eq!(record.inputs.len(), backend.summary().nodes);
    assert!(backend.due_at() <= hour_later.after(SAMPLE_PERIOD));
}

fn a_step_that_comes_early_tells_nothing<S: Subject>() {
    let Fresh { mut backend, _kept, .. } = S::fresh();
    let mut record = Record::default();
    record.step(&mut *backend, Time::ZERO);
    let (inputs, due) = (record.inputs.len(), backend.due_at());
    record.step(&mut *backend, due.before(Span::from_millis(1)));
    assert_eq!((record.inputs.len(), backend.due_at()), (inputs, due));
}

struct Forward(Sender<Input>);

impl Sink for Forward {
    fn report(&mut self, input: Input) {
        // The test may have heard enough.
        let _ = self.0.send(input);
    }

    fn measured(&mut self, _: Vec<Measurement>) {}
}

fn it_runs_on_a_thread_and_stops_within_the_bound<S: Subject>() {
    let (sender, reports) = channel();
    let Fresh { backend, _kept, .. } = S::fresh();
    let running = pace::run(backend, Box::new(Forward(sender)), &Handle::default()).unwrap();
    let first = reports.recv().unwrap();
    assert!(matches!(first, Input::Observed { .. }), "{first:?}");
    assert_eq!(running.stop(), Stopped::Ended);
    // The reports end only when the sink is dropped with the thread.
    reports.into_iter().for_each(drop);
}

macro_rules! run_on_every_backend {
    ($($check:ident),* $(,)?) => {
        mod tests {
            mod none { $(#[test] fn $check() { super::super::$check::<super::super::Nothing>(); })* }
            mod specified { $(#[test] fn $check() { super::super::$check::<super::super::Specified>(); })* }
            mod nvml { $(#[test] fn $check() { super::super::$check::<super::super::Played>(); })* }
            mod real { $(#[test] fn $check() {
                if !super::super::skipped::<super::super::Real>(stringify!($check)) {
                    super::super::$check::<super::super::Real>();
                }
            })* }
            mod scripted { $(#[test] fn $check() { super::super::$check::<super::super::Scripted>(); })* }
        }
    };
}

run_on_every_backend!(
    the_first_step_tells_the_whole_inventory,
    uuids_are_unique_and_the_same_after_a_restart,
    nodes_and_devices_are_sampled_once_a_period_at_least,
    a_lost_device_is_told_lost_and_comes_back,
    what_cannot_be_read_is_absent_and_hides_nothing_else,
    figures_agree_with_each_other,
    a_late_step_is_no_burst,
    a_step_that_comes_early_tells_nothing,
    it_runs_on_a_thread_and_stops_within_the_bound,
);

/// Bytes that a report tells the use of: never more than are in use.
fn explained_bytes(report: &MemoryReport) -> u64 {
    match report {
        MemoryReport::Exact(reading) => {
            let attributed: u64 = reading.attributed.iter().map(|(_, bytes)| bytes).sum();
            reading.foreign_bytes + attributed
        }
        MemoryReport::Pass { processes, .. } => processes.iter().map(|used| used.bytes).sum(),
        MemoryReport::Sum { .. } | MemoryReport::Unattributed { .. } => 0,
    }
}

/// What the backend itself knows to be foreign; elsewhere the core finds it out.
fn foreign_bytes(report: &MemoryReport) -> Option<u64> {
    match report {
        MemoryReport::Exact(reading) => Some(reading.foreign_bytes),
        _ => None,
    }
}
