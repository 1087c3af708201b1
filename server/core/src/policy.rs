//! The figures that rule decisions and may differ from one installation to the next.
//!
//! Applying events never reads them, so that a journal replays the same under other settings.

use crate::time::Span;

/// How the scheduler decides. The default is the contract's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long an unclean end closes its part of a device (P6).
    pub lock_delay: Span,
    /// How long a place in the queue outlives its caller (P11).
    pub session_grace: Span,
    /// How long devices are kept for a request with no forecast end, and then not (P10).
    pub keep_max: Span,
    /// Waiting so long raises the order by one class (P10).
    pub aging_step: Span,
    /// Foreign memory up to which a device may be granted whole, in bytes (P1).
    pub exclusive_foreign_max_bytes: u64,
    /// Whether a device whose memory is unknown may be granted (P7).
    pub grant_unmeasured: bool,
    /// A device with no sample for so long is stale: no new grants.
    pub sample_age_max: Span,
    /// A node silent for so long is unreachable: no new grants (P13).
    pub node_unreachable_after: Span,
    /// A node silent for so long is lost (P13).
    pub node_silent_max: Span,
    /// A node not heard of for so long is no longer known (P13).
    pub node_known_for: Span,
    /// How long requests wait for the first inventory ever (P13).
    pub first_inventory_max: Span,
    /// A gap between two steps longer than this, while leases live, extends every deadline by itself (P4).
    pub gap_max: Span,
    /// The longest time between two steps while leases live (P4).
    pub heartbeat: Span,
    /// How often the time is made durable while leases live (P5).
    pub checkpoint: Span,
    /// The most waiting requests: a million of about 500 bytes are half a gigabyte.
    pub queued_max: usize,
    /// The most leases that have not ended: two million of about 500 bytes are a gigabyte.
    pub live_max: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            lock_delay: Span::from_secs(15),
            session_grace: Span::from_secs(10),
            keep_max: Span::from_minutes(10),
            aging_step: Span::from_minutes(10),
            exclusive_foreign_max_bytes: 1 << 30,
            grant_unmeasured: false,
            sample_age_max: Span::from_secs(3),
            node_unreachable_after: Span::from_secs(5),
            node_silent_max: Span::from_secs(60),
            node_known_for: Span::from_secs(3_600),
            first_inventory_max: Span::from_secs(30),
            gap_max: Span::from_secs(1),
            heartbeat: Span::from_millis(250),
            checkpoint: Span::from_secs(60),
            queued_max: 1 << 20,
            live_max: 1 << 21,
        }
    }
}
