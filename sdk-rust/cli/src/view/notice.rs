//! What a lease was asked to give back, why, and by when; and the process that a lease was declared for.

use serde::Serialize;

/// A notice.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Notice {
    pub(crate) id: String,
    /// How long the holder had left when the coordinator answered.
    pub(crate) remaining_seconds: f64,
    /// By how much it may still be extended; null: it was, or cannot be.
    pub(crate) extension_max_seconds: Option<f64>,
    pub(crate) causes: Vec<Cause>,
}

/// What an event tells of a notice.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct NoticeTold {
    pub(crate) id: String,
    /// How long the holder had from the event on; null: it is withdrawn.
    pub(crate) remaining_seconds: Option<f64>,
    pub(crate) causes: Vec<Cause>,
}

/// One cause of a notice.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Cause {
    /// `PREEMPTION`, `DRAIN`, or `OTHER`.
    pub(crate) kind: &'static str,
    /// `PREEMPTION`: the request that needs the devices.
    pub(crate) lease_id: Option<String>,
    /// `DRAIN`: the node.
    pub(crate) node: Option<String>,
    /// `DRAIN`: the device; null: the whole node.
    pub(crate) device_uuid: Option<String>,
    /// The same in words.
    pub(crate) description: String,
}

/// A process on the coordinator's host.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) started_ticks: Option<u64>,
}

impl Notice {
    /// Why, in words.
    pub(crate) fn why(&self) -> String {
        why(&self.causes)
    }
}

/// Causes in words.
pub(crate) fn why(causes: &[Cause]) -> String {
    causes.iter().map(|cause| cause.description.as_str()).collect::<Vec<_>>().join(", ")
}
