//! `placement`: the published experiment of "Beware of Fragmentation" (USENIX ATC 2023) on the core itself.
//!
//! The tasks of a workload arrive at an empty cluster in a published order, stay, and are dropped where they do not
//! fit; per policy it tells how much of all devices is allocated when 90, 100 and 130 % of them have been asked for,
//! beside the published results, and how long a decision takes. It measures placement alone: no coordinator, no queue.

mod chart;
mod churn;
mod data;
mod experiment;
mod goals;
mod report;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use gpulease_core::request::PlacementPolicy;

use self::{
    data::{Folder, NodeRow, Workload},
    experiment::{Outcome, Placer},
    report::{Results, Summary},
};
use crate::progress::Progress;

/// Draws per seed of the random policy: its mean over ten seeds alone varies by some 0.15 points.
const RANDOM_DRAWS: u64 = 3;

/// Replays the published placement experiment, and compares policies.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The folder with the nodes, the pod lists, the arrival orders and, where there are any, the published results.
    #[arg(long, value_name = "DIRECTORY")]
    traces: PathBuf,
    /// Which policies, by name; random is drawn by the bench. By default random, best-fit and fragmentation: those
    /// that the goals are about.
    #[arg(long, value_delimiter = ',', value_name = "NAME,…", value_parser = placer)]
    policies: Vec<Placer>,
    /// Which workloads, by name; by default all that the folder holds.
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    workloads: Vec<String>,
    /// Print the figures as one JSON object.
    #[arg(long)]
    json: bool,
    /// Exit with 1 when a goal is missed; the last line has the figures.
    #[arg(long)]
    check: bool,
    /// Draw the curves into this PNG file.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Compare the policies under churn instead: tasks leave after a drawn time, and those that do not fit are dropped.
    #[arg(long, conflicts_with_all = ["check", "plot"])]
    churn: bool,
}

fn placer(text: &str) -> Result<Placer, String> {
    let mut known = vec![Placer::Random];
    known.extend(PlacementPolicy::ALL.map(Placer::Core));
    known.iter().copied().find(|it| it.name() == text).ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|it| it.name()).collect();
        format!("no such policy; there are {}", names.join(", "))
    })
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let folder = Folder::new(&arguments.traces);
    let nodes = folder.nodes()?;
    let names = if arguments.workloads.is_empty() {
        folder.workloads()?
    } else {
        arguments.workloads.clone()
    };
    let mut placers = arguments.policies.clone();
    if placers.is_empty() {
        placers = vec![
            Placer::Random,
            Placer::Core(PlacementPolicy::BestFit),
            Placer::Core(PlacementPolicy::Fragmentation),
        ];
    }
    if arguments.churn {
        return churn::run(&folder, &nodes, (&names, &placers), arguments.json);
    }
    let results = measure(&folder, &nodes, &names, &placers)?;
    if let Some(path) = &arguments.plot {
        chart::draw(path, &results)?;
    }
    results.print(arguments.json, arguments.check)
}

/// Every policy on every workload. The first seed is run alone, for the times; the others two at once.
fn measure(
    folder: &Folder,
    nodes: &[NodeRow],
    names: &[String],
    placers: &[Placer],
) -> anyhow::Result<Results> {
    let mut results = Results::new(folder.published()?);
    let mut runs = 0;
    let mut workloads = Vec::new();
    for name in names {
        let workload = folder.workload(name)?;
        runs += placers.iter().map(|placer| jobs(&workload, *placer).len()).sum::<usize>();
        workloads.push(workload);
    }
    let progress = Bar { bar: Progress::new(runs as u64, "runs"), done: Mutex::new(0) };
    for workload in &workloads {
        for placer in placers {
            let outcomes = all_seeds(nodes, workload, *placer, &progress);
            results.add(&workload.name, *placer, Summary::of(&outcomes));
        }
    }
    Ok(results)
}

/// Seeds and draws.
fn jobs(workload: &Workload, placer: Placer) -> Vec<(u64, u64)> {
    let draws = if placer == Placer::Random { RANDOM_DRAWS } else { 1 };
    let seeds = workload.arrivals.keys();
    seeds.flat_map(|seed| (0..draws).map(|draw| (*seed, draw))).collect()
}

struct Bar {
    bar: Progress,
    done: Mutex<u64>,
}

impl Bar {
    fn step(&self, message: String) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        *done += 1;
        self.bar.at(*done, message);
    }
}

fn all_seeds(nodes: &[NodeRow], workload: &Workload, placer: Placer, bar: &Bar) -> Vec<Outcome> {
    let run = |(seed, draw): (u64, u64)| {
        let outcome = experiment::run(nodes, workload, (seed, draw), placer);
        bar.step(format!("{} {}", workload.name, placer.name()));
        outcome
    };
    let jobs = jobs(workload, placer);
    let Some((first, others)) = jobs.split_first() else { return Vec::new() };
    let timed = run(*first);
    let outcomes: Mutex<BTreeMap<(u64, u64), Outcome>> = Mutex::default();
    let queue = Mutex::new(others.iter().copied());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(job) = next() {
                    let mut outcome = run(job);
                    outcome.decisions.clear();
                    outcomes.lock().unwrap_or_else(PoisonError::into_inner).insert(job, outcome);
                }
            });
        }
    });
    let rest = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner).into_values();
    std::iter::once(timed).chain(rest).collect()
}
