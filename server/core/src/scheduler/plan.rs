//! Plans: one assignment for many pipelines, and its reservation, all of it or nothing.
//!
//! Making a plan changes nothing. A reservation stands as a request that may not wait: it takes what is free and kept for
//! nobody, and preempts nobody. Each pipeline that takes devices gets a lease of its own, whose request id and affinity
//! key end in the pipeline's name, so that it is renewed, released and taken up again like any other (P16).

use std::collections::{BTreeMap, BTreeSet};

use super::{Scheduler, explain::count};
use crate::{
    affinity::Near,
    event::Event,
    id::{DeviceId, Holder, LeaseId, Name},
    inventory::Device,
    lease::{Basis, Lease, Why},
    order::{Class, OrderKey, Rank, Standing},
    output::{Exclusion, Output, Rejection},
    placement::Site,
    plan::{
        Assignment, DEVICE_MEMORY_TYPES, HOST_MEMORY_TYPES, Load, Need, Pipeline, Plan, Planned,
        Reservation, Unassigned, Way,
        board::{Board, TooCostly, Wanted, load_permille, serves_all},
        weight,
    },
    request::{Ask, InvalidField, Priority, Request},
    state::REMEMBERED_AGE_MAX,
};

/// Why a pipeline has no device is counted anew for so many that differ: a look at every device each, 16 × 0.6 ms.
const REASONS_MAX: usize = 16;
/// So many ways to serve a pipeline are looked at for its reason.
const WAYS_EXPLAINED_MAX: usize = 8;
const TOO_COSTLY: &str = "the plan needs more looks at devices than one may take; ask for it in parts, or with fewer \
                          different constraints";
const ALIKE: &str = "nothing that is free fits it, as with others of the plan that are explained";

/// Where a pipeline was put.
struct Put {
    request: Request,
    way: Way,
    devices: Vec<DeviceId>,
}

/// What became of each pipeline, and of the devices.
struct Draft {
    puts: Vec<Option<Put>>,
    unassigned: BTreeMap<usize, Unassigned>,
    used: Vec<(DeviceId, u64, u64, u32)>,
}

impl Scheduler {
    /// Where the pipelines of a plan would go now. Changes nothing.
    ///
    /// # Errors
    /// A memory type that no known device serves, or no node has reported its devices yet.
    pub fn plan(&self, plan: &Plan) -> Result<Planned, Rejection> {
        self.memory_types_are_known(plan)?;
        let nobody = Holder { service: Name::new(""), name: Name::new("") };
        let draft =
            self.draft(plan, self.last_key(Priority::Background, &nobody.service), &nobody)?;
        Ok(self.planned(plan, &draft))
    }

    /// Grants a plan, all of it or nothing.
    pub(super) fn reserve(&mut self, plan: &Plan, out: &mut Output) -> Result<Planned, Rejection> {
        let Some(reserve) = &plan.reserve else { return self.plan(plan) };
        self.memory_types_are_known(plan)?;
        if let Some(before) = self.reserved_before(plan, reserve)? {
            return Ok(before);
        }
        let key = self.last_key(reserve.priority, &reserve.holder.service);
        let draft = self.draft(plan, key, &reserve.holder)?;
        if let Some((pipeline, why)) = draft.unassigned.first_key_value() {
            let name = plan.pipelines.get(*pipeline).map(|it| it.name.clone());
            return Err(Rejection::PlanIncomplete {
                pipeline: *pipeline,
                name: name.unwrap_or_else(|| Name::new("")),
                unassigned: draft.unassigned.len(),
                why: why.clone(),
            });
        }
        self.may_be_granted_now(&draft, key, &reserve.holder)?;
        let mut planned = self.planned(plan, &draft);
        for (put, assignment) in draft.puts.into_iter().zip(&mut planned.assignments) {
            let Some(put) = put else { continue };
            let lease = self.grant_planned(put, key.class(), out);
            self.quota_moved(&reserve.holder.service);
            assignment.lease = Some(Box::new(self.lease_view_of(lease)));
        }
        planned.reserved = true;
        Ok(planned)
    }

    fn grant_planned(&mut self, put: Put, class: Class, out: &mut Output) -> LeaseId {
        let lease = LeaseId(self.state.last_lease.0.saturating_add(1));
        let site = self.site();
        let mine = |id: &DeviceId| site.owner(*id) == Some(&put.request.holder.service);
        let class = if put.devices.iter().all(mine) { Class::Owner } else { class };
        let fitting = u32::try_from(put.devices.len()).unwrap_or(u32::MAX);
        self.emit(Event::Requested { lease, request: put.request.into() }, out);
        let basis = Basis { fitting, why: Why::Planned };
        self.grant(lease, put.devices.into(), (class, basis), out);
        lease
    }

    /// The place in the order of a request that comes now.
    fn last_key(&self, priority: Priority, service: &Name) -> OrderKey {
        let lease = LeaseId(self.state.last_lease.0.saturating_add(1));
        let standing = Standing { lease, priority, resumed: false, since: self.now() };
        let rank = Rank::new(standing, self.now(), self.policy.aging_step);
        rank.at(self.shares().of(service))
    }

    /// Each lease may stand, all of them together may, and nobody goes before them: those that may still come back (P4),
    /// and what the batch before left undone.
    fn may_be_granted_now(
        &self,
        draft: &Draft,
        key: OrderKey,
        holder: &Holder,
    ) -> Result<(), Rejection> {
        let (puts, site): (Vec<&Put>, _) = (draft.puts.iter().flatten().collect(), self.site());
        for put in &puts {
            self.admissible(&put.request)?;
        }
        let max = self.policy.live_max;
        if self.state.tally().live().saturating_add(puts.len()) > max {
            return Err(Rejection::LeasesFull { max });
        }
        let (service, rank) = (&holder.service, key.rank());
        let held_back = puts.first().and_then(|put| self.held_back(&put.request, rank));
        let held_back =
            held_back.or_else(|| self.quota_for_many(service, rank, sums(&site, &puts)));
        if let Some(reached) = held_back {
            return Err(Rejection::QuotaReached(Box::new(reached)));
        }
        if self.has_rest() || self.soft.queue.awaits_before(key, service) {
            return Err(Rejection::NoCapacity);
        }
        Ok(())
    }

    /// The same plan was reserved before: its leases as they are (P16).
    fn reserved_before(
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
        if let Some(lease) = other.or_else(|| known.first().filter(|_| missing)) {
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
        leases.take(crate::plan::PIPELINES_MAX.saturating_add(1)).map(|lease| lease.id).collect()
    }

    fn earlier_of(
        &self,
        pipeline: &Pipeline,
        need: &Need,
    ) -> Result<Option<(LeaseId, Way)>, Rejection> {
        let Some(Way { ask, .. }) = need.ways().next() else { return Ok(None) };
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

    fn as_reserved(&self, plan: &Plan, found: Vec<Option<(LeaseId, Way)>>) -> Planned {
        let mut pipelines: BTreeMap<DeviceId, u32> = BTreeMap::new();
        let mut assignments = Vec::new();
        for (pipeline, found) in plan.pipelines.iter().zip(found) {
            let lease = found.as_ref().and_then(|(id, _)| self.state.lease(*id));
            let Some((lease, (_, way))) = lease.zip(found) else {
                assignments.push(Assignment::default());
                continue;
            };
            for id in lease.devices.iter().filter(|_| lease.state.holds()) {
                let entry = pipelines.entry(*id).or_default();
                *entry = entry.saturating_add(1);
            }
            let mut assignment = self.assignment(pipeline, &way, &lease.devices);
            assignment.lease = Some(Box::new(self.lease_view_of(lease.id)));
            assignments.push(assignment);
        }
        let site = self.site();
        let load = |(id, pipelines): (DeviceId, u32)| {
            let now = load_permille(&site, id, site.inventory.device(id)?);
            self.load((id, now, now, pipelines))
        };
        let loads = pipelines.into_iter().filter_map(load).collect();
        Planned { assignments, loads, complete: true, reserved: true }
    }

    /// Whether every memory type lies in host memory, or on devices that are known.
    fn memory_types_are_known(&self, plan: &Plan) -> Result<(), Rejection> {
        let unusual = plan.pipelines.iter().flat_map(|pipeline| &pipeline.unusual);
        let mut served: Vec<Name> = Vec::new();
        for (field, memory_type) in unusual {
            if served.contains(memory_type) {
                continue;
            }
            let mut devices = self.state.inventory().devices();
            if !devices.any(|(_, device)| device.facts.serves(memory_type)) {
                let types = DEVICE_MEMORY_TYPES.iter().chain(&HOST_MEMORY_TYPES);
                let types: Vec<&str> = types.copied().filter(|name| !name.is_empty()).collect();
                let bound =
                    format!("one of {}, empty, or what a known device serves", types.join(", "));
                let invalid = InvalidField::new(field.clone(), memory_type, bound);
                return Err(Rejection::InvalidField(invalid));
            }
            served.push(memory_type.clone());
        }
        Ok(())
    }

    /// Puts the pipelines on the board, those that need most first.
    fn draft(&self, plan: &Plan, key: OrderKey, holder: &Holder) -> Result<Draft, Rejection> {
        let needs = plan.pipelines.iter().enumerate();
        let mut order: Vec<(usize, &Pipeline, &Need, Way)> = needs
            .filter_map(|(index, it)| {
                Some((index, it, it.need.as_ref()?, it.need.as_ref()?.ways().next()?))
            })
            .collect();
        if !order.is_empty() && self.state.inventory().nodes().len() == 0 {
            return Err(Rejection::InventoryUnknown);
        }
        order.sort_by_key(|(index, _, _, way)| {
            let (whole, bytes, slots) = weight(way.ask.share);
            let devices = u64::from(way.ask.devices);
            let size =
                (whole, bytes.saturating_mul(devices), u64::from(slots).saturating_mul(devices));
            (std::cmp::Reverse(size), std::cmp::Reverse(devices), *index)
        });
        let site = self.site();
        let mut board = Board::new(&site, self.host_kept(key, &holder.service, None));
        let mut puts: Vec<Option<Put>> = plan.pipelines.iter().map(|_| None).collect();
        let mut left: Vec<(usize, &Pipeline, &Need)> = Vec::new();
        // What did not fit once does not fit later: room only shrinks.
        let mut failed = BTreeSet::new();
        let mut too_costly = false;
        for (index, pipeline, need, _) in order {
            let put = if too_costly {
                Ok(None)
            } else {
                self.put(pipeline, need, (&mut board, key.rank()), &mut failed)
            };
            too_costly = too_costly || put.is_err();
            match put {
                Ok(Some(put)) => {
                    if let Some(slot) = puts.get_mut(index) {
                        *slot = Some(put);
                    }
                }
                _ => left.push((index, pipeline, need)),
            }
        }
        let unassigned = self.reasons(&left, &mut board, too_costly);
        Ok(Draft { puts, unassigned, used: board.used() })
    }

    fn put(
        &self,
        pipeline: &Pipeline,
        need: &Need,
        (board, rank): (&mut Board<'_>, Rank),
        failed: &mut BTreeSet<(Ask, usize)>,
    ) -> Result<Option<Put>, TooCostly> {
        for way in need.ways() {
            let Some(request) = pipeline.request(way.ask) else { continue };
            let near = Near::of(&self.state, &request);
            let frameworks = &pipeline.frameworks;
            let shape = board.shape(&request, frameworks);
            if near == Near::Anywhere && failed.contains(&(request.ask, shape)) {
                continue;
            }
            let on_one = request.ask.devices == 1 && !request.constraints.same_node;
            let limits = self.limits(&request, rank);
            let share = request.ask.share;
            let allowed = |device: &Device| limits.is_none_or(|it| it.allow(device, share));
            let allowed = &allowed;
            let wanted = Wanted {
                allowed,
                request: &request,
                way: &way,
                frameworks,
                near: &near,
                on_one,
                shape,
            };
            if let Some(devices) = board.find(&wanted)? {
                board.take(&request, &devices);
                return Ok(Some(Put { request, way, devices }));
            }
            if near == Near::Anywhere {
                failed.insert((request.ask, shape));
            }
        }
        Ok(None)
    }

    /// Why pipelines have no devices.
    fn reasons(
        &self,
        left: &[(usize, &Pipeline, &Need)],
        board: &mut Board<'_>,
        too_costly: bool,
    ) -> BTreeMap<usize, Unassigned> {
        let mut told: BTreeMap<(Ask, usize), Unassigned> = BTreeMap::new();
        let mut reasons = BTreeMap::new();
        for (index, pipeline, need) in left {
            let Some(request) = self.most_likely(pipeline, need) else { continue };
            let alike = (request.ask, board.shape(&request, &pipeline.frameworks));
            let known = told.get(&alike).cloned();
            let why = known.unwrap_or_else(|| {
                if too_costly {
                    return Unassigned { reason: TOO_COSTLY.to_owned(), never: false };
                }
                if told.len() >= REASONS_MAX {
                    return Unassigned { reason: ALIKE.to_owned(), never: false };
                }
                let why = self.why_unassigned(&request, pipeline, board);
                told.insert(alike, why.clone());
                why
            });
            reasons.insert(*index, why);
        }
        reasons
    }

    /// The first way to serve a pipeline that some known node could serve when empty; else the first.
    fn most_likely(&self, pipeline: &Pipeline, need: &Need) -> Option<Request> {
        let ways = need.ways().take(WAYS_EXPLAINED_MAX);
        let requests: Vec<Request> = ways.filter_map(|way| pipeline.request(way.ask)).collect();
        let site = self.site();
        let several = requests.len() > 1;
        let possible = requests.iter().find(|it| several && site.unsatisfiable(it).is_none());
        possible.or(requests.first()).cloned()
    }

    fn why_unassigned(
        &self,
        request: &Request,
        pipeline: &Pipeline,
        board: &Board<'_>,
    ) -> Unassigned {
        let site = self.site();
        let wanted = request.ask.devices;
        if let Some(report) = site.unsatisfiable(request) {
            let reason = format!("no known node could satisfy it even when empty: {report}");
            return Unassigned { reason, never: true };
        }
        let near = Near::of(&self.state, request);
        let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
        let (mut known, mut suitable) = (0usize, 0usize);
        for (id, device) in self.state.inventory().devices() {
            known = known.saturating_add(1);
            if let Some(exclusion) = site.exclusion(device, request) {
                count(&mut counts, exclusion.field());
            } else if !serves_all(device, &pipeline.frameworks) {
                count(&mut counts, Exclusion::Framework.field());
            } else {
                suitable = suitable.saturating_add(1);
                let what = self.hindrance((id, device), (LeaseId(0), request), &near);
                let planned = board.is_taken_by_plan(id).then_some("taken by others of the plan");
                let what = what.or(planned);
                count(&mut counts, what.unwrap_or("free, but too little with others of the plan"));
            }
        }
        let devices = if wanted == 1 { "device" } else { "devices" };
        let mut reason =
            format!("{wanted} {devices} wanted, {suitable} of {known} known would do when empty");
        for (what, count) in counts {
            reason.push_str(&format!("; {what}: {count}"));
        }
        Unassigned { reason, never: suitable < wanted as usize }
    }

    fn planned(&self, plan: &Plan, draft: &Draft) -> Planned {
        let assignment = |(index, pipeline): (usize, &Pipeline)| {
            let put = draft.puts.get(index).and_then(Option::as_ref);
            let assignment = put.map(|put| self.assignment(pipeline, &put.way, &put.devices));
            let unassigned = draft.unassigned.get(&index).cloned();
            Assignment { unassigned, ..assignment.unwrap_or_default() }
        };
        Planned {
            assignments: plan.pipelines.iter().enumerate().map(assignment).collect(),
            loads: draft.used.iter().filter_map(|used| self.load(*used)).collect(),
            complete: draft.unassigned.is_empty(),
            reserved: false,
        }
    }

    fn assignment(&self, pipeline: &Pipeline, way: &Way, devices: &[DeviceId]) -> Assignment {
        Assignment {
            devices: devices.iter().filter_map(|id| self.device_name(*id)).collect(),
            share: Some(way.ask.share),
            steps: way.steps.clone(),
            affinity_key: pipeline.affinity_key().cloned(),
            ..Assignment::default()
        }
    }

    fn load(&self, (id, before, after, pipelines): (DeviceId, u64, u64, u32)) -> Option<Load> {
        Some(Load {
            device: self.device_name(id)?,
            before_permille: before,
            after_permille: after,
            pipelines,
        })
    }
}

/// Leases, devices and bytes that a plan takes, as quotas count them.
fn sums(site: &Site<'_>, puts: &[&Put]) -> [u64; 3] {
    let devices = puts.iter().map(|put| put.devices.len() as u64).fold(0, u64::saturating_add);
    let bytes = puts.iter().flat_map(|put| {
        let known = put.devices.iter().filter_map(|id| site.inventory.device(*id));
        known.map(|device| device.facts.counted_bytes(put.request.ask.share))
    });
    [puts.len() as u64, devices, bytes.fold(0, u64::saturating_add)]
}
