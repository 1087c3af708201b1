//! Views: what the world sees between two batches.

use std::{cell::OnceCell, ops::Bound};

use super::Scheduler;
use crate::{
    id::{DeviceId, LeaseId, NodeId},
    inventory::Device,
    lease::{Lease, State as LeaseState},
    queue::{Places, Waiter},
    time::{Span, Time},
    view::{
        Counts, DeviceCondition, DeviceName, DeviceView, HOLDERS_TOLD_MAX, LeaseHistory, LeasePage,
        LeaseView,
    },
};

/// The most leases that one page looks at: a filter that keeps none of 8,192 takes 2 ms, and nobody else waits longer.
const LOOKED_AT_MAX: usize = 8_192;

impl Scheduler {
    /// One lease, or its record, with what happened to it.
    #[must_use]
    pub fn lease(&self, id: LeaseId) -> Option<LeaseHistory> {
        let lease = self.state.lease(id)?;
        Some(LeaseHistory {
            lease: self.lease_view(lease, &OnceCell::new()),
            facts: lease.history.clone(),
        })
    }

    /// At most `limit` leases behind `after` that `keep` keeps, in order of number, of at most [`LOOKED_AT_MAX`].
    pub fn leases(&self, after: LeaseId, limit: usize, keep: impl Fn(&Lease) -> bool) -> LeasePage {
        let behind = (Bound::Excluded(after), Bound::Unbounded);
        let (mut leases, mut looked_at, places) = (Vec::new(), after, OnceCell::new());
        for (count, (id, lease)) in self.state.leases().range(behind).enumerate() {
            if leases.len() >= limit || count >= LOOKED_AT_MAX {
                return LeasePage { leases, go_on_after: Some(looked_at) };
            }
            looked_at = *id;
            if keep(lease) {
                leases.push(self.lease_view(lease, &places));
            }
        }
        LeasePage { leases, go_on_after: None }
    }

    /// One device.
    #[must_use]
    pub fn device(&self, uuid: &str) -> Option<DeviceView> {
        let id = self.state.inventory().device_with(uuid)?;
        Some(self.device_view(id, self.state.inventory().device(id)?))
    }

    /// At most `limit` devices behind `after`, of one node or of all, in order of node and number.
    #[must_use]
    pub fn devices(
        &self,
        after: Option<DeviceId>,
        limit: usize,
        node: Option<&str>,
    ) -> Vec<(DeviceId, DeviceView)> {
        let inventory = self.state.inventory();
        let first = after.and_then(|id| inventory.device(id)).map(|device| device.node);
        let wanted = |id: NodeId, name: &str| {
            node.is_none_or(|wanted| wanted == name) && first.is_none_or(|first| first <= id)
        };
        let nodes = inventory.nodes().filter(|(id, node)| wanted(*id, node.facts.name.as_str()));
        let ids = nodes.flat_map(|(id, node)| {
            let skip = after.filter(|_| first == Some(id));
            node.devices
                .iter()
                .copied()
                .filter(move |device| skip.is_none_or(|skip| *device > skip))
        });
        let view = |id: DeviceId| Some((id, self.device_view(id, inventory.device(id)?)));
        ids.filter_map(view).take(limit).collect()
    }

    /// Whether a QUEUED lease's caller is there.
    #[must_use]
    pub fn is_present(&self, id: LeaseId) -> bool {
        self.soft.queue.waiter(id).is_some_and(|waiter| waiter.presence.there())
    }

    /// Whether a QUEUED lease would be granted if it fitted: its caller is there, and nobody before it is expected
    /// back from a restart.
    #[must_use]
    pub fn may_be_granted(&self, id: LeaseId) -> bool {
        let allowed = |waiter: &Waiter| {
            let key = waiter.rank.at(self.shares().of(&waiter.service));
            !self.soft.queue.awaits_before(key, &waiter.service)
        };
        self.is_present(id) && self.soft.queue.waiter(id).is_some_and(allowed)
    }

    /// How many deadlines are set: at most a few for each live lease, closed part and node.
    #[must_use]
    pub fn reminders(&self) -> usize {
        self.soft.deadlines.len()
    }

    /// How much is remembered besides the state: notices and their causes, closed parts, expiries, who is there and who
    /// used which token. Nothing, where no lease lives and nothing is closed.
    #[must_use]
    pub fn remembered(&self) -> usize {
        let soft = &self.soft;
        let noticed = soft.noticed_for.values().map(std::collections::BTreeMap::len);
        [
            noticed.fold(0, usize::saturating_add),
            soft.notices.len(),
            soft.expiries.len(),
            soft.closing.len(),
            soft.unary.len(),
            soft.adopted.len(),
            soft.served_by_notice.len(),
            soft.guests.len(),
            soft.queue.all().count(),
        ]
        .into_iter()
        .fold(0, usize::saturating_add)
    }

    /// The coordinator in figures.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let inventory = self.state.inventory();
        let tally = self.state.tally();
        let site = self.site();
        let available = |(id, device): &(DeviceId, &Device)| {
            site.condition(*id, device) == DeviceCondition::Available
        };
        Counts {
            nodes: inventory.nodes().len(),
            devices: inventory.devices().len(),
            devices_available: inventory.devices().filter(available).count(),
            queued: tally.queued,
            active: tally.active,
            pausing: tally.pausing,
            paused: tally.paused,
            reclaiming: tally.reclaiming,
            ended: self.state.leases().len().saturating_sub(tally.live()),
            sessions: self.soft.sessions.len(),
            token: self.state.token(),
        }
    }

    /// A lease that is known to be there.
    pub(super) fn lease_view_of(&self, id: LeaseId) -> LeaseView {
        let lease = self.state.lease(id).expect("the step in progress has just used this lease");
        self.lease_view(lease, &OnceCell::new())
    }

    /// The same for several, which costs less than one by one.
    pub(super) fn lease_views_of(&self, ids: &[LeaseId]) -> Vec<LeaseView> {
        let places = OnceCell::new();
        let leases = ids.iter().filter_map(|id| self.state.lease(*id));
        leases.map(|lease| self.lease_view(lease, &places)).collect()
    }

    /// Who stands before whom now.
    pub(super) fn places(&self) -> Places<'_> {
        self.soft.queue.places(self.shares())
    }

    pub(super) fn lease_view<'a>(
        &'a self,
        lease: &Lease,
        places: &OnceCell<Places<'a>>,
    ) -> LeaseView {
        let names = |ids: &[DeviceId]| ids.iter().filter_map(|id| self.device_name(*id)).collect();
        let closed = |device: &DeviceName| self.soft.closing.contains_key(&(device.id, lease.id));
        let mut devices: Vec<DeviceName> = names(&lease.devices);
        let mut closed_devices = devices.clone();
        closed_devices.retain(closed);
        if !lease.state.holds() {
            devices.clear();
        }
        let waiter = self.soft.queue.waiter(lease.id);
        let keep = self.state.keep_of(lease.id).map(|(_, keep)| keep);
        LeaseView {
            id: lease.id,
            request: lease.request.clone(),
            state: lease.state,
            token: lease.token,
            devices,
            closed: closed_devices,
            kept: keep.map(|keep| names(&keep.devices)).unwrap_or_default(),
            requested_at: lease.requested_at,
            granted_at: lease.granted_at,
            ended_at: lease.ended_at,
            detail: lease.detail.clone(),
            remaining: self.remaining(lease),
            queue_position: waiter.map_or(0, |waiter| {
                let key = self.key_at(waiter.first_rank());
                key.map_or(0, |key| places.get_or_init(|| self.places()).before(key) as u64)
            }),
            notice: self.notice_view(lease),
            preemptions: lease.preemptions,
            pause_took: lease.pause_took,
            seen_at: self.now(),
        }
    }

    fn remaining(&self, lease: &Lease) -> Option<Span> {
        let until: Time = match lease.state {
            LeaseState::Active | LeaseState::Pausing | LeaseState::Paused => {
                self.soft.expiries.get(&lease.id).copied()?
            }
            LeaseState::Queued => self.soft.queue.waiter(lease.id)?.waits_until,
            LeaseState::Reclaiming(_) | LeaseState::Ended(_) => return None,
        };
        Some(until.since(self.now()))
    }

    pub(super) fn device_name(&self, id: DeviceId) -> Option<DeviceName> {
        let device = self.state.inventory().device(id)?;
        let node = self.state.inventory().node(device.node)?;
        Some(DeviceName { id, node: node.facts.name.clone(), facts: device.facts.clone() })
    }

    fn device_view(&self, id: DeviceId, device: &Device) -> DeviceView {
        let site = self.site();
        let node = self.state.inventory().node(device.node);
        let node_cordon = node.and_then(|node| node.cordon.as_ref());
        let measured = self.soft.measured.device(id);
        let condition = site.condition(id, device);
        let free = site.memory_free_bytes(id, device);
        DeviceView {
            node: node.map_or_else(|| "".into(), |node| node.facts.name.clone()),
            device: device.glimpse(HOLDERS_TOLD_MAX),
            holding: device.holding.len(),
            closed: device.closed.len(),
            condition,
            memory_used_bytes: measured.and_then(|sample| Some(sample.memory.as_ref()?.used_bytes)),
            memory_foreign_bytes: site.foreign_bytes(id),
            memory_free_bytes: if condition == DeviceCondition::Available {
                free
            } else {
                free.map(|_| 0)
            },
            closed_remaining: device.closed_until.map(|until| until.since(self.now())),
            sample_age: measured.map(|sample| self.now().since(sample.at)),
            cordon: device.cordon.clone().or_else(|| node_cordon.cloned()),
            node_cordoned: device.cordon.is_none() && node_cordon.is_some(),
            owner: site.owner(id).cloned(),
            attribution_off: measured.and_then(|sample| sample.off.clone()),
        }
    }
}
