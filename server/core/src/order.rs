//! The order (P10): classes, lanes, and the place of a waiter. Every rule is one part of its key, from first to last:
//!
//! | part | rule |
//! |---|---|
//! | class OWNER | a request for devices that its service owns, on those devices |
//! | class by age | IMMEDIATE, NORMAL, BACKGROUND by priority, raised by one for every `aging_step` of waiting, to just above IMMEDIATE |
//! | new | resumed leases go before new ones |
//! | share | the service that used less of late, by its weight, goes first (`fairness`); not among those whom age raised to the top, who would wait without end behind ever new services otherwise |
//! | lease | arrival: numbers are given out in that order |
//!
//! All but the share is fixed while a request waits, aging aside: that is its [`Rank`], and within one service the order
//! goes by it alone. Shares change with every grant, and with time; so nothing is stored by them, and an [`OrderKey`] is
//! made of a rank and the share of the moment.

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

/// A place among the waiters of one service: the smallest is served first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) group: Group,
    /// Arrival.
    pub(crate) lease: LeaseId,
}

/// What goes before the share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Group {
    class: Reverse<Class>,
    new: bool,
}

/// A place among all waiters, at one moment: the smallest is served first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OrderKey {
    pub(crate) group: Group,
    pub(crate) share: u128,
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

impl Rank {
    /// The place by priority and waiting.
    pub(crate) fn new(standing: Standing, now: Time, step: Span) -> Self {
        let class = Class::aged(standing.priority, now.since(standing.since), step);
        let group = Group { class: Reverse(class), new: !standing.resumed };
        Self { group, lease: standing.lease }
    }

    /// The place of the same request for devices that its service owns.
    pub(crate) const fn as_owner(self) -> Self {
        Self { group: Group { class: Reverse(Class::Owner), ..self.group }, ..self }
    }

    /// The place among all, while its service has this share.
    pub(crate) const fn at(self, share: u128) -> OrderKey {
        let share = if self.group.fair() { share } else { 0 };
        OrderKey { group: self.group, share, lease: self.lease }
    }

    /// Whether more waiting raises it further.
    pub(crate) fn ages(self) -> bool {
        self.group.class.0 < Class::Aged
    }
}

impl Group {
    /// Whether shares count among those who stand here.
    pub(crate) const fn fair(self) -> bool {
        !matches!(self.class.0, Class::Aged)
    }
}

impl OrderKey {
    /// The place among the waiters of its service.
    pub(crate) const fn rank(self) -> Rank {
        Rank { group: self.group, lease: self.lease }
    }

    pub(crate) const fn class(self) -> Class {
        self.group.class.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(
        priority: Priority,
        resumed: bool,
        waited_minutes: u64,
        share: u128,
        lease: u64,
    ) -> OrderKey {
        let now = Time::ZERO.after(Span::from_minutes(1_000));
        let since = now.before(Span::from_minutes(waited_minutes));
        let standing = Standing { lease: LeaseId(lease), priority, resumed, since };
        Rank::new(standing, now, Span::from_minutes(10)).at(share)
    }

    #[test]
    fn each_part_of_the_key_goes_before_those_behind_it() {
        use Priority::{Background, Immediate, Normal};
        let order = [
            key(Background, false, 0, 9, 9).rank().as_owner().at(9),
            // Aging goes up to just above IMMEDIATE, and no further; there arrival alone decides.
            key(Background, false, 500, 2, 5),
            key(Immediate, false, 10, 1, 6),
            key(Background, false, 30, 0, 7),
            key(Immediate, true, 0, 9, 8),
            key(Immediate, false, 9, 0, 1),
            key(Normal, false, 10, 8, 2),
            // Who was resumed goes before a smaller share, and a smaller share before who came first.
            key(Normal, true, 0, 7, 4),
            key(Normal, false, 0, 1, 20),
            key(Normal, false, 0, 1, 21),
            key(Normal, false, 0, 2, 3),
            key(Background, true, 0, 0, 1),
            key(Background, false, 9, 0, 2),
        ];
        assert!(order.is_sorted_by(|earlier, later| earlier < later), "{order:#?}");
    }
}
