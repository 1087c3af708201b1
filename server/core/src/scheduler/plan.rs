//! Plans: one assignment for many pipelines, and its reservation, all of it or nothing.
//!
//! Making a plan changes nothing. A reservation stands as a request that may not wait: it takes what is free and kept for
//! nobody, and preempts nobody. Each pipeline that takes devices gets a lease of its own, whose request id and affinity
//! key end in the pipeline's name, so that it is renewed, released and taken up again like any other (P16).

mod reasons;
mod repeat;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::Scheduler;
use crate::{
    affinity::Near,
    event::Event,
    id::{DeviceId, Holder, LeaseId, Name},
    inventory::Device,
    lease::{Basis, Why},
    order::{Class, OrderKey, Rank, Standing},
    output::{Output, Rejection},
    placement::Site,
    plan::{
        Assignment, DEVICE_MEMORY_TYPES, HOST_MEMORY_TYPES, Load, Need, Pipeline, Plan, Planned,
        Unassigned, Way,
        board::{Board, TooCostly, Wanted},
        weight,
    },
    request::{Ask, InvalidField, Priority, Request, Share},
};

/// So many asks that differ are held against the limits of a service before anything is placed, each by a look at every
/// device at the most: 32 × 0.6 ms. What they would find of others is found when it is granted.
const ASKS_CHECKED_MAX: usize = 32;

/// What pipelines have in common that fit in the same places: how much they take, what a whole device has to have at
/// least, and the number of their constraints.
type Alike = (Ask, Share, usize);

/// A pipeline that takes devices.
struct Wish<'a> {
    /// Its place in the plan.
    index: usize,
    pipeline: &'a Pipeline,
    need: &'a Need,
    /// With the fewest devices.
    way: Way,
    request: Request,
}

/// One that found no place.
struct Left<'a> {
    wish: Wish<'a>,
    too_costly: bool,
}

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

impl<'a> Wish<'a> {
    fn of(index: usize, pipeline: &'a Pipeline) -> Option<Self> {
        let need = pipeline.need.as_ref()?;
        let way = need.first_way()?;
        Some(Self { index, pipeline, need, request: pipeline.request(way.ask)?, way })
    }

    /// Those that need most go first.
    fn order(&self) -> impl Ord + use<> {
        let (whole, bytes, slots) = weight(self.way.ask.share);
        let devices = u64::from(self.way.ask.devices);
        let size = (whole, bytes.saturating_mul(devices), u64::from(slots).saturating_mul(devices));
        (Reverse(size), Reverse(devices), self.index)
    }
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
        if let Some(before) = self.reserved_before(plan, reserve)? {
            return Ok(before);
        }
        self.memory_types_are_known(plan)?;
        self.allowed_of_all(plan)?;
        let key = self.last_key(reserve.priority, &reserve.holder.service);
        let draft = self.draft(plan, key, &reserve.holder)?;
        if let Some((pipeline, why)) = draft.unassigned.first_key_value() {
            let named = plan.pipelines.get(*pipeline);
            let wish = named.and_then(|it| Wish::of(*pipeline, it));
            if let Some(reached) = wish.and_then(|it| self.held_back(&it.request, key.rank())) {
                return Err(Rejection::QuotaReached(Box::new(reached)));
            }
            let name = named.map(|it| it.name.clone());
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

    /// Whether its service may have what each pipeline asks, as it is configured; a pipeline is named where it may not.
    fn allowed_of_all(&self, plan: &Plan) -> Result<(), Rejection> {
        let mut asked: BTreeSet<Ask> = BTreeSet::new();
        for wish in plan.pipelines.iter().enumerate().filter_map(|(at, it)| Wish::of(at, it)) {
            if asked.len() >= ASKS_CHECKED_MAX {
                break;
            }
            if !asked.insert(wish.way.ask) {
                continue;
            }
            self.allowed_at_all(&wish.request).map_err(|rejection| match rejection {
                Rejection::InvalidField(invalid) => Rejection::InvalidField(
                    invalid.within(&format!("pipelines[{}].steps", wish.index)),
                ),
                other => other,
            })?;
        }
        Ok(())
    }

    /// Whether every memory type lies in host memory, or on devices that are known.
    fn memory_types_are_known(&self, plan: &Plan) -> Result<(), Rejection> {
        if self.state.inventory().nodes().len() == 0 {
            // Nothing is known yet, rather than not known: the draft says so.
            return Ok(());
        }
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
        let mut order: Vec<Wish<'_>> =
            needs.filter_map(|(index, it)| Wish::of(index, it)).collect();
        if !order.is_empty() && self.state.inventory().nodes().len() == 0 {
            return Err(Rejection::InventoryUnknown);
        }
        order.sort_by_key(Wish::order);
        let (site, rank) = (self.site(), key.rank());
        let owned = self.owned_by(&holder.service);
        let mut board = Board::new(&site, self.host_kept(key, &holder.service, None));
        let mut puts: Vec<Option<Put>> = plan.pipelines.iter().map(|_| None).collect();
        let mut left: Vec<Left<'_>> = Vec::new();
        let mut failed = BTreeSet::new();
        for wish in order {
            board.begin();
            let put = self.put(&wish, (&mut board, rank), &owned, &mut failed);
            let too_costly = put.is_err();
            match (put, puts.get_mut(wish.index)) {
                (Ok(Some(put)), Some(slot)) => *slot = Some(put),
                _ => left.push(Left { wish, too_costly }),
            }
        }
        let unassigned = self.reasons(&left, &mut board);
        Ok(Draft { puts, unassigned, used: board.used() })
    }

    /// The devices that a service owns.
    fn owned_by(&self, service: &Name) -> BTreeSet<DeviceId> {
        if !self.policy.owners.iter().any(|owner| owner.service == *service) {
            return BTreeSet::new();
        }
        let (site, devices) = (self.site(), self.state.inventory().devices());
        devices.map(|(id, _)| id).filter(|id| site.owner(*id) == Some(service)).collect()
    }

    fn put(
        &self,
        wish: &Wish<'_>,
        (board, rank): (&mut Board<'_>, Rank),
        owned: &BTreeSet<DeviceId>,
        failed: &mut BTreeSet<Alike>,
    ) -> Result<Option<Put>, TooCostly> {
        let (mut request, frameworks) = (wish.request.clone(), &wish.pipeline.frameworks);
        // Not written into the lease's request: it is the service's preference, as configured now (P16).
        let mut preferring = self.preferring(&request).unwrap_or_else(|| request.clone());
        let shape = board.shape(&preferring, frameworks);
        for devices in wish.need.counts(board.devices_of_node()) {
            board.spend(wish.need.way_cost(devices))?;
            let Some(way) = wish.need.way(devices) else { continue };
            if !request.set_ask(way.ask) || !preferring.set_ask(way.ask) {
                continue;
            }
            let near = Near::of(&self.state, &request);
            let alike = (way.ask, way.floor, shape);
            if near == Near::Anywhere && failed.contains(&alike) {
                continue;
            }
            let limits = self.limits(&request, rank);
            let allowed = |device: &Device| limits.is_none_or(|it| it.allow(device, way.ask.share));
            let wanted = Wanted {
                request: &preferring,
                way: &way,
                frameworks,
                near: &near,
                allowed: &allowed,
                owned: None,
                on_one: way.ask.devices == 1 && !request.constraints.same_node,
                shape,
            };
            let own = match owned.is_empty() {
                true => None,
                false => board.find(&Wanted { owned: Some(owned), ..wanted })?,
            };
            let found = if own.is_some() { own } else { board.find(&wanted)? };
            if let Some(devices) = found {
                board.take(&request, &devices);
                return Ok(Some(Put { request, way, devices }));
            }
            // What did not fit once does not fit later: room only shrinks.
            if near == Near::Anywhere {
                failed.insert(alike);
            }
        }
        Ok(None)
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
