//! The same tasks under churn: each stays for a drawn time and leaves.
//!
//! Tasks arrive one per tick, in the order of the workload and over again, so fast that, were all placed and the
//! times exponential (they are), [`OFFERED_PERCENT`] of all devices would be asked for at any time. Those that do not fit
//! are dropped. It tells which share of the devices asked for was granted, once the cluster is full. There is nothing
//! published to compare with: it shows that a policy tuned without departures does well with them too.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use anyhow::Context as _;
use gpulease_core::placement::arena::Booking;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;

use super::{
    data::{Folder, NodeRow, Workload},
    experiment::{Placer, arena, spot, total_milli},
};
use crate::progress::Progress;

const OFFERED_PERCENT: u64 = 105;
/// Lifetimes until the figures count: after five, all but e⁻⁵ of the first tasks are gone.
const WARM_LIFETIMES: u64 = 5;
/// Lifetimes that count.
const COUNTED_LIFETIMES: u64 = 5;

pub(super) fn run(
    folder: &Folder,
    nodes: &[NodeRow],
    (names, placers): (&[String], &[Placer]),
    as_json: bool,
) -> anyhow::Result<bool> {
    let progress = Progress::new((names.len() * placers.len()) as u64, "runs under churn");
    let mut done = 0;
    let mut all = serde_json::Map::new();
    for name in names {
        let workload = folder.workload(name)?;
        let mut figures = serde_json::Map::new();
        for placer in placers {
            let share = granted_percent(nodes, &workload, *placer);
            figures.insert(placer.name().to_owned(), json!(share));
            done += 1;
            progress.at(done, format!("{name} {}", placer.name()));
            if !as_json {
                println!("{name:<14}{:<18}{share:>7.2} % of what was asked for", placer.name());
            }
        }
        all.insert(name.clone(), figures.into());
    }
    if as_json {
        let text = json!({ "offered_percent": OFFERED_PERCENT, "granted_percent": all });
        println!("{}", serde_json::to_string(&text).context("write JSON")?);
    }
    Ok(true)
}

/// Of the devices asked for, how many were granted, in percent.
fn granted_percent(nodes: &[NodeRow], workload: &Workload, placer: Placer) -> f64 {
    let Some((seed, order)) = workload.arrivals.first_key_value() else { return f64::NAN };
    let mut arena = arena(nodes, *seed);
    let mut dice = StdRng::seed_from_u64(*seed);
    let tasks: Vec<_> = order.iter().filter_map(|number| workload.tasks.get(*number)).collect();
    let milli: u64 = tasks.iter().map(|task| task.milli).sum();
    // Little's law: demand at any time = mean demand of a task × arrivals per tick (one) × lifetime.
    let wanted = OFFERED_PERCENT * total_milli(nodes) * tasks.len() as u64;
    let lifetime = wanted / (100 * milli.max(1));
    let (warm, end) = (WARM_LIFETIMES * lifetime, (WARM_LIFETIMES + COUNTED_LIFETIMES) * lifetime);
    let mut leaving: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let mut bookings: Vec<Option<Booking>> = Vec::new();
    let (mut asked, mut granted) = (0u64, 0u64);
    for (now, task) in (0..end).zip(tasks.iter().cycle()) {
        while leaving.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            let Some(Reverse((_, number))) = leaving.pop() else { break };
            if let Some(booking) = bookings.get_mut(number).and_then(Option::take) {
                arena.give_back(&booking);
            }
        }
        let demand = task.demand();
        arena.learn(demand);
        let found = spot(&mut arena, task, placer, &mut dice);
        if now >= warm {
            asked += task.milli;
            granted += if found.is_some() { task.milli } else { 0 };
        }
        // Drawn for every task, so that all policies see the same times.
        let stays = -(lifetime as f64) * (1.0 - dice_of(*seed, now)).ln();
        let stays = Duration::from_secs_f64(stays).as_secs();
        if let Some(found) = found {
            leaving.push(Reverse((now + 1 + stays, bookings.len())));
            bookings.push(Some(arena.book(demand, found)));
        }
    }
    100.0 * granted as f64 / asked.max(1) as f64
}

/// A number from 0 to 1 for one tick, whatever else was drawn.
fn dice_of(seed: u64, tick: u64) -> f64 {
    StdRng::seed_from_u64(seed.rotate_left(32) ^ tick).random()
}
