//! The figures: tables for people, JSON for programs, and the goals.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{
    data::Published,
    experiment::{LAST_PERCENT, Outcome, Placer},
    goals,
};

/// The percentages arrived that tables show.
pub(super) const SHOWN: [usize; 3] = [90, 100, 130];
/// The published policies, in the order of the tables.
const PUBLISHED: [&str; 6] = ["Random", "DotProd", "GpuClustering", "GpuPacking", "BestFit", "FGD"];

/// One policy on one workload.
#[derive(Clone, Debug)]
pub(super) struct Summary {
    /// Percent allocated by percent arrived, as the mean over the seeds.
    pub(super) curve: Vec<f64>,
    pub(super) median_micros: f64,
    pub(super) late_micros: f64,
}

impl Summary {
    pub(super) fn of(outcomes: &[Outcome]) -> Self {
        let mean = |at: usize| {
            let values =
                outcomes.iter().filter_map(|outcome| outcome.curve.get(at).copied().flatten());
            let values: Vec<f64> = values.collect();
            values.iter().sum::<f64>() / values.len() as f64
        };
        let mut times: Vec<Duration> =
            outcomes.iter().flat_map(|outcome| outcome.decisions.iter().copied()).collect();
        times.sort_unstable();
        let micros = |per_mille: usize| {
            let at = (times.len() * per_mille / 1_000).min(times.len().saturating_sub(1));
            times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e6)
        };
        Self {
            curve: (0..=LAST_PERCENT).map(mean).collect(),
            median_micros: micros(500),
            late_micros: micros(990),
        }
    }

    pub(super) fn at(&self, percent: usize) -> f64 {
        self.curve.get(percent).copied().unwrap_or(f64::NAN)
    }
}

/// Everything measured, beside what was published.
pub(super) struct Results {
    pub(super) published: Published,
    /// By workload, in order of its name: policies in the order asked for.
    pub(super) workloads: BTreeMap<String, Vec<(Placer, Summary)>>,
}

impl Results {
    pub(super) const fn new(published: Published) -> Self {
        Self { published, workloads: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, workload: &str, placer: Placer, summary: Summary) {
        self.workloads.entry(workload.to_owned()).or_default().push((placer, summary));
    }

    pub(super) fn of(&self, workload: &str, placer: Placer) -> Option<&Summary> {
        let all = self.workloads.get(workload)?;
        all.iter().find(|(other, _)| *other == placer).map(|(_, summary)| summary)
    }

    /// Prints; whether all goals are reached, or nobody asked.
    pub(super) fn print(&self, as_json: bool, check: bool) -> anyhow::Result<bool> {
        let outcomes = goals::outcomes(self);
        if as_json {
            let text = serde_json::to_string(&self.json(&outcomes)).context("write JSON")?;
            println!("{text}");
        } else {
            self.tables();
            for outcome in &outcomes {
                println!("{outcome}");
            }
        }
        let missed: Vec<&str> =
            outcomes.iter().filter(|it| !it.reached).map(|it| it.name.as_str()).collect();
        if check {
            let verdict = if missed.is_empty() { "all goals reached" } else { "goals missed" };
            println!("{verdict}: {}", goals::figures(self, &missed));
        }
        Ok(!check || missed.is_empty())
    }

    fn tables(&self) {
        for (workload, policies) in &self.workloads {
            println!("{workload}: percent of all devices allocated");
            let header = SHOWN.map(|percent| format!("at {percent} %"));
            println!(
                "  {:<26}{:>9}{:>9}{:>9}{:>12}{:>12}",
                "", header[0], header[1], header[2], "median", "99 in 100"
            );
            for name in PUBLISHED {
                let values = SHOWN.map(|percent| self.published.at(workload, name, percent));
                if values.iter().any(Option::is_some) {
                    println!("  {:<26}{}", format!("{name}, published"), row(values));
                }
            }
            for (placer, summary) in policies {
                let values = SHOWN.map(|percent| Some(summary.at(percent)));
                println!(
                    "  {:<26}{}{:>9.1} µs{:>9.1} µs",
                    placer.name(),
                    row(values),
                    summary.median_micros,
                    summary.late_micros
                );
            }
            println!();
        }
    }

    fn json(&self, outcomes: &[goals::Goal]) -> Value {
        let mut workloads = serde_json::Map::new();
        for (workload, policies) in &self.workloads {
            let measured = policies.iter().map(|(placer, summary)| {
                let figures = json!({
                    "allocated_percent": by_percent(|percent| Some(summary.at(percent))),
                    "decision_median_microseconds": summary.median_micros,
                    "decision_p99_microseconds": summary.late_micros,
                    "curve": summary.curve,
                });
                (placer.name().to_owned(), figures)
            });
            let published = PUBLISHED.iter().filter_map(|name| {
                self.published.curve(workload, name)?;
                let values = by_percent(|percent| self.published.at(workload, name, percent));
                Some(((*name).to_owned(), values))
            });
            let both = json!({
                "measured": measured.collect::<serde_json::Map<_, _>>(),
                "published": published.collect::<serde_json::Map<_, _>>(),
            });
            workloads.insert(workload.clone(), both);
        }
        let goals: Vec<Value> = outcomes
            .iter()
            .map(|it| json!({ "goal": it.name, "figures": it.figures, "reached": it.reached }))
            .collect();
        json!({ "workloads": workloads, "goals": goals })
    }
}

fn by_percent(value: impl Fn(usize) -> Option<f64>) -> Value {
    SHOWN.iter().map(|percent| (percent.to_string(), json!(value(*percent)))).collect()
}

fn row(values: [Option<f64>; 3]) -> String {
    values.map(|value| value.map_or("        –".to_owned(), |it| format!("{it:>9.2}"))).concat()
}
