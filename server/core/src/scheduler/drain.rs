//! Cordon, uncordon, drain: an operator takes a device or node out of use.
//!
//! A cordon stops new grants. A drain also gives notice to holders, to those in their minimum hold once it is over;
//! a lease that may never be preempted is only named, and ends as it would have.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use super::Scheduler;
use crate::{
    deadline::Deadline,
    event::Event,
    id::{DeviceId, LeaseId, Name},
    input::TargetName,
    lease::{Lease, State as LeaseState},
    notice::{Cause, Target},
    output::{Answer, Cordoned, Effect, Output, Rejection},
    request::Preemptible,
};

impl Scheduler {
    pub(super) fn cordon(
        &mut self,
        named: &TargetName,
        (drain, reason): (bool, Arc<str>),
        out: &mut Output,
    ) -> Result<Answer, Rejection> {
        let target = self.target(named)?;
        let before = self.cordon_at(target);
        if before != Some((drain, reason.clone())) {
            self.emit(Event::Cordoned { target, drain, reason }, out);
            // What is kept there is so no longer.
            self.soft.dirty = true;
        }
        let mut met = Cordoned::default();
        for id in self.holders_at(target) {
            met.holding.push(id);
            if drain {
                self.drain_lease(id, target, &mut met, out);
            }
        }
        if !drain {
            self.drop_cause(Cause::Drain(target), out);
        }
        Ok(Answer::Cordoned(met))
    }

    pub(super) fn uncordon(
        &mut self,
        named: &TargetName,
        out: &mut Output,
    ) -> Result<Answer, Rejection> {
        let target = self.target(named)?;
        if self.cordon_at(target).is_some() {
            self.emit(Event::Uncordoned { target }, out);
            self.drop_cause(Cause::Drain(target), out);
            self.soft.dirty = true;
        }
        Ok(Answer::Uncordoned)
    }

    fn drain_lease(&mut self, id: LeaseId, target: Target, met: &mut Cordoned, out: &mut Output) {
        let Some(lease) = self.state.lease(id) else { return };
        if lease.request.preemptible == Preemptible::Never {
            met.staying.push(id);
        } else if self.within_minimum_hold(lease) {
            met.later.push(id);
        } else if self.full(out) {
            self.soft.rest.drained.push_back((target, VecDeque::from([id])));
            met.later.push(id);
        } else {
            self.give_notice(id, Cause::Drain(target), out);
            met.noticed.push(id);
        }
    }

    /// Gives a lease notice of a drain that stands, if it holds something there.
    pub(super) fn drain_still(&mut self, id: LeaseId, target: Target, out: &mut Output) {
        let drained = |lease: &Lease| self.drains_over(&lease.devices).contains(&target);
        if self.state.lease(id).is_some_and(|lease| lease.state.holds() && drained(lease)) {
            self.drain_lease(id, target, &mut Cordoned::default(), out);
        }
    }

    /// A minimum hold may be reached, or a shield over: drains give notice, and requests may preempt.
    pub(super) fn minimum_hold_due(&mut self, id: LeaseId, out: &mut Output) {
        let Some(lease) = self.state.lease(id) else { return };
        if !lease.state.holds() {
            return;
        }
        let (early, drains) = (self.within_minimum_hold(lease), self.drains_over(&lease.devices));
        self.remind_of_minimum_hold(id);
        for target in drains.into_iter().filter(|_| !early) {
            self.drain_lease(id, target, &mut Cordoned::default(), out);
        }
        self.soft.dirty = true;
    }

    /// A lease that may be preempted, but not yet: its time is a deadline of the core. A shield keeps requests off, not
    /// drains, so that each of the two is a time of its own.
    pub(super) fn remind_of_minimum_hold(&mut self, id: LeaseId) {
        let Some(lease) = self.state.lease(id) else { return };
        if lease.request.preemptible == Preemptible::Never || !lease.state.holds() {
            return;
        }
        let held = lease.granted_at.map(|granted| granted.after(lease.request.minimum_hold));
        let over = held.into_iter().chain([lease.shielded_until]);
        if let Some(at) = over.filter(|at| *at > self.now()).min() {
            self.soft.deadlines.set(at, Deadline::MinimumHold(id));
        }
    }

    /// Whether it is too early for any notice.
    pub(super) fn within_minimum_hold(&self, lease: &Lease) -> bool {
        let held = lease.granted_at.map(|granted| granted.after(lease.request.minimum_hold));
        lease.state == LeaseState::Active && held.is_some_and(|held| held > self.now())
    }

    /// Lets a node's driver go, or takes it up again. Holders keep what they have; nothing new is granted meanwhile. It
    /// is no fact of the journal: a coordinator that starts takes the driver up.
    pub(super) fn quiesce(
        &mut self,
        name: &Name,
        quiesced: bool,
        out: &mut Output,
    ) -> Result<Answer, Rejection> {
        let node = self.state.inventory().node_named(name.as_str());
        let node = node.ok_or_else(|| Rejection::NodeNotFound { name: name.clone() })?;
        let changed = if quiesced {
            self.soft.quiesced.insert(node)
        } else {
            self.soft.quiesced.remove(&node)
        };
        if changed {
            self.soft.measured.touch(node);
            out.effects.push(Effect::Quiesce { node: name.clone(), quiesced });
            self.soft.dirty = true;
        }
        Ok(Answer::Quiesced)
    }

    fn target(&self, named: &TargetName) -> Result<Target, Rejection> {
        let inventory = self.state.inventory();
        let target = match named {
            TargetName::Device(uuid) => inventory.device_with(uuid.as_str()).map(Target::Device),
            TargetName::Node(name) => inventory.node_named(name.as_str()).map(Target::Node),
        };
        target.ok_or_else(|| match named.clone() {
            TargetName::Device(uuid) => Rejection::DeviceNotFound { uuid },
            TargetName::Node(name) => Rejection::NodeNotFound { name },
        })
    }

    fn cordon_at(&self, target: Target) -> Option<(bool, Arc<str>)> {
        let inventory = self.state.inventory();
        let cordon = match target {
            Target::Device(device) => inventory.device(device)?.cordon.as_ref(),
            Target::Node(node) => inventory.node(node)?.cordon.as_ref(),
        };
        cordon.map(|cordon| (cordon.drain, cordon.reason.clone()))
    }

    fn holders_at(&self, target: Target) -> BTreeSet<LeaseId> {
        let devices: Vec<DeviceId> = match target {
            Target::Device(device) => vec![device],
            Target::Node(node) => self.devices_of(node),
        };
        let known = devices.into_iter().filter_map(|id| self.state.inventory().device(id));
        known.flat_map(|device| device.holding.keys().copied()).collect()
    }

    pub(super) fn drains_over(&self, devices: &[DeviceId]) -> BTreeSet<Target> {
        let drained = |target: &Target| self.cordon_at(*target).is_some_and(|(drain, _)| drain);
        let node = |id: &DeviceId| self.state.inventory().device(*id).map(|device| device.node);
        let nodes = devices.iter().filter_map(node).map(Target::Node);
        devices.iter().copied().map(Target::Device).chain(nodes).filter(drained).collect()
    }
}
