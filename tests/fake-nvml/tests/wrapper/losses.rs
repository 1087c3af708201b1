//! Devices that stop answering and come back; old drivers; counters that begin again.

use gpulease_fake_nvml::{Code, uuid};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper_sys::bindings::nvmlMemory_t;

use crate::Loaded;

#[test]
fn a_lost_device_is_counted_and_every_call_about_it_says_so() {
    let loaded = Loaded::with_devices(2);
    let lost = loaded.device(1);
    loaded.fake.lose(&uuid(1)).unwrap();
    assert_eq!(loaded.nvml.device_count().unwrap(), 2);
    assert!(matches!(lost.memory_info(), Err(NvmlError::GpuLost)));
    assert!(matches!(lost.running_compute_processes(), Err(NvmlError::GpuLost)));
    assert!(matches!(loaded.nvml.device_by_index(1), Err(NvmlError::GpuLost)));
    assert!(matches!(loaded.nvml.device_by_uuid(uuid(1)), Err(NvmlError::GpuLost)));
    assert!(loaded.device(0).memory_info().is_ok());
}

#[test]
fn a_device_that_returns_answers_through_its_old_handle() {
    let loaded = Loaded::with_devices(1);
    let device = loaded.device(0);
    loaded.fake.lose(&uuid(0)).unwrap();
    assert!(device.memory_info().is_err());
    loaded.fake.restore(&uuid(0)).unwrap();
    assert!(device.memory_info().is_ok());
}

#[test]
fn a_device_may_want_a_reset() {
    let loaded = Loaded::with_devices(1);
    let device = loaded.device(0);
    loaded.fake.require_reset(&uuid(0)).unwrap();
    assert!(matches!(device.utilization_rates(), Err(NvmlError::ResetRequired)));
}

#[test]
fn a_driver_that_refuses_the_second_version_of_memory_still_has_the_first() {
    let loaded = Loaded::with_devices(1);
    loaded.fake.set_memory_used(&uuid(0), 5 << 30).unwrap();
    loaded.fake.set_memory_reserved(&uuid(0), 1 << 30).unwrap();
    loaded.fake.refuse_memory_v2(true).unwrap();
    let device = loaded.device(0);
    let refused = device.memory_info();
    assert!(matches!(refused, Err(NvmlError::UnexpectedVariant(25))), "{refused:?}");

    let mut memory = nvmlMemory_t { total: 0, free: 0, used: 0 };
    // SAFETY: the handle is a device's, and the structure is there to be written to.
    #[allow(unsafe_code, reason = "the wrapper has no method for the first version")]
    let code = unsafe { loaded.nvml.lib().nvmlDeviceGetMemoryInfo(device.handle(), &mut memory) };
    let told = (Code(code), memory.total, memory.used, memory.free);
    assert_eq!(told, (Code::SUCCESS, 80 << 30, 6 << 30, 74 << 30));
}

#[test]
fn counters_that_a_driver_keeps_begin_at_0_again() {
    let loaded = Loaded::with_devices(1);
    loaded
        .fake
        .edit_device(&uuid(0), |device| {
            device.power.as_mut().unwrap().energy_millijoules = Some(9_000);
            device.health.pcie.as_mut().unwrap().replays = 7;
        })
        .unwrap();
    let device = loaded.device(0);
    assert_eq!(device.total_energy_consumption().unwrap(), 9_000);
    assert_eq!(device.pcie_replay_counter().unwrap(), 7);
    loaded.fake.reset_counters(&uuid(0)).unwrap();
    assert_eq!(device.total_energy_consumption().unwrap(), 0);
    assert_eq!(device.pcie_replay_counter().unwrap(), 0);
}

#[test]
fn a_change_of_an_unknown_device_is_refused_and_says_which() {
    let loaded = Loaded::with_devices(1);
    let why = loaded.fake.lose("GPU-none").unwrap_err().to_string();
    assert_eq!(why, "there is no device GPU-none in the fake NVML library: add it first");
    let why = loaded.fake.add_device(gpulease_fake_nvml::Device::new(0)).unwrap_err().to_string();
    assert!(why.contains("already has a device"), "{why}");
}
