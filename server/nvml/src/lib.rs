//! NVIDIA devices, read through NVML: what they are, what they measure, which processes use them.
//!
//! A [`Driver`] owns the library. It is driven by one thread, for every call may hang for ever, and it never creates a
//! CUDA context. It promises that a figure that cannot be read is absent and never 0, that one device's failure fails
//! no other, and that a sleeping device is not woken to be measured.
//! It knows no clock: when to sample, to retry and to give up is the caller's. What a process id means is not its
//! business either; NVML's are the host's.
//! The unsafe code of gpulease is in `session`, and nowhere else outside tests.

mod driver;
mod error;
mod inventory;
mod pci;
mod process;
mod sample;
mod session;

pub use driver::{DEVICES_MAX, Driver, Options, Remark, Trouble, UNCLEAR_MAX};
pub use error::DriverError;
pub use inventory::{DeviceFailure, DeviceInfo, Inventory, MemorySize};
pub use pci::{BadPciAddress, PciAddress};
pub use process::{Kinds, PROCESSES_MAX, ProcessList, ProcessUse};
pub use sample::{Figure, Memory, Sample};
