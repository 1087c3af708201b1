//! Errors, links, wear, thresholds, clocks.

use gpulease_fake_nvml::device::{Ecc, Health, Pcie, RemappedRows};
use gpulease_fake_nvml::{Code, uuid};
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{
    Clock, EccCounter, MemoryError, PcieUtilCounter, PerformancePolicy, TemperatureThreshold,
};
use nvml_wrapper::error::NvmlError;

use crate::Loaded;

#[test]
fn errors_are_counted_by_kind_and_time() {
    let loaded = Loaded::with_devices(1);
    let ecc = Ecc { corrected: 1, uncorrected: 2, corrected_ever: 3, uncorrected_ever: 4 };
    loaded.fake.edit_device(&uuid(0), |it| it.health.ecc = Some(ecc)).unwrap();
    let device = loaded.device(0);
    assert!(device.is_ecc_enabled().unwrap().currently_enabled);
    let counts: Vec<u64> = [EccCounter::Volatile, EccCounter::Aggregate]
        .into_iter()
        .flat_map(|over| {
            [MemoryError::Corrected, MemoryError::Uncorrected]
                .map(|kind| device.total_ecc_errors(kind, over).unwrap())
        })
        .collect();
    assert_eq!(counts, [1, 2, 3, 4]);
}

#[test]
fn the_link_is_told() {
    let loaded = Loaded::with_devices(1);
    let pcie =
        Pcie { generation: (1, 4), width: (8, 16), replays: 3, throughput_kilobytes: (5, 6) };
    loaded.fake.edit_device(&uuid(0), |it| it.health.pcie = Some(pcie)).unwrap();
    let device = loaded.device(0);
    assert_eq!(device.current_pcie_link_gen().unwrap(), 1);
    assert_eq!(device.max_pcie_link_gen().unwrap(), 4);
    assert_eq!(device.current_pcie_link_width().unwrap(), 8);
    assert_eq!(device.max_pcie_link_width().unwrap(), 16);
    assert_eq!(device.pcie_replay_counter().unwrap(), 3);
    assert_eq!(device.pcie_throughput(PcieUtilCounter::Send).unwrap(), 5);
    assert_eq!(device.pcie_throughput(PcieUtilCounter::Receive).unwrap(), 6);
}

#[test]
fn remapped_rows_are_told() {
    let loaded = Loaded::with_devices(1);
    let rows = RemappedRows { correctable: 1, uncorrectable: 2, pending: true, failed: false };
    loaded.fake.edit_device(&uuid(0), |it| it.health.remapped_rows = Some(rows)).unwrap();
    let device = loaded.device(0);
    let mut told = [9_u32; 4];
    let [first, second, third, fourth] = &mut told;
    // SAFETY: the four numbers are there to be written to.
    #[allow(unsafe_code, reason = "the wrapper has no method for it")]
    let code = unsafe {
        loaded.nvml.lib().nvmlDeviceGetRemappedRows(device.handle(), first, second, third, fourth)
    };
    assert_eq!((Code(code), told), (Code::SUCCESS, [1, 2, 1, 0]));
}

#[test]
fn violations_are_told_by_policy() {
    let loaded = Loaded::with_devices(1);
    let set = |it: &mut gpulease_fake_nvml::Device| {
        it.health.violation_nanoseconds.insert(1, 12_000);
    };
    loaded.fake.edit_device(&uuid(0), set).unwrap();
    let device = loaded.device(0);
    let thermal = device.violation_status(PerformancePolicy::Thermal).unwrap();
    assert_eq!(thermal.violation_time, 12_000);
    let absent = device.violation_status(PerformancePolicy::LowUtilization);
    assert!(matches!(absent, Err(NvmlError::NotSupported)));
}

#[test]
fn thresholds_clocks_and_their_reasons_are_told() {
    let loaded = Loaded::with_devices(1);
    loaded.fake.set_clock_events(&uuid(0), Some(0x48)).unwrap();
    let device = loaded.device(0);
    assert_eq!(device.temperature_threshold(TemperatureThreshold::Slowdown).unwrap(), 89);
    assert_eq!(device.clock_info(Clock::Memory).unwrap(), 2_619);
    assert_eq!(device.max_clock_info(Clock::SM).unwrap(), 1_980);
    let reasons = device.current_throttle_reasons().unwrap();
    let bad = ThrottleReasons::HW_SLOWDOWN | ThrottleReasons::HW_THERMAL_SLOWDOWN;
    assert_eq!(reasons, bad);
}

#[test]
fn a_device_may_have_none_of_it() {
    let loaded = Loaded::with_devices(1);
    loaded.fake.edit_device(&uuid(0), |it| it.health = Health::absent()).unwrap();
    let device = loaded.device(0);
    assert!(matches!(device.is_ecc_enabled(), Err(NvmlError::NotSupported)));
    assert!(matches!(device.current_pcie_link_gen(), Err(NvmlError::NotSupported)));
    let thermal = device.violation_status(PerformancePolicy::Thermal);
    assert!(matches!(thermal, Err(NvmlError::NotSupported)));
}
