//! The order (P10): classes, lanes, and the place of a waiter.
//!
//! | class | who |
//! |---|---|
//! | OWNER | a request for devices that its service owns, on those devices |
//! | aged | whoever waited long enough: one class for every `aging_step` of waiting, up to here |
//! | IMMEDIATE, NORMAL, BACKGROUND | by priority |
//!
//! Within a class resumed leases go before new ones, and then arrival decides.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

use crate::{
    id::{LeaseId, Name},
    request::Priority,
    time::{Span, Time},
};

/// A class of the order, from low to high.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Class {
    /// Work that may wait for hours.
    #[default]
    Background,
    /// The usual.
    Normal,
    /// Somebody waits for the answer.
    Immediate,
    /// As far as aging raises.
    Aged,
    /// A request for devices that its service owns, on those devices.
    Owner,
}

impl Class {
    const BY_AGE: [Self; 4] = [Self::Background, Self::Normal, Self::Immediate, Self::Aged];

    /// The class of a priority before any waiting: what its requests preempt with.
    #[must_use]
    pub const fn own(priority: Priority) -> Self {
        match priority {
            Priority::Background => Self::Background,
            Priority::Normal => Self::Normal,
            Priority::Immediate => Self::Immediate,
        }
    }

    /// The class of a request that has waited so long.
    #[must_use]
    pub fn aged(priority: Priority, waited: Span, step: Span) -> Self {
        let own = Self::own(priority) as u64;
        let index = usize::try_from(own.saturating_add(waited.whole(step))).unwrap_or(usize::MAX);
        Self::BY_AGE.get(index).copied().unwrap_or(Self::Aged)
    }
}

/// Who is first among whom: the first of each lane that does not fit keeps devices. Each owner has a lane of its own,
/// for none has a say over the devices of another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Lane {
    /// Requests of a priority.
    Of(Priority),
    /// Requests of this service for devices that it owns, on those devices.
    Owner(Name),
}

impl Lane {
    /// Requests of one owner, rather than of a priority.
    #[must_use]
    pub const fn is_owner(&self) -> bool {
        matches!(self, Self::Owner(_))
    }
}

/// A place in the order: the smallest is served first. Later issues put fair shares between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OrderKey {
    class: Reverse<Class>,
    new: bool,
    /// Arrival: numbers are given out in that order.
    pub(crate) lease: LeaseId,
}

/// What a place in the order follows from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    pub(crate) lease: LeaseId,
    pub(crate) priority: Priority,
    /// It was granted before, and paused.
    pub(crate) resumed: bool,
    /// Since when it waits.
    pub(crate) since: Time,
}

impl OrderKey {
    /// The place by priority and waiting.
    pub(crate) fn new(standing: Standing, now: Time, step: Span) -> Self {
        let class = Class::aged(standing.priority, now.since(standing.since), step);
        Self { class: Reverse(class), new: !standing.resumed, lease: standing.lease }
    }

    /// The place of the same request for devices that its service owns.
    pub(crate) const fn as_owner(self) -> Self {
        Self { class: Reverse(Class::Owner), ..self }
    }

    pub(crate) const fn class(self) -> Class {
        self.class.0
    }

    /// Whether more waiting raises it further.
    pub(crate) fn ages(self) -> bool {
        self.class.0 < Class::Aged
    }
}
