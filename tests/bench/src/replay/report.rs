//! What a replay has to say: tables for people, one JSON object for programs, and whether it passed.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use gpulease_tests::checker::{Fault, Verdict};
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::{
    drive::Wait,
    kills::Kill,
    timeline::{self, Point},
    trace::Class,
};
use crate::figures;

/// The trace must press: at least this share of the tasks waits.
const WAITED_MIN: f64 = 0.2;
/// Rows of the table of allocation over time.
const ROWS: u32 = 12;
/// The longest bar of that table, in characters.
const BAR: f64 = 40.0;
/// A histogram counts microseconds of replay or seconds of trace up to 2⁴⁰, in 3 significant digits.
const HISTOGRAM_MAX: u64 = 1 << 40;

/// All that is known at the end.
pub(super) struct Report {
    pub(super) verdict: Verdict,
    pub(super) tasks: usize,
    pub(super) tasks_unsatisfiable: usize,
    pub(super) waits: Vec<Wait>,
    pub(super) kills: Vec<Kill>,
    pub(super) kills_wanted: u32,
    pub(super) points: Vec<Point>,
    pub(super) devices: usize,
    pub(super) replay_seconds: f64,
    /// Trace seconds in one second of replay.
    pub(super) rate: f64,
    pub(super) seconds: f64,
    pub(super) seconds_max: f64,
    pub(super) seed: u64,
}

impl Report {
    fn waited_share(&self) -> f64 {
        let number = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        number(self.verdict.waited) / number(self.verdict.granted.max(1))
    }

    /// What failed, in words; empty: all passed.
    pub(super) fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let mut require = |held: bool, text: String| {
            if !held {
                failures.push(text);
            }
        };
        let expected = self.tasks - self.tasks_unsatisfiable;
        require(self.verdict.is_clean(), format!("{}", self.verdict));
        require(
            self.verdict.granted == expected,
            format!("{} of {expected} tasks granted", self.verdict.granted),
        );
        require(
            self.verdict.refused == self.tasks_unsatisfiable,
            format!("{} refused, not {}", self.verdict.refused, self.tasks_unsatisfiable),
        );
        require(
            self.waited_share() >= WAITED_MIN,
            format!("only {:.1} % waited", self.waited_share() * 100.0),
        );
        require(
            self.kills.len() >= self.kills_wanted as usize,
            format!("{} kills", self.kills.len()),
        );
        let loaded = self.kills.iter().all(|kill| kill.active > 0);
        require(loaded, "a kill met no lease".to_owned());
        require(self.seconds <= self.seconds_max, format!("it took {:.0} s", self.seconds));
        failures
    }

    pub(super) fn text(&self) -> String {
        let mut text = self.waits_table();
        text.push_str(&self.allocation_table());
        text.push_str(&self.kills_table());
        text
    }

    fn waits_table(&self) -> String {
        let mut text = format!(
            "\n{:<12}{:>8}{:>11}{:>11}{:>11}   {:>11}{:>11}{:>11}\n",
            "waits", "leases", "p50", "p90", "p99", "trace p50", "p90", "p99"
        );
        for (name, waits) in self.by_class() {
            // Writing into a String cannot fail.
            let _ = write!(text, "{name:<12}{:>8}", waits.replay.len());
            for quantile in [0.5, 0.9, 0.99] {
                let micros = waits.replay.value_at_quantile(quantile);
                let _ = write!(
                    text,
                    "{:>11}",
                    figures::seconds(Duration::from_micros(micros).as_secs_f64())
                );
            }
            text.push_str("   ");
            for quantile in [0.5, 0.9, 0.99] {
                let seconds = waits.trace.value_at_quantile(quantile);
                let _ = write!(
                    text,
                    "{:>11}",
                    figures::seconds(Duration::from_secs(seconds).as_secs_f64())
                );
            }
            text.push('\n');
        }
        let _ = writeln!(
            text,
            "(from arrival to answer, the round trip included: 1 ms of replay is {} of the trace)",
            figures::seconds(self.rate / 1e3)
        );
        text
    }

    /// By class of service, and all together.
    fn by_class(&self) -> BTreeMap<&'static str, Waits> {
        let mut classes: BTreeMap<&'static str, Waits> = BTreeMap::new();
        for wait in &self.waits {
            for name in [wait.class.name(), "all"] {
                classes.entry(name).or_default().record(wait);
            }
        }
        classes
    }

    fn allocation_table(&self) -> String {
        let devices = f64::from(u32::try_from(self.devices).unwrap_or(u32::MAX));
        let mut text = format!("\n{:>9}{:>10}{:>10}\n", "replay", "taken", "waiting");
        for part in timeline::averages(&self.points, self.replay_seconds, ROWS) {
            let share = part.taken / devices.max(1.0);
            let length = (share * BAR).round().clamp(0.0, BAR);
            let bar: String =
                (0_u32..).map(f64::from).take_while(|at| *at < length).map(|_| '█').collect();
            let _ = writeln!(
                text,
                "{:>7.0} s{:>8.1} %{:>10.0}  {bar}",
                part.at,
                share * 100.0,
                part.queued
            );
        }
        text
    }

    fn kills_table(&self) -> String {
        let mut text =
            format!("\n{:>9}{:>10}{:>10}{:>10}\n", "kill at", "outage", "held", "waiting");
        for kill in &self.kills {
            let outage = figures::seconds(kill.outage.as_secs_f64());
            let _ = writeln!(
                text,
                "{:>7.0} s{outage:>10}{:>10}{:>10}",
                kill.at, kill.active, kill.queued
            );
        }
        text
    }

    /// The figures, on one line.
    pub(super) fn line(&self) -> String {
        format!(
            "{} of {} tasks granted and released, {} refused as unsatisfiable; {:.1} % waited; {} kills survived; \
             acknowledged grants lost {}, double grants {}, invariant violations {}; {:.0} s; seed {}",
            self.verdict.released,
            self.tasks,
            self.verdict.refused,
            self.waited_share() * 100.0,
            self.kills.len(),
            self.verdict.count(Fault::GrantLost),
            self.verdict.count(Fault::DoubleGrant),
            self.verdict.count(Fault::Invariant) + self.verdict.count(Fault::NotOnce),
            self.seconds,
            self.seed
        )
    }

    pub(super) fn json(&self) -> Value {
        let waits: BTreeMap<_, _> =
            self.by_class().into_iter().map(|(name, waits)| (name, waits.json())).collect();
        let kills: Vec<Value> = self
            .kills
            .iter()
            .map(|kill| {
                json!({
                    "at_seconds": kill.at, "outage_seconds": kill.outage.as_secs_f64(),
                    "active": kill.active, "queued": kill.queued,
                })
            })
            .collect();
        json!({
            "tasks": self.tasks, "granted": self.verdict.granted, "released": self.verdict.released,
            "refused_unsatisfiable": self.verdict.refused, "waited_share": self.waited_share(),
            "waits": waits, "kills": kills, "seconds": self.seconds, "seed": self.seed,
            "grants_lost": self.verdict.count(Fault::GrantLost),
            "double_grants": self.verdict.count(Fault::DoubleGrant),
            "violations": self.verdict.count(Fault::Invariant),
            "not_once": self.verdict.count(Fault::NotOnce),
            "failures": self.failures(),
        })
    }
}

/// The waits of one class.
struct Waits {
    /// Microseconds of replay.
    replay: Histogram<u64>,
    /// Seconds of trace.
    trace: Histogram<u64>,
}

impl Default for Waits {
    fn default() -> Self {
        let histogram = || {
            Histogram::new_with_max(HISTOGRAM_MAX, 3)
                .expect("2⁴⁰ with 3 digits is a valid histogram")
        };
        Self { replay: histogram(), trace: histogram() }
    }
}

impl Waits {
    fn record(&mut self, wait: &Wait) {
        let whole = |seconds: f64, unit: Duration| {
            let units = Duration::from_secs_f64(seconds).as_micros() / unit.as_micros();
            u64::try_from(units).unwrap_or(HISTOGRAM_MAX)
        };
        self.replay.saturating_record(whole(wait.replay_seconds, Duration::from_micros(1)));
        self.trace.saturating_record(whole(wait.trace_seconds, Duration::from_secs(1)));
    }

    fn json(&self) -> Value {
        let quantiles = |histogram: &Histogram<u64>| {
            [0.5, 0.9, 0.99].map(|quantile| histogram.value_at_quantile(quantile))
        };
        let ([p50, p90, p99], trace) = (quantiles(&self.replay), quantiles(&self.trace));
        json!({
            "leases": self.replay.len(),
            "replay_microseconds": { "p50": p50, "p90": p90, "p99": p99 },
            "trace_seconds": { "p50": trace[0], "p90": trace[1], "p99": trace[2] },
        })
    }
}

/// How the classes are read.
pub(super) fn classes_text(counts: &BTreeMap<Class, usize>) -> String {
    let parts: Vec<String> = counts
        .iter()
        .map(|(class, count)| {
            let priority = super::slice::priority(*class).name().to_lowercase();
            format!(
                "{} {} as {priority}",
                figures::thousands(f64::from(u32::try_from(*count).unwrap_or(u32::MAX))),
                class.name()
            )
        })
        .collect();
    parts.join(", ")
}
