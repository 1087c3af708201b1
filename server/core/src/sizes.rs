//! What a request would count of the devices that would do for it, and what of a quota a set of them takes.
//!
//! Placement chooses devices one by one, so a quota of memory is turned into a bound on the size of each: the largest such
//! that no set of as many devices within it counts more than is left. Where the quota is not reached, there are devices
//! enough within that bound.

use std::{collections::BTreeMap, sync::Arc};

use crate::request::{Constraints, Request, Share};

/// How many devices count how many bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes(BTreeMap<u64, u64>);

impl Sizes {
    /// A request may count so much of each device: at least, at most.
    pub(crate) fn within(&self, (min, max): (u64, u64)) -> Self {
        if min > max {
            return Self::default();
        }
        Self(self.0.range(min..=max).map(|(bytes, count)| (*bytes, *count)).collect())
    }

    /// All of them are within these bounds.
    pub(crate) fn all_within(&self, (min, max): (u64, u64)) -> bool {
        let ends = self.0.first_key_value().zip(self.0.last_key_value());
        ends.is_none_or(|((least, _), (most, _))| *least >= min && *most <= max)
    }

    /// What so many devices take at the least: as many bytes as any set of them may count that is within the bound of the
    /// smallest such set. `None`: there are not so many.
    pub(crate) fn needed(&self, devices: u64) -> Option<u64> {
        let mut found = 0u64;
        let bound = self.0.iter().find_map(|(bytes, count)| {
            found = found.saturating_add(*count);
            (found >= devices).then_some(*bytes)
        });
        self.most(devices, bound?)
    }

    /// The largest bound on each device with which so many of them count at most `left` bytes. `None`: not even the
    /// smallest do.
    pub(crate) fn bound(&self, devices: u64, left: u64) -> Option<u64> {
        let fits = |bound: &u64| self.most(devices, *bound).is_some_and(|most| most <= left);
        self.0.keys().rev().copied().find(fits)
    }

    /// The most that so many devices within a bound count; `None`: there are not so many.
    fn most(&self, devices: u64, bound: u64) -> Option<u64> {
        let (mut missing, mut bytes) = (devices, 0u64);
        for (each, count) in self.0.range(..=bound).rev() {
            let taken = missing.min(*count);
            bytes = bytes.saturating_add(each.saturating_mul(taken));
            missing = missing.saturating_sub(taken);
        }
        (missing == 0).then_some(bytes)
    }
}

/// What requests would count of devices, remembered while these stay what they are.
#[derive(Debug, Default)]
pub(crate) struct KnownSizes {
    /// Up to which change of devices and nodes.
    facts: u64,
    count: usize,
    sizes: BTreeMap<Constraints, BTreeMap<Share, Arc<Sizes>>>,
}

/// The most remembered: 1,024 of some hundred bytes each.
const KNOWN_MAX: usize = 1_024;

impl KnownSizes {
    pub(crate) fn of(&self, facts: u64, request: &Request) -> Option<Arc<Sizes>> {
        let known = self.sizes.get(&request.constraints).filter(|_| self.facts == facts)?;
        known.get(&request.ask.share).cloned()
    }

    pub(crate) fn remember(&mut self, facts: u64, request: &Request, sizes: &Arc<Sizes>) {
        if self.facts != facts || self.count >= KNOWN_MAX {
            *self = Self { facts, ..Self::default() };
        }
        self.count = self.count.saturating_add(1);
        let known = self.sizes.entry(request.constraints.clone()).or_default();
        known.insert(request.ask.share, sizes.clone());
    }
}

impl FromIterator<u64> for Sizes {
    fn from_iter<I: IntoIterator<Item = u64>>(all: I) -> Self {
        let mut sizes = BTreeMap::<u64, u64>::new();
        for bytes in all {
            let count = sizes.entry(bytes).or_default();
            *count = count.saturating_add(1);
        }
        Self(sizes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What so many devices need at the least, and the bound on each with so much left.
    fn check(sizes: &[u64], devices: u64, left: u64) -> (Option<u64>, Option<u64>) {
        let sizes: Sizes = sizes.iter().copied().collect();
        (sizes.needed(devices), sizes.bound(devices, left))
    }

    #[test]
    fn a_quota_bounds_the_sum_of_a_set_and_not_each_device_by_its_part() {
        assert_eq!(check(&[24, 80], 2, 130), (Some(104), Some(80)));
        assert_eq!(check(&[24, 24, 80, 80], 2, 130), (Some(48), Some(24)));
        assert_eq!(check(&[24, 24, 80, 80], 2, 160), (Some(48), Some(80)));
        assert_eq!(check(&[24, 24], 2, 47), (Some(48), None));
        // Any two within the bound have to be within the quota, for placement may choose any.
        assert_eq!(check(&[24, 80, 80], 2, 130), (Some(160), None));
        assert_eq!(check(&[24], 2, 130), (None, None));
    }

    #[test]
    fn where_the_quota_is_not_reached_there_are_devices_enough_within_the_bound() {
        for sizes in [vec![1, 2, 3], vec![1, 1, 5, 5, 9], vec![7, 7, 7], vec![2, 9, 9, 9]] {
            for (devices, left) in (1..4).flat_map(|devices| (0..30).map(move |it| (devices, it))) {
                let (needed, bound) = check(&sizes, devices, left);
                assert_eq!(needed.is_some_and(|it| it <= left), bound.is_some(), "{sizes:?}");
            }
        }
    }
}
