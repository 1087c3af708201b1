//! A host with NVIDIA devices that do not exist, and its backend, stepped by hand.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gpulease_core::{
    id::Name,
    input::{DeviceReport, DeviceSample, Input, MemoryReport, ProcessUse, TreePass},
    request::Process,
    time::Time,
};
use gpulease_fake_nvml::{Code, Device, FakeNvml, uuid};
use gpulease_nvml::Options;

use super::super::{Found, Nvml, NvmlConfig};
use crate::backend::{
    Asked, Attribution, Backend, DeviceDefaults, Measurement, Sink,
    conformance::{Fresh, Subject},
    host::tests::alpha,
};

pub(super) const GIB: u64 = 1 << 30;

/// Made-up devices and processes.
pub(super) struct Host {
    pub(super) fake: FakeNvml,
    /// The root of its `/proc`, and of everything else.
    root: tempfile::TempDir,
}

impl Host {
    /// With so many devices of 80 GiB, 16 CPUs, and a first process.
    pub(super) fn with(devices: u32) -> Self {
        let (root, _) = alpha();
        let fake = FakeNvml::copy_to(root.path()).unwrap();
        (0..devices).for_each(|number| fake.add_device(Device::new(number)).unwrap());
        let host = Self { fake, root };
        host.start(1, 0);
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(super) fn config(&self) -> NvmlConfig {
        let library = Some(self.fake.library().to_owned());
        let (sysfs_root, proc_root) = (self.path("sys"), self.root.path().to_owned());
        let driver = Options { library, sysfs_root, proc_root };
        NvmlConfig { driver, attribution: Attribution::On }
    }

    /// A process starts, ten ticks of the clock for each id after the boot.
    pub(super) fn start(&self, pid: u32, parent: u32) -> Process {
        let started_ticks = u64::from(pid) * 10;
        let stat =
            format!("{pid} (it) S {parent} 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {started_ticks} 0");
        fs::create_dir_all(self.path(&pid.to_string())).unwrap();
        for (file, text) in [
            ("stat", stat.as_str()),
            ("status", "Name:\tit\nUid:\t1000\t1000\t1000\t1000\n"),
            ("cmdline", &format!("work\0{pid}\0")),
            ("cgroup", "0::/\n"),
        ] {
            fs::write(self.path(&format!("{pid}/{file}")), text).unwrap();
        }
        Process { pid, started_ticks }
    }

    pub(super) fn end(&self, pid: u32) {
        fs::remove_dir_all(self.path(&pid.to_string())).unwrap();
    }

    pub(super) fn suspend(&self, address: &str, status: &str) {
        let power = self.path(&format!("sys/bus/pci/devices/{address}/power"));
        fs::create_dir_all(&power).unwrap();
        fs::write(power.join("runtime_status"), status).unwrap();
    }

    pub(super) fn opened(&self, config: NvmlConfig) -> (Nvml, Found) {
        let (_root, host) = alpha();
        Nvml::open(host.describe().unwrap(), config, DeviceDefaults::default()).unwrap()
    }

    /// A backend that was not stepped yet, and that waited so long for the driver.
    pub(super) fn opened_within(&self, wait: Duration) -> (Stepped, Found) {
        let (_root, host) = alpha();
        let (node, devices) = (host.describe().unwrap(), DeviceDefaults::default());
        let (backend, found) = Nvml::open_within(node, self.config(), devices, wait).unwrap();
        (backend.into(), found)
    }

    /// A backend that was stepped once.
    pub(super) fn backend(&self) -> Stepped {
        self.stepped(self.config())
    }

    pub(super) fn stepped(&self, config: NvmlConfig) -> Stepped {
        let (backend, _) = self.opened(config);
        let mut stepped = Stepped::from(backend);
        stepped.step(0);
        stepped
    }
}

/// A backend, and what it told in its last step.
pub(super) struct Stepped {
    backend: Nvml,
    now: Time,
    told: Told,
}

impl From<Nvml> for Stepped {
    fn from(backend: Nvml) -> Self {
        Self { backend, now: Time::ZERO, told: Told::default() }
    }
}

impl Stepped {
    pub(super) fn step(&mut self, millis: u64) {
        self.now = Time::from_millis(millis);
        self.told = Told::default();
        self.backend.step(self.now, &mut self.told);
    }

    /// Steps it whenever it is due until then, and then.
    pub(super) fn play(&mut self, until_millis: u64) {
        while self.backend.due_at() < Time::from_millis(until_millis) {
            self.step(self.backend.due_at().max(self.now).as_millis());
        }
        self.step(until_millis);
    }

    /// Plays on, with real time going by, until something is told.
    pub(super) fn until(&mut self, told: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            self.step(self.backend.due_at().max(self.now).as_millis());
            if told(self) {
                return;
            }
            assert!(Instant::now() < deadline, "it is never told");
        }
    }

    /// Asks for a look at the first device, and plays until there was one.
    pub(super) fn look(&mut self, check: u64) {
        self.check(0, check);
        let looked = |memory: &MemoryReport| !matches!(memory, MemoryReport::Sum { .. });
        self.until(|backend| {
            let memory = backend.sample(0).and_then(|sample| sample.memory.as_ref());
            backend.trees().is_some() || memory.is_some_and(looked)
        });
    }

    pub(super) fn ask(&mut self, change: impl FnOnce(&mut Asked)) {
        let mut asked = Asked::default();
        change(&mut asked);
        self.backend.ask(asked);
    }

    pub(super) fn track(&mut self, process: Process) {
        self.ask(|asked| asked.tracked = [process].into());
    }

    pub(super) fn check(&mut self, number: u32, check: u64) {
        self.ask(|asked| asked.checks = [(Name::new(&uuid(number)), check)].into());
    }

    /// The devices of the inventory that was told, if any was.
    pub(super) fn observed(&self) -> Option<&[DeviceReport]> {
        self.told.inputs.iter().find_map(|input| match input {
            Input::Observed { devices, .. } => Some(&devices[..]),
            _ => None,
        })
    }

    /// Why each device is lost, by the inventory that was told.
    pub(super) fn lost(&self) -> Vec<Option<String>> {
        let reports = self.observed().unwrap();
        reports.iter().map(|report| report.lost.as_ref().map(ToString::to_string)).collect()
    }

    fn sampled(&self) -> impl Iterator<Item = (&[DeviceSample], Option<&TreePass>)> {
        self.told.inputs.iter().filter_map(|input| match input {
            Input::Sampled { samples, trees, .. } => Some((&samples[..], trees.as_ref())),
            _ => None,
        })
    }

    /// How often the node was told to be there.
    pub(super) fn signs(&self) -> usize {
        self.sampled().count()
    }

    pub(super) fn sample(&self, number: u32) -> Option<&DeviceSample> {
        let mut samples = self.sampled().flat_map(|(samples, _)| samples);
        samples.find(|sample| sample.uuid.as_str() == uuid(number))
    }

    pub(super) fn memory(&self, number: u32) -> &MemoryReport {
        self.sample(number).unwrap().memory.as_ref().unwrap()
    }

    /// The processes that a look at a device told.
    pub(super) fn processes(&self, number: u32) -> &[ProcessUse] {
        match self.memory(number) {
            MemoryReport::Pass { processes, .. } => processes,
            other => panic!("no look: {other:?}"),
        }
    }

    pub(super) fn trees(&self) -> Option<&TreePass> {
        self.sampled().find_map(|(_, trees)| trees)
    }
}

#[derive(Default)]
struct Told {
    inputs: Vec<Input>,
    measurements: Vec<Measurement>,
}

impl Sink for Told {
    fn report(&mut self, input: Input) {
        self.inputs.push(input);
    }

    fn measured(&mut self, measurements: Vec<Measurement>) {
        self.measurements.extend(measurements);
    }
}

/// What is told, without the figures for display.
#[derive(Default)]
pub(super) struct Inputs(pub(super) Vec<Input>);

impl Sink for Inputs {
    fn report(&mut self, input: Input) {
        self.0.push(input);
    }

    fn measured(&mut self, _: Vec<Measurement>) {}
}

/// What the conformance suite plays.
pub(in crate::backend) struct Played;

const LOST: &str = "GPU-00000001-feed-4bad-8cab-000000000000";
const UNREADABLE: &str = "GPU-00000002-feed-4bad-8cab-000000000000";
const BLIND: &str = "GPU-00000003-feed-4bad-8cab-000000000000";

impl Subject for Played {
    fn fresh() -> Fresh {
        let host = Arc::new(Host::with(4));
        blind(&host.fake);
        host.start(50, 1);
        host.fake.run_process(&uuid(0), 50, 3 * GIB).unwrap();
        let (backend, _) = host.opened(host.config());
        let mut faults: Vec<(Time, Box<dyn FnOnce()>)> = Vec::new();
        let mut at = |time: Time, happens: fn(&FakeNvml)| {
            let host = host.clone();
            faults.push((time, Box::new(move || happens(&host.fake))));
        };
        let (_, lost, back) = Self::LOST.unwrap();
        at(lost, |fake| fake.lose(LOST).unwrap());
        at(back, |fake| fake.restore(LOST).unwrap());
        let (_, from, to) = Self::UNREADABLE.unwrap();
        at(from, |fake| {
            fake.fail(("nvmlDeviceGetMemoryInfo_v2", UNREADABLE), Code::NO_PERMISSION).unwrap();
        });
        at(to, |fake| fake.lift_all().unwrap());
        let (hangs, answers) = Self::HUNG.unwrap();
        at(hangs, |fake| {
            fake.hang(("nvmlDeviceGetTemperature", LOST)).unwrap();
        });
        at(answers, |fake| fake.lift_all().unwrap());
        Fresh { backend: Box::new(backend), faults, _kept: Box::new(host) }
    }

    const LOST: Option<(&str, Time, Time)> =
        Some((LOST, Time::from_millis(10_000), Time::from_millis(30_000)));
    const UNREADABLE: Option<(&str, Time, Time)> =
        Some((UNREADABLE, Time::from_millis(40_000), Time::from_millis(60_000)));
    const BLIND: Option<&str> = Some(BLIND);
    const HUNG: Option<(Time, Time)> = Some((Time::from_millis(70_000), Time::from_millis(75_000)));
}

fn blind(fake: &FakeNvml) {
    fake.set_utilization(BLIND, None).unwrap();
    fake.set_temperature(BLIND, None).unwrap();
    fake.set_power(BLIND, None).unwrap();
}
