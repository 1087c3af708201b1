//! Placement by itself: an inventory that nobody measures, on which requests are placed and booked at once.
//!
//! For experiments: the same index, policies and measure that the scheduler uses, without leases, queue or time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Apart, Capacity, Demand, HostKept, Mix, Search, Site, exclusion};
use crate::{
    id::{DeviceId, LeaseId, NodeId, Token},
    inventory::{DeviceFacts, Inventory, NodeFacts},
    policy::Policy,
    request::PlacementPolicy,
    soft::Measured,
    time::Time,
};

/// See the head of this file.
#[derive(Debug)]
pub struct Arena {
    inventory: Inventory,
    measured: Measured,
    policy: Policy,
    mix: Mix,
    capacity: Capacity,
    booked: u64,
}

/// A place on one node: what is booked there, and given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// The node.
    pub node: NodeId,
    /// Devices of it; none, where only the host is asked for.
    pub devices: Vec<DeviceId>,
}

/// What was booked, to give it back.
#[derive(Clone, Debug)]
pub struct Booking {
    lease: LeaseId,
    spot: Spot,
    host: (u64, u64),
}

impl Arena {
    /// An arena of these nodes, each with its devices; ties go to the first.
    #[must_use]
    pub fn new(nodes: impl IntoIterator<Item = (NodeFacts, Vec<DeviceFacts>)>) -> Self {
        let (mut inventory, mut measured) = (Inventory::default(), Measured::default());
        for (facts, devices) in nodes {
            let node = inventory.next_node();
            inventory.add_node(Arc::new(facts), Time::ZERO);
            measured.expect(node, Time::ZERO);
            for device in devices {
                inventory.add_device(node, Arc::new(device));
            }
        }
        Self {
            inventory,
            measured,
            policy: Policy { grant_unmeasured: true, ..Policy::default() },
            mix: Mix::default(),
            capacity: Capacity::default(),
            booked: 0,
        }
    }

    /// Nodes and devices.
    #[must_use]
    pub const fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// Counts a request in the mix.
    pub fn learn(&mut self, demand: Demand<'_>) {
        self.mix.learn(demand);
    }

    /// The mix so far.
    #[must_use]
    pub const fn mix(&self) -> &Mix {
        &self.mix
    }

    /// Where a request goes that one node can serve; `None`: nowhere.
    pub fn place(&mut self, demand: Demand<'_>, policy: PlacementPolicy) -> Option<Spot> {
        let site = site(&self.inventory, &self.measured, &self.policy, &self.mix);
        let search = Search {
            demand,
            policy,
            host_kept: &HostKept::new(),
            apart: Apart::Nodes(&BTreeSet::new()),
            open: &|_, _| true,
        };
        let place = self.capacity.place(&site, &search)?;
        Some(Spot { node: place.node?, devices: place.devices.into_vec() })
    }

    /// Every node that could serve a request alone, in order of number.
    pub fn nodes_for(&mut self, demand: Demand<'_>) -> Vec<NodeId> {
        let site = site(&self.inventory, &self.measured, &self.policy, &self.mix);
        let search = Search {
            demand,
            policy: PlacementPolicy::BestFit,
            host_kept: &HostKept::new(),
            apart: Apart::Nodes(&BTreeSet::new()),
            open: &|_, _| true,
        };
        self.capacity.nodes_for(&site, &search)
    }

    /// The devices of a node that would do, each by itself, worked out without the index; `None`: the node cannot serve
    /// the request alone.
    #[must_use]
    pub fn devices_for(&self, demand: Demand<'_>, id: NodeId) -> Option<Vec<DeviceId>> {
        let site = site(&self.inventory, &self.measured, &self.policy, &self.mix);
        let node = self.inventory.node(id)?;
        if !site.host_fits(id, node, demand.constraints, &HostKept::new())
            || exclusion::of_node(node, demand).is_some()
        {
            return None;
        }
        let fits = |device: &DeviceId| {
            self.inventory.device(*device).is_some_and(|it| {
                exclusion::of_device(&it.facts, demand).is_none()
                    && site.room(*device, it).is_some_and(|room| room.fits(demand.ask.share))
            })
        };
        if demand.ask.devices == 0 {
            return Some(Vec::new());
        }
        let devices: Vec<DeviceId> = node.devices.iter().copied().filter(fits).collect();
        (devices.len() >= demand.ask.devices as usize).then_some(devices)
    }

    /// Books a place.
    pub fn book(&mut self, demand: Demand<'_>, spot: Spot) -> Booking {
        self.booked = self.booked.saturating_add(1);
        let (lease, share) = (LeaseId(self.booked), demand.ask.share);
        for device in &spot.devices {
            if let Some(device) = self.inventory.device_mut(*device) {
                device.hold(lease, share, Token(self.booked));
            }
        }
        let host = (demand.constraints.host_cpu_millis, demand.constraints.host_memory_bytes);
        self.host(spot.node, host, u64::saturating_add);
        self.capacity.granted(&self.inventory, &spot.devices);
        Booking { lease, spot, host }
    }

    /// Gives a place back.
    pub fn give_back(&mut self, booking: &Booking) {
        for device in &booking.spot.devices {
            if let Some(device) = self.inventory.device_mut(*device) {
                device.unhold(booking.lease);
            }
        }
        self.host(booking.spot.node, booking.host, u64::saturating_sub);
    }

    fn host(&mut self, node: NodeId, (cpu, memory): (u64, u64), book: fn(u64, u64) -> u64) {
        if let Some(node) = self.inventory.node_mut(node) {
            node.host_cpu_used_millis = book(node.host_cpu_used_millis, cpu);
            node.host_memory_used_bytes = book(node.host_memory_used_bytes, memory);
        }
    }

    /// Whether the index remembers nothing but what looking at everything anew gives.
    ///
    /// # Errors
    /// What differs, in words.
    pub fn verify(&mut self) -> Result<(), String> {
        let site = site(&self.inventory, &self.measured, &self.policy, &self.mix);
        self.capacity.verify(&site)
    }
}

fn site<'a>(
    inventory: &'a Inventory,
    measured: &'a Measured,
    policy: &'a Policy,
    mix: &'a Mix,
) -> Site<'a> {
    static LINGERING: BTreeMap<DeviceId, BTreeSet<crate::request::Process>> = BTreeMap::new();
    static QUIESCED: BTreeSet<NodeId> = BTreeSet::new();
    Site {
        inventory,
        measured,
        lingering: &LINGERING,
        quiesced: &QUIESCED,
        opening: None,
        own: None,
        mix,
        policy,
        now: Time::ZERO,
    }
}
