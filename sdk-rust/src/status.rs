//! The coordinator in figures, for operators.

use std::time::{Duration, SystemTime};

use gpulease_proto::v1;

use crate::convert;

/// The coordinator in figures, as it was when it answered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// When it started, for display.
    pub started_at: Option<SystemTime>,
    /// How long ago that was.
    pub uptime: Duration,
    /// The last durable revision.
    pub revision: u64,
    /// The oldest revision that can still be watched from.
    pub revision_oldest: u64,
    /// The revision of the newest snapshot.
    pub revision_snapshot: Option<u64>,
    /// The newest fencing token given out.
    pub fencing_token: u64,
    /// How many nodes are known.
    pub nodes: u32,
    /// How many devices are known.
    pub devices: u32,
    /// Of these, how many can be granted now.
    pub devices_available: u32,
    /// Leases that wait.
    pub leases_queued: u64,
    /// Leases that hold devices.
    pub leases_active: u64,
    /// Leases that ended uncleanly and still close devices.
    pub leases_reclaiming: u64,
    /// Records of ended leases that are kept.
    pub leases_ended: u64,
    /// Open sessions.
    pub sessions: u64,
    /// Where the journal is; `None`: in memory only.
    pub data_directory: Option<String>,
    /// What the devices are read with, such as `simulated` or `none`.
    pub backend: String,
    /// Grants since the start.
    pub grants_total: u64,
    /// Leases that hold devices and were given notice.
    pub leases_pausing: u64,
    /// Leases that gave their devices back for now.
    pub leases_paused: u64,
}

impl From<v1::StatusResponse> for Status {
    fn from(wire: v1::StatusResponse) -> Self {
        Self {
            version: wire.version,
            started_at: wire.start_time.and_then(convert::time),
            uptime: wire.uptime.and_then(convert::duration).unwrap_or_default(),
            revision: wire.revision,
            revision_oldest: wire.revision_oldest,
            revision_snapshot: Some(wire.revision_snapshot).filter(|revision| *revision > 0),
            fencing_token: wire.fencing_token,
            nodes: wire.nodes,
            devices: wire.devices,
            devices_available: wire.devices_available,
            leases_queued: wire.leases_queued,
            leases_active: wire.leases_active,
            leases_reclaiming: wire.leases_reclaiming,
            leases_ended: wire.leases_ended,
            sessions: wire.sessions,
            data_directory: convert::text(wire.data_directory),
            backend: wire.backend,
            grants_total: wire.grants_total,
            leases_pausing: wire.leases_pausing,
            leases_paused: wire.leases_paused,
        }
    }
}
