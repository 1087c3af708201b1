//! What there is: devices with what does not change while the driver runs, and those that do not answer.

use crate::pci::PciAddress;

/// All devices of the driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The driver's version, such as `580.82.07`.
    pub driver_version: Option<String>,
    /// The library's version.
    pub nvml_version: Option<String>,
    /// What answers, in order of the address on the PCI bus; devices without one come last.
    pub devices: Vec<DeviceInfo>,
    /// What does not.
    pub failures: Vec<DeviceFailure>,
}

/// One device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its identity.
    pub uuid: String,
    /// NVML's number of it, which is neither CUDA's nor stable.
    pub index: u32,
    /// Where it is.
    pub pci_address: Option<PciAddress>,
    /// Its model; what was no Unicode of it is replaced.
    pub model: String,
    /// Its compute capability.
    pub compute_capability: Option<(u32, u32)>,
    /// Its memory; `None`: nobody says.
    pub memory: Option<MemorySize>,
    /// Whether it is partitioned into instances (MIG); `None`: it cannot be.
    pub mig_enabled: Option<bool>,
}

/// How much memory a device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySize {
    /// All of it, in bytes.
    pub total_bytes: u64,
    /// Of these the driver's own, in bytes; `None`: the driver does not say.
    pub reserved_bytes: Option<u64>,
    /// It is the memory of the host.
    pub unified: bool,
}

/// A device that is there and cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFailure {
    /// NVML's number of it.
    pub index: u32,
    /// Its identity, where it was known before.
    pub uuid: Option<String>,
    /// Why, for people.
    pub reason: String,
    /// It is there for others, and not for this user: no fault of the device.
    pub not_permitted: bool,
    /// It said nothing clear, and not yet in [`crate::UNCLEAR_MAX`] inventories in a row: it may be well.
    pub unclear: bool,
}
