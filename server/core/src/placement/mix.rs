//! The learned mix: which requests come how often, as far as this coordinator has seen.
//!
//! Promises: bounded (512 classes of at most 16 names of 256 bytes are 2 MB at the worst, some 50 KB as they mostly
//! are); a fold of the requests alone, so that it survives restarts and takeovers; what is long past fades, for the
//! counts are halved when there are many. Leaves what it means for a device to `fragmentation`.

use std::{cmp::Reverse, collections::BTreeMap};

use serde::{Deserialize, Serialize};

use super::Demand;
use crate::{
    id::Name,
    inventory::part_of,
    request::{Ask, Share},
};

/// The most classes that are told apart.
pub const CLASSES_MAX: usize = 512;
/// At so many counted requests all counts are halved.
pub const COUNTED_MAX: u32 = 32_768;
/// A request that names more models than this names none in particular.
const MODELS_MAX: usize = 16;
/// The weights of all popular classes together: what a probability of one is.
pub(super) const WEIGHT_ONE: u64 = 65_536;
/// Of all requests, in hundredths, the most popular classes that cover so many are looked at.
const COVERED_PERCENT: u64 = 95;

/// Requests that ask for the same, as far as they compete for devices.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Class {
    /// Host CPU, in thousandths of a core.
    pub host_cpu_millis: u64,
    /// Devices, and what of each; bytes are rounded to five significant bits, for no two requests have the same.
    pub ask: Ask,
    /// The models that would do, in lower case and in order; none: any.
    pub models: Vec<Name>,
}

/// See the head of this file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mix {
    counts: BTreeMap<Class, u32>,
    /// Their sum.
    counted: u32,
    /// All requests ever.
    seen: u64,
}

impl Default for Mix {
    /// One request for a whole device, so that a fresh coordinator keeps whole devices whole.
    fn default() -> Self {
        let ask = Ask { devices: 1, share: Share::Exclusive };
        let class = Class { host_cpu_millis: 0, ask, models: Vec::new() };
        Self { counts: BTreeMap::from([(class, 1)]), counted: 1, seen: 0 }
    }
}

impl Mix {
    /// Counts a request.
    pub fn learn(&mut self, demand: Demand<'_>) {
        let class = Class::of(demand);
        if self.counted >= COUNTED_MAX
            || (self.counts.len() >= CLASSES_MAX && !self.counts.contains_key(&class))
        {
            self.fade();
        }
        let count = self.counts.entry(class).or_default();
        *count = count.saturating_add(1);
        self.counted = self.counted.saturating_add(1);
        self.seen = self.seen.saturating_add(1);
    }

    /// Halves every count; where that leaves too many classes, the rarest go.
    fn fade(&mut self) {
        self.counts.values_mut().for_each(|count| *count /= 2);
        self.counts.retain(|_, count| *count > 0);
        if self.counts.len() >= CLASSES_MAX {
            let mut rarest: Vec<(u32, Class)> =
                self.counts.iter().map(|(class, count)| (*count, class.clone())).collect();
            rarest.sort_unstable();
            for (_, class) in rarest.iter().take(CLASSES_MAX / 8) {
                self.counts.remove(class);
            }
        }
        self.counted = self.counts.values().copied().fold(0, u32::saturating_add);
    }

    /// How many requests were ever counted.
    #[must_use]
    pub const fn seen(&self) -> u64 {
        self.seen
    }

    /// How many classes are told apart.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.counts.len()
    }

    /// The most popular classes, those that cover 95 % of the requests, each with its weight of 65,536.
    #[must_use]
    pub fn popular(&self) -> Vec<(&Class, u64)> {
        let mut all: Vec<(&Class, u32)> =
            self.counts.iter().map(|(class, count)| (class, *count)).collect();
        all.sort_unstable_by_key(|(class, count)| (Reverse(*count), *class));
        let enough = part_of(u64::from(self.counted), COVERED_PERCENT, 100);
        let mut covered = 0u64;
        all.retain(|(_, count)| {
            let wanted = covered < enough.max(1);
            if wanted {
                covered = covered.saturating_add(u64::from(*count));
            }
            wanted
        });
        all.into_iter()
            .map(|(class, count)| (class, part_of(WEIGHT_ONE, u64::from(count), covered)))
            .collect()
    }
}

impl Class {
    fn of(demand: Demand<'_>) -> Self {
        let Demand { ask, constraints } = demand;
        let share = match ask.share {
            Share::Part { slots, memory_bytes } => {
                Share::Part { slots, memory_bytes: memory_bytes.map(rounded) }
            }
            Share::Exclusive => Share::Exclusive,
        };
        let mut models: Vec<Name> = Vec::new();
        if constraints.models.len() <= MODELS_MAX {
            models.extend(
                (constraints.models.iter()).map(|it| it.as_str().to_lowercase().as_str().into()),
            );
            models.sort_unstable();
            models.dedup();
        }
        Self { host_cpu_millis: constraints.host_cpu_millis, ask: Ask { share, ..ask }, models }
    }
}

/// A number rounded to its five highest bits, which is within 3 %.
fn rounded(number: u64) -> u64 {
    let spare = u64::BITS.saturating_sub(number.leading_zeros()).saturating_sub(5);
    let unit = 1u64.checked_shl(spare).unwrap_or(1);
    number.saturating_add(unit / 2) & !unit.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Constraints;

    fn learn(mix: &mut Mix, slots: u32, times: u32) {
        let share = Share::Part { slots: Some(slots), memory_bytes: None };
        let demand =
            Demand { ask: Ask { devices: 1, share }, constraints: &Constraints::default() };
        (0..times).for_each(|_| mix.learn(demand));
    }

    #[test]
    fn popular_classes_cover_95_percent_and_weigh_as_often_as_they_come() {
        let mut mix = Mix::default();
        learn(&mut mix, 1, 60);
        learn(&mut mix, 2, 36);
        learn(&mut mix, 3, 3);
        let popular = mix.popular();
        let slots: Vec<u32> = popular.iter().map(|(class, _)| class.ask.share.slots()).collect();
        assert_eq!(slots, [1, 2]);
        assert_eq!(popular[0].1, WEIGHT_ONE * 60 / 96);
        assert_eq!(mix.seen(), 99);
    }

    #[test]
    fn a_fresh_mix_expects_whole_devices() {
        let mix = Mix::default();
        let popular = mix.popular();
        assert_eq!((popular.len(), popular[0].1), (1, WEIGHT_ONE));
        assert_eq!(popular[0].0.ask.share, Share::Exclusive);
    }

    #[test]
    fn however_many_kinds_of_requests_come_the_mix_stays_bounded_and_keeps_the_usual_ones() {
        let mut mix = Mix::default();
        for slots in 2..5_000 {
            learn(&mut mix, 1, 3);
            learn(&mut mix, slots, 1);
            assert!(mix.classes() <= CLASSES_MAX);
            assert!(mix.counted <= COUNTED_MAX);
        }
        assert_eq!(mix.popular()[0].0.ask.share.slots(), 1);
    }

    #[test]
    fn what_is_long_past_fades() {
        let mut mix = Mix::default();
        learn(&mut mix, 1, 10_000);
        learn(&mut mix, 2, 3 * COUNTED_MAX);
        assert_eq!(mix.popular().len(), 1);
        assert_eq!(mix.popular()[0].0.ask.share.slots(), 2);
    }

    #[test]
    fn bytes_are_rounded_within_3_percent_and_models_have_no_case() {
        for bytes in [1u64, 31, 33, 24 << 30, (24 << 30) + 12_345, 10_000_000_019, u64::MAX] {
            let off = rounded(bytes).abs_diff(bytes);
            assert!(off <= bytes / 32, "{bytes} is rounded to {}", rounded(bytes));
        }
        let mut mix = Mix::default();
        for name in ["H100", "h100"] {
            let constraints = Constraints { models: vec![name.into()], ..Constraints::default() };
            let ask = Ask { devices: 1, share: Share::Exclusive };
            mix.learn(Demand { ask, constraints: &constraints });
        }
        assert_eq!(mix.classes(), 2, "the one it starts with, and the model");
    }
}
