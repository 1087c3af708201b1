//! Devices that move, and nodes that go by another name.
//!
//! A device is on the node that first named it. Another node's claim is refused while the first is there and names it,
//! and said once; it is remembered, and the device moves with a report or sample of the claimant once its node is lost
//! (`node_silent_max`) or named it no longer. Nobody holds it by then (P12). What former leases closed of it opens where
//! the boot is another one: the processes that could use it run on the former host, or died with its boot (P6).
//!
//! A host that was renamed, or a container that has a new host name at every start, is the same boot under a new name:
//! the node is renamed, and its leases go on. It is taken for that when a report of an unknown name has the boot id of a
//! node that is not there (not heard of in this run, or silent) and names a device of it.

use std::{collections::BTreeSet, sync::Arc};

use super::Scheduler;
use crate::{
    event::Event,
    id::{DeviceId, Name, NodeId},
    input::DeviceReport,
    inventory::{Node, NodeFacts},
    lease::{DropCause, OpenCause},
    output::{Effect, Output},
    soft::Claim,
    time::Time,
};

impl Scheduler {
    /// A report of an unknown name may be a known node's; answers whether it is.
    pub(super) fn rename(
        &mut self,
        facts: &Arc<NodeFacts>,
        reports: &[DeviceReport],
        out: &mut Output,
    ) -> bool {
        let inventory = self.state.inventory();
        if inventory.node_named(facts.name.as_str()).is_some() {
            return false;
        }
        let home = |report: &DeviceReport| {
            let device = inventory.device_with(report.facts.uuid.as_str())?;
            Some(inventory.device(device)?.node)
        };
        let is_it = |id: &NodeId| {
            let same_boot = |node: &Node| node.facts.boot_id == facts.boot_id;
            let there = self.soft.measured.met(*id) && self.site().reachable(*id);
            inventory.node(*id).is_some_and(same_boot) && !there
        };
        let Some(node) = reports.iter().filter_map(home).find(is_it) else { return false };
        let Some(before) = inventory.node(node).map(|node| node.facts.name.clone()) else {
            return false;
        };
        self.emit(Event::NodeRenamed { node, before, facts: facts.clone() }, out);
        true
    }

    /// Another node names a device: it moves there, or the claim is remembered. Answers whether it moved.
    pub(super) fn claim(
        &mut self,
        device: DeviceId,
        node: NodeId,
        report: &DeviceReport,
        out: &mut Output,
    ) -> bool {
        if self.may_move(device) {
            self.move_device(device, node, out);
            return true;
        }
        self.soft.claims.insert(device, Claim { node, report: report.clone() });
        false
    }

    /// Takes back what a node claimed by its last report; answers what that was.
    pub(super) fn take_claims(&mut self, node: NodeId) -> BTreeSet<DeviceId> {
        let own = |claim: &Claim| claim.node == node;
        let claims = self.soft.claims.extract_if(.., |_, claim| own(claim));
        claims.map(|(device, _)| device).collect()
    }

    /// Says which claims of a node's report are new and refused.
    pub(super) fn tell_claims(&self, node: NodeId, before: &BTreeSet<DeviceId>, out: &mut Output) {
        let new =
            |(device, claim): &(&DeviceId, &Claim)| claim.node == node && !before.contains(*device);
        let claimed = self.soft.claims.iter().filter(new).map(|(device, _)| *device);
        let named = claimed.filter_map(|device| self.device_name(device));
        for named in named {
            let claimant = self.state.inventory().node(node).map(|node| node.facts.name.clone());
            let Some(claimant) = claimant else { continue };
            let (device, node) = (named.facts.uuid.clone(), named.node);
            out.effects.push(Effect::ClaimRefused { device, node, claimant });
        }
    }

    /// Whether a device is on a node. One that the node claims moves there when it may.
    pub(super) fn is_on(&mut self, device: DeviceId, node: NodeId, out: &mut Output) -> bool {
        if self.state.inventory().device(device).is_some_and(|device| device.node == node) {
            return true;
        }
        if !self.may_move(device) {
            return false;
        }
        let claims = &self.soft.claims;
        let claim = claims.get(&device).filter(|claim| claim.node == node).cloned();
        let Some(Claim { report, .. }) = claim else { return false };
        // The claim becomes a report, with what it says of the device.
        let moved = self.observe_device(node, &report, out).is_some();
        self.end_impossible(out);
        moved
    }

    /// Its node is lost, or named it no longer.
    fn may_move(&self, id: DeviceId) -> bool {
        let inventory = self.state.inventory();
        let Some(device) = inventory.device(id) else { return false };
        let node_lost = inventory.node(device.node).is_none_or(|node| node.lost);
        device.holding.is_empty() && (node_lost || self.soft.left_out.contains(&id))
    }

    fn move_device(&mut self, id: DeviceId, to: NodeId, out: &mut Output) {
        let inventory = self.state.inventory();
        let Some(device) = inventory.device(id) else { return };
        let (Some(from), Some(home)) = (inventory.node(device.node), inventory.node(to)) else {
            return;
        };
        let other_boot = from.facts.boot_id != home.facts.boot_id;
        let before: Name = from.facts.name.clone();
        if let Some(kept_for) = device.kept_for {
            self.drop_keep(kept_for, DropCause::Blocked, Time::ZERO, out);
        }
        self.emit(Event::DeviceMoved { device: id, before, node: to }, out);
        self.soft.claims.remove(&id);
        self.soft.left_out.remove(&id);
        self.soft.measured.forget(id);
        self.soft.dirty = true;
        if other_boot {
            // The move itself made both nodes be looked at again.
            self.soft.lingering.remove(&id);
            self.open_all_parts(id, OpenCause::Moved, out);
        } else {
            self.restart_lock_delays(&[id]);
        }
    }
}
