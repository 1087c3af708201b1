//! The queue: who waits, in which order (P10), and with whom the answer belongs (P11).
//!
//! It is soft state: which leases are QUEUED is in the state, and their order follows from their requests and the
//! time. Only waiters whose callers are present stand in it; those that a restart may still bring back are
//! `expected`, and nothing later in the order is granted before them (P4).
//! Waiters that ask for the very same thing at the same priority form a shape: when the first of a shape does not
//! fit, none of it does, so that a pass looks at one of each.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use crate::{
    id::{Caller, LeaseId, Ticket},
    request::{Ask, Constraints, Priority, Request},
    time::{Span, Time},
};

/// A place in the order: the smallest is served first. Later issues put resumed leases and fair shares between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OrderKey {
    class: Reverse<u64>,
    /// Arrival: numbers are given out in that order.
    pub(crate) lease: LeaseId,
}

/// One class above IMMEDIATE: as far as aging raises.
const CLASS_MAX: u64 = 3;

impl OrderKey {
    /// The place of a request that has waited so long.
    pub(crate) fn new(lease: LeaseId, priority: Priority, waited: Span, step: Span) -> Self {
        let class = match priority {
            Priority::Background => 0u64,
            Priority::Normal => 1,
            Priority::Immediate => 2,
        };
        Self { class: Reverse(class.saturating_add(waited.whole(step)).min(CLASS_MAX)), lease }
    }

    /// Whether more waiting raises it further.
    pub(crate) fn ages(self) -> bool {
        self.class.0 < CLASS_MAX
    }
}

/// What makes two waiters fit or not fit alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Shape {
    priority: Priority,
    ask: Ask,
    constraints: Constraints,
}

impl Shape {
    fn of(request: &Request) -> Self {
        Self {
            priority: request.priority,
            ask: request.ask,
            constraints: request.constraints.clone(),
        }
    }
}

/// Whether a waiter's caller is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It is.
    Present {
        /// Who.
        caller: Caller,
        /// What the answer carries.
        ticket: Ticket,
    },
    /// It was, and may come back until then. The waiter is skipped.
    Away {
        /// Then the waiter is removed.
        until: Time,
    },
    /// A restart cut it off, and it may come back until then. The waiter keeps its place.
    Expected {
        /// Then the waiter is removed.
        until: Time,
    },
}

/// A waiter.
#[derive(Clone, Debug)]
pub(crate) struct Waiter {
    pub(crate) key: OrderKey,
    pub(crate) priority: Priority,
    pub(crate) presence: Presence,
    /// When its wait is over.
    pub(crate) waits_until: Time,
    shape: usize,
}

/// All waiters.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiters: BTreeMap<LeaseId, Waiter>,
    /// Present and expected ones.
    order: BTreeSet<OrderKey>,
    expected: BTreeSet<OrderKey>,
    /// Present ones.
    by_priority: BTreeMap<Priority, BTreeSet<OrderKey>>,
    by_shape: BTreeMap<usize, BTreeSet<OrderKey>>,
    by_caller: BTreeMap<Caller, BTreeSet<LeaseId>>,
    shapes: BTreeMap<Shape, (usize, usize)>,
    shape_next: usize,
}

/// Positions are counted up to this, and said to be this beyond: the welcome of a holder with 10,000 waiters stays at ten
/// million steps.
const POSITION_MAX: usize = 1_000;

impl Queue {
    /// Adds a waiter.
    pub(crate) fn add(
        &mut self,
        request: &Request,
        key: OrderKey,
        presence: Presence,
        waits_until: Time,
    ) {
        let next = self.shape_next;
        let (shape, count) = self.shapes.entry(Shape::of(request)).or_insert((next, 0));
        *count = count.saturating_add(1);
        let shape = *shape;
        if shape == next {
            self.shape_next = next.saturating_add(1);
        }
        let waiter = Waiter { key, priority: request.priority, presence, waits_until, shape };
        self.list(&waiter);
        self.waiters.insert(key.lease, waiter);
    }

    /// Takes a waiter out for good.
    pub(crate) fn remove(&mut self, request: &Request, lease: LeaseId) -> Option<Waiter> {
        let waiter = self.waiters.remove(&lease)?;
        self.unlist(&waiter);
        let shape = Shape::of(request);
        if let Some((_, count)) = self.shapes.get_mut(&shape) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.shapes.remove(&shape);
            }
        }
        Some(waiter)
    }

    /// Changes a waiter, and its place accordingly.
    pub(crate) fn change(&mut self, lease: LeaseId, change: impl FnOnce(&mut Waiter)) {
        let Some(mut waiter) = self.waiters.remove(&lease) else { return };
        self.unlist(&waiter);
        change(&mut waiter);
        self.list(&waiter);
        self.waiters.insert(lease, waiter);
    }

    fn list(&mut self, waiter: &Waiter) {
        match waiter.presence {
            Presence::Present { caller, .. } => {
                self.order.insert(waiter.key);
                self.by_priority.entry(waiter.priority).or_default().insert(waiter.key);
                self.by_shape.entry(waiter.shape).or_default().insert(waiter.key);
                self.by_caller.entry(caller).or_default().insert(waiter.key.lease);
            }
            Presence::Expected { .. } => {
                self.order.insert(waiter.key);
                self.expected.insert(waiter.key);
            }
            Presence::Away { .. } => {}
        }
    }

    fn unlist(&mut self, waiter: &Waiter) {
        self.order.remove(&waiter.key);
        self.expected.remove(&waiter.key);
        take(&mut self.by_priority, &waiter.priority, &waiter.key);
        take(&mut self.by_shape, &waiter.shape, &waiter.key);
        if let Presence::Present { caller, .. } = waiter.presence {
            take(&mut self.by_caller, &caller, &waiter.key.lease);
        }
    }

    pub(crate) fn waiter(&self, lease: LeaseId) -> Option<&Waiter> {
        self.waiters.get(&lease)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The waiters that a caller waits for.
    pub(crate) fn of_caller(&self, caller: Caller) -> Vec<LeaseId> {
        self.by_caller.get(&caller).into_iter().flatten().copied().collect()
    }

    /// All waiters, in order of number.
    pub(crate) fn all(&self) -> impl Iterator<Item = LeaseId> {
        self.waiters.keys().copied()
    }

    /// Nothing at or behind this place is granted: somebody expected stands there.
    pub(crate) fn bound(&self) -> Option<OrderKey> {
        self.expected.first().copied()
    }

    /// The first present waiter of a priority.
    pub(crate) fn first_of(&self, priority: Priority) -> Option<OrderKey> {
        self.by_priority.get(&priority)?.first().copied()
    }

    /// The first of each shape, with the shape.
    pub(crate) fn shape_heads(&self) -> BTreeSet<(OrderKey, usize)> {
        let first = |(shape, keys): (&usize, &BTreeSet<OrderKey>)| Some((*keys.first()?, *shape));
        self.by_shape.iter().filter_map(first).collect()
    }

    /// The first of one shape.
    pub(crate) fn first_of_shape(&self, shape: usize) -> Option<OrderKey> {
        self.by_shape.get(&shape)?.first().copied()
    }

    /// How many stand before this one, counted up to [`POSITION_MAX`].
    pub(crate) fn position(&self, key: OrderKey) -> usize {
        match self.order.last() {
            Some(last) if *last == key => self.order.len().saturating_sub(1),
            _ => self.order.range(..key).take(POSITION_MAX).count(),
        }
    }
}

fn take<K: Ord, V: Ord>(map: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(set) = map.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            map.remove(key);
        }
    }
}
