//! What the verbs show: the JSON objects of `--json`, and the rows that the tables are made from.
//!
//! Promises: the names and types here are what scripts rely on: numbers end in their unit, an id is a
//! string (it outgrows a JavaScript number), unknown is `null`, and fields are only ever added.
//! Leaves to others: where the values come from (`convert`), and how they look (`table`).

mod explain;
mod notice;
mod operator;
mod plan;
mod queue;

pub(crate) use explain::{Blocking, Exclusion, Explanation, Granted, Waiting};
pub(crate) use notice::{Cause, Notice, NoticeTold, Process};
pub(crate) use operator::{Cordon, DeviceProcess, Drain, Opened};
pub(crate) use plan::{DeviceLoad, Plan, PlanAssignment, PlanStep};
pub(crate) use queue::{Queue, QueueEntry, QuotaUse, ServiceShare};

use std::time::SystemTime;

use serde::{Serialize, Serializer};

use crate::environment::Variables;

/// A lease.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Lease {
    pub(crate) id: String,
    pub(crate) state: String,
    pub(crate) fencing_token: u64,
    pub(crate) devices: Vec<DeviceShare>,
    pub(crate) service: String,
    pub(crate) holder: String,
    pub(crate) name: Option<String>,
    pub(crate) request_id: String,
    pub(crate) priority: String,
    pub(crate) ask: Ask,
    pub(crate) ttl_seconds: f64,
    pub(crate) remaining_seconds: Option<f64>,
    pub(crate) waited_seconds: f64,
    #[serde(serialize_with = "optional_time")]
    pub(crate) requested_at: Option<SystemTime>,
    #[serde(serialize_with = "optional_time")]
    pub(crate) granted_at: Option<SystemTime>,
    #[serde(serialize_with = "optional_time")]
    pub(crate) expires_at: Option<SystemTime>,
    #[serde(serialize_with = "optional_time")]
    pub(crate) ended_at: Option<SystemTime>,
    pub(crate) end_reason: Option<String>,
    pub(crate) end_detail: Option<String>,
    pub(crate) queue_position: Option<u64>,
    pub(crate) kept_devices: Vec<String>,
    pub(crate) closed_devices: Vec<String>,
    pub(crate) preemptible: String,
    pub(crate) minimum_hold_seconds: f64,
    pub(crate) notice: Option<Notice>,
    pub(crate) process: Option<Process>,
    pub(crate) preemptions: u32,
    pub(crate) pause_took_seconds: Option<f64>,
    pub(crate) pause_cost_seconds: Option<f64>,
    pub(crate) placement: Option<String>,
    pub(crate) affinity: Option<String>,
    /// Only where this process was granted the lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) environment: Option<Variables>,
}

/// What a lease asks for of each of its devices.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Ask {
    pub(crate) devices: u32,
    pub(crate) exclusive: bool,
    pub(crate) slots: Option<u32>,
    pub(crate) memory_bytes: Option<u64>,
}

/// What a lease holds of one device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct DeviceShare {
    pub(crate) uuid: String,
    pub(crate) node: String,
    pub(crate) index: u32,
    pub(crate) pci_address: Option<String>,
    pub(crate) vendor: String,
    pub(crate) model: String,
    pub(crate) exclusive: bool,
    pub(crate) slots: Option<u32>,
    pub(crate) memory_bytes: Option<u64>,
}

/// A lease and its history.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LeaseHistory {
    #[serde(flatten)]
    pub(crate) lease: Lease,
    pub(crate) history: Vec<Fact>,
    pub(crate) revision: u64,
}

/// One thing that happened to a lease.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Fact {
    #[serde(serialize_with = "optional_time")]
    pub(crate) time: Option<SystemTime>,
    pub(crate) revision: Option<u64>,
    pub(crate) state: String,
    pub(crate) description: String,
}

/// A device and what is held of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Device {
    pub(crate) node: String,
    pub(crate) index: u32,
    pub(crate) uuid: String,
    pub(crate) pci_address: Option<String>,
    pub(crate) vendor: String,
    pub(crate) model: String,
    pub(crate) compute_capability: Option<String>,
    pub(crate) frameworks: Vec<String>,
    pub(crate) state: String,
    pub(crate) memory_total_bytes: u64,
    pub(crate) memory_reserved_bytes: u64,
    pub(crate) memory_used_bytes: Option<u64>,
    pub(crate) memory_leased_bytes: u64,
    pub(crate) memory_foreign_bytes: Option<u64>,
    pub(crate) memory_closed_bytes: u64,
    pub(crate) memory_free_bytes: Option<u64>,
    pub(crate) slots: u32,
    pub(crate) slots_leased: u32,
    pub(crate) exclusive: bool,
    pub(crate) lease_ids: Vec<String>,
    pub(crate) closed_by: Vec<String>,
    pub(crate) kept_for: Option<String>,
    pub(crate) sample_age_seconds: Option<f64>,
    pub(crate) cordon: Option<Cordon>,
    pub(crate) owner: Option<String>,
    pub(crate) attribution_off: Option<String>,
    pub(crate) closed_remaining_seconds: Option<f64>,
}

/// One event with the batch that it came in.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Event {
    pub(crate) revision: u64,
    #[serde(serialize_with = "optional_time")]
    pub(crate) time: Option<SystemTime>,
    #[serde(flatten)]
    pub(crate) subject: Subject,
}

/// What an event is about.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Subject {
    Lease {
        kind: String,
        lease_id: String,
        service: String,
        holder: String,
        request_id: String,
        name: Option<String>,
        priority: String,
        ask: Option<Ask>,
        fencing_token: Option<u64>,
        devices: Vec<DeviceShare>,
        end_reason: Option<String>,
        detail: Option<String>,
        kept_devices: Vec<String>,
        /// Boxed: one event in many has it.
        notice: Option<Box<NoticeTold>>,
    },
    Device {
        kind: String,
        node: String,
        uuid: String,
        lease_id: Option<String>,
        detail: Option<String>,
    },
    Node {
        kind: String,
        node: String,
        detail: Option<String>,
    },
    /// A kind of event that this release does not know.
    Other,
}

/// The coordinator in figures.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Status {
    pub(crate) endpoint: String,
    pub(crate) version: String,
    pub(crate) uptime_seconds: f64,
    pub(crate) revision: u64,
    pub(crate) revision_oldest: u64,
    pub(crate) revision_snapshot: Option<u64>,
    pub(crate) fencing_token: u64,
    pub(crate) nodes: u32,
    pub(crate) devices: u32,
    pub(crate) devices_available: u32,
    pub(crate) leases_queued: u64,
    pub(crate) leases_active: u64,
    pub(crate) leases_reclaiming: u64,
    pub(crate) leases_ended: u64,
    pub(crate) leases_pausing: u64,
    pub(crate) leases_paused: u64,
    pub(crate) sessions: u64,
    pub(crate) data_directory: Option<String>,
    pub(crate) backend: String,
    pub(crate) grants_total: u64,
}

/// A lease's new lifetime.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Renewal {
    pub(crate) id: String,
    pub(crate) fencing_token: u64,
    pub(crate) remaining_seconds: f64,
    pub(crate) state: Option<String>,
    pub(crate) notice: Option<Notice>,
    /// The lease as it is, where the token given was not its newest: it was resumed.
    pub(crate) resumed: Option<Box<Lease>>,
}

fn optional_time<S: Serializer>(
    time: &Option<SystemTime>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    time.map(crate::format::time).serialize(serializer)
}
