//! The driver on a library that is made up: what it reads, and what it makes of every way in which reading fails.

#![allow(clippy::unwrap_used, reason = "these are tests, their shared functions included")]

use std::path::Path;

use gpulease_fake_nvml::{Code, Device, FakeNvml, ProcessKind as Kind, device::Process, uuid};
use gpulease_nvml::{
    Driver, DriverError, Figure, Options, ProcessList, ProcessUse, Sample, Trouble, UNCLEAR_MAX,
};

const GIB: u64 = 1 << 30;
const RESERVED: u64 = 600 << 20;

struct Bench {
    folder: tempfile::TempDir,
    fake: FakeNvml,
}

impl Bench {
    /// A library with so many devices of 80 GiB.
    fn with(devices: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fake = FakeNvml::copy_to(folder.path()).unwrap();
        (0..devices).for_each(|number| fake.add_device(Device::new(number)).unwrap());
        Self { folder, fake }
    }

    fn options(&self) -> Options {
        let library = Some(self.fake.library().to_owned());
        let root = |name| self.folder.path().join(name);
        Options { library, sysfs_root: root("sys"), proc_root: root("proc") }
    }

    /// Opened, and looked through once.
    fn driver(&self) -> Driver {
        let mut driver = Driver::open(self.options()).unwrap();
        driver.inventory().unwrap();
        driver
    }
}

fn memory_used(driver: &mut Driver, number: u32) -> Option<u64> {
    driver.sample(&uuid(number)).unwrap().memory.map(|memory| memory.used_bytes)
}

fn known(driver: &mut Driver) -> Vec<ProcessUse> {
    match driver.processes(&uuid(0)).unwrap() {
        ProcessList::Known(processes) => processes,
        other => panic!("{other:?}"),
    }
}

fn unavailable(driver: &mut Driver, number: u32) -> String {
    match driver.sample(&uuid(number)) {
        Err(Trouble::Unavailable(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

#[test]
fn the_inventory_tells_what_devices_are_in_order_of_their_address() {
    let bench = Bench::with(3);
    bench.fake.edit_device(&uuid(0), |device| device.pci.domain = 0x10).unwrap();
    bench.fake.edit_device(&uuid(1), |device| device.mig_mode = Some((1, 1))).unwrap();
    bench.fake.set_name_bytes(&uuid(2), b"NVIDIA \xffX").unwrap();
    let mut driver = Driver::open(bench.options()).unwrap();
    let inventory = driver.inventory().unwrap();
    assert_eq!(inventory.driver_version.as_deref(), Some("570.172.08"));
    assert_eq!(inventory.failures, []);
    let told = inventory.devices.iter().map(|device| {
        let address = device.pci_address.unwrap().to_string();
        (device.index, address, device.model.as_str(), device.mig_enabled)
    });
    let model = "NVIDIA H100 80GB HBM3";
    let expected = [
        (1, "0000:19:00.0".to_owned(), model, Some(true)),
        (2, "0000:1a:00.0".to_owned(), "NVIDIA \u{fffd}X", None),
        (0, "0010:18:00.0".to_owned(), model, None),
    ];
    assert!(told.eq(expected), "{inventory:?}");
    let device = &inventory.devices[0];
    assert_eq!((device.uuid.as_str(), device.compute_capability), (uuid(1).as_str(), Some((9, 0))));
    let memory = device.memory.unwrap();
    assert_eq!((memory.total_bytes, memory.reserved_bytes), (80 * GIB, Some(RESERVED)));
    assert!(!memory.unified);
}

#[test]
fn a_sample_tells_every_figure_and_leaves_out_what_the_device_has_not() {
    let bench = Bench::with(2);
    let fake = &bench.fake;
    fake.set_memory_used(&uuid(0), 3 * GIB).unwrap();
    fake.set_utilization(&uuid(0), Some((42, 10))).unwrap();
    fake.set_clock_events(&uuid(0), Some(0x8000_0000_0000_0004)).unwrap();
    fake.set_utilization(&uuid(1), None).unwrap();
    fake.set_temperature(&uuid(1), None).unwrap();
    fake.set_power(&uuid(1), None).unwrap();
    fake.set_clock_events(&uuid(1), None).unwrap();
    let mut driver = bench.driver();
    let sample = driver.sample(&uuid(0)).unwrap();
    assert_eq!(sample.memory.unwrap().used_bytes, 3 * GIB);
    let figures = Sample { memory: None, ..sample };
    let expected = Sample {
        memory: None,
        utilization_permille: Some(420),
        temperature_celsius: Some(40),
        power_draw_milliwatts: Some(70_000),
        clock_event_bits: Some(0x8000_0000_0000_0004),
    };
    assert_eq!(figures, expected);
    let blind = driver.sample(&uuid(1)).unwrap();
    assert_eq!(Sample { memory: None, ..blind }, Sample::default());
    assert!(blind.memory.is_some());
}

#[test]
fn what_is_not_supported_is_asked_for_once_in_a_generation() {
    let bench = Bench::with(1);
    bench.fake.set_utilization(&uuid(0), None).unwrap();
    let mut driver = bench.driver();
    let asked = || bench.fake.calls("nvmlDeviceGetUtilizationRates").unwrap();
    for _ in 0..3 {
        driver.sample(&uuid(0)).unwrap();
        driver.inventory().unwrap();
    }
    assert_eq!(asked(), 1);
    let off = driver.take_remarks().into_iter().any(|remark| remark.figure == Figure::Utilization);
    assert!(off && driver.take_remarks().is_empty(), "each figure is remarked upon once");
    driver.rebuild().unwrap();
    driver.inventory().unwrap();
    driver.sample(&uuid(0)).unwrap();
    assert_eq!((asked(), driver.generation()), (2, 2));
}

#[test]
fn memory_of_an_older_driver_is_read_by_the_first_version_with_the_drivers_own_in_use() {
    let refused = Bench::with(1);
    refused.fake.refuse_memory_v2(true).unwrap();
    let hidden = Bench::with(1);
    hidden.fake.hide("nvmlDeviceGetMemoryInfo_v2").unwrap();
    for bench in [refused, hidden] {
        bench.fake.set_memory_used(&uuid(0), GIB).unwrap();
        let memory = bench.driver().memory(&uuid(0)).unwrap().unwrap();
        assert_eq!((memory.used_bytes, memory.reserved_bytes), (GIB + RESERVED, None));
    }
}

#[test]
fn unified_memory_is_the_hosts_and_only_on_models_known_for_it() {
    let bench = Bench::with(2);
    for number in 0..2 {
        bench.fake.edit_device(&uuid(number), |device| device.memory = None).unwrap();
    }
    bench.fake.edit_device(&uuid(1), |device| device.name = "NVIDIA GB10".to_owned()).unwrap();
    let proc = bench.options().proc_root;
    write(&proc.join("meminfo"), "MemTotal: 4096 kB\nMemAvailable: 1024 kB\n");
    let mut driver = bench.driver();
    assert_eq!(memory_used(&mut driver, 0), None);
    assert_eq!(memory_used(&mut driver, 1), Some(3 << 20));
    let devices = driver.inventory().unwrap().devices;
    let unified: Vec<_> =
        devices.iter().map(|one| one.memory.map(|memory| memory.unified)).collect();
    assert_eq!(unified, [None, Some(true)]);
}

#[test]
fn a_lost_device_fails_no_other_and_comes_back() {
    let bench = Bench::with(2);
    let mut driver = bench.driver();
    for lose in [FakeNvml::lose, FakeNvml::require_reset] {
        lose(&bench.fake, &uuid(0)).unwrap();
        unavailable(&mut driver, 0);
        assert_eq!(memory_used(&mut driver, 1), Some(0));
        let inventory = driver.inventory().unwrap();
        let [failure] = &inventory.failures[..] else { panic!("{inventory:?}") };
        assert_eq!(failure.uuid.as_deref(), Some(uuid(0).as_str()), "who it was is remembered");
        assert!(!failure.not_permitted);
        assert_eq!(inventory.devices.len(), 1);
        assert!(matches!(driver.sample(&uuid(0)), Err(Trouble::Unknown)));
        driver.inventory().unwrap();
        bench.fake.restore(&uuid(0)).unwrap();
        assert_eq!(driver.inventory().unwrap().devices.len(), 2);
        assert_eq!(memory_used(&mut driver, 0), Some(0));
    }
}

#[test]
fn a_device_that_is_closed_to_this_user_is_told_apart_from_a_lost_one() {
    let bench = Bench::with(2);
    bench
        .fake
        .fail(("nvmlDeviceGetHandleByIndex_v2", uuid(1).as_str()), Code::NO_PERMISSION)
        .unwrap();
    let inventory = Driver::open(bench.options()).unwrap().inventory().unwrap();
    assert!(inventory.failures.iter().all(|failure| failure.not_permitted));
    assert_eq!((inventory.devices.len(), inventory.failures.len()), (1, 1));
}

#[test]
fn an_unclear_answer_is_nothing_once_and_unavailable_when_repeated() {
    let bench = Bench::with(1);
    let mut driver = bench.driver();
    let read = "nvmlDeviceGetMemoryInfo_v2";
    let fault = bench.fake.fail(read, Code::UNKNOWN).unwrap();
    for _ in 1..UNCLEAR_MAX {
        assert_eq!(memory_used(&mut driver, 0), None, "unknown, and not what version 1 would say");
    }
    let reason = unavailable(&mut driver, 0);
    assert!(reason.contains("3 times in a row"), "{reason}");
    bench.fake.lift(fault).unwrap();
    assert_eq!(memory_used(&mut driver, 0), Some(0));
    bench.fake.fail_times(read, Code::TIMEOUT, 1).unwrap();
    assert_eq!(memory_used(&mut driver, 0), None);
    assert_eq!(memory_used(&mut driver, 0), Some(0));
}

#[test]
fn a_device_that_is_attached_to_with_difficulty_is_not_lost() {
    let bench = Bench::with(2);
    bench.fake.fail_times("nvmlDeviceGetHandleByIndex_v2", Code::UNKNOWN, UNCLEAR_MAX - 1).unwrap();
    bench.fake.fail_times("nvmlDeviceGetUUID", Code::TIMEOUT, UNCLEAR_MAX - 1).unwrap();
    bench.fake.fail_times("nvmlDeviceGetMemoryInfo_v2", Code::UNKNOWN, UNCLEAR_MAX - 1).unwrap();
    let inventory = Driver::open(bench.options()).unwrap().inventory().unwrap();
    assert!(inventory.devices.iter().all(|device| device.memory.is_some()), "{inventory:?}");
    assert_eq!(inventory.devices.len(), 2);
    bench.fake.lift_all().unwrap();
    bench.fake.fail_times("nvmlDeviceGetUUID", Code::TIMEOUT, UNCLEAR_MAX).unwrap();
    let inventory = Driver::open(bench.options()).unwrap().inventory().unwrap();
    assert_eq!((inventory.devices.len(), inventory.failures.len()), (1, 1));
}

#[test]
fn a_device_is_lost_when_it_says_nothing_clear_in_several_inventories() {
    for read in ["nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetUUID", "nvmlDeviceGetMemoryInfo_v2"]
    {
        let bench = Bench::with(1);
        let mut fresh = Driver::open(bench.options()).unwrap();
        let fault = bench.fake.fail(read, Code::UNKNOWN).unwrap();
        let unclear = |driver: &mut Driver| {
            let failures = driver.inventory().unwrap().failures;
            failures.iter().map(|failure| failure.unclear).collect::<Vec<_>>()
        };
        for _ in 1..UNCLEAR_MAX {
            assert_eq!(unclear(&mut fresh), [true], "{read}");
        }
        assert_eq!(unclear(&mut fresh), [false], "{read}");
        bench.fake.lift(fault).unwrap();
        assert_eq!(unclear(&mut fresh), [], "{read}");
        bench.fake.fail_times(read, Code::UNKNOWN, UNCLEAR_MAX).unwrap();
        assert!(!unclear(&mut fresh).contains(&false), "{read}: it is counted anew");
    }
}

#[test]
fn a_known_device_keeps_its_size_while_its_memory_is_unclear() {
    let bench = Bench::with(1);
    let mut driver = bench.driver();
    bench.fake.fail("nvmlDeviceGetMemoryInfo_v2", Code::UNKNOWN).unwrap();
    for _ in 1..UNCLEAR_MAX {
        let devices = driver.inventory().unwrap().devices;
        assert_eq!(devices[0].memory.unwrap().total_bytes, 80 * GIB);
    }
    let failures = driver.inventory().unwrap().failures;
    assert!(matches!(&failures[..], [lost] if !lost.unclear), "{failures:?}");
}

#[test]
fn a_sensor_that_fails_takes_nothing_else_with_it() {
    let bench = Bench::with(1);
    let mut driver = bench.driver();
    bench.fake.fail("nvmlDeviceGetTemperature", Code::UNKNOWN).unwrap();
    bench.fake.fail("nvmlDeviceGetPowerUsage", Code::NO_PERMISSION).unwrap();
    for _ in 0..=UNCLEAR_MAX {
        let sample = driver.sample(&uuid(0)).unwrap();
        assert_eq!((sample.temperature_celsius, sample.power_draw_milliwatts), (None, None));
        assert!(sample.memory.is_some() && sample.utilization_permille.is_some());
    }
    let closed: Vec<_> =
        driver.take_remarks().into_iter().filter(|one| one.not_permitted).collect();
    assert!(matches!(&closed[..], [one] if one.figure == Figure::Power), "{closed:?}");
    bench.fake.lift_all().unwrap();
    assert!(driver.sample(&uuid(0)).unwrap().power_draw_milliwatts.is_some(), "it is tried again");
}

#[test]
fn processes_of_all_lists_are_told_once_each() {
    let bench = Bench::with(1);
    let fake = &bench.fake;
    fake.set_processes(&uuid(0), Kind::Compute, &[(7, Some(GIB)), (8, None)]).unwrap();
    fake.set_processes(&uuid(0), Kind::Graphics, &[(7, Some(GIB)), (9, Some(5))]).unwrap();
    fake.set_processes(&uuid(0), Kind::Mps, &[(10, Some(1))]).unwrap();
    let processes = known(&mut bench.driver());
    let told: Vec<_> =
        processes.iter().map(|ProcessUse { pid, bytes, .. }| (*pid, *bytes)).collect();
    assert_eq!(told, [(7, Some(GIB)), (8, None), (9, Some(5)), (10, Some(1))]);
    for list in ["Compute", "Graphics", "MPSCompute"] {
        let calls = fake.calls(&format!("nvmlDeviceGet{list}RunningProcesses_v3")).unwrap();
        assert_eq!(calls, 1, "{list}: a list that fits is asked for once");
    }
}

#[test]
fn a_list_longer_than_expected_is_read_whole() {
    let bench = Bench::with(1);
    let many: Vec<_> = (1..=1_000).map(|pid| (pid, Some(1))).collect();
    bench.fake.set_processes(&uuid(0), Kind::Compute, &many).unwrap();
    let grown = (2_001..2_100).map(|pid| Process::new(pid, Some(1))).collect();
    bench.fake.grow_processes_between_calls(&uuid(0), grown).unwrap();
    let processes = known(&mut bench.driver());
    assert!(processes.len() >= 1_000, "{}", processes.len());
}

#[test]
fn processes_are_unknown_if_any_list_cannot_be_read_unless_the_device_has_none() {
    let bench = Bench::with(1);
    let mut driver = bench.driver();
    let list = |name: &str| format!("nvmlDeviceGet{name}RunningProcesses_v3");
    for (name, code, expected) in [
        ("Compute", Code::UNKNOWN, ProcessList::Unclear),
        ("Graphics", Code::UNKNOWN, ProcessList::Unclear),
        ("MPSCompute", Code::NO_PERMISSION, ProcessList::NotPermitted),
        ("MPSCompute", Code::UNKNOWN, ProcessList::Unclear),
    ] {
        let fault = bench.fake.fail(list(name).as_str(), code).unwrap();
        assert_eq!(driver.processes(&uuid(0)).unwrap(), expected, "{name}");
        bench.fake.lift(fault).unwrap();
    }
    bench.fake.fail(list("Graphics").as_str(), Code::NOT_SUPPORTED).unwrap();
    assert_eq!(known(&mut driver), []);
    bench.fake.fail(list("Compute").as_str(), Code::NOT_SUPPORTED).unwrap();
    for _ in 0..2 {
        assert_eq!(driver.processes(&uuid(0)).unwrap(), ProcessList::Unsupported);
    }
}

#[test]
fn a_driver_that_goes_away_says_so_and_is_opened_anew() {
    let bench = Bench::with(1);
    let mut driver = bench.driver();
    let of = |code: Code| {
        let fault = bench.fake.fail("nvmlDeviceGetMemoryInfo_v2", code).unwrap();
        move |bench: &Bench| bench.fake.lift(fault).unwrap()
    };
    let lift = of(Code::VERSION_MISMATCH);
    let told = driver.sample(&uuid(0));
    assert!(matches!(told, Err(Trouble::Driver(DriverError::NeedsRestart { .. }))), "{told:?}");
    lift(&bench);
    let lift = of(Code::DRIVER_NOT_LOADED);
    let told = driver.sample(&uuid(0));
    assert!(matches!(told, Err(Trouble::Driver(DriverError::NotLoaded { .. }))), "{told:?}");
    lift(&bench);
    driver.rebuild().unwrap();
    driver.inventory().unwrap();
    assert_eq!(memory_used(&mut driver, 0), Some(0));
}

#[test]
fn what_keeps_the_library_from_opening_is_told_apart() {
    let none = Options { library: Some("there/is/none.so".into()), ..Options::default() };
    assert!(matches!(Driver::open(none), Err(DriverError::NoLibrary { .. })));
    let bench = Bench::with(1);
    for (code, expected) in [
        (Code::DRIVER_NOT_LOADED, "modprobe nvidia"),
        (Code::VERSION_MISMATCH, "restart this host"),
        (Code::NO_PERMISSION, "/dev/nvidiactl"),
        (Code::UNKNOWN, "initializing NVML"),
    ] {
        let fault = bench.fake.fail("nvmlInit_v2", code).unwrap();
        let told = Driver::open(bench.options()).map(drop).unwrap_err().to_string();
        assert!(told.contains(expected), "{told}");
        bench.fake.lift(fault).unwrap();
    }
}

#[test]
fn a_quiesced_driver_holds_nothing_and_resumes() {
    let bench = Bench::with(1);
    let mut driver = bench.driver();
    driver.quiesce();
    assert_eq!(bench.fake.calls("nvmlShutdown").unwrap(), 1);
    for told in
        [driver.sample(&uuid(0)).map(drop), driver.inventory().map(drop).map_err(Trouble::Driver)]
    {
        assert!(matches!(told, Err(Trouble::Driver(DriverError::Quiesced))), "{told:?}");
    }
    assert!(matches!(driver.rebuild(), Err(DriverError::Quiesced)));
    assert_eq!(bench.fake.calls("nvmlInit_v2").unwrap(), 1, "nothing opens it by the way");
    driver.resume().unwrap();
    driver.inventory().unwrap();
    assert_eq!(memory_used(&mut driver, 0), Some(0));
}

#[test]
fn a_sleeping_device_is_not_called() {
    let bench = Bench::with(2);
    let mut driver = bench.driver();
    let status = "bus/pci/devices/0000:18:00.0/power/runtime_status";
    let status = bench.options().sysfs_root.join(status);
    write(&status, "suspended\n");
    let about = || {
        let of = |symbol: &str| bench.fake.device_calls(symbol, &uuid(0)).unwrap();
        of("nvmlDeviceGetMemoryInfo_v2") + of("nvmlDeviceGetTemperature") + of("nvmlDeviceGetName")
    };
    let before = about();
    assert!(matches!(driver.sample(&uuid(0)), Err(Trouble::Asleep)));
    assert_eq!(driver.inventory().unwrap().devices.len(), 2, "it is there all the same");
    assert_eq!(about(), before);
    assert_eq!(memory_used(&mut driver, 1), Some(0));
    write(&status, "active\n");
    assert_eq!(memory_used(&mut driver, 0), Some(0));
}
