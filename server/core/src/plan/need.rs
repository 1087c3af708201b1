//! What a pipeline needs, as one ask: so many devices, and the same share of each.
//!
//! | scope | steps | devices | of each |
//! |---|---|---|---|
//! | DEVICE | one after the other | 1 | the largest figure of each kind |
//! | DEVICE | at the same time | 1 | the sum |
//! | NODE | one after the other | those of the step that takes most | the largest figure of each kind |
//! | NODE | at the same time | as few as will do, up to those of all steps together | the fullest of them when steps are spread |

use super::{PipelineFields, StepFields};
use crate::request::{AffinityScope, Ask, InvalidField, Share};

/// A step that takes devices.
#[derive(Clone, Copy, Debug)]
struct Taker {
    /// Its place among the steps.
    step: usize,
    ask: Ask,
}

/// What a pipeline needs.
#[derive(Clone, Debug)]
pub(crate) struct Need {
    takers: Vec<Taker>,
    steps: usize,
    scope: AffinityScope,
    overlap: bool,
}

/// One way to serve a need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) ask: Ask,
    /// What a device held whole has to have at least.
    pub(crate) floor: Share,
    /// Which of the devices each step takes.
    pub(crate) steps: Vec<Vec<usize>>,
}

/// Steps that overlap are spread over so many devices at the most, where no step takes more by itself: trying more of
/// them would cost more than a node has devices.
const SPREAD_MAX: u32 = 64;

const NOTHING: Share = Share::Part { slots: None, memory_bytes: None };
/// What a step takes that does not say: one slot of one device.
const ONE_SLOT: Ask = Ask { devices: 1, share: Share::Part { slots: Some(1), memory_bytes: None } };

impl Need {
    /// What the steps of a pipeline need; `None`: no device.
    pub(super) fn of(pipeline: &PipelineFields) -> Result<Option<Self>, InvalidField> {
        slots_have_bytes(pipeline)?;
        let mut takers = Vec::new();
        for (index, step) in pipeline.steps.iter().enumerate() {
            let taken = taken(step, pipeline.scope);
            let taken = taken.map_err(|invalid| invalid.within(&format!("steps[{index}]")))?;
            takers.extend(taken.map(|ask| Taker { step: index, ask }));
        }
        let (scope, overlap) = (pipeline.scope, pipeline.steps_overlap);
        let whole = takers.iter().find(|taker| taker.ask.share == Share::Exclusive);
        if let Some(whole) = whole
            && overlap
            && scope == AffinityScope::Device
            && takers.len() > 1
        {
            let field = format!("steps[{}].ask.exclusive", whole.step);
            let bound = "false: other steps of the pipeline use its device at the same time; use PIPELINE_SCOPE_NODE, or \
                         steps one after the other";
            return Err(InvalidField::new(field, "true", bound));
        }
        let steps = pipeline.steps.len();
        Ok((!takers.is_empty()).then_some(Self { takers, steps, scope, overlap }))
    }

    /// The most that any way asks of one device, and the devices of the step that takes most of them.
    pub(super) fn largest(&self) -> Ask {
        let combine = if self.overlap { sum } else { larger };
        let share = self.takers.iter().map(|taker| taker.ask.share).fold(NOTHING, combine);
        Ask { devices: self.devices_min(), share }
    }

    fn devices_min(&self) -> u32 {
        let wanted = |whole: bool| {
            let takers = self.takers.iter();
            takers.filter(move |it| (it.ask.share == Share::Exclusive) == whole)
        };
        if self.spreads() {
            // A whole device is shared with no other step, parts share all that is left.
            let whole = wanted(true).map(|it| it.ask.devices).fold(0, u32::saturating_add);
            return whole.saturating_add(wanted(false).map(|it| it.ask.devices).max().unwrap_or(0));
        }
        self.takers.iter().map(|taker| taker.ask.devices).max().unwrap_or(1)
    }

    fn spreads(&self) -> bool {
        self.overlap && self.scope == AffinityScope::Node
    }

    /// Over how many devices it may go where no node has more than so many: the fewest always, whether or not a node has
    /// them.
    pub(crate) fn counts(&self, devices_of_node: u32) -> std::ops::RangeInclusive<u32> {
        let least = self.devices_min();
        let all = self.takers.iter().map(|taker| taker.ask.devices).fold(0, u32::saturating_add);
        let most = all.min(SPREAD_MAX).min(devices_of_node);
        if self.spreads() { least..=most.max(least) } else { least..=least }
    }

    /// The way with the fewest devices.
    pub(crate) fn first_way(&self) -> Option<Way> {
        self.way(self.devices_min())
    }

    /// A device that is held whole has to be of some size, which a request cannot say.
    pub(crate) fn has_floor(&self) -> bool {
        let whole = self.takers.iter().filter(|it| it.ask.share == Share::Exclusive).count();
        whole > 0 && whole < self.takers.len()
    }

    /// What trying one way to spread its steps over so many devices costs, in glances at a device.
    pub(crate) fn way_cost(&self, devices: u32) -> usize {
        if self.overlap { self.takers.len().saturating_mul(devices as usize) } else { 1 }
    }

    /// How its steps go onto so many devices; `None`: not at all.
    pub(crate) fn way(&self, devices: u32) -> Option<Way> {
        if !self.overlap {
            let ask = Ask { devices, share: self.largest().share };
            let parts = self.takers.iter().map(|taker| taker.ask.share);
            let floor = parts.filter(|share| *share != Share::Exclusive).fold(NOTHING, larger);
            let mut steps = vec![Vec::new(); self.steps];
            for taker in &self.takers {
                if let Some(step) = steps.get_mut(taker.step) {
                    *step = (0..taker.ask.devices as usize).collect();
                }
            }
            return (self.devices_min() == devices).then_some(Way { ask, floor, steps });
        }
        self.spread(devices)
    }

    /// The largest first, each onto the devices that have least so far; a whole device is shared with none.
    fn spread(&self, devices: u32) -> Option<Way> {
        let mut order = self.takers.clone();
        order.sort_by_key(|taker| std::cmp::Reverse(weight(taker.ask.share)));
        let mut taken: Vec<Option<Share>> = vec![None; devices as usize];
        let mut steps = vec![Vec::new(); self.steps];
        for taker in order {
            let mut free: Vec<usize> = (taken.iter().enumerate())
                .filter(|(_, has)| {
                    has.is_none_or(|has| {
                        has != Share::Exclusive && taker.ask.share != Share::Exclusive
                    })
                })
                .map(|(index, _)| index)
                .collect();
            free.sort_by_key(|index| (taken.get(*index).copied().flatten().map(weight), *index));
            let wanted = taker.ask.devices as usize;
            if free.len() < wanted {
                return None;
            }
            free.truncate(wanted);
            free.sort_unstable();
            for index in &free {
                let Some(has) = taken.get_mut(*index) else { continue };
                *has = Some(has.map_or(taker.ask.share, |has| sum(has, taker.ask.share)));
            }
            if let Some(step) = steps.get_mut(taker.step) {
                *step = free;
            }
        }
        // A device that no step uses is none too many: fewer do.
        let used = taken.into_iter().collect::<Option<Vec<Share>>>()?;
        let share = used.iter().copied().fold(NOTHING, larger);
        let parts = used.iter().copied().filter(|share| *share != Share::Exclusive);
        let floor = parts.fold(NOTHING, larger);
        Some(Way { ask: Ask { devices, share }, floor, steps })
    }
}

/// Slots without bytes take their share of a device's memory (P8), which is a figure of the device and cannot be combined
/// with bytes that other steps name. A step that says nothing takes no memory beside those.
fn slots_have_bytes(pipeline: &PipelineFields) -> Result<(), InvalidField> {
    let asks = || pipeline.steps.iter().map(|step| step.ask.map(|ask| figures(ask.share)));
    let names_bytes = asks().flatten().any(|(_, bytes)| bytes.is_some());
    let bare = asks().position(|figures| matches!(figures, Some((Some(_), None))));
    let Some(step) = bare.filter(|_| names_bytes) else { return Ok(()) };
    let field = format!("steps[{step}].ask.memory_bytes");
    let bound = "given, as by other steps of the pipeline: slots without it take their share of all of a device's memory";
    Err(InvalidField::new(field, "absent", bound))
}

/// What one step takes; `None`: no device.
fn taken(step: &StepFields, scope: AffinityScope) -> Result<Option<Ask>, InvalidField> {
    let on_device = step.on_devices().next().is_some();
    let Some(ask) = step.ask else { return Ok(on_device.then_some(ONE_SLOT)) };
    if !on_device {
        let bound = "absent: neither its input nor its output lies on a device";
        return Err(InvalidField::new("ask", "given", bound));
    }
    if scope == AffinityScope::Device && ask.devices > 1 {
        let bound = "1: the steps share one device; use PIPELINE_SCOPE_NODE for more";
        return Err(InvalidField::new("ask.devices", ask.devices, bound));
    }
    ask.validate()?;
    Ok(Some(ask))
}

fn figures(share: Share) -> (Option<u32>, Option<u64>) {
    match share {
        Share::Exclusive => (None, None),
        Share::Part { slots, memory_bytes } => (slots, memory_bytes),
    }
}

/// The larger figure of each kind; a whole device is more than any part.
fn larger(one: Share, other: Share) -> Share {
    if one == Share::Exclusive || other == Share::Exclusive {
        return Share::Exclusive;
    }
    let (one, other) = (figures(one), figures(other));
    // An absent figure is less than any.
    Share::Part { slots: one.0.max(other.0), memory_bytes: one.1.max(other.1) }
}

/// Both at the same time.
fn sum(one: Share, other: Share) -> Share {
    if one == Share::Exclusive || other == Share::Exclusive {
        return Share::Exclusive;
    }
    let (one, other) = (figures(one), figures(other));
    let slots = one.0.or(other.0).map(|_| one.0.unwrap_or(0).saturating_add(other.0.unwrap_or(0)));
    let bytes = one.1.or(other.1).map(|_| one.1.unwrap_or(0).saturating_add(other.1.unwrap_or(0)));
    Share::Part { slots, memory_bytes: bytes }
}

/// Orders shares by size: whole devices, then bytes, then slots.
pub(crate) fn weight(share: Share) -> (bool, u64, u32) {
    (share == Share::Exclusive, share.memory_bytes(), share.slots())
}
