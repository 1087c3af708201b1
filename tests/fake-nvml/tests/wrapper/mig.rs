//! MIG: off by default; instances are found through their device and are not counted.

use gpulease_fake_nvml::{Device, uuid};
use nvml_wrapper::error::NvmlError;

use crate::Loaded;

#[test]
fn mig_is_not_supported_unless_the_device_has_it() {
    let loaded = Loaded::with_devices(1);
    assert!(matches!(loaded.device(0).mig_mode(), Err(NvmlError::NotSupported)));
    loaded.fake.edit_device(&uuid(0), |it| it.mig_mode = Some((0, 1))).unwrap();
    let mode = loaded.device(0).mig_mode().unwrap();
    assert_eq!((mode.current, mode.pending), (0, 1));
}

#[test]
fn an_instance_has_memory_of_its_own_and_no_utilization() {
    let parent = Device { mig_mode: Some((1, 1)), ..Device::new(0) };
    let loaded = Loaded::after(0, |fake| {
        fake.add_device(parent.clone()).unwrap();
        fake.add_device(Device::mig_instance(&parent, 1)).unwrap();
        fake.add_device(Device::mig_instance(&parent, 2)).unwrap();
    });
    assert_eq!(loaded.nvml.device_count().unwrap(), 1);
    let device = loaded.device(0);
    let second = device.mig_device_by_index(1).unwrap();
    assert_eq!(second.memory_info().unwrap().total, 10 << 30);
    assert!(matches!(second.utilization_rates(), Err(NvmlError::NotSupported)));
    assert_eq!(second.index().unwrap(), 1);
    assert_eq!(second.mig_parent_device().unwrap().uuid().unwrap(), uuid(0));
    assert!(matches!(device.mig_device_by_index(2), Err(NvmlError::NotFound)));
}
