//! Figures for people: medians with their spread, durations and sizes in a fitting unit.

use std::time::Duration;

/// What was measured once in each round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rounds(Vec<f64>);

impl Rounds {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    fn sorted(&self) -> Vec<f64> {
        let mut values = self.0.clone();
        values.sort_by(f64::total_cmp);
        values
    }

    /// Zero where nothing was measured.
    pub(crate) fn median(&self) -> f64 {
        median(&self.sorted())
    }

    pub(crate) fn least(&self) -> f64 {
        self.sorted().first().copied().unwrap_or(0.0)
    }

    pub(crate) fn most(&self) -> f64 {
        self.sorted().last().copied().unwrap_or(0.0)
    }
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    let upper = sorted.get(middle).copied().unwrap_or(0.0);
    if sorted.len() % 2 == 1 || middle == 0 {
        return upper;
    }
    f64::midpoint(upper, sorted.get(middle - 1).copied().unwrap_or(upper))
}

/// The median of durations, in microseconds.
pub(crate) fn median_micros(durations: &[Duration]) -> f64 {
    let mut micros: Vec<f64> = durations.iter().map(|one| one.as_secs_f64() * 1e6).collect();
    micros.sort_by(f64::total_cmp);
    median(&micros)
}

/// `950 µs`, `12.3 ms`, `4.56 s`, `3.2 min`, `4.5 h`, `2.3 d`.
pub(crate) fn seconds(value: f64) -> String {
    match value {
        value if value < 0.001 => format!("{:.0} µs", value * 1e6),
        value if value < 1.0 => format!("{:.1} ms", value * 1e3),
        value if value < 120.0 => format!("{value:.2} s"),
        value if value < 7_200.0 => format!("{:.1} min", value / 60.0),
        value if value < 172_800.0 => format!("{:.1} h", value / 3_600.0),
        value => format!("{:.1} d", value / 86_400.0),
    }
}

/// `12,345`.
pub(crate) fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_of_an_even_count_is_the_middle_of_two() {
        let mut rounds = Rounds::default();
        for value in [4.0, 1.0, 3.0, 2.0] {
            rounds.push(value);
        }
        assert_eq!((rounds.median(), rounds.least(), rounds.most()), (2.5, 1.0, 4.0));
    }

    #[test]
    fn thousands_are_grouped() {
        let texts = [0.0, 999.0, 1_000.0, 1_234_567.4].map(thousands);
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn seconds_choose_their_unit() {
        let texts = [0.000_95, 0.0123, 4.56, 192.0, 16_200.0].map(seconds);
        assert_eq!(texts, ["950 µs", "12.3 ms", "4.56 s", "3.2 min", "4.5 h"]);
    }
}
