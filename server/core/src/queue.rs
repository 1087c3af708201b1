//! The queue: who waits, in which order (P10), and with whom the answer belongs (P11).
//!
//! It is soft state: which leases are QUEUED or PAUSED is in the state, and their order follows from their requests
//! and the time. Only waiters whose callers are present stand in it; those that a restart may still bring back are
//! `expected`, and nothing later in the order is granted before them (P4).
//! A request for devices that its service owns stands in the order twice: as OWNER for those, and by its priority.
//! Waiters that ask for the very same thing in the same lane form a shape: when the first of a shape does not fit, none
//! of it does, so that a pass looks at one of each.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    id::{Caller, LeaseId, Ticket},
    order::{Class, Lane, OrderKey},
    request::{Ask, Constraints, Request},
    time::Time,
};

/// What makes two waiters fit or not fit alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Shape {
    lane: Lane,
    ask: Ask,
    constraints: Constraints,
}

impl Shape {
    fn of(request: &Request, lane: Lane) -> Self {
        Self { lane, ask: request.ask, constraints: request.constraints.clone() }
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
        /// Then the waiter is removed, or if it is PAUSED skipped.
        until: Time,
    },
    /// It is PAUSED, and its holder is there: told of its turn by its session, or by the answer to its next renewal.
    Holder,
    /// It is PAUSED, and its holder's session is away. The waiter is skipped; it ends with its TTL alone.
    HolderAway,
}

impl Presence {
    /// It stands in the order and can be granted.
    pub(crate) const fn there(self) -> bool {
        matches!(self, Self::Present { .. } | Self::Holder)
    }
}

/// A waiter.
#[derive(Clone, Debug)]
pub(crate) struct Waiter {
    /// Its place by priority.
    pub(crate) key: OrderKey,
    pub(crate) presence: Presence,
    /// When its wait is over.
    pub(crate) waits_until: Time,
    /// The lane of its priority, and its shape there.
    stand: (Lane, usize),
    /// The lane of its service as an owner, and its shape there, where it stands there too.
    stand_as_owner: Option<(Lane, usize)>,
}

impl Waiter {
    /// Its lane by priority.
    pub(crate) const fn lane(&self) -> &Lane {
        &self.stand.0
    }

    /// Its first place: as an owner, where it stands as one.
    pub(crate) fn first_key(&self) -> OrderKey {
        if self.stand_as_owner.is_some() { self.key.as_owner() } else { self.key }
    }

    /// The lane in which it stands as an owner too.
    pub(crate) fn owner_lane(&self) -> Option<&Lane> {
        self.stand_as_owner.as_ref().map(|(lane, _)| lane)
    }

    /// The lane in which it stands at this place in the order; `None`: it does not stand there.
    pub(crate) fn lane_at(&self, key: OrderKey) -> Option<&Lane> {
        self.stands().find(|(at, _, _)| *at == key).map(|(_, lane, _)| lane)
    }

    fn stands(&self) -> impl Iterator<Item = (OrderKey, &Lane, usize)> {
        let owner = self.stand_as_owner.iter();
        let owner = owner.map(|(lane, shape)| (self.key.as_owner(), lane, *shape));
        owner.chain([(self.key, &self.stand.0, self.stand.1)])
    }
}

/// A waiter to be added.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewWaiter {
    pub(crate) key: OrderKey,
    pub(crate) presence: Presence,
    pub(crate) waits_until: Time,
    /// Its service owns devices enough for it.
    pub(crate) owner: bool,
}

/// All waiters.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiters: BTreeMap<LeaseId, Waiter>,
    /// Present and expected ones.
    order: BTreeSet<OrderKey>,
    expected: BTreeSet<OrderKey>,
    /// Present ones.
    by_lane: BTreeMap<Lane, BTreeSet<OrderKey>>,
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
    pub(crate) fn add(&mut self, request: &Request, new: NewWaiter) {
        let lane = Lane::Of(request.priority);
        let stand = (lane.clone(), self.shape(Shape::of(request, lane)));
        let stand_as_owner = new.owner.then(|| {
            let lane = Lane::Owner(request.holder.service.clone());
            (lane.clone(), self.shape(Shape::of(request, lane)))
        });
        let NewWaiter { key, presence, waits_until, .. } = new;
        let waiter = Waiter { key, presence, waits_until, stand, stand_as_owner };
        self.list(&waiter);
        self.waiters.insert(key.lease, waiter);
    }

    fn shape(&mut self, shape: Shape) -> usize {
        let next = self.shape_next;
        let (number, count) = self.shapes.entry(shape).or_insert((next, 0));
        *count = count.saturating_add(1);
        if *number == next {
            self.shape_next = next.saturating_add(1);
        }
        *number
    }

    /// Takes a waiter out for good.
    pub(crate) fn remove(&mut self, request: &Request, lease: LeaseId) -> Option<Waiter> {
        let waiter = self.waiters.remove(&lease)?;
        self.unlist(&waiter);
        for (_, lane, _) in waiter.stands() {
            let shape = Shape::of(request, lane.clone());
            let Some((_, count)) = self.shapes.get_mut(&shape) else { continue };
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
        let expected = matches!(waiter.presence, Presence::Expected { .. });
        if !expected && !waiter.presence.there() {
            return;
        }
        for (key, lane, shape) in waiter.stands() {
            self.order.insert(key);
            if expected {
                self.expected.insert(key);
            } else {
                self.by_lane.entry(lane.clone()).or_default().insert(key);
                self.by_shape.entry(shape).or_default().insert(key);
            }
        }
        if let Presence::Present { caller, .. } = waiter.presence {
            self.by_caller.entry(caller).or_default().insert(waiter.key.lease);
        }
    }

    fn unlist(&mut self, waiter: &Waiter) {
        for (key, lane, shape) in waiter.stands() {
            self.order.remove(&key);
            self.expected.remove(&key);
            take(&mut self.by_lane, lane, &key);
            take(&mut self.by_shape, &shape, &key);
        }
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

    /// The first present waiter of a lane.
    pub(crate) fn first_of(&self, lane: &Lane) -> Option<OrderKey> {
        self.by_lane.get(lane)?.first().copied()
    }

    /// The first present waiter that stands in the order by its priority.
    pub(crate) fn first_by_priority(&self) -> Option<OrderKey> {
        let lanes = self.by_lane.iter().filter(|(lane, _)| !lane.is_owner());
        lanes.filter_map(|(_, keys)| keys.first().copied()).min()
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

    /// How many stand before this one, counted up to [`POSITION_MAX`]. Who stands in the order twice counts once, at the
    /// first place.
    pub(crate) fn position(&self, key: OrderKey) -> usize {
        if self.order.last() == Some(&key) {
            return self.order.len().saturating_sub(self.owner_places()).saturating_sub(1);
        }
        let twice = |lease| self.waiters.get(&lease).is_some_and(|it| it.stand_as_owner.is_some());
        let counts = |other: &&OrderKey| {
            let first = other.class() == Class::Owner || !twice(other.lease);
            first && other.lease != key.lease
        };
        self.order.range(..key).filter(counts).take(POSITION_MAX).count()
    }

    fn owner_places(&self) -> usize {
        let present = self.by_lane.iter().filter(|(lane, _)| lane.is_owner());
        let expected = self.expected.iter().take_while(|key| key.class() == Class::Owner).count();
        present.map(|(_, keys)| keys.len()).fold(expected, usize::saturating_add)
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
