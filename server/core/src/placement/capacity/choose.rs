//! Choosing among scored nodes: the best, the preferred device before it, and devices of several nodes where no single
//! one can serve a request. What is chosen is always looked at anew.

use super::{Capacity, NONE, Scored, Scores, Search, may, verdict};
use crate::{
    id::{DeviceId, NodeId},
    placement::{Site, exclusion, node::NodeFree, score::Slate},
    request::PlacementPolicy,
};

/// What a choice is made from.
#[derive(Clone, Copy)]
pub(super) struct Look<'a> {
    pub(super) site: &'a Site<'a>,
    pub(super) search: &'a Search<'a>,
    pub(super) scores: &'a Scores,
}

/// Where a request goes.
pub(super) struct Chosen {
    /// `None`: devices of several nodes.
    pub(super) node: Option<NodeId>,
    pub(super) devices: Vec<DeviceId>,
    /// How many devices would do, each by itself.
    pub(super) fitting: usize,
}

/// Which devices a pass over the nodes may use, when round-robin comes by a node twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Pass {
    /// Those after the one granted last.
    After(DeviceId),
    All,
}

impl Pass {
    fn may(self, device: DeviceId) -> bool {
        match self {
            Self::After(last) => device > last,
            Self::All => true,
        }
    }
}

impl Capacity {
    /// The preferred device, else the best node, else devices of several nodes.
    pub(super) fn choose(&mut self, look: Look<'_>, slate: &mut Slate) -> Option<Chosen> {
        let (best, fitting) = self.best(look, slate);
        let on_one = self
            .preferred(look, slate)
            .or_else(|| best.and_then(|(node, pass)| self.chosen(look, slate, node, pass)));
        if let Some((node, devices)) = on_one {
            return Some(Chosen { node: Some(node), devices, fitting });
        }
        let demand = look.search.demand;
        if demand.ask.devices <= 1 || demand.constraints.same_node {
            return None;
        }
        let devices = self.gather(look, slate)?;
        Some(Chosen { node: None, devices, fitting })
    }

    /// The node that does best, and how many devices of all would do.
    fn best(&mut self, look: Look<'_>, slate: &mut Slate) -> (Option<(NodeId, Pass)>, usize) {
        let memory = look.search.demand.constraints.host_memory_bytes;
        let robin = look.search.policy == PlacementPolicy::RoundRobin;
        let last = self.last.filter(|_| robin);
        let (mut best, mut fitting) = (None::<(i32, (bool, u32))>, 0usize);
        for index in 0..self.nodes.len() {
            let id = NodeId(u32::try_from(index).unwrap_or(u32::MAX));
            let (Some(known), Some(scored)) = (self.nodes.get(index), look.scores.nodes.get(index))
            else {
                break;
            };
            let scored = if look.search.apart.has(id) {
                let free = self.look_apart(look, id, slate);
                let verdict = verdict(
                    look.site,
                    look.search,
                    &look.scores.wanted,
                    &self.scale,
                    (id, &free),
                    slate,
                );
                if !free.has_host_memory(memory) {
                    continue;
                }
                Scored::of(0, verdict)
            } else if known.free.has_host_memory(memory) {
                *scored
            } else {
                continue;
            };
            fitting = fitting.saturating_add(scored.fitting as usize);
            // Round-robin starts behind the node of the last grant, and comes back to it at the end.
            let turn = (last.is_some_and(|(node, _)| id <= node), id.0);
            if scored.score != NONE
                && best.is_none_or(|(most, first)| {
                    scored.score > most || (scored.score == most && turn < first)
                })
            {
                best = Some((scored.score, turn));
            }
        }
        let best = best.map(|(_, (_, id))| (NodeId(id), Pass::All));
        let Some((node, device)) = last else { return (best, fitting) };
        let rest = self.chosen(look, slate, node, Pass::After(device));
        (rest.map(|_| (node, Pass::After(device))).or(best), fitting)
    }

    /// A node as it truly is for this look.search.
    fn look_apart(&mut self, look: Look<'_>, id: NodeId, slate: &mut Slate) -> NodeFree {
        let kept = look.search.host_kept.get(&id).copied().unwrap_or_default();
        let mut free = NodeFree::of(look.site, id, &mut self.kinds, kept, look.search.open);
        free.unusable = slate.unusable(&self.scale.weights, &free);
        free
    }

    /// The devices of a node that serve the request, looked at anew: what is remembered never decides alone.
    fn chosen(
        &mut self,
        look: Look<'_>,
        slate: &mut Slate,
        id: NodeId,
        pass: Pass,
    ) -> Option<(NodeId, Vec<DeviceId>)> {
        let free = self.look_apart(look, id, slate);
        if !look.search.apart.has(id) {
            self.mistaken |= self.nodes.get(id.0 as usize).is_none_or(|known| known.free != free);
        }
        let node = look.site.inventory.node(id)?;
        if !free.has_host_memory(look.search.demand.constraints.host_memory_bytes)
            || exclusion::of_node(node, look.search.demand).is_some()
        {
            return None;
        }
        let may = may(look.site, look.search);
        let may = |device: DeviceId| pass.may(device) && may(device);
        let found = slate.score(&look.scores.wanted, &self.scale, &free, &may, None).score;
        found.map(|_| (id, slate.chosen().collect()))
    }
}

impl Capacity {
    /// The preferred device, with others of its node where more are wanted, before any score.
    fn preferred(&mut self, look: Look<'_>, slate: &mut Slate) -> Option<(NodeId, Vec<DeviceId>)> {
        let wanted = look.search.demand.constraints.preferred_device.as_ref()?;
        let device = look.site.inventory.device_with(wanted.as_str())?;
        let id = look.site.inventory.device(device)?.node;
        let free = self.look_apart(look, id, slate);
        if !free.has_host_memory(look.search.demand.constraints.host_memory_bytes)
            || exclusion::of_node(look.site.inventory.node(id)?, look.search.demand).is_some()
        {
            return None;
        }
        let may = may(look.site, look.search);
        slate.score(&look.scores.wanted, &self.scale, &free, &may, Some(device)).score?;
        let devices: Vec<DeviceId> = slate.chosen().collect();
        devices.contains(&device).then_some((id, devices))
    }

    /// Devices of as few nodes as may be, for a request that no single node can serve.
    fn gather(&mut self, look: Look<'_>, slate: &mut Slate) -> Option<Vec<DeviceId>> {
        let wanted = look.search.demand.ask.devices as usize;
        let mut nodes: Vec<(usize, NodeId)> = Vec::new();
        for (index, scored) in look.scores.nodes.iter().enumerate() {
            let id = NodeId(u32::try_from(index).unwrap_or(u32::MAX));
            if look.search.apart.has(id) {
                let devices = self.fitting(look, slate, id);
                nodes.push((devices.len(), id));
            } else {
                nodes.push((scored.fitting as usize, id));
            }
        }
        nodes.retain(|(fitting, _)| *fitting > 0);
        let preferred = look.search.demand.constraints.preferred_device.as_ref();
        let preferred = preferred.and_then(|uuid| look.site.inventory.device_with(uuid.as_str()));
        let home = preferred.and_then(|id| look.site.inventory.device(id)).map(|it| it.node);
        nodes.sort_unstable_by_key(|(fitting, id)| {
            (Some(*id) != home, std::cmp::Reverse(*fitting), *id)
        });
        let mut devices = Vec::with_capacity(wanted);
        for (_, id) in nodes {
            let missing = wanted.saturating_sub(devices.len());
            if missing == 0 {
                break;
            }
            let here = self.fitting(look, slate, id);
            devices.extend(here.into_iter().take(missing));
        }
        (devices.len() == wanted).then_some(devices)
    }

    /// All devices of a node that would do, each by itself, in the policy's order; the node cannot serve all of it.
    fn fitting(&mut self, look: Look<'_>, slate: &mut Slate, id: NodeId) -> Vec<DeviceId> {
        let free = self.look_apart(look, id, slate);
        let excluded = look
            .site
            .inventory
            .node(id)
            .is_none_or(|node| exclusion::of_node(node, look.search.demand).is_some());
        if excluded || !free.has_host_memory(look.search.demand.constraints.host_memory_bytes) {
            return Vec::new();
        }
        let preferred = look.search.demand.constraints.preferred_device.as_ref();
        let preferred = preferred.and_then(|uuid| look.site.inventory.device_with(uuid.as_str()));
        slate.score(
            &look.scores.wanted,
            &self.scale,
            &free,
            &may(look.site, look.search),
            preferred,
        );
        slate.chosen().collect()
    }
}
