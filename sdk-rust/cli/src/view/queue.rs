//! The queue.

use serde::Serialize;

use super::Lease;

/// The queue from its front.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Queue {
    pub(crate) entries: Vec<QueueEntry>,
    /// How many wait in all.
    pub(crate) waiting: u64,
    pub(crate) services: Vec<ServiceShare>,
    pub(crate) revision: u64,
}

/// A request that waits.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct QueueEntry {
    pub(crate) position: u64,
    pub(crate) class: Option<String>,
    pub(crate) resumed: bool,
    pub(crate) fair_share_usage_gib_hours: f64,
    pub(crate) away: bool,
    pub(crate) held_back: Option<String>,
    /// Null: nobody can tell.
    pub(crate) forecast_seconds: Option<f64>,
    pub(crate) lease: Lease,
}

/// What a service uses and may use.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ServiceShare {
    pub(crate) service: String,
    pub(crate) weight: u32,
    pub(crate) usage_gib_hours: f64,
    pub(crate) usage_permille: u32,
    pub(crate) leases: QuotaUse,
    pub(crate) devices: QuotaUse,
    pub(crate) memory_bytes: QuotaUse,
    pub(crate) waiting: QuotaUse,
}

/// A quota and its use.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct QuotaUse {
    pub(crate) used: u64,
    /// Null: no bound.
    pub(crate) limit: Option<u64>,
}
