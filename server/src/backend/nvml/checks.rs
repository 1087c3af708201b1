//! Checks: which were asked for, which are under way.
//!
//! Promises: a look answers the newest check of its device that was asked for before the look began, a pass over the
//! processes the newest of all; and checks leave the driver time for everybody else.

use std::{collections::BTreeMap, collections::BTreeSet, time::Duration};

use gpulease_core::{id::Name, time::Time};

use super::tiers::next_check;
use crate::backend::DEVICES_PER_NODE_MAX;

/// Checks of the devices of one node.
#[derive(Debug, Default)]
pub(super) struct Checks {
    newest: Newest,
    /// Devices whose newest is not under way yet.
    waiting: BTreeSet<Name>,
    /// When the next may begin.
    next: Time,
}

/// The newest numbers at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Newest {
    pub(super) of_device: BTreeMap<Name, u64>,
    pub(super) of_all: u64,
}

impl Checks {
    pub(super) fn ask(&mut self, device: Name, number: u64) {
        self.newest.of_all = self.newest.of_all.max(number);
        let of_device = &mut self.newest.of_device;
        if of_device.len() < DEVICES_PER_NODE_MAX || of_device.contains_key(&device) {
            of_device.insert(device.clone(), number);
            self.waiting.insert(device);
        }
    }

    /// Whether any device waits for one.
    pub(super) fn any_waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// When the next may begin.
    pub(super) fn next_at(&self) -> Time {
        self.next
    }

    /// The newest numbers now: what a pass that begins now answers.
    pub(super) fn newest(&self) -> &Newest {
        &self.newest
    }

    /// The devices that wait, for a look that begins now.
    pub(super) fn take_waiting(&mut self) -> Vec<Name> {
        std::mem::take(&mut self.waiting).into_iter().collect()
    }

    /// A look that began then took so long.
    pub(super) fn took(&mut self, began: Time, took: Duration) {
        self.next = next_check(began, took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_answers_what_was_asked_before_it_and_nothing_after() {
        let mut checks = Checks::default();
        checks.ask("a".into(), 3);
        checks.ask("b".into(), 5);
        let newest = checks.newest().clone();
        assert_eq!(checks.take_waiting(), ["a".into(), "b".into()]);
        checks.ask("a".into(), 6);
        assert_eq!((newest.of_device["a"], newest.of_all), (3, 5));
        checks.took(Time::ZERO, Duration::from_millis(10));
        assert!(checks.any_waits());
        assert_eq!(checks.next_at(), Time::from_millis(50));
        assert_eq!(checks.take_waiting(), ["a".into()]);
        assert_eq!(checks.newest().of_device["b"], 5, "a look at all devices answers it again");
        assert!(!checks.any_waits());
    }
}
