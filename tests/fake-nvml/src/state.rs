//! What the fake says and does: the content of the file beside the library.
//!
//! It promises that what is left out of a file has a value that a common data-centre device has, so that a test in
//! another language writes only what matters to it; unknown keys are errors. Who writes the file and who reads it is
//! said in `control` and `live`.

use std::collections::BTreeMap;

use crate::code::Code;
use crate::device::Device;

/// Everything the fake library says and does.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// Version of the kernel's driver. From 580.82 on, field ids 251 to 273 have other numbers.
    pub driver_version: String,
    /// Version of the library itself.
    pub nvml_version: String,
    /// Version of CUDA that the driver brings: major × 1000 + minor × 10.
    pub cuda_driver_version: i32,
    /// Whether the second version of the memory reading exists; without it, it answers with code 25.
    pub memory_v2: bool,
    /// Whether every event of an XID tells the newest code, as real drivers do for a burst.
    pub xids_coalesced: bool,
    /// Whether calls are written into the file beside the library, for tests to count.
    pub calls_recorded: bool,
    /// The devices, in the order of their index.
    pub devices: Vec<Device>,
    /// Calls that fail, take long or hang.
    pub faults: Vec<Fault>,
    /// Events, oldest first; those that an event set has delivered stay here.
    pub events: Vec<Event>,
    /// The next number of a device, fault, event or growth; none is ever used twice.
    pub next_number: u64,
}

impl Default for State {
    fn default() -> Self {
        State {
            driver_version: "570.172.08".to_owned(),
            nvml_version: "12.570.172.08".to_owned(),
            cuda_driver_version: 12_080,
            memory_v2: true,
            xids_coalesced: false,
            calls_recorded: true,
            devices: Vec::new(),
            faults: Vec::new(),
            events: Vec::new(),
            next_number: 1,
        }
    }
}

impl State {
    /// The device of this UUID.
    #[must_use]
    pub fn device(&self, uuid: &str) -> Option<&Device> {
        self.devices.iter().find(|device| device.uuid == uuid)
    }

    /// Whether the driver numbers fields 251 to 273 in the newer way.
    #[must_use]
    pub fn fields_renumbered(&self) -> bool {
        let mut parts = self.driver_version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (580, 82)
    }

    pub(crate) fn number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }
}

/// Calls that do not go as they should.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fault {
    /// Its number, by which the library remembers how often it struck.
    pub number: u64,
    /// The function it strikes; every one but `nvmlErrorString` if left out.
    pub symbol: Option<String>,
    /// UUID of the device it strikes; calls about any device, and about none, if left out.
    pub device: Option<String>,
    /// What it does.
    pub act: Act,
}

/// What a fault does to a call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Act {
    /// Answers with a code, the given number of times in each process, or always.
    Fail {
        /// The code.
        code: Code,
        /// How often; always if left out.
        times: Option<u32>,
    },
    /// Goes on after a while.
    Delay {
        /// How long, in milliseconds.
        milliseconds: u64,
    },
    /// Goes on when this fault is gone from the file.
    #[default]
    Hang,
}

/// Something that happened on a device, for event sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its number: a set gets the events that came after it was registered, in this order.
    pub number: u64,
    /// UUID of the device.
    pub device: String,
    /// The one bit that says what happened; 8 is an XID.
    pub kind: u64,
    /// The code of an XID.
    pub data: u64,
    /// Which GPU instance and compute instance; both 0xFFFFFFFF outside MIG.
    pub instances: (u32, u32),
}

/// The bit of `Event::kind` that says XID.
pub const XID: u64 = nvml_wrapper_sys::bindings::nvmlEventTypeXidCriticalError as u64;

impl Default for Event {
    fn default() -> Self {
        Event { number: 0, device: String::new(), kind: XID, data: 0, instances: no_instances() }
    }
}

/// The instance ids outside MIG.
#[must_use]
pub const fn no_instances() -> (u32, u32) {
    (u32::MAX, u32::MAX)
}

/// What `nvmlDeviceGetFieldValues` says about one field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FieldValue {
    /// A double.
    Double(f64),
    /// 32 bits without a sign.
    Unsigned(u32),
    /// 64 bits without a sign.
    UnsignedLong(u64),
    /// 64 bits with a sign.
    SignedLong(i64),
    /// 32 bits with a sign, as the margins of fields 193 to 196 are.
    Signed(i32),
    /// This code in place of a value.
    Fails(Code),
}

/// Fields by their number before driver 580.82, whatever driver the fake plays.
pub type Fields = BTreeMap<u32, FieldValue>;
