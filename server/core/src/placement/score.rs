//! The policies: an integer for every way to serve a request from one node; the largest wins.
//!
//! Promises: a score depends on the node as it is, the request and the weights alone, never on other nodes, so that it
//! may be kept until the node changes. Equal scores go to the node of the lowest number, and inside a node to the
//! device of the lowest number. Bytes of host memory take no part in any score.

use super::{
    fragmentation::{self, Free, Weights},
    kind::{KindNumber, WHOLE},
    node::NodeFree,
};
use crate::{
    id::{DeviceId, Name},
    request::{PlacementPolicy, Share},
};

/// What a request needs, kind by kind.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) devices: usize,
    pub(super) share: Share,
    pub(super) host_cpu_millis: u64,
    pub(super) policy: PlacementPolicy,
    /// In thousandths; `None`: such a device never does.
    pub(super) needs: Vec<Option<u32>>,
    /// Points a place on such a device costs, for others name its model and this request does not.
    pub(super) costs: Vec<i32>,
}

impl Wanted {
    pub(super) fn need(&self, kind: KindNumber) -> Option<u32> {
        self.needs.get(kind as usize).copied().flatten()
    }

    fn cost(&self, kind: KindNumber) -> i32 {
        self.costs.get(kind as usize).copied().unwrap_or(0)
    }
}

/// What scores are relative to.
#[derive(Debug, Default)]
pub(super) struct Scale {
    pub(super) weights: Weights,
    /// The most host CPU of a node, in thousandths of a core.
    pub(super) host_cpu_millis: u64,
    /// The most devices of a node.
    pub(super) devices: u64,
}

/// How well a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// `None`: it cannot serve the request alone.
    pub(super) score: Option<i32>,
    /// How many of its devices would do, each by itself.
    pub(super) fitting: u32,
}

/// A device that would do.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    /// Where it is among the node's devices.
    place: usize,
    device: DeviceId,
    kind: KindNumber,
    free: u32,
    need: u32,
    memory_bytes: u64,
}

/// Room to think, kept from one decision to the next.
#[derive(Debug, Default)]
pub(super) struct Slate {
    candidates: Vec<Candidate>,
    frees: Vec<Free>,
}

/// A whole device or node is worth more than any share of one.
const UNTOUCHED: i64 = 1_000_000;

impl Slate {
    /// Scores a node; afterwards [`Self::chosen`] says on which devices.
    pub(super) fn score(
        &mut self,
        wanted: &Wanted,
        scale: &Scale,
        node: &NodeFree,
        may: &dyn Fn(DeviceId) -> bool,
        preferred: Option<DeviceId>,
    ) -> Verdict {
        self.candidates.clear();
        if wanted.host_cpu_millis > 0 && wanted.host_cpu_millis > node.host_cpu_millis {
            return Verdict { score: None, fitting: 0 };
        }
        self.find(wanted, node, may);
        let fitting = u32::try_from(self.candidates.len()).unwrap_or(u32::MAX);
        if self.candidates.len() < wanted.devices {
            self.sort(wanted.policy, preferred);
            return Verdict { score: None, fitting };
        }
        let single = wanted.devices == 1 && preferred.is_none();
        if single && wanted.policy == PlacementPolicy::Fragmentation {
            let score = self.least_fragmenting(wanted, scale, node);
            return Verdict { score: Some(score), fitting };
        }
        self.sort(wanted.policy, preferred);
        self.candidates.truncate(wanted.devices);
        Verdict { score: Some(self.score_of_chosen(wanted, scale, node)), fitting }
    }

    /// The fragmentation measure of a node.
    pub(super) fn unusable(&mut self, weights: &Weights, node: &NodeFree) -> u64 {
        node.frees_into(&mut self.frees);
        weights.unusable(node.host_cpu_millis, &self.frees)
    }

    /// The devices of the newest score, or, of a node that cannot serve the request alone, all that would do.
    pub(super) fn chosen(&self) -> impl Iterator<Item = DeviceId> {
        self.candidates.iter().map(|candidate| candidate.device)
    }

    fn find(&mut self, wanted: &Wanted, node: &NodeFree, may: &dyn Fn(DeviceId) -> bool) {
        if wanted.devices == 0 {
            return;
        }
        for (place, device) in node.devices.iter().enumerate() {
            let Some(need) = wanted.need(device.kind) else { continue };
            if device.room.fits(wanted.share) && may(device.id) {
                self.candidates.push(Candidate {
                    place,
                    device: device.id,
                    kind: device.kind,
                    free: device.free,
                    need,
                    memory_bytes: device.room.memory_bytes,
                });
            }
        }
    }

    /// The preferred device, then in the order in which the policy takes devices of one node.
    fn sort(&mut self, policy: PlacementPolicy, preferred: Option<DeviceId>) {
        let by: fn(&Candidate) -> u64 = match policy {
            PlacementPolicy::BestFit | PlacementPolicy::Fragmentation | PlacementPolicy::Pack => {
                |it| u64::from(it.free)
            }
            PlacementPolicy::MostFreeMemory => |it| u64::MAX.saturating_sub(it.memory_bytes),
            PlacementPolicy::LeastLoaded => |it| u64::MAX.saturating_sub(u64::from(it.free)),
            PlacementPolicy::RoundRobin => |_| 0,
        };
        self.candidates
            .sort_unstable_by_key(|it| (Some(it.device) != preferred, by(it), it.device));
    }

    fn score_of_chosen(&mut self, wanted: &Wanted, scale: &Scale, node: &NodeFree) -> i32 {
        match wanted.policy {
            PlacementPolicy::Fragmentation => self.fragmenting(wanted, scale, node),
            PlacementPolicy::BestFit => self.best_fit(wanted, scale, node),
            PlacementPolicy::Pack => self.pack(node),
            PlacementPolicy::RoundRobin => 0,
            PlacementPolicy::MostFreeMemory => {
                let least = self.candidates.iter().map(|it| it.memory_bytes).min().unwrap_or(0);
                // In MiB: a device of 2 PiB fits.
                i32::try_from(least >> 20).unwrap_or(i32::MAX)
            }
            PlacementPolicy::LeastLoaded => {
                let least = self.candidates.iter().map(|it| it.free).min().unwrap_or(0);
                i32::try_from(least).unwrap_or(i32::MAX)
            }
        }
    }

    /// What is free of the candidates' node once the chosen are taken, in thousandths.
    fn free_after(&self, node: &NodeFree) -> u64 {
        let taken =
            self.candidates.iter().map(|it| u64::from(it.need)).fold(0, u64::saturating_add);
        node.free().saturating_sub(taken)
    }

    /// ⌊100 × (1 − ½ × host CPU left ÷ the largest node's − ½ × devices left ÷ the largest node's)⌋: the Best-fit that
    /// is published with the fragmentation measure.
    fn best_fit(&self, wanted: &Wanted, scale: &Scale, node: &NodeFree) -> i32 {
        let cpu = i128::from(node.host_cpu_millis.saturating_sub(wanted.host_cpu_millis));
        let left = i128::from(self.free_after(node));
        let cpu_most = i128::from(scale.host_cpu_millis.max(1));
        let left_most = i128::from(scale.devices.max(1)).saturating_mul(i128::from(WHOLE));
        let whole = cpu_most.saturating_mul(left_most).saturating_mul(2);
        let lost = cpu.saturating_mul(left_most).saturating_add(left.saturating_mul(cpu_most));
        let points = whole.saturating_sub(lost).saturating_mul(100).div_euclid(whole.max(1));
        i32::try_from(points).unwrap_or(i32::MIN)
    }

    /// Fewest untouched devices, then the fullest node.
    fn pack(&self, node: &NodeFree) -> i32 {
        let untouched = self.candidates.iter().filter(|it| it.free == WHOLE).count();
        let untouched = i64::try_from(untouched).unwrap_or(i64::MAX);
        // Fullest first: the fullest devices among those in use, then the fullest node.
        let used = || self.candidates.iter().filter(|it| it.free < WHOLE);
        let sum = used().map(|it| u64::from(it.free)).fold(0, u64::saturating_add);
        let device = sum.checked_div(used().count() as u64).unwrap_or(0);
        let all =
            u64::try_from(node.devices.len()).unwrap_or(1).max(1).saturating_mul(u64::from(WHOLE));
        let free = crate::inventory::part_of(u64::from(WHOLE), node.free(), all);
        let fullness = device.saturating_mul(u64::from(WHOLE)).saturating_add(free);
        let fullness = i64::try_from(fullness).unwrap_or(i64::MAX).min(UNTOUCHED.saturating_sub(1));
        let points = untouched.saturating_mul(UNTOUCHED).saturating_add(fullness).saturating_neg();
        i32::try_from(points).unwrap_or(i32::MIN)
    }

    /// What the places on this node do to the measure, where the chosen devices are already known.
    fn fragmenting(&mut self, wanted: &Wanted, scale: &Scale, node: &NodeFree) -> i32 {
        node.frees_into(&mut self.frees);
        // Host CPU alone costs nothing: it is not what others name.
        let cost = self.candidates.iter().map(|it| wanted.cost(it.kind)).max().unwrap_or(0);
        for candidate in &self.candidates {
            if let Some((_, free)) = self.frees.get_mut(candidate.place) {
                *free = free.saturating_sub(candidate.need);
            }
        }
        let cpu = node.host_cpu_millis.saturating_sub(wanted.host_cpu_millis);
        let after = scale.weights.unusable(cpu, &self.frees);
        fragmentation::score(node.unusable, after).saturating_sub(cost)
    }

    /// The device of the node whose loss fragments it least; of equals the first. Leaves it alone among the candidates.
    fn least_fragmenting(&mut self, wanted: &Wanted, scale: &Scale, node: &NodeFree) -> i32 {
        node.frees_into(&mut self.frees);
        let cpu = node.host_cpu_millis.saturating_sub(wanted.host_cpu_millis);
        let mut best: Option<(i32, u32, Candidate)> = None;
        for (at, candidate) in self.candidates.iter().enumerate() {
            let same = |it: &Candidate| (it.kind, it.free) == (candidate.kind, candidate.free);
            if self.candidates.iter().take(at).any(same) {
                continue;
            }
            let before = match self.frees.get_mut(candidate.place) {
                Some((_, free)) => std::mem::replace(free, free.saturating_sub(candidate.need)),
                None => continue,
            };
            let after = scale.weights.unusable(cpu, &self.frees);
            if let Some((_, free)) = self.frees.get_mut(candidate.place) {
                *free = before;
            }
            let score = fragmentation::score(node.unusable, after)
                .saturating_sub(wanted.cost(candidate.kind));
            let better = |(most, tightest, _): &(i32, u32, Candidate)| {
                score > *most || (score == *most && candidate.free < *tightest)
            };
            if best.as_ref().is_none_or(better) {
                best = Some((score, candidate.free, *candidate));
            }
        }
        self.candidates.clear();
        let Some((score, _, candidate)) = best else { return i32::MIN };
        self.candidates.push(candidate);
        score
    }
}

/// Points that a place costs on a device whose model is under a pressure, in thousandths, from those who name it.
///
/// Three steps at the most: more would send requests to nodes that they fragment badly.
pub(super) fn cost_of(pressure: u32) -> i32 {
    const STEPS: u32 = 3;
    let points = pressure.saturating_mul(STEPS).saturating_add(WHOLE / 2) / WHOLE;
    i32::try_from(points).unwrap_or(i32::MAX)
}

/// Whether a request names the model of a device.
pub(super) fn names(models: &[Name], model: &Name) -> bool {
    models.iter().any(|name| name.as_str().eq_ignore_ascii_case(model.as_str()))
}
