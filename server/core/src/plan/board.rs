//! The board: what every device could give, ordered by how full it is, so that pipelines find the least loaded without
//! looking at all of them.
//!
//! A device's load is the share of it that is taken, in thousandths, by the scarcer of slots and bytes. Devices of one
//! kind with the same loads stand in one bucket, and buckets in order of load: since no load gets less by taking more,
//! the search ends at the first bucket that is as full as the best place so far leaves its device. With 1,000 pipelines on
//! 6,212 devices that is one look at each device for the board, and some looks for each pipeline.
//! What a pipeline leaves of a device is asked of [`Site`], on a copy of the device that holds it.

mod measure;

use std::collections::{BTreeMap, BTreeSet};

use self::measure::{bucket_of, of_kinds, share_permille};
pub(crate) use self::measure::{is_large_enough, load_permille, serves_all};
use super::need::Way;
use crate::{
    affinity::Near,
    id::{DeviceId, LeaseId, Name, NodeId, Token},
    inventory::Device,
    placement::{HostKept, Room, Site},
    request::{Constraints, Request},
};

/// What a search costs is counted in glances, which see whether a device has room, at some 10 ns. What one plan may
/// take: 40 ms of the actor's time.
const GLANCES_MAX: usize = 4_000_000;
/// What one of its pipelines may: every device of a large site thrice over, so that one that is hard to place leaves the
/// others theirs.
const GLANCES_OF_ONE_MAX: usize = 200_000;
/// A look at all that a request says of a device with room, some 100 ns.
const GLANCES_OF_LOOK: usize = 10;
/// So many devices of an owner are gone through one by one; more of them are found by their load.
const OWNED_LISTED_MAX: usize = 64;
/// Once a node is found, so many others are tried for a better one.
const NODES_BEYOND_MAX: usize = 64;

/// What one pipeline wants.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) request: &'a Request,
    pub(crate) way: &'a Way,
    pub(crate) frameworks: &'a [Name],
    pub(crate) near: &'a Near,
    /// What its service leaves it of a device.
    pub(crate) allowed: &'a dyn Fn(&Device) -> bool,
    /// Only these: its service owns them, and tries them first (P10).
    pub(crate) owned: Option<&'a BTreeSet<DeviceId>>,
    /// On one device, rather than on a node.
    pub(crate) on_one: bool,
    /// See [`Board::shape`].
    pub(crate) shape: usize,
}

/// A search looked at as many devices as it may, for one pipeline or for the whole plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooCostly;

/// A device on the board.
struct Spot<'a> {
    now: &'a Device,
    /// With what the plan put there.
    planned: Option<Box<Device>>,
    room: Room,
    bucket: Bucket,
    before_permille: u64,
    pipelines: u32,
}

impl Spot<'_> {
    fn device(&self) -> &Device {
        self.planned.as_deref().unwrap_or(self.now)
    }
}

/// Devices of one kind, with the same loads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Bucket {
    load: u64,
    kind: usize,
    bytes: u64,
    slots: u64,
}

/// All that decides whether devices of a kind could ever serve a request.
type Kind<'a> = (&'a Name, &'a Name, Option<(u32, u32)>, &'a [Name], [u64; 3]);

/// Orders places: how full they leave a device, how full it is, and where it is.
type Rank = (u64, u64, NodeId, DeviceId);

/// What pipelines with the same constraints have in common: what was found out for one serves the others.
struct Shape {
    /// The request without what names single nodes and devices.
    of_kinds: Option<Request>,
    /// Whether a kind could serve it, as far as that was asked.
    kinds: BTreeMap<usize, bool>,
}

/// See the head of this file.
pub(crate) struct Board<'a> {
    site: &'a Site<'a>,
    spots: Vec<Option<Spot<'a>>>,
    kinds: Vec<(Kind<'a>, DeviceId)>,
    buckets: BTreeMap<Bucket, BTreeSet<(NodeId, DeviceId)>>,
    /// Nodes by the load of the least loaded of their devices.
    nodes: BTreeSet<(u64, NodeId)>,
    host_kept: HostKept,
    shape_numbers: BTreeMap<(Constraints, Vec<Name>), usize>,
    shapes: Vec<Shape>,
    /// So far, by all pipelines, and when the present one began.
    glances: (usize, usize),
    /// The devices of the node that has most.
    devices_of_node: u32,
    /// Leases that are only thought of.
    thought_of: u64,
}

impl<'a> Board<'a> {
    /// All that is free now, and kept for nobody.
    pub(crate) fn new(site: &'a Site<'a>, host_kept: HostKept) -> Self {
        let mut board = Self {
            site,
            spots: Vec::with_capacity(site.inventory.devices().len()),
            kinds: Vec::new(),
            buckets: BTreeMap::new(),
            nodes: BTreeSet::new(),
            host_kept,
            shape_numbers: BTreeMap::new(),
            shapes: Vec::new(),
            glances: (0, 0),
            devices_of_node: 0,
            thought_of: u64::MAX,
        };
        let mut known: BTreeMap<Kind<'a>, usize> = BTreeMap::new();
        for (id, device) in site.inventory.devices() {
            let free = device.kept_for.is_none().then(|| site.room(id, device)).flatten();
            let spot = free.map(|room| {
                let kind = board.kind_of(&mut known, id, device);
                let bucket = bucket_of(kind, room, device);
                board.buckets.entry(bucket).or_default().insert((device.node, id));
                let before_permille = bucket.load;
                Spot { now: device, planned: None, room, bucket, before_permille, pipelines: 0 }
            });
            board.spots.push(spot);
        }
        let sizes = site.inventory.nodes().map(|(_, node)| node.devices.len());
        board.devices_of_node = u32::try_from(sizes.max().unwrap_or(0)).unwrap_or(u32::MAX);
        let nodes = site.inventory.nodes();
        let loads: Vec<_> = nodes.filter_map(|(id, _)| Some((board.node_load(id)?, id))).collect();
        board.nodes.extend(loads);
        board
    }

    fn kind_of(
        &mut self,
        known: &mut BTreeMap<Kind<'a>, usize>,
        id: DeviceId,
        device: &'a Device,
    ) -> usize {
        let facts = &device.facts;
        let sizes =
            [facts.memory_ceiling_bytes(), facts.memory_reserve_bytes, u64::from(facts.slots)];
        let kind: Kind<'a> =
            (&facts.vendor, &facts.model, facts.compute_capability, &facts.frameworks, sizes);
        // Neighbours are mostly alike.
        if let Some((last, _)) = self.kinds.last()
            && *last == kind
        {
            return self.kinds.len().saturating_sub(1);
        }
        let next = self.kinds.len();
        let number = *known.entry(kind).or_insert(next);
        if number == next {
            self.kinds.push((kind, id));
        }
        number
    }

    /// The number of a request's shape: those of one have the same constraints, affinity aside.
    pub(crate) fn shape(&mut self, request: &Request, frameworks: &[Name]) -> usize {
        let constraints = Constraints { affinity: None, ..request.constraints.clone() };
        let key = (constraints, frameworks.to_vec());
        let next = self.shapes.len();
        let number = *self.shape_numbers.entry(key).or_insert(next);
        if number == next {
            self.shapes.push(Shape { of_kinds: of_kinds(request), kinds: BTreeMap::new() });
        }
        number
    }

    /// The devices of the node that has most.
    pub(crate) const fn devices_of_node(&self) -> u32 {
        self.devices_of_node
    }

    /// The search for the next pipeline begins.
    pub(crate) const fn begin(&mut self) {
        self.glances.1 = self.glances.0;
    }

    /// Counts what a search takes.
    pub(crate) fn spend(&mut self, glances: usize) -> Result<(), TooCostly> {
        let (all, before) = &mut self.glances;
        *all = all.saturating_add(glances);
        let too_many = *all > GLANCES_MAX || all.saturating_sub(*before) > GLANCES_OF_ONE_MAX;
        if too_many { Err(TooCostly) } else { Ok(()) }
    }

    fn spot(&self, id: DeviceId) -> Option<&Spot<'a>> {
        self.spots.get(id.0 as usize)?.as_ref()
    }

    /// The load of the least loaded device of a node.
    fn node_load(&self, id: NodeId) -> Option<u64> {
        let devices = self.site.inventory.node(id)?.devices.iter();
        devices.filter_map(|id| self.spot(*id)).map(|spot| spot.bucket.load).min()
    }

    /// Where a pipeline goes with the least load after it; `None`: nowhere.
    pub(crate) fn find(&mut self, wanted: &Wanted<'_>) -> Result<Option<Vec<DeviceId>>, TooCostly> {
        if let Some(preferred) = self.preferred(wanted)? {
            return Ok(Some(vec![preferred]));
        }
        if wanted.on_one { self.find_device(wanted) } else { self.find_node(wanted) }
    }

    /// The device that the pipeline prefers, where it alone is wanted and fits.
    fn preferred(&mut self, wanted: &Wanted<'_>) -> Result<Option<DeviceId>, TooCostly> {
        let named = wanted.request.constraints.preferred_device.as_ref();
        let named = named.and_then(|uuid| self.site.inventory.device_with(uuid.as_str()));
        let Some(id) = named.filter(|_| wanted.way.ask.devices == 1) else { return Ok(None) };
        Ok(self.rank(wanted, id)?.map(|_| id))
    }

    fn find_device(&mut self, wanted: &Wanted<'_>) -> Result<Option<Vec<DeviceId>>, TooCostly> {
        let mut best: Option<Rank> = None;
        if let Some(ids) = self.named(wanted) {
            for id in ids {
                best = better(best, self.rank(wanted, id)?);
            }
            return Ok(best.map(|(_, _, _, id)| vec![id]));
        }
        // Taken out, so that its entries can be looked at while looks are counted.
        let buckets = std::mem::take(&mut self.buckets);
        let found = self.find_in(&buckets, wanted);
        self.buckets = buckets;
        Ok(found?.map(|(_, _, _, id)| vec![id]))
    }

    fn find_in(
        &mut self,
        buckets: &BTreeMap<Bucket, BTreeSet<(NodeId, DeviceId)>>,
        wanted: &Wanted<'_>,
    ) -> Result<Option<Rank>, TooCostly> {
        let mut best: Option<Rank> = None;
        for (bucket, ids) in buckets {
            if best.is_some_and(|(after, ..)| bucket.load >= after) {
                break;
            }
            if !self.kind_serves(wanted, bucket.kind) {
                continue;
            }
            for (_, id) in ids {
                let rank = self.rank(wanted, *id)?;
                if rank.is_some() {
                    best = better(best, rank);
                    break;
                }
            }
        }
        Ok(best)
    }

    /// The only devices that may serve a request, where it names them, or nodes, or where others with its key are.
    fn named(&self, wanted: &Wanted<'_>) -> Option<Vec<DeviceId>> {
        let inventory = self.site.inventory;
        let constraints = &wanted.request.constraints;
        let of_nodes = |nodes: Vec<NodeId>| {
            let nodes = nodes.into_iter().filter_map(|id| inventory.node(id));
            nodes.flat_map(|node| node.devices.iter().copied()).collect()
        };
        if !constraints.device_allow.is_empty() {
            let named = constraints.device_allow.iter();
            return Some(named.filter_map(|uuid| inventory.device_with(uuid.as_str())).collect());
        }
        match wanted.near {
            Near::Devices(devices) => return Some(devices.iter().copied().collect()),
            Near::Nodes(nodes) => return Some(of_nodes(nodes.iter().copied().collect())),
            Near::Anywhere => {}
        }
        if let Some(few) = wanted.owned.filter(|owned| owned.len() <= OWNED_LISTED_MAX) {
            return Some(few.iter().copied().collect());
        }
        let named = constraints.node_allow.iter();
        let nodes: Vec<NodeId> =
            named.filter_map(|name| inventory.node_named(name.as_str())).collect();
        (!constraints.node_allow.is_empty()).then(|| of_nodes(nodes))
    }

    fn find_node(&mut self, wanted: &Wanted<'_>) -> Result<Option<Vec<DeviceId>>, TooCostly> {
        let least = self.least_share(wanted);
        let nodes: Vec<(u64, NodeId)> = match self.named(wanted) {
            Some(ids) => {
                let node = |id: DeviceId| Some(self.site.inventory.device(id)?.node);
                let nodes: BTreeSet<NodeId> = ids.into_iter().filter_map(node).collect();
                nodes.into_iter().filter_map(|id| Some((self.node_load(id)?, id))).collect()
            }
            None => self.nodes.iter().copied().collect(),
        };
        let mut best: Option<((u64, NodeId), Vec<DeviceId>)> = None;
        let mut beyond = 0usize;
        for (load, node) in nodes {
            if let Some(((after, _), _)) = &best {
                beyond = beyond.saturating_add(1);
                if load.max(least) >= *after || beyond > NODES_BEYOND_MAX {
                    break;
                }
            }
            let Some((after, ids)) = self.on_node(wanted, node)? else { continue };
            if best.as_ref().is_none_or(|(rank, _)| (after, node) < *rank) {
                best = Some(((after, node), ids));
            }
        }
        Ok(best.map(|(_, ids)| ids))
    }

    /// The devices of a node that would be least loaded, and how full the fullest of them were.
    fn on_node(
        &mut self,
        wanted: &Wanted<'_>,
        node: NodeId,
    ) -> Result<Option<(u64, Vec<DeviceId>)>, TooCostly> {
        let devices = wanted.way.ask.devices as usize;
        let known = self.site.inventory.node(node).filter(|it| it.devices.len() >= devices);
        self.spend(1)?;
        let Some(known) = known else { return Ok(None) };
        let mut ranks: Vec<Rank> = Vec::new();
        for id in &known.devices {
            ranks.extend(self.rank(wanted, *id)?);
        }
        ranks.sort_unstable();
        ranks.truncate(devices);
        let Some((after, ..)) = ranks.last().filter(|_| ranks.len() == devices) else {
            return Ok(None);
        };
        let after = *after;
        let mut ids: Vec<DeviceId> = ranks.into_iter().map(|(_, _, _, id)| id).collect();
        ids.sort_unstable();
        Ok(Some((after, ids)))
    }

    /// The least share of a device that a request takes, of all kinds that could serve it.
    fn least_share(&mut self, wanted: &Wanted<'_>) -> u64 {
        let kinds: Vec<usize> =
            (0..self.kinds.len()).filter(|kind| self.kind_serves(wanted, *kind)).collect();
        let share = |kind: usize| {
            let (_, id) = self.kinds.get(kind)?;
            let device = self.site.inventory.device(*id)?;
            Some(share_permille(wanted.way.ask.share, device))
        };
        let shares = kinds.into_iter().filter_map(share);
        shares.map(|(bytes, slots)| bytes.max(slots)).min().unwrap_or(0)
    }

    /// Where a device stands among those that would do; `None`: it does not.
    fn rank(&mut self, wanted: &Wanted<'_>, id: DeviceId) -> Result<Option<Rank>, TooCostly> {
        self.spend(1)?;
        let share = wanted.way.ask.share;
        if wanted.owned.is_some_and(|owned| !owned.contains(&id)) {
            return Ok(None);
        }
        let roomy = |it: &&Spot<'_>| it.room.fits(share) && it.room.fits(wanted.way.floor);
        let Some(kind) = self.spot(id).filter(roomy).map(|spot| spot.bucket.kind) else {
            return Ok(None);
        };
        if !self.kind_serves(wanted, kind) {
            return Ok(None);
        }
        self.spend(GLANCES_OF_LOOK)?;
        let Some(spot) = self.spot(id) else { return Ok(None) };
        let device = spot.now;
        let Some(node) = self.site.inventory.node(device.node) else { return Ok(None) };
        let fits = serves_all(device, wanted.frameworks)
            && wanted.near.allows(id, device)
            && (wanted.allowed)(device)
            && self.site.exclusion(device, wanted.request).is_none()
            && self.site.host_fits(device.node, node, &wanted.request.constraints, &self.host_kept);
        let (bytes, slots) = share_permille(share, device);
        let after = spot.bucket.bytes.saturating_add(bytes);
        let after = after.max(spot.bucket.slots.saturating_add(slots));
        Ok(fits.then_some((after, spot.bucket.load, device.node, id)))
    }

    /// Whether devices of a kind could serve a request, whatever names of nodes and devices it gives.
    fn kind_serves(&mut self, wanted: &Wanted<'_>, kind: usize) -> bool {
        let Some(shape) = self.shapes.get_mut(wanted.shape) else { return false };
        let (site, kinds) = (self.site, &self.kinds);
        *shape.kinds.entry(kind).or_insert_with(|| {
            let device = kinds.get(kind).and_then(|(_, id)| site.inventory.device(*id));
            device.is_some_and(|device| {
                let excluded = shape.of_kinds.as_ref().map(|it| site.exclusion(device, it));
                excluded.flatten().is_none() && serves_all(device, wanted.frameworks)
            })
        })
    }

    /// Puts a pipeline where it was found to fit.
    pub(crate) fn take(&mut self, request: &Request, ids: &[DeviceId]) {
        let mut nodes = BTreeSet::new();
        for id in ids {
            self.thought_of = self.thought_of.saturating_sub(1);
            let lease = LeaseId(self.thought_of);
            let site = self.site;
            let Some(spot) = self.spots.get_mut(id.0 as usize).and_then(Option::as_mut) else {
                continue;
            };
            let device = spot.planned.get_or_insert_with(|| Box::new(spot.now.clone()));
            device.hold(lease, request.ask.share, Token(0));
            spot.room = site.room(*id, device).unwrap_or_default();
            spot.pipelines = spot.pipelines.saturating_add(1);
            let (node, before) = (spot.now.node, spot.bucket);
            spot.bucket = bucket_of(before.kind, spot.room, spot.device());
            let after = spot.bucket;
            nodes.insert(node);
            self.rebucket((node, *id), before, after);
        }
        let constraints = &request.constraints;
        for node in nodes {
            let (cpu, memory) = self.host_kept.entry(node).or_default();
            *cpu = cpu.saturating_add(constraints.host_cpu_millis);
            *memory = memory.saturating_add(constraints.host_memory_bytes);
        }
    }

    fn rebucket(&mut self, place: (NodeId, DeviceId), before: Bucket, after: Bucket) {
        if let Some(ids) = self.buckets.get_mut(&before) {
            ids.remove(&place);
            if ids.is_empty() {
                self.buckets.remove(&before);
            }
        }
        self.buckets.entry(after).or_default().insert(place);
        // What the node was listed under is not kept; its devices are few.
        let now = self.node_load(place.0);
        let listed = self.site.inventory.node(place.0).into_iter().flat_map(|it| &it.devices);
        let listed = listed.filter_map(|id| self.spot(*id)).map(|spot| spot.bucket.load);
        let listed: Vec<u64> = listed.chain([before.load]).collect();
        listed.into_iter().for_each(|load| {
            self.nodes.remove(&(load, place.0));
        });
        self.nodes.extend(now.map(|load| (load, place.0)));
    }

    /// The devices that the plan uses: their loads before and with it, and how many pipelines each has; in order of node
    /// and number.
    pub(crate) fn used(&self) -> Vec<(DeviceId, u64, u64, u32)> {
        let spots = self.spots.iter().flatten().filter(|spot| spot.pipelines > 0);
        let mut used: Vec<_> = spots
            .filter_map(|spot| {
                let id = self.site.inventory.device_with(spot.now.facts.uuid.as_str())?;
                let (before, after) = (spot.before_permille, spot.bucket.load);
                Some((spot.now.node, (id, before, after, spot.pipelines)))
            })
            .collect();
        used.sort_unstable();
        used.into_iter().map(|(_, used)| used).collect()
    }

    /// Whether a device is on the board, so that what does not fit there is in the way of the plan's own pipelines.
    pub(crate) fn is_taken_by_plan(&self, id: DeviceId) -> bool {
        self.spot(id).is_some_and(|spot| spot.pipelines > 0)
    }
}

fn better(best: Option<Rank>, other: Option<Rank>) -> Option<Rank> {
    match (best, other) {
        (Some(best), Some(other)) => Some(best.min(other)),
        (best, other) => best.or(other),
    }
}
