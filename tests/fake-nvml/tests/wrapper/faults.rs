//! Calls that fail, take long, hang, or are not there; and what was called.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use gpulease_fake_nvml::{Calls, Code, FakeNvml, uuid};
use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;

use crate::{Loaded, until};

const POWER: &str = "nvmlDeviceGetPowerUsage";

#[test]
fn a_function_fails_for_every_device_until_the_fault_is_lifted() {
    let loaded = Loaded::with_devices(2);
    let fault = loaded.fake.fail(POWER, Code::NO_PERMISSION).unwrap();
    for index in 0..2 {
        let power = loaded.device(index).power_usage();
        assert!(matches!(power, Err(NvmlError::NoPermission)));
    }
    assert!(loaded.device(0).memory_info().is_ok());
    loaded.fake.lift(fault).unwrap();
    assert!(loaded.device(0).power_usage().is_ok());
}

#[test]
fn a_function_fails_for_one_device_alone() {
    let loaded = Loaded::with_devices(2);
    loaded.fake.fail((POWER, uuid(1).as_str()), Code::NOT_SUPPORTED).unwrap();
    assert!(loaded.device(0).power_usage().is_ok());
    assert!(matches!(loaded.device(1).power_usage(), Err(NvmlError::NotSupported)));
}

#[test]
fn everything_about_one_device_fails() {
    let loaded = Loaded::with_devices(2);
    let second = loaded.device(1);
    loaded.fake.fail(Calls::about(&uuid(1)), Code::UNKNOWN).unwrap();
    assert!(matches!(second.power_usage(), Err(NvmlError::Unknown)));
    assert!(matches!(loaded.nvml.device_by_index(1), Err(NvmlError::Unknown)));
    assert!(matches!(loaded.nvml.device_by_uuid(uuid(1)), Err(NvmlError::Unknown)));
    assert!(loaded.nvml.device_by_index(0).unwrap().power_usage().is_ok());
}

#[test]
fn everything_fails_and_the_end_is_still_possible() {
    let loaded = Loaded::with_devices(1);
    loaded.fake.fail(Calls::all(), Code::VERSION_MISMATCH).unwrap();
    let count = loaded.nvml.device_count();
    assert!(matches!(count, Err(NvmlError::LibRmVersionMismatch)));
    loaded.fake.lift_all().unwrap();
    loaded.nvml.shutdown().unwrap();
}

#[test]
fn a_fault_strikes_as_often_as_it_was_told() {
    let loaded = Loaded::with_devices(1);
    loaded.fake.fail_times(POWER, Code::UNKNOWN, 2).unwrap();
    let went_well: Vec<bool> = (0..4).map(|_| loaded.device(0).power_usage().is_ok()).collect();
    assert_eq!(went_well, [false, false, true, true]);
}

#[test]
fn the_library_may_refuse_to_begin() {
    let folder = tempfile::tempdir().unwrap();
    let fake = FakeNvml::copy_to(folder.path()).unwrap();
    fake.fail("nvmlInit_v2", Code::DRIVER_NOT_LOADED).unwrap();
    let begun = Nvml::builder().lib_path(fake.library().as_os_str()).init();
    assert!(matches!(begun, Err(NvmlError::DriverNotLoaded)));
}

#[test]
fn codes_that_the_wrapper_does_not_know_are_told_too() {
    let loaded = Loaded::with_devices(1);
    loaded.fake.fail(POWER, Code(4_242)).unwrap();
    assert!(matches!(loaded.device(0).power_usage(), Err(NvmlError::UnexpectedVariant(4_242))));
}

#[test]
fn a_delayed_call_takes_as_long_as_it_was_told_and_is_answered() {
    let loaded = Loaded::with_devices(1);
    let delay = Duration::from_millis(50);
    loaded.fake.delay(POWER, delay).unwrap();
    let began = Instant::now();
    assert_eq!(loaded.device(0).power_usage().unwrap(), 70_000);
    assert!(began.elapsed() >= delay);
}

#[test]
fn a_call_that_hangs_holds_up_no_other_and_is_answered_once_the_fault_is_lifted() {
    let loaded = Loaded::with_devices(2);
    let symbol = "nvmlDeviceGetTemperature";
    let fault = loaded.fake.hang((symbol, uuid(0).as_str())).unwrap();
    let answered = AtomicBool::new(false);
    thread::scope(|scope| {
        let hanging = scope.spawn(|| {
            let celsius = loaded.device(0).temperature(TemperatureSensor::Gpu).unwrap();
            answered.store(true, Ordering::SeqCst);
            celsius
        });
        until("the call hangs", || loaded.fake.device_calls(symbol, &uuid(0)).unwrap() == 1);
        loaded.fake.set_temperature(&uuid(1), Some(51)).unwrap();
        for _ in 0..100 {
            assert_eq!(loaded.device(1).temperature(TemperatureSensor::Gpu).unwrap(), 51);
            assert_eq!(loaded.device(0).power_usage().unwrap(), 70_000);
        }
        assert!(!answered.load(Ordering::SeqCst));
        loaded.fake.set_temperature(&uuid(0), Some(66)).unwrap();
        loaded.fake.lift(fault).unwrap();
        assert_eq!(hanging.join().unwrap(), 66);
    });
}

#[test]
fn a_hidden_function_is_missing_and_the_others_are_not() {
    let loaded = Loaded::after(1, |fake| fake.hide("nvmlDeviceGetMemoryInfo_v2").unwrap());
    assert!(matches!(loaded.device(0).memory_info(), Err(NvmlError::FailedToLoadSymbol(_))));
    assert!(loaded.nvml.lib().nvmlDeviceGetMemoryInfo.is_ok());
    assert!(loaded.device(0).power_usage().is_ok());
}

#[test]
fn a_process_that_has_the_library_loaded_keeps_a_hidden_function_until_it_unloads_it() {
    let Loaded { nvml, fake, _folder } = Loaded::with_devices(1);
    fake.hide(POWER).unwrap();
    fake.set_power(&uuid(0), Some(1)).unwrap();
    assert_eq!(nvml.device_by_index(0).unwrap().power_usage().unwrap(), 1);
    drop(nvml);
    let nvml = crate::load(fake.library());
    let power = nvml.device_by_index(0).unwrap().power_usage();
    assert!(matches!(power, Err(NvmlError::FailedToLoadSymbol(_))));
}

#[test]
fn a_function_that_is_not_there_cannot_be_hidden() {
    let folder = tempfile::tempdir().unwrap();
    let fake = FakeNvml::copy_to(folder.path()).unwrap();
    let why = fake.hide("nvmlDeviceGetPower").unwrap_err().to_string();
    assert_eq!(why, "the fake NVML library has no nvmlDeviceGetPower to hide");
}

#[test]
fn calls_are_counted_by_function_and_device() {
    let loaded = Loaded::with_devices(2);
    let (first, second) = (loaded.device(0), loaded.device(1));
    for device in [&first, &first, &second] {
        device.power_usage().unwrap();
    }
    assert_eq!(loaded.fake.calls(POWER).unwrap(), 3);
    assert_eq!(loaded.fake.device_calls(POWER, &uuid(0)).unwrap(), 2);
    assert_eq!(loaded.fake.calls("nvmlInit_v2").unwrap(), 1);
    assert_eq!(loaded.fake.calls("nvmlShutdown").unwrap(), 0);
    loaded.fake.edit(|state| state.calls_recorded = false).unwrap();
    first.power_usage().unwrap();
    assert_eq!(loaded.fake.calls(POWER).unwrap(), 3);
}
