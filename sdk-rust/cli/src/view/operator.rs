//! What operators see and do: cordons, drains, opened devices, processes.

use serde::Serialize;

/// No new grants, on an operator's word.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Cordon {
    /// The node is, not the device alone.
    pub(crate) node: bool,
    /// Holders were given notice too.
    pub(crate) drain: bool,
    pub(crate) reason: String,
}

/// What a cordon or a drain met, by the ids of the leases that hold devices there.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Drain {
    /// The device's UUID, or the node's name.
    pub(crate) target: String,
    pub(crate) drain: bool,
    /// Those that keep what they have: all under a cordon, the never preemptible under a drain.
    pub(crate) staying: Vec<String>,
    /// Those that were given notice, or had one.
    pub(crate) noticed: Vec<String>,
    /// Those that are given notice once their minimum hold is over.
    pub(crate) later: Vec<String>,
}

/// A device that was opened.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Opened {
    pub(crate) device_uuid: String,
    /// The former leases whose parts were open at last.
    pub(crate) lease_ids: Vec<String>,
}

/// A process that uses a device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct DeviceProcess {
    pub(crate) pid: u32,
    pub(crate) started_ticks: Option<u64>,
    pub(crate) uid: Option<u32>,
    pub(crate) user: Option<String>,
    pub(crate) command: Option<String>,
    pub(crate) memory_bytes: u64,
    pub(crate) node: String,
    /// The device's position on its node; null: it is no longer known.
    pub(crate) index: Option<u32>,
    pub(crate) device_uuid: String,
    /// The lease that explains it; null: its memory is foreign.
    pub(crate) lease_id: Option<String>,
    /// The declared process in whose tree it is.
    pub(crate) root_pid: Option<u32>,
}
