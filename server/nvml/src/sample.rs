//! What is measured of a device. What cannot be read is absent.

/// One set of figures of one device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Its memory.
    pub memory: Option<Memory>,
    /// Share of the driver's last period in which something ran, in thousandths. All of it does not prove use: some
    /// devices keep saying so after a process was killed.
    pub utilization_permille: Option<u32>,
    /// Temperature, in degrees Celsius.
    pub temperature_celsius: Option<i32>,
    /// Power draw, in thousandths of a watt.
    pub power_draw_milliwatts: Option<u64>,
    /// Why the clocks are not at their highest, as NVML's bits.
    pub clock_event_bits: Option<u64>,
}

/// The memory of one device at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// All of it, in bytes.
    pub total_bytes: u64,
    /// Of these the driver's own, in bytes; `None`: the driver does not say, and counts it as used.
    pub reserved_bytes: Option<u64>,
    /// In use, in bytes, without the driver's own where that is known.
    pub used_bytes: u64,
    /// It is the memory of the host, which everything on the host uses.
    pub unified: bool,
}

/// Something that is read of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    /// Memory in use.
    Memory,
    /// Memory with the driver's own told apart: NVML's second version.
    MemoryReserved,
    /// Utilization.
    Utilization,
    /// Temperature.
    Temperature,
    /// Power draw.
    Power,
    /// Why the clocks are not at their highest.
    ClockEvents,
    /// Processes that compute.
    ComputeProcesses,
    /// Processes that draw.
    GraphicsProcesses,
    /// Processes that compute through the multi-process service.
    MpsProcesses,
    /// Compute capability.
    ComputeCapability,
    /// Partitioning into instances.
    Mig,
    /// The address on the PCI bus.
    PciAddress,
    /// The model's name.
    Model,
}
