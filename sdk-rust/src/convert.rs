//! Small conversions between the wire's types and plain Rust ones.

use std::time::{Duration, SystemTime};

/// A duration from the wire; a negative one, which is never sent, reads as absent.
pub(crate) fn duration(wire: prost_types::Duration) -> Option<Duration> {
    Duration::try_from(wire).ok()
}

/// A duration for the wire; one beyond its range becomes its longest.
pub(crate) fn wire_duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(duration)
        .unwrap_or(prost_types::Duration { seconds: i64::MAX, nanos: 0 })
}

/// A time from the wire; one that the platform cannot show reads as absent.
pub(crate) fn time(wire: prost_types::Timestamp) -> Option<SystemTime> {
    SystemTime::try_from(wire).ok()
}

/// A text where the wire's empty one means "none".
pub(crate) fn text(wire: String) -> Option<String> {
    Some(wire).filter(|text| !text.is_empty())
}
