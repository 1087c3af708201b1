//! Placement: on which devices a request goes.
//!
//! `exclusion` says what can never serve it, `room` what could serve it now (P8), `score` which of these is best by the
//! policy, and `capacity` remembers so much of that between decisions that only what changed is looked at again.
//! `fragmentation` is the measure of the default policy, `mix` what it learns, `kind` what devices have in common.
//! [`arena`] runs all of it on an inventory alone, for experiments.

pub mod arena;
pub(crate) mod capacity;
mod exclusion;
mod fragmentation;
mod kind;
pub mod mix;
mod node;
mod room;
mod score;

use std::collections::{BTreeMap, BTreeSet};

pub(crate) use self::{
    capacity::{Apart, Capacity, Search},
    mix::Mix,
    room::Room,
};
use crate::{
    id::{DeviceId, LeaseId, NodeId},
    inventory::{Inventory, Node},
    policy::Policy,
    request::{Ask, Constraints, Process, Request},
    soft::Measured,
    time::Time,
};

/// What is to be placed; no devices: host CPU and memory alone.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    /// How many devices, and what of each.
    pub ask: Ask,
    /// Which will do, and what is taken of the host.
    pub constraints: &'a Constraints,
}

impl<'a> Demand<'a> {
    /// What a request asks for.
    #[must_use]
    pub fn of(request: &'a Request) -> Self {
        Self { ask: request.ask, constraints: &request.constraints }
    }
}

/// Everything that placement may look at.
#[derive(Clone, Copy)]
pub(crate) struct Site<'a> {
    pub(crate) inventory: &'a Inventory,
    pub(crate) measured: &'a Measured,
    /// Processes of unclean ends that are still there (P6).
    pub(crate) lingering: &'a BTreeMap<DeviceId, BTreeSet<Process>>,
    /// Nodes whose drivers are let go on purpose.
    pub(crate) quiesced: &'a BTreeSet<NodeId>,
    /// Parts, closed or held, to be looked at as if they were open.
    pub(crate) opening: Option<&'a BTreeSet<(DeviceId, LeaseId)>>,
    /// What the process tree of the paused lease that is looked at still uses: to it that is not foreign.
    pub(crate) own: Option<&'a OwnUse>,
    /// The requests seen so far.
    pub(crate) mix: &'a Mix,
    pub(crate) policy: &'a Policy,
    pub(crate) now: Time,
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// In order of number.
    pub(crate) devices: Box<[DeviceId]>,
    /// The one node of them; `None`: several.
    pub(crate) node: Option<NodeId>,
    /// How many devices would do, each by itself.
    pub(crate) fitting: usize,
}

/// What the process tree of a paused lease still uses of devices, where that is no other lease's (P15).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OwnUse {
    pub(crate) process: Option<Process>,
    pub(crate) bytes: BTreeMap<DeviceId, u64>,
}

/// Host CPU and memory that waiting requests with kept devices count on, by node (P10).
pub(crate) type HostKept = BTreeMap<NodeId, (u64, u64)>;

impl Site<'_> {
    /// Whether a node has host CPU and memory left for a request.
    pub(crate) fn host_fits(
        &self,
        id: NodeId,
        node: &Node,
        wanted: &Constraints,
        kept: &HostKept,
    ) -> bool {
        let (cpu, memory) = (wanted.host_cpu_millis, wanted.host_memory_bytes);
        if cpu == 0 && memory == 0 {
            return true;
        }
        let (kept_cpu, kept_memory) = kept.get(&id).copied().unwrap_or_default();
        let fits = |total: u64, used: u64, kept: u64, wanted: u64| {
            wanted == 0 || used.saturating_add(kept).saturating_add(wanted) <= total
        };
        fits(node.facts.host_cpu_millis, node.host_cpu_used_millis, kept_cpu, cpu)
            && fits(node.facts.host_memory_bytes, node.host_memory_used_bytes, kept_memory, memory)
    }
}

/// In order of number, as grants and keeps are written.
pub(crate) fn sorted(mut devices: Vec<DeviceId>) -> Box<[DeviceId]> {
    devices.sort_unstable();
    devices.into()
}
