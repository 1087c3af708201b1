//! The fragmentation measure: how much of what is free the usual requests could not use.
//!
//! Source: Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient
//! Descent", USENIX ATC 2023. A class m of the mix has popularity p(m); node n has free shares R(g), in thousandths of
//! a device, on its devices g.
//!
//! F(n, m) = Σ R(g), where m could not start on n now (host CPU, too few devices with room, wrong model) or needs no
//! device; else the Σ of those R(g) that are too small for it or of the wrong model. F(n) = Σ p(m) F(n, m).
//! A place is scored by d, what F(n) shrinks by it, in steps: see [`THRESHOLDS`]. Several kinds of devices may be on
//! one node. Here p is a weight of 65,536, so F is in thousandths of a device × 65,536.

use super::{
    kind::{KindNumber, Kinds},
    mix::{Mix, WEIGHT_ONE},
};
use crate::inventory::part_of;

/// 2,500 thousandths: one step of the score is a tenth of a device near zero.
///
/// The source has 1,000. Wider steps make more nodes equal, and among equals the fixed order fills node after node,
/// which is worth several points; at this width, the learned mix and the penalty of scarce models cost nothing elsewhere.
pub(super) const WIDTH: i64 = 2_500;

/// score(d) = ⌊100 / (1 + exp(−d / S))⌋ with S = [`WIDTH`], without a float: the score is at least k, for k from 1 to
/// 99, if and only if d ≥ S × ln(k / (100 − k)). These are the values of ln(k / (100 − k)) in millionths, rounded up;
/// a score is the number of them that d reaches.
#[rustfmt::skip]
const THRESHOLDS: [i64; 99] = [
    -4_595_119, -3_891_820, -3_476_098, -3_178_053, -2_944_438, -2_751_535, -2_586_689, -2_442_347, -2_313_634,
    -2_197_224, -2_090_741, -1_992_430, -1_900_958, -1_815_289, -1_734_601, -1_658_228, -1_585_627, -1_516_347,
    -1_450_010, -1_386_294, -1_324_925, -1_265_666, -1_208_311, -1_152_679, -1_098_612, -1_045_968, -994_622,
    -944_461, -895_384, -847_297, -800_119, -753_771, -708_185, -663_294, -619_039, -575_364, -532_216, -489_548,
    -447_312, -405_465, -363_965, -322_773, -281_851, -241_162, -200_670, -160_342, -120_144, -80_042, -40_005, 0,
    40_006, 80_043, 120_145, 160_343, 200_671, 241_163, 281_852, 322_774, 363_966, 405_466, 447_313, 489_549, 532_217,
    575_365, 619_040, 663_295, 708_186, 753_772, 800_120, 847_298, 895_385, 944_462, 994_623, 1_045_969, 1_098_613,
    1_152_680, 1_208_312, 1_265_667, 1_324_926, 1_386_295, 1_450_011, 1_516_348, 1_585_628, 1_658_229, 1_734_602,
    1_815_290, 1_900_959, 1_992_431, 2_090_742, 2_197_225, 2_313_635, 2_442_348, 2_586_690, 2_751_536, 2_944_439,
    3_178_054, 3_476_099, 3_891_821, 4_595_120,
];

/// The score of a place by which F(n), in thousandths × 65,536, shrinks from `before` to `after`; see [`THRESHOLDS`].
pub(super) fn score(before: u64, after: u64) -> i32 {
    let shrinks = i64::try_from(before)
        .unwrap_or(i64::MAX)
        .saturating_sub(i64::try_from(after).unwrap_or(i64::MAX));
    // In millionths of S: 1,024 devices × 1,000 × 65,536 × 15.3 stay far below 2⁶³.
    let scale = WIDTH.saturating_mul(i64::try_from(WEIGHT_ONE).unwrap_or(i64::MAX));
    let reached =
        |threshold: &i64| threshold.saturating_mul(scale) <= shrinks.saturating_mul(1_000_000);
    i32::try_from(THRESHOLDS.partition_point(reached)).unwrap_or(i32::MAX)
}

/// The free share of a device and its kind.
pub(super) type Free = (KindNumber, u32);

/// The popular classes, laid out for the measure, and how scarce each kind is.
#[derive(Debug, Default)]
pub(super) struct Weights {
    classes: Vec<WeightedClass>,
    /// The same by kind, for nodes of one kind.
    by_kind: Vec<OneKind>,
    /// How sought after each kind is by those who name its model: r / (1 + r), in thousandths.
    pressure: Vec<u32>,
}

#[derive(Debug)]
struct WeightedClass {
    weight: u64,
    host_cpu_millis: u64,
    devices: u32,
    /// By kind; `None`: such a device never does.
    needs: Vec<Option<u32>>,
}

/// All classes, seen from nodes that have one kind of devices.
#[derive(Debug, Default)]
struct OneKind {
    /// The weight of those that such a node never serves.
    never: u64,
    groups: Vec<Group>,
}

/// Classes that differ in host CPU alone.
#[derive(Debug)]
struct Group {
    need: u32,
    devices: u32,
    weight: u64,
    /// Host CPU, and the weight of all that need at most that.
    by_cpu: Vec<(u64, u64)>,
}

impl Weights {
    /// `capacity`: how many devices of each kind there are.
    pub(super) fn of(mix: &Mix, kinds: &Kinds, capacity: &[u64]) -> Self {
        let popular = mix.popular();
        let mut classes = Vec::with_capacity(popular.len());
        for (class, weight) in &popular {
            let constraints = crate::request::Constraints {
                models: class.models.clone(),
                ..crate::request::Constraints::default()
            };
            let demand = super::Demand { ask: class.ask, constraints: &constraints };
            classes.push(WeightedClass {
                weight: *weight,
                host_cpu_millis: class.host_cpu_millis,
                devices: class.ask.devices,
                needs: kinds.needs(demand),
            });
        }
        let names: Vec<bool> = popular.iter().map(|(class, _)| !class.models.is_empty()).collect();
        let by_kind = (0..kinds.len()).map(|kind| OneKind::of(&classes, kind)).collect();
        let pressure = pressure(&classes, &names, capacity);
        Self { classes, by_kind, pressure }
    }

    /// r / (1 + r) of a kind, in thousandths.
    pub(super) fn pressure(&self, kind: KindNumber) -> u32 {
        self.pressure.get(kind as usize).copied().unwrap_or(0)
    }

    /// F(n) of a node with so much free host CPU and these devices, in thousandths × 65,536.
    pub(super) fn unusable(&self, host_cpu_millis: u64, devices: &[Free]) -> u64 {
        let Some((kind, _)) = devices.first() else { return 0 };
        if devices.iter().all(|(other, _)| other == kind)
            && let Some(one) = self.by_kind.get(*kind as usize)
        {
            return one.unusable(host_cpu_millis, devices);
        }
        let of = |class: &WeightedClass| {
            class.weight.saturating_mul(class.unusable(host_cpu_millis, devices))
        };
        self.classes.iter().map(of).fold(0, u64::saturating_add)
    }
}

impl WeightedClass {
    fn unusable(&self, host_cpu_millis: u64, devices: &[Free]) -> u64 {
        let (mut all, mut small, mut fitting) = (0u64, 0u64, 0u32);
        for (kind, free) in devices {
            let need = self.needs.get(*kind as usize).copied().flatten();
            all = all.saturating_add(u64::from(*free));
            if need.is_some_and(|need| *free >= need) {
                fitting = fitting.saturating_add(1);
            } else {
                small = small.saturating_add(u64::from(*free));
            }
        }
        let cpu = self.host_cpu_millis == 0 || self.host_cpu_millis <= host_cpu_millis;
        if cpu && self.devices > 0 && fitting >= self.devices { small } else { all }
    }
}

impl OneKind {
    fn of(classes: &[WeightedClass], kind: usize) -> Self {
        let mut one = Self::default();
        let mut usable: Vec<(u32, u32, u64, u64)> = Vec::new();
        for class in classes {
            match class.needs.get(kind).copied().flatten() {
                Some(need) if class.devices > 0 => {
                    usable.push((need, class.devices, class.host_cpu_millis, class.weight));
                }
                _ => one.never = one.never.saturating_add(class.weight),
            }
        }
        usable.sort_unstable();
        for (need, devices, cpu, weight) in usable {
            let same = one.groups.last_mut().filter(|it| (it.need, it.devices) == (need, devices));
            if let Some(group) = same {
                group.weight = group.weight.saturating_add(weight);
                group.by_cpu.push((cpu, group.weight));
            } else {
                one.groups.push(Group { need, devices, weight, by_cpu: vec![(cpu, weight)] });
            }
        }
        one
    }

    fn unusable(&self, host_cpu_millis: u64, devices: &[Free]) -> u64 {
        let all = devices.iter().map(|(_, free)| u64::from(*free)).fold(0, u64::saturating_add);
        let mut sum = self.never.saturating_mul(all);
        for group in &self.groups {
            let (mut small, mut fitting) = (0u64, 0u32);
            for (_, free) in devices {
                if *free >= group.need {
                    fitting = fitting.saturating_add(1);
                } else {
                    small = small.saturating_add(u64::from(*free));
                }
            }
            let starting =
                if fitting >= group.devices { group.starting(host_cpu_millis) } else { 0 };
            let stuck = group.weight.saturating_sub(starting);
            sum = sum
                .saturating_add(starting.saturating_mul(small))
                .saturating_add(stuck.saturating_mul(all));
        }
        sum
    }
}

impl Group {
    /// The weight of the classes for which this much host CPU is enough.
    fn starting(&self, host_cpu_millis: u64) -> u64 {
        let enough = self.by_cpu.partition_point(|(cpu, _)| *cpu <= host_cpu_millis);
        let last = enough.checked_sub(1).and_then(|at| self.by_cpu.get(at));
        last.map_or(0, |(_, weight)| *weight)
    }
}

/// By kind: r / (1 + r) in thousandths, where r is the share of all demand that names the kind's model, over the share
/// of all capacity that is of the models named. In r = 1 those who name a model would fill it if all of the cluster
/// was wanted.
fn pressure(classes: &[WeightedClass], names: &[bool], capacity: &[u64]) -> Vec<u32> {
    let total = capacity.iter().copied().fold(0, u64::saturating_add);
    let mut demand = 0u64;
    let mut sought = vec![0u64; capacity.len()];
    for (class, names) in classes.iter().zip(names) {
        let most = class.needs.iter().flatten().copied().max().unwrap_or(0);
        let wants =
            (class.weight).saturating_mul(u64::from(class.devices)).saturating_mul(u64::from(most));
        demand = demand.saturating_add(wants);
        if !names {
            continue;
        }
        let does = |kind: usize| class.needs.get(kind).is_some_and(Option::is_some);
        let there = capacity.iter().enumerate().filter(|(kind, _)| does(*kind));
        let there = there.map(|(_, count)| *count).fold(0, u64::saturating_add);
        // In thousandths: wants ÷ (there ÷ total).
        let per = part_of(wants, total, there.max(1));
        for (kind, sought) in sought.iter_mut().enumerate() {
            if does(kind) {
                *sought = sought.saturating_add(per);
            }
        }
    }
    let of = |sought: &u64| {
        let pressure = part_of(1_000, *sought, sought.saturating_add(demand).max(1));
        u32::try_from(pressure).unwrap_or(u32::MAX)
    };
    sought.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        inventory::DeviceFacts,
        placement::Demand,
        request::{Ask, Constraints, Share},
    };

    #[test]
    #[allow(clippy::float_arithmetic, reason = "the formula is what the table is held against")]
    fn the_table_is_the_formula() {
        for (at, threshold) in THRESHOLDS.iter().enumerate() {
            let points = f64::from(u32::try_from(at + 1).unwrap());
            let exact = (points / (100.0 - points)).ln() * 1e6;
            let off = *threshold as f64 - exact;
            assert!((-1e-6..1.0).contains(&off), "{points} points: {threshold}, exactly {exact}");
        }
        let one = WEIGHT_ONE * 1_000;
        assert_eq!(score(one, one), 50, "what changes nothing has half of all points");
        assert_eq!(score(one, one + 1), 49, "what makes it worse, however little, has less");
        assert_eq!((score(one * 100, 0), score(0, one * 100)), (99, 0));
        // A tenth of a device is one point near zero.
        assert_eq!((score(one / 10 + WEIGHT_ONE, 0), score(one / 11, 0)), (51, 50));
    }

    fn facts(model: &str) -> Arc<DeviceFacts> {
        Arc::new(DeviceFacts {
            uuid: "d".into(),
            index: 0,
            pci_address: None,
            vendor: "v".into(),
            model: model.into(),
            compute_capability: None,
            frameworks: Vec::new(),
            memory_total_bytes: 1 << 34,
            memory_driver_bytes: 0,
            memory_limit_bytes: None,
            memory_reserve_bytes: 0,
            slots: 10,
            answers_at_once: true,
        })
    }

    /// A quarter each: half a device; a whole one with 8 cores; two whole ones; a whole B.
    fn weights() -> Weights {
        let mut kinds = Kinds::default();
        assert_eq!((kinds.of(&facts("A")), kinds.of(&facts("B"))), (0, 1));
        let mut mix = Mix::default();
        let half = Share::Part { slots: Some(5), memory_bytes: None };
        let named = Constraints { models: vec!["b".into()], ..Constraints::default() };
        let busy = Constraints { host_cpu_millis: 8_000, ..Constraints::default() };
        let any = Constraints::default();
        // So often that the request that every mix starts with is not among the popular ones.
        for _ in 0..100 {
            mix.learn(Demand { ask: Ask { devices: 1, share: half }, constraints: &any });
            for (devices, constraints) in [(1, &busy), (2, &any), (1, &named)] {
                let ask = Ask { devices, share: Share::Exclusive };
                mix.learn(Demand { ask, constraints });
            }
        }
        Weights::of(&mix, &kinds, &[6, 2])
    }

    /// F(n) in thousandths of a device.
    fn measured(host_cpu_millis: u64, devices: &[Free]) -> u64 {
        weights().unusable(host_cpu_millis, devices) / WEIGHT_ONE
    }

    #[test]
    fn unusable_is_what_the_usual_requests_could_not_use() {
        // Two idle As: only who wants a B can use nothing of them.
        assert_eq!(measured(8_000, &[(0, 1_000), (0, 1_000)]), 2_000 / 4);
        // Without the cores, the second quarter cannot start either.
        assert_eq!(measured(7_999, &[(0, 1_000), (0, 1_000)]), 2 * 2_000 / 4);
        // One A and 400: a half could use the A alone, a whole one too; pairs and Bs nothing.
        assert_eq!(measured(8_000, &[(0, 1_000), (0, 400)]), (400 + 400 + 1_400 + 1_400) / 4);
        // Of an A and a B, who wants a B can use that; a pair takes both.
        assert_eq!(measured(8_000, &[(0, 1_000), (1, 1_000)]), 1_000 / 4);
        assert_eq!(measured(8_000, &[]), 0);
    }

    #[test]
    fn a_node_of_one_kind_is_measured_as_any_node_is() {
        let weights = weights();
        for cpu in [0, 7_999, 8_000, 9_000] {
            for (first, second) in [(1_000, 1_000), (1_000, 500), (499, 999), (0, 1_000), (0, 0)] {
                let devices = [(0, first), (0, second)];
                let slow = (weights.classes.iter())
                    .map(|class| class.weight * class.unusable(cpu, &devices))
                    .sum::<u64>();
                assert_eq!(weights.unusable(cpu, &devices), slow, "{cpu} {devices:?}");
            }
        }
    }

    #[test]
    fn pressure_is_on_what_is_named_more_than_it_is_there() {
        let weights = weights();
        // Demand: 500 + 1000 + 2000 + 1000 of a quarter each; 1000 of these name B, which is 2 of 8 devices:
        // r = (1000 / 4500) / (2 / 8) = 0.889, and r / (1 + r) = 0.470.
        assert_eq!((weights.pressure(0), weights.pressure(1)), (0, 470));
    }
}
