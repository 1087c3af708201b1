//! Durations and times of the wire.
//!
//! A wire duration can be negative, or carry nanoseconds beyond a second; neither gets through. Coordinator time
//! becomes wall clock by its distance from now, so that a wall clock that jumped shows at once and changes nothing.

use std::time::{Duration, SystemTime};

use gpulease_core::{
    request::InvalidField,
    time::{Span, Time},
};

/// A wire duration within bounds, rounded up to milliseconds so that a promise never becomes shorter.
///
/// # Errors
/// It is negative, malformed or out of bounds.
pub(in crate::api) fn duration(
    field: &'static str,
    wire: &prost_types::Duration,
    bounds: (Span, Span),
) -> Result<Span, InvalidField> {
    exact_duration(field, wire, bounds).map(Span::from)
}

/// The same to the nanosecond.
///
/// # Errors
/// It is negative, malformed or out of bounds.
pub(super) fn exact_duration(
    field: &'static str,
    wire: &prost_types::Duration,
    (min, max): (Span, Span),
) -> Result<Duration, InvalidField> {
    let refuse = |value: String| InvalidField::new(field, value, format!("{min} to {max}"));
    let malformed = !(-999_999_999..=999_999_999).contains(&wire.nanos)
        || (wire.seconds > 0 && wire.nanos < 0)
        || (wire.seconds < 0 && wire.nanos > 0);
    if malformed {
        return Err(refuse(format!("{} s and {} ns", wire.seconds, wire.nanos)));
    }
    let (Ok(secs), Ok(nanos)) = (u64::try_from(wire.seconds), u32::try_from(wire.nanos)) else {
        let (secs, nanos) = (wire.seconds.unsigned_abs(), wire.nanos.unsigned_abs());
        return Err(refuse(format!("-{}", show(secs, nanos))));
    };
    let exact = Duration::new(secs, nanos);
    if (min..=max).contains(&Span::from(exact)) {
        Ok(exact)
    } else {
        Err(refuse(show(secs, nanos)))
    }
}

fn show(secs: u64, nanos: u32) -> String {
    if nanos == 0 {
        return format!("{secs}s");
    }
    format!("{secs}.{}s", format!("{nanos:09}").trim_end_matches('0'))
}

/// A span as a wire duration.
pub(in crate::api) fn from_span(span: Span) -> prost_types::Duration {
    let millis = span.as_millis();
    let nanos = i32::try_from(millis % 1_000).unwrap_or(0) * 1_000_000;
    prost_types::Duration { seconds: i64::try_from(millis / 1_000).unwrap_or(i64::MAX), nanos }
}

/// The last second that a wire timestamp may say: the end of the year 9999.
const TIMESTAMP_SECONDS_MAX: i64 = 253_402_300_799;

/// A wall-clock time as a wire timestamp.
pub(in crate::api) fn timestamp(wall: SystemTime) -> prost_types::Timestamp {
    let shown = prost_types::Timestamp::from(wall);
    if shown.seconds <= TIMESTAMP_SECONDS_MAX {
        return shown;
    }
    prost_types::Timestamp { seconds: TIMESTAMP_SECONDS_MAX, nanos: 0 }
}

/// Shows coordinator time as wall clock: both clocks, read at the same moment.
#[derive(Clone, Copy, Debug)]
pub(in crate::api) struct Display {
    now: Time,
    wall: SystemTime,
}

impl Display {
    /// Reads the wall clock beside `now`.
    pub(in crate::api) fn at(now: Time) -> Self {
        Self { now, wall: SystemTime::now() }
    }

    /// When that was, or will be.
    pub(in crate::api) fn timestamp(&self, time: Time) -> prost_types::Timestamp {
        let wall = if time <= self.now {
            self.wall.checked_sub(self.now.since(time).as_duration())
        } else {
            self.wall.checked_add(time.since(self.now).as_duration())
        };
        timestamp(wall.unwrap_or(SystemTime::UNIX_EPOCH))
    }
}
