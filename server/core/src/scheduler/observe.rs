//! What is seen of nodes and devices: they come, change, fall silent, are lost and return (P12, P13).

use std::{collections::BTreeSet, sync::Arc};

use super::Scheduler;
use crate::{
    deadline::Deadline,
    event::Event,
    id::{DeviceId, Name, NodeId},
    input::{DeviceReport, DeviceSample, TreePass},
    inventory::{DEVICES_KNOWN_MAX, NODES_MAX, NodeFacts},
    lease::OpenCause,
    output::Output,
};

impl Scheduler {
    /// A node says what it is and has. A device that it had and does not name is lost; one that another node has is
    /// left there, or moves (`moves`).
    pub(super) fn observe(
        &mut self,
        facts: &Arc<NodeFacts>,
        reports: &[DeviceReport],
        out: &mut Output,
    ) {
        let renamed = self.rename(facts, reports, out);
        let Some((node, mut changed)) = self.observe_node(facts, out) else { return };
        changed |= renamed;
        let claimed_before = self.take_claims(node);
        let mut named = BTreeSet::new();
        for report in reports {
            let Some((device, news)) = self.observe_device(node, report, out) else { continue };
            named.insert(device);
            changed |= news;
        }
        self.tell_claims(node, &claimed_before, out);
        let missing = Some(Name::new("its node no longer names it"));
        for device in self.devices_of(node) {
            if named.contains(&device) {
                self.soft.left_out.remove(&device);
            } else {
                self.soft.left_out.insert(device);
                changed |= self.set_lost(device, missing.as_ref(), out);
            }
        }
        if changed {
            self.soft.dirty = true;
            self.end_impossible(out);
        }
    }

    /// Books what a node says of itself; answers its number and whether anything about it is new.
    fn observe_node(&mut self, facts: &Arc<NodeFacts>, out: &mut Output) -> Option<(NodeId, bool)> {
        let inventory = self.state.inventory();
        let Some(node) = inventory.node_named(facts.name.as_str()) else {
            if inventory.nodes().len() >= NODES_MAX {
                return None;
            }
            let node = inventory.next_node();
            self.emit(Event::NodeAdded { facts: facts.clone() }, out);
            self.hear(node, out);
            return Some((node, true));
        };
        let known = inventory.node(node)?.facts.clone();
        let imported = inventory.node(node)?.imported;
        let changed = *known != **facts;
        if changed || imported {
            let rebooted = known.boot_id != facts.boot_id;
            self.emit(Event::NodeChanged { node, facts: facts.clone(), rebooted }, out);
            if rebooted {
                self.rebooted(node, out);
            }
            if rebooted && !imported {
                self.open_rebooted(node, out);
            }
        }
        self.hear(node, out);
        Some((node, changed))
    }

    /// Books one device of a report; answers its number and whether anything about it is new.
    pub(super) fn observe_device(
        &mut self,
        node: NodeId,
        report: &DeviceReport,
        out: &mut Output,
    ) -> Option<(DeviceId, bool)> {
        let inventory = self.state.inventory();
        let Some(device) = inventory.device_with(report.facts.uuid.as_str()) else {
            if inventory.devices().len() >= DEVICES_KNOWN_MAX {
                return None;
            }
            let device = inventory.next_device();
            self.emit(Event::DeviceAdded { node, facts: report.facts.clone() }, out);
            self.close_imported(device);
            self.set_lost(device, report.lost.as_ref(), out);
            return Some((device, true));
        };
        let mut changed = inventory.device(device)?.node != node;
        if changed && !self.claim(device, node, report, out) {
            return None;
        }
        let known = self.state.inventory().device(device)?;
        if *known.facts != *report.facts {
            self.emit(Event::DeviceChanged { device, facts: report.facts.clone() }, out);
            changed = true;
        }
        changed |= self.set_lost(device, report.lost.as_ref(), out);
        Some((device, changed))
    }

    /// Books that a device is lost or back; its leases end when it is lost (P12).
    fn set_lost(&mut self, device: DeviceId, lost: Option<&Name>, out: &mut Output) -> bool {
        let was = self.state.inventory().device(device).and_then(|device| device.lost.clone());
        match (was, lost) {
            (None, Some(detail)) => {
                self.emit(Event::DeviceLost { device, detail: detail.clone() }, out);
                self.end_holders(&[device], detail.as_str(), out);
                true
            }
            (Some(_), None) => {
                self.emit(Event::DeviceRecovered { device }, out);
                true
            }
            _ => false,
        }
    }

    /// Ends every lease that holds one of these devices, or pauses it where it may be paused (P12).
    fn end_holders(&mut self, devices: &[DeviceId], detail: &str, out: &mut Output) {
        let losing = self.losing(devices, detail, None);
        self.end_lost(losing, out);
    }

    /// A new boot id: no process of the old boot lives, so that nothing stays closed there (P6).
    fn rebooted(&mut self, node: NodeId, out: &mut Output) {
        let devices = self.devices_of(node);
        let losing = self.losing(&devices, "its node was rebooted", Some(node));
        self.end_lost(losing, out);
        for device in devices {
            self.open_all_parts(device, OpenCause::Reboot, out);
        }
    }

    /// Measurements of a node's devices; they also prove that the node is there.
    pub(super) fn sample(
        &mut self,
        node: &Name,
        samples: Vec<DeviceSample>,
        trees: Option<&TreePass>,
        out: &mut Output,
    ) {
        let Some(node) = self.state.inventory().node_named(node.as_str()) else { return };
        self.hear(node, out);
        for sample in samples {
            let known = self.state.inventory().device_with(sample.uuid.as_str());
            // What another node says of a device proves nothing about it.
            let Some(device) = known.filter(|id| self.is_on(*id, node, out)) else { continue };
            let news = self.take_sample(device, sample, out);
            self.soft.dirty |= news;
        }
        if let Some(trees) = trees {
            self.take_trees(node, trees, out);
        }
    }

    /// A node was heard of.
    fn hear(&mut self, node: NodeId, out: &mut Output) {
        let now = self.now();
        let before = self.soft.measured.heard(node, now, &self.policy);
        if before.is_none() {
            self.soft
                .deadlines
                .set(now.after(self.policy.node_silent_max), Deadline::Silence(node));
        }
        let silent =
            before.is_none_or(|before| now.since(before) > self.policy.node_unreachable_after);
        if silent {
            let devices = self.devices_of(node);
            self.restart_lock_delays(&devices);
            self.soft.dirty = true;
        }
        if self.state.inventory().node(node).is_some_and(|node| node.lost) {
            self.emit(Event::NodeRecovered { node }, out);
            self.soft
                .deadlines
                .set(now.after(self.policy.node_silent_max), Deadline::Silence(node));
        }
    }

    /// A node may have been silent for too long: it is lost, with its leases; after an hour it is no longer known.
    pub(super) fn silence_due(&mut self, node: NodeId, out: &mut Output) {
        let Some(heard) = self.soft.measured.node(node) else { return };
        let (lost_at, forgotten_at) =
            (heard.after(self.policy.node_silent_max), heard.after(self.policy.node_known_for));
        let lost = self.state.inventory().node(node).is_some_and(|node| node.lost);
        let now = self.now();
        if lost_at > now {
            self.soft.deadlines.set(lost_at, Deadline::Silence(node));
        } else if !lost {
            self.emit(Event::NodeLost { node }, out);
            // What is kept there is so no longer.
            self.soft.dirty = true;
            let devices = self.devices_of(node);
            self.end_holders(&devices, "its node was silent for too long", out);
            self.soft.deadlines.set(forgotten_at, Deadline::Silence(node));
        } else if forgotten_at > now {
            self.soft.deadlines.set(forgotten_at, Deadline::Silence(node));
        } else {
            self.end_impossible(out);
            self.soft.deadlines.set(now.after(self.policy.node_known_for), Deadline::Silence(node));
        }
    }

    pub(super) fn devices_of(&self, node: NodeId) -> Vec<DeviceId> {
        self.state.inventory().node(node).map(|node| node.devices.clone()).unwrap_or_default()
    }
}
