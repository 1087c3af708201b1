//! Deadlines as data: what is due when, on the scheduler's own time.
//!
//! An entry is a reminder, not the truth: whoever acts on it looks up whether it is still due, and sets another
//! where it is not. So extending a lease touches no set.
//! There is at most one entry for each thing, and it goes with the thing: a lease of a day that is released at once
//! leaves nothing behind.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    id::{DeviceId, LeaseId, NodeId},
    time::Time,
};

/// What can become due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Deadline {
    /// A node may have been silent for too long.
    Silence(NodeId),
    /// A lock delay may be over (P6).
    LockDelay(DeviceId, LeaseId),
    /// A device may have been closed for long enough after an import (P2).
    DeviceClosed(DeviceId),
    /// A pass over a closed part is due again, or was waited for long enough (P7).
    Check(DeviceId, LeaseId),
    /// A TTL or lifetime may be over.
    Expiry(LeaseId),
    /// A notice may be over.
    Notice(LeaseId),
    /// A minimum hold may be reached, or a shield over: notices may be due (P14).
    MinimumHold(LeaseId),
    /// A wait may be over.
    Wait(LeaseId),
    /// A waiter's caller may have been away for too long (P11).
    Away(LeaseId),
    /// A waiter may have aged by one class (P10).
    Aging(LeaseId),
    /// Leases that were let in on devices kept for a request may have to go (P10).
    TakeBack(LeaseId),
    /// A keep may lapse, or a bar to keeping end (P10).
    Keep(LeaseId),
    /// A better set to keep may be looked for again (P10).
    Look(LeaseId),
}

/// The set of them.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    entries: BTreeSet<(Time, Deadline)>,
    times: BTreeMap<Deadline, Time>,
}

impl Deadlines {
    /// Sets a reminder, in place of the one that was set for the same.
    pub(crate) fn set(&mut self, at: Time, deadline: Deadline) {
        self.clear(deadline);
        if at < Time::NEVER {
            self.entries.insert((at, deadline));
            self.times.insert(deadline, at);
        }
    }

    pub(crate) fn clear(&mut self, deadline: Deadline) {
        if let Some(at) = self.times.remove(&deadline) {
            self.entries.remove(&(at, deadline));
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn first(&self) -> Option<Time> {
        self.entries.first().map(|(at, _)| *at)
    }

    /// Takes out the first that is due.
    pub(crate) fn take_due(&mut self, now: Time) -> Option<Deadline> {
        let (at, deadline) = *self.entries.first()?;
        if at > now {
            return None;
        }
        self.clear(deadline);
        Some(deadline)
    }
}
