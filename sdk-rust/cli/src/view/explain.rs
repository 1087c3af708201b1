//! Why a lease stands where it does.

use serde::Serialize;

use super::Lease;

/// Why a lease stands where it does.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Explanation {
    pub(crate) lease: Lease,
    /// While queued or paused.
    pub(crate) waiting: Option<Waiting>,
    /// Once granted.
    pub(crate) granted: Option<Granted>,
    pub(crate) revision: u64,
}

/// What a lease waits for.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Waiting {
    /// How many requests stand before it.
    pub(crate) queue_position: u64,
    pub(crate) devices_known: u32,
    /// How many of them could serve it if they were empty.
    pub(crate) devices_suitable: u32,
    /// How many of them could serve it now.
    pub(crate) devices_fitting: u32,
    pub(crate) excluded: Vec<Exclusion>,
    pub(crate) blocking: Vec<Blocking>,
    /// When it should get devices at the earliest; null: nobody can tell.
    pub(crate) forecast_seconds: Option<f64>,
    pub(crate) forecast_basis: String,
}

/// How many devices one thing excludes.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Exclusion {
    pub(crate) what: String,
    pub(crate) devices: u32,
}

/// A lease in the way.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Blocking {
    pub(crate) lease_id: String,
    pub(crate) state: String,
    pub(crate) service: String,
    pub(crate) holder: String,
    pub(crate) priority: String,
    pub(crate) device_uuid: String,
    /// When it should be gone; null: its holder did not say.
    pub(crate) forecast_seconds: Option<f64>,
    /// Whether it was given notice, or why not.
    pub(crate) preemption: String,
}

/// Why a lease got its devices.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Granted {
    /// How many devices would have done.
    pub(crate) devices_fitting: u32,
    pub(crate) reason: String,
}
