//! Lists of processes: room, growth between two calls, and shares of time.

use gpulease_fake_nvml::{Process, ProcessKind, uuid};
use nvml_wrapper::error::NvmlError;

use crate::Loaded;

#[test]
fn a_list_that_grows_between_two_calls_is_too_long_once() {
    let loaded = Loaded::with_devices(1);
    let (fake, device) = (&loaded.fake, loaded.device(0));
    fake.set_processes(&uuid(0), ProcessKind::Compute, &[(1, Some(1))]).unwrap();
    // The wrapper leaves room for 5 more.
    let more: Vec<Process> = (2..8).map(|pid| Process::new(pid, Some(1))).collect();
    fake.grow_processes_between_calls(&uuid(0), more).unwrap();
    assert!(matches!(device.running_compute_processes(), Err(NvmlError::InsufficientSize(_))));
    assert_eq!(device.running_compute_processes().unwrap().len(), 7);
}

#[test]
fn a_list_may_grow_several_times() {
    let loaded = Loaded::with_devices(1);
    let (fake, device) = (&loaded.fake, loaded.device(0));
    fake.set_processes(&uuid(0), ProcessKind::Compute, &[(1, Some(1))]).unwrap();
    for begin in [10, 20] {
        let more = (begin..begin + 6).map(|pid| Process::new(pid, None)).collect();
        fake.grow_processes_between_calls(&uuid(0), more).unwrap();
    }
    assert!(device.running_compute_processes().is_err());
    assert!(device.running_compute_processes().is_err());
    assert_eq!(device.running_compute_processes().unwrap().len(), 13);
}

#[test]
fn growth_that_fits_into_the_room_goes_unnoticed() {
    let loaded = Loaded::with_devices(1);
    let (fake, device) = (&loaded.fake, loaded.device(0));
    fake.set_processes(&uuid(0), ProcessKind::Compute, &[(1, Some(1))]).unwrap();
    fake.grow_processes_between_calls(&uuid(0), vec![Process::new(2, None)]).unwrap();
    assert_eq!(device.running_compute_processes().unwrap().len(), 2);
}

#[test]
fn nobody_with_a_share_of_the_time_is_told_as_not_found() {
    let loaded = Loaded::with_devices(1);
    let device = loaded.device(0);
    assert!(matches!(device.process_utilization_stats(None), Err(NvmlError::NotFound)));
    let busy = Process { utilization_percent: Some(37), ..Process::new(5, None) };
    loaded.fake.edit_device(&uuid(0), |device| device.processes.push(busy)).unwrap();
    let shares = device.process_utilization_stats(None).unwrap();
    assert_eq!((shares.len(), shares[0].pid, shares[0].sm_util), (1, 5, 37));
}
