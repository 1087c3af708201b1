//! One device of the fake: what it is, what its sensors say, and who runs on it.
//!
//! It promises that a reading that is absent here is answered "not supported", never 0.

use std::collections::BTreeMap;

use crate::state::{Fields, no_instances};

/// One device. [`Device::new`] gives a common one; change what matters.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// What handles point to: unique, given by the control when the device is added. In a file that somebody else
    /// wrote, 0 stands for the device's place in the list.
    pub handle: u64,
    /// Its identity, for example `GPU-00000000-0000-0000-0000-000000000000`.
    pub uuid: String,
    /// The product's name.
    pub name: String,
    /// The name as bytes, in place of `name`: for names that are not UTF-8. A zero ends it.
    pub name_bytes: Option<Vec<u8>>,
    /// The number in `/dev/nvidiaN`.
    pub minor_number: Option<u32>,
    /// Where it sits on the PCI bus.
    pub pci: Pci,
    /// CUDA compute capability, major and minor.
    pub compute_capability: Option<(i32, i32)>,
    /// Whether it answers.
    pub presence: Presence,
    /// Its memory; unified-memory parts have none of their own.
    pub memory: Option<Memory>,
    /// Busy time of the last sample period, in percent: compute, then memory.
    pub utilization_percent: Option<(u32, u32)>,
    /// What the sensor says.
    pub temperature_celsius: Option<i32>,
    /// Degrees left until it slows down, on the parts that say so.
    pub temperature_margin_celsius: Option<i32>,
    /// Degrees by number of the threshold: 0 shutdown, 1 slowdown, 2 memory, 3 the highest to operate at.
    pub temperature_thresholds_celsius: BTreeMap<u32, u32>,
    /// Draw, limits and energy.
    pub power: Option<Power>,
    /// The bits that say why clocks are low.
    pub clock_event_bits: Option<u64>,
    /// Who runs on it.
    pub processes: Vec<Process>,
    /// Processes that appear after a call that only asked how many there are; each such call takes the first that it
    /// has not yet seen.
    pub growths: Vec<Growth>,
    /// Which events it can report: bits.
    pub event_types: u64,
    /// Values of fields beside those that follow from other readings.
    pub fields: Fields,
    /// Errors, links and wear, read every minute or so.
    pub health: Health,
    /// MIG mode, now and after a restart: 0 off, 1 on; absent where a device has none.
    pub mig_mode: Option<(u32, u32)>,
    /// What a MIG instance is part of; such a one is not counted, and its index is one within that device.
    pub mig: Option<MigInstance>,
    /// The number of its architecture: 7 Ampere, 8 Ada, 9 Hopper, 10 Blackwell.
    pub architecture: Option<u32>,
    /// The number of its brand.
    pub brand: Option<u32>,
    /// Its performance state: 0 the fastest, 15 the slowest.
    pub performance_state: Option<u32>,
    /// Clocks now and at most, by number: 0 graphics, 1 multiprocessors, 2 memory, 3 video.
    pub clocks_megahertz: BTreeMap<u32, (u32, u32)>,
}

impl Default for Device {
    fn default() -> Self {
        Device {
            handle: 0,
            uuid: String::new(),
            name: "NVIDIA H100 80GB HBM3".to_owned(),
            name_bytes: None,
            minor_number: Some(0),
            pci: Pci::default(),
            compute_capability: Some((9, 0)),
            presence: Presence::Present,
            memory: Some(Memory::default()),
            utilization_percent: Some((0, 0)),
            temperature_celsius: Some(40),
            temperature_margin_celsius: None,
            temperature_thresholds_celsius: [(0, 92), (1, 89), (2, 95), (3, 87)].into(),
            power: Some(Power::default()),
            clock_event_bits: Some(0),
            processes: Vec::new(),
            growths: Vec::new(),
            event_types: 0x1f,
            fields: Fields::new(),
            health: Health::default(),
            mig_mode: None,
            mig: None,
            architecture: Some(9),
            brand: Some(14),
            performance_state: Some(0),
            clocks_megahertz: [(0, (345, 1980)), (1, (345, 1980)), (2, (2619, 2619))].into(),
        }
    }
}

impl Device {
    /// A device of 80 GiB that idles. Its UUID, minor number and PCI bus follow from `number`, each in another way.
    #[must_use]
    pub fn new(number: u32) -> Device {
        Device {
            uuid: uuid(number),
            minor_number: Some(number),
            pci: Pci { bus: 0x18 + number % 0xe0, ..Pci::default() },
            ..Device::default()
        }
    }

    /// An eighth of `parent` as a MIG instance: it has memory of its own, and neither utilization nor sensors.
    #[must_use]
    pub fn mig_instance(parent: &Device, number: u32) -> Device {
        let memory = parent.memory.as_ref().map(|memory| Memory {
            total_bytes: memory.total_bytes / 8,
            reserved_bytes: memory.reserved_bytes / 8,
            used_bytes: 0,
        });
        Device {
            uuid: format!("MIG-{number:08x}-{}", parent.uuid.trim_start_matches("GPU-")),
            name: format!("{} MIG 1g.10gb", parent.name),
            minor_number: parent.minor_number,
            pci: parent.pci.clone(),
            memory,
            utilization_percent: None,
            temperature_celsius: None,
            temperature_thresholds_celsius: BTreeMap::new(),
            power: None,
            clock_event_bits: None,
            event_types: 0,
            health: Health::absent(),
            mig: Some(MigInstance { parent: parent.uuid.clone(), instances: (number, 0) }),
            performance_state: None,
            clocks_megahertz: BTreeMap::new(),
            ..Device::default()
        }
    }
}

/// What a MIG instance is part of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MigInstance {
    /// UUID of the device.
    pub parent: String,
    /// Its GPU instance and compute instance.
    pub instances: (u32, u32),
}

/// The UUID that [`Device::new`] gives the device of a number.
#[must_use]
pub fn uuid(number: u32) -> String {
    format!("GPU-{number:08x}-feed-4bad-8cab-000000000000")
}

/// Where a device sits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pci {
    /// The domain.
    pub domain: u32,
    /// The bus.
    pub bus: u32,
    /// The device on the bus.
    pub device: u32,
    /// Vendor (low half) and product.
    pub id: u32,
    /// Vendor and product of the board.
    pub subsystem_id: u32,
}

impl Default for Pci {
    fn default() -> Self {
        Pci { domain: 0, bus: 0x18, device: 0, id: 0x2330_10de, subsystem_id: 0x16c1_10de }
    }
}

/// Whether a device answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It does.
    Present,
    /// It fell off the bus: every call about it says that it is lost, also those that look for its handle.
    Lost,
    /// Every call about it says that it has to be reset.
    ResetRequired,
}

/// Memory of a device. Free is what the other three leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub total_bytes: u64,
    /// What the driver keeps; the first version of the reading counts it as used.
    pub reserved_bytes: u64,
    /// What is in use, without the reserved.
    pub used_bytes: u64,
}

impl Default for Memory {
    fn default() -> Self {
        Memory { total_bytes: 80 << 30, reserved_bytes: 600 << 20, used_bytes: 0 }
    }
}

impl Memory {
    /// What nobody uses.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.total_bytes.saturating_sub(self.reserved_bytes).saturating_sub(self.used_bytes)
    }
}

/// Power of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Power {
    /// What it draws now.
    pub draw_milliwatts: u32,
    /// The limit that holds.
    pub limit_milliwatts: u32,
    /// The limits that may be set.
    pub limit_bounds_milliwatts: (u32, u32),
    /// Used since the driver was loaded.
    pub energy_millijoules: Option<u64>,
}

impl Default for Power {
    fn default() -> Self {
        Power {
            draw_milliwatts: 70_000,
            limit_milliwatts: 700_000,
            limit_bounds_milliwatts: (200_000, 700_000),
            energy_millijoules: Some(0),
        }
    }
}

/// A process on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number on the host.
    pub pid: u32,
    /// Memory it uses; absent where the driver cannot tell, which it says with all bits set.
    pub memory_used_bytes: Option<u64>,
    /// In which list it stands.
    pub kind: ProcessKind,
    /// Which GPU instance and compute instance; both 0xFFFFFFFF outside MIG.
    pub instances: (u32, u32),
    /// Its share of the device's time, in percent, on the parts that say so.
    pub utilization_percent: Option<u32>,
}

impl Process {
    /// A process that computes.
    #[must_use]
    pub fn new(pid: u32, memory_used_bytes: Option<u64>) -> Process {
        Process {
            pid,
            memory_used_bytes,
            kind: ProcessKind::Compute,
            instances: no_instances(),
            utilization_percent: None,
        }
    }
}

impl Default for Process {
    fn default() -> Self {
        Process::new(0, None)
    }
}

/// In which list a process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProcessKind {
    /// It has a CUDA context.
    #[default]
    Compute,
    /// It draws.
    Graphics,
    /// It computes through MPS.
    Mps,
}

/// Processes that appear between two calls.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Growth {
    /// Its number, by which the library remembers that it happened.
    pub number: u64,
    /// Who appears.
    pub processes: Vec<Process>,
}

/// Errors, links and wear of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// ECC, where it is on.
    pub ecc: Option<Ecc>,
    /// The PCIe link.
    pub pcie: Option<Pcie>,
    /// Memory rows that were remapped.
    pub remapped_rows: Option<RemappedRows>,
    /// Nanoseconds that each policy held clocks down, by number: 0 power, 1 thermal, 2 sync boost, 3 board limit, …
    pub violation_nanoseconds: BTreeMap<u32, u64>,
    /// What the driver would have done: 0 nothing, 1 reset, 2 reboot, 3 drain peers, 4 drain and reset.
    pub recovery_action: Option<u32>,
}

impl Default for Health {
    fn default() -> Self {
        Health {
            ecc: Some(Ecc::default()),
            pcie: Some(Pcie::default()),
            remapped_rows: Some(RemappedRows::default()),
            violation_nanoseconds: [(0, 0), (1, 0)].into(),
            recovery_action: Some(0),
        }
    }
}

impl Health {
    /// Nothing of it is supported.
    #[must_use]
    pub fn absent() -> Health {
        Health {
            ecc: None,
            pcie: None,
            remapped_rows: None,
            violation_nanoseconds: BTreeMap::new(),
            recovery_action: None,
        }
    }
}

/// Counts of memory errors.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ecc {
    /// Corrected, since the driver was loaded.
    pub corrected: u64,
    /// Not corrected, since the driver was loaded.
    pub uncorrected: u64,
    /// Corrected, over the life of the device.
    pub corrected_ever: u64,
    /// Not corrected, over the life of the device.
    pub uncorrected_ever: u64,
}

/// The PCIe link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pcie {
    /// Generation now, and at most.
    pub generation: (u32, u32),
    /// Lanes now, and at most.
    pub width: (u32, u32),
    /// How often a packet was sent again, since the driver was loaded.
    pub replays: u32,
    /// Kilobytes per second sent, then received, over the last 20 ms.
    pub throughput_kilobytes: (u32, u32),
}

impl Default for Pcie {
    fn default() -> Self {
        Pcie { generation: (5, 5), width: (16, 16), replays: 0, throughput_kilobytes: (0, 0) }
    }
}

/// Rows of memory that were replaced by spare ones.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RemappedRows {
    /// After corrected errors.
    pub correctable: u32,
    /// After uncorrected errors.
    pub uncorrectable: u32,
    /// Whether one waits for a reset.
    pub pending: bool,
    /// Whether one failed: the device wants replacing.
    pub failed: bool,
}
