//! What others ask of a running backend, and the bounded place where that waits until the backend is stepped.
//!
//! Promises: asking never waits; a check that is asked for is made by a pass begun after it, and of several for one
//! device the newest number stands for all; processes that are to be tracked come before any check that was asked for
//! after them; if something had to be dropped, the backend is told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gpulease_core::{id::Name, request::Process};

use super::pace::Shared;

/// The most devices that wait for a check: all that a coordinator knows.
const CHECKS_MAX: usize = gpulease_core::inventory::DEVICES_KNOWN_MAX;
/// The most processes that wait to be tracked: 16 bytes each make a megabyte, and twice the process ids that a host has
/// by default.
pub(super) const TRACKED_MAX: usize = 65_536;
/// The most nodes that wait to be quiesced or resumed: an operator names one at a time, and 64 bytes each make 64 KiB.
const QUIESCED_MAX: usize = 1_024;

/// What was asked for since the last step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The newest check of each device, by UUID: a full pass over it, begun after this, outside all tiers.
    pub checks: BTreeMap<Name, u64>,
    /// Processes whose trees are to be followed.
    pub tracked: BTreeSet<Process>,
    /// Some of these were dropped: that nothing is known of a process does not prove its exit any more.
    pub tracked_dropped: bool,
    /// The nodes whose driver is to be let go (`true`), or to be taken up again.
    pub quiesced: BTreeMap<Name, bool>,
}

impl Asked {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn check(&mut self, device: Name, number: u64) {
        if self.checks.len() >= CHECKS_MAX && !self.checks.contains_key(&device) {
            // Whoever waits for it gets the tier's pass, or waits as long as a release waits at most.
            return;
        }
        let newest = self.checks.entry(device).or_default();
        *newest = number.max(*newest);
    }

    fn quiesce(&mut self, node: Name, quiesced: bool) {
        if self.quiesced.len() >= QUIESCED_MAX && !self.quiesced.contains_key(&node) {
            tracing::warn!(%node, quiesced, "too many nodes are to be quiesced: this one is left as it is");
            return;
        }
        self.quiesced.insert(node, quiesced);
    }

    fn track(&mut self, process: Process) {
        if self.tracked.len() >= TRACKED_MAX && !self.tracked.contains(&process) {
            self.tracked_dropped = true;
            return;
        }
        self.tracked.insert(process);
    }
}

/// The way to a backend: what is asked before it runs waits for it, what is asked after it stopped is forgotten.
#[derive(Clone, Debug, Default)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
}

impl Handle {
    /// Asks for a full pass over a device, begun after this: as soon as the backend can. Its sample tells this number
    /// or a later one.
    pub fn check(&self, device: Name, number: u64) {
        self.shared.ask(|asked| asked.check(device, number));
    }

    /// From the next pass on, tells whether anything in the tree of this process lives.
    pub fn track(&self, process: Process) {
        self.shared.ask(|asked| asked.track(process));
    }

    /// Lets the driver of a node and every handle go, for a reset or a change of partitions, or takes it up again. While
    /// it is let go, its devices are not measured. A node that is not the backend's own changes nothing.
    pub fn quiesce(&self, node: Name, quiesced: bool) {
        self.shared.ask(|asked| asked.quiesce(node, quiesced));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_checks_of_a_device_the_newest_number_stands_for_all() {
        let mut asked = Asked::default();
        for (device, number) in [("a", 3), ("b", 4), ("a", 7), ("a", 5)] {
            asked.check(device.into(), number);
        }
        let checks: Vec<_> =
            asked.checks.iter().map(|(device, number)| (device.as_str(), *number)).collect();
        assert_eq!(checks, [("a", 7), ("b", 4)]);
    }

    #[test]
    fn what_is_dropped_of_the_tracked_is_said() {
        let mut asked = Asked::default();
        let process = |pid| Process { pid, started_ticks: 1 };
        (0..).take(TRACKED_MAX).for_each(|pid| asked.track(process(pid)));
        asked.track(process(0));
        assert!(!asked.tracked_dropped);
        asked.track(Process { pid: 7, started_ticks: 2 });
        assert!(asked.tracked_dropped && asked.tracked.len() == TRACKED_MAX);
    }
}
