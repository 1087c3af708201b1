//! Between the wire and the core: the only place where one becomes the other.
//!
//! Inwards every text, list, number and duration is checked before the core sees it, and a refusal names the field,
//! the value and what would do. Outwards nothing can fail. Times leave as wall clock for display, durations to obey (P5).

mod bounds;
mod device;
mod event;
mod explain;
mod lease;
mod notice;
mod page;
mod plan;
mod queue;
mod request;
mod sample;
mod time;

pub(super) use bounds::{at_most, holder_named, known_text, optional_holder};
pub(super) use device::device;
pub(super) use event::{Forgotten, watch_response};
pub(super) use explain::{device_process, explanation};
pub(super) use lease::{ended, facts, lease, leases_within, state_filter};
pub(super) use notice::renewed;
pub(super) use page::{Page, PageKind};
pub(super) use plan::{plan, planned};
pub(super) use queue::queue;
pub(super) use request::{extension, request, target, text_within_bytes};
pub(super) use sample::{operations, sample, work};
pub(super) use time::{Display, duration, from_span, timestamp};

#[cfg(test)]
mod tests;
