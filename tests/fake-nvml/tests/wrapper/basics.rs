//! What devices there are, who they are, and their plain readings.

use gpulease_fake_nvml::{Code, Device, FakeNvml, ProcessKind, uuid};
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;

use crate::{Loaded, load};

#[test]
fn a_copy_begins_without_devices() {
    assert_eq!(Loaded::with_devices(0).nvml.device_count().unwrap(), 0);
}

#[test]
fn devices_have_indices_in_the_order_they_were_added() {
    let loaded = Loaded::with_devices(3);
    assert_eq!(loaded.nvml.device_count().unwrap(), 3);
    for index in 0..3 {
        let device = loaded.nvml.device_by_index(index).unwrap();
        assert_eq!((device.uuid().unwrap(), device.index().unwrap()), (uuid(index), index));
    }
    assert!(matches!(loaded.nvml.device_by_index(3), Err(NvmlError::InvalidArg)));
}

#[test]
fn later_devices_move_up_when_one_is_removed_and_its_handle_points_to_nothing() {
    let loaded = Loaded::with_devices(2);
    let (first, second) = (loaded.device(0), loaded.device(1));
    loaded.fake.remove_device(&uuid(0)).unwrap();
    assert_eq!((loaded.nvml.device_count().unwrap(), second.index().unwrap()), (1, 0));
    assert!(matches!(first.index(), Err(NvmlError::InvalidArg)));
    loaded.fake.add_device(Device::new(0)).unwrap();
    assert!(matches!(first.index(), Err(NvmlError::InvalidArg)));
    assert_eq!(loaded.device(0).index().unwrap(), 1);
}

#[test]
fn a_device_is_found_by_its_address() {
    let loaded = Loaded::with_devices(2);
    let info = loaded.device(1).pci_info().unwrap();
    assert_eq!((info.bus_id.as_str(), info.bus), ("00000000:19:00.0", 0x19));
    for address in ["00000000:19:00.0", "0000:19:00.0"] {
        let found = loaded.nvml.device_by_pci_bus_id(address).unwrap();
        assert_eq!(found.uuid().unwrap(), uuid(1));
    }
    let absent = loaded.nvml.device_by_pci_bus_id("00000000:42:00.0");
    assert!(matches!(absent, Err(NvmlError::NotFound)));
}

#[test]
fn a_name_need_not_be_utf_8() {
    let loaded = Loaded::with_devices(1);
    assert_eq!(loaded.device(0).name().unwrap(), "NVIDIA H100 80GB HBM3");
    loaded.fake.set_name_bytes(&uuid(0), b"NVIDIA \xff\xfe").unwrap();
    assert!(matches!(loaded.device(0).name(), Err(NvmlError::Utf8Error(_))));
}

#[test]
fn the_second_version_of_memory_tells_the_reserved_apart_from_the_used() {
    let loaded = Loaded::with_devices(1);
    loaded.fake.set_memory_used(&uuid(0), 5 << 30).unwrap();
    loaded.fake.set_memory_reserved(&uuid(0), 1 << 30).unwrap();
    let memory = loaded.device(0).memory_info().unwrap();
    let told = (memory.total, memory.reserved, memory.used, memory.free);
    assert_eq!(told, (80 << 30, 1 << 30, 5 << 30, 74 << 30));
}

#[test]
fn readings_are_what_the_test_set() {
    let loaded = Loaded::with_devices(1);
    let (fake, device) = (&loaded.fake, loaded.device(0));
    fake.set_utilization(&uuid(0), Some((93, 41))).unwrap();
    fake.set_temperature(&uuid(0), Some(71)).unwrap();
    fake.set_power(&uuid(0), Some(350_000)).unwrap();
    let utilization = device.utilization_rates().unwrap();
    assert_eq!((utilization.gpu, utilization.memory), (93, 41));
    assert_eq!(device.temperature(TemperatureSensor::Gpu).unwrap(), 71);
    assert_eq!(device.power_usage().unwrap(), 350_000);
    assert_eq!(device.enforced_power_limit().unwrap(), 700_000);
    assert_eq!(device.power_management_limit_constraints().unwrap().min_limit, 200_000);
}

#[test]
fn a_reading_that_is_absent_is_not_supported() {
    let loaded = Loaded::with_devices(1);
    let (fake, device) = (&loaded.fake, loaded.device(0));
    fake.set_utilization(&uuid(0), None).unwrap();
    fake.set_temperature(&uuid(0), None).unwrap();
    fake.set_power(&uuid(0), None).unwrap();
    fake.edit_device(&uuid(0), |device| device.memory = None).unwrap();
    assert!(matches!(device.utilization_rates(), Err(NvmlError::NotSupported)));
    let celsius = device.temperature(TemperatureSensor::Gpu);
    assert!(matches!(celsius, Err(NvmlError::NotSupported)));
    assert!(matches!(device.power_usage(), Err(NvmlError::NotSupported)));
    assert!(matches!(device.memory_info(), Err(NvmlError::NotSupported)));
}

#[test]
fn compute_and_graphics_processes_stand_in_lists_of_their_own() {
    let loaded = Loaded::with_devices(1);
    let (fake, device) = (&loaded.fake, loaded.device(0));
    fake.set_processes(&uuid(0), ProcessKind::Compute, &[(10, Some(1 << 30)), (11, None)]).unwrap();
    fake.set_processes(&uuid(0), ProcessKind::Graphics, &[(12, Some(1 << 20))]).unwrap();
    let compute = device.running_compute_processes().unwrap();
    let told: Vec<_> = compute.iter().map(|it| (it.pid, it.used_gpu_memory.clone())).collect();
    let used = UsedGpuMemory::Used(1 << 30);
    assert_eq!(told, [(10, used), (11, UsedGpuMemory::Unavailable)]);
    assert_eq!(device.running_graphics_processes().unwrap()[0].pid, 12);
    assert!(device.mps_running_compute_processes().unwrap().is_empty());
}

#[test]
fn a_process_that_runs_and_ends_takes_its_memory_along() {
    let loaded = Loaded::with_devices(1);
    let (fake, device) = (&loaded.fake, loaded.device(0));
    fake.run_process(&uuid(0), 10, 3 << 30).unwrap();
    fake.run_process(&uuid(0), 10, 4 << 30).unwrap();
    assert_eq!(device.memory_info().unwrap().used, 4 << 30);
    assert_eq!(device.running_compute_processes_count().unwrap(), 1);
    fake.end_process(&uuid(0), 10).unwrap();
    assert_eq!(device.memory_info().unwrap().used, 0);
    assert_eq!(device.running_compute_processes_count().unwrap(), 0);
}

#[test]
fn two_copies_have_states_of_their_own() {
    let (one, other) = (Loaded::with_devices(1), Loaded::with_devices(2));
    assert_eq!(one.nvml.device_count().unwrap(), 1);
    assert_eq!(other.nvml.device_count().unwrap(), 2);
}

#[test]
fn a_library_that_was_shut_down_answers_nothing_until_it_is_loaded_again() {
    let folder = tempfile::tempdir().unwrap();
    let fake = FakeNvml::copy_to(folder.path()).unwrap();
    let (first, second) = (load(fake.library()), load(fake.library()));
    first.shutdown().unwrap();
    assert_eq!(second.device_count().unwrap(), 0);
    // SAFETY: the library takes as many ends as it is told; this one is the wrapper's own, told too early.
    #[allow(unsafe_code, reason = "the wrapper has no safe way to end the library and stay loaded")]
    let ended = unsafe { second.lib().nvmlShutdown() };
    assert_eq!(ended, Code::SUCCESS.0);
    assert!(matches!(second.device_count(), Err(NvmlError::Uninitialized)));
    drop(second);
    assert_eq!(load(fake.library()).device_count().unwrap(), 0);
}

#[test]
fn versions_are_told() {
    let loaded = Loaded::with_devices(0);
    loaded.fake.set_driver_version("580.82.07").unwrap();
    assert_eq!(loaded.nvml.sys_driver_version().unwrap(), "580.82.07");
    assert_eq!(loaded.nvml.sys_nvml_version().unwrap(), "12.570.172.08");
    assert_eq!(loaded.nvml.sys_cuda_driver_version().unwrap(), 12_080);
}
