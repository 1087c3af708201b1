//! Devices as plain Rust values.

use std::{fmt, str::FromStr, time::Duration};

use gpulease_proto::v1;

use crate::{
    convert,
    info::{ParseNameError, named_enum},
};

/// A compute capability: the numbers before and behind the point, such as `(8, 9)`.
pub type ComputeCapability = (u32, u32);

named_enum! {
    /// Whether a device can be granted.
    DeviceState {
        /// Grants are made on it.
        Available = "AVAILABLE",
        /// No measurement for three periods: no new grants, holders keep theirs.
        Stale = "STALE",
        /// Its node has been silent: no new grants.
        Unreachable = "UNREACHABLE",
        /// Lost, with or without its node: no grants, its leases ended.
        Unavailable = "UNAVAILABLE",
    }
}

/// A device and what is held of it, as it was when the coordinator answered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// The node's name.
    pub node: String,
    /// The vendor's identifier: what a device is known by.
    pub uuid: String,
    /// Its position on the node, for display.
    pub index: u32,
    /// Its address on the PCI bus.
    pub pci_address: Option<String>,
    /// The vendor, such as `nvidia` or `simulated`.
    pub vendor: String,
    /// The model, such as `H100`.
    pub model: String,
    /// Its compute capability.
    pub compute_capability: Option<ComputeCapability>,
    /// Whether it can be granted.
    pub state: DeviceState,
    /// All its memory, in bytes.
    pub memory_total_bytes: u64,
    /// Of these the driver's own.
    pub memory_reserved_bytes: u64,
    /// Of these in use, as last measured.
    pub memory_used_bytes: Option<u64>,
    /// Bytes that no holding lease explains.
    pub memory_foreign_bytes: Option<u64>,
    /// Bytes leased.
    pub memory_leased_bytes: u64,
    /// Bytes that a former lease may still use.
    pub memory_closed_bytes: u64,
    /// Bytes that could be granted now.
    pub memory_free_bytes: Option<u64>,
    /// How many slots it has.
    pub slots: u32,
    /// Slots leased.
    pub slots_leased: u32,
    /// It is leased whole.
    pub exclusive: bool,
    /// The leases that hold it, by id.
    pub lease_ids: Vec<u64>,
    /// The former leases that still close a part of it, by id.
    pub closed_by: Vec<u64>,
    /// The waiting request that it is kept for.
    pub kept_for: Option<u64>,
    /// How old the last measurement was.
    pub sample_age: Option<Duration>,
}

impl From<v1::Device> for DeviceInfo {
    fn from(wire: v1::Device) -> Self {
        Self {
            node: wire.node,
            uuid: wire.uuid,
            index: wire.index,
            pci_address: convert::text(wire.pci_address),
            vendor: wire.vendor,
            model: wire.model,
            compute_capability: wire
                .compute_capability
                .map(|capability| (capability.major, capability.minor)),
            // A state that this release does not know is not one to count on.
            state: DeviceState::from_wire(wire.state).unwrap_or(DeviceState::Unavailable),
            memory_total_bytes: wire.memory_total_bytes,
            memory_reserved_bytes: wire.memory_reserved_bytes,
            memory_used_bytes: wire.memory_used_bytes,
            memory_foreign_bytes: wire.memory_foreign_bytes,
            memory_leased_bytes: wire.memory_leased_bytes,
            memory_closed_bytes: wire.memory_closed_bytes,
            memory_free_bytes: wire.memory_free_bytes,
            slots: wire.slots,
            slots_leased: wire.slots_leased,
            exclusive: wire.exclusive,
            lease_ids: wire.lease_ids,
            closed_by: wire.closed_by,
            kept_for: Some(wire.kept_for).filter(|lease_id| *lease_id > 0),
            sample_age: wire.sample_age.and_then(convert::duration),
        }
    }
}
