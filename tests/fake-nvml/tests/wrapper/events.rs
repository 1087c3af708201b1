//! Event sets: XIDs in bursts, and what a set does not get.

use std::thread;

use gpulease_fake_nvml::{Code, uuid};
use nvml_wrapper::EventSet;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;

use crate::Loaded;

fn watching<'a>(loaded: &'a Loaded, devices: &[u32]) -> EventSet<'a> {
    let mut set = loaded.nvml.create_event_set().unwrap();
    for &index in devices {
        let device = loaded.device(index);
        let types = device.supported_event_types().unwrap() & EventTypes::CRITICAL_XID_ERROR;
        set = device.register_events(types, set).map_err(|error| error.error).unwrap();
    }
    set
}

/// The codes that the set delivers now, with the device of each.
fn drain(set: &EventSet<'_>) -> Vec<(u32, u64)> {
    let mut codes = Vec::new();
    while let Ok(event) = set.wait(0) {
        let code = match event.event_data {
            Some(XidError::Value(code)) => code,
            other => panic!("an XID has a code, not {other:?}"),
        };
        codes.push((event.device.index().unwrap(), code));
    }
    codes
}

#[test]
fn a_burst_of_xids_is_delivered_once_and_in_order() {
    let loaded = Loaded::with_devices(2);
    let set = watching(&loaded, &[0, 1]);
    loaded.fake.burst_xids(&uuid(0), &[13, 31, 79]).unwrap();
    loaded.fake.burst_xids(&uuid(1), &[48]).unwrap();
    assert_eq!(drain(&set), [(0, 13), (0, 31), (0, 79), (1, 48)]);
    assert_eq!(drain(&set), []);
}

#[test]
fn a_driver_may_tell_the_newest_code_for_each_event_of_a_burst() {
    let loaded = Loaded::with_devices(1);
    let set = watching(&loaded, &[0]);
    loaded.fake.coalesce_xids(true).unwrap();
    loaded.fake.burst_xids(&uuid(0), &[13, 31, 79]).unwrap();
    assert_eq!(drain(&set), [(0, 79), (0, 79), (0, 79)]);
}

#[test]
fn a_set_gets_nothing_of_before_and_nothing_of_other_devices() {
    let loaded = Loaded::with_devices(2);
    loaded.fake.burst_xids(&uuid(0), &[13]).unwrap();
    let set = watching(&loaded, &[0]);
    loaded.fake.burst_xids(&uuid(1), &[48]).unwrap();
    assert!(matches!(set.wait(1), Err(NvmlError::Timeout)));
}

#[test]
fn a_wait_ends_with_the_event_it_waits_for() {
    let loaded = Loaded::with_devices(1);
    let set = watching(&loaded, &[0]);
    thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            let set = set;
            set.wait(30_000).map(|event| event.event_type)
        });
        crate::until("the wait begins", || loaded.fake.calls("nvmlEventSetWait_v2").unwrap() == 1);
        loaded.fake.burst_xids(&uuid(0), &[62]).unwrap();
        assert_eq!(waiting.join().unwrap().unwrap(), EventTypes::CRITICAL_XID_ERROR);
    });
}

#[test]
fn a_wait_tells_of_a_lost_device_after_its_last_events() {
    let loaded = Loaded::with_devices(2);
    let set = watching(&loaded, &[0]);
    loaded.fake.lose(&uuid(1)).unwrap();
    assert!(matches!(set.wait(1), Err(NvmlError::Timeout)));
    loaded.fake.burst_xids(&uuid(0), &[79]).unwrap();
    loaded.fake.lose(&uuid(0)).unwrap();
    assert!(set.wait(1).is_ok());
    assert!(matches!(set.wait(30_000), Err(NvmlError::GpuLost)));
}

#[test]
fn registering_what_a_device_cannot_report_is_not_supported() {
    let loaded = Loaded::with_devices(1);
    loaded.fake.edit_device(&uuid(0), |device| device.event_types = 0).unwrap();
    let set = loaded.nvml.create_event_set().unwrap();
    let refused = loaded.device(0).register_events(EventTypes::CRITICAL_XID_ERROR, set);
    assert!(matches!(refused.unwrap_err().error, NvmlError::NotSupported));
    assert_eq!(loaded.fake.calls("nvmlEventSetFree").unwrap(), 1, "the wrapper gave the set up");
}

#[test]
fn a_wait_fails_as_told() {
    let loaded = Loaded::with_devices(1);
    let set = watching(&loaded, &[0]);
    loaded.fake.fail("nvmlEventSetWait_v2", Code::UNKNOWN).unwrap();
    assert!(matches!(set.wait(0), Err(NvmlError::Unknown)));
}
