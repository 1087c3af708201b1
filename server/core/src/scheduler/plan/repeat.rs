//! A reservation that is repeated: its leases as they are, and never more of them (P16).

use std::collections::BTreeMap;

use super::super::Scheduler;
use crate::{
    id::{DeviceId, LeaseId, Name, NodeId},
    lease::Lease,
    output::Rejection,
    plan::{
        Assignment, Need, PIPELINES_MAX, Pipeline, Plan, Planned, Reservation, Unassigned, Way,
        board::load_permille,
    },
    state::REMEMBERED_AGE_MAX,
};

impl Scheduler {
    /// The same plan was reserved before: its leases as they are (P16).
    pub(super) fn reserved_before(
        &self,
        plan: &Plan,
        reserve: &Reservation,
    ) -> Result<Option<Planned>, Rejection> {
        let known = self.known_requests(reserve);
        let mut found: Vec<Option<(LeaseId, Way)>> = Vec::new();
        let mut missing = false;
        for pipeline in &plan.pipelines {
            let Some(need) = &pipeline.need else {
                found.push(None);
                continue;
            };
            let earlier = self.earlier_of(pipeline, need)?;
            missing = missing || earlier.is_none();
            found.push(earlier);
        }
        let count = found.iter().flatten().count();
        let other = known.iter().find(|id| !found.iter().flatten().any(|(it, _)| it == *id));
        // A lease that ended is forgotten after a while. Before that, one that is not found was never of this plan.
        let young = known.first().filter(|id| {
            let since = self.state.lease(**id).map(|lease| self.now().since(lease.requested_at));
            since.is_some_and(|since| since <= REMEMBERED_AGE_MAX)
        });
        if let Some(lease) = other.or(young.filter(|_| missing)) {
            return Err(Rejection::RequestIdReused { lease: *lease });
        }
        Ok((count > 0).then(|| self.as_reserved(plan, found)))
    }

    /// The leases that the request ids of a reservation name, whichever pipelines they are of.
    fn known_requests(&self, reserve: &Reservation) -> Vec<LeaseId> {
        let Some(service) = self.state.services().get(&reserve.holder.service) else {
            return Vec::new();
        };
        let first = Name::new(&format!("{}/", reserve.request_id));
        let named = service.requests.range(first.clone()..);
        let named = named.take_while(|(id, _)| id.as_str().starts_with(first.as_str()));
        let known = |lease: &&Lease| {
            let young = lease.ended_at.is_none_or(|at| self.now().since(at) <= REMEMBERED_AGE_MAX);
            young && lease.request.holder == reserve.holder
        };
        let leases = named.filter_map(|(_, id)| self.state.lease(*id)).filter(known);
        // One more than a plan has pipelines is one too many already.
        leases.take(PIPELINES_MAX.saturating_add(1)).map(|lease| lease.id).collect()
    }

    fn earlier_of(
        &self,
        pipeline: &Pipeline,
        need: &Need,
    ) -> Result<Option<(LeaseId, Way)>, Rejection> {
        let Some(Way { ask, .. }) = need.first_way() else { return Ok(None) };
        let Some(request) = pipeline.request(ask) else { return Ok(None) };
        let named = self.state.services().get(&request.holder.service);
        let named = named.and_then(|it| it.requests.get(pipeline.request_id()).copied());
        let Some(lease) = named.and_then(|id| self.state.lease(id)) else { return Ok(None) };
        // With as many devices as it was reserved with: what was free decided that.
        let way = need.way(lease.request.ask.devices);
        let way = way.ok_or(Rejection::RequestIdReused { lease: lease.id })?;
        let Some(request) = pipeline.request(way.ask) else { return Ok(None) };
        Ok(self.earlier(&request)?.map(|id| (id, way)))
    }

    /// Devices are told of leases that hold them; a pipeline whose lease holds none any more says why.
    fn as_reserved(&self, plan: &Plan, found: Vec<Option<(LeaseId, Way)>>) -> Planned {
        let site = self.site();
        let mut pipelines: BTreeMap<(NodeId, DeviceId), u32> = BTreeMap::new();
        let mut assignments = Vec::new();
        for (pipeline, found) in plan.pipelines.iter().zip(found) {
            let lease = found.as_ref().and_then(|(id, _)| self.state.lease(*id));
            let Some((lease, (_, way))) = lease.zip(found) else {
                let forgotten = pipeline.need.as_ref().map(|_| over("its lease ended long ago"));
                assignments.push(Assignment { unassigned: forgotten, ..Assignment::default() });
                continue;
            };
            let view = Some(Box::new(self.lease_view_of(lease.id)));
            if !lease.state.holds() {
                let live = lease.state.live();
                let why = if live { "its lease holds no device now" } else { "its lease is over" };
                let unassigned = Some(over(why));
                let affinity_key = pipeline.affinity_key().cloned();
                let assignment =
                    Assignment { unassigned, lease: view, affinity_key, ..Assignment::default() };
                assignments.push(assignment);
                continue;
            }
            let placed = lease.devices.iter().map(|id| (site.inventory.device(*id), *id));
            for (device, id) in placed.filter_map(|(device, id)| Some((device?, id))) {
                let entry = pipelines.entry((device.node, id)).or_default();
                *entry = entry.saturating_add(1);
            }
            let mut assignment = self.assignment(pipeline, &way, &lease.devices);
            assignment.lease = view;
            assignments.push(assignment);
        }
        let load = |((_, id), pipelines): ((NodeId, DeviceId), u32)| {
            // The plan is there already: both figures are those of now.
            let now = load_permille(&site, id, site.inventory.device(id)?);
            self.load((id, now, now, pipelines))
        };
        let loads = pipelines.into_iter().filter_map(load).collect();
        let complete = assignments.iter().all(|it| it.unassigned.is_none());
        Planned { assignments, loads, complete, reserved: true }
    }
}

fn over(reason: &str) -> Unassigned {
    Unassigned { reason: reason.to_owned(), never: false }
}
