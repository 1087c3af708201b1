//! NVIDIA devices, through NVML.
//!
//! Two threads: the backend's own, which [`pace`](super::pace) steps (`watch`), and the driver's, where every call of
//! NVML and every look at processes is made (`worker`, `reader`). What is remembered of devices and how it is told is
//! in `book`, when to read what in `tiers`.
//! It promises that nothing but the driver's thread calls the driver, so that one that hangs makes its devices stale
//! and nothing else: the node stays heard, and holders keep what they hold. Checks do not wait for a tier.
//! It leaves to the core what follows from figures, and to `processes` whose a process is.

mod book;
mod checks;
mod reader;
mod tiers;
mod watch;
mod worker;

#[cfg(test)]
pub(super) mod tests;

use gpulease_nvml::Options;

use super::Attribution;
pub use watch::{Found, Nvml};

/// Where and how to look.
#[derive(Clone, Debug, Default)]
pub struct NvmlConfig {
    /// The library, and the kernel's folders.
    pub driver: Options,
    /// Whether memory is attributed to processes.
    pub attribution: Attribution,
}
