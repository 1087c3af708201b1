//! The queue: who waits, in which order (P10), and with whom the answer belongs (P11).
//!
//! It is soft state: which leases are QUEUED or PAUSED is in the state, and their order follows from their requests
//! and the time. Only waiters whose callers are present stand in it; those that a restart may still bring back are
//! `expected`, and nothing later in the order is granted before them (P4).
//! Within a service the order is fixed by the ranks of its waiters; between services it goes by the shares of the moment
//! (`fairness`). So each service has its waiters in order here, and whoever asks for a place among all brings the shares
//! along: a grant, which changes the share of its service, moves no waiter.
//! A request for devices that its service owns stands in the order twice: as OWNER for those, and by its priority.
//! Waiters that ask for the very same thing in the same lane form a shape: when the first of a shape does not fit, none
//! of it does, so that a pass looks at one of each.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    ops::Bound,
};

use crate::{
    backfill::Brevity,
    fairness::Shares,
    id::{Caller, LeaseId, Name, Ticket},
    order::{Group, Lane, OrderKey, Rank},
    request::{Ask, Constraints, Request},
    time::Time,
};

/// What makes two waiters fit or not fit alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Shape {
    lane: Lane,
    ask: Ask,
    constraints: Constraints,
    /// Who is sure to be gone in time may be let in where others are not; nobody is as an owner.
    brevity: Option<Brevity>,
}

impl Shape {
    fn of(request: &Request, lane: Lane, brevity: Option<Brevity>) -> Self {
        let (ask, constraints) = (request.ask, request.constraints.clone());
        let brevity = brevity.filter(|_| !lane.is_owner());
        Self { lane, ask, constraints, brevity }
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
    pub(crate) service: Name,
    /// Its place by priority.
    pub(crate) rank: Rank,
    pub(crate) presence: Presence,
    /// When its wait is over.
    pub(crate) waits_until: Time,
    pub(crate) brevity: Option<Brevity>,
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
    pub(crate) fn first_rank(&self) -> Rank {
        if self.stand_as_owner.is_some() { self.rank.as_owner() } else { self.rank }
    }

    /// The lane in which it stands as an owner too.
    pub(crate) fn owner_lane(&self) -> Option<&Lane> {
        self.stand_as_owner.as_ref().map(|(lane, _)| lane)
    }

    /// The lane in which it stands at this place; `None`: it does not stand there.
    pub(crate) fn lane_at(&self, rank: Rank) -> Option<&Lane> {
        self.stands().find(|(at, _, _)| *at == rank).map(|(_, lane, _)| lane)
    }

    /// Its shapes at both places.
    pub(crate) fn shapes(&self) -> [Option<usize>; 2] {
        [Some(self.stand.1), self.stand_as_owner.as_ref().map(|(_, shape)| *shape)]
    }

    fn stands(&self) -> impl Iterator<Item = (Rank, &Lane, usize)> {
        let owner = self.stand_as_owner.iter();
        let owner = owner.map(|(lane, shape)| (self.rank.as_owner(), lane, *shape));
        owner.chain([(self.rank, &self.stand.0, self.stand.1)])
    }
}

/// A waiter to be added.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewWaiter {
    pub(crate) rank: Rank,
    pub(crate) presence: Presence,
    pub(crate) waits_until: Time,
    /// Its service owns devices enough for it.
    pub(crate) owner: bool,
    /// How long it would hold devices that are kept for others.
    pub(crate) brevity: Option<Brevity>,
}

/// All waiters.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiters: BTreeMap<LeaseId, Waiter>,
    /// Those of each service that has any in the order.
    services: BTreeMap<Name, Line>,
    by_caller: BTreeMap<Caller, BTreeSet<LeaseId>>,
    /// The first of each service that is expected.
    expected: BTreeSet<(Rank, Name)>,
    shapes: BTreeMap<Shape, (usize, usize)>,
    shape_next: usize,
}

/// The waiters of one service.
#[derive(Debug, Default)]
struct Line {
    /// Present and expected ones, each at its first place, by what goes before the share.
    order: BTreeMap<Group, BTreeSet<LeaseId>>,
    expected: BTreeSet<Rank>,
    /// Present ones.
    by_lane: BTreeMap<Lane, BTreeSet<Rank>>,
    by_shape: BTreeMap<usize, BTreeSet<Rank>>,
}

/// Who is to be tried in a pass over the order: the first of each shape of each service.
///
/// Within a service the order is fixed, so that a grant moves one entry: the place of its service. What a service asks
/// for is looked up when its turn comes, for mostly it never does.
#[derive(Debug, Default)]
pub(crate) struct Heads {
    order: BinaryHeap<Reverse<(OrderKey, Name)>>,
    begun: BTreeMap<Name, BTreeSet<(Rank, usize)>>,
}

/// One of them.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) key: OrderKey,
    pub(crate) service: Name,
    pub(crate) shape: usize,
}

impl Heads {
    /// The next in the order; its service then waits for [`Self::go_on`].
    pub(crate) fn pop(&mut self, queue: &Queue) -> Option<Head> {
        let Reverse((key, service)) = self.order.pop()?;
        let begun = self.begun.entry(service.clone()).or_insert_with(|| queue.heads_of(&service));
        let (_, shape) = begun.pop_first()?;
        Some(Head { key, service, shape })
    }

    /// Takes a service up again, which may have another share now, with the next of the shape that was tried, if any.
    pub(crate) fn go_on(&mut self, head: &Head, next: Option<Rank>, share: u128) {
        let Some(heads) = self.begun.get_mut(&head.service) else { return };
        heads.extend(next.map(|rank| (rank, head.shape)));
        if let Some((rank, _)) = heads.first() {
            self.order.push(Reverse((rank.at(share), head.service.clone())));
        }
    }
}

/// Who stands before whom, at one moment: the waiters of each service with its share, looked up once.
#[derive(Debug)]
pub(crate) struct Places<'a>(Vec<(u128, &'a Line)>);

impl Places<'_> {
    /// How many stand before this place. Who stands in the order twice counts once, at the first place.
    ///
    /// Of a service with a smaller share all who stand in the same group do, of one with a larger share none; only where
    /// shares are equal, as within one service, have they to be counted: up to [`POSITION_MAX`], unless it is the last.
    pub(crate) fn before(&self, key: OrderKey) -> usize {
        let of_group = |share: u128, group: Group, leases: &BTreeSet<LeaseId>| match (
            group.cmp(&key.group),
            if group.fair() { share.cmp(&key.share) } else { Ordering::Equal },
        ) {
            (Ordering::Less, _) | (Ordering::Equal, Ordering::Less) => leases.len(),
            (Ordering::Equal, Ordering::Equal) => counted_before(leases, key.lease),
            _ => 0,
        };
        let of_line = |(share, line): &(u128, &Line)| {
            let groups = line.order.range(..=key.group);
            groups.map(|(group, leases)| of_group(*share, *group, leases)).sum::<usize>()
        };
        self.0.iter().map(of_line).fold(0, usize::saturating_add)
    }
}

/// Where waiters have to be counted one by one, positions are counted up to this, and said to be this beyond: the welcome
/// of a holder with 10,000 waiters stays at ten million steps.
const POSITION_MAX: usize = 1_000;

impl Queue {
    /// Adds a waiter.
    pub(crate) fn add(&mut self, request: &Request, new: NewWaiter) {
        let lane = Lane::Of(request.priority);
        let stand = (lane.clone(), self.shape(Shape::of(request, lane, new.brevity)));
        let stand_as_owner = new.owner.then(|| {
            let lane = Lane::Owner(request.holder.service.clone());
            (lane.clone(), self.shape(Shape::of(request, lane, new.brevity)))
        });
        let NewWaiter { rank, presence, waits_until, brevity, .. } = new;
        let service = request.holder.service.clone();
        let waiter =
            Waiter { service, rank, presence, waits_until, brevity, stand, stand_as_owner };
        self.list(&waiter);
        self.waiters.insert(rank.lease, waiter);
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
            let shape = Shape::of(request, lane.clone(), waiter.brevity);
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
        let line = self.services.entry(waiter.service.clone()).or_default();
        let first = waiter.first_rank();
        line.order.entry(first.group).or_default().insert(first.lease);
        let before = line.expected.first().copied();
        for (rank, lane, shape) in waiter.stands() {
            if expected {
                line.expected.insert(rank);
            } else {
                line.by_lane.entry(lane.clone()).or_default().insert(rank);
                line.by_shape.entry(shape).or_default().insert(rank);
            }
        }
        let first = line.expected.first().copied();
        follow(&mut self.expected, &waiter.service, (before, first));
        if let Presence::Present { caller, .. } = waiter.presence {
            self.by_caller.entry(caller).or_default().insert(waiter.rank.lease);
        }
    }

    fn unlist(&mut self, waiter: &Waiter) {
        let Some(line) = self.services.get_mut(&waiter.service) else { return };
        let first = waiter.first_rank();
        take(&mut line.order, &first.group, &first.lease);
        let before = line.expected.first().copied();
        for (rank, lane, shape) in waiter.stands() {
            line.expected.remove(&rank);
            take(&mut line.by_lane, lane, &rank);
            take(&mut line.by_shape, &shape, &rank);
        }
        follow(&mut self.expected, &waiter.service, (before, line.expected.first().copied()));
        if line.order.is_empty() {
            self.services.remove(&waiter.service);
        }
        if let Presence::Present { caller, .. } = waiter.presence {
            take(&mut self.by_caller, &caller, &waiter.rank.lease);
        }
    }

    pub(crate) fn waiter(&self, lease: LeaseId) -> Option<&Waiter> {
        self.waiters.get(&lease)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// The waiters that a caller waits for.
    pub(crate) fn of_caller(&self, caller: Caller) -> Vec<LeaseId> {
        self.by_caller.get(&caller).into_iter().flatten().copied().collect()
    }

    /// All waiters, in order of number.
    pub(crate) fn all(&self) -> impl Iterator<Item = LeaseId> {
        self.waiters.keys().copied()
    }

    /// Whether somebody before this place of a service is expected back: nothing is granted at it.
    ///
    /// Who is expected stands there as if its service had used nothing: its place is kept for it, whatever else the
    /// service is granted meanwhile; and who is behind it is so until it is back or gone, for shares change without
    /// anybody looking.
    pub(crate) fn awaits_before(&self, key: OrderKey, service: &Name) -> bool {
        let own = self.services.get(service).and_then(|line| line.expected.first());
        let mut others = self.expected.iter().take_while(|(rank, _)| rank.at(0) < key);
        own.is_some_and(|rank| *rank < key.rank()) || others.any(|(_, other)| other != service)
    }

    /// The first of each service among the present waiters of a lane.
    pub(crate) fn firsts_of<'a>(
        &'a self,
        lane: &'a Lane,
        shares: Shares<'a>,
    ) -> impl Iterator<Item = OrderKey> {
        let first = move |(service, line): (&Name, &Line)| {
            Some(line.by_lane.get(lane)?.first()?.at(shares.of(service)))
        };
        self.services.iter().filter_map(first)
    }

    /// The first present waiter that stands in the order by its priority.
    pub(crate) fn first_by_priority(&self, shares: Shares<'_>) -> Option<OrderKey> {
        let first = |(service, line): (&Name, &Line)| {
            let lanes = line.by_lane.iter().filter(|(lane, _)| !lane.is_owner());
            let rank = lanes.filter_map(|(_, ranks)| ranks.first().copied()).min()?;
            Some(rank.at(shares.of(service)))
        };
        self.services.iter().filter_map(first).min()
    }

    /// The first of each shape of each service.
    pub(crate) fn heads(&self, shares: Shares<'_>) -> Heads {
        let first = |(service, line): (&Name, &Line)| {
            let rank = line.by_lane.values().filter_map(BTreeSet::first).min()?;
            Some(Reverse((rank.at(shares.of(service)), service.clone())))
        };
        Heads { order: self.services.iter().filter_map(first).collect(), begun: BTreeMap::new() }
    }

    fn heads_of(&self, service: &Name) -> BTreeSet<(Rank, usize)> {
        let first = |(shape, ranks): (&usize, &BTreeSet<Rank>)| Some((*ranks.first()?, *shape));
        let line = self.services.get(service).into_iter();
        line.flat_map(|line| &line.by_shape).filter_map(first).collect()
    }

    /// How many shapes there are.
    pub(crate) fn shapes(&self) -> usize {
        self.shapes.len()
    }

    /// The next of one shape of a service behind a place.
    pub(crate) fn next_of_shape(&self, service: &Name, shape: usize, after: Rank) -> Option<Rank> {
        let ranks = self.services.get(service)?.by_shape.get(&shape)?;
        ranks.range((Bound::Excluded(after), Bound::Unbounded)).next().copied()
    }

    /// The first present waiter of a service.
    pub(crate) fn first_of_service(&self, service: &Name) -> Option<Rank> {
        self.services.get(service)?.by_lane.values().filter_map(BTreeSet::first).min().copied()
    }

    /// The first of each shape of a service, in its order.
    pub(crate) fn firsts_of_service(&self, service: &Name) -> BTreeSet<Rank> {
        let line = self.services.get(service).into_iter();
        line.flat_map(|line| line.by_shape.values()).filter_map(BTreeSet::first).copied().collect()
    }

    /// The first so many of the order, of one service or of all. Present and expected ones alike; those that are away have
    /// no place in it.
    pub(crate) fn first_in_order(
        &self,
        shares: Shares<'_>,
        service: Option<&Name>,
        limit: usize,
    ) -> Vec<OrderKey> {
        let wanted = |name: &Name| service.is_none_or(|only| only == name);
        let lines = self.services.iter().filter(|(name, _)| wanted(name));
        let mut lines: Vec<_> = lines
            .map(|(name, line)| {
                let share = shares.of(name);
                let ranks = line.order.iter().flat_map(|(group, leases)| {
                    leases.iter().map(|lease| Rank { group: *group, lease: *lease })
                });
                ranks.map(move |rank| rank.at(share))
            })
            .collect();
        let firsts = lines.iter_mut().enumerate().filter_map(|(at, it)| Some((it.next()?, at)));
        let mut heap: BinaryHeap<Reverse<(OrderKey, usize)>> = firsts.map(Reverse).collect();
        let mut found = Vec::new();
        while found.len() < limit
            && let Some(Reverse((key, at))) = heap.pop()
        {
            found.push(key);
            let next = lines.get_mut(at).and_then(Iterator::next);
            heap.extend(next.map(|next| Reverse((next, at))));
        }
        found
    }

    /// How many services have waiters in the order.
    pub(crate) fn services(&self) -> usize {
        self.services.len()
    }

    /// Who stands before whom now.
    pub(crate) fn places(&self, shares: Shares<'_>) -> Places<'_> {
        Places(self.services.iter().map(|(service, line)| (shares.of(service), line)).collect())
    }
}

/// How many of these came before a lease.
fn counted_before(leases: &BTreeSet<LeaseId>, lease: LeaseId) -> usize {
    match leases.last() {
        Some(last) if *last == lease => leases.len().saturating_sub(1),
        Some(last) if *last < lease => leases.len(),
        _ => leases.range(..lease).take(POSITION_MAX).count(),
    }
}

/// The first who is expected of a service is another one now, or there is none.
fn follow(
    expected: &mut BTreeSet<(Rank, Name)>,
    service: &Name,
    (before, now): (Option<Rank>, Option<Rank>),
) {
    if before == now {
        return;
    }
    if let Some(before) = before {
        expected.remove(&(before, service.clone()));
    }
    expected.extend(now.map(|now| (now, service.clone())));
}

fn take<K: Ord, V: Ord>(map: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(set) = map.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            map.remove(key);
        }
    }
}
