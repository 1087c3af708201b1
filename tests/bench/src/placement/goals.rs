//! The goals: each is checked for the workloads and policies that were run, where there is something published to
//! compare with.

use std::fmt;

use gpulease_core::request::PlacementPolicy;

use super::{experiment::Placer, report::Results};

/// How far the experiment's own checks may be off, in points.
const HARNESS: f64 = 0.3;
/// How far below the published FGD the default policy may be on one workload, in points.
const BELOW_FGD: f64 = 0.25;
/// At 90 % arrived nothing need be dropped where FGD drops nothing: at least so much is allocated …
const ALL_PLACED: f64 = 89.85;
/// … and FGD drops nothing where it has at least so much.
const FGD_PLACED: f64 = 89.9;
/// With a third of the tasks naming their models, at 100 % arrived.
const SCARCE: (&str, f64) = ("gpuspec33", 90.5);
/// A decision, at the median, in microseconds.
const FRAGMENTATION_MICROS: f64 = 100.0;
const BEST_FIT_MICROS: f64 = 20.0;

const FRAGMENTATION: Placer = Placer::Core(PlacementPolicy::Fragmentation);
const BEST_FIT: Placer = Placer::Core(PlacementPolicy::BestFit);

/// A goal with its figures.
pub(super) struct Goal {
    pub(super) name: String,
    pub(super) figures: String,
    pub(super) reached: bool,
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.reached { "reached" } else { "MISSED " };
        write!(f, "{mark}  {}: {}", self.name, self.figures)
    }
}

/// All goals that can be told from what was run.
pub(super) fn outcomes(results: &Results) -> Vec<Goal> {
    let mut goals = Vec::new();
    goals.extend(harness(results, Placer::Random, "Random"));
    goals.extend(harness(results, BEST_FIT, "BestFit"));
    goals.extend(not_below_fgd(results));
    goals.extend(mean_above_fgd(results));
    goals.extend(scarce(results));
    goals.extend(all_placed(results));
    goals.extend(time(results, FRAGMENTATION, FRAGMENTATION_MICROS));
    goals.extend(time(results, BEST_FIT, BEST_FIT_MICROS));
    goals
}

/// How far a policy is above the published one, by workload; the percentages asked for.
fn above(results: &Results, placer: Placer, name: &str, percents: &[usize]) -> Vec<(String, f64)> {
    let mut all = Vec::new();
    for workload in results.workloads.keys() {
        for percent in percents {
            let published = results.published.at(workload, name, *percent);
            let ours = results.of(workload, placer).map(|summary| summary.at(*percent));
            if let (Some(ours), Some(published)) = (ours, published) {
                all.push((format!("{workload} at {percent} %"), ours - published));
            }
        }
    }
    all
}

fn harness(results: &Results, placer: Placer, name: &str) -> Option<Goal> {
    let off = above(results, placer, name, &[90, 100, 130]);
    let (place, most) = off.into_iter().max_by(|a, b| a.1.abs().total_cmp(&b.1.abs()))?;
    Some(Goal {
        name: format!("{} as published, within {HARNESS} points", placer.name()),
        figures: format!("at most {most:+.2} ({place})"),
        reached: most.abs() <= HARNESS,
    })
}

fn not_below_fgd(results: &Results) -> Option<Goal> {
    let by = above(results, FRAGMENTATION, "FGD", &[100, 130]);
    let (place, least) = by.into_iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
    Some(Goal {
        name: format!("fragmentation at least FGD − {BELOW_FGD}"),
        figures: format!("at least {least:+.2} ({place})"),
        reached: least >= -BELOW_FGD,
    })
}

fn mean_above_fgd(results: &Results) -> Option<Goal> {
    let by = above(results, FRAGMENTATION, "FGD", &[100]);
    if by.is_empty() {
        return None;
    }
    let mean = by.iter().map(|(_, value)| value).sum::<f64>() / by.len() as f64;
    Some(Goal {
        name: "fragmentation above FGD in the mean at 100 %".to_owned(),
        figures: format!("{mean:+.2} over {} workloads", by.len()),
        reached: mean > 0.0,
    })
}

fn scarce(results: &Results) -> Option<Goal> {
    let (workload, least) = SCARCE;
    let value = results.of(workload, FRAGMENTATION)?.at(100);
    Some(Goal {
        name: format!("{workload} at 100 % at least {least}"),
        figures: format!("{value:.2}"),
        reached: value >= least,
    })
}

fn all_placed(results: &Results) -> Option<Goal> {
    let at_90 = |workload: &String| {
        let published = results.published.at(workload, "FGD", 90)?;
        let ours = results.of(workload, FRAGMENTATION)?.at(90);
        (published >= FGD_PLACED).then(|| (workload.clone(), ours))
    };
    let all = results.workloads.keys().filter_map(at_90);
    let (place, least) = all.min_by(|a, b| a.1.total_cmp(&b.1))?;
    Some(Goal {
        name: format!("at 90 % at least {ALL_PLACED} wherever FGD places everything"),
        figures: format!("at least {least:.2} ({place})"),
        reached: least >= ALL_PLACED,
    })
}

fn time(results: &Results, placer: Placer, most_micros: f64) -> Option<Goal> {
    let medians = results
        .workloads
        .keys()
        .filter_map(|name| Some((name.clone(), results.of(name, placer)?.median_micros)));
    let (place, most) = medians.max_by(|a, b| a.1.total_cmp(&b.1))?;
    Some(Goal {
        name: format!("a decision of {} within {most_micros} µs at the median", placer.name()),
        figures: format!("at most {most:.1} µs ({place})"),
        reached: most <= most_micros,
    })
}

/// The figures on one line: what is allocated at 100 % by the default policy and the published FGD, and what is missed.
pub(super) fn figures(results: &Results, missed: &[&str]) -> String {
    let mut parts: Vec<String> = Vec::new();
    for workload in results.workloads.keys() {
        if let Some(ours) = results.of(workload, FRAGMENTATION) {
            let published = results.published.at(workload, "FGD", 100);
            let beside = published.map(|value| format!(" (FGD {value:.2})")).unwrap_or_default();
            parts.push(format!("{workload} {:.2}{beside}", ours.at(100)));
        }
    }
    let goals = outcomes(results);
    parts.extend(goals.iter().map(|goal| format!("{} {}", goal.name, goal.figures)));
    if !missed.is_empty() {
        parts.push(format!("missed: {}", missed.join(", ")));
    }
    parts.join("; ")
}
