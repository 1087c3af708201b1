//! Steering from outside: a process that knows nothing of the test, and a state that somebody else wrote.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use gpulease_fake_nvml::{Device, FakeNvml, Memory, uuid};
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;

use crate::{Loaded, load};

/// Set for the child alone: the library it loads.
const LIBRARY: &str = "GPULEASE_FAKE_NVML_OF_CHILD";

/// The child's part: for each line that comes in, one that says what the library says.
fn answer_lines(library: &str) {
    let nvml = load(library.as_ref());
    for _ in std::io::stdin().lines() {
        let count = nvml.device_count().unwrap();
        let celsius = nvml
            .device_by_index(0)
            .and_then(|device| device.temperature(TemperatureSensor::Gpu))
            .map_or_else(|error| error.to_string(), |celsius| celsius.to_string());
        std::io::stderr().write_all(format!("{count} {celsius}\n").as_bytes()).unwrap();
    }
}

struct Reader {
    child: Child,
    said: BufReader<ChildStderr>,
}

impl Reader {
    fn start(fake: &FakeNvml) -> Reader {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "outside::another_process_is_steered_while_it_runs", "--nocapture"])
            .env(LIBRARY, fake.library())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        Reader { child, said }
    }

    fn ask(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    fn told(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn asked(&mut self) -> String {
        self.ask();
        self.told()
    }
}

#[test]
fn another_process_is_steered_while_it_runs() {
    if let Ok(library) = std::env::var(LIBRARY) {
        return answer_lines(&library);
    }
    let folder = tempfile::tempdir().unwrap();
    let fake = FakeNvml::copy_to(folder.path()).unwrap();
    fake.add_device(Device::new(0)).unwrap();
    let mut reader = Reader::start(&fake);
    assert_eq!(reader.asked(), "1 40");
    fake.set_temperature(&uuid(0), Some(88)).unwrap();
    fake.add_device(Device::new(1)).unwrap();
    assert_eq!(reader.asked(), "2 88");
    fake.lose(&uuid(0)).unwrap();
    assert_eq!(reader.asked(), format!("2 {}", NvmlError::GpuLost));
    fake.restore(&uuid(0)).unwrap();

    let symbol = "nvmlDeviceGetTemperature";
    let before = fake.calls(symbol).unwrap();
    let fault = fake.hang(symbol).unwrap();
    reader.ask();
    crate::until("the call hangs", || fake.calls(symbol).unwrap() == before + 1);
    fake.lift(fault).unwrap();
    assert_eq!(reader.told(), "2 88");
    drop(reader.child.stdin.take());
    assert!(reader.child.wait().unwrap().success());
}

/// Puts a state in place as a program in another language does.
fn put(fake: &FakeNvml, text: &str) {
    let draft = fake.state_path().with_extension("other");
    fs::write(&draft, text).unwrap();
    fs::rename(draft, fake.state_path()).unwrap();
}

#[test]
fn a_state_that_somebody_else_wrote_needs_only_what_matters() {
    let loaded = Loaded::with_devices(0);
    put(&loaded.fake, r#"{"devices": [{"uuid": "GPU-a"}, {"uuid": "GPU-b", "name": "other"}]}"#);
    let device = loaded.nvml.device_by_index(1).unwrap();
    assert_eq!((device.uuid().unwrap(), device.name().unwrap()), ("GPU-b".into(), "other".into()));
    assert_eq!(device.memory_info().unwrap().total, 80 << 30);
    let fault = r#"{"number": 1, "device": "GPU-b", "act": {"fail": 15}}"#;
    put(&loaded.fake, &format!(r#"{{"devices": [{{"uuid": "GPU-b"}}], "faults": [{fault}]}}"#));
    assert!(matches!(loaded.nvml.device_by_index(0), Err(NvmlError::GpuLost)));
}

#[test]
fn a_state_that_cannot_be_read_fails_every_call_until_it_is_another() {
    let loaded = Loaded::with_devices(1);
    put(&loaded.fake, r#"{"devises": []}"#);
    assert!(matches!(loaded.nvml.device_count(), Err(NvmlError::Unknown)));
    assert!(loaded.nvml.lib().nvmlErrorString.is_ok());
    put(&loaded.fake, "{}");
    assert_eq!(loaded.nvml.device_count().unwrap(), 0);
}

#[test]
fn the_library_without_a_state_has_no_devices() {
    let loaded = Loaded::with_devices(1);
    fs::remove_file(loaded.fake.state_path()).unwrap();
    assert_eq!(loaded.nvml.device_count().unwrap(), 0);
}

#[test]
fn changes_that_follow_each_other_closely_are_all_seen() {
    let loaded = Loaded::with_devices(1);
    let device = loaded.device(0);
    for celsius in 10..99 {
        // Files of one length, within one tick of the clock of many file systems, whose inodes may come back.
        loaded.fake.set_temperature(&uuid(0), Some(celsius)).unwrap();
        loaded.fake.set_temperature(&uuid(0), Some(celsius + 1)).unwrap();
        let told = device.temperature(TemperatureSensor::Gpu).unwrap();
        assert_eq!(i32::try_from(told).unwrap(), celsius + 1);
    }
}

#[test]
fn every_thread_sees_whole_states_while_they_change() {
    let loaded = Loaded::with_devices(1);
    let set = |part: u64| {
        let memory = Memory { total_bytes: part * 3, reserved_bytes: part, used_bytes: part };
        loaded.fake.edit_device(&uuid(0), |device| device.memory = Some(memory)).unwrap();
    };
    set(1);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let device = loaded.device(0);
                while !is_over.load(Ordering::Relaxed) {
                    let memory = device.memory_info().unwrap();
                    assert_eq!((memory.total, memory.free), (memory.used * 3, memory.used));
                }
            });
        }
        (2..300).for_each(set);
        is_over.store(true, Ordering::Relaxed);
    });
}
