//! One run: the tasks of one seed arrive at empty nodes, one after the other, and stay.
//!
//! A task that does not fit is dropped. After each arrival, the percentage of all devices asked for so far (dropped
//! tasks included), rounded half to even, names a bucket, and the percentage allocated, to two places, goes into it; a
//! bucket's value is the mean of what went in.

use std::time::{Duration, Instant};

use gpulease_core::{
    placement::arena::{Arena, Spot},
    request::PlacementPolicy,
};
use rand::{
    SeedableRng as _,
    rngs::StdRng,
    seq::{IndexedRandom as _, SliceRandom as _},
};

use super::data::{NodeRow, Task, WHOLE_MILLI, Workload};

/// The last bucket: 130 % arrived.
pub(super) const LAST_PERCENT: usize = 130;

/// Who places: one of the core's policies, or a die, to check the experiment itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placer {
    /// A uniformly drawn node of those that would do, and on it uniformly drawn devices.
    Random,
    Core(PlacementPolicy),
}

impl Placer {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Core(policy) => policy.name(),
        }
    }
}

/// What came out of it.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Percent allocated by percent arrived; `None`: no arrival fell there.
    pub(super) curve: Vec<Option<f64>>,
    pub(super) decisions: Vec<Duration>,
}

/// The nodes in an order of the seed's own: it breaks all ties.
pub(super) fn arena(nodes: &[NodeRow], seed: u64) -> Arena {
    let mut order: Vec<&NodeRow> = nodes.iter().collect();
    order.shuffle(&mut StdRng::seed_from_u64(seed));
    Arena::new(order.into_iter().map(NodeRow::facts))
}

/// All devices, in thousandths.
pub(super) fn total_milli(nodes: &[NodeRow]) -> u64 {
    nodes.iter().map(|node| u64::from(node.devices()) * u64::from(WHOLE_MILLI)).sum()
}

pub(super) fn run(
    nodes: &[NodeRow],
    workload: &Workload,
    (seed, draw): (u64, u64),
    placer: Placer,
) -> Outcome {
    let mut arena = arena(nodes, seed);
    let mut dice = StdRng::seed_from_u64(seed.rotate_left(32) ^ draw);
    let mut curve = Curve::new(total_milli(nodes));
    let order = workload.arrivals.get(&seed).map(Vec::as_slice).unwrap_or_default();
    let mut decisions = Vec::with_capacity(order.len());
    for task in order.iter().filter_map(|number| workload.tasks.get(*number)) {
        let demand = task.demand();
        let started = Instant::now();
        let spot = spot(&mut arena, task, placer, &mut dice);
        decisions.push(started.elapsed());
        let placed = spot.is_some();
        if let Some(spot) = spot {
            arena.book(demand, spot);
            // What is learned of a request helps those after it; of one that is refused a coordinator keeps nothing.
            arena.learn(demand);
        }
        curve.arrived(task.milli, placed);
    }
    Outcome { curve: curve.values(), decisions }
}

/// Where a task goes.
pub(super) fn spot(
    arena: &mut Arena,
    task: &Task,
    placer: Placer,
    dice: &mut StdRng,
) -> Option<Spot> {
    match placer {
        Placer::Random => random(arena, task, dice),
        Placer::Core(policy) => arena.place(task.demand(), policy),
    }
}

fn random(arena: &mut Arena, task: &Task, dice: &mut StdRng) -> Option<Spot> {
    let demand = task.demand();
    let node = *arena.nodes_for(demand).choose(dice)?;
    let mut devices = arena.devices_for(demand, node)?;
    devices.shuffle(dice);
    devices.truncate(task.ask.devices as usize);
    Some(Spot { node, devices })
}

/// Percent allocated by percent arrived.
struct Curve {
    total: f64,
    arrived: u64,
    used: u64,
    sums: Vec<(f64, u32)>,
}

impl Curve {
    fn new(total: u64) -> Self {
        Self { total: total as f64, arrived: 0, used: 0, sums: vec![(0.0, 0); LAST_PERCENT + 1] }
    }

    fn arrived(&mut self, milli: u64, placed: bool) {
        self.arrived += milli;
        self.used += if placed { milli } else { 0 };
        let percent = |part: u64| 100.0 * part as f64 / self.total;
        let value = (percent(self.used) * 100.0).round() / 100.0;
        let bucket = percent(self.arrived).round_ties_even();
        let bucket = (0..=LAST_PERCENT).find(|at| *at as f64 >= bucket);
        if let Some((sum, count)) = bucket.and_then(|at| self.sums.get_mut(at)) {
            *sum += value;
            *count += 1;
        }
    }

    fn values(&self) -> Vec<Option<f64>> {
        let mean = |(sum, count): &(f64, u32)| (*count > 0).then(|| sum / f64::from(*count));
        self.sums.iter().map(mean).collect()
    }
}
