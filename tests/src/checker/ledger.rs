//! The fold of the events: each lease's life, each device's holders, each node's host shares.
//!
//! | phase | event | next phase |
//! |---|---|---|
//! | – | REQUESTED | Queued |
//! | Queued | GRANTED | Active |
//! | Queued | ENDED, but for RELEASED, EXPIRED and DEVICE_LOST | Ended |
//! | Active | RECLAIMING · ENDED (RELEASED) | Reclaiming · Ended |
//! | Reclaiming | ENDED (EXPIRED, REVOKED, DEVICE_LOST) | Ended |
//!
//! Anything else is a fault. Pausing belongs to a later contract, and would be one too.

use std::collections::{BTreeMap, BTreeSet};

use gpulease::{
    Ask, DeviceEvent, DeviceEventKind, EndReason, Event, EventBatch, LeaseEvent, LeaseEventKind,
};

use super::{
    device::{Capacity, Device, Part},
    host::HostShare,
    receipts::Receipts,
    verdict::{Fault, Faults},
};

/// Where a lease stands, as far as the events told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Asked for.
    Queued,
    /// Granted.
    Active,
    /// Ended uncleanly.
    Reclaiming,
    /// Over.
    Ended,
}

/// A lease as the events told it.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) request_id: String,
    pub(crate) phase: Phase,
    pub(crate) fencing_token: u64,
    pub(crate) devices: BTreeSet<String>,
    pub(crate) end_reason: Option<EndReason>,
    ask: Ask,
    requested_revision: u64,
    pub(crate) waited: bool,
    host: HostShare,
    nodes: BTreeSet<String>,
}

/// All that the events told.
#[derive(Debug)]
pub struct Ledger {
    pub(crate) leases: BTreeMap<u64, Life>,
    pub(crate) faults: Faults,
    devices: BTreeMap<String, Device>,
    hosts: BTreeMap<String, HostShare>,
    hosts_used: BTreeMap<String, HostShare>,
    receipts: Receipts,
    revision: u64,
    token_last: u64,
    queued: usize,
    active: usize,
    granted: u64,
}

impl Ledger {
    /// A ledger for these devices; what each request takes of a host is looked up in the receipts.
    #[must_use]
    pub fn new(capacity: Capacity, receipts: Receipts) -> Self {
        let devices =
            capacity.devices.into_iter().map(|(uuid, device)| (uuid, Device::new(device)));
        Self {
            leases: BTreeMap::new(),
            faults: Faults::default(),
            devices: devices.collect(),
            hosts: capacity.nodes,
            hosts_used: BTreeMap::new(),
            receipts,
            revision: 0,
            token_last: 0,
            queued: 0,
            active: 0,
            granted: 0,
        }
    }

    pub(crate) fn receipts(&self) -> &Receipts {
        &self.receipts
    }

    /// The last revision seen.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Leases that wait.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Leases that hold devices.
    #[must_use]
    pub fn active(&self) -> usize {
        self.active
    }

    /// Grants so far.
    #[must_use]
    pub fn granted(&self) -> u64 {
        self.granted
    }

    /// Grants of leases that had waited: requested in an earlier batch.
    #[must_use]
    pub fn waited(&self) -> usize {
        self.leases.values().filter(|life| life.waited).count()
    }

    /// What is held and closed of all devices, in thousandths of a device.
    #[must_use]
    pub fn taken_permille(&self) -> u64 {
        self.devices.values().map(Device::taken_permille).sum()
    }

    /// Takes the next batch.
    pub fn apply(&mut self, batch: &EventBatch) {
        let bookmark = batch.events.is_empty();
        if batch.revision < self.revision || (batch.revision == self.revision && !bookmark) {
            let text = format!("revision {} came after {}", batch.revision, self.revision);
            self.faults.add(Fault::Invariant, text);
        }
        self.revision = self.revision.max(batch.revision);
        for event in &batch.events {
            match event {
                Event::Lease(event) => self.lease(event, batch.revision),
                Event::Device(event) => self.device(event),
                _ => {}
            }
        }
    }

    fn lease(&mut self, event: &LeaseEvent, revision: u64) {
        match event.kind {
            LeaseEventKind::Requested => self.requested(event, revision),
            LeaseEventKind::Granted => self.grant(event, revision),
            LeaseEventKind::Reclaiming => self.reclaiming(event),
            LeaseEventKind::Ended => self.ended(event),
            LeaseEventKind::Kept => {
                for uuid in &event.kept_devices {
                    if self.devices.get(uuid).is_none_or(|device| device.lost) {
                        let text = format!(
                            "lease {}: kept device {uuid} is lost or unknown",
                            event.lease_id
                        );
                        self.faults.add(Fault::Invariant, text);
                    }
                }
            }
            _ => {}
        }
    }

    fn requested(&mut self, event: &LeaseEvent, revision: u64) {
        let host = self.receipts.book().asked.get(&event.request_id).copied();
        if host.is_none() {
            let text = format!("lease {}: nobody asked under {}", event.lease_id, event.request_id);
            self.faults.add(Fault::Invariant, text);
        }
        let life = Life {
            request_id: event.request_id.clone(),
            phase: Phase::Queued,
            fencing_token: 0,
            devices: BTreeSet::new(),
            end_reason: None,
            ask: event.ask.clone().unwrap_or_default(),
            requested_revision: revision,
            waited: false,
            host: host.unwrap_or_default(),
            nodes: BTreeSet::new(),
        };
        self.queued += 1;
        if self.leases.insert(event.lease_id, life).is_some() {
            let text = format!("lease {} was requested twice", event.lease_id);
            self.faults.add(Fault::Invariant, text);
        }
    }

    fn grant(&mut self, event: &LeaseEvent, revision: u64) {
        let id = event.lease_id;
        let token = event.fencing_token.unwrap_or(0);
        let Some(life) = self.leases.get_mut(&id) else {
            return self.faults.add(Fault::Invariant, format!("lease {id}: granted unasked"));
        };
        if life.phase != Phase::Queued {
            let text = format!("lease {id}: granted while {:?}", life.phase);
            self.faults.add(Fault::DoubleGrant, text);
        }
        if token <= self.token_last {
            let text = format!("lease {id}: token {token} is not above {}", self.token_last);
            self.faults.add(Fault::Invariant, text);
        }
        if event.devices.len() != life.ask.devices.max(1) as usize {
            let text = format!("lease {id}: {} devices for {:?}", event.devices.len(), life.ask);
            self.faults.add(Fault::Invariant, text);
        }
        life.phase = Phase::Active;
        life.fencing_token = token;
        life.waited = revision != life.requested_revision;
        life.devices = event.devices.iter().map(|device| device.uuid.clone()).collect();
        life.nodes = event.devices.iter().map(|device| device.node.clone()).collect();
        let (nodes, host, ask) = (life.nodes.clone(), life.host, life.ask.clone());
        self.token_last = self.token_last.max(token);
        self.queued = self.queued.saturating_sub(1);
        self.active += 1;
        self.granted += 1;
        self.occupy(event, token, &ask);
        self.charge(id, &nodes, host);
    }

    /// Puts the lease on each of its devices (P1, P2).
    fn occupy(&mut self, event: &LeaseEvent, token: u64, ask: &Ask) {
        let id = event.lease_id;
        for leased in &event.devices {
            let uuid = &leased.uuid;
            let Some(device) = self.devices.get_mut(uuid) else {
                self.faults.add(Fault::Invariant, format!("lease {id}: unknown device {uuid}"));
                continue;
            };
            let part = Part::from(leased);
            let asked =
                (ask.exclusive, ask.slots.map_or(0, u64::from), ask.memory_bytes.unwrap_or(0));
            if (part.exclusive, part.slots, part.memory_bytes) != asked {
                let text = format!("lease {id}: was given {leased:?} for {ask:?}");
                self.faults.add(Fault::Invariant, text);
            }
            if device.lost {
                self.faults.add(Fault::Invariant, format!("lease {id}: device {uuid} is lost"));
            }
            if token <= device.token_last {
                let text =
                    format!("lease {id}: token {token} on {uuid} after {}", device.token_last);
                self.faults.add(Fault::Invariant, text);
            }
            device.token_last = device.token_last.max(token);
            if let Some(overlap) = device.take(id, part) {
                self.faults.add(Fault::DoubleGrant, format!("lease {id} on {uuid}: {overlap}"));
            }
        }
    }

    fn charge(&mut self, id: u64, nodes: &BTreeSet<String>, host: HostShare) {
        for node in nodes {
            let used = self.hosts_used.entry(node.clone()).or_default();
            used.add(host);
            let capacity = self.hosts.get(node).copied();
            if let Some(capacity) = capacity.filter(|capacity| !used.fits(*capacity)) {
                let text = format!("lease {id} on node {node}: {used:?} of {capacity:?}");
                self.faults.add(Fault::Invariant, text);
            }
        }
    }

    fn reclaiming(&mut self, event: &LeaseEvent) {
        let id = event.lease_id;
        match self.leases.get_mut(&id) {
            Some(life) if life.phase == Phase::Active => {
                life.phase = Phase::Reclaiming;
                life.end_reason = event.end_reason;
                self.active = self.active.saturating_sub(1);
                self.discharge(id);
            }
            other => {
                let phase = other.map(|life| life.phase);
                self.faults
                    .add(Fault::Invariant, format!("lease {id}: reclaiming while {phase:?}"));
            }
        }
    }

    fn ended(&mut self, event: &LeaseEvent) {
        let (id, reason) = (event.lease_id, event.end_reason);
        let Some(life) = self.leases.get_mut(&id) else {
            return self.faults.add(Fault::Invariant, format!("lease {id}: ended unasked"));
        };
        let phase = life.phase;
        life.phase = Phase::Ended;
        life.end_reason = reason;
        if !end_is_legal(phase, reason) {
            let text = format!("lease {id}: ended as {reason:?} while {phase:?}");
            self.faults.add(Fault::Invariant, text);
        }
        match phase {
            Phase::Queued => self.queued = self.queued.saturating_sub(1),
            Phase::Active => {
                self.active = self.active.saturating_sub(1);
                self.given_back(id);
            }
            Phase::Reclaiming => self.still_closed(id),
            Phase::Ended => {}
        }
    }

    /// A release frees the devices at once, and must have been asked for by the holder.
    fn given_back(&mut self, id: u64) {
        if !self.receipts.book().releasing.contains(&id) {
            self.faults.add(Fault::GrantLost, format!("lease {id}: ended, and nobody released it"));
        }
        let devices = self.leases.get(&id).map(|life| life.devices.clone()).unwrap_or_default();
        for uuid in devices {
            if let Some(device) = self.devices.get_mut(&uuid) {
                device.free(id);
            }
        }
        self.discharge(id);
    }

    /// A reclaimed lease ends only when nothing of it is closed any more (P6).
    fn still_closed(&mut self, id: u64) {
        let closed = self.devices.iter().find(|(_, device)| device.has(id));
        if let Some((uuid, _)) = closed {
            let text = format!("lease {id}: ended while its part of {uuid} is closed");
            self.faults.add(Fault::Invariant, text);
        }
    }

    fn discharge(&mut self, id: u64) {
        let Some(life) = self.leases.get(&id) else { return };
        for node in &life.nodes {
            if let Some(used) = self.hosts_used.get_mut(node) {
                used.subtract(life.host);
            }
        }
    }

    fn device(&mut self, event: &DeviceEvent) {
        let uuid = &event.uuid;
        let Some(device) = self.devices.get_mut(uuid) else {
            return self.faults.add(Fault::Invariant, format!("device {uuid} is unknown"));
        };
        match event.kind {
            DeviceEventKind::Lost => device.lost = true,
            DeviceEventKind::Recovered => device.lost = false,
            DeviceEventKind::Opened => {
                let lease_id = event.lease_id.unwrap_or(0);
                let phase = self.leases.get(&lease_id).map(|life| life.phase);
                let closed = phase == Some(Phase::Reclaiming) && device.free(lease_id);
                if !closed {
                    let text =
                        format!("device {uuid}: opened lease {lease_id}, which is {phase:?}");
                    self.faults.add(Fault::Invariant, text);
                }
            }
            _ => {}
        }
    }
}

fn end_is_legal(phase: Phase, reason: Option<EndReason>) -> bool {
    use EndReason::{Cancelled, DeviceLost, Expired, Released, Revoked, Unsatisfiable, WaitOver};
    match phase {
        Phase::Queued => {
            matches!(reason, Some(Cancelled | Revoked | WaitOver | Unsatisfiable))
        }
        Phase::Active => reason == Some(Released),
        Phase::Reclaiming => matches!(reason, Some(Expired | Revoked | DeviceLost)),
        Phase::Ended => false,
    }
}
