//! Devices as plain Rust values.

use std::{fmt, str::FromStr, time::Duration};

use gpulease_proto::v1;

use crate::{
    convert,
    info::{ParseNameError, named_enum},
    notice::Process,
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
        /// Closed until it is safe, after its journal was imported: no grants.
        Closed = "CLOSED",
        /// Cordoned or drained by an operator: no new grants, holders keep theirs until a notice.
        Cordoned = "CORDONED",
        /// Its node's driver was let go on purpose: no new grants, holders keep theirs.
        Quiesced = "QUIESCED",
    }
}

/// No new grants, on an operator's word.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cordon {
    /// The node is, not the device alone.
    pub node: bool,
    /// Holders were given notice too.
    pub drain: bool,
    /// Why, in the operator's words.
    pub reason: String,
}

impl From<v1::Cordon> for Cordon {
    fn from(wire: v1::Cordon) -> Self {
        Self { node: wire.node, drain: wire.drain, reason: wire.reason }
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
    /// The frameworks whose programs it can run, in lower case.
    pub frameworks: Vec<String>,
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
    /// What an operator said of it, or of its node.
    pub cordon: Option<Cordon>,
    /// The service that owns it.
    pub owner: Option<String>,
    /// Why its memory cannot be attributed to processes; `None`: it can.
    pub attribution_off: Option<String>,
    /// Closed: for how long it still is.
    pub closed_remaining: Option<Duration>,
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
            frameworks: wire.frameworks,
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
            cordon: wire.cordon.map(Cordon::from),
            owner: convert::text(wire.owner),
            attribution_off: convert::text(wire.attribution_off),
            closed_remaining: wire.closed_remaining.and_then(convert::duration),
        }
    }
}

/// A process that uses a device, as last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceProcess {
    /// The node's name.
    pub node: String,
    /// The device, by UUID.
    pub device_uuid: String,
    /// The process.
    pub process: Process,
    /// The id of the user that runs it.
    pub uid: Option<u32>,
    /// That user's name.
    pub user: Option<String>,
    /// Its command line, at most 256 bytes.
    pub command: Option<String>,
    /// The device memory that it uses, in bytes.
    pub memory_bytes: u64,
    /// The lease that explains it; `None`: its memory is foreign.
    pub lease_id: Option<u64>,
    /// The process that its lease, or its former lease, declared.
    pub root: Option<Process>,
}

impl DeviceProcess {
    /// `None`: without its process, which is never sent.
    pub(crate) fn from_wire(wire: v1::DeviceProcess) -> Option<Self> {
        Some(Self {
            node: wire.node,
            device_uuid: wire.device_uuid,
            process: wire.process?.into(),
            uid: wire.uid,
            user: convert::text(wire.user),
            command: convert::text(wire.command),
            memory_bytes: wire.memory_bytes,
            lease_id: Some(wire.lease_id).filter(|lease_id| *lease_id > 0),
            root: wire.root.map(Process::from),
        })
    }
}
