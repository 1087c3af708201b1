//! Nodes and devices: what they are, and what is held of them.
//!
//! Promises: every figure of use is the sum over the leases that hold the device, kept by applying events;
//! what was merely measured (memory in use, silence) is soft state and lives apart.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    changes::Changes,
    id::{DeviceId, LeaseId, Name, NodeId, Token},
    request::{Process, Share},
    time::Time,
};

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Its name, unique.
    pub name: Name,
    /// Changes with every boot: a new one proves that no process of the old one lives (P6).
    pub boot_id: Name,
    /// Labels for constraints.
    pub labels: BTreeMap<Name, Name>,
    /// All its CPU, in thousandths of a core.
    pub host_cpu_millis: u64,
    /// All its memory, in bytes.
    pub host_memory_bytes: u64,
}

/// What a device is, and how much of it may be granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceFacts {
    /// The vendor's identifier, unique.
    pub uuid: Name,
    /// Its position on the node, for display.
    pub index: u32,
    /// Its address on the PCI bus, where known.
    pub pci_address: Option<Name>,
    /// The vendor.
    pub vendor: Name,
    /// The model.
    pub model: Name,
    /// Its compute capability, where it has one.
    pub compute_capability: Option<(u32, u32)>,
    /// The frameworks whose programs it can run, in lower case.
    pub frameworks: Vec<Name>,
    /// All its memory, in bytes.
    pub memory_total_bytes: u64,
    /// Of these the driver's own.
    pub memory_driver_bytes: u64,
    /// A bound on what may be in use, in bytes; `None`: total − driver's own.
    pub memory_limit_bytes: Option<u64>,
    /// Kept back from leases, in bytes; foreign memory uses it up first (P8).
    pub memory_reserve_bytes: u64,
    /// How many equal concurrency shares it has.
    pub slots: u32,
    /// Its figures are exact at every moment, as a simulated device's are: no check after a release (P7).
    pub answers_at_once: bool,
}

impl DeviceFacts {
    /// Whether it can run programs of a framework; names are compared without regard to case.
    #[must_use]
    pub fn serves(&self, framework: &Name) -> bool {
        self.frameworks.iter().any(|known| known.as_str().eq_ignore_ascii_case(framework.as_str()))
    }

    /// min(limit, total − driver's own): the first term of P8, in bytes.
    #[must_use]
    pub fn memory_ceiling_bytes(&self) -> u64 {
        let usable = self.memory_total_bytes.saturating_sub(self.memory_driver_bytes);
        self.memory_limit_bytes.map_or(usable, |limit| limit.min(usable))
    }

    /// What a lease with this share of it counts in its service's use and quota, in bytes: all of it, or its bytes, or its
    /// slots' share of all if that is more.
    #[must_use]
    pub fn counted_bytes(&self, share: Share) -> u64 {
        let ceiling = self.memory_ceiling_bytes();
        match share {
            Share::Exclusive => ceiling,
            Share::Part { .. } => {
                let slots = part_of(ceiling, u64::from(share.slots()), u64::from(self.slots));
                slots.max(share.memory_bytes())
            }
        }
    }
}

/// A node and what is held of its host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// What it is.
    pub facts: Arc<NodeFacts>,
    /// Its devices.
    pub devices: Vec<DeviceId>,
    /// It was silent for too long and has not come back (P13).
    pub lost: bool,
    /// What is known of it comes from a journal that was imported, and was not seen since: another boot id than that
    /// proves nothing of leases that the journal does not know (P2).
    pub imported: bool,
    /// When it was last known to be there, as far as the journal tells.
    pub seen_at: Time,
    /// Host CPU of the leases that hold its devices, in thousandths of a core.
    pub host_cpu_used_millis: u64,
    /// Host memory of the leases that hold its devices, in bytes.
    pub host_memory_used_bytes: u64,
    /// No new grants on it, on an operator's word.
    pub cordon: Option<Cordon>,
}

/// No new grants, on an operator's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cordon {
    /// Holders are given notice too.
    pub drain: bool,
    /// Why, in the operator's words.
    pub reason: Arc<str>,
}

/// A part of a device that a former lease may still use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// Which part.
    pub share: Share,
    /// What opens it.
    pub until: ClosedUntil,
    /// The process whose tree may still use it, where the lease declared one.
    pub process: Option<Process>,
}

/// What opens a closed part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClosedUntil {
    /// Proof, or the lock delay: it ended uncleanly, or was paused by a loss (P6).
    Proven,
    /// A pass over the device, or `release_check_max`: it was given back (P7).
    Checked,
}

/// Sums over parts of a device. They are adjusted with every part, for counting anew would cost the number of parts at
/// every step, and a device may have 100,000; that they never drift is an invariant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// Parts that are all of it.
    pub exclusive: u64,
    /// Slots.
    pub slots: u64,
    /// Of these, slots of leases that asked for no bytes.
    pub slots_without_bytes: u64,
    /// Bytes.
    pub memory_bytes: u64,
}

impl Sums {
    /// Counts a part in, or out.
    fn count(&mut self, share: Share, by: fn(u64, u64) -> u64) {
        let slots = u64::from(share.slots());
        match share {
            Share::Exclusive => self.exclusive = by(self.exclusive, 1),
            Share::Part { memory_bytes: None, .. } => {
                self.slots_without_bytes = by(self.slots_without_bytes, slots);
            }
            Share::Part { .. } => {}
        }
        self.slots = by(self.slots, slots);
        self.memory_bytes = by(self.memory_bytes, share.memory_bytes());
    }

    /// The sums, counted anew.
    #[must_use]
    pub fn of<'a>(shares: impl Iterator<Item = &'a Share>) -> Self {
        let mut sums = Self::default();
        shares.for_each(|share| sums.count(*share, u64::saturating_add));
        sums
    }
}

/// A device and what is held of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// What it is.
    pub facts: Arc<DeviceFacts>,
    /// Where it is.
    pub node: NodeId,
    /// Why it is lost; `None`: it is not.
    pub lost: Option<Name>,
    /// The leases that hold it, in order of id, each with its share.
    pub holding: BTreeMap<LeaseId, Share>,
    /// How many of them hold it whole: 0 or 1.
    pub exclusive: u64,
    /// Slots they hold.
    pub slots_used: u64,
    /// Slots held by leases that asked for slots and no bytes: these count their share of the bytes too (P8).
    pub slots_without_bytes: u64,
    /// Bytes they hold.
    pub memory_used_bytes: u64,
    /// Parts that former leases may still use (P6), by former lease.
    pub closed: BTreeMap<LeaseId, Closed>,
    /// Sums over them.
    pub closed_sums: Sums,
    /// An import closed it until then, for leases that the journal does not know (P2).
    pub closed_until: Option<Time>,
    /// The waiting request that it is kept for (P10).
    pub kept_for: Option<LeaseId>,
    /// The token of the newest grant on it (P2).
    pub token: Token,
    /// No new grants on it, on an operator's word.
    pub cordon: Option<Cordon>,
}

impl Device {
    /// A device nobody holds.
    #[must_use]
    pub fn new(facts: Arc<DeviceFacts>, node: NodeId) -> Self {
        Self {
            facts,
            node,
            lost: None,
            holding: BTreeMap::new(),
            exclusive: 0,
            slots_used: 0,
            slots_without_bytes: 0,
            memory_used_bytes: 0,
            closed: BTreeMap::new(),
            closed_sums: Sums::default(),
            closed_until: None,
            kept_for: None,
            token: Token(0),
            cordon: None,
        }
    }

    /// A copy with at most so many of those who hold it, and of those who close it.
    #[must_use]
    pub fn glimpse(&self, max: usize) -> Self {
        Self {
            facts: self.facts.clone(),
            lost: self.lost.clone(),
            holding: self.holding.iter().take(max).map(|(lease, share)| (*lease, *share)).collect(),
            closed: self.closed.iter().take(max).map(|(lease, part)| (*lease, *part)).collect(),
            cordon: self.cordon.clone(),
            ..*self
        }
    }

    /// Books a grant.
    pub fn hold(&mut self, lease: LeaseId, share: Share, token: Token) {
        self.unhold(lease);
        self.holding.insert(lease, share);
        self.token = token;
        self.count(share, u64::saturating_add);
    }

    /// Books the end of a hold; answers what was held.
    pub fn unhold(&mut self, lease: LeaseId) -> Option<Share> {
        let share = self.holding.remove(&lease)?;
        self.count(share, u64::saturating_sub);
        Some(share)
    }

    /// Adds one share to the sums over `holding`, or takes it off. Counting anew would cost the number of holders
    /// at every grant, and a device of many slots has 100,000 of them; that the sums never drift is an invariant.
    fn count(&mut self, share: Share, by: fn(u64, u64) -> u64) {
        let slots = u64::from(share.slots());
        match share {
            Share::Exclusive => self.exclusive = by(self.exclusive, 1),
            Share::Part { memory_bytes: None, .. } => {
                self.slots_without_bytes = by(self.slots_without_bytes, slots);
            }
            Share::Part { .. } => {}
        }
        self.slots_used = by(self.slots_used, slots);
        self.memory_used_bytes = by(self.memory_used_bytes, share.memory_bytes());
    }

    /// Nobody holds it, and no former lease may still use it.
    #[must_use]
    pub fn idle(&self) -> bool {
        self.holding.is_empty() && self.closed.is_empty()
    }

    /// Books that a former lease may still use a part.
    pub fn close(&mut self, lease: LeaseId, closed: Closed) {
        self.open(lease);
        self.closed.insert(lease, closed);
        self.closed_sums.count(closed.share, u64::saturating_add);
    }

    /// Books that it no longer may.
    pub fn open(&mut self, lease: LeaseId) {
        if let Some(closed) = self.closed.remove(&lease) {
            self.closed_sums.count(closed.share, u64::saturating_sub);
        }
    }

    /// Slots that former leases may still use; a whole device counts all of them.
    #[must_use]
    pub fn slots_closed(&self) -> u64 {
        let whole = self.closed_sums.exclusive.saturating_mul(u64::from(self.facts.slots));
        self.closed_sums.slots.saturating_add(whole)
    }

    /// Bytes that former leases may still use; a whole device counts all of them. A slot lease without bytes
    /// counts its share of the ceiling.
    #[must_use]
    pub fn memory_closed_bytes(&self) -> u64 {
        let (ceiling, sums) = (self.facts.memory_ceiling_bytes(), &self.closed_sums);
        let shares = part_of(ceiling, sums.slots_without_bytes, u64::from(self.facts.slots));
        let whole = sums.exclusive.saturating_mul(ceiling);
        sums.memory_bytes.saturating_add(shares).saturating_add(whole)
    }
}

/// `whole × part / parts`, rounded down, without overflow; nothing of no parts.
#[must_use]
pub fn part_of(whole: u64, part: u64, parts: u64) -> u64 {
    let product = u128::from(whole).saturating_mul(u128::from(part));
    let share = product.checked_div(u128::from(parts)).unwrap_or(0);
    u64::try_from(share).unwrap_or(u64::MAX)
}

/// All known nodes and devices. Nothing is ever removed: what is gone is lost, and keeps its number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    nodes: Vec<Node>,
    devices: Vec<Device>,
    node_names: BTreeMap<Name, NodeId>,
    device_uuids: BTreeMap<Name, DeviceId>,
    #[serde(skip)]
    changes: Changes,
}

/// The most nodes: a snapshot of them stays within some megabytes.
pub const NODES_MAX: usize = 16_384;
/// The most devices: 16,384 nodes of 8.
pub const DEVICES_KNOWN_MAX: usize = 131_072;

impl Inventory {
    /// The node of this number.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id.0 as usize)
    }

    /// The same, to change it.
    pub fn node_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        self.changes.touch(id);
        self.nodes.get_mut(id.0 as usize)
    }

    /// The device of this number.
    #[must_use]
    pub fn device(&self, id: DeviceId) -> Option<&Device> {
        self.devices.get(id.0 as usize)
    }

    /// The same, to change it.
    pub fn device_mut(&mut self, id: DeviceId) -> Option<&mut Device> {
        let device = self.devices.get_mut(id.0 as usize)?;
        self.changes.touch(device.node);
        Some(device)
    }

    /// How often anything changed.
    pub(crate) const fn changes(&self) -> u64 {
        self.changes.all()
    }

    /// How often a device or a node was new, elsewhere, or something else than before.
    pub(crate) const fn changes_of_facts(&self) -> u64 {
        self.changes.facts()
    }

    /// A device or a node is something else than it was.
    pub(crate) const fn facts_changed(&mut self) {
        self.changes.touch_facts();
    }

    /// How often a node or one of its devices did.
    pub(crate) fn changes_of(&self, node: NodeId) -> u64 {
        self.changes.of(node)
    }

    /// The number of the node of this name.
    #[must_use]
    pub fn node_named(&self, name: &str) -> Option<NodeId> {
        self.node_names.get(name).copied()
    }

    /// The number of the device of this UUID.
    #[must_use]
    pub fn device_with(&self, uuid: &str) -> Option<DeviceId> {
        self.device_uuids.get(uuid).copied()
    }

    /// All nodes, in order of number.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = (NodeId, &Node)> {
        self.nodes.iter().enumerate().map(|(index, node)| (NodeId(number(index)), node))
    }

    /// All devices, in order of number.
    pub fn devices(&self) -> impl ExactSizeIterator<Item = (DeviceId, &Device)> {
        self.devices.iter().enumerate().map(|(index, device)| (DeviceId(number(index)), device))
    }

    /// The number the next new node gets.
    #[must_use]
    pub fn next_node(&self) -> NodeId {
        NodeId(number(self.nodes.len()))
    }

    /// The number the next new device gets.
    #[must_use]
    pub fn next_device(&self) -> DeviceId {
        DeviceId(number(self.devices.len()))
    }

    /// Closes every device until a moment, and forgets that the nodes were seen (P2).
    pub(crate) fn close_all(&mut self, until: Time) {
        self.nodes.iter_mut().for_each(|node| node.imported = true);
        self.devices.iter_mut().for_each(|device| device.closed_until = Some(until));
        (0..self.nodes.len()).for_each(|index| self.changes.touch(NodeId(number(index))));
    }

    /// Adds a node under [`Self::next_node`].
    pub fn add_node(&mut self, facts: Arc<NodeFacts>, now: Time) {
        self.changes.touch(self.next_node());
        self.changes.touch_facts();
        self.node_names.insert(facts.name.clone(), self.next_node());
        self.nodes.push(Node {
            facts,
            devices: Vec::new(),
            lost: false,
            imported: false,
            seen_at: now,
            host_cpu_used_millis: 0,
            host_memory_used_bytes: 0,
            cordon: None,
        });
    }

    /// Gives a node another name; answers false where it is unknown, or the name is taken.
    pub fn rename_node(&mut self, id: NodeId, facts: Arc<NodeFacts>) -> bool {
        let free = !self.node_names.contains_key(&facts.name);
        let Some(node) = self.nodes.get_mut(id.0 as usize).filter(|_| free) else { return false };
        self.changes.touch(id);
        self.changes.touch_facts();
        self.node_names.remove(&node.facts.name);
        self.node_names.insert(facts.name.clone(), id);
        node.facts = facts;
        true
    }

    /// Puts a device on another node; answers false where either is unknown.
    pub fn move_device(&mut self, id: DeviceId, to: NodeId) -> bool {
        let Some(device) = self.devices.get_mut(id.0 as usize) else { return false };
        if self.nodes.get(to.0 as usize).is_none() {
            return false;
        }
        let from = std::mem::replace(&mut device.node, to);
        self.changes.touch(from);
        self.changes.touch(to);
        self.changes.touch_facts();
        if let Some(node) = self.nodes.get_mut(from.0 as usize) {
            node.devices.retain(|other| *other != id);
        }
        if let Some(node) = self.nodes.get_mut(to.0 as usize) {
            // In order of number, as pages of a list expect.
            let place = node.devices.partition_point(|other| *other < id);
            node.devices.insert(place, id);
        }
        true
    }

    /// Adds a device under [`Self::next_device`]; answers false where its node is unknown.
    pub fn add_device(&mut self, node: NodeId, facts: Arc<DeviceFacts>) -> bool {
        let id = self.next_device();
        let Some(home) = self.nodes.get_mut(node.0 as usize) else { return false };
        home.devices.push(id);
        self.changes.touch(node);
        self.changes.touch_facts();
        self.device_uuids.insert(facts.uuid.clone(), id);
        self.devices.push(Device::new(facts, node));
        true
    }
}

/// Both tables are bounded far below 2³² entries.
fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
