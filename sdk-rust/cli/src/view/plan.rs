//! Plans.

use serde::Serialize;

use super::{DeviceShare, Lease};

/// One assignment for all pipelines.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Plan {
    pub(crate) assignments: Vec<PlanAssignment>,
    pub(crate) loads: Vec<DeviceLoad>,
    /// Every pipeline that needs a device has one.
    pub(crate) complete: bool,
    pub(crate) reserved: bool,
    pub(crate) revision: u64,
}

/// Where one pipeline goes.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PlanAssignment {
    pub(crate) pipeline: String,
    /// Null: it takes no device, or none would do.
    pub(crate) node: Option<String>,
    pub(crate) devices: Vec<DeviceShare>,
    pub(crate) steps: Vec<PlanStep>,
    /// Why it has no device though it needs one.
    pub(crate) unassigned_reason: Option<String>,
    pub(crate) lease: Option<Lease>,
    pub(crate) affinity_key: Option<String>,
}

/// Where one step goes.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PlanStep {
    pub(crate) step: String,
    pub(crate) device_uuids: Vec<String>,
}

/// How full a device of the plan is.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DeviceLoad {
    pub(crate) node: String,
    pub(crate) uuid: String,
    pub(crate) load_before_permille: u32,
    pub(crate) load_after_permille: u32,
    pub(crate) pipelines: u32,
}
