//! Why a lease stands where it does, as plain Rust values.

use std::time::Duration;

use gpulease_proto::v1;

use crate::{
    convert,
    info::{LeaseInfo, LeaseState, Priority},
};

/// Why a lease stands where it does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// The lease as it was when the coordinator answered.
    pub lease: LeaseInfo,
    /// While queued or paused: what it waits for.
    pub waiting: Option<Waiting>,
    /// Once granted: why these devices.
    pub granted: Option<Granted>,
    /// The revision at which this was true.
    pub revision: u64,
}

/// What a lease waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiting {
    /// How many requests stand before it; counted up to 1,000 unless it is the last.
    pub queue_position: u64,
    /// How many devices are known.
    pub devices_known: u32,
    /// How many of them could serve it if they were empty.
    pub devices_suitable: u32,
    /// How many of them could serve it now.
    pub devices_fitting: u32,
    /// What excludes the others, each counted under the first thing that does.
    pub excluded: Vec<Exclusion>,
    /// Leases in its way on suitable devices, those of the set that it waits for first; at most 100.
    pub blocking: Vec<BlockingLease>,
    /// When it should get devices at the earliest, counted from the answer; `None`: nobody can tell.
    pub forecast: Option<Duration>,
    /// What the forecast rests on, or why there is none.
    pub forecast_basis: String,
}

/// How many devices one thing excludes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exclusion {
    /// The field of the request, or the condition of the device.
    pub what: String,
    /// How many devices.
    pub devices: u32,
}

/// A lease in the way of another.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockingLease {
    /// Which lease.
    pub lease_id: u64,
    /// Its service.
    pub service: String,
    /// Its holder.
    pub holder: String,
    /// Where it stands.
    pub state: LeaseState,
    /// Its priority.
    pub priority: Priority,
    /// The device, by UUID.
    pub device_uuid: String,
    /// When it should be gone, counted from the answer; `None`: its holder did not say.
    pub forecast: Option<Duration>,
    /// Whether it was given notice for this request, or why not.
    pub preemption: String,
}

/// Why a lease got its devices.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Granted {
    /// How many devices would have done when it was granted.
    pub devices_fitting: u32,
    /// Why these, in words.
    pub reason: String,
}

impl Explanation {
    pub(crate) fn from_wire(wire: v1::ExplainResponse, lease: v1::Lease) -> Self {
        Self {
            lease: lease.into(),
            waiting: wire.waiting.map(Waiting::from),
            granted: wire.granted.map(|granted| Granted {
                devices_fitting: granted.devices_fitting,
                reason: granted.reason,
            }),
            revision: wire.revision,
        }
    }
}

impl From<v1::WaitingExplanation> for Waiting {
    fn from(wire: v1::WaitingExplanation) -> Self {
        let exclusion =
            |count: v1::ExclusionCount| Exclusion { what: count.what, devices: count.devices };
        Self {
            queue_position: wire.queue_position,
            devices_known: wire.devices_known,
            devices_suitable: wire.devices_suitable,
            devices_fitting: wire.devices_fitting,
            excluded: wire.excluded.into_iter().map(exclusion).collect(),
            blocking: wire.blocking.into_iter().map(BlockingLease::from).collect(),
            forecast: wire.forecast.and_then(convert::duration),
            forecast_basis: wire.forecast_basis,
        }
    }
}

impl From<v1::BlockingLease> for BlockingLease {
    fn from(wire: v1::BlockingLease) -> Self {
        Self {
            lease_id: wire.lease_id,
            service: wire.service,
            holder: wire.holder,
            // One that this release does not know is no longer in the way for a reason it can name.
            state: LeaseState::from_wire(wire.state).unwrap_or(LeaseState::Ended),
            priority: Priority::from_wire(wire.priority).unwrap_or(Priority::Normal),
            device_uuid: wire.device_uuid,
            forecast: wire.forecast.and_then(convert::duration),
            preemption: wire.preemption,
        }
    }
}
