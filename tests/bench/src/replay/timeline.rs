//! What was taken and who waited, over time, as the events told it.

use std::sync::{Arc, Mutex, PoisonError};

use gpulease_tests::checker::Ledger;

use super::clock::TraceClock;

/// Points closer than this are left out, in seconds of replay: 300 s make at most 6,000 points.
const APART: f64 = 0.05;

/// One point.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Point {
    /// Seconds of replay.
    pub(super) at: f64,
    /// Devices, fractions included.
    pub(super) taken: f64,
    pub(super) queued: f64,
}

/// Points in order of time; clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Timeline(Arc<Mutex<Vec<Point>>>);

impl Timeline {
    pub(super) fn look(&self, clock: &TraceClock, ledger: &Ledger) {
        let mut points = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = clock.elapsed();
        let number = |count: u64| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        let taken = number(ledger.taken_permille()) / 1_000.0;
        let queued = number(ledger.queued() as u64);
        let point = Point { at, taken, queued };
        match points.last_mut() {
            Some(last) if at - last.at < APART => *last = Point { at: last.at, ..point },
            _ => points.push(point),
        }
    }

    pub(super) fn points(&self) -> Vec<Point> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Averages over `count` equal parts of the time up to `end`: taken and queued. What was last told holds until the
/// next point.
pub(super) fn averages(points: &[Point], end: f64, count: u32) -> Vec<Point> {
    let width = end / f64::from(count.max(1));
    (0..count)
        .map(|part| {
            let (from, to) = (width * f64::from(part), width * f64::from(part + 1));
            let mut sum = Point { at: from, ..Point::default() };
            let starts = std::iter::once(Point::default()).chain(points.iter().copied());
            let ends = points.iter().map(|point| point.at).chain(std::iter::once(f64::INFINITY));
            for (point, until) in starts.zip(ends) {
                let weight = (until.min(to) - point.at.max(from)).max(0.0) / width;
                sum.taken += point.taken * weight;
                sum.queued += point.queued * weight;
            }
            sum
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_weigh_each_point_by_how_long_it_held() {
        let point = |at, taken| Point { at, taken, queued: 0.0 };
        let points = [point(1.0, 4.0), point(3.0, 8.0)];
        let taken: Vec<f64> =
            averages(&points, 4.0, 2).into_iter().map(|point| point.taken).collect();
        assert_eq!(taken, [2.0, 6.0]);
    }
}
