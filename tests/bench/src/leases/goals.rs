//! What was measured, and the goals that it is held against.

use std::fmt::{self, Write as _};

use serde_json::{Value, json};

use crate::figures::{self, Rounds};

/// A lone cycle cannot take less than its two syncs and echoes, but for what medians of different rounds differ by.
const CYCLE_RATIO_MIN: f64 = 0.8;

/// A set of goals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Goals {
    /// Those of the first version that does its main job: on two cores shared with the client, all synced.
    Spine,
}

impl Goals {
    const fn cycles_per_second_min(self) -> f64 {
        match self {
            Self::Spine => 20_000.0,
        }
    }

    /// One lone cycle, in multiples of two syncs and two echoes.
    const fn cycle_ratio_max(self) -> f64 {
        match self {
            Self::Spine => 2.5,
        }
    }

    const fn restart_seconds_max(self) -> f64 {
        match self {
            Self::Spine => 2.0,
        }
    }

    const fn memory_idle_mebibytes_max(self) -> f64 {
        match self {
            Self::Spine => 40.0,
        }
    }
}

/// All figures of a run.
#[derive(Debug, Default)]
pub(super) struct Measured {
    pub(super) machine: String,
    pub(super) sync_micros: Rounds,
    pub(super) append_micros: Rounds,
    pub(super) echo_micros: Rounds,
    pub(super) cycle_micros: Rounds,
    pub(super) cycles_per_second: Rounds,
    pub(super) checked: usize,
    pub(super) checked_clean: bool,
    pub(super) live: u64,
    pub(super) restart_ready_seconds: f64,
    pub(super) restart_answered_seconds: f64,
    pub(super) memory_live_bytes: u64,
    pub(super) memory_idle_bytes: u64,
}

/// A goal, and what was reached.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) name: &'static str,
    value: f64,
    goal: String,
    pub(super) reached: bool,
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.reached { "reached" } else { "MISSED" };
        let value = if self.value >= 1_000.0 {
            figures::thousands(self.value)
        } else {
            format!("{:.2}", self.value)
        };
        write!(formatter, "{word}: {} {value} (goal {})", self.name, self.goal)
    }
}

impl Measured {
    /// Two syncs, of the faster kind, and two echoes: what a cycle costs where only disk and transport cost anything.
    fn floor_micros(&self) -> f64 {
        let sync_micros = self.sync_micros.median().min(self.append_micros.median());
        2.0 * sync_micros + 2.0 * self.echo_micros.median()
    }

    fn cycle_ratio(&self) -> f64 {
        self.cycle_micros.median() / self.floor_micros().max(f64::MIN_POSITIVE)
    }

    fn memory_idle_mebibytes(&self) -> f64 {
        mebibytes(self.memory_idle_bytes)
    }

    pub(super) fn outcomes(&self, goals: Goals) -> Vec<Outcome> {
        let at_least = |name, value, min: f64| {
            let goal = format!("at least {}", figures::thousands(min));
            Outcome { name, value, goal, reached: value >= min }
        };
        let at_most = |name, value, max: f64| Outcome {
            name,
            value,
            goal: format!("at most {max}"),
            reached: value <= max,
        };
        let checked = Outcome {
            name: "acknowledged cycles found in the events",
            value: f64::from(u32::try_from(self.checked).unwrap_or(u32::MAX)),
            goal: "all, without a fault".to_owned(),
            reached: self.checked_clean && self.checked > 0,
        };
        let idle = goals.memory_idle_mebibytes_max();
        vec![
            at_least(
                "cycles/s with 64 in flight",
                self.cycles_per_second.median(),
                goals.cycles_per_second_min(),
            ),
            self.lone_cycle(goals.cycle_ratio_max()),
            at_most(
                "restart with live leases, seconds",
                self.restart_answered_seconds,
                goals.restart_seconds_max(),
            ),
            at_most("idle resident memory, MiB", self.memory_idle_mebibytes(), idle),
            checked,
        ]
    }

    /// A cycle has two syncs in it, so a ratio well below 1 shows only that a busy machine held the bare syncs up.
    fn lone_cycle(&self, max: f64) -> Outcome {
        let value = self.cycle_ratio();
        let disturbed = value < CYCLE_RATIO_MIN;
        let note = if disturbed { "; the bare syncs were held up, measure again" } else { "" };
        Outcome {
            name: "lone cycle / (2 syncs + 2 echoes)",
            value,
            goal: format!("at most {max}{note}"),
            reached: value <= max && !disturbed,
        }
    }

    pub(super) fn table(&self) -> String {
        let (median, least, most) = ("median", "least", "most");
        let mut text = format!("{}\n{:<44}{median:>12}{least:>12}{most:>12}\n", self.machine, "");
        let mut row = |name: &str, rounds: &Rounds, unit: &str| {
            let cell = |value| format!("{} {unit}", figures::thousands(value));
            let (median, least, most) =
                (cell(rounds.median()), cell(rounds.least()), cell(rounds.most()));
            // Writing into a String cannot fail.
            let _ = writeln!(text, "{name:<44}{median:>12}{least:>12}{most:>12}");
        };
        row("write in place + fdatasync", &self.sync_micros, "µs");
        row("append + fdatasync", &self.append_micros, "µs");
        row("echo over one tonic stream", &self.echo_micros, "µs");
        row("acquire + release, alone", &self.cycle_micros, "µs");
        row("acquire + release, 64 in flight", &self.cycles_per_second, "/s");
        let _ = write!(
            text,
            "lone cycle: {:.2} × (2 syncs + 2 echoes = {} µs)\n\
             restart with {} live leases: ready after {}, first answer after {}, {:.1} MiB resident\n\
             idle: {:.1} MiB resident\n",
            self.cycle_ratio(),
            figures::thousands(self.floor_micros()),
            self.live,
            figures::seconds(self.restart_ready_seconds),
            figures::seconds(self.restart_answered_seconds),
            mebibytes(self.memory_live_bytes),
            self.memory_idle_mebibytes(),
        );
        text
    }

    pub(super) fn json(&self, outcomes: &[Outcome]) -> Value {
        let rounds = |rounds: &Rounds| json!({ "median": rounds.median(), "least": rounds.least(), "most": rounds.most() });
        let goals: Vec<Value> = outcomes
            .iter()
            .map(|outcome| {
                json!({
                    "name": outcome.name, "value": outcome.value, "goal": outcome.goal,
                    "reached": outcome.reached,
                })
            })
            .collect();
        json!({
            "machine": self.machine,
            "sync_microseconds": rounds(&self.sync_micros),
            "append_microseconds": rounds(&self.append_micros),
            "echo_microseconds": rounds(&self.echo_micros),
            "cycle_microseconds": rounds(&self.cycle_micros),
            "cycles_per_second": rounds(&self.cycles_per_second),
            "cycle_ratio": self.cycle_ratio(),
            "live_leases": self.live,
            "restart_ready_seconds": self.restart_ready_seconds,
            "restart_answered_seconds": self.restart_answered_seconds,
            "memory_live_bytes": self.memory_live_bytes,
            "memory_idle_bytes": self.memory_idle_bytes,
            "checked_cycles": self.checked,
            "goals": goals,
        })
    }
}

fn mebibytes(bytes: u64) -> f64 {
    // Kibibytes fit into 32 bits up to 4 TiB of memory, far more than a coordinator takes.
    f64::from(u32::try_from(bytes >> 10).unwrap_or(u32::MAX)) / 1_024.0
}
