//! Why pipelines of a plan have no device: counted by what is in the way, for so many that differ.

use std::collections::BTreeMap;

use super::{
    super::{Scheduler, explain::count},
    Alike, Left, Wish,
};
use crate::{
    affinity::Near,
    id::{LeaseId, NodeId},
    output::Exclusion,
    plan::{
        Unassigned, Way,
        board::{Board, is_large_enough, serves_all},
    },
    request::Request,
};

/// Why a pipeline has no device is counted anew for so many that differ: with [`WAYS_EXPLAINED_MAX`] four looks at every
/// device each, 16 × 4 × 0.6 ms.
const REASONS_MAX: usize = 16;
/// So many ways to serve a pipeline are looked at for its reason.
const WAYS_EXPLAINED_MAX: usize = 3;
const TOO_COSTLY: &str = "the plan needs more looks at devices than one may take; ask for it in parts, or with fewer \
                          different constraints";
const ALIKE: &str = "nothing that is free fits it, as with others of the plan that are explained";

impl Scheduler {
    /// Why pipelines have no devices.
    pub(super) fn reasons(
        &self,
        left: &[Left<'_>],
        board: &mut Board<'_>,
    ) -> BTreeMap<usize, Unassigned> {
        let mut told: BTreeMap<Alike, Unassigned> = BTreeMap::new();
        let mut reasons = BTreeMap::new();
        let in_short = |reason: &str| Unassigned { reason: reason.to_owned(), never: false };
        for Left { wish, too_costly } in left {
            let shape = board.shape(&wish.request, &wish.pipeline.frameworks);
            let alike = (wish.way.ask, wish.way.floor, shape);
            let why = match told.get(&alike) {
                Some(known) => known.clone(),
                None if *too_costly => in_short(TOO_COSTLY),
                None if told.len() >= REASONS_MAX => in_short(ALIKE),
                None => {
                    let (request, way) = self.most_likely(wish, board.devices_of_node());
                    let why = self.why_unassigned((&request, &way), wish, board);
                    told.insert(alike, why.clone());
                    why
                }
            };
            reasons.insert(wish.index, why);
        }
        reasons
    }

    /// The first way to serve a pipeline that some known node could serve when empty; else the first.
    fn most_likely(&self, wish: &Wish<'_>, devices_of_node: u32) -> (Request, Way) {
        let (counts, site) = (wish.need.counts(devices_of_node), self.site());
        let mut request = wish.request.clone();
        if counts.start() < counts.end() {
            for way in counts.take(WAYS_EXPLAINED_MAX).filter_map(|it| wish.need.way(it)) {
                if request.set_ask(way.ask) && site.unsatisfiable(&request).is_none() {
                    return (request, way);
                }
            }
        }
        (wish.request.clone(), wish.way.clone())
    }

    fn why_unassigned(
        &self,
        (request, way): (&Request, &Way),
        wish: &Wish<'_>,
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
        let mut suitable: BTreeMap<NodeId, usize> = BTreeMap::new();
        let mut known = 0usize;
        for (id, device) in self.state.inventory().devices() {
            known = known.saturating_add(1);
            if let Some(exclusion) = site.exclusion(device, request) {
                count(&mut counts, exclusion.field());
            } else if !serves_all(device, &wish.pipeline.frameworks) {
                count(&mut counts, Exclusion::Framework.field());
            } else if !is_large_enough(device, way.floor) {
                count(&mut counts, "too small for the steps that do not take it whole");
            } else {
                let here = suitable.entry(device.node).or_default();
                *here = here.saturating_add(1);
                let what = self.hindrance((id, device), (LeaseId(0), request), &near);
                let planned = board.is_taken_by_plan(id).then_some("taken by others of the plan");
                let what = what.or(planned);
                count(&mut counts, what.unwrap_or("free, but too little with others of the plan"));
            }
        }
        let devices = if wanted == 1 { "device" } else { "devices" };
        let all: usize = suitable.values().sum();
        let mut reason =
            format!("{wanted} {devices} wanted, {all} of {known} known would do when empty");
        for (what, count) in counts {
            reason.push_str(&format!("; {what}: {count}"));
        }
        let most = if request.constraints.same_node {
            suitable.into_values().max().unwrap_or(0)
        } else {
            all
        };
        Unassigned { reason, never: most < wanted as usize }
    }
}
