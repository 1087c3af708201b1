//! What each event does to the state. One arm, one call; every call books what it changes in every index at once.

use std::sync::Arc;

use super::{Keep, Service, State};
use crate::{
    event::{At, Event},
    id::{DeviceId, LeaseId, Name, NodeId, Token},
    inventory::{Closed, ClosedUntil, Cordon, DeviceFacts, NodeFacts},
    lease::{Basis, DropCause, EndReason, FactKind, Lease, OpenCause, State as LeaseState, Why},
    notice::Target,
    order::{Class, Lane},
    placement::Demand,
    request::{Preemptible, Request},
    time::Time,
};

/// What does not fit, in words.
pub(super) type Fit<T = ()> = Result<T, String>;

impl State {
    pub(super) fn apply_event(&mut self, at: At, event: &Event) -> Fit {
        match event {
            Event::NodeAdded { facts } => self.node_added(at, facts),
            Event::NodeChanged { node, facts, .. } => self.node_changed(at, *node, facts),
            Event::NodeLost { node } => self.node_lost(at, *node, true),
            Event::NodeRecovered { node } => self.node_lost(at, *node, false),
            Event::DeviceAdded { node, facts } => self.device_added(at, *node, facts),
            Event::DeviceChanged { device, facts } => self.device_changed(*device, facts),
            Event::DeviceLost { device, detail } => {
                self.device(*device)?.lost = Some(detail.clone());
                Ok(())
            }
            Event::DeviceRecovered { device } => {
                self.device(*device)?.lost = None;
                Ok(())
            }
            Event::Requested { lease, request } => self.requested(at, *lease, request),
            Event::Granted { lease, token, devices, class, basis, .. } => {
                self.granted(at, *lease, *token, devices, (*class, *basis))
            }
            Event::Noticed { .. } | Event::NoticeChanged { .. } | Event::NoticeWithdrawn { .. } => {
                self.notice(at, event)
            }
            Event::Paused { lease, lost } => self.paused(at, *lease, lost.as_ref()),
            Event::Cordoned { target, drain, reason } => {
                self.cordon(*target, Some(Cordon { drain: *drain, reason: reason.clone() }))
            }
            Event::Uncordoned { target } => self.cordon(*target, None),
            Event::Kept { lease, lane, devices, lapses_at } => self.kept(
                at,
                *lease,
                lane.clone(),
                Keep { lease: *lease, devices: devices.clone(), lapses_at: *lapses_at },
            ),
            Event::KeepDropped { lease, cause, barred_until, barred } => {
                self.keep_dropped(at, *lease, *cause, (*barred_until, barred))
            }
            Event::Reclaiming { lease, reason, detail } => {
                self.reclaiming(at, *lease, *reason, detail.as_ref())
            }
            Event::Opened { device, lease, cause } => self.opened(at, *device, *lease, *cause),
            Event::Ended { lease, reason, detail } => {
                self.ended(at, *lease, *reason, detail.as_ref())
            }
            Event::Checkpoint => Ok(()),
            Event::HalfLifeChanged { half_life } => self.half_life_changed(at, *half_life),
            Event::Imported { token, closed_until } => self.imported(*token, *closed_until),
            Event::DeviceOpened { device, .. } => self.device_opened(*device),
            Event::NodeRenamed { node, before, facts } => {
                self.node_renamed(at, *node, before, facts)
            }
            Event::DeviceMoved { device, node, .. } => self.device_moved(*device, *node),
        }
    }

    fn node_added(&mut self, at: At, facts: &Arc<NodeFacts>) -> Fit {
        if self.inventory.node_named(facts.name.as_str()).is_some() {
            return Err(format!("node {} is known already", facts.name));
        }
        self.inventory.add_node(facts.clone(), at.time);
        Ok(())
    }

    fn node_changed(&mut self, at: At, node: NodeId, facts: &Arc<NodeFacts>) -> Fit {
        self.inventory.facts_changed();
        let known =
            self.inventory.node_mut(node).ok_or_else(|| format!("node {node} is unknown"))?;
        known.facts = facts.clone();
        known.imported = false;
        known.seen_at = at.time;
        Ok(())
    }

    fn node_renamed(&mut self, at: At, node: NodeId, before: &Name, facts: &Arc<NodeFacts>) -> Fit {
        if self.inventory.node_named(before.as_str()) != Some(node)
            || !self.inventory.rename_node(node, facts.clone())
        {
            return Err(format!("node {node} is not {before}, or {} is taken", facts.name));
        }
        self.node_changed(at, node, facts)
    }

    fn device_moved(&mut self, id: DeviceId, node: NodeId) -> Fit {
        let device = self.device(id)?;
        if !device.holding.is_empty() {
            return Err(format!("device {} moves while leases hold it", device.facts.uuid));
        }
        if !self.inventory.move_device(id, node) {
            return Err(format!("node {node} is unknown"));
        }
        Ok(())
    }

    fn node_lost(&mut self, at: At, node: NodeId, lost: bool) -> Fit {
        let known =
            self.inventory.node_mut(node).ok_or_else(|| format!("node {node} is unknown"))?;
        known.lost = lost;
        known.seen_at = at.time;
        Ok(())
    }

    fn device_added(&mut self, at: At, node: NodeId, facts: &Arc<DeviceFacts>) -> Fit {
        if self.inventory.device_with(facts.uuid.as_str()).is_some() {
            return Err(format!("device {} is known already", facts.uuid));
        }
        let device = self.inventory.next_device();
        if !self.inventory.add_device(node, facts.clone()) {
            return Err(format!("node {node} is unknown"));
        }
        self.close_if_imported(at, device)
    }

    fn device_changed(&mut self, device: DeviceId, facts: &Arc<DeviceFacts>) -> Fit {
        self.device(device)?.facts = facts.clone();
        self.inventory.facts_changed();
        Ok(())
    }

    fn requested(&mut self, at: At, id: LeaseId, request: &Arc<Request>) -> Fit {
        if id <= self.last_lease {
            return Err(format!("lease {id} was numbered before"));
        }
        self.last_lease = id;
        let service = self.service_asking(&request.holder.service);
        service.held.queued = service.held.queued.saturating_add(1);
        service.holders.entry(request.holder.name.clone()).or_default().insert(id);
        if let Some(name) = &request.name {
            service.names.insert(name.clone(), id);
        }
        service.requests.insert(request.request_id.clone(), id);
        self.mix.learn(Demand::of(request));
        self.tally.moved(None, LeaseState::Queued);
        self.leases.insert(id, Lease::new(id, request.clone(), at));
        Ok(())
    }

    fn granted(
        &mut self,
        at: At,
        id: LeaseId,
        token: Token,
        devices: &[DeviceId],
        (class, basis): (Class, Basis),
    ) -> Fit {
        if token <= self.last_token {
            return Err(format!("token {token} is not above {}", self.last_token));
        }
        self.drop_keep_of(id);
        let guest = basis.why == Why::Backfilled;
        let kept = |device: &DeviceId| self.inventory.device(*device)?.kept_for;
        let backfilled_for = guest.then(|| devices.iter().find_map(kept)).flatten();
        let lease =
            self.enter(id, LeaseState::Active, &[LeaseState::Queued, LeaseState::Paused])?;
        let resumed = lease.first_granted_at.is_some();
        lease.record(at, if resumed { FactKind::Resumed(token) } else { FactKind::Granted(token) });
        lease.previous_token = lease.token;
        (lease.token, lease.granted_at, lease.devices) = (token, Some(at.time), devices.into());
        lease.first_granted_at.get_or_insert(at.time);
        (lease.granted_class, lease.basis) = (class, Some(basis));
        lease.backfilled_for = backfilled_for;
        // What it was paused for is over.
        lease.detail = None;
        let share = lease.request.ask.share;
        self.last_token = token;
        for device in devices {
            self.device(*device)?.hold(id, share, token);
        }
        self.book_affinity(id, true);
        self.book_use(at, id)?;
        self.book_host(id, true)
    }

    fn kept(&mut self, at: At, id: LeaseId, lane: Lane, keep: Keep) -> Fit {
        self.lease_mut(id)?.record(at, FactKind::Kept);
        for device in &keep.devices {
            let device = self.device(*device)?;
            if let Some(other) = device.kept_for {
                return Err(format!("device {} is kept for lease {other}", device.facts.uuid));
            }
            device.kept_for = Some(id);
        }
        match self.keeps.insert(lane, keep) {
            Some(other) => Err(format!("lease {} keeps devices in the lane of {id}", other.lease)),
            None => Ok(()),
        }
    }

    fn keep_dropped(
        &mut self,
        at: At,
        id: LeaseId,
        cause: DropCause,
        (barred_until, barred): (Time, &[DeviceId]),
    ) -> Fit {
        let lease = self.lease_mut(id)?;
        lease.record(at, FactKind::KeepDropped(cause));
        // A bar stands until its time, whatever else becomes of what is kept meanwhile.
        if cause == DropCause::Lapsed {
            (lease.keep_barred_until, lease.keep_barred) = (barred_until, barred.into());
        }
        self.drop_keep_of(id);
        Ok(())
    }

    fn reclaiming(
        &mut self,
        at: At,
        id: LeaseId,
        reason: EndReason,
        detail: Option<&Arc<str>>,
    ) -> Fit {
        self.end_notice(at, id, false)?;
        let from = [LeaseState::Active, LeaseState::Pausing];
        let lease = self.enter(id, LeaseState::Reclaiming(reason), &from)?;
        lease.detail = detail.cloned();
        lease.record(at, FactKind::Reclaiming(reason));
        self.free_name(id);
        self.give_back(at, id, Some(ClosedUntil::Proven))
    }

    /// A lease holds nothing any more. What it held is closed, until it is `Proven` or `Checked`; devices whose figures
    /// are exact need no check.
    pub(super) fn give_back(&mut self, at: At, id: LeaseId, until: Option<ClosedUntil>) -> Fit {
        self.settle_use(at, id)?;
        self.book_host(id, false)?;
        self.book_affinity(id, false);
        let process = self.lease_mut(id)?.request.process;
        for device in self.held(id) {
            let device = self.device(device)?;
            let exact = device.facts.answers_at_once;
            let until = until.or((!exact).then_some(ClosedUntil::Checked));
            if let (Some(share), Some(until)) = (device.unhold(id), until) {
                device.close(id, Closed { share, until, process });
            }
        }
        Ok(())
    }

    fn cordon(&mut self, target: Target, cordon: Option<Cordon>) -> Fit {
        match target {
            Target::Device(device) => self.device(device)?.cordon = cordon,
            Target::Node(node) => {
                let known = self.inventory.node_mut(node);
                known.ok_or_else(|| format!("node {node} is unknown"))?.cordon = cordon;
            }
        }
        Ok(())
    }

    fn opened(&mut self, at: At, device: DeviceId, id: LeaseId, cause: OpenCause) -> Fit {
        self.device(device)?.open(id);
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.record(at, FactKind::Opened(device, cause));
        }
        Ok(())
    }

    fn ended(&mut self, at: At, id: LeaseId, reason: EndReason, detail: Option<&Arc<str>>) -> Fit {
        self.drop_keep_of(id);
        if self.lease_mut(id)?.state.holds() {
            self.end_notice(at, id, true)?;
            self.give_back(at, id, None)?;
        }
        self.free_name(id);
        let from = [
            LeaseState::Queued,
            LeaseState::Active,
            LeaseState::Pausing,
            LeaseState::Paused,
            LeaseState::Reclaiming(reason),
        ];
        let reclaimed = matches!(self.lease_mut(id)?.state, LeaseState::Reclaiming(_));
        let lease = self.enter(id, LeaseState::Ended(reason), &from)?;
        lease.ended_at = Some(at.time);
        // What it once lost is no reason of a later end; why it was reclaimed is.
        lease.detail = detail.cloned().or_else(|| lease.detail.take().filter(|_| reclaimed));
        lease.record(at, FactKind::Ended(reason));
        lease.history.shrink_to_fit();
        let (granted, holder) = (lease.granted_at.is_some(), lease.request.holder.name.clone());
        if let Some(service) = self.service_of(id)
            && let Some(leases) = service.holders.get_mut(&holder)
        {
            leases.remove(&id);
            if leases.is_empty() {
                service.holders.remove(&holder);
            }
        }
        self.file(id, granted, at.time);
        Ok(())
    }

    /// Moves a lease to a state from one of those that may come before it.
    pub(super) fn enter(
        &mut self,
        id: LeaseId,
        to: LeaseState,
        from: &[LeaseState],
    ) -> Fit<&mut Lease> {
        let lease = self.leases.get_mut(&id).ok_or_else(|| format!("lease {id} is unknown"))?;
        if !from.contains(&lease.state) {
            return Err(format!("lease {id} is {:?} and cannot become {to:?}", lease.state));
        }
        self.tally.moved(Some(lease.state), to);
        if lease.request.preemptible != Preemptible::Never {
            self.tally.moved_preemptible(lease.state, to);
        }
        let left_queue = lease.state == LeaseState::Queued && to != LeaseState::Queued;
        lease.state = to;
        if left_queue && let Some(service) = self.services.get_mut(&lease.request.holder.service) {
            service.held.queued = service.held.queued.saturating_sub(1);
        }
        Ok(lease)
    }

    /// Books what a lease takes of the hosts of its devices, or gives it back.
    fn book_host(&mut self, id: LeaseId, take: bool) -> Fit {
        let request = self.lease_mut(id)?.request.clone();
        let (cpu, memory) =
            (request.constraints.host_cpu_millis, request.constraints.host_memory_bytes);
        if cpu == 0 && memory == 0 {
            return Ok(());
        }
        let mut nodes = Vec::new();
        for device in self.held(id) {
            nodes.push(self.device(device)?.node);
        }
        nodes.sort_unstable();
        nodes.dedup();
        for node in nodes {
            let node =
                self.inventory.node_mut(node).ok_or_else(|| format!("node {node} is unknown"))?;
            let book = if take { u64::saturating_add } else { u64::saturating_sub };
            node.host_cpu_used_millis = book(node.host_cpu_used_millis, cpu);
            node.host_memory_used_bytes = book(node.host_memory_used_bytes, memory);
        }
        Ok(())
    }

    /// Books where the leases with one affinity key are, or that one of them is there no longer.
    fn book_affinity(&mut self, id: LeaseId, take: bool) {
        let Some(lease) = self.leases.get(&id) else { return };
        let Some(key) = lease.request.constraints.affinity.as_ref().map(|it| it.key.clone()) else {
            return;
        };
        let devices = lease.devices.clone();
        let Some(service) = self.service_of(id) else { return };
        let group = service.affinities.entry(key.clone()).or_default();
        for device in devices {
            let count = group.entry(device).or_default();
            *count = if take { count.saturating_add(1) } else { count.saturating_sub(1) };
        }
        group.retain(|_, count| *count > 0);
        if group.is_empty() {
            service.affinities.remove(&key);
        }
    }

    fn drop_keep_of(&mut self, id: LeaseId) {
        let Some(lane) = self.keep_of(id).map(|(lane, _)| lane.clone()) else { return };
        for device in self.keeps.remove(&lane).map(|keep| keep.devices).unwrap_or_default() {
            if let Some(device) = self.inventory.device_mut(device) {
                device.kept_for = None;
            }
        }
    }

    fn free_name(&mut self, id: LeaseId) {
        let Some(name) = self.leases.get(&id).and_then(|lease| lease.name().cloned()) else {
            return;
        };
        if let Some(service) = self.service_of(id)
            && service.names.get(&name) == Some(&id)
        {
            service.names.remove(&name);
        }
    }

    fn held(&self, id: LeaseId) -> Box<[DeviceId]> {
        self.leases.get(&id).map(|lease| lease.devices.clone()).unwrap_or_default()
    }

    pub(super) fn service_of(&mut self, id: LeaseId) -> Option<&mut Service> {
        let service = &self.leases.get(&id)?.request.holder.service;
        self.services.get_mut(service)
    }

    pub(super) fn lease_mut(&mut self, id: LeaseId) -> Fit<&mut Lease> {
        self.leases.get_mut(&id).ok_or_else(|| format!("lease {id} is unknown"))
    }

    pub(super) fn device(&mut self, id: DeviceId) -> Fit<&mut crate::inventory::Device> {
        self.inventory.device_mut(id).ok_or_else(|| format!("device {id} is unknown"))
    }
}
