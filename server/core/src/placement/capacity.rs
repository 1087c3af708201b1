//! The incremental index: what is free of every node, and how well each does for the shapes of requests that come.
//!
//! Promises: a decision looks again only at nodes that changed (an event or a sample touched them, or time made what
//! was seen of them old) and scores only these; the answer is the one that looking at everything anew would give, and
//! is checked against the true room of the chosen node before it is used. What it holds is soft and can be thrown
//! away at any time. Nodes with devices kept for somebody, and hypothetical looks, are scored by the same code and not
//! remembered.
//!
//! Bounded: see [`SHAPES_MAX`] and [`SCORES_MAX`].

mod choose;
mod verify;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use self::choose::Look;
use super::{
    Demand, HostKept, Place, Site, exclusion,
    fragmentation::Weights,
    kind::Kinds,
    mix::COUNTED_MAX,
    node::{self, NodeFree},
    score::{self, Scale, Slate, Verdict, Wanted},
    sorted,
};
use crate::{
    id::{DeviceId, NodeId},
    inventory::{Device, Inventory, NodeFacts},
    request::{Ask, Constraints, PlacementPolicy},
    time::Time,
};

/// The most shapes with remembered scores: 1,024 of some 500 bytes, 5 KiB at the worst.
const SHAPES_MAX: usize = 1_024;
/// The most scores: 4 Mi of 16 bytes are 64 MiB. With 16,384 nodes that is 256 shapes.
const SCORES_MAX: usize = 4 * 1_024 * 1_024;
/// So many kinds of devices may be remembered beside those that there are.
const KINDS_SPARE: usize = 1_024;
/// Weights are worked out anew when the mix has grown by an eighth, and by this many. The first requests of a fresh
/// coordinator count for much, and its index is cheap to fill.
const LEARNED_MIN: u64 = 4;

/// What is asked of the index.
pub(crate) struct Search<'a> {
    pub(crate) demand: Demand<'a>,
    pub(crate) policy: PlacementPolicy,
    pub(crate) host_kept: &'a HostKept,
    pub(crate) apart: Apart<'a>,
    /// Which devices may be used; true for every device of nodes that are not looked at apart.
    pub(crate) open: &'a dyn Fn(DeviceId, &Device) -> bool,
}

/// Nodes that what is remembered does not hold for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Apart<'a> {
    /// All of them.
    All,
    /// These.
    Nodes(&'a BTreeSet<NodeId>),
}

impl Apart<'_> {
    fn has(self, node: NodeId) -> bool {
        match self {
            Self::All => true,
            Self::Nodes(nodes) => nodes.contains(&node),
        }
    }
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Capacity {
    kinds: Kinds,
    nodes: Vec<Known>,
    scale: Scale,
    /// Grows whenever every score is void.
    era: u64,
    /// The mix that the weights are of had seen so many.
    learned: Option<u64>,
    /// The inventory's count of changes up to which `nodes` is right, and the moment.
    changes: u64,
    holds_until: Time,
    shapes: BTreeMap<Shape, Scores>,
    /// Counts decisions.
    decisions: u64,
    /// What was remembered of a chosen node was not so, just now, and how often that came to pass: never, as far as
    /// tests can tell.
    mistaken: bool,
    mistakes: u64,
    /// Where round-robin stands.
    last: Option<(NodeId, DeviceId)>,
    slate: Slate,
}

#[derive(Debug, Default)]
struct Known {
    free: NodeFree,
    /// Its name and labels, which scores follow from too.
    facts: Option<Arc<NodeFacts>>,
    /// The node's own count of changes when it was looked at.
    changes: u64,
    /// Grows with every difference.
    version: u64,
    holds_until: Time,
}

/// Requests that every node serves equally well; host memory aside, which decides only whether it does at all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Shape {
    ask: Ask,
    policy: PlacementPolicy,
    constraints: Constraints,
}

#[derive(Debug)]
struct Scores {
    wanted: Wanted,
    era: u64,
    nodes: Vec<Scored>,
    used: u64,
}

/// The score of one node, and of which version of it.
#[derive(Clone, Copy, Debug)]
struct Scored {
    version: u64,
    /// [`NONE`]: it cannot serve the request alone.
    score: i32,
    fitting: u32,
}

const NONE: i32 = i32::MIN;
const NEVER_SCORED: Scored = Scored { version: 0, score: NONE, fitting: 0 };

impl Scored {
    fn of(version: u64, verdict: Verdict) -> Self {
        Self { version, score: verdict.score.unwrap_or(NONE), fitting: verdict.fitting }
    }
}

impl Capacity {
    /// Where a request goes; `None`: nowhere now.
    pub(crate) fn place(&mut self, site: &Site<'_>, search: &Search<'_>) -> Option<Place> {
        // What is remembered is of things as they are, whatever a search looks at.
        self.refresh(&Site { opening: None, own: None, ..*site });
        self.decisions = self.decisions.saturating_add(1);
        let place = self.place_remembering(site, search);
        if !self.mistaken {
            return place;
        }
        // A node changed and nobody said so: everything is looked at anew, after which nothing can be mistaken.
        self.forget();
        self.mistakes = self.mistakes.saturating_add(1);
        self.refresh(&Site { opening: None, own: None, ..*site });
        self.place_remembering(site, search)
    }

    fn place_remembering(&mut self, site: &Site<'_>, search: &Search<'_>) -> Option<Place> {
        let shape = Shape::of(search);
        let mut scores = match self.shapes.remove(&shape) {
            Some(scores) => scores,
            None => Scores::new(self.wanted(search)),
        };
        let place = self.place_scored(site, search, &mut scores);
        scores.used = self.decisions;
        self.shapes.insert(shape, scores);
        self.forget_shapes();
        place
    }

    /// Every node that can serve a request alone; for searches that look at no node apart.
    pub(crate) fn nodes_for(&mut self, site: &Site<'_>, search: &Search<'_>) -> Vec<NodeId> {
        self.place(site, search);
        let memory = search.demand.constraints.host_memory_bytes;
        let Some(scores) = self.shapes.get(&Shape::of(search)) else { return Vec::new() };
        let does = |(index, (known, scored)): (usize, (&Known, &Scored))| {
            let fits = scored.score != NONE && known.free.has_host_memory(memory);
            fits.then(|| NodeId(u32::try_from(index).unwrap_or(u32::MAX)))
        };
        self.nodes.iter().zip(&scores.nodes).enumerate().filter_map(does).collect()
    }

    /// Round-robin goes on after these devices.
    pub(crate) fn granted(&mut self, inventory: &Inventory, devices: &[DeviceId]) {
        let last = devices.last().and_then(|id| Some((inventory.device(*id)?.node, *id)));
        self.last = last.or(self.last);
    }

    /// Forgets everything that can be looked at anew.
    fn forget(&mut self) {
        let (last, decisions, mistakes) = (self.last, self.decisions, self.mistakes);
        *self = Self { last, decisions, mistakes, ..Self::default() };
    }

    fn place_scored(
        &mut self,
        site: &Site<'_>,
        search: &Search<'_>,
        scores: &mut Scores,
    ) -> Option<Place> {
        let mut slate = std::mem::take(&mut self.slate);
        self.rescore(site, search, scores, &mut slate);
        let chosen = self.choose(Look { site, search, scores }, &mut slate);
        let place = chosen.map(|chosen| Place {
            node: chosen.node,
            devices: sorted(chosen.devices),
            fitting: chosen.fitting,
        });
        self.slate = slate;
        place
    }
}

impl Shape {
    fn of(search: &Search<'_>) -> Self {
        let constraints = Constraints {
            preferred_device: None,
            host_memory_bytes: 0,
            affinity: None,
            ..search.demand.constraints.clone()
        };
        Self { ask: search.demand.ask, policy: search.policy, constraints }
    }
}

impl Scores {
    const fn new(wanted: Wanted) -> Self {
        Self { wanted, era: 0, nodes: Vec::new(), used: 0 }
    }
}

/// Keeping up.
impl Capacity {
    /// Looks again at every node that changed or may have by itself; at the weights when the mix has grown.
    fn refresh(&mut self, site: &Site<'_>) {
        // Kinds of devices that are no longer so are not worth their keep.
        if self.kinds.len() > KINDS_SPARE.max(site.inventory.devices().len().saturating_mul(2)) {
            self.forget();
        }
        let (nodes, kinds) = (self.nodes.len(), self.kinds.len());
        let changes = site.inventory.changes().wrapping_add(site.measured.changes());
        if self.changes != changes || site.now > self.holds_until || self.nodes.is_empty() {
            self.changes = changes;
            self.look(site);
        }
        let learned = site.mix.seen();
        let stale = self.learned.is_none_or(|before| {
            // What is long past has faded from the mix.
            let eighth = before.min(u64::from(COUNTED_MAX)) / 8;
            learned.saturating_sub(before) >= LEARNED_MIN.max(eighth) || learned < before
        });
        if stale || (nodes, kinds) != (self.nodes.len(), self.kinds.len()) {
            self.learned = Some(learned);
            self.weigh(site);
        }
    }

    fn look(&mut self, site: &Site<'_>) {
        self.holds_until = Time::NEVER;
        for (id, node) in site.inventory.nodes() {
            let changes = site.inventory.changes_of(id).wrapping_add(site.measured.changes_of(id));
            let index = id.0 as usize;
            if self.nodes.len() <= index {
                self.nodes.push(Known::default());
            }
            let Some(known) = self.nodes.get_mut(index) else { continue };
            if known.version == 0 || known.changes != changes || site.now > known.holds_until {
                known.changes = changes;
                known.holds_until = node::holds_until(site, id);
                let mut free = NodeFree::of(site, id, &mut self.kinds, (0, 0), &|_, _| true);
                free.unusable = known.free.unusable;
                let same_facts =
                    known.facts.as_ref().is_some_and(|facts| Arc::ptr_eq(facts, &node.facts));
                if free != known.free || !same_facts {
                    free.unusable = self.slate.unusable(&self.scale.weights, &free);
                    known.free = free;
                    known.facts = Some(node.facts.clone());
                    known.version = known.version.saturating_add(1);
                }
            }
            self.holds_until = self.holds_until.min(known.holds_until);
        }
    }

    /// Works out the weights anew, and with them every score.
    fn weigh(&mut self, site: &Site<'_>) {
        let mut capacity = vec![0u64; self.kinds.len()];
        for device in self.nodes.iter().flat_map(|known| &known.free.devices) {
            if let Some(count) = capacity.get_mut(device.kind as usize) {
                *count = count.saturating_add(1);
            }
        }
        let nodes = || site.inventory.nodes().map(|(_, node)| node);
        self.scale = Scale {
            weights: Weights::of(site.mix, &self.kinds, &capacity),
            host_cpu_millis: nodes().map(|node| node.facts.host_cpu_millis).max().unwrap_or(0),
            devices: nodes().map(|node| node.devices.len() as u64).max().unwrap_or(0),
        };
        for known in &mut self.nodes {
            known.free.unusable = self.slate.unusable(&self.scale.weights, &known.free);
        }
        self.era = self.era.saturating_add(1);
    }

    fn wanted(&self, search: &Search<'_>) -> Wanted {
        let (demand, models) = (search.demand, &search.demand.constraints.models);
        let cost = |(kind, facts): (usize, &crate::inventory::DeviceFacts)| {
            let kind = u32::try_from(kind).unwrap_or(u32::MAX);
            let pressure = self.scale.weights.pressure(kind);
            if score::names(models, &facts.model) { 0 } else { score::cost_of(pressure) }
        };
        Wanted {
            devices: demand.ask.devices as usize,
            share: demand.ask.share,
            host_cpu_millis: demand.constraints.host_cpu_millis,
            policy: search.policy,
            needs: self.kinds.needs(demand),
            costs: self.kinds.examples().enumerate().map(cost).collect(),
        }
    }

    /// Scores the nodes that are another version than their score.
    fn rescore(
        &mut self,
        site: &Site<'_>,
        search: &Search<'_>,
        scores: &mut Scores,
        slate: &mut Slate,
    ) {
        if scores.era != self.era {
            *scores = Scores { era: self.era, ..Scores::new(self.wanted(search)) };
        }
        scores.nodes.resize(self.nodes.len(), NEVER_SCORED);
        if matches!(search.apart, Apart::All) {
            return;
        }
        for (index, (scored, known)) in scores.nodes.iter_mut().zip(&self.nodes).enumerate() {
            if scored.version != known.version {
                let id = NodeId(u32::try_from(index).unwrap_or(u32::MAX));
                let verdict =
                    verdict(site, search, &scores.wanted, &self.scale, (id, &known.free), slate);
                *scored = Scored::of(known.version, verdict);
            }
        }
    }

    /// Drops what was longest not used.
    fn forget_shapes(&mut self) {
        let nodes = self.nodes.len().max(1);
        while self.shapes.len() > SHAPES_MAX || self.shapes.len().saturating_mul(nodes) > SCORES_MAX
        {
            let oldest = self.shapes.iter().min_by_key(|(_, scores)| scores.used);
            let Some(oldest) = oldest.map(|(shape, _)| shape.clone()) else { return };
            self.shapes.remove(&oldest);
        }
    }
}

/// Scores one node for a search.
fn verdict(
    site: &Site<'_>,
    search: &Search<'_>,
    wanted: &Wanted,
    scale: &Scale,
    (id, free): (NodeId, &NodeFree),
    slate: &mut Slate,
) -> Verdict {
    let excluded = site
        .inventory
        .node(id)
        .is_none_or(|node| exclusion::of_node_but_memory(node, search.demand).is_some());
    if excluded {
        return Verdict { score: None, fitting: 0 };
    }
    slate.score(wanted, scale, free, &may(site, search), None)
}

/// Which devices the request's lists allow.
fn may<'a>(site: &'a Site<'_>, search: &'a Search<'_>) -> impl Fn(DeviceId) -> bool + 'a {
    let constraints = search.demand.constraints;
    let lists = !constraints.device_allow.is_empty() || !constraints.device_deny.is_empty();
    move |id| {
        !lists
            || (site.inventory.device(id))
                .is_some_and(|device| exclusion::of_lists(&device.facts, search.demand).is_none())
    }
}
