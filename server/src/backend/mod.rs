//! Backends: where observations of nodes and devices come from.
//!
//! The port is [`Backend`]: something that is stepped with the time and reports to a [`Sink`] what a node is and has
//! (`Input::Observed`), what its devices use (`Input::Sampled`, which also proves that the node is there) and figures
//! for display ([`Measurement`]). [`pace`] steps it on a thread of its own, and others ask it through a [`Handle`];
//! nobody ever waits for a backend, so a driver that hangs makes its devices stale and nothing else.
//! It promises that unknown figures are absent, never 0, and that one device's failure hides no other's figures.
//! It leaves every judgement (stale, unreachable, lost for good) to the core, and knows the core's types alone.

mod choose;
mod error;
mod framework;
mod handle;
mod host;
mod none;
mod nvml;
mod pace;
mod processes;
pub mod simulated;

#[cfg(test)]
mod conformance;

pub use choose::{BackendConfig, Choice, Chosen, choose, start};
pub use error::BackendError;
pub use handle::{Asked, Handle};
pub use host::Host;
pub use none::NoDriver;
pub use nvml::{Found, Nvml, NvmlConfig};
pub use pace::{Running, STOP_MAX, Stopped};
pub use processes::Attribution;

use handle::TRACKED_MAX;

use gpulease_core::{
    id::Name,
    input::Input,
    time::{Span, Time},
};

/// How often a node's devices are sampled: a third of the 3 s after which a device counts as stale, so that two
/// samples in a row may be late.
pub const SAMPLE_PERIOD: Span = Span::from_secs(1);

/// The most devices of one node: far over the 16 of the largest hosts, and a bound on one report.
pub const DEVICES_PER_NODE_MAX: usize = 1_024;

/// The contract's memory reserve of each device: 512 MiB.
pub const MEMORY_RESERVE_BYTES: u64 = 512 << 20;

/// A source of observations.
///
/// Time is the backend's own: [`Time::ZERO`] is its start, and it only grows. The first step reports the whole
/// inventory of every node.
pub trait Backend: Send {
    /// What it is, for people and the ready line.
    fn summary(&self) -> Summary;

    /// Takes what was asked since the last step; the next one follows at once. A backend that has no processes and whose
    /// figures are exact at every moment has nothing to do.
    fn ask(&mut self, _asked: Asked) {}

    /// Reports everything that is due at `now`. Late is no reason to report twice: what was missed is skipped, what
    /// changed meanwhile is told once each, in order.
    fn step(&mut self, now: Time, sink: &mut dyn Sink);

    /// When to step next, at the latest.
    fn due_at(&self) -> Time;
}

/// What a backend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its name, such as `simulated`.
    pub name: &'static str,
    /// How many nodes it reports.
    pub nodes: usize,
    /// How many devices they have together.
    pub devices: usize,
}

/// Where reports go. Neither method may wait: a sink that is full drops older samples of the same device.
pub trait Sink: Send {
    /// Takes `Input::Observed` or `Input::Sampled`; no other input comes from a backend.
    fn report(&mut self, input: Input);

    /// Takes figures for display, at most one for each device, measured just now.
    fn measured(&mut self, measurements: Vec<Measurement>);
}

/// One set of figures of one device, for display. What is unknown is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measurement {
    /// Which device.
    pub device_uuid: Name,
    /// Memory in use, in bytes.
    pub memory_used_bytes: Option<u64>,
    /// Memory that no holding lease explains, in bytes.
    pub memory_foreign_bytes: Option<u64>,
    /// Share of the last period in which the device worked, in thousandths.
    pub utilization_permille: Option<u32>,
    /// Temperature, in degrees Celsius.
    pub temperature_celsius: Option<i32>,
    /// Power draw, in thousandths of a watt.
    pub power_draw_milliwatts: Option<u64>,
}

/// How much of a device may be granted, where nothing more specific says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceDefaults {
    /// Slots of each device; `None`: max(1, host CPUs / devices).
    pub slots: Option<u32>,
    /// Memory kept back from leases on each device, in bytes.
    pub memory_reserve_bytes: u64,
    /// The most memory in use on each device, in bytes; `None`: total − driver's own.
    pub memory_limit_bytes: Option<u64>,
}

impl Default for DeviceDefaults {
    fn default() -> Self {
        Self { slots: None, memory_reserve_bytes: MEMORY_RESERVE_BYTES, memory_limit_bytes: None }
    }
}

impl DeviceDefaults {
    /// The slots of each of `devices` devices on a host of so many thousandths of a core.
    #[must_use]
    pub fn slots_of(&self, host_cpu_millis: u64, devices: usize) -> u32 {
        let devices = u64::try_from(devices).unwrap_or(u64::MAX).max(1);
        let share = (host_cpu_millis / 1_000 / devices).max(1);
        self.slots.unwrap_or_else(|| u32::try_from(share).unwrap_or(u32::MAX))
    }
}
